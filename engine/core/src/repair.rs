//! Which emitted windows have to be computed anew, and when they can be. Pure.
//!
//! A fact that comes behind the watermark has missed windows. With `late = 'repair'` it is not listed but *noted*: those
//! windows are computed anew from the histories as soon as these hold all that the job had read when it was noted (design
//! §5), which of a log's facts they do once its archive has got so far. Until then the repair waits in the checkpoint.
//!
//! **Invariant:** repairs are done in the order in which they were noted. What they need only grows, so one that can be done
//! is never behind one that cannot; and a window for which late facts never cease is put right again and again, not never.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::epoch::Position;
use crate::tail::Part;
use crate::time::{EventTime, Interval};

/// Notes that are kept apart; beyond that the newest two become one, and wait for what the newer needs.
const APART: usize = 16;

/// Stretches of windows in a note; beyond that those closest to each other become one.
const STRETCHES: usize = 1024;

/// Of each source that reads a log, the offset up to which the histories must have each part, exclusive.
pub type Needs = BTreeMap<String, BTreeMap<Part, i64>>;

/// Windows that have to be computed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Repairs {
    notes: Vec<Note>,
    /// Windows that will have to be, once they have been emitted: facts of theirs were changed that they hold already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    open: Vec<Interval>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// From the start of the first window missed to the end of the last; sorted, apart from each other.
    missed: Vec<Interval>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    needs: Needs,
}

/// What the histories must have to be no less than what was read up to some positions.
pub fn needs(positions: &BTreeMap<String, Position>) -> Needs {
    let of = |position: &Position| -> Option<BTreeMap<Part, i64>> {
        Some(position.tail.as_ref()?.parts.iter().map(|(part, at)| (*part, at.next)).collect())
    };
    positions.iter().filter_map(|(source, position)| Some((source.clone(), of(position)?))).collect()
}

/// Whether a history has a log as far as it must, `has` being what follows the last message that it has of each part. A part
/// of which it has nothing begins at 0.
pub fn covers(has: &BTreeMap<Part, i64>, needs: &BTreeMap<Part, i64>) -> bool {
    needs.iter().all(|(part, needed)| has.get(part).copied().unwrap_or(0) >= *needed)
}

impl Repairs {
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.open.is_empty()
    }

    /// Stretches of windows that wait.
    pub fn len(&self) -> usize {
        self.notes.iter().map(|note| note.missed.len()).sum::<usize>() + self.open.len()
    }

    /// Notes windows that were missed. What is needed must not be less than what was needed before.
    pub fn note(&mut self, missed: impl IntoIterator<Item = Interval>, needs: Needs) {
        let missed: Vec<Interval> = missed.into_iter().collect();
        if missed.is_empty() {
            return;
        }
        let full = self.notes.len() >= APART;
        match self.notes.last_mut().filter(|last| full || last.needs == needs) {
            Some(last) => {
                last.missed.extend(missed);
                last.missed = together(std::mem::take(&mut last.missed));
                last.needs = needs;
            }
            None => self.notes.push(Note { missed: together(missed), needs }),
        }
    }

    /// Notes windows that are still open and hold facts which are no more.
    pub fn when_closed(&mut self, open: impl IntoIterator<Item = Interval>) {
        self.open.extend(open);
        self.open = together(std::mem::take(&mut self.open));
    }

    /// Takes out those of them that have ended: they are to be noted.
    pub fn closed(&mut self, watermark: EventTime) -> Vec<Interval> {
        let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|of| of.end <= watermark);
        self.open = open;
        closed
    }

    /// What the windows need that are to be done next; `None` when none wait.
    pub fn needed(&self) -> Option<&Needs> {
        self.notes.first().map(|note| &note.needs)
    }

    /// The windows that are to be done next, as soon as there is what they need.
    pub fn next(&self) -> &[Interval] {
        self.notes.first().map_or(&[], |note| &note.missed)
    }

    /// The first so many of them are done.
    pub fn done(&mut self, count: usize) {
        let Some(note) = self.notes.first_mut() else { return };
        note.missed.drain(..count.min(note.missed.len()));
        if note.missed.is_empty() {
            self.notes.remove(0);
        }
    }
}

