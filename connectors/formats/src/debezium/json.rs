//! Changes in JSON.
//!
//! With a schema beside it, a change's values are what the schema says ([`super::connect`]). Messages of one schema are read
//! together, and a schema is looked at once. Without one, values are what the columns are:
//!
//! | column | value |
//! |---|---|
//! | TIMESTAMP | ISO text; a number in units of `debezium.timestamp` |
//! | DATE | days since 1970, or ISO text |
//! | DECIMAL | by `debezium.decimal`: `precise`, bytes, with the column's digits behind the point; `string`, `double`: numbers |
//! | BYTEA | text in base64 |
//! | others | as [`crate::json`] has them |
//!
//! Invariant: all are read by one decoder, which depends on the columns alone; what a schema says comes after.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, BinaryArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde_json::Value;
use watershed_core::{Error, Result};

use super::change::{self, Changes};
use super::columns::Columns;
use super::connect;
use super::encoding::Encoding;
use super::envelope::parts;
use crate::apart::{Attempted, Fault, Read, read_apart, together};
use crate::facts::Payloads;
use crate::json::{Objects, unreadable};
use crate::options::{DEBEZIUM_DECIMAL, DEBEZIUM_TIMESTAMP, Options};
use crate::text::Times;
use crate::typed::read_as;

pub(crate) struct DebeziumJson {
    fields: Fields,
    columns: Columns,
    objects: Objects,
    /// Without a schema.
    own: Known,
    schemas: Mutex<HashMap<Vec<u8>, Known>>,
}

/// How changes of a schema are written, or why they are malformed.
type Known = Result<Arc<[Encoding]>, String>;

/// Schemas that are remembered. A table has a new one when it is altered, so more are somebody's mistake.
const MOST: usize = 100;

impl DebeziumJson {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        let columns = Columns::new(options.name, &fields)?;
        let read = |field: &FieldRef| {
            let data_type = match field.data_type() {
                other if is_bytes(other) => DataType::Utf8,
                // Arrow's reader would take it for hexadecimal.
                other if has(other, &is_bytes) => return Err(unreadable(field)),
                other => read_as(other).ok_or_else(|| unreadable(field))?,
            };
            Ok(Field::new(field.name(), data_type, true))
        };
        let row = columns.of_row().map(read).collect::<Result<Vec<_>>>()?;
        let objects = Objects::new(change::fields(row.into()))?;
        let own = Own::of(options)?;
        let own = columns.of_row().map(|column| own.encoding(column)).collect();
        Ok(DebeziumJson { fields, columns, objects, own, schemas: Mutex::default() })
    }

    fn known(&self, schema: &[u8]) -> Known {
        if schema.is_empty() {
            return self.own.clone();
        }
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = schemas.get(schema) {
            return known.clone();
        }
        if schemas.len() >= MOST {
            schemas.clear();
        }
        let known = connect::encodings(&self.columns, schema).map(Arc::from);
        schemas.insert(schema.to_vec(), known.clone());
        known
    }
}

impl Payloads for DebeziumJson {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        let mut changes: Vec<&[u8]> = vec![&[]; payloads.len()];
        let mut malformed = vec![];
        let mut of_schema = BTreeMap::<&[u8], Vec<usize>>::new();
        for message in messages {
            match parts(payloads.value(*message)) {
                Ok(parts) => {
                    changes[*message] = parts.change;
                    of_schema.entry(parts.schema).or_default().push(*message);
                }
                Err(reason) => malformed.push((*message, reason)),
            }
        }
        let mut all = vec![];
        for (schema, messages) in of_schema {
            match self.known(schema) {
                Ok(encodings) => {
                    let attempt = |some: &[usize]| self.attempt(payloads, &changes, some, &encodings);
                    all.push(read_apart(&self.fields, &messages, &attempt)?);
                }
                Err(reason) => malformed.extend(messages.into_iter().map(|message| (message, reason.clone()))),
            }
        }
        together(&self.fields, all, malformed)
    }
}

impl DebeziumJson {
    fn attempt(
        &self,
        payloads: &BinaryArray,
        changes: &[&[u8]],
        messages: &[usize],
        encodings: &[Encoding],
    ) -> Result<Attempted, Fault> {
        let rows = self.objects.read(payloads, messages, |message| changes[message])?;
        let is_text = |row: usize, column: &str| is_text(changes[messages[row]], column);
        Changes::of(rows.columns())?.rows(&self.columns, encodings, &is_text).map_err(Fault::from)
    }
}

/// Whether a change has text in a column, and no number; `None`: it is not said.
fn is_text(change: &[u8], column: &str) -> Option<bool> {
    let change: Value = serde_json::from_slice(change).ok()?;
    let image = if change["op"] == "d" { "before" } else { "after" };
    match &change[image][column] {
        Value::String(_) => Some(true),
        Value::Number(_) => Some(false),
        _ => None,
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Whether a type is one of these, or has one within.
fn has(data_type: &DataType, is_one: &dyn Fn(&DataType) -> bool) -> bool {
    use DataType::*;
    match data_type {
        List(item) | LargeList(item) | Map(item, _) => has(item.data_type(), is_one),
        Struct(fields) => fields.iter().any(|field| has(field.data_type(), is_one)),
        other => is_one(other),
    }
}

/// How values are written where no schema says so.
struct Own {
    times: Times,
    /// `true`: as digits without the point; `None`: it was not said.
    precise: Option<bool>,
}

impl Own {
    fn of(options: &Options<'_>) -> Result<Self> {
        let times = Times::of(DEBEZIUM_TIMESTAMP, options.get(DEBEZIUM_TIMESTAMP)).map_err(Error::input)?;
        let times = match times {
            Times::Epoch(unit) => Times::IsoOrEpoch(unit),
            iso => iso,
        };
        let precise = match options.get(DEBEZIUM_DECIMAL) {
            None => None,
            Some("precise") => Some(true),
            Some("string" | "double") => Some(false),
            Some(other) => {
                return Err(Error::input(format!(
                    "option {DEBEZIUM_DECIMAL} = '{other}': give the connector's decimal.handling.mode, 'precise', 'string' or 'double'"
                )));
            }
        };
        Ok(Own { times, precise })
    }

    fn encoding(&self, column: &Field) -> Result<Encoding, String> {
        use DataType::*;
        Ok(match (column.data_type(), self.precise) {
            (Date32 | Date64, _) => Encoding::Days,
            (other, _) if is_bytes(other) => Encoding::Bytes,
            (Decimal128(_, scale), Some(true)) => Encoding::Unscaled(i32::from(*scale)),
            (other, precise) if precise != Some(false) && has(other, &|other| matches!(other, Decimal128(..))) => {
                return Err(format!(
                    "column '{}': without a schema it is not known how decimals are written: say it with {DEBEZIUM_DECIMAL}",
                    column.name()
                ));
            }
            _ => Encoding::Plain(self.times),
        })
    }
}
