//! Messages that no fact could be made of, played back: decoded as their source is declared now, and used in an epoch of
//! their own.
//!
//! ```text
//!  table of rejected rows ─ messages ─▶ decode ─┬─ facts ─▶ a step where the job stands ─▶ result
//!                                               └─ still malformed ─▶ listed anew
//! ```
//!
//! The epoch moves neither the watermark nor a position. Its manifest names both commits, the files of the result and the rows
//! that leave the list, so after a crash the next run or playback does what is left of it. The list is read once the job is
//! taken over: nobody else writes to it from then on, so all malformed messages of a source go, and those that still are come
//! again with what is wrong with them now.
//!
//! A fact whose window was emitted would only be late. Then nothing is played back.
//!
//! **Invariant:** a message leaves the list in the very epoch that uses it.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::Serialize;
use watershed_core::scan::{REJECTED_COLUMNS, Reason};
use watershed_core::sink::Deleted;
use watershed_core::tail::{LogRows, Malformed, Messages, Part};
use watershed_core::{Error, Result};

use super::Runner;
use super::open::Begun;
use crate::control::Order;
use crate::fragment::Running;
use crate::job::{Context, Input, Job};
use crate::record::{Recorder, RunState};
use crate::shard::Advance;
use crate::sources::Step;
use crate::stop::Stop;

/// Malformed messages that are shown one by one.
const SHOWN: usize = 10;

/// Messages that are listed as malformed, with the names of their sources.
pub type Listed = BoxStream<'static, Result<(String, Messages)>>;

/// Reads the list as it is then.
pub type ReadList = dyn Fn() -> BoxFuture<'static, Result<Listed>> + Send + Sync;

/// What a playback came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlayedBack {
    /// Messages that were listed as malformed.
    pub listed: u64,
    /// Those of them that can be read now. Unless it was only tried, they were used and are listed no more.
    pub readable: u64,
    /// Rows that they brought into the result.
    pub written: u64,
    /// The first of those that still cannot be read.
    pub malformed: Vec<StillMalformed>,
}

/// A message that still cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StillMalformed {
    pub source: String,
    pub part: Part,
    pub offset: i64,
    pub error: String,
}

/// Plays back what can be read now. Safe to call again after any failure, and to drop at any moment.
pub async fn play_back(job: Job, list: &ReadList, context: &Context) -> Result<PlayedBack> {
    let (home, clock) = (context.home.clone(), context.clock.clone());
    let recorder = Recorder::begin(home, &context.home_path, &job.name, job.incarnation, clock).await;
    let ended = begun(job, list, context).await;
    recorder.end(ended.as_ref().map(|_| RunState::Stopped)).await;
    ended
}

/// Says what could be played back.
pub async fn try_back(job: &Job, list: &ReadList) -> Result<PlayedBack> {
    let mut found = PlayedBack::default();
    let mut listed = list().await?;
    while let Some((source, messages)) = listed.try_next().await? {
        let (_, input) = input_of(&job.inputs, &source)?;
        found.decode(input, &messages)?;
    }
    Ok(found)
}

async fn begun(job: Job, list: &ReadList, context: &Context) -> Result<PlayedBack> {
    let mut begun = Begun::of(job, context, &Stop::default()).await?;
    let name = &begun.job.name;
    if let Order::Pause { since } = begun.reins.order() {
        return Err(Error::input(format!(
            "job {name} is paused since {since}; let it go on first: `watershed resume {name}`"
        )));
    }
    if begun.start.replay.is_some() {
        return Err(Error::stopped(format!(
            "job {name}: its newest checkpoint is lost; run it first, so that it goes back to the one before"
        )));
    }
    if begun.start.manifest.is_none() {
        return Ok(PlayedBack::default());
    }
    let inputs = std::mem::take(&mut begun.job.inputs);
    // No log is read, so none is told how far the job is.
    let mut runner = begun.runner(&[]).await?;
    runner.claim().await?;
    runner.play_back(&inputs, list).await
}

