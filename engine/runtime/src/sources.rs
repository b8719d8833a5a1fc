//! The job's histories, pinned, and the steps over them.
//!
//! A run pins the newest version of each history when it starts. What came to partitions that earlier runs had read is
//! *pending* and read in the first step, its rows judged by their windows; facts that went away stop the job. Which files a
//! step reads and where the watermark then stands is decided in `core::slice`, what an increment means in
//! `core::increment`, and where partitions may be cut in `core::cut`; here are the facts for it.
//!
//! * [`pin`]: a history at a version, brought in line with where the job stands.
//! * [`logs`]: sources that go on in a log: the seam, and the steps over what comes.
//! * [`follow`]: sources that go on in what is committed to their table.
//! * [`beside`]: what others do to the table of a source that has come to its log.

mod beside;

mod logs;

mod pin;

mod follow;

pub(crate) use pin::{by_pieces, grown, pin_at};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use watershed_core::clock::Clock;
use watershed_core::cut;
use watershed_core::epoch::Position;
use watershed_core::history::{DataFile, DeletedRows, Version};
use watershed_core::scan::is_clean;
use watershed_core::settings::Settings;
use watershed_core::slice::{self, Rules, Standing};
use watershed_core::tail::LogRows;
use watershed_core::time::{Interval, Span};
use watershed_core::{EventTime, Result};

use self::pin::{Pinned, refine};
use crate::checkpoint::Checkpoints;
use crate::feed::Feed;
use crate::job::{Goal, Input};
use crate::recover::Replay;

/// Bytes of small partitions that are joined to a slice, for each worker: enough that opening a step is no matter, little
/// enough that two of them are no matter of memory.
const JOIN: u64 = 4 << 20;

/// The job's sources and where they stand.
pub(crate) struct Sources {
    inputs: Vec<Pinned>,
    /// Tables that the job joins: pinned for the run, and recorded beside the sources.
    dimensions: BTreeMap<String, Position>,
    rules: Rules,
    watermark: EventTime,
    ahead: EventTime,
    /// Windows may be open that the end would close.
    windows_open: bool,
    ended: bool,
    until_caught_up: bool,
    /// A log was begun, which is to be on record even if nothing comes of it.
    begun: bool,
    /// Bytes of files that newer versions brought since it was asked.
    came: u64,
    /// When tables that are followed were last looked at.
    followed: Duration,
    /// The looks at tables of sources that read their log; `None`: it is not looked at them.
    beside: Option<beside::Looks>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    checkpoints: Checkpoints,
}

/// What comes next.
pub(crate) enum Next {
    Step(Box<Step>),
    /// Nothing has come that could be read; more may.
    Quiet,
    /// The run has come as far as it may.
    End,
}

/// What is read between two watermark advances.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Files, input by input.
    pub(crate) reads: Vec<Vec<DataFile>>,
    /// The rows of these files that are marked as deleted, where any are.
    pub(crate) deleted: Vec<Vec<Option<Arc<DeletedRows>>>>,
    /// For each input, whether any of its files may hold rows that must be rejected.
    pub(crate) suspect: Vec<bool>,
    /// Inputs whose files lie behind a network.
    pub(crate) remote: Vec<bool>,
    /// The watermark before the step.
    pub(crate) before: EventTime,
    /// The watermark after it; [`EventTime::MAX`] closes every window.
    pub(crate) watermark: EventTime,
    /// Later event times are bad.
    pub(crate) ahead: EventTime,
    /// Where the sources stand after the step.
    pub(crate) positions: BTreeMap<String, Position>,
    /// When facts happened that were read before and are no more, or that came beside a log.
    pub(crate) changed: Vec<Interval>,
    /// Rows of logs, input by input; a step has files or these.
    pub(crate) logs: Vec<Vec<LogRows>>,
    pub(crate) log_bytes: u64,
    /// Messages that no fact could be made of: how many, and those that are kept, as rows of the table of rejected rows.
    pub(crate) malformed: u64,
    pub(crate) rejected: Vec<RecordBatch>,
}

