//! JSON: one object a message.
//!
//! All payloads of a batch go into one of arrow's decoders, one after the other, and come out as columns at once. After each
//! it must have exactly one record more and be between records: so an empty payload, a second object, trailing garbage, or
//! an object that is cut off is that message's fault and never shifts the rows behind it.
//!
//! What a value may be, besides what [`crate::text`] says of numbers and times:
//!
//! * NULL, and a field that is not there, are NULL. Of two fields of one name the last counts. Names are compared as they
//!   are, upper and lower case.
//! * Text in a column of numbers or times is read as those: `"5"` is 5. Numbers, `true` and `false` in a column of text are
//!   the text they are written as; objects and lists are not.
//! * BYTEA is text in hexadecimal. TIME is text, or a number of the column's unit.
//! * Lists, structs and maps are lists and objects, to any depth that columns have.
//!
//! Arrow's reader is lenient about punctuation: commas too many or too few, control characters within strings, and numbers
//! in fields that are not read pass. Nesting is not: beyond 127 levels a message is malformed, columns or not, for an
//! error's text walks the value recursively. `serde_json` draws the line there, too.
//!
//! Invariant: an attempt leaves no trace. A decoder that saw a malformed payload is thrown away.

use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use watershed_core::{Error, Result};

use crate::apart::{Attempted, Fault, Read, read_apart};
use crate::facts::Payloads;
use crate::options::{JSON_TIMESTAMP, Options};
use crate::spare::Spare;
use crate::text::Times;
use crate::typed::{as_columns, plain, read_as, sql_name};

/// Levels of lists and objects within each other.
const DEEPEST: usize = 127;

pub(crate) struct Json {
    fields: Fields,
    /// The columns as they are read: much as text, and all nullable, so that it is we who say which must not be.
    read_as: SchemaRef,
    times: Times,
    spare: Spare<Decoder>,
}

impl Json {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        let times = Times::of(JSON_TIMESTAMP, options.get(JSON_TIMESTAMP)).map_err(Error::input)?;
        let read = |field: &Arc<Field>| {
            let data_type = read_as(field.data_type()).ok_or_else(|| unreadable(field))?;
            Ok(Field::new(field.name(), data_type, true))
        };
        let read_as = Schema::new(fields.iter().map(read).collect::<Result<Vec<_>>>()?);
        let json = Json { fields, read_as: Arc::new(read_as), times, spare: Spare::default() };
        json.decoder(1).map_err(|e| Error::input(format!("these columns cannot be read from JSON: {e}")))?;
        Ok(json)
    }

    fn decoder(&self, messages: usize) -> Result<Decoder, String> {
        // One more than there are: so that a second object in the last message is seen.
        let builder = ReaderBuilder::new(Arc::clone(&self.read_as)).with_batch_size(messages + 1);
        builder.with_coerce_primitive(true).build_decoder().map_err(plain)
    }

    fn attempt(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Attempted, Fault> {
        let (most, mut decoder) = match self.spare.take(messages.len()) {
            Some(spare) => spare,
            None => (messages.len(), self.decoder(messages.len())?),
        };
        for (at, message) in messages.iter().enumerate() {
            let fed = feed(&mut decoder, payloads.value(*message));
            fed.map_err(|reason| Fault { at: Some(at), reason })?;
        }
        let rows = decoder.flush().map_err(plain)?.ok_or("it is empty")?;
        self.spare.give(most, decoder, payloads);
        as_columns(&rows, &self.fields, self.times).map_err(Fault::from)
    }
}

impl Payloads for Json {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        read_apart(&self.fields, messages, &|some| self.attempt(payloads, some))
    }
}

fn unreadable(field: &Field) -> Error {
    let (name, data_type) = (field.name(), sql_name(field.data_type()));
    Error::input(format!("column '{name}' is {data_type}, which cannot be read from JSON"))
}

/// One payload into the decoder, or why it is none.
fn feed(decoder: &mut Decoder, payload: &[u8]) -> Result<(), String> {
    if too_deep(payload) {
        return Err(format!("it is nested deeper than {DEEPEST} levels"));
    }
    let before = decoder.len();
    let read = decoder.decode(payload);
    match decoder.len() - before {
        0 => Err("it is empty".into()),
        1 => match read.map_err(plain)? {
            read if decoder.has_partial_record() || read < payload.len() => Err("the JSON object ends early".into()),
            _ => Ok(()),
        },
        // Whether that is JSON, too, is not asked: how far it was read depends on the decoder.
        _ => Err("something follows the JSON object".into()),
    }
}

fn too_deep(payload: &[u8]) -> bool {
    // What is shorter cannot be, or does not end; and few have as many brackets at all.
    let opening = |byte: &&u8| matches!(byte, b'{' | b'[');
    if payload.len() <= 2 * DEEPEST || payload.iter().filter(opening).count() <= DEEPEST {
        return false;
    }
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in payload {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest > DEEPEST
}
