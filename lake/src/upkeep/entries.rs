//! The log cleaned up: entries and log checkpoints that a later log checkpoint makes unnecessary, once their retention is over.
//!
//! ```text
//!  0 … 99  checkpoint 100  101 … 140 │ 141 …          140 is the newest version that may be asked for no more: the last that
//!  ╰ go ╯  ╰──────── stay ─────────╯   younger        is older than the retention, or the first at which a job stands
//! ```
//!
//! Delta protocol, "Metadata Cleanup". **Invariant:** every version from that one on can be read as before. Where no log
//! checkpoint is anywhere near the newest version, one is written; what that makes unnecessary goes when it is old enough.
//!
//! Logs with V2 checkpoints are left alone: their checkpoints share files, and which of these go is for their writers to say.

use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use super::vacuum::{remove, span};
use crate::log::{self, LogMetadata, LogProtocol, is_commit, newest_checkpoint};
use crate::stores::Place;
use crate::table::commit;

const RETENTION: &str = "delta.logRetentionDuration";
const DEFAULT_RETENTION: Span = Span(30 * Span::DAY.0);
const ENABLED: &str = "delta.enableExpiredLogCleanup";
const V2: &str = "v2Checkpoint";

/// What became of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanedLog {
    /// Files that were removed, or would have been.
    pub files: u64,
    pub bytes: u64,
    /// The first version that can be read afterwards, if any cannot.
    pub first: Option<u64>,
    /// A log checkpoint was written for this version.
    pub checkpoint: Option<u64>,
    /// Why the log was left alone.
    pub left_alone: Option<String>,
}

/// Whose log it is.
pub(super) struct Of<'a> {
    pub(super) place: &'a Place,
    pub(super) metadata: &'a LogMetadata,
    pub(super) protocol: &'a LogProtocol,
}

/// How long the table's log is kept.
pub(super) fn retention(location: &str, metadata: &LogMetadata) -> Result<Span> {
    Ok(span(location, metadata, RETENTION)?.unwrap_or(DEFAULT_RETENTION))
}

/// Whether a version can be read from these files of the log.
pub(super) fn reaches(files: &[(u64, ObjectMeta)], version: u64) -> bool {
    let first = newest_checkpoint(files, version).0.map_or(0, |base| base + 1);
    let there = files.iter().filter(|(v, meta)| (first..=version).contains(v) && is_commit(&meta.location)).count();
    there as u64 == (version + 1).saturating_sub(first)
}

/// Whether the entry of a version is there.
pub(super) fn has(files: &[(u64, ObjectMeta)], version: u64) -> bool {
    // They are in order.
    let from = files.partition_point(|(v, _)| *v < version);
    files[from..].iter().take_while(|(v, _)| *v == version).any(|(_, meta)| is_commit(&meta.location))
}

/// Cleans the log of a table up to what is older than the cut-off and before the first pinned version.
pub(super) async fn clean(
    of: Of<'_>,
    newest: u64,
    cutoff: EventTime,
    pinned: Option<u64>,
    dry_run: bool,
) -> Result<CleanedLog> {
    let left_alone = |why: &str| Ok(CleanedLog { left_alone: Some(why.to_string()), ..CleanedLog::default() });
    if of.metadata.configuration.get(ENABLED).is_some_and(|on| on.trim().eq_ignore_ascii_case("false")) {
        return left_alone("delta.enableExpiredLogCleanup is false");
    }
    let features = of.protocol.reader_features.iter().chain(&of.protocol.writer_features).flatten();
    let mut files = log::list_log(of.place, None).await?;
    if features.into_iter().any(|f| f == V2) || files.iter().any(|(_, meta)| is_v2(&meta.location)) {
        return left_alone("it has V2 checkpoints, which Watershed does not clean up");
    }
    let mut done = CleanedLog::default();
    let Some(last) = last_unasked(&files, newest, cutoff, pinned) else { return Ok(done) };
    let far = newest_checkpoint(&files, newest).0.is_none_or(|base| newest - base >= commit::interval(of.metadata));
    let entries_before = files.iter().any(|(version, meta)| *version < last && is_commit(&meta.location));
    if far && entries_before && !dry_run {
        let failed = |e| Error::storage_unknown("cannot write a log checkpoint of", of.place.url.as_str(), e);
        commit::write_checkpoint(of.place, newest).await.map_err(failed)?;
        done.checkpoint = Some(newest);
        files = log::list_log(of.place, None).await?;
    }
    let Some(first) = newest_checkpoint(&files, last).0 else { return Ok(done) };
    let gone: Vec<&ObjectMeta> = unnecessary(&files, first, cutoff).collect();
    if gone.is_empty() {
        return Ok(done);
    }
    (done.files, done.bytes) = (gone.len() as u64, gone.iter().map(|meta| meta.size).sum());
    done.first = Some(first);
    if !dry_run {
        read_whole(of.place, first).await?;
        remove(of.place, gone.into_iter().map(|meta| meta.location.clone()).collect()).await?;
    }
    Ok(done)
}

/// The newest version that may be asked for no more, but must still be readable for those after it to be.
fn last_unasked(files: &[(u64, ObjectMeta)], newest: u64, cutoff: EventTime, pinned: Option<u64>) -> Option<u64> {
    let commits = files.iter().filter(|(_, meta)| is_commit(&meta.location));
    let young = commits.filter(|(_, meta)| written(meta) >= cutoff).map(|(version, _)| *version).min();
    let old = match young {
        Some(version) => version.checked_sub(1)?,
        None => newest,
    };
    Some(old.min(newest).min(pinned.unwrap_or(u64::MAX)))
}