impl Step {
    pub(crate) fn bytes(&self) -> u64 {
        self.reads.iter().flatten().map(DataFile::bytes).sum::<u64>() + self.log_bytes
    }

    pub(crate) fn log_rows(&self) -> u64 {
        self.logs.iter().flatten().map(|log| log.rows.num_rows() as u64).sum()
    }
}

impl Sources {
    /// Pins every history, at its newest version or where a replay must go, and finds what came since the positions.
    #[allow(clippy::too_many_arguments)] // Each is a fact of its own; a struct for one call would only rename them.
    pub(crate) async fn open(
        inputs: Vec<Input>,
        positions: &BTreeMap<String, Position>,
        watermark: EventTime,
        windows_open: bool,
        settings: &Settings,
        goal: Goal,
        clock: &Arc<dyn Clock>,
        checkpoints: &Checkpoints,
        replay: Option<&Replay>,
        workers: usize,
    ) -> Result<Self> {
        let now = clock.now();
        let mut pinned = vec![];
        for input in inputs {
            let before = positions.get(&input.name).cloned().unwrap_or_default();
            if before.tail.is_some() {
                let feed = logs::resume(&input, &before, watermark, checkpoints).await?;
                let snapshot = logs::behind(&before);
                pinned.push(Pinned { feed, goes_on: Some(EventTime::MIN), ..Pinned::new(input, snapshot, before) });
                continue;
            }
            let snapshot = match replay.and_then(|r| r.positions.get(&input.name)) {
                Some(then) => pin_at(&input, then, checkpoints).await?,
                None => {
                    if let Some(Version::Listing { .. }) = &before.version {
                        // What the kept listing has seen of a folder's files is not looked at again. One that is lost is told
                        // of where it is needed.
                        let _ = pin_at(&input, &before, checkpoints).await;
                    }
                    input.history.pin(None).await?
                }
            };
            pinned.push(Pinned::at(input, before, snapshot, settings, now, checkpoints).await?);
        }
        let rules = Rules {
            slice: settings.slice,
            join: replay.and_then(|r| r.join).unwrap_or(if settings.slice.is_none() {
                JOIN * workers as u64
            } else {
                0
            }),
            from: settings.from,
            to: settings.to,
            to_the_end: goal.to_the_end,
        };
        Ok(Sources {
            inputs: pinned,
            dimensions: BTreeMap::new(),
            rules,
            watermark,
            ahead: now.plus(settings.max_ahead),
            windows_open,
            ended: false,
            until_caught_up: goal.until_caught_up,
            begun: false,
            came: 0,
            followed: clock.elapsed(),
            beside: None,
            settings: settings.clone(),
            clock: Arc::clone(clock),
            checkpoints: checkpoints.clone(),
        })
    }

    /// Records the versions of the tables that the job joins in every step's positions.
    pub(crate) fn joined_with(mut self, dimensions: &BTreeMap<String, Version>) -> Self {
        let pinned = |version: &Version| Position { version: Some(version.clone()), ..Position::default() };
        self.dimensions = dimensions.iter().map(|(name, version)| (name.clone(), pinned(version))).collect();
        self
    }

    /// Bytes to which small partitions are joined.
    pub(crate) fn join(&self) -> u64 {
        self.rules.join
    }

    /// Bytes of the files that are still to be read in this run.
    pub(crate) fn bytes_left(&self) -> u64 {
        self.inputs.iter().map(|pinned| self.unread(pinned)).sum()
    }

    fn unread(&self, pinned: &Pinned) -> u64 {
        let whole = self.rules.to_the_end || pinned.input.bounded || pinned.goes_on.is_some();
        let limit = if whole { usize::MAX } else { pinned.closed };
        let unread = pinned.snapshot.partitions.iter().take(limit);
        let unread = unread.filter(|p| p.interval.start >= pinned.position.boundary).flat_map(|p| &p.files);
        unread.chain(&pinned.position.pending).map(DataFile::bytes).sum()
    }

