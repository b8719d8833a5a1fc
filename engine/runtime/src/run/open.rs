//! How a run begins: from its newest manifest, or from nothing; and once more where a replay has come to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::JoinSet;
use uuid::Uuid;
use watershed_core::epoch::Counts;
use watershed_core::operator::{Operator, StateSize};
use watershed_core::tail::Start;
use watershed_core::{Error, EventTime, Result};

use super::early::Shown;
use super::repair::Repairer;
use super::told::known;
use super::{Runner, Writers, rest};
use crate::checkpoint::Checkpoints;
use crate::control::{Order, Reins};
use crate::job::{Context, Input, Job, Stage};
use crate::progress::Summary;
use crate::recover::{self, Held};
use crate::shard::Shard;
use crate::sources::Sources;
use crate::stop::Stop;

/// The run itself, which may be dropped at any moment; what it is driven by stands in `slot` as soon as there is one.
pub(super) async fn go(job: Job, context: &Context, own: &Stop, slot: &mut Option<Runner>) -> Result<Summary> {
    if job.goal.to_the_end && job.settings.to.is_some() {
        return Err(Error::input(
            "--final closes every window, and to (--to, SET, WITH or WATERSHED_TO) ends the run before that: give one \
             of them",
        ));
    }
    let mut begun = Begun::of(job, context, own).await?;
    if let Order::Pause { since } = begun.reins.order() {
        return Ok(begun.paused(since));
    }
    if let Some(replay) = &begun.start.replay {
        recover::same_dimensions(&begun.job, replay)?;
        recover::no_logs(&begun.job, replay)?;
    }
    let mut inputs = std::mem::take(&mut begun.job.inputs);
    let manifest = begun.start.manifest.as_ref();
    if manifest.is_none() {
        begin_behind_archive(&begun.job, &mut inputs).await?;
    }
    let no_positions = BTreeMap::new();
    let mut sources = Sources::open(
        inputs.clone(),
        manifest.map_or(&no_positions, |m| &m.positions),
        manifest.map_or(EventTime::MIN, |m| m.watermark),
        manifest.is_some_and(|m| !m.state.is_empty()),
        &begun.job.settings,
        begun.job.goal,
        &context.clock,
        &begun.checkpoints,
        begun.start.replay.as_ref(),
        begun.job.graph.parallelism,
    )
    .await?
    .joined_with(&begun.job.dimensions)
    .looking_beside(begun.job.recompute.is_some());
    let runner = slot.insert(begun.runner(&inputs).await?);
    (runner.bytes_total, runner.newest) = (sources.bytes_left(), sources.known_until());
    runner.join = sources.join();
    let replays = runner.replay.is_some();
    let summary = runner.drive(&mut sources).await?;
    if !replays || summary.stopped {
        return Ok(summary);
    }
    // The replay stood on histories as they were; from where it came to, they are read as they are now.
    let mut sources = Sources::open(
        inputs,
        &runner.positions,
        runner.watermark,
        !runner.state.is_empty(),
        &runner.job.settings,
        runner.job.goal,
        &context.clock,
        &runner.checkpoints,
        None,
        runner.job.graph.parallelism,
    )
    .await?
    .joined_with(&runner.job.dimensions)
    .looking_beside(runner.job.recompute.is_some());
    (runner.bytes_total, runner.newest) = (runner.bytes_done + sources.bytes_left(), sources.known_until());
    runner.join = sources.join();
    Ok(Summary { nothing_new: false, ..runner.drive(&mut sources).await? })
}

/// A job at its newest manifest, the epoch in doubt settled.
pub(super) struct Begun {
    pub(super) job: Job,
    context: Context,
    attempt: Uuid,
    pub(super) reins: Reins,
    began: Duration,
    checkpoints: Checkpoints,
    pub(super) start: recover::Start,
}

impl Begun {
    /// Waits for the hours in which the job may run, and goes back to where it stood. A job that was ended is refused.
    pub(super) async fn of(job: Job, context: &Context, own: &Stop) -> Result<Begun> {
        let attempt = context.clock.id();
        let reins = Reins::take(&job, context, own.clone(), attempt).await;
        // Histories are pinned when it goes on, not hours before.
        reins.opened(&job.name, context).await;
        let began = context.clock.elapsed();
        let context = Context { tasks: rest::paced(&context.tasks, &reins.pacer), ..context.clone() };
        let checkpoints = Checkpoints::new(Arc::clone(&context.home), &context.home_path, &job.name, job.incarnation);
        let start = recover::start(&job, &checkpoints).await?;
        if start.manifest.as_ref().is_some_and(|m| m.ended) {
            return Err(Error::stopped(format!(
                "job {} was ended by --final and its last windows are closed; build it anew with CREATE OR REPLACE to go on",
                job.name
            )));
        }
        Ok(Begun { job, context, attempt, reins, began, checkpoints, start })
    }

