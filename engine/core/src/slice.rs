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
    /// The source goes on in a log: all its partitions may be read, and however much of the history is read, facts earlier
    /// than this may still come from the log (design §5).
    pub goes_on: Option<EventTime>,
    pub delay: Span,
    pub max_leak: Span,
    /// Now + `max_ahead`: a partition that starts beyond it lies in the future and promises nothing.
    pub horizon: EventTime,
}

/// What the user asked of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Join partitions to slices of about this width; zero: one partition a slice.
    pub slice: Option<Span>,
    /// Without a width: join partitions to slices of at most so many bytes.
    pub join: u64,
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

/// [`closed_partitions`] of a snapshot. Where statistics alone tell partitions apart, a later one promises nothing: what has
/// not been read before is closed when the grace has passed.
pub fn closed(snapshot: &Snapshot, boundary: EventTime, now: EventTime, grace: Span, max_ahead: Span) -> usize {
    let partitions = &snapshot.partitions;
    if !snapshot.by_statistics {
        return closed_partitions(partitions, now, grace, max_ahead);
    }
    let passed = partitions.partition_point(|p| p.interval.end.plus(grace) <= now);
    passed.max(partitions.partition_point(|p| p.interval.start < boundary))
}

impl<'a> Standing<'a> {
    /// The partitions that may be read now, in order.
    pub fn readable(&self, rules: &Rules) -> &'a [TimePartition] {
        let partitions = &self.snapshot.partitions;
        // A source that leaves the minimum is passed by others: whatever it has must be read before that. One that goes on in
        // a log gets there only when it has read everything.
        let all = self.leaves_minimum(rules) || self.goes_on.is_some();
        let closed = if all { partitions.len() } else { self.closed };
        let from = begin_at(partitions, self.position.boundary);
        &partitions[from.min(closed)..closed]
    }

    /// The end of the last closed partition: where the source's knowledge ends.
    fn known_until(&self) -> EventTime {
        match self.closed {
            0 => EventTime::MIN,
            n => self.snapshot.partitions[n - 1].interval.end,
        }
    }

    fn leaves_minimum(&self, rules: &Rules) -> bool {
        self.goes_on.is_none() && (self.bounded || rules.to_the_end)
    }

    /// What the source promises once everything that starts before `boundary` has been read: no unread fact is earlier.
    fn promise(&self, boundary: EventTime, rules: &Rules) -> EventTime {
        let Some(cap) = self.goes_on else { return self.promise_of_history(boundary, rules) };
        if begin_at(&self.snapshot.partitions, boundary) == self.snapshot.partitions.len() {
            return cap;
        }
        self.promise_of_history(boundary, rules).min(cap)
    }

    fn promise_of_history(&self, boundary: EventTime, rules: &Rules) -> EventTime {
        let at = begin_at(&self.snapshot.partitions, boundary);
        let Some(next) = self.snapshot.partitions.get(at) else {
            return if self.leaves_minimum(rules) { EventTime::MAX } else { self.known_until() };
        };
        let start = next.interval.start;
        let unpromised = self.snapshot.by_statistics && at >= self.closed && !self.leaves_minimum(rules);
        if start > self.horizon || unpromised {
            return self.known_until();
        }
        let near = near(&self.snapshot.partitions, boundary, self.max_leak);
        let earliest = near.flat_map(|p| p.files.iter().map(|f| earliest(f, p))).min().unwrap_or(EventTime::MAX);
        start.min(earliest).max(start.minus(self.max_leak))
    }
}

/// How many partitions start before a boundary.
fn begin_at(partitions: &[TimePartition], boundary: EventTime) -> usize {
    partitions.partition_point(|p| p.interval.start < boundary)
}

/// The end of the reach within which unread partitions may leak below the start of the first of them.
fn reach(partitions: &[TimePartition], boundary: EventTime, max_leak: Span) -> EventTime {
    let next = partitions.get(begin_at(partitions, boundary));
    next.map_or(boundary, |p| p.interval.start.plus(max_leak))
}

/// Unread partitions whose files' statistics matter for the promise after `boundary`.
fn near(partitions: &[TimePartition], boundary: EventTime, max_leak: Span) -> impl Iterator<Item = &TimePartition> {
    let reach = reach(partitions, boundary, max_leak);
    partitions[begin_at(partitions, boundary)..].iter().take_while(move |p| p.interval.start <= reach)
}

