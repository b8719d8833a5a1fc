//! The pure decisions of reading history in order: which files the next step reads, and where the watermark then stands.
//!
//! Design §4. The next boundary is the smallest end of an unread partition over all sources; each source reads its unread
//! partitions that start before it. After the step a source promises the earliest event time of what it has not read, and
//! the job's watermark is the minimum over its sources, each less its delay. Nothing here reads a file or a clock: the
//! facts come as a [`Standing`] for each source, and the answer is a value.
//!
//! **Invariant:** a step's watermark is never below the one before, and never above the start of a partition that is
//! neither read nor proved (by statistics, up to `max_leak`) to hold later rows only.

use crate::epoch::Position;
use crate::history::{DataFile, Snapshot, TimePartition, Times};
use crate::time::{EventTime, Span};

/// Where a source stands: the facts that the decisions are made from.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub snapshot: &'a Snapshot,
    pub position: &'a Position,
    /// How many of the snapshot's partitions, from the first on, are closed.
    pub closed: usize,
    /// An ended source leaves the minimum: declared `bounded`, or a run with `--final`.
    pub bounded: bool,
    pub delay: Span,
    pub max_leak: Span,
    /// Now + `max_ahead`: a partition that starts beyond it lies in the future and promises nothing.
    pub horizon: EventTime,
}

/// What the user asked of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Join partitions to slices of about this width.
    pub slice: Option<Span>,
    /// Facts before this do not count: files that end before it are passed over.
    pub from: Option<EventTime>,
    /// End when the watermark reaches this.
    pub to: Option<EventTime>,
    /// Read to the end and close every window.
    pub to_the_end: bool,
}

/// What a step reads, before its watermark is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Every partition that starts before this has been read after the step.
    pub boundary: EventTime,
    /// Files, source by source.
    pub reads: Vec<Vec<DataFile>>,
}

/// How many partitions, from the first on, are closed: a later one exists that does not lie in the future, or the end plus
/// the grace has passed.
pub fn closed_partitions(partitions: &[TimePartition], now: EventTime, grace: Span, max_ahead: Span) -> usize {
    let horizon = now.plus(max_ahead);
    let later = partitions.iter().rposition(|p| p.interval.start <= horizon).unwrap_or(0);
    let passed = partitions.iter().rposition(|p| p.interval.end.plus(grace) <= now).map_or(0, |i| i + 1);
    later.max(passed)
}

