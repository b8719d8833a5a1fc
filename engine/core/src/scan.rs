//! What a fragment is bound to for one step, and where the rows go that it does not use.
//!
//! A fragment is planned once per job with a hole for each source; a step fills each hole with a [`ScanInput`]. Files that
//! statistics prove clean are read as they are. Where a file may hold late or bad rows, the scan is *inspected*: it reads
//! file name and row number too, hands rejected rows over, and lets the rest pass. So the usual case pays nothing, and
//! no row is dropped without being listed.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::history::{DataFile, DeletedRows, Times};
use crate::tail::LogRows;
use crate::time::EventTime;

/// A file to scan within a step, perhaps only the row groups whose first byte lies in a byte range.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanFile {
    pub file: DataFile,
    pub range: Option<(u64, u64)>,
    /// Rows that are not read: what the file's deletion vector says, resolved ([`crate::history::History::deleted`]).
    pub deleted: Option<Arc<DeletedRows>>,
}

/// What one source contributes to a step.
#[derive(Clone, Debug, Default)]
pub struct ScanInput {
    pub files: Vec<ScanFile>,
    /// Rows of the source's log; a step reads files or a log.
    pub log: Vec<LogRows>,
    /// Set when any of them may hold rows that must be rejected.
    pub inspect: Option<Inspect>,
    /// Takes the records of text files that no fact could be made of. Without it they are left out, as in a query that runs
    /// once.
    pub rejects: Option<Arc<dyn Rejects>>,
}

/// By what an inspected scan tells rejected rows.
#[derive(Clone, Debug)]
pub struct Inspect {
    /// The watermark before the step: a row is late when its window ends at or before it.
    pub watermark: EventTime,
    /// A row with a later event time is bad.
    pub ahead: EventTime,
    pub rejects: Arc<dyn Rejects>,
}

/// Takes rejected rows, from many tasks. The batch has the lowered job's `rejected` schema (see the plan crate): its first
/// columns are [`REJECTED_COLUMNS`], then the columns that the query read.
pub trait Rejects: Send + Sync + fmt::Debug {
    fn take(&self, reason: Reason, rows: RecordBatch) -> Result<()>;

    /// Counts so many bad rows that nobody wants to see.
    fn count(&self, _bad: u64) {}
}

/// The first columns of the table of rejected rows: text, text, bigint, timestamp, timestamp, text, timestamp, timestamp, text.
/// Of a late row, the two before the last tell which windows it has missed: from the start of the first to the end of the
/// last. Where windows overlap, it was used in its other ones. The last is the partition of its file, as in `day=2024-05-01`;
/// NULL in a table without partitions.
pub const REJECTED_COLUMNS: [&str; 9] =
    ["_source", "_file", "_row", "_event_time", "_watermark", "_reason", "_missed_from", "_missed_until", "_partition"];

/// The last columns of the table of rejected rows of a job that reads messages or text: what was read, what is wrong with it,
/// and, of a message, when it was written. Bytes, text, timestamp.
pub const MESSAGE_COLUMNS: [&str; 3] = ["_payload", "_error", "_written_at"];

/// Why a row was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its window was emitted before.
    Late,
    /// Its event time is NULL.
    NoTime,
    /// Its event time lies beyond now + `max_ahead`.
    Ahead,
    /// It is a message or a record of text that no fact could be made of.
    Malformed,
}

impl Reason {
    /// As written to `_reason`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Late => "late",
            Reason::NoTime => "no event time",
            Reason::Ahead => "event time beyond max_ahead",
            Reason::Malformed => "malformed",
        }
    }
}

/// Holds scans back, so that a job reads no faster than it may; one for all its workers.
pub trait Pace: Send + Sync + fmt::Debug {
    /// Whether bytes count; else they need not be told.
    fn by_bytes(&self) -> bool;

    /// Books what was read; ready when it may be passed on.
    fn book(&self, rows: u64, bytes: u64) -> BoxFuture<'static, ()>;
}

/// The pace of a job, as scans find it among the extensions of the session that a step is run in.
#[derive(Clone, Debug)]
pub struct Pacing(pub Arc<dyn Pace>);

/// Whether statistics prove that no row of the file can be rejected. A window that holds a time at or after the watermark
/// ends after it, so `min ≥ watermark` is enough for every window form.
pub fn is_clean(file: &DataFile, watermark: EventTime, ahead: EventTime) -> bool {
    match file.times {
        Times::Unknown => false,
        Times::Known { min, max, nulls } => nulls == 0 && min >= watermark && max <= ahead,
    }
}
