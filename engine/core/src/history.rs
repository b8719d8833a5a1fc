//! The history of a source: the lake table in which its facts are kept, as a pinned snapshot lists it.
//!
//! A [`Snapshot`] is facts only: files, grouped by time partition, with what is known of each without opening it. Which
//! of them are read next is decided in [`crate::slice`]; how they are read is the fragment's affair. So a lake format has to
//! know nothing of watermarks, and the planner nothing of formats.
//!
//! Invariant: partitions of a snapshot are sorted by start and do not overlap; a partition without a time (NULL) comes
//! apart from them. A file's identity is its path, which a history never reuses for other bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::text::TextFiles;
use crate::time::{EventTime, Grain, Interval};

/// Where a table's files lie and what columns they hold; all a scan has to know besides the files.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The table's root as the user gave it, for messages.
    pub location: String,
    /// Scheme and authority of the object store that [`DataFile::path`] is a path in, such as `file:///` or `s3://bucket/`.
    pub store: String,
    /// Columns stored in the files, as the table declares them.
    pub file_schema: SchemaRef,
    /// Partition columns, whose values come from the file list; they follow the file columns in the table's schema.
    pub partition_columns: Vec<FieldRef>,
    /// The partition column, or pattern of paths, that carries time, and how wide its values are; `None` where none does.
    pub time_partition: Option<(String, Grain)>,
    /// The same columns, those of the files and then those of the partitions, under the names that files know them by;
    /// `None` where these are the table's. A field that carries [`FIELD_ID`] is found by that number in files that have
    /// such numbers.
    pub stored: Option<SchemaRef>,
    /// Whether the columns are what a sample of the files has, and nobody's declaration: then each file's types are looked
    /// at when it is opened.
    pub inferred: bool,
    /// What the files hold, where they are text; `None`: Parquet.
    pub text: Option<TextFiles>,
}

impl Layout {
    /// Whether files lie behind a network, where a request costs about as much as a megabyte.
    pub fn is_remote(&self) -> bool {
        !self.store.starts_with("file:")
    }
}

/// Metadata key of a field's number, as Arrow's Parquet reader writes it.
pub const FIELD_ID: &str = "PARQUET:field_id";

/// Bytes from which on a file may be read as pieces. A shorter one always is one piece.
pub const LONG: u64 = 4 << 20;

/// One file of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataFile {
    /// Path in the object store, from its root.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows, where known.
    pub rows: Option<u64>,
    /// Partition values in the order of [`Layout::partition_columns`], as written in path or log; `None` is NULL.
    pub values: Vec<Option<String>>,
    /// What is known of the event-time column.
    pub times: Times,
    /// Only the row groups whose first byte lies in this range: a piece of a file that statistics place apart from its rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
    /// The rows of it that were deleted, where the table marks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

/// Where a file's deletion vector lies, as the Delta log writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionVector {
    /// `u`, `i` or `p`.
    pub storage: String,
    pub path_or_inline: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    /// Bytes.
    pub size: i32,
    /// Rows deleted.
    pub cardinality: i64,
}

/// The rows of a file that were deleted, by their number in the file, from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedRows {
    /// Rows in the file, deleted ones included.
    pub rows: u64,
    /// Sorted, disjoint, not touching, none empty, all below `rows`.
    pub runs: Vec<Range<u64>>,
}

impl DataFile {
    /// A whole file of which nothing else is known.
    pub fn new(path: impl Into<String>, size: u64) -> Self {
        let (rows, values, times) = (None, vec![], Times::Unknown);
        DataFile { path: path.into(), size, rows, values, times, range: None, deletion_vector: None }
    }

    /// When its facts happened, as far as its statistics or its partition know.
    pub fn happened(&self, partition: Option<Interval>) -> Interval {
        match self.times {
            Times::Known { min, max, .. } if min <= max => {
                Interval { start: min, end: EventTime(max.0.saturating_add(1)) }
            }
            // NULLs only: no fact of any window.
            Times::Known { min, .. } => Interval { start: min, end: min },
            Times::Unknown => partition.unwrap_or(Interval { start: EventTime::MIN, end: EventTime::MAX }),
        }
    }

    /// Bytes to read: those of the piece, if it is one.
    pub fn bytes(&self) -> u64 {
        self.range.map_or(self.size, |(from, to)| to.saturating_sub(from))
    }
}

/// What a file's statistics say of its event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Times {
    /// No statistics, or none one may trust.
    Unknown,
    /// No row has a time later than `max` or earlier than `min` (both inclusive bounds, not necessarily met); `nulls` rows
    /// have none. A file of NULLs only has `min = MAX` and `max = MIN`.
    Known { min: EventTime, max: EventTime, nulls: u64 },
}

/// The files of one value of the time partition columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TimePartition {
    pub interval: Interval,
    pub files: Vec<DataFile>,
}

/// Identifies one state of a history, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// A Delta table's version, and the table's id, so that a table made anew is recognised.
    Delta { version: u64, table_id: String },
    /// A folder's listing, named by the hash of its (path, size, ETag) lines.
    Listing { digest: String },
    /// Of a source that has a log only.
    Nothing,
}

/// A pinned state of a history.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub version: Version,
    /// Sorted by start, disjoint.
    pub partitions: Vec<TimePartition>,
    /// Files whose time partition is NULL: read first.
    pub timeless: Vec<DataFile>,
    /// The table is not partitioned by time: its partitions are groups of files that statistics place apart. Nobody promised
    /// that they are, so such a partition is closed by its end and the grace alone.
    pub by_statistics: bool,
    /// For versions that the history itself cannot bring back (a folder's listing): bytes that the job keeps beside its
    /// checkpoint and hands to [`History::pin`] again.
    pub keepsake: Option<Vec<u8>>,
}

