//! From the newest manifest back to a running job.
//!
//! First the epoch in doubt is made visible, if it is not yet: every sink is asked to commit what the manifest prepared, and
//! decides on its own snapshot whether it has it. Then the state is read back and hashed to shards as the fragment hashes
//! rows; a chunk that lands where it was frozen is kept by reference.
//!
//! If the newest manifest cannot be read, the one before is gone back to and *replayed* to exactly the positions that the
//! result table's own commit recorded; what a table already has is then discarded, and the run goes on from there.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;
use serde_json::Value;
use watershed_core::epoch::{ChunkRef, CommitDecision, Manifest, Position, decide_commit, decide_start};
use watershed_core::history::Version;
use watershed_core::operator::{ChunkId, Operator};
use watershed_core::sink::{CommitIdentity, PLAYED_BACK, Sink};
use watershed_core::{Error, EventTime, Result};

use crate::checkpoint::{Checkpoints, Newest};
use crate::in_engine;
use crate::job::{Job, Stage};

/// Keys of a commit's info.
pub(crate) const EPOCH: &str = "watershed.epoch";
pub(crate) const WATERMARK: &str = "watershed.watermark";
pub(crate) const POSITIONS: &str = "watershed.positions";
pub(crate) const JOIN: &str = "watershed.join";

/// What a run starts from.
pub(crate) struct Start {
    /// The manifest gone on from.
    pub(crate) manifest: Option<Manifest>,
    /// The highest number in use.
    pub(crate) epoch: u64,
    /// The last epoch that each sink has.
    pub(crate) committed: BTreeMap<String, Option<u64>>,
    pub(crate) replay: Option<Replay>,
}

/// Steps to be done again because the manifest after them was lost.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) positions: BTreeMap<String, Position>,
    pub(crate) watermark: EventTime,
    /// Bytes to which small partitions were joined.
    pub(crate) join: Option<u64>,
    /// Sinks that have the output of these steps.
    pub(crate) discard: Vec<String>,
    /// Messages were played back, and what of the two tables that has come to is not known.
    pub(crate) played_back: bool,
}

/// How often a start is tried anew because another runner went on meanwhile.
const TRIES: usize = 5;

/// Finds the manifest to go on from and settles the epoch in doubt.
pub(crate) async fn start(job: &Job, checkpoints: &Checkpoints) -> Result<Start> {
    let mut tries = 0;
    loop {
        let newest = checkpoints.newest().await?;
        let seen = match &newest {
            Newest::None => 0,
            Newest::Manifest(m) => m.epoch,
            Newest::Unreadable { epoch, .. } => *epoch,
        };
        let started = match newest {
            Newest::Unreadable { epoch, why } => replay_of(job, checkpoints, epoch, &why).await,
            Newest::Manifest(manifest) => from(job, Some(*manifest)).await,
            Newest::None => from(job, None).await,
        };
        match started {
            // A runner that still lives may have gone on between the two looks, and its table with it.
            Err(Error::Stopped(_)) if tries < TRIES && checkpoints.epochs().await?.last() > Some(&seen) => tries += 1,
            other => return other,
        }
    }
}

async fn from(job: &Job, manifest: Option<Manifest>) -> Result<Start> {
    let mut committed = BTreeMap::new();
    for sink in [&job.sink, &job.rejects] {
        committed.insert(sink.name().to_string(), settle(job, sink.as_ref(), manifest.as_ref()).await?);
    }
    Ok(Start { epoch: manifest.as_ref().map_or(0, |m| m.epoch), manifest, committed, replay: None })
}

/// The identity under which a job's sink commits.
pub(crate) fn identity(job: &Job, sink: &dyn Sink, epoch: u64, after: Option<u64>) -> CommitIdentity {
    CommitIdentity { application: application(job, sink), epoch, after }
}

fn application(job: &Job, sink: &dyn Sink) -> String {
    format!("watershed/{}/{}", job.incarnation, sink.name())
}

/// What a commit records beside its files.
pub(crate) fn info(manifest: &Manifest) -> Result<BTreeMap<String, Value>> {
    let positions = serde_json::to_value(&manifest.positions).map_err(|e| Error::bug(e.to_string()))?;
    let played_back = manifest.sinks.values().any(|sink| sink.prepared.deleted.is_some());
    let played_back = played_back.then(|| (PLAYED_BACK.to_string(), Value::from(true)));
    let info = [
        (EPOCH.to_string(), Value::from(manifest.epoch)),
        (WATERMARK.to_string(), Value::from(manifest.watermark.0)),
        (POSITIONS.to_string(), positions),
        (JOIN.to_string(), Value::from(manifest.join)),
    ];
    Ok(info.into_iter().chain(played_back).collect())
}

