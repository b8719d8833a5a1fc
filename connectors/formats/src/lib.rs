//! How the messages of a log become rows: JSON, CSV, Avro, Protobuf, the bytes as they are, or changes of Debezium's. And how
//! rows become messages: JSON.
//!
//! ```text
//!  Messages ─┬─ facts, own: _offset, _part, _timestamp, _key, _headers ────────────────────┐
//!            └─ payloads ──▶ json │ csv │ avro │ protobuf │ raw │ debezium ──▶ typed columns ┴─▶ Decoded
//!                                   └─ apart: who of a batch is malformed
//! ```
//!
//! Modules in the order in which a message meets them:
//!
//! * `options`: formats and their options, as a user names them.
//! * `facts`: the columns of a source, from the payload or from the message itself.
//! * `own`: what a message has besides its payload.
//! * `apart`: a batch that cannot be read whole, taken apart until only the malformed messages are left out.
//! * `spare`: decoders that are used again.
//! * `json`, `csv`, `avro`, `raw`: payloads as columns, by arrow's own readers.
//! * `protobuf`: payloads as columns, by the descriptors of their type.
//! * `debezium`: payloads that are changes of a database's rows, in JSON or Avro.
//! * `typed`, `text`, `number`: what was read as the types of columns, without losing anything in silence.
//! * [`files()`]: files of JSON and CSV, cut into records that are read like messages.
//! * [`infer()`]: the columns of messages that nobody declared, by their schema or by a sample.
//! * `encode`: the other way, from rows to messages.
//!
//! What holds for all formats:
//!
//! * A column that a message lacks is NULL; in a column that is NOT NULL it makes the message malformed. Fields that are no
//!   columns are not looked at. (In Protobuf a field that is not there may have a default.)
//! * A tombstone, a message without payload, is no fact and no fault: it is passed over, and counted nowhere. Only `raw`
//!   has a row for it, since there the payload is the fact.
//! * `_offset`, `_part`, `_timestamp`, `_key` and `_headers` are the message's own, never the payload's.
//!
//! **Invariant:** what becomes of a message depends on that message alone, never on those it was fetched with. Nothing
//! panics, however a payload looks, and no memory is asked for that a payload only claims to need.

mod options;

mod facts;

mod own;

mod apart;

mod spare;

mod json;

mod csv;

mod avro;

mod protobuf;

mod raw;

mod debezium;

mod typed;

mod text;

mod number;

mod files;

mod infer;

mod encode;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use watershed_core::tail::Decode;
use watershed_core::{Error, Result};

pub use encode::Encoder;
pub use files::files;
pub use infer::{Inferred, columns, infer, is_own};
pub use options::is_option;

/// A format and its options, as `CREATE SOURCE … WITH` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormatOptions {
    /// `json`, `csv`, `avro`, `protobuf`, `raw`, `debezium-json` or `debezium-avro`.
    pub format: String,
    /// `json.timestamp`, `csv.delimiter`, …: those of this format and no others. Secrets may be `${NAME}`.
    pub options: BTreeMap<String, String>,
}

/// What reads a log's messages as facts of this schema.
///
/// Columns are looked up by name, but for `csv`, where they are found by position. Those named `_offset` (BIGINT), `_part`
/// (INT or BIGINT), `_timestamp` (TIMESTAMP), `_key` (BYTEA or text) and `_headers` (an array of structs of a `key`, text, and a
/// `value`, BYTEA) are filled from the message.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{BinaryArray, Int64Array, TimestampMillisecondArray};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use watershed_core::tail::Messages;
/// use watershed_formats::{FormatOptions, decoder};
///
/// let schema = Schema::new(vec![
///     Field::new("_offset", DataType::Int64, false),
///     Field::new("amount", DataType::Float64, true),
/// ]);
/// let json = FormatOptions { format: "json".into(), ..FormatOptions::default() };
/// let messages = Messages {
///     part: 0,
///     offsets: Int64Array::from(vec![7, 8]),
///     timestamps: TimestampMillisecondArray::from(vec![None, None]),
///     keys: BinaryArray::from_opt_vec(vec![None, None]),
///     payloads: BinaryArray::from_vec(vec![br#"{"amount": 1.5, "ignored": true}"#, b"cut off {"]),
///     headers: None,
///     next: 9,
///     at_end: true,
/// };
/// let decoded = decoder(&json, Arc::new(schema))?.decode(&messages)?;
/// assert_eq!(decoded.rows.num_rows(), 1);
/// assert_eq!(decoded.offsets.values(), &[7]);
/// assert_eq!(decoded.malformed[0].0, 1);
/// # Ok::<(), watershed_core::Error>(())
/// ```
///
/// # Errors
///
/// [`watershed_core::Error::Input`]: an unknown format or option, or a column of a type that the format cannot give.
pub fn decoder(format: &FormatOptions, schema: SchemaRef) -> Result<Arc<dyn Decode>> {
    let options = options::Options::of(format)?;
    if options.get(options::CSV_HEADER).is_some() {
        return Err(Error::input(format!("option {} is for files: messages have no first line", options::CSV_HEADER)));
    }
    Ok(Arc::new(facts::Facts::new(&options, schema)?))
}