fn earliest(file: &DataFile, partition: &TimePartition) -> EventTime {
    match file.times {
        Times::Known { min, .. } => min,
        Times::Unknown => partition.interval.start,
    }
}

/// Where a run over histories stops: the smallest end of a last closed partition, among sources that more may come to.
fn stop_at(sources: &[Standing<'_>], rules: &Rules) -> EventTime {
    let stays = |s: &&Standing<'_>| !s.leaves_minimum(rules) && s.goes_on.is_none();
    let ends = sources.iter().filter(stays).map(Standing::known_until);
    ends.min().unwrap_or(EventTime::MAX)
}

/// Chooses what the next step reads; `None` when nothing may be read now.
pub fn next_slice(sources: &[Standing<'_>], rules: &Rules) -> Option<Slice> {
    let stop = stop_at(sources, rules);
    let first_end = sources.iter().filter_map(|s| s.readable(rules).first()).map(|p| p.interval.end).min();
    let leftovers = sources.iter().any(|s| !s.position.pending.is_empty() || timeless_due(s));
    let boundary = match first_end.filter(|end| *end <= stop) {
        Some(end) => join(sources, rules, end, stop),
        None if leftovers => sources.iter().map(|s| s.position.boundary).min()?,
        None => return None,
    };
    let reads = sources.iter().map(|s| reads(s, rules, boundary)).collect();
    Some(Slice { boundary, reads })
}

/// Widens a slice over further ends of partitions, in order: as long as it stays within the wished width, or within the
/// bytes that are wished where no width is. It ends with the partition in which the run is to end.
fn join(sources: &[Standing<'_>], rules: &Rules, first: EventTime, stop: EventTime) -> EventTime {
    let starts = sources.iter().filter_map(|s| s.readable(rules).first()).map(|p| p.interval.start);
    let limit = match (rules.slice, starts.min()) {
        (Some(width), Some(start)) => start.plus(width).min(stop),
        _ => stop,
    };
    let limit = rules.to.map_or(limit, |to| limit.min(to.max(first)));
    let mut ahead: Vec<_> =
        sources.iter().map(|s| Ahead { ends: s.readable(rules), files: s.readable(rules) }).collect();
    let mut bytes: u64 = ahead.iter_mut().map(|a| a.bytes_before(first)).sum();
    let mut boundary = first;
    loop {
        ahead.iter_mut().for_each(|a| a.pass(boundary));
        let Some(end) = ahead.iter().filter_map(Ahead::end).min().filter(|end| *end <= limit) else { return boundary };
        bytes += ahead.iter_mut().map(|a| a.bytes_before(end)).sum::<u64>();
        if rules.slice.is_none() && bytes > rules.join {
            return boundary;
        }
        boundary = end;
    }
}

/// A source's readable partitions while a slice is widened: those whose ends are still ahead, and those whose files are not
/// counted yet.
struct Ahead<'a> {
    ends: &'a [TimePartition],
    files: &'a [TimePartition],
}

impl Ahead<'_> {
    fn pass(&mut self, boundary: EventTime) {
        self.ends = &self.ends[self.ends.iter().take_while(|p| p.interval.end <= boundary).count()..];
    }

    fn end(&self) -> Option<EventTime> {
        self.ends.first().map(|p| p.interval.end)
    }

    fn bytes_before(&mut self, boundary: EventTime) -> u64 {
        let count = self.files.iter().take_while(|p| p.interval.start < boundary).count();
        let (counted, rest) = self.files.split_at(count);
        self.files = rest;
        counted.iter().flat_map(|p| &p.files).map(DataFile::bytes).sum()
    }
}

fn timeless_due(source: &Standing<'_>) -> bool {
    !source.position.timeless_read && !source.snapshot.timeless.is_empty()
}

fn reads(source: &Standing<'_>, rules: &Rules, boundary: EventTime) -> Vec<DataFile> {
    let timeless = source.snapshot.timeless.iter().filter(|_| timeless_due(source));
    let readable = source.readable(rules);
    let partitions = readable[..begin_at(readable, boundary)].iter();
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
    let first = begin_at(&snapshot.partitions, from);
    let near = snapshot.partitions[first..].iter_mut().take_while(|p| p.interval.start <= reach);
    near.flat_map(|p| &mut p.files).filter(|f| f.times == Times::Unknown).collect()
}

#[cfg(test)]
#[path = "slice/tests.rs"]
mod tests;