/// Makes the manifest's epoch visible in one sink, unless it is or there is nothing to see. Returns the sink's last epoch.
async fn settle(job: &Job, sink: &dyn Sink, manifest: Option<&Manifest>) -> Result<Option<u64>> {
    let epoch = manifest.map_or(0, |m| m.epoch);
    let mine = manifest.and_then(|m| m.sinks.get(sink.name()));
    let prepared = mine.map(|s| &s.prepared).filter(|p| !p.is_empty());
    let after = mine.and_then(|s| s.committed);
    let last = sink.last_committed(&application(job, sink)).await?;
    match decide_start(epoch, prepared.is_some(), after, last.map(|l| l.epoch)) {
        CommitDecision::Done => {}
        CommitDecision::Stop(why) => return Err(not_as_left(sink, &why)),
        CommitDecision::Commit => {
            if let (Some(manifest), Some(prepared)) = (manifest, prepared) {
                sink.verify(prepared).await?;
                sink.commit(&identity(job, sink, epoch, after), prepared, &info(manifest)?).await?;
            }
        }
    }
    Ok(if prepared.is_some() { Some(epoch) } else { after })
}

fn not_as_left(sink: &dyn Sink, why: &str) -> Error {
    let location = sink.location();
    Error::stopped(format!("{location}: {why}; put it back as it was, or compute it anew with CREATE OR REPLACE"))
}

async fn replay_of(job: &Job, checkpoints: &Checkpoints, lost: u64, why: &str) -> Result<Start> {
    let rebuild = "to compute the view anew, use CREATE OR REPLACE";
    let before = checkpoints.epochs().await?.into_iter().rev().find(|e| *e < lost);
    let Some(manifest) = (match before {
        Some(epoch) => checkpoints.read(epoch).await.map_err(|e| match e {
            Error::Input(also) => Error::stopped(format!("{why}, and neither can the one before: {also}; {rebuild}")),
            other => other,
        })?,
        None => None,
    }) else {
        return Err(Error::stopped(format!("{why}, and there is no earlier one to go back to; {rebuild}")));
    };
    let mut committed = BTreeMap::new();
    let mut replay: Option<Replay> = None;
    for sink in [&job.sink, &job.rejects] {
        // Manifest N is only written once every sink has N-1.
        let prepared = manifest.sinks.get(sink.name()).is_some_and(|s| !s.prepared.is_empty());
        let known = manifest.sinks.get(sink.name()).and_then(|s| s.committed);
        let known = if prepared { Some(manifest.epoch) } else { known };
        let last = sink.last_committed(&application(job, sink.as_ref())).await?;
        if let CommitDecision::Stop(why) = decide_commit(lost, known, last.as_ref().map(|l| l.epoch)) {
            return Err(not_as_left(sink.as_ref(), &why));
        }
        let has_lost = last.as_ref().is_some_and(|l| l.epoch >= lost);
        if let Some(last) = last.filter(|_| has_lost) {
            let target = replay.get_or_insert(recorded(&last.info, sink.location(), rebuild)?);
            target.discard.push(sink.name().to_string());
        }
        committed.insert(sink.name().to_string(), if has_lost { Some(lost) } else { known });
    }
    // Where the lost epoch read nothing, but put windows right, there is nothing to do again but that.
    let is_there =
        |r: &Replay| r.watermark == manifest.watermark && r.positions == manifest.positions && !r.played_back;
    let replay = replay.filter(|replay| !is_there(replay));
    tracing::warn!(job = job.name, lost, "{why}; going back to checkpoint {}", manifest.epoch);
    Ok(Start { epoch: lost, manifest: Some(manifest), committed, replay })
}

/// The positions and watermark that a commit recorded.
fn recorded(info: &BTreeMap<String, Value>, location: &str, rebuild: &str) -> Result<Replay> {
    let unusable = || {
        Error::stopped(format!("the newest checkpoint is lost and {location} does not say where it stood; {rebuild}"))
    };
    let positions = info.get(POSITIONS).cloned().ok_or_else(unusable)?;
    let positions = serde_json::from_value(positions).map_err(|_| unusable())?;
    let watermark = info.get(WATERMARK).and_then(Value::as_i64).ok_or_else(unusable)?;
    let join = info.get(JOIN).and_then(Value::as_u64);
    let played_back = info.contains_key(PLAYED_BACK);
    Ok(Replay { positions, watermark: EventTime(watermark), join, discard: vec![], played_back })
}

