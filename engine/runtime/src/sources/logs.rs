//! The sources that go on in a log: their seams, and the steps over what has come.
//!
//! A source reads its history to the end of the pinned version, open partitions too. Then it asks the log for what follows
//! the offsets that the version has on record. If the log has forgotten some of that, a newer version has it: that one is
//! pinned, what it adds is read as history, and the log is asked again (design §5). A step reads files or logs, never both,
//! and whoever holds the watermark back reads first.
//!
//! Invariant: a log is begun exactly behind what the history has on record, or the job stops and says which messages are
//! missing.

use std::collections::BTreeMap;

use watershed_core::epoch::Position;
use watershed_core::history::{Records, Snapshot, Version};
use watershed_core::log::{self, Lag, STEP};
use watershed_core::sink::Archived;
use watershed_core::slice;
use watershed_core::tail::{LogState, PartPosition, Start, TailPosition};
use watershed_core::{Error, EventTime, Result};

use super::pin::{Pinned, pin_at};
use super::{Next, Sources, Step};
use crate::checkpoint::Checkpoints;
use crate::feed::{Feed, Taken};
use crate::job::{Input, OnError, TailInput};
use crate::overlap::KnownFacts;

/// Bytes of messages in a step: about what is in memory of a log at a time.
const STEP_BYTES: u64 = 8 << 20;

