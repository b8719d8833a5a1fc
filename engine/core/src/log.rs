//! The pure decisions of reading a log: what its parts promise, which of them is read next, where the seam lies, and what the
//! lag is.
//!
//! Design §4 and §5. A log's watermark is the minimum over its parts of the latest event time read, less the delay, which is
//! taken off by whoever asks. Parts that have been idle leave the minimum; a part that is merely not read, because its
//! source waits for others, is not idle. While a job catches up, its parts are read in step by event time, so that none
//! builds up windows for another.
//!
//! **Invariant:** a part that has messages to read is never left out of the minimum.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::error::{Error, Result};
use crate::history::Records;
use crate::tail::{LogState, Part, PartPosition, TailPosition};
use crate::time::{EventTime, Span};

/// How far ahead of the one that is furthest behind a part may be read while a job catches up.
pub const STEP: Span = Span::MINUTE;

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartStanding {
    /// The latest event time read.
    pub newest: Option<EventTime>,
    /// The earliest event time of what was fetched next, if anything was.
    pub head: Option<EventTime>,
    /// Nothing is left to read, as far as known.
    pub at_end: bool,
    /// It has been at its end for as long as the user gave it.
    pub idle: bool,
}

impl PartStanding {
    fn counts(&self) -> bool {
        !(self.idle && self.at_end && self.head.is_none())
    }
}

/// What a log promises: no unread fact is earlier, but for the declared delay. `floor` is what was promised before it was
/// read. Of a log whose parts are all idle it is the latest of their times: what is left of them has been read.
pub fn promise(parts: &[PartStanding], floor: EventTime) -> EventTime {
    let least = parts.iter().filter(|p| p.counts()).map(|p| p.newest.unwrap_or(floor)).min();
    let idle = || parts.iter().filter_map(|p| p.newest).max();
    least.or_else(idle).unwrap_or(floor).max(floor)
}

/// Which part to read from next: the one whose next messages are earliest, unless another that has more to read is so far
/// behind that reading on would only build up windows. `None`: wait.
pub fn next_part(parts: &[PartStanding]) -> Option<usize> {
    let heads = parts.iter().enumerate().filter_map(|(i, p)| Some((p.head?, i)));
    let (head, next) = heads.min()?;
    let missing = parts.iter().filter(|p| p.head.is_none() && !p.at_end);
    let behind = missing.map(|p| p.newest.unwrap_or(EventTime::MIN)).min();
    behind.is_none_or(|behind| head <= behind.plus(STEP)).then_some(next)
}

/// What a log has and was not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    pub messages: u64,
    /// Of keys and payloads, estimated; `None` while nothing is known of what messages hold.
    pub bytes: Option<u64>,
}

impl std::ops::Add for Lag {
    type Output = Lag;

    fn add(self, other: Lag) -> Lag {
        let bytes = self.bytes.zip(other.bytes).map(|(a, b)| a.saturating_add(b));
        Lag { messages: self.messages + other.messages, bytes }
    }
}

/// How far a position is behind a log. What unread messages hold nobody tells, so they are taken to be like those of their
/// part that were read lately, and those of a part that none was read of like those of the others.
pub fn lag(parts: &BTreeMap<Part, PartPosition>, log: &LogState) -> Lag {
    let known: Vec<u64> = parts.values().filter_map(|part| part.message_bytes).collect();
    let others = known.iter().sum::<u64>().checked_div(known.len() as u64);
    let mut lag = Lag { messages: 0, bytes: Some(0) };
    for (part, has) in &log.parts {
        let stands = parts.get(part);
        let next = stands.map_or(has.start, |at| at.next.max(has.start));
        let unread = log.numbering.messages(next..has.end);
        if unread > 0 {
            let each = stands.and_then(|at| at.message_bytes).or(others);
            lag = lag + Lag { messages: unread, bytes: each.map(|each| unread.saturating_mul(each)) };
        }
    }
    lag
}

/// Facts that a log no longer has, or never had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub part: Part,
    /// The offsets that are missing.
    pub missing: Range<i64>,
}

/// Where to begin in each part, behind what was archived of it; or the first gap there is.
pub fn seam(
    archived: &BTreeMap<Part, i64>,
    log: &LogState,
    location: &str,
) -> Result<Result<BTreeMap<Part, i64>, Gap>> {
    let mut from = BTreeMap::new();
    for part in archived.keys() {
        if !log.parts.contains_key(part) {
            return Err(anew(location, &format!("it has no part {part}, of which messages were archived")));
        }
    }
    for (part, has) in &log.parts {
        // A part that nothing was archived of begins where all parts begin.
        let next = archived.get(part).map_or(0, |last| last + 1);
        if next > has.end {
            return Err(anew(
                location,
                &format!("part {part} ends at offset {}, and {} was archived of it", has.end, next - 1),
            ));
        }
        if next < has.start {
            return Ok(Err(Gap { part: *part, missing: next..has.start }));
        }
        from.insert(*part, next);
    }
    Ok(Ok(from))
}

/// From which event time on facts of a history and of a log are held against each other, where only event times tell what both
/// have: the history was complete a `grace` before its newest fact, the log may bring facts that are late by `delay`, and once
/// more the grace makes room for those that the log has later than they happened.
pub fn overlaps_from(newest: EventTime, grace: Span, delay: Span) -> EventTime {
    newest.minus(grace).minus(delay).minus(grace)
}

