//! The columns of messages that nobody declared.
//!
//! | format | columns |
//! |---|---|
//! | `protobuf` | by the descriptors of their type |
//! | `raw` | `value`, BYTEA |
//! | `avro`, `debezium-avro` | by the writer's schema: `avro.schema`, or of a sample's messages the one that was registered last |
//! | `debezium-json` | by the schema beside the change; where there is none, by what is in a sample |
//! | `json` | by what is in a sample |
//! | `csv` | none: its messages have no names for them |
//!
//! A message of a sample that is none is passed over. What a field holds in the sample may not be all that it ever will: a
//! message that does not fit is malformed then, like any other.
//!
//! Invariant: the decoder of the format takes the columns that are made here.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use watershed_core::tail::Messages;
use watershed_core::{Error, Result};

use crate::options::{AVRO_SCHEMA, Format, JSON_TIMESTAMP, Options};
use crate::own::Own;
use crate::{FormatOptions, avro, debezium, json, protobuf};

/// What a sample of messages says of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Those of the payload; those of the message itself have to be declared.
    pub columns: Fields,
    /// Messages that were read.
    pub read: usize,
    /// Messages that were passed over, since they are none of the format.
    pub malformed: usize,
    /// Fields that are no columns, and why.
    pub left_out: Vec<String>,
}

/// The columns that messages have as far as the format's options say, for a source that declares none; `None`: messages have to
/// be looked at ([`infer`]).
///
/// # Errors
///
/// [`Error::Input`]: an unknown format or option, or messages that no columns can be made of.
pub fn columns(format: &FormatOptions) -> Result<Option<SchemaRef>> {
    let options = Options::of(format)?;
    let by_schema = options.get(AVRO_SCHEMA).is_some();
    let known = |fields: Fields| Ok(Some(Arc::new(Schema::new(fields))));
    match options.format {
        Format::Protobuf => known(protobuf::columns(&options)?),
        Format::Raw => known(vec![Field::new("value", DataType::Binary, true)].into()),
        Format::Avro | Format::DebeziumAvro if by_schema => known(infer(format, &[], None)?.columns),
        Format::Csv => Err(Error::input("messages of format 'csv' have no names for their columns")),
        Format::Json | Format::DebeziumJson | Format::Avro | Format::DebeziumAvro => Ok(None),
    }
}

/// Whether a column of this name is of the message itself, or of the change that it tells, and says nothing of what else is in it.
pub fn is_own(format: &str, name: &str) -> bool {
    Own::named(name).is_some() || (format.starts_with("debezium") && debezium::OWN.contains(&name))
}

/// The columns that the payloads of these messages have; `time_column` is to be the event time, and is one also where times are
/// numbers of a unit that an option names.
///
/// ```
/// use arrow::array::{BinaryArray, Int64Array, TimestampMillisecondArray};
/// use watershed_core::tail::Messages;
/// use watershed_formats::{FormatOptions, infer};
///
/// let json = FormatOptions { format: "json".into(), ..FormatOptions::default() };
/// let messages = Messages {
///     part: 0,
///     offsets: Int64Array::from(vec![7, 8]),
///     timestamps: TimestampMillisecondArray::from(vec![None, None]),
///     keys: BinaryArray::from_opt_vec(vec![None, None]),
///     payloads: BinaryArray::from_vec(vec![br#"{"at": "2026-01-31T12:00:00Z", "km": 3}"#, b"cut off {"]),
///     headers: None,
///     next: 9,
///     at_end: true,
/// };
/// let inferred = infer(&json, &[messages], Some("at"))?;
/// assert_eq!((inferred.columns.len(), inferred.read, inferred.malformed), (2, 1, 1));
/// # Ok::<(), watershed_core::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`]: none of the messages can be read, with what is wrong with the first. A registry that does not answer.
pub fn infer(format: &FormatOptions, messages: &[Messages], time_column: Option<&str>) -> Result<Inferred> {
    let options = Options::of(format)?;
    let of_schema = |columns: fn(&str) -> Result<Learnt, String>| -> Result<(Learnt, Tally)> {
        let (schema, mut tally) = avro::schema(&options, messages)?;
        if options.get(AVRO_SCHEMA).is_some() {
            let learnt = columns(&schema).map_err(|e| Error::input(format!("option {AVRO_SCHEMA}: {e}")))?;
            return Ok((learnt, tally));
        }
        let learnt = (tally.read > 0).then(|| columns(&schema)).transpose();
        Ok(match learnt {
            Ok(learnt) => (learnt.unwrap_or_default(), tally),
            Err(reason) => {
                tally.none_if(Some(format!("its schema: {reason}")));
                (Learnt::default(), tally)
            }
        })
    };
    let (learnt, tally) = match options.format {
        Format::Json => of_json(&options, messages, time_column),
        Format::DebeziumJson => debezium::of_json(&options, messages, time_column)?,
        Format::Avro => of_schema(avro::columns)?,
        Format::DebeziumAvro => of_schema(debezium::of_avro)?,
        Format::Protobuf | Format::Raw | Format::Csv => {
            return Err(Error::bug(format!("columns of format '{}' are not inferred", options.name)));
        }
    };
    if let (0, Some(reason)) = (tally.read, tally.first) {
        let count = tally.malformed;
        return Err(Error::input(format!(
            "of {count} messages none can be read as format '{}', the first of them, {reason}",
            options.name
        )));
    }
    // What is the message's own is never the payload's.
    let columns: Fields = learnt.columns.into_iter().filter(|column| Own::named(column.name()).is_none()).collect();
    if columns.is_empty() {
        let why = learnt.left_out.first().map_or(String::new(), |why| format!(", {why}"));
        return Err(Error::input(format!("no columns can be made of {} messages{why}", tally.read)));
    }
    Ok(Inferred { columns, read: tally.read, malformed: tally.malformed, left_out: learnt.left_out })
}