impl Sources {
    /// Ready when some log has something new. Never, if no log is read.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let feeds: Vec<_> = self.inputs.iter_mut().filter_map(|p| p.feed.as_mut()).collect();
        if feeds.is_empty() {
            return std::future::pending().await;
        }
        let ready = feeds.into_iter().map(|feed| Box::pin(feed.ready()));
        futures::future::select_all(ready).await.0
    }

    /// What the logs have and was not read, as far as known; `None` if no log is read.
    pub(crate) fn lag(&self) -> Option<Lag> {
        self.inputs.iter().filter_map(|p| Some(p.feed.as_ref()?.lag())).reduce(|a, b| a + b)
    }

    pub(crate) fn reads_logs(&self) -> bool {
        self.inputs.iter().any(|p| p.feed.is_some())
    }

    /// Whether logs are read next although files could be: one of them is behind the files, and has more.
    pub(super) fn logs_go_first(&self) -> bool {
        let standings = self.standings();
        let unread = standings.iter().filter_map(|s| s.readable(&self.rules).first()).map(|p| p.interval.start);
        let Some(unread) = unread.min() else { return false };
        self.inputs.iter().any(|p| {
            let behind = |feed: &Feed| feed.promise().minus(p.input.delay) < unread && !feed.caught_up();
            p.feed.as_ref().is_some_and(behind)
        })
    }

    /// Begins to read the logs of sources that have read their history; whether a source has anything new to read by it.
    pub(super) async fn open_logs(&mut self) -> Result<bool> {
        let mut opened = false;
        for i in 0..self.inputs.len() {
            let pinned = &self.inputs[i];
            if pinned.feed.is_none() && pinned.input.tail.is_some() {
                self.open_log(i).await?;
                opened = true;
            }
        }
        Ok(opened)
    }

    async fn open_log(&mut self, i: usize) -> Result<()> {
        let pinned = &mut self.inputs[i];
        let Some(tail) = pinned.input.tail.clone() else { return Ok(()) };
        let state = tail.tail.look().await?;
        let mut known = None;
        let from = match pinned.history_is_empty().await? {
            true => Ok(begin(&tail, &state).await?),
            false => match archived(&tail, &pinned.input, &pinned.snapshot).await? {
                Some((name, archived)) => {
                    pinned.position.archive = Some(name);
                    let parts = archived.parts.iter().map(|(part, at)| (*part, at.next - 1)).collect();
                    log::seam(&parts, &state, tail.tail.location())?.map(|from| with_times(from, &archived))
                }
                None => {
                    let newest = pinned.snapshot.newest(self.ahead);
                    let overlaps_from = log::overlaps_from(newest, tail.grace, pinned.input.delay);
                    let position = by_time(&tail, &state, newest, overlaps_from).await?;
                    known = Some(
                        KnownFacts::read(&tail, &pinned.snapshot, overlaps_from, self.ahead, pinned.input.delay)
                            .await?,
                    );
                    Ok(position)
                }
            },
        };
        match from {
            Ok(position) => {
                let floor = self.standings()[i].goes_on.unwrap_or(EventTime::MIN);
                tracing::info!(
                    source = self.inputs[i].input.name,
                    log = tail.tail.location(),
                    offsets = ?position.parts.iter().map(|(part, at)| (*part, at.next)).collect::<BTreeMap<_, _>>(),
                    "the history is read, and the log is gone on with"
                );
                let feed = Feed::open(&tail, position, state, floor, known).await?;
                let pinned = &mut self.inputs[i];
                // What was read is not looked at again.
                pinned.snapshot.partitions.clear();
                pinned.snapshot.timeless.clear();
                pinned.position.tail = Some(feed.position());
                pinned.feed = Some(feed);
                self.begun = true;
                Ok(())
            }
            Err(gap) => self.pin_newer(i, &tail, &gap).await,
        }
    }

    /// The log has forgotten what follows the pinned version; a newer one may have it.
    async fn pin_newer(&mut self, i: usize, tail: &TailInput, gap: &log::Gap) -> Result<()> {
        let pinned = &mut self.inputs[i];
        let newer = pinned.input.history.pin(None).await?;
        if newer.version == pinned.snapshot.version {
            return Err(Error::stopped(format!(
                "source {}: {} has forgotten offsets {} to {} of part {}, and {} does not have them: between the two, facts \
                 are missing. Bring the archive up to date with what the log still had, or make the view anew over what there \
                 is; and keep the log for longer than its archive lags",
                pinned.input.name,
                tail.tail.location(),
                gap.missing.start,
                gap.missing.end - 1,
                gap.part,
                pinned.input.history.layout().location
            )));
        }
        tracing::info!(
            source = pinned.input.name,
            part = gap.part,
            "the log has forgotten what follows the version that was read; a newer one is read first"
        );
        self.pin_at_newer(i, newer).await
    }

    /// A step over what has come of the logs.
    pub(super) fn log_step(&mut self) -> Result<Next> {
        let now = self.clock.elapsed();
        self.ahead = self.ahead.max(self.clock.now().plus(self.settings.max_ahead));
        // Logs are kept in step with each other, as the parts of one are.
        let behind = |p: &Pinned| Some(p.feed.as_ref().filter(|f| !f.caught_up())?.promise());
        let limit = self.inputs.iter().filter_map(behind).min().map_or(EventTime::MAX, |least| least.plus(STEP));
        let mut taken: Vec<Taken> = vec![];
        for pinned in &mut self.inputs {
            let Some(feed) = &mut pinned.feed else {
                taken.push(Taken::default());
                continue;
            };
            let most = if feed.promise() <= limit { STEP_BYTES } else { 0 };
            taken.push(feed.take(most, now, self.ahead)?);
            pinned.position.tail = Some(feed.position());
        }
        let boundary = self.inputs.iter().map(|p| p.position.boundary).min().unwrap_or(EventTime::MAX);
        let watermark = slice::watermark_after(&self.standings(), &self.rules, boundary, self.watermark);
        let begun = std::mem::take(&mut self.begun);
        if begun || taken.iter().any(|t| !t.is_empty()) || watermark > self.watermark {
            return Ok(Next::Step(Box::new(self.step_over(taken, watermark)?)));
        }
        let ends = self.until_caught_up || self.rules.to_the_end;
        if ends && self.inputs.iter().all(|p| p.feed.as_ref().is_none_or(Feed::caught_up)) {
            if self.rules.to_the_end && self.windows_open {
                let nothing = self.inputs.iter().map(|_| Taken::default()).collect();
                return Ok(Next::Step(Box::new(self.step_over(nothing, EventTime::MAX)?)));
            }
            return Ok(Next::End);
        }
        Ok(Next::Quiet)
    }

    fn step_over(&mut self, taken: Vec<Taken>, watermark: EventTime) -> Result<Step> {
        let mut step = self.step(vec![vec![]; self.inputs.len()], vec![], watermark);
        for ((i, taken), pinned) in taken.into_iter().enumerate().zip(&self.inputs) {
            let odd = |(earliest, latest): (EventTime, EventTime)| earliest < step.before || latest > step.ahead;
            step.suspect[i] = taken.timeless || taken.times.is_some_and(odd);
            step.log_bytes += taken.bytes;
            if let Some(tail) = &pinned.input.tail {
                for malformed in &taken.malformed {
                    step.malformed += malformed.offsets.len() as u64;
                    if tail.on_error == OnError::Table {
                        step.rejected.push((tail.malformed)(malformed)?);
                    }
                }
            }
            step.logs[i] = taken.rows;
        }
        Ok(step)
    }
}

