//! Messages of each format, through the public seam: rows, offsets, and who is malformed and why.

#![allow(clippy::unwrap_used)] // A test that cannot go on panics, and says where.

mod avro;
mod csv;
mod debezium;
mod infer;
mod json;
mod oracle;
mod own;
mod protobuf;
mod protobuf_oracle;
mod raw;

use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches_with_options;
use watershed_core::Result;
use watershed_core::tail::{Decode, Decoded, Messages, header_item};
use watershed_formats::{FormatOptions, decoder};

/// Columns by name and type as SQL has them; `!` behind the type is NOT NULL.
fn schema(columns: &[(&str, &str)]) -> Arc<Schema> {
    let field = |(name, spec): &(&str, &str)| {
        let (data_type, not_null) = spec.strip_suffix('!').map_or((*spec, false), |spec| (spec, true));
        Field::new(*name, sql_type(data_type), !not_null)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn sql_type(name: &str) -> DataType {
    match name {
        "BOOLEAN" => DataType::Boolean,
        "SMALLINT" => DataType::Int16,
        "INT" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "REAL" => DataType::Float32,
        "DOUBLE" => DataType::Float64,
        "DECIMAL" => DataType::Decimal128(10, 2),
        "DATE" => DataType::Date32,
        "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "TIMESTAMPTZ" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "TIMESTAMP(3)" => DataType::Timestamp(TimeUnit::Millisecond, None),
        "TIMESTAMP(9)" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        "BERLIN" => DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into())),
        "TIME" => DataType::Time64(TimeUnit::Microsecond),
        "TEXT" => DataType::Utf8,
        "VIEW" => DataType::Utf8View,
        "BYTEA" => DataType::Binary,
        "BIGINT[]" => DataType::List(Field::new("item", DataType::Int64, true).into()),
        "STRUCT" => {
            let at = Field::new("at", sql_type("TIMESTAMP"), true);
            DataType::Struct(vec![at, Field::new("n", DataType::Int32, true)].into())
        }
        "TEXT[]" => DataType::List(Field::new("item", DataType::Utf8, true).into()),
        "ADDRESS" => {
            let fields = vec![Field::new("zip", DataType::Utf8, true), Field::new("more", DataType::Int64, true)];
            DataType::Struct(fields.into())
        }
        "HEADERS" => DataType::List(header_item()),
        "LARGE HEADERS" => DataType::LargeList(header_item()),
        "MAP" => {
            let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)];
            DataType::Map(Field::new("entries", DataType::Struct(entry.into()), false).into(), false)
        }
        other => panic!("{other}"),
    }
}

fn messages<T: AsRef<[u8]>>(payloads: &[Option<T>]) -> Messages {
    let count = payloads.len();
    Messages {
        part: 3,
        offsets: Int64Array::from_iter_values((0..count as i64).map(|i| 1000 + 2 * i)),
        timestamps: TimestampMillisecondArray::from_iter((0..count as i64).map(|i| (i % 3 != 2).then_some(i))),
        keys: BinaryArray::from_iter((0..count).map(|i| (i % 2 == 0).then(|| format!("key {i}")))),
        payloads: BinaryArray::from_iter(payloads.iter().map(|p| p.as_ref().map(|p| p.as_ref()))),
        headers: None,
        next: 1000 + 2 * count as i64,
        at_end: false,
    }
}

fn format(name: &str, options: &[(&str, &str)]) -> FormatOptions {
    let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    FormatOptions { format: name.into(), options }
}

fn open(name: &str, options: &[(&str, &str)], columns: &[(&str, &str)]) -> Result<Arc<dyn Decode>> {
    decoder(&format(name, options), schema(columns))
}

/// Rows as a table, each with its offset, and then the malformed messages.
fn shown(decoded: &Decoded) -> String {
    assert_eq!(decoded.rows.num_rows(), decoded.offsets.len());
    let mut text = String::new();
    if decoded.rows.num_rows() > 0 {
        let nulls = arrow::util::display::FormatOptions::default().with_null("NULL");
        let rows = std::slice::from_ref(&decoded.rows);
        let table = pretty_format_batches_with_options(rows, &nulls).unwrap().to_string();
        for line in table.lines().filter(|line| line.starts_with('|')).skip(1) {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            text += &format!("{}\n", cells.join(" | ").trim());
        }
    }
    for (message, reason) in &decoded.malformed {
        text += &format!("{message}: {reason}\n");
    }
    text
}

/// What these payloads become.
#[track_caller]
fn check<T: AsRef<[u8]>>(decode: &Arc<dyn Decode>, payloads: &[T], expected: &str) {
    let payloads: Vec<_> = payloads.iter().map(|payload| Some(payload.as_ref())).collect();
    let decoded = decode.decode(&messages(&payloads)).unwrap();
    assert_eq!(decoded.rows.schema(), decode.schema());
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(shown(&decoded).trim_end(), expected.join("\n"));
}