fn of_json(options: &Options<'_>, messages: &[Messages], time: Option<&str>) -> (Learnt, Tally) {
    let (mut tally, mut all) = (Tally::default(), json::Seen::Nothing);
    tally.count(messages, |payload| {
        let seen = json::Seen::of(payload)?;
        if !matches!(seen, json::Seen::Object(_)) {
            return Err("it is no JSON object".into());
        }
        all = std::mem::replace(&mut all, json::Seen::Nothing).and(seen);
        Ok(())
    });
    let numbers = options.get(JSON_TIMESTAMP).is_some_and(|unit| unit != "iso");
    let time = time.filter(|_| numbers).map(str::to_string);
    let rules = json::Rules { iso: !numbers, large: DataType::Decimal128(20, 0), time };
    let mut learnt = Learnt::default();
    for (name, seen) in all.into_fields().unwrap_or_default() {
        let column = seen.column_named(&name, &rules);
        learnt.add(&name, column.map(|data_type| Arc::new(Field::new(&name, data_type, true))));
    }
    (learnt, tally)
}

/// Columns, and fields that are none.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) columns: Vec<FieldRef>,
    pub(crate) left_out: Vec<String>,
}

impl Learnt {
    pub(crate) fn add(&mut self, name: &str, column: Result<FieldRef, String>) {
        match column {
            Ok(column) => self.columns.push(column),
            Err(why) => self.left_out.push(format!("'{name}': {why}")),
        }
    }
}

/// What became of the messages of a sample.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) read: usize,
    pub(crate) malformed: usize,
    /// What is wrong with the first that is malformed, and where it is.
    pub(crate) first: Option<String>,
}

impl Tally {
    /// Looks at each payload; tombstones are none.
    pub(crate) fn count(&mut self, messages: &[Messages], mut look: impl FnMut(&[u8]) -> Result<(), String>) {
        self.count_all(messages, |payload, _| look(payload));
    }

    /// The same, with when each was written, in milliseconds; what is not known is long ago.
    pub(crate) fn count_all(&mut self, messages: &[Messages], mut look: impl FnMut(&[u8], i64) -> Result<(), String>) {
        for messages in messages {
            for at in (0..messages.len()).filter(|at| messages.payloads.is_valid(*at)) {
                let written = messages.timestamps.is_valid(at).then(|| messages.timestamps.value(at));
                match look(messages.payloads.value(at), written.unwrap_or(i64::MIN)) {
                    Ok(()) => self.read += 1,
                    Err(reason) => {
                        self.malformed += 1;
                        let (part, offset) = (messages.part, messages.offsets.value(at));
                        self.first.get_or_insert_with(|| format!("at offset {offset} of part {part}: {reason}"));
                    }
                }
            }
        }
    }

    /// None of them could be read after all, for this reason.
    pub(crate) fn none_if(&mut self, reason: Option<String>) {
        let Some(reason) = reason else { return };
        (self.malformed, self.read) = (self.malformed + self.read, 0);
        self.first = Some(reason);
    }
}