impl Pinned {
    /// Whether there is nothing in the history that a log could follow.
    async fn history_is_empty(&self) -> Result<bool> {
        let empty = self.snapshot.partitions.is_empty() && self.snapshot.timeless.is_empty();
        Ok(empty && self.input.history.records(&self.snapshot.version).await?.transactions.is_empty())
    }
}

/// Goes on in a log where a position stands.
pub(super) async fn resume(
    input: &Input,
    before: &Position,
    watermark: EventTime,
    checkpoints: &Checkpoints,
) -> Result<Option<Feed>> {
    let (Some(tail), Some(position)) = (&input.tail, &before.tail) else { return Ok(None) };
    let state = tail.tail.look().await?;
    let from = log::resume(position, &state, tail.tail.location())?;
    let part = |(part, next)| {
        let before = position.parts.get(&part).copied().unwrap_or(PartPosition::at(next));
        (part, PartPosition { next, ..before })
    };
    let id = position.id.clone().or_else(|| state.id.clone());
    let known = match position.overlap {
        Some(overlap) => {
            let facts = pin_at(input, before, checkpoints).await?;
            Some(KnownFacts::read(tail, &facts, overlap.from, overlap.until, input.delay).await?)
        }
        None => None,
    };
    let position = TailPosition { id, parts: from.into_iter().map(part).collect(), overlap: position.overlap };
    Ok(Some(Feed::open(tail, position, state, watermark.plus(input.delay), known).await?))
}

/// Up to which event time a source that goes on in a log may promise anything while it reads its history: each part of the
/// log is in it up to some fact, and the part that lags most holds the promise back.
pub(super) async fn goes_on(input: &Input, snapshot: &Snapshot, ahead: EventTime) -> Result<Option<EventTime>> {
    if input.follow {
        return Ok(Some(snapshot.newest(ahead)));
    }
    let Some(tail) = &input.tail else { return Ok(None) };
    if snapshot.partitions.is_empty() && snapshot.timeless.is_empty() {
        return Ok(Some(EventTime::MIN));
    }
    let archived = archived(tail, input, snapshot).await?;
    let times =
        archived.map(|(_, archived)| archived.parts.values().map(|part| part.newest).collect::<Option<Vec<_>>>());
    let recorded = times.flatten().and_then(|times| times.into_iter().min());
    Ok(Some(recorded.unwrap_or_else(|| snapshot.newest(ahead).minus(tail.grace))))
}

