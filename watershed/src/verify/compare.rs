//! Rows of the same windows, from the batch answer and from the table, matched by key: floats at 1e-9 relative, all else
//! exactly.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::dataframe::DataFrame;
use watershed_core::{Error, Result};

use super::{Difference, Verification};
use crate::batch::in_query;

/// Relative to the larger value, and to a thousandth where both are smaller.
const TOLERANCE: f64 = 1e-9;
const SMALL: f64 = 1e-3;

/// Compares two sets of rows and adds what differs.
pub(super) async fn compare(
    expected: DataFrame,
    found: DataFrame,
    key: &[String],
    show: usize,
    told: &mut Verification,
) -> Result<()> {
    let expected = expected.collect().await.map_err(in_query)?;
    let schema = found.schema().inner().clone();
    let found = found.collect().await.map_err(in_query)?;
    let rows = |batches: &[RecordBatch]| batches.iter().map(|b| b.num_rows()).sum::<usize>();
    let (wanted, there) = (rows(&expected), rows(&found));
    told.expected += wanted as u64;
    told.found += there as u64;
    let mut columns = vec![];
    for (i, field) in schema.fields().iter().enumerate() {
        let mut parts = vec![];
        for batch in expected.iter().chain(&found) {
            parts.push(cast(batch.column(i), field.data_type()).map_err(odd)?);
        }
        if parts.is_empty() {
            return Ok(());
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        columns.push(concat(&parts).map_err(odd)?);
    }
    let both = Both::new(schema, columns, key)?;
    both.differences(wanted, show, told)
}

/// The rows of both sides, one after the other.
struct Both {
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    key: Vec<usize>,
    keys: Rows,
    /// Of columns that are neither key nor float.
    exact: Rows,
    floats: Vec<ArrayRef>,
}

impl Both {
    fn new(schema: SchemaRef, columns: Vec<ArrayRef>, key: &[String]) -> Result<Both> {
        let floats: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].data_type().is_floating()).collect();
        let mut key: Vec<usize> = key.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        if key.is_empty() {
            // All that can be compared exactly tells rows apart.
            key = (0..columns.len()).filter(|i| !floats.contains(i)).collect();
        }
        let exact: Vec<usize> = (0..columns.len()).filter(|i| !key.contains(i) && !floats.contains(i)).collect();
        let of = |which: &[usize]| which.iter().map(|i| columns[*i].clone()).collect::<Vec<_>>();
        let (keys, exact) = (encoded(&of(&key))?, encoded(&of(&exact))?);
        let as_doubles = floats.iter().map(|i| cast(&columns[*i], &DataType::Float64).map_err(odd));
        let floats = as_doubles.collect::<Result<_>>()?;
        Ok(Both { schema, columns, key, keys, exact, floats })
    }

    /// Rows below `wanted` are the answer's.
    fn differences(&self, wanted: usize, show: usize, told: &mut Verification) -> Result<()> {
        let mut by_key: BTreeMap<&[u8], (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for row in 0..self.columns.first().map_or(0, |c| c.len()) {
            let bytes = self.keys.row(row);
            let (answer, table) = by_key.entry(bytes.data()).or_default();
            if row < wanted { answer.push(row) } else { table.push(row) }
        }
        for (mut answer, table) in by_key.into_values() {
            let mut left = vec![];
            for row in table {
                match answer.iter().position(|other| self.same(*other, row)) {
                    Some(at) => drop(answer.swap_remove(at)),
                    None => left.push(row),
                }
            }
            answer.sort_unstable();
            let pairs = answer.len().min(left.len());
            for (expected, found) in answer.drain(..pairs).zip(left.drain(..pairs)) {
                told.different += 1;
                if told.shown.len() < show {
                    let rest: Vec<usize> = (0..self.columns.len()).filter(|i| !self.key.contains(i)).collect();
                    let key = self.text(expected, &self.key)?;
                    let (expected, found) = (self.text(expected, &rest)?, self.text(found, &rest)?);
                    told.shown.push(Difference::Different { key, expected, found });
                }
            }
            let all: Vec<usize> = (0..self.columns.len()).collect();
            told.missing += answer.len() as u64;
            told.extra += left.len() as u64;
            for row in answer.into_iter().take(show.saturating_sub(told.shown.len())) {
                told.shown.push(Difference::Missing { expected: self.text(row, &all)? });
            }
            for row in left.into_iter().take(show.saturating_sub(told.shown.len())) {
                told.shown.push(Difference::Extra { found: self.text(row, &all)? });
            }
        }
        Ok(())
    }

    fn same(&self, a: usize, b: usize) -> bool {
        let near_all = |column: &ArrayRef| {
            let floats = column.as_primitive::<Float64Type>();
            match (floats.is_valid(a), floats.is_valid(b)) {
                (true, true) => near(floats.value(a), floats.value(b)),
                (one, other) => one == other,
            }
        };
        (self.exact.num_rows() == 0 || self.exact.row(a) == self.exact.row(b)) && self.floats.iter().all(near_all)
    }

    fn text(&self, row: usize, columns: &[usize]) -> Result<Vec<(String, String)>> {
        let value = |i: &usize| Ok((self.schema.field(*i).name().clone(), shown(&self.columns[*i], row)?));
        columns.iter().map(value).collect()
    }
}

fn near(a: f64, b: f64) -> bool {
    let finite = a.is_finite() && b.is_finite();
    a == b || (a.is_nan() && b.is_nan()) || (finite && (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(SMALL))
}

/// A value as text.
pub(super) fn shown(column: &ArrayRef, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    Ok(ArrayFormatter::try_new(column.as_ref(), &options).map_err(odd)?.value(row).to_string())
}

/// Columns that can be compared as rows: of types that cannot, their text.
pub(super) fn comparable(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let fit = |column: &ArrayRef| -> Result<ArrayRef> {
        if RowConverter::supports_fields(&[SortField::new(column.data_type().clone())]) {
            return Ok(column.clone());
        }
        let texts = (0..column.len()).map(|row| shown(column, row)).collect::<Result<Vec<_>>>()?;
        Ok(std::sync::Arc::new(arrow::array::StringArray::from(texts)))
    };
    columns.iter().map(fit).collect()
}

fn encoded(columns: &[ArrayRef]) -> Result<Rows> {
    let columns = comparable(columns)?;
    let converter =
        RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect()).map_err(odd)?;
    converter.convert_columns(&columns).map_err(odd)
}

pub(super) fn odd(e: ArrowError) -> Error {
    Error::input(format!("the table and the answer cannot be compared: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_near_or_not() {
        for (a, b, expected) in [
            (1e9, 1e9 + 0.5, true),
            (1e9, 1e9 + 2.0, false),
            (0.0, 1e-13, true),
            (0.0, 1e-11, false),
            (f64::NAN, f64::NAN, true),
            (f64::INFINITY, 1.0, false),
        ] {
            assert_eq!(near(a, b), expected, "{a} {b}");
        }
    }
}
