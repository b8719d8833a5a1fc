//! The state of a table as far as an append is judged by it, and how it is kept up to date.
//!
//! Invariant: [`TableState::refresh`] ends at the newest version, having read every commit between, or loads the state
//! anew and says so: when the log has a hole (entries cleaned up), or when the entry of the version we know is not the
//! one we saw, because the table was deleted or made anew under our feet.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::de::DeserializeOwned;
use watershed_core::{Error, Result};

use super::checkpoints::newest_checkpoint;
use super::{LogCommit, LogMetadata, LogProtocol, is_commit, list_log, read_commit, snapshot, transactions};
use crate::stores::Place;

/// A table at a version.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub(crate) version: u64,
    pub(crate) metadata: LogMetadata,
    pub(crate) protocol: LogProtocol,
    pub(crate) transactions: BTreeMap<String, i64>,
    /// Tells the entry of `version` from another of the same name.
    entry: Option<EntryMark>,
    /// Bytes of log entries that no log checkpoint sums up, as far as this state has seen them.
    pub(crate) unsummed: u64,
}

pub(crate) type EntryMark = (u64, DateTime<Utc>);

/// How a state was brought up to date.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// By these commits, which may be none.
    Commits(Vec<LogCommit>),
    /// From scratch.
    Anew,
}

impl TableState {
    /// The newest state; `None` when there is no table.
    pub(crate) async fn load(place: &Place) -> Result<Option<TableState>> {
        let Some(snapshot) = snapshot(place, None).await? else { return Ok(None) };
        let version = snapshot.version();
        // Marked by a listing, as in `refresh`: some servers give finer times there than when asked for the file.
        let files = list_log(place, None).await?;
        let entry = mark(&files, version);
        Ok(Some(TableState {
            version,
            metadata: plain(place, snapshot.metadata())?,
            protocol: plain(place, snapshot.protocol())?,
            transactions: transactions(place, version).await?,
            entry,
            unsummed: bytes_after(&files, newest_checkpoint(&files, version).0),
        }))
    }

    /// Brings the state to the newest version. An error leaves it as it was.
    pub(crate) async fn refresh(&mut self, place: &Place) -> Result<Refreshed> {
        let files = list_log(place, self.version.checked_sub(1)).await?;
        let newest = files.iter().filter(|(_, meta)| makes_version(&meta.location)).map(|(v, _)| *v).max();
        let ours = self.entry.is_some() && mark(&files, self.version) == self.entry;
        let whole = newest.is_some_and(|newest| (self.version + 1..=newest).all(|v| mark(&files, v).is_some()));
        let (true, true, Some(newest)) = (ours, whole, newest) else {
            let lost = || Error::stopped(format!("table {} is gone: its log holds nothing any more", place.url));
            *self = TableState::load(place).await?.ok_or_else(lost)?;
            return Ok(Refreshed::Anew);
        };
        let mut next = self.clone();
        let mut commits = vec![];
        for version in self.version + 1..=newest {
            let commit = read_commit(place, version).await?.ok_or_else(|| {
                Error::storage(
                    format!("log entry {version} vanished while it was read from"),
                    place.url.as_str(),
                    "not found",
                )
            })?;
            next.apply(&commit);
            commits.push(commit);
        }
        next.entry = mark(&files, newest);
        next.unsummed = match newest_checkpoint(&files, newest).0 {
            None => self.unsummed + bytes_after(&files, Some(self.version)),
            base => bytes_after(&files, base),
        };
        *self = next;
        Ok(Refreshed::Commits(commits))
    }

    /// The columns, partition columns included, in the table's order.
    pub(crate) fn schema(&self, place: &Place) -> Result<SchemaRef> {
        arrow_schema(place, &self.metadata)
    }

    fn apply(&mut self, commit: &LogCommit) {
        self.version = commit.version;
        self.transactions.extend(commit.transactions.iter().map(|t| (t.app_id.clone(), t.version)));
        if let Some(metadata) = &commit.metadata {
            self.metadata = metadata.clone();
        }
        if let Some(protocol) = &commit.protocol {
            self.protocol = protocol.clone();
        }
    }
}

/// The Arrow schema of a table's metadata.
pub(crate) fn arrow_schema(place: &Place, metadata: &LogMetadata) -> Result<SchemaRef> {
    let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::storage("cannot understand the schema of table", place.url.as_str(), e)
    };
    let schema: StructType = serde_json::from_str(&metadata.schema_string).map_err(|e| fail(e.into()))?;
    let schema: arrow::datatypes::Schema = (&schema).try_into_arrow().map_err(|e| fail(e.into()))?;
    Ok(schema.into())
}

/// An action of the kernel as our plain data, by way of the JSON that both stand for.
pub(crate) fn plain<T: DeserializeOwned>(place: &Place, action: &impl serde::Serialize) -> Result<T> {
    serde_json::to_value(action)
        .and_then(serde_json::from_value)
        .map_err(|e| Error::storage("cannot understand the log of", place.url.as_str(), e))
}

/// Bytes of the entries after a version.
fn bytes_after(files: &[(u64, ObjectMeta)], version: Option<u64>) -> u64 {
    let after =
        files.iter().filter(|(v, meta)| version.is_none_or(|version| *v > version) && is_commit(&meta.location));
    after.map(|(_, meta)| meta.size).sum()
}

pub(crate) fn mark(files: &[(u64, ObjectMeta)], version: u64) -> Option<EntryMark> {
    let found = files.iter().find(|(v, meta)| *v == version && is_commit(&meta.location));
    found.map(|(_, meta)| (meta.size, meta.last_modified))
}

/// Whether a log file makes a version: leftovers and checksums do not.
fn makes_version(path: &Path) -> bool {
    is_commit(path) || path.filename().is_some_and(|name| name.contains(".checkpoint."))
}
