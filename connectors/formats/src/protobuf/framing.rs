//! What stands before a message: nothing, or what Confluent's serializer writes.
//!
//! ```text
//!  0 │ id of the schema, 4 bytes │ how many indexes │ index │ … │ message
//! ```
//!
//! The indexes say which type of the schema's file the message is: `1, 0` is the first type within the second. They are
//! zigzag numbers, and a single 0 stands for the first type, `[0]`
//! ([specification](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/)). The id is not
//! looked up: the descriptors are given.
//!
//! Invariant: no message of another type is read as one of the source's.

use prost_reflect::{FileDescriptor, MessageDescriptor};
use watershed_core::{Error, Result};

use super::bad::Bad;
use super::scalar::zigzag;
use super::wire::Reader;
use crate::options::{Options, PROTOBUF_FRAMING};

pub(super) enum Framing {
    None,
    Confluent { file: FileDescriptor, message: String, indexes: Vec<usize> },
}

/// Between a message's types in its path there are the numbers of the descriptor's fields.
const OWN_INDEXES: usize = 2;

impl Framing {
    pub(super) fn new(options: &Options<'_>, message: &MessageDescriptor) -> Result<Self> {
        match options.get(PROTOBUF_FRAMING) {
            None | Some("none") => Ok(Framing::None),
            Some("confluent") => {
                let indexes = message.path().iter().skip(1).step_by(OWN_INDEXES);
                Ok(Framing::Confluent {
                    file: message.parent_file(),
                    message: message.full_name().to_string(),
                    indexes: indexes.filter_map(|index| usize::try_from(*index).ok()).collect(),
                })
            }
            Some(other) => Err(Error::input(format!(
                "option {PROTOBUF_FRAMING} = '{other}': give 'confluent' for messages of Confluent's serializers, or 'none'"
            ))),
        }
    }

    /// The message in a payload.
    pub(super) fn message<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Bad> {
        let Framing::Confluent { file, message, indexes } = self else { return Ok(payload) };
        let framed = match payload {
            [0, id @ ..] if id.len() >= 4 => &id[4..],
            [] => return Err("it is empty".into()),
            [0, ..] => return Err("it ends within the id of its schema".into()),
            [first, ..] => {
                return Err(
                    format!("it begins with the byte 0x{first:02x}, not with the 0 before a schema's id").into()
                );
            }
        };
        // By far the most.
        if let ([0, body @ ..], [0]) = (framed, indexes.as_slice()) {
            return Ok(body);
        }
        let mut reader = Reader::new(framed);
        let found = read(&mut reader)?;
        if &found == indexes {
            return Ok(reader.rest());
        }
        Err(match name(file, &found) {
            Some(name) => format!("it is a {name}, not a {message}").into(),
            None => format!("its message indexes {found:?} are those of no message in {}", file.name()).into(),
        })
    }
}

fn read(reader: &mut Reader<'_>) -> Result<Vec<usize>, Bad> {
    let mut index = || -> Result<usize, Bad> {
        let number = reader.varint().map_err(|_| "it ends within its message indexes")?;
        usize::try_from(zigzag(number)).map_err(|_| Bad::from("its message indexes are none"))
    };
    match index()? {
        0 => Ok(vec![0]),
        // As many as there are bytes at most, whatever it claims.
        count => (0..count).map(|_| index()).collect(),
    }
}

/// The name of a type by where it is in its file.
fn name(file: &FileDescriptor, indexes: &[usize]) -> Option<String> {
    let (first, rest) = indexes.split_first()?;
    let mut message = file.messages().nth(*first)?;
    for index in rest {
        let child = message.child_messages().nth(*index);
        message = child?;
    }
    Some(message.full_name().to_string())
}
