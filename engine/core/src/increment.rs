//! What a history's growth between two runs means for a position: which files are read on their own, which partitions still
//! are, and which facts went away. Pure.
//!
//! **Invariant:** before and after, every fact of the version that a position names is read already, or in a pending file, or
//! in a piece that stands at or behind the boundary; in exactly one of the three. A piece that came to what had been read
//! is pending. A compaction that mixed facts which were read with facts which were not leaves no boundary between the
//! two: then what is unread is read from the files that held it before, all at once, and the boundary moves behind it.

use std::collections::{BTreeMap, BTreeSet};

use crate::cut::placed;
use crate::epoch::Position;
use crate::history::{Changes, DataFile, Removed, Snapshot, Times};
use crate::time::{EventTime, Interval};

/// A position brought to another version.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// Files to be read in the next step, besides those that were pending before.
    pub pending: Vec<DataFile>,
    pub boundary: EventTime,
    pub cut: bool,
    /// Facts that had been read and are no more: the first of them.
    pub gone: Option<Removed>,
    /// The event times of all of them, as far as known.
    pub changed: Vec<Interval>,
}

/// Judges the changes between the version of `position`, which is `then`, and `now`. Files that the boundary may cut have to
/// come as pieces, in `then` and among the changes' added ones.
pub fn increment(then: &Snapshot, now: &Snapshot, changes: Changes, position: &Position) -> Increment {
    let judge = Judge { position, by_statistics: then.by_statistics };
    let mut standing: BTreeMap<&str, Standing> = BTreeMap::new();
    let mut note = |interval: Option<Interval>, file: &'_ DataFile, path| {
        let found = judge.standing(interval, file);
        standing.entry(path).and_modify(|known| *known = known.and(found)).or_insert(found);
    };
    for partition in &then.partitions {
        partition.files.iter().for_each(|f| note(Some(partition.interval), f, &f.path));
    }
    then.timeless.iter().for_each(|f| note(None, f, &f.path));
    changes.added.iter().for_each(|(interval, f)| note(*interval, f, &f.path));

    let gone = |removed: &&Removed| match standing.get(removed.path.as_str()) {
        Some(known) => *known != Standing::Unread,
        None => judge.partition_begun(removed.interval),
    };
    let changed = changes.removed.iter().filter(gone).map(|removed| times(then, removed)).collect();
    let gone = changes.removed.iter().find(gone).cloned();
    let mixed = judge.mixed(&changes, standing.clone());
    let lost =
        changes.removed.iter().find(|r| changes.rewritten.iter().flat_map(|w| &w.added).any(|(_, f)| f.path == r.path));
    if !mixed {
        let added = changes.added.into_iter().filter(|(i, f)| judge.standing(*i, f) == Standing::Read);
        let pending = added.map(|(_, file)| file).collect();
        return Increment { pending, boundary: position.boundary, cut: position.cut, gone, changed };
    }
    let removed: BTreeSet<&str> = changes.removed.iter().map(|r| r.path.as_str()).collect();
    let concerned =
        |interval: Option<Interval>| judge.piecewise(interval) || (then.by_statistics && interval.is_some());
    let unread = then.partitions.iter().filter(|p| concerned(Some(p.interval))).flat_map(|p| {
        p.files
            .iter()
            .filter(|f| judge.standing(Some(p.interval), f) == Standing::Unread && !removed.contains(f.path.as_str()))
    });
    let added =
        changes.added.iter().filter(|(i, f)| concerned(*i) || judge.standing(*i, f) == Standing::Read).map(|(_, f)| f);
    let pending = unread.chain(added).cloned().collect();
    // Behind every piece that a file may be cut into, not only behind where files begin.
    let behind = now.partitions.iter().map(|p| p.interval.end);
    let boundary = match then.by_statistics {
        true => behind.max().unwrap_or(position.boundary).max(position.boundary),
        false => position.boundary,
    };
    let changed = lost.map(|removed| times(then, removed)).into_iter().chain(changed).collect();
    Increment { pending, boundary, cut: false, gone: gone.or(lost.cloned()), changed }
}

/// When the facts of a file happened, as far as its version knew.
fn times(then: &Snapshot, removed: &Removed) -> Interval {
    let always = Interval { start: EventTime::MIN, end: EventTime::MAX };
    let files = then.partitions.iter().flat_map(|p| &p.files).chain(&then.timeless);
    let known = files.filter(|file| file.path == removed.path).map(|file| file.happened(removed.interval));
    let both = |a: Interval, b: Interval| Interval { start: a.start.min(b.start), end: a.end.max(b.end) };
    known.reduce(both).unwrap_or(removed.interval.unwrap_or(always))
}

/// Where a file's facts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Read, or pending.
    Read,
    Unread,
    Both,
}

impl Standing {
    fn and(self, other: Standing) -> Standing {
        if self == other { self } else { Standing::Both }
    }
}

struct Judge<'a> {
    position: &'a Position,
    by_statistics: bool,
}

impl Judge<'_> {
    /// Whether pieces of this partition are read one by one.
    fn piecewise(&self, interval: Option<Interval>) -> bool {
        let boundary = self.position.boundary;
        interval.is_some_and(|i| self.by_statistics || (self.position.cut && i.start < boundary && boundary < i.end))
    }

    fn partition_begun(&self, interval: Option<Interval>) -> bool {
        interval.map_or(self.position.timeless_read, |i| i.start < self.position.boundary)
    }

    fn standing(&self, interval: Option<Interval>, file: &DataFile) -> Standing {
        let read = match interval {
            Some(_) if self.by_statistics => {
                placed(file, Interval { start: EventTime::MIN, end: EventTime::MAX }) < self.position.boundary
            }
            Some(i) if self.piecewise(interval) => placed(file, i) < self.position.boundary,
            other => self.partition_begun(other),
        };
        if read { Standing::Read } else { Standing::Unread }
    }

    /// Whether compactions put facts that were read and facts that were not into files where the boundary no longer tells
    /// them apart.
    fn mixed<'a>(&self, changes: &'a Changes, mut known: BTreeMap<&'a str, Standing>) -> bool {
        for rewrite in &changes.rewritten {
            if !rewrite.added.iter().any(|(i, _)| self.piecewise(*i)) {
                continue;
            }
            let from = rewrite.removed.iter().map(|path| known.get(path.as_str()).copied().unwrap_or(Standing::Both));
            let Some(from) = from.reduce(Standing::and).filter(|s| *s != Standing::Both) else { return true };
            for (interval, file) in &rewrite.added {
                let into = match (self.standing(*interval, file), file.times) {
                    // Nobody has looked where its rows lie; its pieces may stand on either side.
                    (_, Times::Unknown) => return true,
                    // Rows behind the boundary in a file that stands before it: as a piece, one might be taken for unread.
                    (Standing::Read, Times::Known { max, .. }) if max >= self.position.boundary => {
                        return true;
                    }
                    (found, _) => found,
                };
                if into != from {
                    return true;
                }
                known.insert(&file.path, into);
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "increment/tests.rs"]
mod tests;
