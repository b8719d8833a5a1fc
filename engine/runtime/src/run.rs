//! The loop: steps, and after some of them the end of an epoch.
//!
//! One step is worked on while the next is read ahead; at most two are in flight, so memory does not grow with the
//! history. When the commit interval has passed, the step in hand ends the epoch: its shards freeze their state, its data
//! files are closed, the manifest is written, and the commit goes its way while the next epoch is being computed.
//!
//! * [`open`]: what a run begins with, or goes on from.
//! * [`epoch`]: what ends an epoch.
//! * [`early`]: results of windows that are still open.
//! * [`repair`]: windows computed anew for late facts.
//! * [`playback`]: messages that could not be read, read once more.
//! * [`rest`]: where it rests, and how it leaves when it cannot wait.
//! * [`told`]: what it says of itself.

mod open;

mod epoch;

mod early;

mod repair;

mod playback;

mod rest;

mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::common::runtime::{JoinSet, SpawnedTask};
use datafusion::execution::SendableRecordBatchStream;
use uuid::Uuid;
use watershed_core::epoch::{ChunkRef, Counts, Position};
use watershed_core::log::Lag;
use watershed_core::operator::StateSize;
use watershed_core::repair::{Repairs, needs};
use watershed_core::sink::{Archived, Deleted, EpochWriter, Replaced};
use watershed_core::tail::Tail;
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};

use crate::checkpoint::Checkpoints;
use crate::control::{Asked, Reins};
use crate::culprit;
use crate::fragment::{self, Running};
use crate::job::{Context, Job};
use crate::progress::Summary;
use crate::record::{Recorder, RunState};
use crate::recover::{Held, Replay};
use crate::rejects::Kept;
use crate::shard::{Advance, Report, Shard};
use crate::sources::{Next, Sources, Step};
use crate::stop::Stop;

pub use playback::{Listed, PlayedBack, ReadList, StillMalformed, play_back, try_back};

use early::Shown;
use repair::Repairer;

/// The shortest epoch, and the part of the run so far that an epoch may last: early in a run epochs follow closely, later
/// the commit interval rules. So a kill never costs more than about this part of the work.
const SHORTEST_EPOCH: Duration = Duration::from_millis(250);
const PART_AT_STAKE: u32 = 32;

/// Epochs between clean-ups of old checkpoints.
const CLEAN_EVERY: u64 = 8;

/// Runs a job as far as its histories and its goal go. Safe to call again after any failure, and to drop at any moment.
pub async fn run(job: Job, context: &Context) -> Result<Summary> {
    let (name, home) = (job.name.clone(), Arc::clone(&context.home));
    let recorder = Recorder::begin(home, &context.home_path, &name, job.incarnation, Arc::clone(&context.clock)).await;
    let ended = run_recorded(job, context).await;
    let state = |summary: &Summary| if summary.stopped { RunState::Stopped } else { RunState::Idle };
    recorder.end(ended.as_ref().map(state)).await;
    match &ended {
        Ok(summary) => tracing::info!(job = name, epoch = summary.epoch, "the run has ended: {:?}", summary.run),
        Err(e) => tracing::error!(job = name, "the run failed: {e}"),
    }
    ended
}

async fn run_recorded(job: Job, context: &Context) -> Result<Summary> {
    let own = Stop::default();
    let asked = Asked { all: &context.stop, own: &own };
    let nothing = Summary::nothing(&job.name);
    let mut runner = None;
    let ended = tokio::select! {
        ended = open::go(job, context, &own, &mut runner) => Some(ended),
        () = asked.overdue(context.clock.as_ref()) => None,
    };
    match (ended, runner) {
        (Some(ended), _) => ended,
        (None, Some(runner)) => Ok(runner.give_up()),
        (None, None) => Ok(Summary { stopped: true, ..nothing }),
    }
}