/// Where to begin in each part of a log that follows a history by event time. `from` are the offsets of the first messages that
/// were written when the overlap begins, `open` of those when the history was last complete: only a part that has older ones
/// than these, or all it ever had, is known to reach back into the history.
pub fn seam_by_time(
    from: &BTreeMap<Part, i64>,
    open: &BTreeMap<Part, i64>,
    log: &LogState,
    location: &str,
) -> Result<BTreeMap<Part, i64>> {
    let begin = |(part, has): (&Part, &Range<i64>)| {
        let [from, open] = [from, open].map(|offsets| offsets.get(part).copied().unwrap_or(has.start));
        if has.start > 0 && open <= has.start {
            return Err(Error::stopped(format!(
                "{location} has forgotten the messages of part {part} before offset {}, and what it has left was written after the \
                 history was last known to be complete: nothing shows that no fact is missing between the two. Bring the \
                 history up to date, keep the log longer, or give a shorter grace",
                has.start
            )));
        }
        Ok((*part, from.max(has.start)))
    };
    log.parts.iter().map(begin).collect()
}

/// Whether a log can be read on from a position. Parts that came since are begun at their first message.
pub fn resume(position: &TailPosition, log: &LogState, location: &str) -> Result<BTreeMap<Part, i64>> {
    if let (Some(then), Some(now)) = (&position.id, &log.id)
        && then != now
    {
        return Err(anew(location, &format!("its id is {now}, and was {then}")));
    }
    let mut from = BTreeMap::new();
    for (part, stands) in &position.parts {
        let Some(has) = log.parts.get(part) else {
            return Err(anew(location, &format!("it has no part {part}, which was read before")));
        };
        if stands.next > has.end {
            let what = format!("part {part} ends at offset {}, and was read up to {}", has.end, stands.next);
            return Err(anew(location, &what));
        }
        if stands.next < has.start {
            let message = |offset| log.numbering.message(offset);
            return Err(Error::stopped(format!(
                "{location} has forgotten messages that were not read: {}s {} to {} of part {part} are gone (it begins at {} now); \
                 build the view anew from a table that has them (CREATE OR REPLACE), and keep the log longer",
                log.numbering.name(),
                message(stands.next),
                message(has.start - 1),
                message(has.start)
            )));
        }
        from.insert(*part, stands.next);
    }
    for (part, has) in &log.parts {
        from.entry(*part).or_insert(has.start);
    }
    Ok(from)
}

fn anew(location: &str, why: &str) -> Error {
    Error::stopped(format!(
        "{location} is not the log that was read before: {why}. It was deleted and made anew, and its offsets began again; \
         what it has now cannot be told from what was read, so build the view anew (CREATE OR REPLACE)"
    ))
}

/// Begins of application ids that are ours and archive nothing.
const OURS: &str = "watershed/";

/// The last offset of each part that is on record under a name.
pub fn parts_of(records: &Records, archive: &str) -> BTreeMap<Part, i64> {
    archives(records).remove(archive).unwrap_or_default()
}

/// The last offsets of the parts of each archive, by its name.
fn archives(records: &Records) -> BTreeMap<&str, BTreeMap<Part, i64>> {
    let mut found: BTreeMap<&str, BTreeMap<Part, i64>> = BTreeMap::new();
    for (application, version) in &records.transactions {
        if let Some((archive, part)) = part_of(application) {
            found.entry(archive).or_default().insert(part, *version);
        }
    }
    found
}

/// The archive and the part that an application stands for, if it is one that archives.
fn part_of(application: &str) -> Option<(&str, Part)> {
    let (archive, part) = application.rsplit_once('-').filter(|_| !application.starts_with(OURS))?;
    // `-00` would be read as part 0 as well.
    let number = part.parse::<Part>().ok().filter(|n| n.to_string() == part)?;
    Some((archive, number))
}

/// Whether an application archives a part of a log whose archive has this name.
pub fn archives_part(application: &str, archive: &str) -> bool {
    part_of(application).is_some_and(|(found, _)| found == archive)
}

/// The archive that a table holds, by its `txn` records: its name, and the last offset of each part; `None` where there is no
/// record that could be one.
pub fn archive(
    records: &Records,
    named: Option<&str>,
    location: &str,
) -> Result<Option<(String, BTreeMap<Part, i64>)>> {
    let mut found = archives(records);
    let names: BTreeSet<&str> = found.keys().copied().collect();
    match (named, names.len()) {
        (Some(name), _) => match found.remove(name) {
            Some(parts) => Ok(Some((name.to_string(), parts))),
            None => Err(Error::input(format!(
                "{location} has no record of an archive {name}: no txn action is called {name}-0; {}",
                listed(&names)
            ))),
        },
        (None, 0) => Ok(None),
        (None, 1) => Ok(found.pop_first().map(|(name, parts)| (name.to_string(), parts))),
        (None, _) => Err(Error::input(format!(
            "{location} has records of more than one archive, so where its log goes on is not clear: {}; say which with \
             archive = '…' in CREATE SOURCE … WITH",
            listed(&names)
        ))),
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    match names.len() {
        0 => "there is no record of any".to_string(),
        _ => format!("there are {}", names.iter().copied().collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
