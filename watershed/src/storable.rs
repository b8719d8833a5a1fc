//! Rejected rows hold the columns of sources, which nobody chose for a table: names and types that Delta has no place for.
//!
//! A view's own columns are named and cast in its query, and refused otherwise; a rejected row must be kept whatever it is.
//! So here columns of other types become text, which can be cast back without loss, and names are bent until they fit.
//!
//! A source that is declared anew may give a column another type than the table has, from when it was declared otherwise. Its
//! values are cast; one that does not fit is NULL there, and stands in `_error`.
//!
//! **Invariant:** any batch of the schema it was made for can be written; which column becomes what depends on the schema
//! and the table alone, so that every run of a job agrees with its table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use watershed_core::scan::MESSAGE_COLUMNS;
use watershed_core::{Error, Result};
use watershed_lake::delta_schema;

/// Where it is said what is wrong with a row.
const ERROR: &str = MESSAGE_COLUMNS[1];

/// How rows of one schema are made fit for a table.
#[derive(Clone, Debug)]
pub(crate) struct Storable {
    schema: SchemaRef,
    /// For each column, whether it becomes text.
    as_text: Vec<bool>,
    /// Columns that the table has in another type.
    fitted: Vec<usize>,
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
        Storable { schema: Arc::new(Schema::new(fields)), as_text, fitted: vec![] }
    }

    /// For a table that there is: columns become what it has. One without `_error` has to have them as they are.
    pub(crate) fn fitted_to(self, table: &Schema) -> Result<Storable> {
        if self.schema.index_of(ERROR).is_err() {
            return Ok(self);
        }
        let (mut fields, mut fitted) = (self.schema.fields().to_vec(), vec![]);
        for (at, own) in delta_schema(&self.schema)?.fields().iter().enumerate() {
            let Ok(has) = table.field_with_name(own.name()) else { continue };
            let (from, to) = (fields[at].data_type(), has.data_type());
            if own.data_type() != to && !from.is_nested() && can_cast_types(from, to) {
                fields[at] = Arc::new(fields[at].as_ref().clone().with_data_type(to.clone()));
                fitted.push(at);
            }
        }
        Ok(Storable { schema: Arc::new(Schema::new(fields)), fitted, ..self })
    }

    /// The columns as they are written.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let column = |(column, text): (&ArrayRef, &bool)| if *text { texts(column) } else { Ok(Arc::clone(column)) };
        let mut columns = rows.columns().iter().zip(&self.as_text).map(column).collect::<Result<Vec<_>>>()?;
        for at in &self.fitted {
            self.fit(&mut columns, *at)?;
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| Error::bug(format!("rejected rows: {e}")))
    }
}

impl Storable {
    /// Casts a column to what the table has.
    fn fit(&self, columns: &mut [ArrayRef], at: usize) -> Result<()> {
        let odd = |e: arrow::error::ArrowError| Error::bug(format!("rejected rows in the types of their table: {e}"));
        let field = self.schema.field(at);
        let given = Arc::clone(&columns[at]);
        columns[at] = cast(&given, field.data_type()).map_err(odd)?;
        if columns[at].null_count() == given.null_count() {
            return Ok(());
        }
        let errors = self.schema.index_of(ERROR).map_err(odd)?;
        let (before, text) = (cast(&columns[errors], &DataType::Utf8).map_err(odd)?, texts(&given)?);
        let (before, text) = (before.as_string::<i32>(), text.as_string::<i32>());
        let error = |row: usize| {
            let said = before.is_valid(row).then(|| before.value(row));
            match given.is_valid(row) && columns[at].is_null(row) {
                true => {
                    let misfit = format!("{} = {}", field.name(), text.value(row));
                    Some(said.map_or(misfit.clone(), |said| format!("{said}; {misfit}")))
                }
                false => said.map(str::to_string),
            }
        };
        let noted = StringArray::from_iter((0..given.len()).map(error));
        columns[errors] = cast(&noted, self.schema.field(errors).data_type()).map_err(odd)?;
        Ok(())
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
            let column = kept.column(column).as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_string())
        };
        assert_eq!((text(0, 0).unwrap().as_str(), text(0, 1)), ("2026-01-01T00:00:00.000000001", None));
        assert_eq!((text(1, 0).unwrap().as_str(), text(1, 1)), ("01:00:00.000001", None));
        assert_eq!((text(4, 0), text(5, 1)), (None, None));
        assert_eq!(kept.column(2), rows.column(2));
    }
    #[test]
    fn a_value_that_the_table_has_no_room_for_is_said() {
        let now = Schema::new(vec![Field::new("km", DataType::Int64, true), Field::new(ERROR, DataType::Utf8, true)]);
        let then = Schema::new(vec![Field::new("km", DataType::Int32, true), Field::new(ERROR, DataType::Utf8, true)]);
        let storable = Storable::of(&now).fitted_to(&then).unwrap();
        assert_eq!(storable.schema().field(0).data_type(), &DataType::Int32);
        let km = Int64Array::from(vec![Some(7), Some(5_000_000_000), Some(-5_000_000_000), None]);
        let errors = StringArray::from(vec![Some("a"), None, Some("c"), None]);
        let rows = RecordBatch::try_new(Arc::new(now), vec![Arc::new(km), Arc::new(errors)]).unwrap();
        let kept = storable.rows(&rows).unwrap();
        let errors: Vec<Option<&str>> = kept.column(1).as_string::<i32>().iter().collect();
        assert_eq!(errors, [Some("a"), Some("km = 5000000000"), Some("c; km = -5000000000"), None]);
        assert_eq!(kept.column(0).null_count(), 3);
    }
}
