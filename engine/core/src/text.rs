//! Files of text as facts: what a format makes of a file's bytes, and the seam between whoever fetches them and who knows
//! what they mean.
//!
//! ```text
//!  a file's bytes, in pieces of any length ──push──▶ TextReader ──next──▶ TextRows: facts, malformed records, their lines
//! ```
//!
//! There is no I/O here: a scan fetches the bytes to read a file, a folder to learn which times it holds, and either pushes
//! them into a reader of the one format.
//!
//! Invariant: a record is one fact, or one of the malformed ones, and carries the line that it begins on. What becomes of it
//! depends on the file's bytes alone, not on the pieces in which they came nor on who asks for which columns.

use std::fmt;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::settings::OnError;

/// What the files of a table of text hold, and what is done about records that are no facts.
#[derive(Clone, Debug)]
pub struct TextFiles {
    pub format: Arc<dyn TextFormat>,
    pub on_error: OnError,
}

/// What the bytes of files mean.
pub trait TextFormat: fmt::Debug + Send + Sync {
    /// The columns of the facts.
    fn schema(&self) -> SchemaRef;

    /// The same format with other columns: a folder's names may tell some of them.
    fn with_schema(&self, schema: SchemaRef) -> Result<Arc<dyn TextFormat>>;

    /// What the names of such files end with.
    fn endings(&self) -> Vec<String>;

    /// Begins to read a file of this name, which tells how it is compressed.
    fn begin(&self, path: &str) -> Result<Box<dyn TextReader>>;
}

/// A file being read.
pub trait TextReader: Send {
    /// Takes the next bytes of the file.
    fn push(&mut self, bytes: &[u8]);

    /// Nothing more will be pushed.
    fn finish(&mut self);

    /// Some records of what was pushed; `None`: push more, or, after [`TextReader::finish`], that was all. An error is for
    /// what concerns the whole file, such as one that cannot be unpacked.
    fn next(&mut self) -> Result<Option<TextRows>>;
}

/// Some records of a file.
#[derive(Clone, Debug)]
pub struct TextRows {
    /// How many records these are, as they were cut.
    pub records: u64,
    /// The facts among them, in their order, in [`TextFormat::schema`].
    pub rows: RecordBatch,
    /// For each fact the line that its record begins on, from 0.
    pub lines: Int64Array,
    pub malformed: Vec<MalformedRecord>,
}

/// A record that no fact could be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedRecord {
    /// The line that it begins on, from 0.
    pub line: i64,
    /// The record, or its beginning, if it is too long for one.
    pub payload: Vec<u8>,
    /// What is wrong with it.
    pub error: String,
}