/// The same time in as few intervals as may be.
fn together(mut missed: Vec<Interval>) -> Vec<Interval> {
    missed.sort();
    let mut apart: Vec<Interval> = vec![];
    for next in missed {
        match apart.last_mut() {
            Some(last) if next.start <= last.end => last.end = last.end.max(next.end),
            _ => apart.push(next),
        }
    }
    while apart.len() > STRETCHES {
        let gap = |pair: &[Interval]| pair[1].start.0.saturating_sub(pair[0].end.0);
        let mut gaps: Vec<i64> = apart.windows(2).map(gap).collect();
        gaps.sort_unstable();
        let widest = gaps[apart.len() - STRETCHES - 1];
        let mut fewer: Vec<Interval> = vec![];
        for next in apart {
            match fewer.last_mut() {
                Some(last) if next.start.0.saturating_sub(last.end.0) <= widest => last.end = next.end,
                _ => fewer.push(next),
            }
        }
        apart = fewer;
    }
    apart
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        Interval { start: EventTime(start), end: EventTime(end) }
    }

    fn log(next: i64) -> Needs {
        BTreeMap::from([("s".to_string(), BTreeMap::from([(0, next)]))])
    }

    #[test]
    fn what_is_noted_comes_in_its_order() {
        let mut repairs = Repairs::default();
        repairs.note([interval(20, 30), interval(0, 10), interval(10, 15)], log(5));
        repairs.note([interval(25, 40)], log(5));
        repairs.note([interval(0, 10)], log(7));
        repairs.note([], log(9));
        assert_eq!((repairs.needed(), repairs.len()), (Some(&log(5)), 3));
        assert_eq!(repairs.next(), [interval(0, 15), interval(20, 40)]);
        repairs.done(1);
        assert_eq!(repairs.next(), [interval(20, 40)]);
        repairs.done(1);
        assert_eq!((repairs.next(), repairs.needed()), (&[interval(0, 10)][..], Some(&log(7))));
        repairs.done(1);
        assert!(repairs.is_empty() && repairs.needed().is_none());
    }

    #[test]
    fn what_is_open_waits_until_it_is_not() {
        let mut repairs = Repairs::default();
        repairs.when_closed([interval(0, 10), interval(20, 30), interval(5, 12)]);
        assert!(!repairs.is_empty() && repairs.needed().is_none());
        assert_eq!(repairs.closed(EventTime(11)), []);
        assert_eq!(repairs.closed(EventTime(12)), [interval(0, 12)]);
        assert_eq!((repairs.len(), repairs.closed(EventTime::MAX)), (1, vec![interval(20, 30)]));
        assert!(repairs.is_empty());
    }

    #[test]
    fn a_part_that_is_not_archived_covers_what_begins_with_nothing() {
        let parts = |list: &[(Part, i64)]| list.iter().copied().collect::<BTreeMap<_, _>>();
        assert!(covers(&parts(&[(0, 8)]), &parts(&[(0, 8), (1, 0)])));
        assert!(!covers(&parts(&[(0, 7)]), &parts(&[(0, 8)])));
        assert!(!covers(&parts(&[(0, 9)]), &parts(&[(0, 8), (1, 1)])));
    }

    #[test]
    fn a_checkpoint_has_them_again() {
        let mut repairs = Repairs::default();
        repairs.note([interval(0, 10)], log(5));
        let text = serde_json::to_string(&repairs).unwrap();
        assert_eq!(serde_json::from_str::<Repairs>(&text).unwrap(), repairs);
        assert_eq!(serde_json::from_str::<Repairs>("{}").unwrap(), Repairs::default());
    }

    proptest! {
        /// However much is noted, it is bounded, all of it is done, and nothing earlier than what it needs is there.
        #[test]
        fn nothing_that_was_noted_is_lost(notes in proptest::collection::vec((0..400i64, 1..9i64, 0..3i64), 1..4000)) {
            let (mut repairs, mut next) = (Repairs::default(), 0);
            for (start, width, more) in &notes {
                next += more;
                repairs.note([interval(start * 10, start * 10 + width)], log(next));
            }
            prop_assert!(repairs.notes.len() <= APART);
            let mut done: Vec<(Interval, i64)> = vec![];
            let mut before = 0;
            while let Some(needed) = repairs.needed().cloned() {
                let needed = needed["s"][&0];
                prop_assert!(needed >= before);
                before = needed;
                prop_assert!(repairs.next().len() <= STRETCHES);
                prop_assert!(repairs.next().windows(2).all(|pair| pair[0].end < pair[1].start));
                done.push((repairs.next()[0], needed));
                repairs.done(1);
            }
            let mut next = 0;
            for (start, width, more) in &notes {
                next += more;
                let noted = interval(start * 10, start * 10 + width);
                let holds = |(d, needed): &(Interval, i64)| {
                    d.start <= noted.start && noted.end <= d.end && *needed >= next
                };
                prop_assert!(done.iter().any(holds));
            }
        }

        #[test]
        fn stretches_grow_together_where_they_are_closest(starts in proptest::collection::btree_set(0..100_000i64, 1..3000)) {
            let all: Vec<Interval> = starts.iter().map(|start| interval(start * 3, start * 3 + 1)).collect();
            let fewer = together(all.clone());
            prop_assert!(fewer.len() <= STRETCHES && fewer.len() >= all.len().min(STRETCHES) / 2);
            prop_assert!(all.iter().all(|one| fewer.iter().any(|f| f.start <= one.start && one.end <= f.end)));
        }
    }
}
