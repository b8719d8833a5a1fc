//! Objects as columns, by arrow's decoder.
//!
//! All objects of a batch go into one decoder, one after the other, and come out as columns at once. After each it must have
//! exactly one record more and be between records: so an empty text, a second object, trailing garbage, or an object that is
//! cut off is that message's fault and never shifts the rows behind it.
//!
//! Arrow's reader is lenient about punctuation: commas too many or too few, control characters within strings, and numbers
//! in fields that are not read pass. Nesting is not: beyond 127 levels a message is malformed, columns or not, for an
//! error's text walks the value recursively. `serde_json` draws the line there, too.
//!
//! Invariant: an attempt leaves no trace. A decoder that saw a malformed object is thrown away.

use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use arrow::record_batch::RecordBatch;
use watershed_core::{Error, Result};

use crate::apart::Fault;
use crate::spare::Spare;
use crate::typed::plain;

/// Levels of lists and objects within each other.
const DEEPEST: usize = 127;

pub(crate) struct Objects {
    /// All nullable, so that it is others who say which must not be.
    columns: SchemaRef,
    spare: Spare<Decoder>,
}

impl Objects {
    pub(crate) fn new(columns: Vec<Field>) -> Result<Self> {
        let objects = Objects { columns: Arc::new(Schema::new(columns)), spare: Spare::default() };
        objects.decoder(1).map_err(|e| Error::input(format!("these columns cannot be read from JSON: {e}")))?;
        Ok(objects)
    }

    fn decoder(&self, messages: usize) -> Result<Decoder, String> {
        // One more than there are: so that a second object in the last message is seen.
        let builder = ReaderBuilder::new(Arc::clone(&self.columns)).with_batch_size(messages + 1);
        builder.with_coerce_primitive(true).build_decoder().map_err(plain)
    }

    /// A row for each of these messages, by the object in it.
    pub(crate) fn read<'a>(
        &self,
        payloads: &BinaryArray,
        messages: &[usize],
        object: impl Fn(usize) -> &'a [u8],
    ) -> Result<RecordBatch, Fault> {
        let (most, mut decoder) = match self.spare.take(messages.len()) {
            Some(spare) => spare,
            None => (messages.len(), self.decoder(messages.len())?),
        };
        for (at, message) in messages.iter().enumerate() {
            let fed = feed(&mut decoder, object(*message));
            fed.map_err(|reason| Fault { at: Some(at), reason })?;
        }
        let rows = decoder.flush().map_err(plain)?.ok_or("it is empty")?;
        self.spare.give(most, decoder, payloads);
        Ok(rows)
    }
}

/// One object into the decoder, or why it is none.
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