impl<'a> Standing<'a> {
    fn unread(&self) -> impl Iterator<Item = (usize, &'a TimePartition)> + use<'a> {
        let boundary = self.position.boundary;
        self.snapshot.partitions.iter().enumerate().filter(move |(_, p)| p.interval.start >= boundary)
    }

    fn readable(&self, rules: &Rules) -> impl Iterator<Item = &'a TimePartition> + use<'a> {
        // A source that leaves the minimum is passed by others: whatever it has must be read before that.
        let closed = if self.leaves_minimum(rules) { usize::MAX } else { self.closed };
        self.unread().filter(move |(i, _)| *i < closed).map(|(_, p)| p)
    }

    /// The end of the last closed partition: where the source's knowledge ends.
    fn known_until(&self) -> EventTime {
        match self.closed {
            0 => EventTime::MIN,
            n => self.snapshot.partitions[n - 1].interval.end,
        }
    }

    fn leaves_minimum(&self, rules: &Rules) -> bool {
        self.bounded || rules.to_the_end
    }

    /// What the source promises once everything that starts before `boundary` has been read: no unread fact is earlier.
    fn promise(&self, boundary: EventTime, rules: &Rules) -> EventTime {
        let next = self.snapshot.partitions.iter().find(|p| p.interval.start >= boundary);
        let Some(next) = next else {
            return if self.leaves_minimum(rules) { EventTime::MAX } else { self.known_until() };
        };
        let start = next.interval.start;
        if start > self.horizon {
            return self.known_until();
        }
        let near = near(&self.snapshot.partitions, boundary, self.max_leak);
        let earliest = near.flat_map(|p| p.files.iter().map(|f| earliest(f, p))).min().unwrap_or(EventTime::MAX);
        start.min(earliest).max(start.minus(self.max_leak))
    }
}

/// The end of the reach within which unread partitions may leak below the start of the first of them.
fn reach(partitions: &[TimePartition], boundary: EventTime, max_leak: Span) -> EventTime {
    let next = partitions.iter().find(|p| p.interval.start >= boundary);
    next.map_or(boundary, |p| p.interval.start.plus(max_leak))
}

/// Unread partitions whose files' statistics matter for the promise after `boundary`.
fn near(partitions: &[TimePartition], boundary: EventTime, max_leak: Span) -> impl Iterator<Item = &TimePartition> {
    let reach = reach(partitions, boundary, max_leak);
    partitions.iter().filter(move |p| p.interval.start >= boundary && p.interval.start <= reach)
}

fn earliest(file: &DataFile, partition: &TimePartition) -> EventTime {
    match file.times {
        Times::Known { min, .. } => min,
        Times::Unknown => partition.interval.start,
    }
}

/// Where a run over histories stops: the smallest end of a last closed partition, among sources that more may come to.
fn stop_at(sources: &[Standing<'_>], rules: &Rules) -> EventTime {
    let ends = sources.iter().filter(|s| !s.leaves_minimum(rules)).map(Standing::known_until);
    ends.min().unwrap_or(EventTime::MAX)
}

/// Chooses what the next step reads; `None` when nothing may be read now.
pub fn next_slice(sources: &[Standing<'_>], rules: &Rules) -> Option<Slice> {
    let stop = stop_at(sources, rules);
    let firsts = || sources.iter().filter_map(|s| s.readable(rules).next()).map(|p| p.interval);
    let first_end = firsts().map(|i| i.end).min().filter(|end| *end <= stop);
    let leftovers = sources.iter().any(|s| !s.position.pending.is_empty() || timeless_due(s));
    let boundary = match first_end {
        Some(end) => join(sources, rules, firsts().map(|i| i.start).min()?, end, stop),
        None if leftovers => sources.iter().map(|s| s.position.boundary).min()?,
        None => return None,
    };
    let reads = sources.iter().map(|s| reads(s, rules, boundary)).collect();
    Some(Slice { boundary, reads })
}

/// Widens a slice that starts at `start` over every partition end within the wished width.
fn join(sources: &[Standing<'_>], rules: &Rules, start: EventTime, end: EventTime, stop: EventTime) -> EventTime {
    let Some(width) = rules.slice else { return end };
    let limit = start.plus(width).min(stop);
    let ends = sources.iter().flat_map(|s| s.readable(rules)).map(|p| p.interval.end);
    ends.filter(|e| *e <= limit).max().unwrap_or(end).max(end)
}

fn timeless_due(source: &Standing<'_>) -> bool {
    !source.position.timeless_read && !source.snapshot.timeless.is_empty()
}

fn reads(source: &Standing<'_>, rules: &Rules, boundary: EventTime) -> Vec<DataFile> {
    let timeless = source.snapshot.timeless.iter().filter(|_| timeless_due(source));
    let partitions = source.readable(rules).filter(|p| p.interval.start < boundary);
    let counts = |f: &&DataFile| match (f.times, rules.from) {
        (Times::Known { max, nulls: 0, .. }, Some(from)) => max >= from,
        _ => true,
    };
    timeless.chain(&source.position.pending).chain(partitions.flat_map(|p| &p.files)).filter(counts).cloned().collect()
}

/// The watermark once everything that starts before `boundary` has been read; [`EventTime::MAX`] when every source has
/// ended for good.
pub fn watermark_after(sources: &[Standing<'_>], rules: &Rules, boundary: EventTime, before: EventTime) -> EventTime {
    // A source may already stand beyond the boundary, when the others had nothing left to read before.
    let promises = sources.iter().map(|s| s.promise(boundary.max(s.position.boundary), rules).minus(s.delay));
    let reached = promises.min().unwrap_or(EventTime::MIN).max(before);
    rules.to.map_or(reached, |to| reached.min(to.max(before)))
}

/// Files whose statistics the next decision wants, without those that have them: the slice's own (are they clean?) and, of
/// unread partitions, those near enough to leak.
pub fn wanted(snapshot: &mut Snapshot, from: EventTime, boundary: EventTime, max_leak: Span) -> Vec<&mut DataFile> {
    let reach = reach(&snapshot.partitions, boundary, max_leak);
    let partitions = snapshot.partitions.iter_mut();
    partitions
        .filter(|p| p.interval.start >= from && p.interval.start <= reach)
        .flat_map(|p| &mut p.files)
        .filter(|f| f.times == Times::Unknown)
        .collect()
}

#[cfg(test)]
#[path = "slice/tests.rs"]
mod tests;
