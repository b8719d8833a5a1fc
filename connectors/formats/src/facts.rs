//! The columns of a source: what the payload gives, and what the message itself does.
//!
//! Invariant: a row has the offset, part, time, key and headers of the message whose payload it holds, whatever else was left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, UInt64Array, new_empty_array};
use arrow::compute::take;
use arrow::datatypes::{Fields, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use watershed_core::tail::{Decode, Decoded, Messages};
use watershed_core::{Error, Result};

use crate::apart::Read;
use crate::avro::Avro;
use crate::csv::Csv;
use crate::debezium::{self, DebeziumJson};
use crate::json::Json;
use crate::options::{Format, Options};
use crate::own::Own;
use crate::protobuf::Protobuf;
use crate::raw::Raw;

/// What reads the payloads of messages.
pub(crate) trait Payloads: Send + Sync {
    /// Those of `messages`, indices that grow. An error is for what concerns all messages.
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read>;

    /// Whether a message without payload is a row.
    fn reads_tombstones(&self) -> bool {
        false
    }
}

pub(crate) struct Facts {
    schema: SchemaRef,
    payloads: Box<dyn Payloads>,
    /// For each column what it is of the message; `None`: the payload's next.
    columns: Vec<Option<Own>>,
}

/// What messages have besides their payloads: for each column all of it, if it is one of those; and who is malformed.
type OwnColumns = (Vec<Option<ArrayRef>>, BTreeMap<usize, String>);

impl Facts {
    pub(crate) fn new(options: &Options<'_>, schema: SchemaRef) -> Result<Self> {
        let columns = schema.fields().iter().map(|field| Own::of(field)).collect::<Result<Vec<_>>>()?;
        let fields = schema.fields().iter().zip(&columns).filter(|(_, own)| own.is_none());
        let fields: Fields = fields.map(|(field, _)| Arc::clone(field)).collect();
        let payloads: Box<dyn Payloads> = match options.format {
            Format::Json => Box::new(Json::new(options, fields)?),
            Format::Csv => Box::new(Csv::new(options, fields)?),
            Format::Avro => Box::new(Avro::new(options, fields)?),
            Format::Protobuf => Box::new(Protobuf::new(options, fields)?),
            Format::Raw => Box::new(Raw::new(fields)?),
            Format::DebeziumJson => Box::new(DebeziumJson::new(options, fields)?),
            Format::DebeziumAvro => Box::new(debezium::avro(options, fields)?),
        };
        Ok(Facts { schema, payloads, columns })
    }

    fn own(&self, messages: &Messages) -> Result<OwnColumns> {
        let mut malformed = BTreeMap::new();
        let mut columns = vec![];
        for (own, field) in self.columns.iter().zip(self.schema.fields()) {
            let Some(own) = own else {
                columns.push(None);
                continue;
            };
            let (column, of_column) = own.column(messages, field)?;
            malformed.extend(of_column);
            columns.push(Some(column));
        }
        Ok((columns, malformed))
    }
}

impl Decode for Facts {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn decode(&self, messages: &Messages) -> Result<Decoded> {
        let (own, mut malformed) = self.own(messages)?;
        let payloads = &messages.payloads;
        let tombstone = |at: usize| payloads.is_null(at) && !self.payloads.reads_tombstones();
        malformed.retain(|at, _| !tombstone(*at));
        let facts = (0..messages.len()).filter(|at| !malformed.contains_key(at) && !tombstone(*at));
        let read = self.payloads.read(payloads, &facts.collect::<Vec<_>>())?;
        malformed.extend(read.malformed);

        let picked = |array: ArrayRef| -> Result<ArrayRef> {
            if read.rows.len() == messages.len() {
                return Ok(array);
            }
            if read.rows.is_empty() {
                return Ok(new_empty_array(array.data_type()));
            }
            let rows = UInt64Array::from_iter_values(read.rows.iter().map(|row| *row as u64));
            take(&array, &rows, None).map_err(|e| Error::bug(format!("messages of a log picked: {e}")))
        };
        let mut of_payload = read.columns.into_iter();
        let column = |own: Option<ArrayRef>| match own {
            Some(own) => picked(own),
            None => of_payload.next().ok_or_else(|| Error::bug("a column of a log was not read")),
        };
        let columns = own.into_iter().map(column).collect::<Result<Vec<_>>>()?;
        let count = RecordBatchOptions::new().with_row_count(Some(read.rows.len()));
        let rows = RecordBatch::try_new_with_options(self.schema(), columns, &count)
            .map_err(|e| Error::bug(format!("rows of a log: {e}")))?;
        let offsets = Int64Array::from_iter_values(read.rows.iter().map(|row| messages.offsets.value(*row)));
        Ok(Decoded { rows, offsets, malformed: malformed.into_iter().collect() })
    }
}