impl Runner {
    async fn play_back(&mut self, inputs: &[Input], list: &ReadList) -> Result<PlayedBack> {
        let mut found = PlayedBack::default();
        let mut sources = BTreeSet::new();
        let mut listed = list().await?;
        while let Some((source, messages)) = listed.try_next().await? {
            if self.asked().requested() {
                return Err(Error::stopped(format!("job {}: asked to stop; nothing was played back", self.job.name)));
            }
            let (at, input) = input_of(inputs, &source)?;
            let (facts, malformed) = found.decode(input, &messages)?;
            if let Some(rows) = malformed {
                self.writers.rejects.write(0, rows).await?;
            }
            if facts.rows.num_rows() > 0 {
                self.use_facts(at, inputs.len(), facts, messages.bytes()).await?;
            }
            sources.insert(source);
        }
        if found.readable == 0 {
            return Ok(found);
        }
        // Each message is counted once, as what became of it.
        let counts = &mut self.before;
        for count in [&mut counts.bad, &mut counts.account.bad, &mut counts.account.opened] {
            *count = count.saturating_sub(found.readable);
        }
        found.written = self.run.written;
        self.relisted = Some(malformed_of(sources));
        self.shown.leaving = true;
        self.end_epoch(false).await?;
        self.settle().await?;
        self.look_after();
        while self.tidying.join_next().await.is_some() {}
        if let Err(e) = self.checkpoints.clean(self.epoch).await {
            tracing::warn!(job = self.job.name, "old checkpoints were not removed: {e}");
        }
        Ok(found)
    }

    /// A step over facts of one source, at the watermark and the positions where the job stands.
    async fn use_facts(&mut self, input: usize, inputs: usize, facts: LogRows, bytes: u64) -> Result<()> {
        let mut logs = vec![vec![]; inputs];
        logs[input].push(facts);
        let step = Step {
            reads: vec![vec![]; inputs],
            deleted: vec![],
            suspect: vec![true; inputs],
            remote: vec![false; inputs],
            before: self.watermark,
            watermark: self.watermark,
            ahead: self.context.clock.now().plus(self.job.settings.max_ahead),
            positions: self.positions.clone(),
            changed: vec![],
            logs,
            log_bytes: bytes,
            malformed: 0,
            rejected: vec![],
        };
        let Running { step, streams, rejects, plan } = self.start(step)?;
        let advance = Advance { before: step.before, watermark: step.watermark };
        let work = self.dispatch(0, streams, advance);
        self.stages(work, advance).await?;
        self.run.rows += step.log_rows();
        self.run.bytes += step.log_bytes;
        self.run.account += self.job.graph.fragment.account(&plan)?;
        let kept = rejects.drain();
        if !kept.late.is_empty() {
            return Err(Error::input(format!(
                "job {}: among the messages that can be read now are facts of windows that were emitted before ({}); nothing was \
                 played back. Play them back into the archive of the log, if there is one, and build the view anew with CREATE OR \
                 REPLACE",
                self.job.name, self.watermark
            )));
        }
        self.reject(kept).await?;
        self.account(&step);
        Ok(())
    }
}

impl PlayedBack {
    /// The facts of some messages, and rows of those that still are malformed.
    fn decode(&mut self, input: &Input, messages: &Messages) -> Result<(LogRows, Option<RecordBatch>)> {
        let Some(tail) = &input.tail else {
            return Err(Error::input(format!(
                "source {} has no log any more, of which messages are to be read; declare it with its tail",
                input.name
            )));
        };
        let decode = tail.decode.as_ref();
        let decode = decode.ok_or_else(|| Error::bug(format!("messages of {} are not read", tail.tail.location())))?;
        let decoded = decode.decode(messages)?;
        let malformed = Malformed::of(messages, &decoded.malformed)?;
        self.listed += messages.len() as u64;
        self.readable += (messages.len() - malformed.offsets.len()) as u64;
        let shown = malformed.offsets.iter().zip(&malformed.errors).take(SHOWN - self.malformed.len());
        self.malformed.extend(shown.map(|(offset, error)| StillMalformed {
            source: input.name.clone(),
            part: messages.part,
            offset: *offset,
            error: error.clone(),
        }));
        let facts =
            LogRows { part: messages.part, origin: tail.origin.clone(), rows: decoded.rows, offsets: decoded.offsets };
        let rows = (!malformed.offsets.is_empty()).then(|| (tail.malformed)(&malformed)).transpose()?;
        Ok((facts, rows))
    }
}

fn input_of<'a>(inputs: &'a [Input], source: &str) -> Result<(usize, &'a Input)> {
    let found = inputs.iter().enumerate().find(|(_, input)| input.name == source);
    found.ok_or_else(|| Error::bug(format!("messages of {source}, which the job does not read")))
}

/// All that is listed as malformed of some sources.
fn malformed_of(sources: BTreeSet<String>) -> Deleted {
    let [source, _, _, _, _, reason, ..] = REJECTED_COLUMNS;
    let malformed = BTreeSet::from([Reason::Malformed.name().to_string()]);
    Deleted { texts: BTreeMap::from([(reason.to_string(), malformed), (source.to_string(), sources)]) }
}
