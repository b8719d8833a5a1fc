//! Rejected rows hold the columns of sources, which nobody chose for a table: names and types that Delta has no place for.
//!
//! A view's own columns are named and cast in its query, and refused otherwise; a rejected row must be kept whatever it is.
//! So here columns of other types become text, which can be cast back without loss, and names are bent until they fit.
//!
//! **Invariant:** any batch of the schema it was made for can be written; which column becomes what depends on the schema
//! alone, so that every run of a job agrees with its table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use watershed_core::{Error, Result};
use watershed_lake::delta_schema;

/// How rows of one schema are made fit for a table.
#[derive(Clone, Debug)]
pub(crate) struct Storable {
    schema: SchemaRef,
    /// For each column, whether it becomes text.
    as_text: Vec<bool>,
}

impl Storable {
    pub(crate) fn of(schema: &Schema) -> Storable {
        let mut fields: Vec<FieldRef> = vec![];
        let mut as_text = vec![];
        for field in schema.fields() {
            let text = !fits(field.data_type());
            let data_type = if text { DataType::Utf8 } else { field.data_type().clone() };
            fields.push(Field::new(free_name(field.name(), &fields), data_type, true).into());
            as_text.push(text);
        }
        Storable { schema: Arc::new(Schema::new(fields)), as_text }
    }

    /// The columns as they are written.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |(column, text): (&ArrayRef, &bool)| if *text { texts(column) } else { Ok(Arc::clone(column)) };
        let columns = rows.columns().iter().zip(&self.as_text).map(column).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| Error::bug(format!("rejected rows: {e}")))
    }
}

/// Whether every value of a type can be written to a table as it is.
fn fits(data_type: &DataType) -> bool {
    let exact = |t: &DataType| !matches!(t, DataType::Timestamp(TimeUnit::Nanosecond, _));
    let inner = match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    exact(inner) && delta_schema(&Schema::new(vec![Field::new("x", data_type.clone(), true)])).is_ok()
}

/// A name that a table can have beside those before it.
fn free_name(name: &str, taken: &[FieldRef]) -> String {
    let fits = |name: &str| delta_schema(&Schema::new(vec![Field::new(name, DataType::Int8, true)])).is_ok();
    let bent: String = name.chars().map(|c| if fits(&c.to_string()) { c } else { '_' }).collect();
    let bent = if bent.is_empty() { "_".to_string() } else { bent };
    let free = |name: &String| !taken.iter().any(|f| f.name().eq_ignore_ascii_case(name));
    let numbered = (2..).map(|n| format!("{bent}_{n}"));
    std::iter::once(bent.clone()).chain(numbered).find(free).unwrap_or(bent)
}

fn texts(column: &ArrayRef) -> Result<ArrayRef> {
    let fail = |e: arrow::error::ArrowError| Error::bug(format!("rejected rows as text: {e}"));
    let options = FormatOptions::new().with_display_error(true);
    let format = ArrayFormatter::try_new(column.as_ref(), &options).map_err(fail)?;
    let nulls = column.logical_nulls();
    let text = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row)).then(|| format.value(row).to_string());
    Ok(Arc::new(StringArray::from_iter((0..column.len()).map(text))))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int64Array, NullArray, Time64MicrosecondArray, TimestampNanosecondArray, UInt8Array, new_null_array,
    };
    use arrow::datatypes::IntervalUnit;

    use super::*;

    #[test]
    fn what_no_table_has_becomes_text() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(TimestampNanosecondArray::from(vec![Some(1_767_225_600_000_000_001), None]))),
            ("time of day", Arc::new(Time64MicrosecondArray::from(vec![Some(3_600_000_001), None]))),
            ("small", Arc::new(UInt8Array::from(vec![1, 2]))),
            ("SMALL", Arc::new(Int64Array::from(vec![1, 2]))),
            ("nothing", Arc::new(NullArray::new(2))),
            ("span", new_null_array(&DataType::Interval(IntervalUnit::DayTime), 2)),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let storable = Storable::of(&rows.schema());
        let names: Vec<_> = storable.schema().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["ts", "time_of_day", "small", "SMALL_2", "nothing", "span"]);
        assert!(delta_schema(storable.schema()).is_ok());

        let kept = storable.rows(&rows).unwrap();
        let text = |column: usize, row: usize| {
            let column = arrow::array::AsArray::as_string::<i32>(kept.column(column));
            column.is_valid(row).then(|| column.value(row).to_string())
        };
        assert_eq!((text(0, 0).unwrap().as_str(), text(0, 1)), ("2026-01-01T00:00:00.000000001", None));
        assert_eq!((text(1, 0).unwrap().as_str(), text(1, 1)), ("01:00:00.000001", None));
        assert_eq!((text(4, 0), text(5, 1)), (None, None));
        assert_eq!(kept.column(2), rows.column(2));
    }
}
