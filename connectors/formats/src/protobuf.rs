//! Protobuf: one message of one type a payload, read with the descriptors that a user has compiled.
//!
//! ```text
//!  payload ─▶ framing ─▶ wire ─▶ row in progress ─▶ columns
//!                                 │ as shape says, which was made of descriptors and columns once
//!                                 └ taken back, if the message is malformed
//! ```
//!
//! * `descriptors`: the message type; `framing`: where a payload's message begins.
//! * `shape`: what of it is read, and as what; `infer`: its columns where nobody declared any.
//! * `wire`, `scalar`: fields and their values as they are written.
//! * `column`, `store`, `finish`: columns that grow row by row, and as arrow has them; `bad`: why a message gives no row.
//!
//! A field that is not there has its default, as Protobuf says, unless one can tell: a message, a field in a `oneof`, an
//! `optional` one, and all of proto2 are NULL then. (A default that proto2 declares is no value of the message, so it does
//! not count.) A list or map that is not there is empty. That a `required` field is there is not asked: that is NOT NULL. A
//! payload of no bytes is a message in which no field is set.
//!
//! Unlike in other formats, a column that the message type lacks is an error: descriptors say all there may be.
//!
//! Invariant: besides the type's own, nothing is asked of the descriptors while messages are read, and nothing is copied but
//! into columns.

mod descriptors;

mod framing;

mod shape;

mod infer;

mod wire;

mod scalar;

mod bad;

mod column;

mod store;

mod finish;

use arrow::array::BinaryArray;
use arrow::datatypes::{Fields, TimeUnit};
use watershed_core::{Error, Result};

use self::column::Row;
use self::framing::Framing;
use self::shape::{Asked, Shape};
use crate::apart::{Attempted, Fault, Read, read_apart};
use crate::facts::Payloads;
use crate::options::{Options, PROTOBUF_MESSAGE, PROTOBUF_TIMESTAMP};
use crate::text::Refused;

pub(crate) struct Protobuf {
    fields: Fields,
    framing: Framing,
    shape: Shape,
}

/// The columns of messages of the type that these options name.
pub(crate) fn columns(options: &Options<'_>) -> Result<Fields> {
    let message = descriptors::message(options)?;
    infer::columns(&message)
        .map_err(|reason| Error::input(format!("{PROTOBUF_MESSAGE} {}: {reason}", message.full_name())))
}

impl Protobuf {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        let message = descriptors::message(options)?;
        let times = match options.get(PROTOBUF_TIMESTAMP) {
            None => None,
            Some("s") => Some(TimeUnit::Second),
            Some("ms") => Some(TimeUnit::Millisecond),
            Some("us") => Some(TimeUnit::Microsecond),
            Some("ns") => Some(TimeUnit::Nanosecond),
            Some(other) => {
                return Err(Error::input(format!(
                    "option {PROTOBUF_TIMESTAMP} = '{other}': give 's', 'ms', 'us' or 'ns' for integers since 1970"
                )));
            }
        };
        let shape = Shape::new(&message, &fields, Asked { times, nested: false }).map_err(Error::input)?;
        Ok(Protobuf { framing: Framing::new(options, &message)?, shape, fields })
    }

    fn attempt(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Attempted, Fault> {
        let mut rows = Row::new(&self.shape, messages.len(), "column");
        let mut refused = Refused::new();
        for (at, message) in messages.iter().enumerate() {
            let message = self.framing.message(payloads.value(*message));
            match message.and_then(|message| rows.add(message)) {
                Ok(()) => {}
                Err(bad) if bad.is_too_many() => return Err(bad.reason().into()),
                Err(bad) => {
                    rows.none(at);
                    refused.insert(at, bad.reason());
                }
            }
        }
        Ok(Attempted { columns: rows.finish()?, refused })
    }
}

impl Payloads for Protobuf {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        read_apart(&self.fields, messages, &|some| self.attempt(payloads, some))
    }
}
