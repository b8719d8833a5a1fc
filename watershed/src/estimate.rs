//! What a backfill will cost, before it is run: `EXPLAIN BACKFILL`, `watershed plan`.
//!
//! ```text
//!  file lists ─▶ the steps of the run ──────────────────────────────┐
//!                     └▶ a few files ─▶ the job's own plan, timed ─▶ model ─▶ estimate
//! ```
//!
//! The steps are those of the run itself, decided from file lists alone. A sample of their files, [`BYTES`] at most, goes through
//! the job's fragment, operators and finish; what came out, rows, groups a window, bytes a group and a row, is applied to the
//! rest.
//!
//! * [`sample`]: the job's plan over a few files.
//! * [`model`]: from a sample to the whole. Pure.
//! * [`text`]: an estimate in words.

mod model;

mod sample;

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use watershed_core::epoch::{Manifest, Position};
use watershed_core::history::{DataFile, Snapshot, Times};
use watershed_core::scan::ScanFile;
use watershed_core::{EventTime, Result};
use watershed_plan::{LowerOptions, Parsed};
use watershed_runtime::checkpoint::{Checkpoints, Newest};
use watershed_runtime::{Goal, Input, preview};

use crate::bindings;
use crate::engine::parallelism;
use crate::execute::Session;
use crate::jobs;
use crate::relations;
use model::{Model, Step};

/// Bytes of files that are sampled, at most.
const BYTES: u64 = 24 << 20;

/// In how many places.
const PLACES: usize = 3;

/// After this, no further place is sampled.
const ENOUGH: Duration = Duration::from_millis(800);

/// Files of a partition's list without times whose footers are looked at, to see whether rows leak.
const LOOKED_AT: usize = 32;

/// What one run of a job is expected to do.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Estimate {
    pub job: String,
    /// It goes on from a checkpoint.
    pub resumes: bool,
    pub sources: Vec<SourceEstimate>,
    pub steps: u64,
    /// Files that are read, by source and reading, after partition values were asked.
    pub files: u64,
    /// Their sizes.
    pub file_bytes: u64,
    /// What is fetched of them: the columns and row groups that the query needs.
    pub read_bytes: u64,
    /// Rows of the row groups that are opened, and those that go on.
    pub rows: u64,
    pub used_rows: u64,
    pub output_rows: u64,
    pub output_bytes: u64,
    /// The most that is held at once: groups, and bytes of state.
    pub peak_groups: u64,
    pub peak_bytes: u64,
    /// Windows, or panes of windows, open at once.
    pub peak_windows: u64,
    pub requests: Requests,
    pub seconds: f64,
    pub calibration: Calibration,
}

/// What a source has, and what of it the run reads.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceEstimate {
    pub name: String,
    pub location: String,
    pub version: String,
    pub partitions: u64,
    pub files: u64,
    pub bytes: u64,
    /// As far as the list tells.
    pub rows: Option<u64>,
    /// What the run reads.
    pub read_files: u64,
    pub read_bytes: u64,
    /// What partition values rule out of that.
    pub pruned_files: u64,
    /// Partitions that hold rows of other times than theirs: these may come late.
    pub leaking_partitions: u64,
    pub leaking_files: u64,
    /// How far, in microseconds.
    pub furthest_leak: i64,
    /// Files whose times are known: all, or a sample.
    pub times_known: u64,
    /// The step that reads most of it, in bytes.
    pub widest_step_bytes: u64,
}

/// Requests to the store, about.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requests {
    pub reads: u64,
    pub writes: u64,
}

/// What the estimate stands on.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Calibration {
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
    pub seconds: f64,
}

