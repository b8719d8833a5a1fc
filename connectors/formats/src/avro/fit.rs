//! Values of a writer's schema as the columns of a table.
//!
//! What widens without loss is taken ([`widen::holds`]): `int` as BIGINT, `float` as DOUBLE, decimals of fewer digits, enums as
//! text. Besides, times are taken in any unit, what is finer than the column's being cut off; `fixed` is BYTEA; and fields
//! that a nested record lacks are NULL. Nothing is parsed and no number is cut.
//!
//! Invariant: whether a type fits is known from the schemas alone; then only a time beyond the column's range does not.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields};
use watershed_core::widen;

use crate::typed::{plain, sql_name};

/// Why a column of type `to` may not have values of type `from`; of structs the field that does not fit is named.
pub(crate) fn misfit(name: &str, to: &DataType, from: &DataType) -> Option<String> {
    if fits(to, from) {
        return None;
    }
    if let (DataType::Struct(to), DataType::Struct(from)) = (to, from) {
        return to.iter().find_map(|field| {
            let name = format!("{name}.{}", field.name());
            match from.iter().find(|other| other.name() == field.name()) {
                Some(other) => misfit(&name, field.data_type(), other.data_type()),
                None => {
                    (!field.is_nullable()).then(|| format!("column '{name}' is NOT NULL, and there is no such field"))
                }
            }
        });
    }
    Some(format!("column '{name}' is {}, which does not hold its {}", sql_name(to), sql_name(from)))
}

/// Whether a column of type `to` may have values of type `from`.
fn fits(to: &DataType, from: &DataType) -> bool {
    use DataType::*;
    match (to, from) {
        (Timestamp(..), Timestamp(..)) | (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Binary | LargeBinary | BinaryView, FixedSizeBinary(_)) => true,
        (Struct(to), Struct(from)) => to.iter().all(|field| {
            let found = from.iter().find(|other| other.name() == field.name());
            found.map_or(field.is_nullable(), |other| fits(field.data_type(), other.data_type()))
        }),
        (List(to), List(from)) => fits(to.data_type(), from.data_type()),
        (Map(to, _), Map(from, _)) => match (to.data_type(), from.data_type()) {
            (Struct(to), Struct(from)) => {
                to.len() == from.len() && to.iter().zip(from).all(|(to, from)| fits(to.data_type(), from.data_type()))
            }
            _ => false,
        },
        _ => widen::holds(to, from),
    }
}

/// Values that fit, as the column's type.
pub(crate) fn fit(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    use DataType::*;
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), to) {
        (Struct(from), Struct(fields)) => {
            let structs = array.as_struct();
            let columns = fields.iter().map(|field| match from.iter().position(|other| other.name() == field.name()) {
                None => Ok(new_null_array(field.data_type(), array.len())),
                Some(at) => fit(structs.column(at), field.data_type()),
            });
            let columns = columns.collect::<Result<_, _>>()?;
            Ok(Arc::new(by_place(structs, fields, columns)?))
        }
        (List(_), List(item)) => list(array.as_list::<i32>(), item),
        (LargeList(_), LargeList(item)) => list(array.as_list::<i64>(), item),
        (Map(..), Map(entries, sorted)) => {
            let Struct(fields) = entries.data_type() else { return Err(format!("{to} has no entries")) };
            let map = array.as_map();
            let columns =
                map.entries().columns().iter().zip(fields).map(|(column, field)| fit(column, field.data_type()));
            let columns = columns.collect::<Result<_, _>>()?;
            let fitted = by_place(map.entries(), fields, columns)?;
            let nulls = map.nulls().cloned();
            let map = MapArray::try_new(Arc::clone(entries), map.offsets().clone(), fitted, nulls, *sorted);
            Ok(Arc::new(map.map_err(plain)?))
        }
        _ => {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &strict).map_err(plain)
        }
    }
}

fn by_place(structs: &StructArray, fields: &Fields, columns: Vec<ArrayRef>) -> Result<StructArray, String> {
    let nulls = structs.nulls().cloned();
    StructArray::try_new_with_length(fields.clone(), columns, nulls, structs.len()).map_err(plain)
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef) -> Result<ArrayRef, String> {
    let values = fit(list.values(), item.data_type())?;
    let fitted = GenericListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned());
    Ok(Arc::new(fitted.map_err(plain)?))
}