/// Steps can be repeated only over the tables that they were done with.
pub(crate) fn same_dimensions(job: &Job, replay: &Replay) -> Result<()> {
    let then = |name: &String| replay.positions.get(name).and_then(|position| position.version.as_ref());
    let changed = job.dimensions.iter().find(|(name, now)| then(name).is_some_and(|then| then != *now));
    let Some((name, now)) = changed else { return Ok(()) };
    Err(Error::stopped(format!(
        "job {}: its newest checkpoint is lost, and the steps that led to it cannot be repeated exactly: they joined {name} at \
         {}, which now stands at {}; bring that state back, or build the view anew with CREATE OR REPLACE",
        job.name,
        then(name).map_or_else(String::new, in_words),
        in_words(now)
    )))
}

/// What was read of a log in which steps is not on record, so that they cannot be repeated exactly.
pub(crate) fn no_logs(job: &Job, replay: &Replay) -> Result<()> {
    let Some((name, _)) = replay.positions.iter().find(|(_, position)| position.tail.is_some()) else { return Ok(()) };
    Err(Error::stopped(format!(
        "job {}: its newest checkpoint is lost, and the steps over the log of {name} that led to it cannot be repeated exactly; \
         bring the checkpoint back, or build the view anew with CREATE OR REPLACE",
        job.name
    )))
}

fn in_words(version: &Version) -> String {
    match version {
        Version::Delta { version, .. } => format!("version {version}"),
        Version::Listing { digest } => format!("listing {digest}"),
        Version::Nothing => "nothing".to_string(),
    }
}

/// Where a chunk is kept by reference: stage, shard, and its name there.
pub(crate) type Held = HashMap<(usize, usize, ChunkId), ChunkRef>;

/// Gives the manifest's state back to the shards of all stages; returns where each chunk lies that is kept by reference.
pub(crate) async fn restore(
    manifest: &Manifest,
    stages: &[Stage],
    operators: &mut [Vec<Box<dyn Operator>>],
    checkpoints: &Checkpoints,
) -> Result<Held> {
    let mut held = HashMap::new();
    let mut files: BTreeMap<&str, Vec<&ChunkRef>> = BTreeMap::new();
    for chunk in &manifest.state {
        files.entry(&chunk.file).or_default().push(chunk);
    }
    let mut next = BTreeMap::new();
    for (file, chunks) in files {
        let batches = checkpoints.read_state(file).await?;
        for chunk in chunks {
            let missing = || {
                Error::stopped(format!(
                    "job {}: state file {file} has no batch {}, which its checkpoint names; restore it, or build the \
                     view anew with CREATE OR REPLACE",
                    manifest.job, chunk.batch
                ))
            };
            let states = batches.get(chunk.batch).cloned().ok_or_else(missing)?;
            let of_stage = stages.get(chunk.stage).zip(operators.get_mut(chunk.stage));
            let changed = |what: &str| {
                Error::stopped(format!(
                    "job {}: state file {file} holds {what}; build the view anew with CREATE OR REPLACE",
                    manifest.job
                ))
            };
            let (stage, operators) =
                of_stage.ok_or_else(|| changed("state of an aggregate that the query does not have"))?;
            if operators.first().is_some_and(|o| !same_types(&o.state_schema(), &states.schema())) {
                return Err(changed("columns of other types than the query has now: a source's columns changed"));
            }
            // By reference only where the rows hash to the shard that froze them: with as many shards, and the same hash.
            let rows = states.num_rows();
            for (shard, part) in reshard(states, &stage.hashed, operators.len())? {
                if part.num_rows() == rows && shard == chunk.shard {
                    let next: &mut u64 = next.entry((chunk.stage, shard)).or_default();
                    let id = ChunkId(*next);
                    *next += 1;
                    operators[shard].restore(Some(id), part)?;
                    held.insert((chunk.stage, shard, id), chunk.clone());
                } else {
                    operators[shard].restore(None, part)?;
                }
            }
        }
    }
    Ok(held)
}

fn same_types(a: &Schema, b: &Schema) -> bool {
    let types = |s: &Schema| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    types(a) == types(b)
}

/// Hashes the rows of a chunk to shards exactly as the fragment's repartitioning does.
fn reshard(states: RecordBatch, hashed: &Range<usize>, shards: usize) -> Result<Vec<(usize, RecordBatch)>> {
    let schema = states.schema();
    let key = |i: usize| Arc::new(Column::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>;
    let mut keys: Vec<_> = hashed.clone().map(key).collect();
    if keys.is_empty() {
        keys.push(lit(0i64));
    }
    let mut partitioner = BatchPartitioner::new_hash_partitioner(keys, shards, Time::new()).map_err(in_engine)?;
    let mut parts = vec![];
    let collect = |shard, part: RecordBatch| {
        parts.push((shard, part));
        Ok(())
    };
    partitioner.partition(states, collect).map_err(in_engine)?;
    Ok(parts)
}
