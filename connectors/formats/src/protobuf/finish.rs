//! Columns as arrow has them.
//!
//! Invariant: of entries of a map with the same key only the last is there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, LargeListArray, ListArray, MapArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Fields};

use super::column::{Column, Row, Values};
use crate::typed::plain;

impl Row<'_> {
    pub(super) fn finish(self) -> Result<Vec<ArrayRef>, String> {
        self.columns.into_iter().map(Column::finish).collect()
    }
}

impl Column<'_> {
    fn finish(self) -> Result<ArrayRef, String> {
        let Column { plan, valid, values, .. } = self;
        let rows = valid.len();
        let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
        Ok(match (values, &plan.to) {
            (Values::Plain(store), to) => store.finish(to, nulls)?,
            (Values::Struct(row), DataType::Struct(fields)) => Arc::new(structs(fields, row.finish()?, nulls, rows)?),
            (Values::List { items, offsets }, DataType::List(item)) => {
                let offsets = OffsetBuffer::new(offsets.into());
                Arc::new(ListArray::try_new(Arc::clone(item), offsets, items.finish()?, nulls).map_err(plain)?)
            }
            (Values::List { items, offsets }, DataType::LargeList(item)) => {
                let offsets = OffsetBuffer::new(offsets.into_iter().map(i64::from).collect());
                Arc::new(LargeListArray::try_new(Arc::clone(item), offsets, items.finish()?, nulls).map_err(plain)?)
            }
            (Values::Map { entries, offsets, replaced, .. }, DataType::Map(field, sorted)) => {
                let DataType::Struct(fields) = field.data_type() else {
                    return Err(format!("{} has no entries", plan.to));
                };
                let (columns, offsets) = last_ones(entries.finish()?, offsets, &replaced)?;
                let entries = columns.first().map_or(0, |keys| keys.len());
                let entries = structs(fields, columns, None, entries)?;
                let offsets = OffsetBuffer::new(offsets.into());
                let map = MapArray::try_new(Arc::clone(field), offsets, entries, nulls, *sorted);
                Arc::new(map.map_err(plain)?)
            }
            (_, to) => return Err(format!("column '{}' is not read as {to}", plan.name)),
        })
    }
}

fn structs(
    fields: &Fields,
    columns: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<StructArray, String> {
    StructArray::try_new_with_length(fields.clone(), columns, nulls, rows).map_err(plain)
}

/// Entries without those that others replace.
fn last_ones(
    columns: Vec<ArrayRef>,
    offsets: Vec<i32>,
    replaced: &[usize],
) -> Result<(Vec<ArrayRef>, Vec<i32>), String> {
    if replaced.is_empty() {
        return Ok((columns, offsets));
    }
    let entries = columns.first().map_or(0, |keys| keys.len());
    let mut kept = vec![true; entries];
    replaced.iter().for_each(|at| kept[*at] = false);
    // How many are gone before each row: both grow.
    let mut gone = replaced.iter().peekable();
    let mut before = 0;
    let offsets = offsets.into_iter().map(|offset| {
        while gone.next_if(|at| (**at as i64) < i64::from(offset)).is_some() {
            before += 1;
        }
        offset - before
    });
    let offsets = offsets.collect();
    let kept = BooleanArray::from(kept);
    let columns = columns.iter().map(|column| filter(column, &kept).map_err(plain)).collect::<Result<_, _>>()?;
    Ok((columns, offsets))
}
