//! What one schema of writers has for the columns of a source.
//!
//! Arrow's decoder is given the writer's schema alone, cut down to the fields that are columns, and [`super::fit`] makes of
//! each what the column is. Avro's own rules for a reader's schema would do less: they know no times of another unit, and
//! ask for names of records, which a table does not have.
//!
//! Invariant: a record ends where its message ends. A decoder that saw it otherwise is thrown away.

use std::sync::Arc;

use arrow::array::{BinaryArray, new_null_array};
use arrow::datatypes::{FieldRef, Fields};
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;

use super::Records;
use super::fit::{fit, misfit};
use crate::apart::{Attempted, Fault};
use crate::spare::Spare;
use crate::typed::plain;

pub(crate) struct Writer {
    store: SchemaStore,
    /// Places of the fields that are read; `None`: all are.
    read: Option<Vec<usize>>,
    /// For each column, where it is among the fields that are read; `None`: the writer has none.
    columns: Vec<(FieldRef, Option<usize>)>,
    spare: Spare<Decoder>,
}

/// A field of a record, or the name of one that cannot be read, and why.
pub(crate) type WrittenField = Result<FieldRef, (String, String)>;

/// Before each record arrow's decoder wants to read the id of its schema. There is but one, whatever the registry calls it.
const ID: u32 = 0;
const BEFORE: [u8; 5] = [0; 5];

impl Writer {
    /// Or why no message of this schema can be read.
    pub(crate) fn new(schema: &str, columns: &Fields) -> Result<Self, String> {
        let mut schema: Value = serde_json::from_str(schema).map_err(|e| format!("it is no JSON: {e}"))?;
        without_uuids(&mut schema);
        let fields = schema["fields"].as_array().filter(|_| schema["type"] == "record").ok_or("it is no record")?;
        let is_column = |field: &Value| columns.iter().any(|column| field["name"] == column.name().as_str());
        let mut read: Vec<usize> = (0..fields.len()).filter(|at| is_column(&fields[*at])).collect();
        if read.is_empty() {
            // Something must be read for a row to be there.
            read.extend((!fields.is_empty()).then_some(0));
        }
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(ID), AvroSchema::new(schema.to_string())).map_err(plain)?;
        let mut writer = Writer { store, read: Some(read), columns: vec![], spare: Spare::default() };
        let decoder = writer.decoder(1).or_else(|_| {
            // Where a field that is no column defines a type that others name, it has to be read, too.
            writer.read = None;
            writer.decoder(1)
        })?;
        let found = decoder.schema();
        for column in columns {
            let at = found.fields().iter().position(|field| field.name() == column.name());
            if let Some(reason) =
                at.and_then(|at| misfit(column.name(), column.data_type(), found.field(at).data_type()))
            {
                return Err(reason);
            }
            writer.columns.push((column.clone(), at));
        }
        Ok(writer)
    }

    /// The record's fields as they are read.
    pub(crate) fn fields(schema: &str) -> Result<Vec<WrittenField>, String> {
        let mut writer = Writer::new(schema, &Fields::empty())?;
        let parsed: Value = serde_json::from_str(schema).map_err(|e| format!("it is no JSON: {e}"))?;
        let names = parsed["fields"].as_array().map_or(&[][..], Vec::as_slice);
        let mut of = |read| {
            writer.read = read;
            writer.decoder(1).map(|decoder| decoder.schema())
        };
        if let Ok(all) = of(None) {
            return Ok(all.fields().iter().cloned().map(Ok).collect());
        }
        let name = |at: usize| names[at]["name"].as_str().unwrap_or_default().to_string();
        let one = |at| of(Some(vec![at])).map(|one| Arc::clone(&one.fields()[0])).map_err(|why| (name(at), why));
        Ok((0..names.len()).map(one).collect())
    }

    fn decoder(&self, messages: usize) -> Result<Decoder, String> {
        let builder = ReaderBuilder::new().with_writer_schema_store(self.store.clone());
        // One more than there are, so that it is never full.
        let builder = builder.with_batch_size(messages + 1);
        let builder = match &self.read {
            Some(read) => builder.with_projection(read.clone()),
            None => builder,
        };
        let mut decoder = builder.build_decoder().map_err(plain)?;
        decoder.decode(&BEFORE).map_err(plain)?;
        Ok(decoder)
    }
}

impl Records for Writer {
    fn read(&self, payloads: &BinaryArray, messages: &[usize], frame: usize) -> Result<Attempted, Fault> {
        let (most, mut decoder) = match self.spare.take(messages.len()) {
            Some(spare) => spare,
            None => (messages.len(), self.decoder(messages.len())?),
        };
        for (at, message) in messages.iter().enumerate() {
            let fed = feed(&mut decoder, payloads.value(*message).get(frame..).unwrap_or_default());
            fed.map_err(|reason| Fault { at: Some(at), reason })?;
        }
        let rows = decoder.flush().map_err(plain)?.ok_or("it is empty")?;
        self.spare.give(most, decoder, payloads);
        let column = |(column, at): &(FieldRef, Option<usize>)| match at {
            None => Ok(new_null_array(column.data_type(), rows.num_rows())),
            Some(at) => {
                let fitted = fit(rows.column(*at), column.data_type());
                fitted.map_err(|reason| format!("column '{}': {reason}", column.name()))
            }
        };
        let columns = self.columns.iter().map(column).collect::<Result<Vec<_>, String>>()?;
        Ok(columns.into())
    }
}

/// One record into the decoder, which then waits for the next, or why it is none.
fn feed(decoder: &mut Decoder, record: &[u8]) -> Result<(), String> {
    let free = decoder.capacity();
    let read = decoder.decode(record);
    match &read {
        Err(e) if decoder.capacity() == free => return Err(format!("it is no record of its schema: {}", plain(e))),
        Ok(_) if decoder.capacity() == free => return Err("the Avro record ends early".into()),
        _ => {}
    }
    // What follows a record may look like the beginning of another. Then this is taken for its end.
    let next = decoder.decode(&BEFORE);
    let whole = read.is_ok_and(|read| read == record.len()) && next.is_ok_and(|next| next == BEFORE.len());
    if !whole || decoder.capacity() + 1 != free {
        return Err("bytes follow the Avro record".into());
    }
    Ok(())
}

/// The same schema, in which texts that are UUIDs are texts: arrow's reader would make bytes of them.
fn without_uuids(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("type").is_some_and(|t| t == "string")
                && object.get("logicalType").is_some_and(|t| t == "uuid")
            {
                object.remove("logicalType");
            }
            object.values_mut().for_each(without_uuids);
        }
        Value::Array(array) => array.iter_mut().for_each(without_uuids),
        _ => {}
    }
}
