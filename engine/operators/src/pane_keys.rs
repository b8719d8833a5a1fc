//! Numbers for the keys of a shard's panes: a key is hashed once a pane, and from there on it is a number.
//!
//! Numbers are given in the order of first sight and kept until the table is made anew, which its owner does when most of
//! the numbers stand for keys that no open pane has.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// The keys of one shard by number.
pub(crate) struct PaneKeys {
    /// `None` when the window is the only key: its number is 0.
    table: Option<Box<dyn GroupValues>>,
    /// The keys in order of their numbers.
    columns: Vec<ArrayRef>,
    /// The number of each row of the batch in hand; kept for its memory.
    rows: Vec<usize>,
}

impl PaneKeys {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        let table = match schema.fields().is_empty() {
            true => None,
            false => Some(new_group_values(Arc::clone(schema), &GroupOrdering::None)?),
        };
        let columns = schema.fields().iter().map(|f| new_empty_array(f.data_type())).collect();
        Ok(PaneKeys { table, columns, rows: vec![] })
    }

    /// The numbers of a batch's keys.
    pub(crate) fn numbers(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let Some(table) = &mut self.table else { return Ok(vec![0; rows]) };
        let mut next = table.len();
        self.rows.clear();
        table.intern(keys, &mut self.rows)?;
        if table.len() > next {
            let mut fresh = vec![];
            for (row, number) in self.rows.iter().enumerate() {
                if *number == next {
                    fresh.push(row as u32);
                    next += 1;
                }
            }
            let fresh = UInt32Array::from(fresh);
            for (column, keys) in self.columns.iter_mut().zip(keys) {
                *column = concat(&[column.as_ref(), take(keys, &fresh, None)?.as_ref()])?;
            }
        }
        Ok(self.rows.iter().map(|number| *number as u32).collect())
    }

    /// The keys of some numbers.
    pub(crate) fn keys(&self, numbers: &[u32]) -> Result<Vec<ArrayRef>> {
        let numbers = UInt32Array::from(numbers.to_vec());
        self.columns.iter().map(|column| Ok(take(column, &numbers, None)?)).collect()
    }

    /// How many columns a key has.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.as_ref().map_or(1, |table| table.len())
    }

    pub(crate) fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|c| c.get_array_memory_size()).sum();
        columns + self.table.as_ref().map_or(0, |t| t.size()) + self.rows.capacity() * size_of::<usize>()
    }
}
