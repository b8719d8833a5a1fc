//! A source's history, pinned at a version and brought in line with where the job stands in it.

use std::collections::BTreeSet;

use watershed_core::cut;
use watershed_core::epoch::Position;
use watershed_core::history::{DataFile, History, LONG, Removed, Snapshot, Times, Version};
use watershed_core::increment::{Increment, increment};
use watershed_core::settings::{OnChange, Settings};
use watershed_core::slice;
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};

use super::logs;
use crate::checkpoint::Checkpoints;
use crate::feed::Feed;
use crate::job::Input;

/// A source, and where it stands.
pub(super) struct Pinned {
    pub(super) input: Input,
    pub(super) snapshot: Snapshot,
    pub(super) position: Position,
    pub(super) closed: usize,
    /// Where the partitions start that are a further part of one which was cut.
    pub(super) continued: BTreeSet<EventTime>,
    /// Partitions that start before this are as narrow as they get.
    pub(super) refined: EventTime,
    /// Has been told that its files overlap.
    pub(super) warned: bool,
    /// Of a source that goes on in a log: no fact that is earlier is promised not to come, whatever of the history is read.
    pub(super) goes_on: Option<EventTime>,
    /// When facts happened that were read and are no more, or came beside the log, and are to be put right.
    pub(super) changed: Vec<Interval>,
    /// Its log, once the history is read.
    pub(super) feed: Option<Feed>,
}

impl Pinned {
    /// A source at a version, gone on with from where it stood.
    pub(super) async fn at(
        input: Input,
        before: Position,
        mut snapshot: Snapshot,
        settings: &Settings,
        now: EventTime,
        checkpoints: &Checkpoints,
    ) -> Result<Pinned> {
        let (mut position, changed) = catch_up(&input, before, &snapshot, settings.on_change, checkpoints).await?;
        position.judged_at = now;
        by_pieces(&input, &mut snapshot, &position).await?;
        cut::settle(&mut snapshot, &position);
        let judged = slice::closed(&snapshot, position.boundary, now, settings.grace, settings.max_ahead);
        if snapshot.by_statistics && judged < snapshot.partitions.len() {
            // The newest file may be long, and its end alone be open.
            refine(&input, &mut snapshot, judged).await?;
        }
        let closed = slice::closed(&snapshot, position.boundary, now, settings.grace, settings.max_ahead);
        let continued = position.cut.then_some(position.boundary).into_iter().collect();
        let goes_on = logs::goes_on(&input, &snapshot, now.plus(settings.max_ahead)).await?;
        Ok(Pinned { closed, continued, goes_on, changed, ..Pinned::new(input, snapshot, position) })
    }

    pub(super) fn new(input: Input, snapshot: Snapshot, position: Position) -> Self {
        Pinned {
            input,
            snapshot,
            position,
            closed: 0,
            continued: BTreeSet::new(),
            refined: EventTime::MIN,
            warned: false,
            goes_on: None,
            changed: vec![],
            feed: None,
        }
    }

    /// Says once what it costs that files overlap.
    pub(super) fn warn(&mut self, start: EventTime, slice: u64) {
        let at = self.snapshot.partitions.partition_point(|p| p.interval.start < start);
        let next = self.snapshot.partitions.get(at).filter(|_| self.snapshot.by_statistics && !self.warned);
        let Some(overlap) = next.and_then(|p| cut::overlap(p, slice)) else { return };
        self.warned = true;
        tracing::warn!(
            "source {}: {} is not partitioned by time, and its files overlap in time: {} rows ({} bytes) in {} files or              pieces of files, from {} to {}, are read as one slice, and all their windows are held open until it is read.              Partition the table by day or hour (watershed load --partition-by day), or write it sorted by time",
            self.input.name,
            self.input.history.layout().location,
            overlap.rows,
            overlap.bytes,
            overlap.files,
            overlap.interval.start,
            overlap.interval.end
        );
    }
}

