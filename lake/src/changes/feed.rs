//! The feed of a stretch of versions: what `CHANGES` tells, one version after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::BoxStream;
use watershed_core::time::EventTime;
use watershed_core::{Error, Result};

use super::rows::{Version, VersionRows};
use super::table::Table;
use crate::log;
use crate::stores::{Place, Stores};

/// Where a feed begins; the version is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Version(u64),
    /// The first version that was committed at or after this time.
    Time(EventTime),
}

/// What happened to a table between two versions, both included.
#[derive(Debug)]
pub struct ChangeFeed {
    table: Arc<Table>,
    versions: Vec<Version>,
}

/// The changes of the table at a location from a version or time on, up to a version or the newest. A version whose log
/// entry is gone is an error.
pub async fn changes(stores: &Stores, location: &str, since: Since, until: Option<u64>) -> Result<ChangeFeed> {
    let table = Table::open(stores, location, None).await?;
    let until = until.unwrap_or(table.newest);
    if until > table.newest {
        return Err(Error::input(format!(
            "table {location} has no version {until} yet; its newest is {}",
            table.newest
        )));
    }
    let from = match since {
        Since::Version(version) if version <= until => version,
        Since::Version(version) => {
            return Err(Error::input(format!(
                "changes of table {location} from version {version} to {until}: the first is after the last"
            )));
        }
        Since::Time(_) => earliest(&table.place).await?,
    };
    let mut versions = vec![];
    for version in from..=until {
        let commit = log::read_commit(&table.place, version).await?.ok_or_else(|| table.gone(version))?;
        let version = Version::changed(&table, &commit).await?;
        if matches!(since, Since::Time(since) if version.time < since) {
            continue;
        }
        versions.push(version);
    }
    Ok(ChangeFeed { table: Arc::new(table), versions })
}

impl ChangeFeed {
    /// The table's columns, then [`CHANGE_COLUMNS`](super::CHANGE_COLUMNS).
    pub fn schema(&self) -> SchemaRef {
        self.table.schema.clone()
    }

    /// The versions that it covers, also those that changed no row.
    pub fn versions(&self) -> impl Iterator<Item = u64> {
        self.versions.iter().map(|version| version.version)
    }

    /// The changes, version by version; within one, what was deleted comes first.
    pub fn read(self: Arc<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let versions: VecDeque<Version> = self.versions.iter().cloned().collect();
        let reading = Reading { table: Arc::clone(&self.table), versions, open: None };
        futures::stream::try_unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|batch| (batch, reading)))
        })
        .boxed()
    }
}

/// A feed being read.
struct Reading {
    table: Arc<Table>,
    versions: VecDeque<Version>,
    open: Option<VersionRows>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.open {
                match rows.next().await? {
                    Some(batch) => return Ok(Some(batch)),
                    None => self.open = None,
                }
            }
            let Some(version) = self.versions.pop_front() else { return Ok(None) };
            self.open = Some(VersionRows::open(&self.table, version, 0).await?);
        }
    }
}

/// The first version whose log entry is there.
async fn earliest(place: &Place) -> Result<u64> {
    let files = log::list_log(place, None).await?;
    Ok(files.iter().filter(|(_, meta)| log::is_commit(&meta.location)).map(|(version, _)| *version).min().unwrap_or(0))
}
