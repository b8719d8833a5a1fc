//! CSV: one record a message, without a header, its columns by position.
//!
//! Arrow's decoder finds the fields, as text; [`crate::text`] makes them what the columns are. A record has a field for each
//! column, in their order, those of the message itself not counted. A line end after it may be there or not; one within it
//! is in quotes. Text that equals `csv.null`, by default the empty one, is NULL, quoted or not.
//!
//! Invariant: a record ends where its message ends, neither before nor after. A decoder that saw it otherwise is thrown
//! away.

use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use regex::Regex;
use watershed_core::{Error, Result};

use crate::apart::{Attempted, Fault, Read, read_apart};
use crate::facts::Payloads;
use crate::options::{CSV_DELIMITER, CSV_NULL, CSV_QUOTE, CSV_TIMESTAMP, Options};
use crate::spare::Spare;
use crate::text::Times;
use crate::typed::{as_columns, plain, read_as, sql_name};

pub(crate) struct Csv {
    fields: Fields,
    /// The columns as text.
    texts: SchemaRef,
    delimiter: u8,
    quote: u8,
    /// What is NULL; `None`: the empty text.
    null: Option<Regex>,
    times: Times,
    spare: Spare<Decoder>,
}

impl Csv {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        if fields.is_empty() {
            return Err(Error::input("format 'csv' has no column to read: the message's own are not in its payload"));
        }
        if let Some(field) = fields.iter().find(|field| !is_scalar(field.data_type())) {
            let (name, data_type) = (field.name(), sql_name(field.data_type()));
            return Err(Error::input(format!("column '{name}' is {data_type}, which cannot be read from CSV")));
        }
        let times = Times::of(CSV_TIMESTAMP, options.get(CSV_TIMESTAMP)).map_err(Error::input)?;
        let delimiter = options.character(CSV_DELIMITER, b',')?;
        let quote = options.character(CSV_QUOTE, b'"')?;
        if delimiter == quote {
            return Err(Error::input(format!("options {CSV_DELIMITER} and {CSV_QUOTE}: give two characters")));
        }
        let null = options.get(CSV_NULL).filter(|text| !text.is_empty());
        let null = null.map(|text| Regex::new(&format!("^{}$", regex::escape(text)))).transpose();
        let null = null.map_err(|e| Error::input(format!("option {CSV_NULL}: {e}")))?;
        let texts = Schema::new(fields.iter().map(|f| Field::new(f.name(), DataType::Utf8, true)).collect::<Vec<_>>());
        Ok(Csv { fields, texts: Arc::new(texts), delimiter, quote, null, times, spare: Spare::default() })
    }

    fn decoder(&self, messages: usize) -> Decoder {
        let builder = ReaderBuilder::new(Arc::clone(&self.texts)).with_batch_size(messages + 1);
        let builder = builder.with_delimiter(self.delimiter).with_quote(self.quote);
        match &self.null {
            Some(null) => builder.with_null_regex(null.clone()).build_decoder(),
            None => builder.build_decoder(),
        }
    }

    fn attempt(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Attempted, Fault> {
        let spare = self.spare.take(messages.len());
        let (most, mut decoder) = spare.unwrap_or_else(|| (messages.len(), self.decoder(messages.len())));
        for (at, message) in messages.iter().enumerate() {
            let fed = feed(&mut decoder, payloads.value(*message), self.fields.len());
            fed.map_err(|reason| Fault { at: Some(at), reason })?;
        }
        let rows = decoder.flush().map_err(plain)?.ok_or("it is empty")?;
        self.spare.give(most, decoder, payloads);
        as_columns(&rows, &self.fields, self.times).map_err(Fault::from)
    }
}

impl Payloads for Csv {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        read_apart(&self.fields, messages, &|some| self.attempt(payloads, some))
    }
}

fn is_scalar(data_type: &DataType) -> bool {
    read_as(data_type).is_some() && !data_type.is_nested()
}

/// One payload into the decoder, or why it is none.
fn feed(decoder: &mut Decoder, payload: &[u8], columns: usize) -> Result<(), String> {
    // Arrow looks at all fields together, and would cut characters where two fields make one.
    if std::str::from_utf8(payload).is_err() {
        return Err("it is not UTF-8".into());
    }
    let end = payload.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let before = decoder.capacity();
    let mut decode = |bytes: &[u8]| match decoder.decode(bytes) {
        Ok(read) if read == bytes.len() => Ok(before - decoder.capacity()),
        Err(e) if before == decoder.capacity() => Err(match plain(e) {
            wrong if wrong.contains("number of fields") => format!("it does not have {columns} fields"),
            other => other,
        }),
        // How far more records were read depends on the decoder.
        _ => Ok(usize::MAX),
    };
    match (decode(&payload[..end])?, decode(b"\n")?) {
        (0, 1) => Ok(()),
        (0, 0) if end == 0 => Err("it is empty".into()),
        (0, 0) => Err("the CSV record ends within quotes".into()),
        _ => Err("there is more than one CSV record".into()),
    }
}
