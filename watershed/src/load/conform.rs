//! From what a file holds to what a table holds: columns by name, types that Delta has, and no value changed silently.
//!
//! Design §8: event times are microseconds, zone-less ones are taken as UTC, and nanoseconds that do not fit are an error.
//! Which type a table has for a column is the lake's to say ([`delta_schema`]); here the types of several files meet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampNanosecondType};
use watershed_core::{Error, Result};
use watershed_lake::delta_schema;

/// The schema in which a table keeps the rows of a file with schema `from`. Columns may all be NULL: the next file may
/// lack them.
pub(crate) fn stored_schema(from: &Schema, file: &str) -> Result<SchemaRef> {
    // A column of NULLs only: text can be read as any other type later.
    let typed = |field: &FieldRef| match field.data_type() {
        DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => field.clone(),
    };
    let typed = Schema::new(from.fields().iter().map(typed).collect::<Vec<_>>());
    delta_schema(&typed).map_err(|e| match e {
        Error::Input(message) => Error::Input(format!("{file}: {message}")),
        other => other,
    })
}

/// The columns of both, each in the wider type; `text` files, whose types were guessed, meet in text at the latest.
pub(crate) fn widen(known: &Schema, more: &Schema, text: bool, file: &str) -> Result<Schema> {
    let mut fields: Vec<FieldRef> = known.fields().iter().cloned().collect();
    for field in more.fields() {
        let Some(at) = fields.iter().position(|f| f.name() == field.name()) else {
            fields.push(field.clone());
            continue;
        };
        let (a, b) = (fields[at].data_type(), field.data_type());
        let wider = match wider(a, b) {
            Some(wider) => wider,
            None if text => DataType::Utf8,
            None => {
                return Err(Error::input(format!(
                    "{file}: column `{}` has type {b}, in the files before it {a}; load them into tables of their own, or cast",
                    field.name()
                )));
            }
        };
        fields[at] = Arc::new(Field::new(field.name(), wider, true));
    }
    Ok(Schema::new(fields))
}

fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    const WHOLE: [DataType; 4] = [DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64];
    let rank = |t: &DataType| WHOLE.iter().position(|w| w == t);
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (DataType::Float32, DataType::Float64) | (DataType::Float64, DataType::Float32) => Some(DataType::Float64),
        (DataType::Date32, DataType::Timestamp(..)) => Some(b.clone()),
        (DataType::Timestamp(..), DataType::Date32) => Some(a.clone()),
        (DataType::Float32 | DataType::Float64, whole) | (whole, DataType::Float32 | DataType::Float64) => {
            rank(whole).map(|_| DataType::Float64)
        }
        _ => Some(WHOLE[rank(a)?.max(rank(b)?)].clone()),
    }
}

/// Every column of a file must have a place in the table.
pub(crate) fn check_columns(file_schema: &Schema, table: &Schema, file: &str) -> Result<()> {
    match file_schema.fields().iter().find(|f| table.field_with_name(f.name()).is_err()) {
        None => Ok(()),
        Some(extra) => {
            let known: Vec<_> = table.fields().iter().map(|f| f.name().as_str()).collect();
            Err(Error::input(format!(
                "{file}: column `{}` is not in the table, which has {}; leave it out, or load into a new table",
                extra.name(),
                known.join(", ")
            )))
        }
    }
}

/// Puts a batch into the table's columns and types; those that the file lacks are NULL.
pub(crate) fn conform(batch: &RecordBatch, table: &SchemaRef, file: &str) -> Result<RecordBatch> {
    let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
        None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        Some(column) => cast(column, field.data_type())
            .map_err(|e| Error::input(format!("{file}: column `{}` does not fit the table: {e}", field.name()))),
    };
    let columns: Vec<ArrayRef> = table.fields().iter().map(column).collect::<Result<_>>()?;
    RecordBatch::try_new(table.clone(), columns)
        .map_err(|e| Error::input(format!("{file}: its rows do not fit the table: {e}")))
}

