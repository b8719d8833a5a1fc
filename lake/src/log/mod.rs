//! The Delta log as facts: the state of a table at a version, the commits that came since, the features they ask for.
//!
//! The state at first sight (metadata, protocol) is replayed by delta-rs. After that commits are read one by one as
//! they come, which costs a listing and the new entries alone, and yields the winning commits that a conflict is judged
//! by.
//!
//! Invariant: a version is read from its own log entry or not at all; a hole in the log is an error, never skipped.

pub(crate) mod actions;

pub(crate) mod columns;

pub(crate) mod features;

pub(crate) mod state;

mod checkpoints;

mod transactions;

mod mentions;

pub(crate) use actions::{LogCommit, LogMetadata, LogProtocol};
pub(crate) use checkpoints::newest_checkpoint;
pub(crate) use mentions::{mentions, place_of};
pub(crate) use state::{Refreshed, TableState};
pub(crate) use transactions::transactions;

use std::sync::Arc;

use deltalake::DeltaTableError;
use deltalake::kernel::Snapshot;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStoreExt};
use watershed_core::{Error, Result};

use crate::stores::Place;

pub(crate) const LOG: &str = "_delta_log";

/// delta-rs's view of the table's log, over our store.
pub(crate) fn log_store(place: &Place) -> LogStoreRef {
    let prefixed = Arc::new(PrefixStore::new(place.store.clone(), place.path.clone()));
    default_logstore(prefixed, place.store.clone(), &place.url, &StorageConfig::default())
}

/// Where the log entry of a version lies.
pub(crate) fn commit_path(place: &Place, version: u64) -> Path {
    place.path.clone().join(LOG).join(format!("{version:020}.json"))
}

/// Whether a Delta log is there.
pub(crate) async fn is_delta(place: &Place) -> Result<bool> {
    let mut entries = place.store.list(Some(&place.path.clone().join(LOG)));
    loop {
        match entries.try_next().await {
            Ok(Some(meta)) if version_of(&meta.location).is_some() => return Ok(true),
            Ok(Some(_)) => {}
            Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(false),
            // On disk nothing can be listed below a file.
            Err(_) if place.store.head(&place.path).await.is_ok() => return Ok(false),
            Err(e) => return Err(Error::storage("cannot list", place.url.as_str(), e)),
        }
    }
}

/// The table at a version, or the newest; `None` when there is no table.
pub(crate) async fn snapshot(place: &Place, version: Option<u64>) -> Result<Option<Snapshot>> {
    // The kernel takes a local folder that is not there for a wrong location.
    if !is_delta(place).await? {
        return Ok(None);
    }
    match Snapshot::try_new(log_store(place).as_ref(), version).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(DeltaTableError::NotATable(_)) => Ok(None),
        Err(e) => {
            let what = version.map_or("cannot read table".to_string(), |v| format!("cannot read version {v} of table"));
            Err(Error::storage(what, place.url.as_str(), e))
        }
    }
}

/// Reads one log entry; `None` when it is not there.
pub(crate) async fn read_commit(place: &Place, version: u64) -> Result<Option<LogCommit>> {
    let path = commit_path(place, version);
    let bytes = match place.store.get(&path).await {
        Ok(found) => found.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => Err(e),
    };
    let bytes =
        bytes.map_err(|e| Error::storage(format!("cannot read log entry {version} of"), place.url.as_str(), e))?;
    LogCommit::parse(version, &bytes)
        .map(Some)
        .map_err(|e| Error::storage(format!("cannot understand log entry {version} of"), place.url.as_str(), e))
}

/// The log's files after `after`, by version: commits, checkpoints and what else carries a version.
pub(crate) async fn list_log(place: &Place, after: Option<u64>) -> Result<Vec<(u64, ObjectMeta)>> {
    let log = place.path.clone().join(LOG);
    let listed = match after {
        // Sorts behind every file of version `after`: `.json`, `.checkpoint…`, `.crc`.
        Some(version) => place.store.list_with_offset(Some(&log), &log.clone().join(format!("{version:020}.z"))),
        None => place.store.list(Some(&log)),
    };
    let listed: Vec<ObjectMeta> = match listed.try_collect().await {
        Ok(listed) => listed,
        Err(object_store::Error::NotFound { .. }) => vec![],
        Err(e) => return Err(Error::storage("cannot list the log of", place.url.as_str(), e)),
    };
    let depth = log.parts().count() + 1;
    let mut files: Vec<_> = listed
        .into_iter()
        .filter(|meta| meta.location.parts().count() == depth)
        .filter_map(|meta| version_of(&meta.location).map(|version| (version, meta)))
        .collect();
    files.sort_by(|a, b| (a.0, &a.1.location).cmp(&(b.0, &b.1.location)));
    Ok(files)
}

/// Whether a log file is a commit.
pub(crate) fn is_commit(path: &Path) -> bool {
    path.filename().is_some_and(|name| name.len() == 25 && name.ends_with(".json"))
}

fn version_of(path: &Path) -> Option<u64> {
    let name = path.filename()?;
    let (digits, rest) = name.split_at_checked(20)?;
    if !rest.starts_with('.') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