struct Runner {
    job: Arc<Job>,
    context: Context,
    checkpoints: Checkpoints,
    attempt: Uuid,
    shards: Vec<Shard>,
    writers: Writers,
    /// The highest manifest number in use.
    epoch: u64,
    watermark: EventTime,
    positions: BTreeMap<String, Position>,
    /// Counts of earlier runs, and of this one.
    before: Counts,
    run: Counts,
    /// The last epoch that each sink has, or is about to have by the commit under way.
    committed: BTreeMap<String, Option<u64>>,
    /// The logs of the sources, which are told how far the job is.
    tails: Tails,
    /// The chunks of the newest manifest, and where each chunk that a shard keeps lies.
    state: Vec<ChunkRef>,
    /// How many shards froze them: a claim passes on the state of a run that may have had another number.
    state_shards: usize,
    held: Held,
    /// Makes repairs, where late rows ask for them.
    repairer: Option<Repairer>,
    repairs: Repairs,
    /// Windows that late rows of the step in hand have missed.
    missed: Vec<Interval>,
    /// What the files of the epoch in hand stand in for.
    replaced: Option<Replaced>,
    /// What the result has on record of the log whose archive it is, as this run knows.
    recorded: Option<Archived>,
    /// Rejected rows that the epoch in hand has used, or lists anew.
    relisted: Option<Deleted>,
    shown: Shown,
    replay: Option<Replay>,
    committing: Option<SpawnedTask<Result<()>>>,
    /// The sinks looking after their tables.
    tidying: JoinSet<()>,
    steps_in_epoch: u64,
    epoch_began: Duration,
    began: Duration,
    /// Bytes of finished steps, and of all files that this run will read, with the messages that it has read.
    bytes_done: u64,
    bytes_total: u64,
    /// How far the sources' facts reach that this run may read.
    newest: Option<EventTime>,
    /// Epochs of this run that had rows to commit.
    commits: u64,
    /// What logs have and was not read yet.
    lag: Option<Lag>,
    /// When it was last told where the run stands.
    told: Duration,
    /// The most that was held at once, just before windows were closed.
    peak: StateSize,
    join: u64,
    /// What the newest manifest holds.
    kept: rest::Kept,
    reins: Reins,
}

/// A stage of a step, under way in every shard; ends when it is dropped.
type Work = Vec<SpawnedTask<Result<(Shard, Report)>>>;

/// Logs by their sources.
type Tails = Vec<(String, Arc<dyn Tail>)>;

/// The files of the epoch in hand.
struct Writers {
    main: Arc<dyn EpochWriter>,
    rejects: Arc<dyn EpochWriter>,
}

impl Writers {
    fn start(job: &Job) -> Result<Self> {
        Ok(Writers { main: job.sink.writer()?, rejects: job.rejects.writer()? })
    }
}

