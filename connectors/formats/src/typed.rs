//! Columns as they are read, and as they are.
//!
//! What a payload has as a number or as text is read as text first ([`read_as`]) where arrow's readers would lose something
//! in silence: the fraction of a number in an integer column, digits of large numbers, the unit of a time. It then becomes
//! what the column is, the same way for all formats of text ([`crate::text`]).
//!
//! Invariant: rows stay in their places, whatever is in them.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, MapArray, OffsetSizeTrait, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::record_batch::RecordBatch;

use crate::apart::Attempted;
use crate::text::{Refused, Times, from_text};

/// Rows as they were read, as the columns are.
pub(crate) fn as_columns(rows: &RecordBatch, fields: &Fields, times: Times) -> Result<Attempted, String> {
    let mut all = Refused::new();
    let column = |(column, field): (&ArrayRef, &FieldRef)| {
        let (column, refused) = as_column(column, field, times)?;
        for (row, reason) in refused {
            all.entry(row).or_insert(reason);
        }
        Ok(column)
    };
    let columns = rows.columns().iter().zip(fields).map(column).collect::<Result<_, String>>()?;
    Ok(Attempted { columns, refused: all })
}

/// One of them. Reasons name the column.
pub(crate) fn as_column(column: &ArrayRef, field: &Field, times: Times) -> Result<(ArrayRef, Refused), String> {
    let named = |reason| format!("column '{}': {reason}", field.name());
    if column.data_type() == &DataType::Utf8 && field.data_type() != &DataType::Utf8 {
        let (column, refused) = from_text(column.as_string(), field.data_type(), times).map_err(named)?;
        return Ok((column, refused.into_iter().map(|(row, reason)| (row, named(reason))).collect()));
    }
    let column = typed(column, field.data_type(), times).map_err(named)?;
    Ok((column, Refused::new()))
}

/// As what a column is read; `None` for types that messages cannot have.
pub(crate) fn read_as(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match data_type {
        Boolean | Float32 | Float64 | Time32(_) | Time64(_) => data_type.clone(),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => data_type.clone(),
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Utf8,
        Decimal128(..) | Date32 | Date64 | Timestamp(..) => Utf8,
        List(item) => List(field(item)?),
        LargeList(item) => LargeList(field(item)?),
        Struct(fields) => Struct(fields.iter().map(field).collect::<Option<_>>()?),
        Map(entries, sorted) => Map(field(entries)?, *sorted),
        _ => return None,
    })
}

fn field(field: &FieldRef) -> Option<FieldRef> {
    Some(Arc::new(field.as_ref().clone().with_data_type(read_as(field.data_type())?)))
}

/// What was read within a column, as its type. A value that is none fails all of them: whose row it is in is not known.
fn typed(array: &ArrayRef, to: &DataType, times: Times) -> Result<ArrayRef, String> {
    use DataType::*;
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), to) {
        (Utf8, _) => match from_text(array.as_string(), to, times)? {
            (array, refused) if refused.is_empty() => Ok(array),
            (_, refused) => Err(refused.into_values().next().unwrap_or_default()),
        },
        (List(_), List(item)) => list(array.as_list::<i32>(), item, times),
        (LargeList(_), LargeList(item)) => list(array.as_list::<i64>(), item, times),
        (Struct(_), Struct(fields)) => structs(array.as_struct(), fields, times).map(|s| Arc::new(s) as ArrayRef),
        (Map(..), Map(entries, sorted)) => {
            let Struct(fields) = entries.data_type() else { return Err(format!("{to} has no entries")) };
            let map = array.as_map();
            let typed = structs(map.entries(), fields, times)?;
            let nulls = map.nulls().cloned();
            let map = MapArray::try_new(Arc::clone(entries), map.offsets().clone(), typed, nulls, *sorted);
            Ok(Arc::new(map.map_err(plain)?))
        }
        (from, _) => Err(format!("{from} is not read as {to}")),
    }
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef, times: Times) -> Result<ArrayRef, String> {
    let values = typed(list.values(), item.data_type(), times)?;
    let typed = GenericListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned());
    Ok(Arc::new(typed.map_err(plain)?))
}

fn structs(array: &StructArray, fields: &Fields, times: Times) -> Result<StructArray, String> {
    let columns = array.columns().iter().zip(fields);
    let columns = columns.map(|(column, field)| {
        typed(column, field.data_type(), times).map_err(|reason| format!("field '{}': {reason}", field.name()))
    });
    let columns = columns.collect::<Result<_, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len()).map_err(plain)
}

/// A type as SQL calls it.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INT".into(),
        Int64 => "BIGINT".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Date32 | Date64 => "DATE".into(),
        Timestamp(..) => "TIMESTAMP".into(),
        Utf8 | LargeUtf8 | Utf8View => "text".into(),
        Binary | LargeBinary | BinaryView => "BYTEA".into(),
        other => other.to_string(),
    }
}

/// An error of arrow's without the name of its kind.
pub(crate) fn plain(error: impl Display) -> String {
    let text = error.to_string();
    match text.split_once(" error: ") {
        Some((kind, rest)) if kind.len() < 24 => rest.to_string(),
        _ => text,
    }
}
