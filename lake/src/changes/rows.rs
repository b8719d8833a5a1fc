//! One version as rows: the parts of its log entry read one after the other, each row with what became of it.
//!
//! The rows of a version come in one order, whenever and however often they are read: that of its parts, and of rows in
//! files. So a reader may go on behind any of them. What is held is a batch of a file, and, where a version both deletes and
//! inserts and the table has a key, the hashes of the keys that it deletes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::FieldRef;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use watershed_core::time::EventTime;
use watershed_core::{Error, Result};

use super::pair::Pairs;
use super::part::Parts;
use super::plan::{Part, What, content, plan};
use super::table::{Key, Table};
use crate::keyed::key::KeyHash;
use crate::keyed::live::LiveFiles;
use crate::log::LogCommit;

/// A version, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) version: u64,
    pub(super) time: EventTime,
    parts: Vec<Part>,
}

impl Version {
    /// What a log entry changed.
    pub(super) async fn changed(table: &Table, commit: &LogCommit) -> Result<Version> {
        Ok(Version { version: commit.version, time: table.time(commit).await?, parts: plan(commit) })
    }

    /// All that the table holds behind a log entry, as if it had come with it.
    pub(super) async fn held(table: &Table, commit: &LogCommit) -> Result<Version> {
        let files = LiveFiles::load(&table.place, commit.version, &[]).await?;
        let parts = content(files.iter().map(|file| &file.add));
        Ok(Version { version: commit.version, time: table.time(commit).await?, parts })
    }
}

/// A version being read.
pub(super) struct VersionRows {
    of: Arc<Parts>,
    time: EventTime,
    parts: VecDeque<Part>,
    pairs: Pairs,
    open: Option<(What, BoxStream<'static, Result<RecordBatch>>)>,
    /// Rows that are passed over.
    skip: u64,
}

impl VersionRows {
    /// Begins behind so many of its rows.
    pub(super) async fn open(table: &Arc<Table>, version: Version, skip: u64) -> Result<VersionRows> {
        let Version { version, time, parts } = version;
        let of = Parts { table: Arc::clone(table), version };
        let pairs = find_pairs(&of, &parts).await?;
        Ok(VersionRows { of: Arc::new(of), time, parts: parts.into(), pairs, open: None, skip })
    }

    /// The next rows, at least one; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some((what, rows)) = &mut self.open {
                let (what, batch) = (*what, rows.try_next().await?);
                let Some(batch) = batch else {
                    self.open = None;
                    continue;
                };
                let behind = usize::try_from(self.skip).unwrap_or(usize::MAX).min(batch.num_rows());
                self.skip -= behind as u64;
                if behind < batch.num_rows() {
                    let batch = batch.slice(behind, batch.num_rows() - behind);
                    return self.labelled(what, batch).map(Some);
                }
            } else if let Some(part) = self.parts.pop_front() {
                let of = Arc::clone(&self.of);
                let open = of.open(&part).await?;
                match open.rows <= self.skip {
                    true => self.skip -= open.rows,
                    false => self.open = Some((part.what, open.read()?)),
                }
            } else if self.skip > 0 {
                return Err(Error::stopped(format!(
                    "version {} of table {} has fewer rows than were read of it before: it is not the version that it was; build the \
                     view anew (CREATE OR REPLACE)",
                    self.of.version, self.of.table.location
                )));
            } else {
                return Ok(None);
            }
        }
    }

    /// A batch with what was done to its rows, and when.
    fn labelled(&self, what: What, batch: RecordBatch) -> Result<RecordBatch> {
        let fail = |e| Error::bug(format!("changes as rows: {e}"));
        let rows = batch.num_rows();
        let mut columns = batch.columns().to_vec();
        match (what, &self.of.table.key) {
            (What::Told, _) => {
                if columns.last().is_some_and(|told| told.as_string::<i32>().iter().any(|word| word.is_none())) {
                    return Err(self
                        .of
                        .untold("a change file does not say what was done to its rows (_change_type)".into()));
                }
            }
            (_, Some(key)) if !self.pairs.is_empty() => {
                let updated = hashes(key, &batch)?;
                let updated = updated.iter().map(|key| u32::from(self.pairs.updated(key)));
                let words = match what {
                    What::Deleted => ["delete", "update_preimage"],
                    _ => ["insert", "update_postimage"],
                };
                let words: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
                columns.push(take(&words, &UInt32Array::from_iter_values(updated), None).map_err(fail)?);
            }
            _ => {
                let word = if what == What::Deleted { "delete" } else { "insert" };
                columns.push(Arc::new(StringArray::from(vec![word; rows])));
            }
        }
        let number = i64::try_from(self.of.version).unwrap_or(i64::MAX);
        columns.push(Arc::new(Int64Array::from(vec![number; rows])));
        columns.push(Arc::new(TimestampMicrosecondArray::from(vec![self.time.0; rows]).with_timezone("UTC")));
        RecordBatch::try_new(self.of.table.schema.clone(), columns).map_err(fail)
    }
}

/// The keys that a version both deletes and inserts.
async fn find_pairs(of: &Parts, parts: &[Part]) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    let Some(key) = &of.table.key else { return Ok(pairs) };
    let has = |what| parts.iter().any(|part| part.what == what);
    if !(has(What::Deleted) && has(What::Inserted)) {
        return Ok(pairs);
    }
    let columns: Vec<FieldRef> = key.columns.iter().map(|i| of.table.schema.fields()[*i].clone()).collect();
    // Deletes come first.
    for part in parts {
        let mut rows = of.open(part).await?.read_columns(&columns)?;
        while let Some(batch) = rows.try_next().await? {
            let hashes = key.keyer.hashes(batch.columns())?;
            match part.what {
                What::Deleted => pairs.delete(&hashes),
                _ => pairs.insert(&hashes),
            }
        }
    }
    pairs.settle();
    Ok(pairs)
}

fn hashes(key: &Key, batch: &RecordBatch) -> Result<Vec<KeyHash>> {
    key.keyer.hashes(&key.columns.iter().map(|i| batch.column(*i).clone()).collect::<Vec<_>>())
}