    /// Bytes of the files that newer versions have brought since this was asked.
    pub(crate) fn take_came(&mut self) -> u64 {
        std::mem::take(&mut self.came)
    }

    /// The end of the last partition that this run may read, over all sources.
    pub(crate) fn known_until(&self) -> Option<EventTime> {
        let last = |p: &Pinned| {
            let whole = self.rules.to_the_end || p.input.bounded || p.goes_on.is_some();
            let readable = if whole { p.snapshot.partitions.len() } else { p.closed };
            p.snapshot.partitions[..readable].last().map(|p| p.interval.end)
        };
        let read = self.inputs.iter().filter_map(|p| p.feed.as_ref()?.newest());
        self.inputs.iter().filter_map(last).chain(read).max()
    }

    /// Decides the next step.
    pub(crate) async fn next(&mut self) -> Result<Next> {
        loop {
            if self.ended || self.rules.to.is_some_and(|to| self.watermark >= to) {
                return Ok(Next::End);
            }
            if self.logs_go_first() {
                return self.log_step();
            }
            if let Some(step) = self.history_step().await? {
                return Ok(Next::Step(Box::new(step)));
            }
            self.look_beside().await?;
            // Even if nothing is to be read for it, it is to be on record.
            if self.inputs.iter().any(|pinned| !pinned.changed.is_empty()) {
                let nothing = vec![vec![]; self.inputs.len()];
                return Ok(Next::Step(Box::new(self.step(nothing, vec![], self.watermark))));
            }
            if self.open_logs().await? {
                continue;
            }
            if self.follow().await? {
                continue;
            }
            return match (self.reads_logs(), self.follows()) {
                (true, _) => self.log_step(),
                (false, true) => self.followed_step(),
                (false, false) => Ok(self.last_step().await?.map_or(Next::End, |step| Next::Step(Box::new(step)))),
            };
        }
    }

    /// The next step over files; `None` when none may be read now.
    async fn history_step(&mut self) -> Result<Option<Step>> {
        self.refine().await?;
        let Some(slice) = slice::next_slice(&self.standings(), &self.rules) else { return Ok(None) };
        self.look(slice.boundary).await?;
        // Statistics that were only just read may show that files lie before `from`.
        let slice = slice::next_slice(&self.standings(), &self.rules).unwrap_or(slice);
        let watermark = slice::watermark_after(&self.standings(), &self.rules, slice.boundary, self.watermark);
        for pinned in self.inputs.iter_mut().filter(|p| p.feed.is_none()) {
            let Pinned { position, snapshot, continued, .. } = pinned;
            cut::pass(position, snapshot, continued, slice.boundary);
        }
        let deleted = self.deleted(&slice.reads).await?;
        Ok(Some(self.step(slice.reads, deleted, watermark)))
    }

    /// Cuts what would be read next where the wished slices are narrower.
    async fn refine(&mut self) -> Result<()> {
        let rules = self.rules;
        for i in 0..self.inputs.len() {
            let (interval, wide) = {
                let standing = self.standings()[i];
                let Some(next) =
                    standing.readable(&rules).first().filter(|p| p.interval.start >= self.inputs[i].refined)
                else {
                    continue;
                };
                let width = Span(next.interval.end.0.saturating_sub(next.interval.start.0));
                let wide = match rules.slice {
                    Some(slice) => slice.0 > 0 && slice < width,
                    None => {
                        standing.snapshot.by_statistics
                            && next.files.iter().map(DataFile::bytes).sum::<u64>() > rules.join
                    }
                };
                (next.interval, wide)
            };
            let start = interval.start;
            let pinned = &mut self.inputs[i];
            pinned.refined = interval.end;
            if wide {
                let at = pinned.snapshot.partitions.partition_point(|p| p.interval.start < start);
                let parts = refine(&pinned.input, &mut pinned.snapshot, at).await?;
                pinned.closed += if at < pinned.closed { parts - 1 } else { 0 };
                if !pinned.snapshot.by_statistics {
                    let partitions = &pinned.snapshot.partitions[at + 1..at + parts];
                    pinned.continued.extend(partitions.iter().map(|p| p.interval.start));
                }
            }
            pinned.warn(start, rules.join);
        }
        Ok(())
    }