/// The files that a checkpoint of version `first` makes unnecessary.
fn unnecessary(files: &[(u64, ObjectMeta)], first: u64, cutoff: EventTime) -> impl Iterator<Item = &ObjectMeta> {
    files.iter().filter(move |(version, meta)| *version < first && written(meta) < cutoff).map(|(_, meta)| meta)
}

fn written(meta: &ObjectMeta) -> EventTime {
    EventTime(meta.last_modified.timestamp_micros())
}

/// Whether a file of the log is a checkpoint with a UUID.
fn is_v2(path: &Path) -> bool {
    let parts: Vec<&str> = path.filename().unwrap_or_default().split('.').collect();
    parts.len() == 4 && parts[1] == "checkpoint"
}

/// Reads all that a version says, before what came earlier is gone for good.
async fn read_whole(place: &Place, version: u64) -> Result<()> {
    let gone = || Error::stopped(format!("version {version} of table {} is gone", place.url));
    let snapshot = log::snapshot(place, Some(version)).await?.ok_or_else(gone)?;
    let log_store = log::log_store(place);
    let fail = |e| Error::storage(format!("cannot list the files of version {version} of"), place.url.as_str(), e);
    let mut views = snapshot.file_views(log_store.as_ref(), None);
    while views.try_next().await.map_err(fail)?.is_some() {}
    log::transactions(place, version).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, written: i64) -> (u64, ObjectMeta) {
        let last_modified = chrono::DateTime::from_timestamp_micros(written).unwrap();
        let location = Path::from(format!("t/_delta_log/{name}"));
        (name[..20].parse().unwrap(), ObjectMeta { location, last_modified, size: 1, e_tag: None, version: None })
    }

    /// Version v written at v, with checkpoints of some.
    fn log(versions: std::ops::Range<u64>, checkpoints: &[u64]) -> Vec<(u64, ObjectMeta)> {
        let mut files: Vec<_> = versions.map(|v| file(&format!("{v:020}.json"), v as i64)).collect();
        files.extend(checkpoints.iter().map(|v| file(&format!("{v:020}.checkpoint.parquet"), *v as i64)));
        files
    }

    /// The first version kept and the number of files that go.
    fn gone(files: &[(u64, ObjectMeta)], cutoff: i64, pinned: Option<u64>) -> Option<(u64, usize)> {
        let newest = files.iter().map(|(v, _)| *v).max().unwrap();
        let last = last_unasked(files, newest, EventTime(cutoff), pinned)?;
        let first = newest_checkpoint(files, last).0?;
        Some((first, unnecessary(files, first, EventTime(cutoff)).count()))
    }

    #[test]
    fn what_a_checkpoint_makes_unnecessary_goes() {
        let files = log(0..30, &[10, 20]);
        assert_eq!(gone(&files, 25, None), Some((20, 21)));
        // At version 20 the table stood when the retention began, so 20 is read from its own checkpoint; at 19 from that of 10.
        assert_eq!(gone(&files, 21, None), Some((20, 21)));
        assert_eq!(gone(&files, 20, None), Some((10, 10)));
        assert_eq!(gone(&files, 10, None), None);
        assert_eq!(gone(&files, 0, None), None);
        // All of it is old: the newest version stays.
        assert_eq!(gone(&files, 99, None), Some((20, 21)));
        assert_eq!(gone(&log(0..30, &[29]), 99, None), Some((29, 29)));
        assert_eq!(gone(&log(0..30, &[]), 99, None), None);
    }

    #[test]
    fn pinned_versions_can_be_read_afterwards() {
        let files = log(0..30, &[10, 20]);
        assert_eq!(gone(&files, 99, Some(20)), Some((20, 21)));
        assert_eq!(gone(&files, 99, Some(19)), Some((10, 10)));
        assert_eq!(gone(&files, 99, Some(9)), None);
    }

    #[test]
    fn what_is_young_stays_whatever_its_number() {
        let mut files = log(0..30, &[10, 20]);
        // Copied again, as it were.
        files[5].1.last_modified = chrono::DateTime::from_timestamp_micros(50).unwrap();
        assert_eq!(gone(&files, 25, None), None);
    }

    #[test]
    fn a_version_is_reached_from_a_checkpoint_or_the_beginning() {
        let mut files = log(0..30, &[10, 20]);
        assert!(reaches(&files, 0) && reaches(&files, 29) && !reaches(&files, 30));
        files.retain(|(version, _)| *version >= 10 && *version != 15);
        let reached: Vec<u64> = (0..30).filter(|v| reaches(&files, *v)).collect();
        assert_eq!(reached, [10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]);
    }

    #[test]
    fn checkpoints_with_ids_are_told_apart() {
        let is = |name: &str| is_v2(&Path::from(format!("t/_delta_log/{name}")));
        assert!(is("00000000000000000009.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"));
        assert!(!is("00000000000000000009.checkpoint.parquet") && !is("00000000000000000009.json"));
        assert!(!is("00000000000000000009.checkpoint.0000000001.0000000002.parquet"));
    }
}
