//! Clusters by statistics: files and pieces of files, grouped so that the groups follow each other in time.
//!
//! Two uses. A table that is not partitioned by time is read cluster by cluster; and a partition wider than the slices that
//! the user wants is cut into clusters. Files that overlap in time stay together, for reading one of them early would only
//! hold its later rows in open windows; to touch in one instant is no overlap.
//!
//! **Invariant:** a cluster holds exactly the pieces that are [`placed`] in its interval. So "every piece placed before the
//! boundary has been read" is all that a [`Position`] has to say, whatever the clusters of a later version are, and however
//! finely files were cut into pieces when they were read.

use std::collections::BTreeSet;

use crate::epoch::Position;
use crate::history::{DataFile, LONG, Snapshot, TimePartition, Times};
use crate::time::{EventTime, Interval};

/// Where a piece stands in a partition that is read piece by piece: its earliest time, or the partition's start where
/// statistics do not say; within the partition in any case, for rows may have leaked into it.
pub fn placed(file: &DataFile, within: Interval) -> EventTime {
    match file.times {
        Times::Known { min, max, .. } if min <= max => min.max(within.start).min(EventTime(within.end.0 - 1)),
        _ => within.start,
    }
}

/// The clusters of files that no partition places. Files without known times are the caller's to leave out.
pub fn clusters(files: Vec<DataFile>) -> Vec<TimePartition> {
    let all = Interval { start: EventTime::MIN, end: EventTime::MAX };
    let groups = groups(files, all);
    let nexts: Vec<EventTime> = groups.iter().skip(1).map(|g| g.start).chain([EventTime::MAX]).collect();
    let partition = |(group, next): (Group, EventTime)| TimePartition {
        interval: Interval { start: group.start, end: EventTime(group.last.0.saturating_add(1)).min(next) },
        files: group.files,
    };
    groups.into_iter().zip(nexts).map(partition).collect()
}

/// A partition as the clusters of its files, which cover its interval without gaps. One file whose statistics say nothing
/// keeps it whole.
pub fn cut(partition: TimePartition) -> Vec<TimePartition> {
    if partition.files.is_empty() {
        return vec![partition];
    }
    let interval = partition.interval;
    let groups = groups(partition.files, interval);
    let ends: Vec<EventTime> = groups.iter().skip(1).map(|g| g.start).chain([interval.end]).collect();
    let part = |((i, group), end): ((usize, Group), EventTime)| TimePartition {
        interval: Interval { start: if i == 0 { interval.start } else { group.start }, end },
        files: group.files,
    };
    groups.into_iter().enumerate().zip(ends).map(part).collect()
}

/// A partition as its clusters, once its files are known by their pieces; in the partition's own interval, which the clusters
/// beside it may have clipped before.
pub fn refined(partition: TimePartition, by_statistics: bool) -> Vec<TimePartition> {
    let end = partition.interval.end;
    let mut parts = if by_statistics { clusters(partition.files) } else { cut(partition) };
    if let Some(last) = parts.last_mut() {
        last.interval.end = last.interval.end.min(end);
    }
    parts
}

/// The files of a snapshot that have to be known by their pieces before it is [`settle`]d: those that the boundary may cut.
pub fn straddling<'a>(snapshot: &'a mut Snapshot, position: &Position) -> Vec<&'a mut Vec<DataFile>> {
    let boundary = position.boundary;
    let may = snapshot.by_statistics || position.cut;
    let holds = |i: Interval| may && i.start < boundary && boundary < i.end;
    snapshot.partitions.iter_mut().filter(|p| holds(p.interval)).map(|p| &mut p.files).collect()
}