impl Runner {
    async fn drive(&mut self, sources: &mut Sources) -> Result<Summary> {
        let mut ahead = None;
        let mut stopped = false;
        let mut claimed = false;
        let mut to_the_end = self.job.goal.to_the_end;
        loop {
            self.rest().await?;
            if self.asked().requested() {
                stopped = true;
                break;
            }
            let current = match ahead.take() {
                Some(running) => running,
                None => match sources.next().await? {
                    Next::Step(step) => self.start(*step)?,
                    Next::Quiet => {
                        self.quiet(sources).await?;
                        continue;
                    }
                    Next::End => break,
                },
            };
            // Not before a replay: the claim would be a newest checkpoint that knows nothing of it, and go on without.
            if !claimed && self.replay.is_none() {
                self.claim().await?;
            }
            claimed = true;
            let Running { mut step, streams, rejects, plan } = current;
            let advance = Advance { before: step.before, watermark: step.watermark };
            let work = self.dispatch(0, streams, advance);
            if !self.asked().requested() {
                ahead = self.read_ahead(sources).await?;
            }
            if let Err(e) = self.stages(work, advance).await {
                return Err(culprit::named(&self.job.graph, &step, &self.context.tasks, e).await);
            }
            let (rows, bytes) = Running::scanned(&plan);
            self.run.rows += rows + step.log_rows();
            self.run.bytes += bytes + step.log_bytes;
            self.run.account += self.job.graph.fragment.account(&plan)?;
            self.reject(rejects.drain()).await?;
            self.malformed(&mut step).await?;
            self.account(&step);
            let caught_up = self.replayed(&step)?;
            tracing::debug!(
                job = self.job.name,
                epoch = self.epoch + 1,
                watermark = %self.watermark,
                files = step.reads.iter().map(Vec::len).sum::<usize>(),
                rows,
                "step"
            );
            // What was read ahead was of the histories as they were, and so was their end.
            if caught_up {
                to_the_end = false;
                break;
            }
            if self.replay.is_none() && self.epoch_is_due() {
                self.end_epoch(false).await?;
            }
            self.repair_when_due().await?;
            self.look_at(sources);
            self.tell();
        }
        if self.replay.is_some() {
            return if stopped { Ok(self.summary(false, true)) } else { Err(self.cannot_replay()) };
        }
        let ended = to_the_end && !stopped;
        if ended && self.steps_in_epoch > 0 && !self.repairs.is_empty() {
            self.end_epoch(false).await?;
        }
        if ended {
            let closed = self.repairs.closed(EventTime::MAX);
            self.repairs.note(closed, needs(&self.positions));
        }
        claimed |= self.repair().await?;
        if ended && !self.repairs.is_empty() {
            return Err(Error::stopped(
                "late facts are to be put right and are not in its sources' histories yet; bring the archive of their log up to \
                 date, and end the job then (--final)",
            ));
        }
        self.shown.leaving = true;
        if self.steps_in_epoch > 0 || ended || self.early_is_due() {
            self.end_epoch(ended).await?;
        }
        self.settle().await?;
        if !stopped {
            self.look_after();
            while self.tidying.join_next().await.is_some() {}
        }
        if claimed && let Err(e) = self.checkpoints.clean(self.epoch).await {
            tracing::warn!(job = self.job.name, "old checkpoints were not removed: {e}");
        }
        Ok(self.summary(!claimed, stopped))
    }

    /// How far the sources have come that go on.
    fn look_at(&mut self, sources: &mut Sources) {
        if sources.reads_logs() || sources.follows() {
            self.lag = sources.lag();
            self.newest = self.newest.max(sources.known_until());
            self.bytes_total += sources.take_came();
        }
    }

    async fn read_ahead(&self, sources: &mut Sources) -> Result<Option<Running>> {
        match sources.next().await? {
            Next::Step(step) => Ok(Some(self.start(*step)?)),
            Next::Quiet | Next::End => Ok(None),
        }
    }

    fn start(&self, step: Step) -> Result<Running> {
        Running::start(&self.job.graph, step, &self.context.tasks)
    }

    /// Takes the next number with the state as it is, so that an older runner of this job can no longer commit.
    async fn claim(&mut self) -> Result<()> {
        let manifest = self.manifest(BTreeMap::new(), false);
        self.checkpoints.create(&manifest).await?;
        self.epoch = manifest.epoch;
        Ok(())
    }

    /// Starts a stage of a step in every shard.
    fn dispatch(&mut self, stage: usize, streams: Vec<SendableRecordBatchStream>, advance: Advance) -> Work {
        let pairs = self.shards.drain(..).zip(streams);
        let writer = &self.writers.main;
        let task = |(shard, rows): (Shard, _)| SpawnedTask::spawn(shard.step(stage, rows, advance, Arc::clone(writer)));
        pairs.map(task).collect()
    }

    /// Brings a step, whose first stage is under way, through all stages.
    async fn stages(&mut self, mut work: Work, advance: Advance) -> Result<()> {
        let mut last_end = None;
        let mut held = StateSize::default();
        for stage in 0.. {
            let mut emitted = vec![];
            for shard in work {
                let (shard, report) = joined(shard.join().await)??;
                self.shards.push(shard);
                self.run.written += report.written;
                last_end = last_end.max(report.last_end);
                held.windows = held.windows.max(report.held.windows);
                held.groups += report.held.groups;
                held.bytes += report.held.bytes;
                emitted.push(report.emitted);
            }
            if stage + 1 >= self.job.graph.stages.len() {
                break;
            }
            let between = self.job.graph.stages[stage].finish.bind(emitted)?;
            work = self.dispatch(stage + 1, fragment::streams(&between, &self.context.tasks)?, advance);
        }
        self.peak.windows = self.peak.windows.max(held.windows);
        self.peak.groups = self.peak.groups.max(held.groups);
        self.peak.bytes = self.peak.bytes.max(held.bytes);
        // "The end" is no time: what is recorded is the end of the last window that it closed.
        self.watermark = match advance.watermark {
            EventTime::MAX => self.watermark.max(last_end.unwrap_or(self.watermark)),
            w => w,
        };
        Ok(())
    }