/// An arrow cast that refuses whatever does not fit, nanoseconds included.
fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    if let (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(TimeUnit::Microsecond, _)) =
        (column.data_type(), to)
    {
        let nanos = column.as_primitive::<TimestampNanosecondType>();
        if let Some(at) = (0..nanos.len()).find(|i| nanos.is_valid(*i) && nanos.value(*i) % 1000 != 0) {
            return Err(format!(
                "{} ns is not a whole number of microseconds, in which times are kept; round it before loading",
                nanos.value(at)
            ));
        }
    }
    if let (DataType::Timestamp(unit, None), DataType::Timestamp(_, Some(_))) = (column.data_type(), to) {
        // Said to be UTC first, for a cast would take the values for local times of the target's zone: the same, but slower.
        let utc = cast_with_options(column, &DataType::Timestamp(*unit, Some("UTC".into())), &STRICT);
        return utc.and_then(|utc| cast_with_options(&utc, to, &STRICT)).map_err(|e| e.to_string());
    }
    cast_with_options(column, to, &STRICT).map_err(|e| e.to_string())
}

const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array};

    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn types_widen_or_are_refused() {
        let a = schema(&[("x", DataType::Int32), ("y", DataType::Utf8)]);
        let b = schema(&[("x", DataType::Float64), ("z", DataType::Boolean)]);
        let both = widen(&a, &b, false, "f").unwrap();
        assert_eq!(both, schema(&[("x", DataType::Float64), ("y", DataType::Utf8), ("z", DataType::Boolean)]));
        let c = schema(&[("y", DataType::Int64)]);
        assert_eq!(widen(&a, &c, true, "f").unwrap().field(1).data_type(), &DataType::Utf8);
        let error = widen(&a, &c, false, "f.parquet").unwrap_err().to_string();
        assert!(error.starts_with("f.parquet: column `y` has type Int64"), "{error}");
    }

    #[test]
    fn what_a_table_cannot_keep_is_refused_by_file_and_column() {
        let error = stored_schema(&schema(&[("a", DataType::Int8), ("A", DataType::Int8)]), "f.csv").unwrap_err();
        assert!(error.to_string().starts_with("f.csv: column `A` appears twice"), "{error}");
        let nulls = stored_schema(&schema(&[("a", DataType::Null)]), "f.csv").unwrap();
        assert_eq!(nulls.field(0).data_type(), &DataType::Utf8);
    }

    #[test]
    fn columns_go_by_name_and_values_must_fit() {
        let batch = RecordBatch::try_from_iter([
            ("b", Arc::new(UInt32Array::from(vec![1, 2])) as ArrayRef),
            ("t", Arc::new(TimestampNanosecondArray::from(vec![1000, 5000])) as ArrayRef),
        ])
        .unwrap();
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let table: SchemaRef = Arc::new(schema(&[("t", time.clone()), ("a", DataType::Utf8), ("b", DataType::Int64)]));
        let rows = conform(&batch, &table, "f").unwrap();
        assert_eq!(
            rows.column(0).as_ref(),
            &TimestampMicrosecondArray::from(vec![1, 5]).with_timezone("UTC") as &dyn Array
        );
        assert_eq!(rows.column(1).as_ref(), &StringArray::from(vec![None::<&str>, None]) as &dyn Array);
        assert_eq!(rows.column(2).as_ref(), &Int64Array::from(vec![1, 2]) as &dyn Array);
        check_columns(&batch.schema(), &table, "f").unwrap();
        assert!(check_columns(&schema(&[("q", time)]), &table, "f").unwrap_err().to_string().contains("column `q`"));

        let odd = TimestampNanosecondArray::from(vec![1001]);
        let odd = RecordBatch::try_from_iter([("t", Arc::new(odd) as ArrayRef)]).unwrap();
        assert!(conform(&odd, &table, "f").unwrap_err().to_string().contains("1001 ns"));
        let text = RecordBatch::try_from_iter([("b", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
        assert!(conform(&text, &table, "f.csv").unwrap_err().to_string().starts_with("f.csv: column `b` does not fit"));
    }
}
