//! Changes in Avro, with Confluent's framing and a registry, as [`crate::avro`] reads any record.
//!
//! What is a logical type of Avro's, as Kafka Connect's own types are, is read as such. Debezium's have a name
//! (`connect.name`) and are read as the plain type, which the name then explains.
//!
//! Invariant: whether a column can be read is known from the schema alone.

use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;
use watershed_core::Result;

use super::change::{self, Changes};
use super::columns::Columns;
use super::encoding::Encoding;
use super::semantic::{self, ISO};
use crate::apart::{Attempted, Fault};
use crate::avro::{Avro, Records, Writer};
use crate::options::Options;
use crate::text::Times;

/// What reads changes in Avro.
pub(crate) fn avro(options: &Options<'_>, fields: Fields) -> Result<Avro> {
    Columns::new(options.name, &fields)?;
    Avro::opening(options, fields, |schema, fields| Ok(Arc::new(Written::new(schema, fields)?)))
}

/// Changes of one writer's schema.
pub(super) struct Written {
    columns: Columns,
    /// Reads the fields of a change.
    writer: Writer,
    /// Of the row's columns.
    encodings: Vec<Encoding>,
}

impl Written {
    pub(super) fn new(schema: &str, fields: &Fields) -> Result<Self, String> {
        let columns = Columns::new("debezium-avro", fields).map_err(|e| e.to_string())?;
        let envelope: Value = serde_json::from_str(schema).map_err(|e| format!("it is no JSON: {e}"))?;
        let row = row(&envelope).ok_or("it is none of a change: no row is in it")?;
        let (mut encodings, mut read) = (vec![], vec![]);
        for column in columns.of_row() {
            let field = row.iter().find(|field| field["name"] == column.name().as_str());
            let (encoding, read_as) = encoding(column.data_type(), field.map(|field| &field["type"]))
                .map_err(|e| format!("column '{}': {e}", column.name()))?;
            encodings.push(encoding);
            read.push(Field::new(column.name(), read_as, true));
        }
        let writer = Writer::new(schema, &change::fields(read.into()).into());
        // The row's columns are named as the source has them.
        let writer = writer.map_err(|e| e.replacen("column 'before.", "column '", 1))?;
        Ok(Written { columns, writer, encodings })
    }
}

impl Records for Written {
    fn read(&self, payloads: &BinaryArray, messages: &[usize], frame: usize) -> Result<Attempted, Fault> {
        let read = self.writer.read(payloads, messages, frame)?;
        let changes = Changes::of(&read.columns)?;
        changes.rows(&self.columns, &self.encodings, &|_, _| None).map_err(Fault::from)
    }
}

/// The fields of a row, which is described where it first occurs.
pub(super) fn row(envelope: &Value) -> Option<&Vec<Value>> {
    let images =
        envelope["fields"].as_array()?.iter().filter(|field| field["name"] == "before" || field["name"] == "after");
    images.filter_map(|image| there(&image["type"])["fields"].as_array()).next()
}

/// What a type is if it is not null.
pub(super) fn there(of: &Value) -> &Value {
    match of {
        Value::Array(branches) => branches.iter().find(|branch| **branch != "null").unwrap_or(of),
        of => of,
    }
}

/// How a column is written by a field of this type, and as what it is read.
fn encoding(column: &DataType, of: Option<&Value>) -> Result<(Encoding, DataType), String> {
    let as_it_is = (Encoding::Plain(ISO), column.clone());
    let Some(of) = of.map(there) else { return Ok(as_it_is) };
    let name = of["connect.name"].as_str().unwrap_or_default();
    if let Some(reason) = semantic::unreadable(column, name) {
        return Err(reason);
    }
    let is_text = *of == "string" || of["type"] == "string";
    Ok(match semantic::encoding(column, name) {
        _ if of["logicalType"].is_string() => as_it_is,
        Some(encoding @ Encoding::Plain(Times::Epoch(_))) => (encoding, DataType::Int64),
        Some(encoding @ Encoding::Days) => (encoding, DataType::Int32),
        Some(encoding) => (encoding, DataType::Utf8),
        None if is_text && matches!(column, DataType::Decimal128(..)) => (Encoding::Plain(ISO), DataType::Utf8),
        None => as_it_is,
    })
}