/// Brings a snapshot's partitions in line with a position, so that each is read as a whole or not at all.
pub fn settle(snapshot: &mut Snapshot, position: &Position) {
    let boundary = position.boundary;
    let inside = |p: &TimePartition| p.interval.start < boundary && boundary < p.interval.end;
    if snapshot.by_statistics {
        if !snapshot.partitions.iter().any(inside) {
            return;
        }
        let files = std::mem::take(&mut snapshot.partitions).into_iter().flat_map(|p| p.files);
        let all = Interval { start: EventTime::MIN, end: EventTime::MAX };
        let (read, unread): (Vec<_>, Vec<_>) = files.partition(|f| placed(f, all) < boundary);
        let mut partitions = clusters(read);
        for partition in &mut partitions {
            partition.interval.end = partition.interval.end.min(boundary);
        }
        partitions.extend(clusters(unread));
        snapshot.partitions = partitions;
    } else if position.cut
        && let Some(at) = snapshot.partitions.iter().position(inside)
    {
        let whole = snapshot.partitions.remove(at);
        let Interval { start, end } = whole.interval;
        let (read, unread): (Vec<_>, Vec<_>) =
            whole.files.into_iter().partition(|f| placed(f, whole.interval) < boundary);
        let rest = TimePartition { interval: Interval { start: boundary, end }, files: unread };
        let head = TimePartition { interval: Interval { start, end: boundary }, files: read };
        snapshot.partitions.splice(at..at, [head, rest]);
    }
}

/// Moves a position over everything of `snapshot` that starts before a boundary. `continued` are the starts of partitions that
/// are a further part of one which was cut.
pub fn pass(position: &mut Position, snapshot: &Snapshot, continued: &BTreeSet<EventTime>, boundary: EventTime) {
    position.boundary = position.boundary.max(boundary);
    position.pending.clear();
    position.timeless_read = true;
    position.cut = false;
    // What is read piece by piece has to say by itself how far: another source's boundary may lie within.
    let partitions = &snapshot.partitions;
    let next = partitions.partition_point(|p| p.interval.start < position.boundary);
    if snapshot.by_statistics {
        let read = next.checked_sub(1).and_then(|last| partitions.get(last));
        position.boundary = read.map_or(position.boundary, |p| p.interval.end.max(position.boundary));
    } else if let Some(next) = partitions.get(next).filter(|p| continued.contains(&p.interval.start)) {
        (position.boundary, position.cut) = (next.interval.start, true);
    }
}

/// What it costs that files overlap in time: all of this is one slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub interval: Interval,
    pub files: usize,
    /// As far as known.
    pub rows: u64,
    pub bytes: u64,
}

/// The overlap of a cluster that is wider than a slice would be: of several files, or pieces, and more than `slice` bytes.
pub fn overlap(cluster: &TimePartition, slice: u64) -> Option<Overlap> {
    let files = &cluster.files;
    let bytes = files.iter().map(DataFile::bytes).sum();
    let rows = files.iter().filter_map(|f| f.rows).sum();
    (files.len() > 1 && bytes > slice).then_some(Overlap {
        interval: cluster.interval,
        files: files.len(),
        rows,
        bytes,
    })
}

struct Group {
    start: EventTime,
    /// The latest time, inclusive.
    last: EventTime,
    /// Where another group may begin.
    free: EventTime,
    files: Vec<DataFile>,
}

fn groups(files: Vec<DataFile>, within: Interval) -> Vec<Group> {
    let last = |file: &DataFile| match file.times {
        Times::Known { min, max, .. } if min <= max => max,
        Times::Known { .. } => within.start,
        Times::Unknown => within.end,
    };
    let mut spans: Vec<(EventTime, EventTime, DataFile)> =
        files.into_iter().map(|f| (placed(&f, within), last(&f), f)).collect();
    spans.sort_by(|a, b| (a.0, a.1, &a.2.path, a.2.range).cmp(&(b.0, b.1, &b.2.path, b.2.range)));
    let mut groups: Vec<Group> = vec![];
    for (start, last, file) in spans {
        // A long file that touches what follows may have a piece that stands there: it would be taken for unread.
        let whole = file.range.is_none() && file.size >= LONG;
        let free = if whole { EventTime(last.0.saturating_add(1)) } else { last };
        match groups.last_mut() {
            Some(group) if start < group.free || start == group.start => {
                (group.last, group.free) = (group.last.max(last), group.free.max(free));
                group.files.push(file);
            }
            _ => groups.push(Group { start, last, free, files: vec![file] }),
        }
    }
    for group in &mut groups {
        group.files.sort_by(|a, b| (&a.path, a.range).cmp(&(&b.path, b.range)));
    }
    groups
}

#[cfg(test)]
#[path = "cut/tests.rs"]
mod tests;
