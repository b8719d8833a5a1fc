//! The seam of results: rows go into files at once, become visible by one commit an epoch, and never twice.
//!
//! A result is a table, or a log, to which each row is a message. A log has no snapshot to commit on, so its epochs wait in
//! staged files; a log without commits promises less, writes as rows come, and prepares nothing.
//!
//! The order is fixed (design §6): data files, prepared commit, manifest, commit. A [`PreparedCommit`] is logical: it says
//! which files the epoch adds; what it takes to make them visible is computed against the snapshot the commit is made on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::history::DeletionVector;
use crate::tail::Part;
use crate::time::{EventTime, Interval};

/// A data file, or a file of staged messages, that was written whole and waits to be committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Path relative to the table's root, or to where messages are staged.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    /// Partition column to value, as Delta writes it.
    pub values: BTreeMap<String, Option<String>>,
    /// Delta statistics, JSON.
    pub stats: String,
    /// Rows that others of the same epoch replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<DeletionVector>,
    /// Of a keyed table: its rows are no rows of the table, but name keys that are deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletes: bool,
    /// Of a keyed table in which NULL keeps the old value: before its rows the epoch deleted their keys, so nothing old is
    /// kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
}

/// What one epoch adds to one table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PreparedCommit {
    pub files: Vec<WrittenFile>,
    /// What of a log the table has with this commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<Archived>,
    /// Rows that the table has and that are not to be there any more: the files have what there is in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// The same, told by other columns; an epoch has this or [`PreparedCommit::replaced`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Deleted>,
}

/// Rows of a table that go: those that have one of these texts in each of these columns. Which rows that are is found out on
/// the snapshot that is committed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    pub texts: BTreeMap<String, BTreeSet<String>>,
}

/// Rows of a table that go: those whose time in a column lies in one of some intervals. Which rows that are is found out on
/// the snapshot that is committed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub column: String,
    /// Sorted, disjoint.
    pub times: Vec<Interval>,
}

/// How far a log is in a table: recorded in the very commit that brings the rows, one `txn` action a part (design §5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Archived {
    /// The `x` of the application ids `{x}-{part}`.
    pub archive: String,
    pub parts: BTreeMap<Part, ArchivedPart>,
}

/// How far one part of a log is in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedPart {
    /// The offset of the last message that was written.
    pub last: i64,
    /// The latest event time written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<EventTime>,
}

impl Archived {
    /// The application id of a part.
    pub fn application(archive: &str, part: Part) -> String {
        format!("{archive}-{part}")
    }
}

impl PreparedCommit {
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.replaced.is_none() && self.deleted.is_none() && self.archived.is_none()
    }
}

/// Rows as a log takes them, a message each. Without a `key` a message is anybody's; without a `payload` it is a tombstone, by
/// which its key is deleted.
///
/// | column | type |
/// |---|---|
/// | `key` | Binary, nullable |
/// | `payload` | Binary, nullable |
pub fn message_schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Binary, true);
    Arc::new(Schema::new(vec![column("key"), column("payload")]))
}

/// In what an epoch records beside its commits: its rows are messages that were passed over before, and played back.
pub const PLAYED_BACK: &str = "watershed.played_back";

/// By what a table recognises an epoch's commit: application id `watershed/{incarnation}/{sink}`, version the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitIdentity {
    pub application: String,
    pub epoch: u64,
    /// The last epoch of this application that reached the table, as our manifest knows it; `None` before the first.
    pub after: Option<u64>,
}

/// How a commit ended. There is no third way: what is not known is found out by reading back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// This call made the epoch visible, as this table version.
    Now { version: u64 },
    /// The table had it already.
    Before,
}

/// Takes the rows of one epoch.
///
/// Laws: nothing written is visible before the commit; dropping a writer leaves at most orphan files.
#[async_trait]
pub trait EpochWriter: Send + Sync {
    /// Takes a batch of the sink's input schema. `lane` is the caller's shard: batches of one lane keep their order; lanes
    /// may be written in parallel.
    async fn write(&self, lane: usize, rows: RecordBatch) -> Result<()>;

    /// Closes every file. Called once, after the last write has returned.
    async fn finish(&self) -> Result<PreparedCommit>;
}

/// A result: a table, or a log.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The result's name in the job, the last part of the application id.
    fn name(&self) -> &str;

    /// Where it lies, for messages.
    fn location(&self) -> &str;

    /// Starts an epoch's files.
    fn writer(&self) -> Result<Arc<dyn EpochWriter>>;

    /// Makes a prepared commit visible, once, by the rules of design §6: on the very snapshot that is committed on, version
    /// ≥ epoch means done, `after` means commit, anything else stops with an error that says why. `info` is recorded in
    /// the commit (end positions and watermark).
    async fn commit(
        &self,
        identity: &CommitIdentity,
        prepared: &PreparedCommit,
        info: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed>;

    /// The last epoch of `application` that the table has, with its recorded info where it can still be read.
    async fn last_committed(&self, application: &str) -> Result<Option<LastCommit>>;

    /// Errors unless every prepared file is there with its size; asked before a redo.
    async fn verify(&self, prepared: &PreparedCommit) -> Result<()>;

    /// The offset of the last message of each part of a log that the table has on record under this name.
    async fn archived(&self, _archive: &str) -> Result<BTreeMap<Part, i64>> {
        Ok(BTreeMap::new())
    }

    /// Puts the table in shape where no rows are expected any more. Called beside commits, now and then; what it does not do
    /// now is done later, so that nothing depends on it.
    async fn tidy(&self) -> Result<()> {
        Ok(())
    }
}

/// The newest commit of an application in a table.
#[derive(Clone, Debug, PartialEq)]
pub struct LastCommit {
    pub epoch: u64,
    pub info: BTreeMap<String, serde_json::Value>,
}
