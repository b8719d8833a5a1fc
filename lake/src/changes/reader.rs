//! The changes of a table being read: a task that tells version after version, and waits for the next.
//!
//! Two batches wait for the reader, and one is looked ahead for, because only the next tells which is a version's last. So
//! memory does not depend on how much a version changed.
//!
//! **Invariant:** an entry is looked for beside the one before it, which tells this log from another in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watershed_core::tail::{Fetched, FetchedRows, Part, TailReader};
use watershed_core::{Error, Result};

use super::offset::{PART, Standing, Told, begins};
use super::rows::{Version, VersionRows};
use super::table::Table;
use crate::log::state::{EntryMark, mark};
use crate::log::{self, LogCommit};

/// Between two looks at a table.
const EVERY: Duration = Duration::from_secs(1);

/// Batches that wait for the reader.
const AHEAD: usize = 2;

pub(super) struct ChangeReader {
    batches: mpsc::Receiver<Result<FetchedRows>>,
    held: bool,
    /// Ends with the reader.
    _telling: JoinSet<()>,
}

impl ChangeReader {
    pub(super) fn start(table: Arc<Table>, from: Standing) -> ChangeReader {
        let (send, batches) = mpsc::channel(AHEAD);
        let mut telling = JoinSet::new();
        telling.spawn(async move {
            let log = EntryLog { table: Arc::clone(&table), newest: None };
            let teller = Teller { log, table, send: send.clone() };
            if let Err(e) = teller.tell(from).await {
                // A reader that is gone does not want to know.
                let _ = send.send(Err(e)).await;
            }
        });
        ChangeReader { batches, held: false, _telling: telling }
    }
}

#[async_trait]
impl TailReader for ChangeReader {
    async fn next(&mut self) -> Result<Vec<Fetched>> {
        if self.held {
            return std::future::pending().await;
        }
        let ended = || Error::bug("the task that reads a table's changes has ended");
        let rows = self.batches.recv().await.ok_or_else(ended)??;
        Ok(vec![Fetched::Rows(rows)])
    }

    async fn hold(&mut self, parts: &BTreeSet<Part>) -> Result<()> {
        self.held = parts.contains(&PART);
        Ok(())
    }

    async fn add(&mut self, from: &BTreeMap<Part, i64>) -> Result<()> {
        Err(Error::bug(format!("the changes of a table have one part, and {from:?} was asked for")))
    }
}

/// Tells versions to a reader.
struct Teller {
    table: Arc<Table>,
    log: EntryLog,
    send: mpsc::Sender<Result<FetchedRows>>,
}

impl Teller {
    /// Tells all from a standing on; ends when nobody listens any more.
    async fn tell(mut self, mut at: Standing) -> Result<()> {
        loop {
            let commit = self.log.entry(at.version).await?;
            self.table.check(&commit)?;
            let version = match at.told {
                Told::Changes => Version::changed(&self.table, &commit).await?,
                Told::Content => Version::held(&self.table, &commit).await?,
            };
            if !self.tell_version(version, at).await? {
                return Ok(());
            }
            at = Standing::before(at.version + 1, Told::Changes);
        }
    }

    /// Whether somebody listens still.
    async fn tell_version(&mut self, version: Version, mut at: Standing) -> Result<bool> {
        let mut rows = VersionRows::open(&self.table, version, at.row).await?;
        let mut next = rows.next().await?;
        loop {
            let batch = next.take().unwrap_or_else(|| RecordBatch::new_empty(self.table.schema.clone()));
            if batch.num_rows() > 0 {
                next = rows.next().await?;
            }
            let (count, first) = (batch.num_rows() as u64, at.offset());
            if !at.has_room(count) {
                return Err(Error::stopped(format!(
                    "version {} of table {} has more rows than can be told of one version",
                    at.version, self.table.location
                )));
            }
            at.row += count;
            let whole = next.is_none();
            let fetched = FetchedRows {
                part: PART,
                rows: batch,
                offsets: Int64Array::from_iter_values(first..at.offset()),
                next: if whole { begins(at.version + 1) } else { at.offset() },
                whole,
                at_end: whole && self.log.ends_with(at.version),
            };
            if self.send.send(Ok(fetched)).await.is_err() {
                return Ok(false);
            }
            if whole {
                return Ok(true);
            }
        }
    }
}

/// The table's log entries as they come.
struct EntryLog {
    table: Arc<Table>,
    /// The newest that was seen, and what tells it from another of its name.
    newest: Option<(u64, Option<EntryMark>)>,
}

impl EntryLog {
    /// Waits for the entry of a version.
    async fn entry(&mut self, version: u64) -> Result<LogCommit> {
        loop {
            if self.newest.is_some_and(|(newest, _)| newest >= version) {
                let entry = log::read_commit(&self.table.place, version).await?;
                return entry.ok_or_else(|| self.table.gone(version));
            }
            self.look(version).await?;
            if self.newest.is_none_or(|(newest, _)| newest < version) {
                tokio::time::sleep(EVERY).await;
            }
        }
    }

    /// Looks what has come of a version that is waited for.
    async fn look(&mut self, version: u64) -> Result<()> {
        // With the entry before it.
        let files = log::list_log(&self.table.place, version.checked_sub(2)).await?;
        if let Some((known, before)) = self.newest
            && mark(&files, known) != before
        {
            self.table.check_same().await?;
        }
        let commits = files.iter().filter(|(_, meta)| log::is_commit(&meta.location));
        let newest = commits.map(|(version, _)| *version).max();
        self.newest = newest.map(|newest| (newest, mark(&files, newest)));
        Ok(())
    }

    /// Whether a version is the newest that was seen.
    fn ends_with(&self, version: u64) -> bool {
        self.newest.is_some_and(|(newest, _)| newest <= version)
    }
}
