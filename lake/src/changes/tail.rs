//! A table's changes as a log: one part, whose messages are the table's versions, and whose rows are what these changed.
//!
//! ```text
//!  log entries as they come ─ Version ─▶ VersionRows ─ batches with an offset a row ─▶ core's FetchedRows
//! ```
//!
//! What was decided here, and why:
//!
//! * A row has the offset `version · VERSION + row`, so that a job may commit in the middle of a version that changed more than
//!   memory holds, and go on behind the very row: versions are read in one order, from log entry and files that never change.
//! * Who asks for nothing else gets what the table holds when it is begun, as inserts, and then what changes, as with Spark: so a
//!   copy of the table is whole however old the table is and whatever was vacuumed. `earliest` is the oldest version whose log
//!   entry is there.
//! * Rows are handed over as they are. There is no format between, which would be made and understood for nothing.
//!
//! **Invariant:** versions are told one after the other, or the reader stops and names the one that cannot be told any more; a
//! table that was made anew in the place of the one that was opened is not taken for it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use watershed_core::tail::{LogState, Numbering, Part, Tail, TailPosition, TailReader};
use watershed_core::{Error, EventTime, Result};

use super::offset::{PART, Standing, Told, begins};
use super::reader::ChangeReader;
use super::table::Table;
use crate::log;
use crate::stores::Stores;

/// The changes of a table as the tail of a source.
pub struct ChangeTail {
    table: Arc<Table>,
    /// The versions whose log entries are there, as last seen.
    seen: Mutex<Option<Range<u64>>>,
}

impl ChangeTail {
    /// The changes of the Delta table at a location. `key` names the columns by which a delete and an insert in one version are
    /// known to be an update, where the table does not say it itself.
    pub async fn open(stores: &Stores, location: &str, key: Option<&[String]>) -> Result<ChangeTail> {
        let table = Arc::new(Table::open(stores, location, key).await?);
        Ok(ChangeTail { table, seen: Mutex::new(None) })
    }

    /// The table's columns, then [`CHANGE_COLUMNS`](super::CHANGE_COLUMNS).
    pub fn schema(&self) -> SchemaRef {
        self.table.schema.clone()
    }

    /// The offset from which on all is told that the table held when it was opened, as inserts, and then what changed since.
    pub fn content(&self) -> i64 {
        Standing::before(self.table.newest, Told::Content).offset()
    }

    /// The versions whose log entries are there.
    async fn versions(&self) -> Result<Range<u64>> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen().clone();
        // What came since is all that has to be listed.
        let after = known.as_ref().and_then(|known| known.end.checked_sub(2));
        let mut found = self.listed(after).await?;
        if let (Some(known), Some(found)) = (known, &mut found) {
            found.start = found.start.min(known.start);
        }
        let found = match found {
            None if after.is_some() => self.listed(None).await?,
            found => found,
        };
        let gone = || Error::stopped(format!("table {} is gone: its log has no entries", self.table.location));
        let found = found.ok_or_else(gone)?;
        *seen() = Some(found.clone());
        Ok(found)
    }

    async fn listed(&self, after: Option<u64>) -> Result<Option<Range<u64>>> {
        let files = log::list_log(&self.table.place, after).await?;
        let versions = || files.iter().filter(|(_, meta)| log::is_commit(&meta.location)).map(|(version, _)| *version);
        Ok(versions().min().zip(versions().max()).map(|(first, last)| first..last + 1))
    }
}

impl fmt::Debug for ChangeTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeTail").field("location", &self.table.location).finish_non_exhaustive()
    }
}

#[async_trait]
impl Tail for ChangeTail {
    fn location(&self) -> &str {
        &self.table.location
    }

    async fn look(&self) -> Result<LogState> {
        let versions = self.versions().await?;
        let parts = BTreeMap::from([(PART, begins(versions.start)..begins(versions.end))]);
        Ok(LogState { id: Some(self.table.id.clone()), parts, numbering: Numbering::Versions })
    }

    /// Versions are gone back through as far as they are young enough, so this costs what will be read.
    async fn at_time(&self, time: EventTime) -> Result<BTreeMap<Part, i64>> {
        let versions = self.versions().await?;
        let mut from = versions.end;
        for version in versions.rev() {
            let Some(commit) = log::read_commit(&self.table.place, version).await? else { break };
            if self.table.time(&commit).await? < time {
                break;
            }
            from = version;
        }
        Ok(BTreeMap::from([(PART, begins(from))]))
    }

    async fn read(&self, from: &BTreeMap<Part, i64>) -> Result<Box<dyn TailReader>> {
        match from.iter().next() {
            Some((&PART, offset)) if from.len() == 1 => {
                Ok(Box::new(ChangeReader::start(Arc::clone(&self.table), Standing::at(*offset))))
            }
            _ => Err(Error::bug(format!("the changes of {} are read from {from:?}", self.table.location))),
        }
    }

    /// Nobody watches.
    async fn report(&self, _: &TailPosition) -> Result<()> {
        Ok(())
    }
}
