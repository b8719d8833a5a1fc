//! The order in which rows are written anew: sorted, or along a Z-order curve, so that bounds of files and row groups say more.
//!
//! Rows are put in order within a bin, in memory. A file says in its log entry how it was put in order (the tag `watershed.order`),
//! so that a partition is written anew only once something else came to it.

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use watershed_core::{Error, Result};

/// The tag of files that were put in order.
pub(crate) const TAG: &str = "watershed.order";

/// Bytes of such a number.
const PRECISION: usize = 8;

/// How rows are put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// By columns, the first of them first.
    Sorted(Vec<String>),
    /// By all columns alike.
    ZOrder(Vec<String>),
}

impl RowOrder {
    pub(crate) fn columns(&self) -> &[String] {
        match self {
            RowOrder::Sorted(columns) | RowOrder::ZOrder(columns) => columns,
        }
    }

    /// What a file's tag says.
    pub(crate) fn tag(&self) -> String {
        let how = match self {
            RowOrder::Sorted(_) => "sorted",
            RowOrder::ZOrder(_) => "z-order",
        };
        format!("{how}({})", self.columns().join(","))
    }

    /// Errors unless rows of these columns can be put in order.
    pub(crate) fn check(&self, location: &str, files: &SchemaRef) -> Result<()> {
        if self.columns().is_empty() {
            return Err(Error::input(format!("table {location}: an order has at least one column")));
        }
        for name in self.columns() {
            let field = files.field_with_name(name).map_err(|_| {
                let names: Vec<&str> = files.fields().iter().map(|f| f.name().as_str()).collect();
                Error::input(format!(
                    "table {location}: its files have no column `{name}` to be put in order by; they have {}",
                    names.join(", ")
                ))
            })?;
            if field.data_type().is_nested() {
                return Err(Error::input(format!(
                    "table {location}: column `{name}` is {}, by which rows are not put in order",
                    field.data_type()
                )));
            }
        }
        Ok(())
    }

    /// The rows' numbers in their new order. Equal rows keep theirs.
    pub(crate) fn indices(&self, rows: &RecordBatch) -> Result<UInt32Array> {
        let fail = |e| Error::bug(format!("putting rows in order: {e}"));
        let last = u32::try_from(rows.num_rows()).map_err(|_| {
            Error::input("more rows than fit 32 bits cannot be put in order at once; take a smaller file size")
        })?;
        let numbers = UInt32Array::from_iter_values(0..last);
        let found =
            |name: &String| rows.column_by_name(name).cloned().ok_or_else(|| Error::bug(format!("no `{name}`")));
        let columns = self.columns().iter().map(found).collect::<Result<Vec<_>>>()?;
        match self {
            RowOrder::Sorted(_) => {
                let options = Some(SortOptions { descending: false, nulls_first: true });
                let mut by: Vec<SortColumn> =
                    columns.into_iter().map(|values| SortColumn { values, options }).collect();
                by.push(SortColumn { values: std::sync::Arc::new(numbers), options });
                lexsort_to_indices(&by, None).map_err(fail)
            }
            RowOrder::ZOrder(_) => {
                let places = columns.iter().map(|column| ranks(column)).collect::<Result<Vec<_>>>()?;
                let curve: Vec<Vec<u8>> = (0..rows.num_rows())
                    .map(|row| interleaved(&places.iter().map(|of| of[row]).collect::<Vec<_>>()))
                    .collect();
                let mut order: Vec<u32> = numbers.values().to_vec();
                order.sort_by(|a, b| curve[*a as usize].cmp(&curve[*b as usize]));
                Ok(UInt32Array::from(order))
            }
        }
    }
}

/// Where each value stands among the column's, as a number that compares as the values do: values of any kind are so spread evenly.
fn ranks(column: &dyn Array) -> Result<Vec<[u8; PRECISION]>> {
    let fail = |e| Error::bug(format!("putting rows in order: {e}"));
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())]).map_err(fail)?;
    let rows = converter.convert_columns(&[arrow::array::make_array(column.to_data())]).map_err(fail)?;
    let mut ranked: Vec<usize> = (0..rows.num_rows()).collect();
    ranked.sort_unstable_by(|a, b| rows.row(*a).cmp(&rows.row(*b)));
    let mut places = vec![[0; PRECISION]; rows.num_rows()];
    let all = (rows.num_rows() as u128).max(1);
    let mut rank = 0u128;
    for (i, row) in ranked.iter().enumerate() {
        if i > 0 && rows.row(ranked[i - 1]) != rows.row(*row) {
            rank = i as u128;
        }
        // Less than all, so that it fits.
        places[*row] = ((rank << 64) / all).to_be_bytes()[8..].try_into().unwrap_or_default();
    }
    Ok(places)
}

/// The bits of all values in turns, the highest first.
fn interleaved(values: &[[u8; PRECISION]]) -> Vec<u8> {
    let mut bits = vec![0u8; values.len() * PRECISION];
    let mut at = 0;
    for bit in 0..PRECISION * 8 {
        for value in values {
            let set = value[bit / 8] >> (7 - bit % 8) & 1;
            bits[at / 8] |= set << (7 - at % 8);
            at += 1;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn grid(side: i64) -> RecordBatch {
        // A scattered grid, with the second column as text.
        let at = |i: i64| (i * 7919) % (side * side);
        let xs: ArrayRef = Arc::new(Int64Array::from_iter_values((0..side * side).map(|i| at(i) / side)));
        let ys: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..side * side).map(|i| format!("{:03}", at(i) % side))));
        RecordBatch::try_from_iter([("x", xs), ("y", ys)]).unwrap()
    }

    #[test]
    fn both_columns_of_a_z_order_stay_close() {
        let rows = grid(16);
        let order = RowOrder::ZOrder(vec!["x".into(), "y".into()]).indices(&rows).unwrap();
        let mut seen = order.values().to_vec();
        seen.sort_unstable();
        assert_eq!(seen, (0..256).collect::<Vec<u32>>());
        let sorted = arrow::compute::take_record_batch(&rows, &order).unwrap();
        // A quarter of the rows covers half of each column's values.
        for quarter in 0..4 {
            let part = sorted.slice(quarter * 64, 64);
            for column in part.columns() {
                let text = arrow::compute::cast(column, &DataType::Utf8).unwrap();
                let text = arrow::array::AsArray::as_string::<i32>(&text).clone();
                let distinct: std::collections::BTreeSet<_> = text.iter().flatten().map(String::from).collect();
                assert_eq!(distinct.len(), 8, "quarter {quarter}");
            }
        }
    }

    #[test]
    fn sorted_by_the_first_column_first() {
        let rows = grid(4);
        let order = RowOrder::Sorted(vec!["y".into(), "x".into()]).indices(&rows).unwrap();
        let sorted = arrow::compute::take_record_batch(&rows, &order).unwrap();
        let ys = arrow::array::AsArray::as_string::<i32>(sorted.column(1)).clone();
        assert!(ys.iter().flatten().is_sorted());
    }

    #[test]
    fn columns_that_are_not_there_are_refused() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let schema: SchemaRef =
            Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("l", list, true)]).into();
        let refused = |columns: &[&str]| {
            let columns = columns.iter().map(|c| c.to_string()).collect();
            RowOrder::Sorted(columns).check("t", &schema).unwrap_err().to_string()
        };
        assert!(refused(&["b"]).contains("no column `b`") && refused(&["b"]).contains("they have a, l"));
        assert!(refused(&["l"]).contains("by which rows are not put in order"));
        assert!(refused(&[]).contains("at least one column"));
    }
}