    async fn reject(&mut self, kept: Kept) -> Result<()> {
        let count = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        self.run.bad += count(&kept.bad) + kept.skipped;
        let listed = match &self.repairer {
            Some(_) => {
                self.run.repaired += count(&kept.late);
                self.note(&kept.late)?;
                kept.bad
            }
            None => {
                self.run.late += count(&kept.late);
                kept.late.into_iter().chain(kept.bad).collect()
            }
        };
        for batch in listed {
            self.writers.rejects.write(0, batch).await?;
        }
        Ok(())
    }

    /// Keeps messages that no fact could be made of beside late and bad rows, and counts them.
    async fn malformed(&mut self, step: &mut Step) -> Result<()> {
        self.run.bad += step.malformed;
        self.run.account.opened += step.malformed;
        self.run.account.bad += step.malformed;
        for batch in step.rejected.drain(..) {
            self.writers.rejects.write(0, batch).await?;
        }
        Ok(())
    }

    fn account(&mut self, step: &Step) {
        self.positions = step.positions.clone();
        self.note_changed(&step.changed);
        self.repairs.note(std::mem::take(&mut self.missed), needs(&self.positions));
        self.bytes_done += step.bytes();
        // What a log has is not known beforehand.
        self.bytes_total += step.log_bytes;
        self.run.slices += 1;
        self.steps_in_epoch += 1;
        self.shown.stale = true;
    }

    fn epoch_is_due(&self) -> bool {
        if self.early_is_due() {
            return true;
        }
        let wished = Duration::from_micros(self.job.settings.commit_interval.0.max(0) as u64);
        let now = self.context.clock.elapsed();
        let at_stake = (now.saturating_sub(self.began) / PART_AT_STAKE).max(SHORTEST_EPOCH);
        now.saturating_sub(self.epoch_began) >= wished.min(at_stake)
    }

    /// During a replay: when the steps have come to where the lost manifest stood, what tables have is thrown away. Whether
    /// they have just come there.
    fn replayed(&mut self, step: &Step) -> Result<bool> {
        let Some(replay) = &self.replay else { return Ok(false) };
        let boundary = |positions: &BTreeMap<String, Position>| -> Vec<_> {
            positions.iter().map(|(name, p)| (name.clone(), p.boundary)).collect()
        };
        if self.watermark > replay.watermark && step.watermark != EventTime::MAX {
            return Err(self.cannot_replay());
        }
        if self.watermark == replay.watermark && boundary(&self.positions) == boundary(&replay.positions) {
            let fresh = Writers::start(&self.job)?;
            if replay.discard.iter().any(|s| s == self.job.sink.name()) {
                self.writers.main = fresh.main;
            }
            if replay.discard.iter().any(|s| s == self.job.rejects.name()) {
                self.writers.rejects = fresh.rejects;
            }
            // The table has the lost epoch's early results, if it had any.
            self.shown.until = self.job.early.as_ref().map(|_| replay.watermark);
            self.replay = None;
            return Ok(true);
        }
        Ok(false)
    }

    fn cannot_replay(&self) -> Error {
        Error::stopped(format!(
            "job {}: its newest checkpoint is lost, and the steps that led to it cannot be repeated exactly (other settings, or \
             other files); build the view anew with CREATE OR REPLACE",
            self.job.name
        ))
    }
}

/// A task's panic fails its job, visibly.
fn joined<T>(result: std::result::Result<T, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|e| match e.try_into_panic() {
        Ok(panic) => {
            let text =
                panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
            Error::bug(format!("a task panicked: {}", text.unwrap_or_default()))
        }
        Err(cancelled) => Error::bug(format!("a task was cancelled: {cancelled}")),
    })
}