/// Estimates the run that a statement would start now.
pub(crate) async fn estimate(session: &Session<'_>, parsed: &Parsed) -> Result<Estimate> {
    let engine = session.engine;
    let asked = jobs::asked(session, parsed)?;
    let mut settings = session.layers.resolve(&asked.with.settings)?;
    let entry = session.entries.iter().find(|e| e.kind == asked.kind && e.name == asked.name).cloned();
    let (store, home) = engine.home();
    let id = entry.as_ref().map_or_else(|| engine.clock().id(), |e| e.incarnation);
    let checkpoints = Checkpoints::new(store.clone(), home, &asked.name, id);
    let manifest = match (&entry, checkpoints.newest().await?) {
        (Some(_), Newest::Manifest(manifest)) => Some(*manifest),
        _ => None,
    };
    if let Some(from) = entry.as_ref().and_then(|e| e.fixed.get("from")) {
        settings.from = None;
        settings.set("from", from)?;
    }
    let known = relations::streaming(engine, &session.entries, &session.layers, &settings, asked.query).await?;
    let made = entry.as_ref().map_or_else(|| engine.clock().now(), |e| e.created);
    let workers = parallelism(&settings);
    let lowered =
        known.planner.lower(asked.query, &LowerOptions { parallelism: workers, from: settings.from, made }).await?;
    let (inputs, holes) = bindings::inputs(&lowered, &known, &lowered.rejected)?;
    let goal = Goal { to_the_end: session.options.to_the_end, until_caught_up: false };
    let mut told = Estimate { job: asked.name.clone(), resumes: manifest.is_some(), ..Estimate::default() };
    let mut first = EventTime::MAX;
    for input in &inputs {
        let snapshot = input.history.pin(None).await?;
        let position = manifest.as_ref().and_then(|m| m.positions.get(&input.name));
        first = first.min(unread_from(&snapshot, position));
        told.sources.push(source(input, snapshot).await?);
    }
    let ahead =
        preview(inputs.clone(), manifest.as_ref(), &settings, goal, engine.clock(), &checkpoints, workers).await?;
    // The files of each hole, less those that partition values rule out.
    let mut reads: Vec<Vec<Vec<ScanFile>>> = vec![];
    for step in &ahead {
        let mut of_holes = vec![];
        for (hole, input) in holes.iter().enumerate() {
            let scan = |file: &DataFile| ScanFile { file: file.clone(), range: file.range, deleted: None };
            let files: Vec<ScanFile> = step.reads[*input].iter().map(scan).collect();
            let kept = lowered.fragment.kept(hole, files.clone())?;
            let of_source = &mut told.sources[*input];
            of_source.read_files += kept.len() as u64;
            of_source.pruned_files += (files.len() - kept.len()) as u64;
            let bytes: u64 = kept.iter().map(|f| f.file.bytes()).sum();
            of_source.read_bytes += bytes;
            of_source.widest_step_bytes = of_source.widest_step_bytes.max(bytes);
            of_holes.push(kept);
        }
        reads.push(of_holes);
    }
    told.steps = ahead.len() as u64;
    told.files = told.sources.iter().map(|s| s.read_files).sum();
    told.file_bytes = told.sources.iter().map(|s| s.read_bytes).sum();
    let steps = steps(first, &ahead, &reads);
    let partition_by_day = lowered.window_start.is_some();
    let forms = model::forms(&lowered);
    let graph = bindings::graph(&asked.name, lowered, holes.clone(), workers, 1, &known.planner.task_context());
    let sampler =
        sample::Sampler { graph, tasks: known.planner.task_context(), clock: engine.clock().clone(), inputs: &inputs };
    let sampled = sampler.sample(&holes, &reads).await?;
    told.calibration = sampled.calibration;
    let model = Model { sampled: &sampled, forms, watermark: manifest.as_ref().map(|m: &Manifest| m.watermark) };
    model.apply(&steps, partition_by_day, &mut told);
    Ok(told)
}

/// Where what was not read begins.
fn unread_from(snapshot: &Snapshot, position: Option<&Position>) -> EventTime {
    let boundary = position.map_or(EventTime::MIN, |p| p.boundary);
    let next = snapshot.partitions.iter().find(|p| p.interval.start >= boundary);
    next.map_or(EventTime::MAX, |p| p.interval.start)
}

/// What a source has, and which of its files leak.
async fn source(input: &Input, snapshot: Snapshot) -> Result<SourceEstimate> {
    let layout = input.history.layout();
    let mut told = SourceEstimate {
        name: input.name.clone(),
        location: layout.location.clone(),
        version: match &snapshot.version {
            watershed_core::history::Version::Delta { version, .. } => version.to_string(),
            watershed_core::history::Version::Listing { digest } => digest.clone(),
            watershed_core::history::Version::Nothing => "none".to_string(),
        },
        partitions: snapshot.partitions.len() as u64,
        rows: Some(0),
        ..SourceEstimate::default()
    };
    let mut files: Vec<(EventTime, EventTime, DataFile)> = vec![];
    for partition in snapshot.partitions {
        let interval = partition.interval;
        files.extend(partition.files.into_iter().map(|f| (interval.start, interval.end, f)));
    }
    for file in files.iter().map(|(_, _, file)| file).chain(&snapshot.timeless) {
        told.files += 1;
        told.bytes += file.bytes();
        told.rows = told.rows.zip(file.rows).map(|(sum, rows)| sum + rows);
    }
    if snapshot.by_statistics {
        told.times_known = files.len() as u64;
        return Ok(told);
    }
    if files.iter().any(|(_, _, f)| f.times == Times::Unknown) {
        let every = files.len().div_ceil(LOOKED_AT).max(1);
        let mut looked: Vec<&mut DataFile> = files.iter_mut().step_by(every).map(|(_, _, f)| f).collect();
        input.history.look(&mut looked).await?;
    }
    let mut leaking = BTreeSet::new();
    for (start, end, file) in &files {
        let Times::Known { min, max, .. } = file.times else { continue };
        told.times_known += 1;
        let leak = (start.0.saturating_sub(min.0)).max(max.0.saturating_sub(end.0) + 1);
        if min <= max && leak > 0 {
            leaking.insert(*start);
            told.leaking_files += 1;
            told.furthest_leak = told.furthest_leak.max(leak);
        }
    }
    told.leaking_partitions = leaking.len() as u64;
    Ok(told)
}

/// The steps as the model takes them.
fn steps(first: EventTime, ahead: &[watershed_runtime::PreviewStep], reads: &[Vec<Vec<ScanFile>>]) -> Vec<Step> {
    let mut from = first;
    let mut steps = vec![];
    for (step, reads) in ahead.iter().zip(reads) {
        let read = reads.iter().flatten().map(|f| ((f.file.path.as_str(), f.range), &f.file));
        let files: BTreeMap<_, &DataFile> = read.collect();
        let rows = files.values().map(|f| f.rows).sum::<Option<u64>>().unwrap_or(0);
        let bytes = reads.iter().flatten().map(|f| f.file.bytes()).sum();
        let until = step.boundary.max(from);
        steps.push(Step {
            from,
            until,
            bytes,
            rows: (rows > 0 && reads.len() == 1).then_some(rows),
            files: reads.iter().map(|f| f.len() as u64).sum(),
            watermark: step.watermark,
        });
        from = until;
    }
    steps
}
