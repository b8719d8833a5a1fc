//! Avro: one record a message, read with the schema it was written with.
//!
//! ```text
//!  0 │ id of the schema, 4 bytes │ record      avro.registry: the schema is asked for by its id, once
//!                                  record      avro.schema: all messages have the one that is given
//! ```
//!
//! The framing is [Confluent's](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/).
//! Columns are the writer's fields of the same name; what `writer` and `fit` say of types holds. A message whose schema has
//! another type in a column's place is malformed, and so is one whose schema the registry does not know: a topic may hold
//! the odd message of something else. A registry that does not answer is an error, and no message is judged without it.
//!
//! Invariant: a schema is known by its id for as long as the source is read, since a registry never gives an id twice.

mod registry;

mod writer;

mod fit;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, BinaryArray, UInt64Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::Fields;
use watershed_core::{Error, Result};

use self::registry::{Found, Registry};
use self::writer::Writer;
use crate::apart::{Read, read_apart};
use crate::facts::Payloads;
use crate::options::{AVRO_REGISTRY, AVRO_SCHEMA, Options};

pub(crate) struct Avro {
    fields: Fields,
    schemas: Schemas,
}

enum Schemas {
    One(Box<Writer>),
    Registered { registry: Registry, known: Mutex<HashMap<u32, Known>> },
}

/// What becomes of messages of a schema: they are read, or malformed, and why.
type Known = Result<Arc<Writer>, String>;

impl Avro {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        let schemas = match (Registry::of(options)?, options.get(AVRO_SCHEMA)) {
            (Some(registry), None) => Schemas::Registered { registry, known: Mutex::default() },
            (None, Some(schema)) => {
                let writer = Writer::new(schema, &fields);
                Schemas::One(Box::new(writer.map_err(|e| Error::input(format!("option {AVRO_SCHEMA}: {e}")))?))
            }
            (Some(_), Some(_)) => {
                return Err(Error::input(format!("give {AVRO_REGISTRY} or {AVRO_SCHEMA}, not both")));
            }
            (None, None) => {
                return Err(Error::input(format!(
                    "format 'avro' needs {AVRO_REGISTRY} = 'http://…', or {AVRO_SCHEMA} for messages without schema ids"
                )));
            }
        };
        Ok(Avro { fields, schemas })
    }
}

impl Payloads for Avro {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        let (registry, known) = match &self.schemas {
            Schemas::One(writer) => {
                return read_apart(&self.fields, messages, &|some| writer.read(payloads, some, 0));
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
            match self.writer(registry, known, id)? {
                Ok(writer) => {
                    all.push(read_apart(&self.fields, &messages, &|some| writer.read(payloads, some, FRAME))?);
                }
                Err(reason) => malformed.extend(messages.into_iter().map(|message| (message, reason.clone()))),
            }
        }
        self.together(all, malformed)
    }
}

impl Avro {
    fn writer(&self, registry: &Registry, known: &Mutex<HashMap<u32, Known>>, id: u32) -> Result<Known> {
        // Held while the registry is asked, so that it is asked once.
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&id) {
            return Ok(known.clone());
        }
        let writer = match registry.schema(id)? {
            Found::Schema(schema) => {
                Writer::new(&schema, &self.fields).map(Arc::new).map_err(|e| format!("its schema {id}: {e}"))
            }
            Found::Unusable(why) => Err(format!("its schema {id}: {why}")),
        };
        known.insert(id, writer.clone());
        Ok(writer)
    }

    /// What messages of several schemas gave, in the order of the messages.
    fn together(&self, mut all: Vec<Read>, mut malformed: Vec<(usize, String)>) -> Result<Read> {
        for read in &mut all {
            malformed.append(&mut read.malformed);
        }
        malformed.sort_unstable_by_key(|(message, _)| *message);
        if let [_] = all.as_slice() {
            let Read { columns, rows, .. } = all.remove(0);
            return Ok(Read { columns, rows, malformed });
        }
        let mut places: Vec<usize> = all.iter().flat_map(|read| &read.rows).copied().collect();
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_unstable_by_key(|row| places[*row]);
        places.sort_unstable();
        let order = UInt64Array::from_iter_values(order.into_iter().map(|row| row as u64));
        let column = |at: usize| -> Result<ArrayRef> {
            let parts: Vec<_> = all.iter().map(|read| read.columns[at].as_ref()).collect();
            if parts.is_empty() {
                return Ok(new_empty_array(self.fields[at].data_type()));
            }
            let ordered = concat(&parts).and_then(|parts| take(&parts, &order, None));
            ordered.map_err(|e| Error::bug(format!("rows of several schemas put together: {e}")))
        };
        let columns = (0..self.fields.len()).map(column).collect::<Result<_>>()?;
        Ok(Read { columns, rows: places, malformed })
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