impl Snapshot {
    /// The latest event time, as far as is known without opening a file.
    ///
    /// Facts beyond `ahead` are bad ones, and move no watermark; of a file that holds some, the earliest is all that is sure.
    pub fn newest(&self, ahead: EventTime) -> EventTime {
        let latest = |file: &DataFile| match file.times {
            Times::Known { min, max, .. } if min <= max => [max, min].into_iter().find(|time| *time <= ahead),
            _ => None,
        };
        let files = self.partitions.iter().flat_map(|p| &p.files).filter_map(latest).max();
        let starts = || self.partitions.iter().rev().map(|p| p.interval.start).find(|start| *start <= ahead);
        files.or_else(starts).unwrap_or(EventTime::MIN)
    }
}

/// What happened to a history between two versions. Intervals are those of the files' time partitions; `None` is NULL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Files with new facts. Such a file may since have been compacted away, and is still read by its own path.
    pub added: Vec<(Option<Interval>, DataFile)>,
    /// Facts that went away or were rewritten.
    pub removed: Vec<Removed>,
    /// Files that were put in place of others with the same facts, oldest first.
    pub rewritten: Vec<Rewritten>,
}

/// One compaction: the same facts, in other files.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    pub removed: Vec<String>,
    pub added: Vec<(Option<Interval>, DataFile)>,
}

/// Facts that went away: enough for the error's text, and to see whether they had been read.
#[derive(Clone, Debug, PartialEq)]
pub struct Removed {
    /// The version that removed them, as people call it.
    pub version: String,
    pub path: String,
    pub interval: Option<Interval>,
}

/// What others than the archive of a log did to a history, commit by commit, up to the newest version.
#[derive(Clone, Debug, PartialEq)]
pub struct Beside {
    pub version: Version,
    /// When facts happened that came, went or were rewritten, of each file.
    pub changed: Vec<Interval>,
    /// Facts of the version before that went away or were rewritten: the first of them.
    pub gone: Option<Removed>,
}

/// What writers of logs recorded in a version of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Records {
    /// Of each application, the version of its last commit: of one that archives part `n` of a log as `{x}-{n}`, the offset
    /// of the last message it wrote.
    pub transactions: BTreeMap<String, i64>,
    /// Of those of them that recorded it, the latest event time they wrote.
    pub newest: BTreeMap<String, EventTime>,
}

/// Whether an application archives a part of a log, by its name.
pub type Archives = dyn Fn(&str) -> bool + Send + Sync;

/// The seam to a lake table that is read as history.
///
/// Laws: `pin` of the same version gives the same files and partitions, or an error that names the version, never fewer
/// files. `changes(a, b)` tells facts that came or went from those that were only rewritten (compaction). `pieces` of a file
/// are the same for ever: a checkpoint's boundary is understood by them.
#[async_trait]
pub trait History: Send + Sync {
    /// The table's layout, as of the newest version when the history was opened.
    fn layout(&self) -> &Layout;

    /// The newest version when `at` is `None`, else exactly that one (with the keepsake of its first pinning).
    async fn pin(&self, at: Option<(&Version, Option<&[u8]>)>) -> Result<Snapshot>;

    /// What came between two versions, `from` exclusive, `to` inclusive.
    async fn changes(&self, from: &Snapshot, to: &Snapshot) -> Result<Changes>;

    /// Fills in [`DataFile::times`] and [`DataFile::rows`] where the list did not have them and the files do, by reading
    /// footers. Called for files soon to be read, a slice or a leak's width ahead. Files that cannot tell stay `Unknown`.
    async fn look(&self, files: &mut [&mut DataFile]) -> Result<()>;

    /// The rows that the deletion vectors of these files mark, file by file; `None` for a file without one. Called once for
    /// the files of a step, before any of them is read. A vector that cannot be read is an error: going on without it would
    /// count facts that were deleted.
    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>>;

    /// Cuts long files into pieces of whole row groups, each with its own rows and times; short ones, pieces, and files whose
    /// footers cannot tell come back as they are, with what [`History::look`] fills in.
    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>>;

    /// What came to be since a version, exclusive, but for what the log's archive brought as it read on: in commits that record
    /// how far an application has come which `archives` knows. Facts that went are told of by their times only if it is asked.
    /// A history that keeps no records has no archive, and is not asked.
    async fn beside(&self, since: &Version, _archives: &Archives, _times_of_gone: bool) -> Result<Beside> {
        Ok(Beside { version: since.clone(), changed: vec![], gone: None })
    }

    /// What writers of logs recorded in a version. A history that keeps no records has none.
    async fn records(&self, _: &Version) -> Result<Records> {
        Ok(Records::default())
    }
}

/// The history of a source that has a log only: columns, and no files.
#[derive(Clone, Debug)]
pub struct NoHistory(pub Layout);

#[async_trait]
impl History for NoHistory {
    fn layout(&self) -> &Layout {
        &self.0
    }

    async fn pin(&self, _: Option<(&Version, Option<&[u8]>)>) -> Result<Snapshot> {
        let version = Version::Nothing;
        Ok(Snapshot { version, partitions: vec![], timeless: vec![], by_statistics: false, keepsake: None })
    }

    async fn changes(&self, _: &Snapshot, _: &Snapshot) -> Result<Changes> {
        Ok(Changes::default())
    }

    async fn look(&self, _: &mut [&mut DataFile]) -> Result<()> {
        Ok(())
    }

    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>> {
        Ok(vec![None; files.len()])
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        Ok(files)
    }
}