    /// What is said of a job that does nothing because it is paused.
    fn paused(&self, since: EventTime) -> Summary {
        let manifest = self.start.manifest.as_ref();
        Summary {
            paused: Some(since),
            total: manifest.map(|m| m.counts).unwrap_or_default(),
            watermark: manifest.and_then(|m| known(m.watermark)),
            epoch: self.start.epoch,
            ..Summary::nothing(&self.job.name)
        }
    }

    /// What goes on from there, with the state restored, over these sources.
    pub(super) async fn runner(self, inputs: &[Input]) -> Result<Runner> {
        let Begun { job, context, attempt, reins, began, checkpoints, start } = self;
        let manifest = start.manifest.as_ref();
        let shards_of = |stage: &Stage| (0..job.graph.parallelism).map(|i| (stage.operator)(i)).collect();
        let mut operators: Vec<Vec<Box<dyn Operator>>> = job.graph.stages.iter().map(shards_of).collect();
        let held = match manifest {
            Some(manifest) => recover::restore(manifest, &job.graph.stages, &mut operators, &checkpoints).await?,
            None => Held::new(),
        };
        let tail = |input: &Input| Some((input.name.clone(), Arc::clone(&input.tail.as_ref()?.tail)));
        Ok(Runner {
            shards: shards(&job, operators, &context),
            writers: Writers::start(&job)?,
            attempt,
            epoch: start.epoch,
            watermark: manifest.map_or(EventTime::MIN, |m| m.watermark),
            positions: manifest.map(|m| m.positions.clone()).unwrap_or_default(),
            before: manifest.map(|m| m.counts).unwrap_or_default(),
            run: Counts::default(),
            committed: start.committed,
            tails: inputs.iter().filter_map(tail).collect(),
            state: manifest.map(|m| m.state.clone()).unwrap_or_default(),
            state_shards: manifest.map_or(job.graph.parallelism, |m| m.shards),
            held,
            repairer: job.recompute.as_ref().map(|recompute| Repairer::new(recompute, inputs, began)),
            repairs: manifest.map(|m| m.repairs.clone()).unwrap_or_default(),
            missed: vec![],
            shown: Shown {
                until: match manifest {
                    // What a lost epoch has put out is not known.
                    Some(m) if job.early.is_some() && start.epoch > m.epoch => Some(m.watermark),
                    other => other.and_then(|m| m.early),
                },
                at: began,
                ..Shown::default()
            },
            replaced: None,
            recorded: None,
            relisted: None,
            replay: start.replay,
            committing: None,
            tidying: JoinSet::new(),
            steps_in_epoch: 0,
            epoch_began: context.clock.elapsed(),
            began,
            commits: 0,
            lag: None,
            told: began,
            peak: StateSize::default(),
            bytes_done: 0,
            bytes_total: 0,
            newest: None,
            join: manifest.map_or(0, |m| m.join),
            kept: rest::Kept { watermark: manifest.map_or(EventTime::MIN, |m| m.watermark), run: Counts::default() },
            job: Arc::new(job),
            checkpoints,
            reins,
            context,
        })
    }
}

/// A job that makes an archive which is there already, because another made it before, goes on with it.
async fn begin_behind_archive(job: &Job, inputs: &mut [Input]) -> Result<()> {
    let Some(archive) = &job.archive else { return Ok(()) };
    let archived = job.sink.archived(archive).await?;
    for tail in inputs.iter_mut().filter_map(|input| input.tail.as_mut()).filter(|_| !archived.is_empty()) {
        tracing::info!(job = job.name, archive, "the table has an archive of this name, which is gone on with");
        tail.start = Start::Offsets(archived.iter().map(|(part, last)| (*part, last + 1)).collect());
    }
    Ok(())
}

/// Shards, given the operators of each stage by shard.
fn shards(job: &Job, operators: Vec<Vec<Box<dyn Operator>>>, context: &Context) -> Vec<Shard> {
    let shard = |index| Shard { index, stages: vec![], tasks: Arc::clone(&context.tasks) };
    let mut shards: Vec<Shard> = (0..job.graph.parallelism).map(shard).collect();
    for (stage, operators) in job.graph.stages.iter().zip(operators) {
        for (shard, operator) in shards.iter_mut().zip(operators) {
            shard.stages.push((operator, Arc::clone(&stage.finish)));
        }
    }
    shards
}