/// Replaces a partition by the clusters of its files' pieces; gives their number.
pub(super) async fn refine(input: &Input, snapshot: &mut Snapshot, at: usize) -> Result<usize> {
    let mut partition = snapshot.partitions.remove(at);
    partition.files = input.history.pieces(partition.files).await?;
    let parts = cut::refined(partition, snapshot.by_statistics);
    let count = parts.len();
    snapshot.partitions.splice(at..at, parts);
    Ok(count)
}

/// Replaces those files by their pieces that a position's boundary may cut.
pub(crate) async fn by_pieces(input: &Input, snapshot: &mut Snapshot, position: &Position) -> Result<()> {
    let by_statistics = snapshot.by_statistics;
    for files in cut::straddling(snapshot, position) {
        let cut = std::mem::take(files);
        *files = cut_at(input.history.as_ref(), cut, by_statistics, position.boundary).await?;
    }
    Ok(())
}

/// Cuts files that a boundary may lie in. Those of a table that statistics place are known; those of a partition may have to
/// be looked at first.
async fn cut_at(
    history: &dyn History,
    files: Vec<DataFile>,
    known: bool,
    boundary: EventTime,
) -> Result<Vec<DataFile>> {
    let lies_in = |f: &DataFile| match f.times {
        Times::Known { min, max, .. } => f.size >= LONG && min < boundary && boundary <= max,
        Times::Unknown => true,
    };
    let (cut, whole): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| !known || lies_in(f));
    let mut files = history.pieces(cut).await?;
    files.extend(whole);
    Ok(files)
}

/// Pins the very version that a position was taken at.
pub(crate) async fn pin_at(input: &Input, position: &Position, checkpoints: &Checkpoints) -> Result<Snapshot> {
    let Some(version) = &position.version else { return input.history.pin(None).await };
    let keepsake = checkpoints.keepsake(position.keepsake.as_deref()).await?;
    input.history.pin(Some((version, keepsake.as_deref()))).await
}

/// Why a job stops whose facts are changed, unless it is told to do otherwise.
pub(super) fn facts_are_gone(input: &Input, gone: &Removed) -> Error {
    Error::stopped(format!(
        "source {}: facts that were read are gone: {} was removed in {}. To go on with what the result has, set on_change = \
         'ignore'; to have their windows put right, 'repair' (of a view with late = 'repair'); to compute anew, use CREATE OR \
         REPLACE",
        input.name, gone.path, gone.version
    ))
}

/// Brings a position from the version it was taken at to the one just pinned.
async fn catch_up(
    input: &Input,
    mut position: Position,
    now: &Snapshot,
    on_change: OnChange,
    checkpoints: &Checkpoints,
) -> Result<(Position, Vec<Interval>)> {
    let Some(then) = position.version.replace(now.version.clone()) else {
        position.keepsake = checkpoints.keep(now).await?;
        return Ok((position, vec![]));
    };
    if then == now.version {
        return Ok((position, vec![]));
    }
    let grown = grown(input, then, &position, now, checkpoints).await?;
    if let (Some(gone), OnChange::Stop) = (grown.gone, on_change) {
        return Err(facts_are_gone(input, &gone));
    }
    position.pending.extend(grown.pending);
    (position.boundary, position.cut) = (grown.boundary, grown.cut);
    position.keepsake = checkpoints.keep(now).await?;
    let changed = if on_change == OnChange::Repair { grown.changed } else { vec![] };
    Ok((position, changed))
}

/// What a history has grown by since a version, as a position at that version sees it.
pub(crate) async fn grown(
    input: &Input,
    then: Version,
    position: &Position,
    now: &Snapshot,
    checkpoints: &Checkpoints,
) -> Result<Increment> {
    let mut then = pin_at(input, &Position { version: Some(then), ..position.clone() }, checkpoints).await?;
    by_pieces(input, &mut then, position).await?;
    let mut changes = input.history.changes(&then, now).await?;
    if then.by_statistics || position.cut {
        let mut added = vec![];
        for (interval, file) in changes.added {
            let pieces = cut_at(input.history.as_ref(), vec![file], then.by_statistics, position.boundary).await?;
            added.extend(pieces.into_iter().map(|piece| (interval, piece)));
        }
        changes.added = added;
    }
    Ok(increment(&then, now, changes, position))
}
