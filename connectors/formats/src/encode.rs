//! From rows to messages: a row is one JSON object, and its key columns are another.
//!
//! What is written is what the format `json` reads: timestamps are ISO 8601 in UTC with a `Z`, dates `2026-01-31`, BYTEA is text
//! in hexadecimal, decimals are numbers. NULL is `null`, and so are floats that no JSON has, NaN and the infinities.
//!
//! Invariant: the same key columns with the same values make the same bytes, on which it depends where a message lies.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use arrow::record_batch::RecordBatch;
use watershed_core::sink::message_schema;
use watershed_core::{Error, Result};

/// Timestamps without a zone, which are in UTC.
const UTC: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Makes messages of rows.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// The key's columns, by index.
    key: Vec<usize>,
}

impl Encoder {
    /// For rows of this schema. Without columns of a key messages have none.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use arrow::array::{AsArray, Int64Array, StringArray};
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use arrow::record_batch::RecordBatch;
    /// use watershed_formats::Encoder;
    ///
    /// let schema = Schema::new(vec![
    ///     Field::new("city", DataType::Utf8, false),
    ///     Field::new("rides", DataType::Int64, true),
    /// ]);
    /// let rows = RecordBatch::try_new(
    ///     Arc::new(schema),
    ///     vec![Arc::new(StringArray::from(vec!["Oslo"])), Arc::new(Int64Array::from(vec![None]))],
    /// )?;
    /// let messages = Encoder::new("json", &rows.schema(), &["city".to_string()])?.encode(&rows)?;
    /// let column = |i: usize| messages.column(i).as_binary::<i32>().value(0).to_vec();
    /// assert_eq!(column(0), br#"{"city":"Oslo"}"#);
    /// assert_eq!(column(1), br#"{"city":"Oslo","rides":null}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`]: another format than `json`, a key column that the rows do not have, or two columns of one name.
    pub fn new(format: &str, rows: &Schema, key: &[String]) -> Result<Encoder> {
        if format != "json" {
            return Err(Error::input(format!("format = '{format}': messages are written as 'json'")));
        }
        let names: Vec<&str> = rows.fields().iter().map(|field| field.name().as_str()).collect();
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)).map(|(_, name)| name)
        {
            return Err(Error::input(format!("two columns are called {twice}; give one of them another name (AS …)")));
        }
        let at = |column: &String| {
            names.iter().position(|name| name == column).ok_or_else(|| {
                Error::input(format!("key: there is no column {column}; there are {}", names.join(", ")))
            })
        };
        Ok(Encoder { key: key.iter().map(at).collect::<Result<_>>()? })
    }

    /// A message for each row, as [`message_schema`] has them.
    pub fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let encode = || {
            let rows = in_utc(rows)?;
            let payloads: ArrayRef = Arc::new(objects(&rows)?);
            let keys = match self.key.is_empty() {
                true => new_null_array(&DataType::Binary, rows.num_rows()),
                false => Arc::new(objects(&rows.project(&self.key)?)?),
            };
            RecordBatch::try_new(message_schema(), vec![keys, payloads])
        };
        encode().map_err(|e: ArrowError| Error::input(format!("rows cannot be written as JSON: {e}")))
    }
}

/// The rows with timestamps in UTC; of those within lists and structs only the ones without a zone are said to be.
fn in_utc(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = vec![];
    let mut columns = vec![];
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let (to, column) = match field.data_type() {
            DataType::Timestamp(unit, _) => {
                let to = DataType::Timestamp(*unit, Some("UTC".into()));
                (to.clone(), cast(column, &to)?)
            }
            as_is => (as_is.clone(), Arc::clone(column)),
        };
        fields.push(field.as_ref().clone().with_data_type(to));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Each row as an object.
fn objects(rows: &RecordBatch) -> Result<BinaryArray, ArrowError> {
    let builder = WriterBuilder::new().with_explicit_nulls(true).with_timestamp_format(UTC.to_string());
    let mut writer = builder.build::<_, LineDelimited>(vec![]);
    writer.write(rows)?;
    writer.finish()?;
    let lines = writer.into_inner();
    // Within an object there is no line feed: text has it escaped.
    let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').take(rows.num_rows()).collect();
    Ok(BinaryArray::from_iter_values(lines))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{
        Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
        StructArray, TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
    };
    use arrow::datatypes::{Field, Int64Type, SchemaRef};
    use watershed_core::tail::Messages;

    use super::*;
    use crate::{FormatOptions, decoder};

    fn rows() -> RecordBatch {
        let at = TimestampMicrosecondArray::from(vec![Some(1_767_225_600_000_000), Some(-1), None]);
        let zoned = TimestampMillisecondArray::from(vec![Some(1_500), Some(0), None]).with_timezone("+02:00");
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let inner: ArrayRef = Arc::new(at.clone());
        let inner_field = Arc::new(Field::new("t", inner.data_type().clone(), true));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("at", Arc::new(at)),
            ("zoned", Arc::new(zoned)),
            ("text", Arc::new(StringArray::from(vec![Some("a\n\"ü\\"), Some(""), None]))),
            ("n", Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-1), None]))),
            ("u", Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None]))),
            ("x", Arc::new(Float64Array::from(vec![Some(0.1), Some(1e300), None]))),
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(20_454), Some(-1), None]))),
            (
                "money",
                Arc::new(
                    Decimal128Array::from(vec![Some(12_345), Some(-5), None]).with_precision_and_scale(20, 2).unwrap(),
                ),
            ),
            ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), Some(b""), None]))),
            ("list", Arc::new(lists)),
            ("inner", Arc::new(StructArray::from(vec![(inner_field, inner)]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let rows = rows();
        let messages = Encoder::new("json", &rows.schema(), &[]).unwrap().encode(&rows).unwrap();
        assert_eq!(messages.column(0).null_count(), 3);
        let payloads = messages.column(1).as_binary::<i32>().clone();
        let first = std::str::from_utf8(payloads.value(0)).unwrap();
        assert!(
            first.starts_with(r#"{"at":"2026-01-01T00:00:00Z","zoned":"1970-01-01T00:00:01.500Z","text":"a\n"#),
            "{first}"
        );
        assert!(first.ends_with(r#""list":[1,null],"inner":{"t":"2026-01-01T00:00:00Z"}}"#), "{first}");
        let schema: SchemaRef = rows.schema();
        let format = FormatOptions { format: "json".into(), options: BTreeMap::new() };
        let read = Messages {
            part: 0,
            offsets: Int64Array::from(vec![0, 1, 2]),
            timestamps: TimestampMillisecondArray::from(vec![None, None, None]),
            keys: BinaryArray::from_opt_vec(vec![None, None, None]),
            payloads,
            headers: None,
            next: 3,
            at_end: true,
        };
        // Timestamps within structs are read with the rest of the struct.
        let decoded = decoder(&format, schema).unwrap().decode(&read).unwrap();
        assert!(decoded.malformed.is_empty(), "{:?}", decoded.malformed);
        assert_eq!(decoded.rows, rows);
    }

    #[test]
    fn what_cannot_be_a_message_is_refused() {
        let rows = rows();
        let of =
            |format: &str, key: &str| Encoder::new(format, &rows.schema(), &[key.to_string()]).unwrap_err().to_string();
        assert!(of("avro", "n").contains("'json'"));
        assert!(of("json", "m").contains("no column m; there are at, zoned"));
        let twice = Schema::new(vec![rows.schema().field(0).clone(), rows.schema().field(0).clone()]);
        assert!(Encoder::new("json", &twice, &[]).unwrap_err().to_string().contains("two columns are called at"));
    }
}