/// How far each part of the log is in a version of the history, `next` being what follows, and under which name; `None` if that is
/// not on record, and facts are to be known by their keys.
async fn archived(tail: &TailInput, input: &Input, snapshot: &Snapshot) -> Result<Option<(String, TailPosition)>> {
    let location = &input.history.layout().location;
    let records: Records = input.history.records(&snapshot.version).await?;
    let Some((name, parts)) = log::archive(&records, tail.archive.as_deref(), location)? else {
        if tail.keys.is_some() {
            return Ok(None);
        }
        return Err(Error::input(format!(
            "source {}: {location} has no record of how far {} is in it, so where the two meet is not known. Whoever writes it \
             has to record offsets: `INSERT INTO … SELECT … FROM` a source of the log does, and so does kafka-delta-ingest (txn \
             actions called NAME-PART). Or join them by event time, which is weaker: name the columns that tell facts apart, WITH \
             (key = 'id')",
            input.name,
            tail.tail.location()
        )));
    };
    let part = |(part, last): (i32, i64)| {
        let newest = records.newest.get(&Archived::application(&name, part)).copied();
        (part, PartPosition { newest, ..PartPosition::at(last + 1) })
    };
    let parts = parts.into_iter().map(part).collect();
    Ok(Some((name, TailPosition { parts, ..TailPosition::default() })))
}

/// Where a log is begun whose history has no record of it.
async fn by_time(
    tail: &TailInput,
    state: &LogState,
    newest: EventTime,
    overlaps_from: EventTime,
) -> Result<TailPosition> {
    let from = tail.tail.at_time(overlaps_from).await?;
    let open = tail.tail.at_time(newest.minus(tail.grace)).await?;
    let from = log::seam_by_time(&from, &open, state, tail.tail.location())?;
    let part = |(part, next)| (part, PartPosition::at(next));
    Ok(TailPosition { parts: from.into_iter().map(part).collect(), ..TailPosition::default() })
}

fn with_times(from: BTreeMap<i32, i64>, archived: &TailPosition) -> TailPosition {
    let part = |(part, next)| {
        let newest = archived.parts.get(&part).and_then(|at| at.newest);
        (part, PartPosition { newest, ..PartPosition::at(next) })
    };
    TailPosition { parts: from.into_iter().map(part).collect(), ..TailPosition::default() }
}

/// Where a log without a history begins.
async fn begin(tail: &TailInput, state: &LogState) -> Result<TailPosition> {
    let at = PartPosition::at;
    let parts = match &tail.start {
        Start::Earliest => state.parts.iter().map(|(part, has)| (*part, at(has.start))).collect(),
        Start::Latest => state.parts.iter().map(|(part, has)| (*part, at(has.end))).collect(),
        Start::At(time) => tail.tail.at_time(*time).await?.into_iter().map(|(part, next)| (part, at(next))).collect(),
        Start::Offsets(offsets) => {
            if let Some((part, offset)) = offsets
                .iter()
                .find(|(part, offset)| !state.parts.get(part).is_some_and(|has| (has.start..=has.end).contains(offset)))
            {
                let (message, name) = (|offset| state.numbering.message(offset), state.numbering.name());
                let has = match state.parts.get(part) {
                    Some(has) => format!("it has {} to {}", message(has.start), message(has.end)),
                    None => format!("its parts are {:?}", state.parts.keys().collect::<Vec<_>>()),
                };
                return Err(Error::input(format!(
                    "start: {} has no {name} {} in part {part}; {has}",
                    tail.tail.location(),
                    message(*offset)
                )));
            }
            let next = |(part, has): (&i32, &std::ops::Range<i64>)| {
                (*part, at(offsets.get(part).copied().unwrap_or(has.start)))
            };
            state.parts.iter().map(next).collect()
        }
    };
    Ok(TailPosition { id: state.id.clone(), parts, overlap: None })
}

/// What a source is pinned at that reads its log only.
pub(super) fn behind(position: &Position) -> Snapshot {
    let version = position.version.clone().unwrap_or(Version::Nothing);
    Snapshot { version, partitions: vec![], timeless: vec![], by_statistics: false, keepsake: None }
}
