//! Avro: one record a message, read with the schema it was written with.
//!
//! ```text
//!  0 │ id of the schema, 4 bytes │ record      avro.registry: the schema is asked for by its id, once
//!                                  record      avro.schema: all messages have the one that is given
//! ```
//!
//! The framing is [Confluent's](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/).
//! Columns are the writer's fields of the same name; what `writer` and `fit` say of types holds, and `infer` where nobody declared
//! any. A message whose schema has
//! another type in a column's place is malformed, and so is one whose schema the registry does not know: a topic may hold
//! the odd message of something else. A registry that does not answer is an error, and no message is judged without it.
//!
//! Invariant: a schema is known by its id for as long as the source is read, since a registry never gives an id twice.

mod registry;

mod writer;

mod fit;

mod infer;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::BinaryArray;
use arrow::datatypes::Fields;
use watershed_core::{Error, Result};

pub(crate) use self::infer::{columns, natural, schema};
use self::registry::{Found, Registry};
pub(crate) use self::writer::Writer;
use crate::apart::{Attempted, Fault, Read, read_apart, together};
use crate::facts::Payloads;
use crate::options::{AVRO_REGISTRY, AVRO_SCHEMA, Options};

pub(crate) struct Avro {
    fields: Fields,
    open: Open,
    schemas: Schemas,
}

/// What reads messages of one writer's schema.
pub(crate) trait Records: Send + Sync {
    /// The columns of these messages, whose records begin after `frame` bytes.
    fn read(&self, payloads: &BinaryArray, messages: &[usize], frame: usize) -> Result<Attempted, Fault>;
}

/// What reads messages of a schema as these columns, or why none can be read.
pub(crate) type Open = fn(&str, &Fields) -> Result<Arc<dyn Records>, String>;

enum Schemas {
    One(Arc<dyn Records>),
    Registered { registry: Registry, known: Mutex<HashMap<u32, Known>> },
}

/// What becomes of messages of a schema: they are read, or malformed, and why.
type Known = Result<Arc<dyn Records>, String>;

impl Avro {
    /// Fields of the record are columns.
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        Avro::opening(options, fields, |schema, fields| Ok(Arc::new(Writer::new(schema, fields)?)))
    }

    /// What the columns are is said by who opens a schema.
    pub(crate) fn opening(options: &Options<'_>, fields: Fields, open: Open) -> Result<Self> {
        let schemas = match (Registry::of(options)?, options.get(AVRO_SCHEMA)) {
            (Some(registry), None) => Schemas::Registered { registry, known: Mutex::default() },
            (None, Some(schema)) => {
                let opened = open(schema, &fields);
                Schemas::One(opened.map_err(|e| Error::input(format!("option {AVRO_SCHEMA}: {e}")))?)
            }
            (Some(_), Some(_)) => {
                return Err(Error::input(format!("give {AVRO_REGISTRY} or {AVRO_SCHEMA}, not both")));
            }
            (None, None) => return Err(without_schema(options)),
        };
        Ok(Avro { fields, open, schemas })
    }
}

/// What to say where nobody knows any schema.
fn without_schema(options: &Options<'_>) -> Error {
    Error::input(format!(
        "format '{}' needs {AVRO_REGISTRY} = 'http://…', or {AVRO_SCHEMA} for messages without schema ids",
        options.name
    ))
}

impl Payloads for Avro {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        let (registry, known) = match &self.schemas {
            Schemas::One(records) => {
                return read_apart(&self.fields, messages, &|some| records.read(payloads, some, 0));
            }
            Schemas::Registered { registry, known } => (registry, known),
        };
        let mut malformed = vec![];
        let mut of_schema = BTreeMap::<u32, Vec<usize>>::new();
        for message in messages {
            match schema_id(payloads.value(*message)) {
                Ok(id) => of_schema.entry(id).or_default().push(*message),
                Err(reason) => malformed.push((*message, reason)),
            }
        }
        let mut all = vec![];
        for (id, messages) in of_schema {
            match self.records(registry, known, id)? {
                Ok(records) => {
                    all.push(read_apart(&self.fields, &messages, &|some| records.read(payloads, some, FRAME))?);
                }
                Err(reason) => malformed.extend(messages.into_iter().map(|message| (message, reason.clone()))),
            }
        }
        together(&self.fields, all, malformed)
    }
}

impl Avro {
    fn records(&self, registry: &Registry, known: &Mutex<HashMap<u32, Known>>, id: u32) -> Result<Known> {
        // Held while the registry is asked, so that it is asked once.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&id) {
            return Ok(known.clone());
        }
        let opened = match registry.schema(id)? {
            Found::Schema(schema) => (self.open)(&schema, &self.fields),
            Found::Unusable(why) => Err(why),
        };
        let opened = opened.map_err(|why| format!("its schema {id}: {why}"));
        known.insert(id, opened.clone());
        Ok(opened)
    }
}

/// Bytes before the record of a framed message.
const FRAME: usize = 5;

/// The id of its schema, of a framed message.
fn schema_id(payload: &[u8]) -> Result<u32, String> {
    match payload {
        [0, id @ ..] if id.len() >= 4 => Ok(u32::from_be_bytes([id[0], id[1], id[2], id[3]])),
        [] => Err("it is empty".into()),
        [0, ..] => Err("it ends within the id of its schema".into()),
        [first, ..] => Err(format!("it begins with the byte 0x{first:02x}, not with the 0 before a schema's id")),
    }
}