    /// With nothing left to read, the watermark may still have to move: windows are closed at the very end.
    async fn last_step(&mut self) -> Result<Option<Step>> {
        let Some(boundary) = self.inputs.iter().map(|p| p.position.boundary).min() else { return Ok(None) };
        self.look(boundary).await?;
        let watermark = slice::watermark_after(&self.standings(), &self.rules, boundary, self.watermark);
        let moves = watermark > self.watermark && (self.windows_open || watermark != EventTime::MAX);
        Ok(moves.then(|| self.step(vec![vec![]; self.inputs.len()], vec![], watermark)))
    }

    /// Resolves the deletion vectors of the files of a step.
    async fn deleted(&self, reads: &[Vec<DataFile>]) -> Result<Vec<Vec<Option<Arc<DeletedRows>>>>> {
        let mut deleted = vec![];
        for (pinned, files) in self.inputs.iter().zip(reads) {
            deleted.push(match files.iter().any(|f| f.deletion_vector.is_some()) {
                true => pinned.input.history.deleted(files).await?,
                false => vec![],
            });
        }
        Ok(deleted)
    }

    fn step(
        &mut self,
        reads: Vec<Vec<DataFile>>,
        deleted: Vec<Vec<Option<Arc<DeletedRows>>>>,
        watermark: EventTime,
    ) -> Step {
        let before = std::mem::replace(&mut self.watermark, watermark);
        self.ended = watermark == EventTime::MAX;
        self.windows_open = true;
        let suspect = reads.iter().map(|files| !files.iter().all(|f| is_clean(f, before, self.ahead))).collect();
        let inputs = self.inputs.iter().map(|p| (p.input.name.clone(), p.position.clone()));
        let positions = inputs.chain(self.dimensions.clone()).collect();
        let remote = self.inputs.iter().map(|pinned| pinned.input.history.layout().is_remote()).collect();
        let logs = vec![vec![]; self.inputs.len()];
        let changed = self.inputs.iter_mut().flat_map(|pinned| std::mem::take(&mut pinned.changed)).collect();
        Step {
            changed,
            reads,
            deleted,
            suspect,
            remote,
            before,
            watermark,
            ahead: self.ahead,
            positions,
            logs,
            log_bytes: 0,
            malformed: 0,
            rejected: vec![],
        }
    }

    /// Reads the statistics that the decision about a slice wants and the file list did not have.
    async fn look(&mut self, boundary: EventTime) -> Result<()> {
        for pinned in &mut self.inputs {
            let from = pinned.position.boundary;
            let mut files = slice::wanted(&mut pinned.snapshot, from, boundary, pinned.input.max_leak);
            files.extend(pinned.position.pending.iter_mut());
            if !files.is_empty() {
                pinned.input.history.look(&mut files).await?;
            }
        }
        Ok(())
    }

    fn standings<'a>(&'a self) -> Vec<Standing<'a>> {
        let standing = |p: &'a Pinned| Standing {
            snapshot: &p.snapshot,
            position: &p.position,
            closed: p.closed,
            bounded: p.input.bounded,
            goes_on: p.feed.as_ref().map(Feed::promise).or(p.goes_on),
            delay: p.input.delay,
            max_leak: p.input.max_leak,
            horizon: self.ahead,
        };
        self.inputs.iter().map(standing).collect()
    }
}
