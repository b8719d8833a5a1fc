//! A step's files, bound to the fragment and already running.
//!
//! Reading starts when a step is bound, not when its shards get to it: each output partition is pumped by a task of its own into
//! a short buffer. So while the shards merge, evaluate and write step k, the cores that they leave idle scan step k+1.

use std::sync::Arc;

use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::common::spawn_buffered;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use watershed_core::history::{DataFile, DeletedRows};
use watershed_core::scan::{Inspect, ScanFile, ScanInput};
use watershed_core::{Error, Result};

use crate::in_engine;
use crate::job::Graph;
use crate::rejects::Collector;
use crate::sources::Step;

/// Batches buffered for a shard that is not there yet.
const BUFFER: usize = 4;

/// Pieces a worker should find in a slice, so that none is left alone with the last one.
const PIECES: u64 = 4;

/// Rejected rows of a step may take one part in so many of the memory whatever else is in it.
const REJECTED: usize = 8;

/// Smallest piece of a file worth a request of its own, in bytes.
const MIN_PIECE: u64 = 1 << 20;

/// The same for files that lie behind a network.
const MIN_REMOTE_PIECE: u64 = 6 << 20;

/// A step whose fragment runs.
pub(crate) struct Running {
    pub(crate) step: Step,
    /// One for each shard.
    pub(crate) streams: Vec<SendableRecordBatchStream>,
    pub(crate) rejects: Arc<Collector>,
    pub(crate) plan: Arc<dyn ExecutionPlan>,
}

impl Running {
    /// Binds the step's files and starts to read.
    pub(crate) fn start(graph: &Graph, step: Step, tasks: &Arc<TaskContext>) -> Result<Self> {
        let twice = (0..step.reads.len()).any(|input| graph.holes.iter().filter(|h| **h == input).count() > 1);
        let account = MemoryConsumer::new("late and bad rows").register(tasks.memory_pool());
        let least = match tasks.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / REJECTED,
            _ => usize::MAX,
        };
        let rejects = Arc::new(Collector::new(twice, account, least));
        let inputs: Vec<ScanInput> = graph.holes.iter().map(|i| scan(graph, &step, *i, &rejects)).collect();
        let plan = graph.fragment.bind(&inputs)?;
        let partitions = plan.output_partitioning().partition_count();
        if partitions != graph.parallelism {
            return Err(Error::bug(format!("a fragment has {partitions} partitions, not {}", graph.parallelism)));
        }
        Ok(Running { streams: streams(&plan, tasks)?, step, rejects, plan })
    }

    /// Rows that the scans let through, and bytes they fetched; asked once the streams have ended.
    pub(crate) fn scanned(plan: &Arc<dyn ExecutionPlan>) -> (u64, u64) {
        let own = match plan.downcast_ref::<DataSourceExec>().and_then(|s| s.metrics()) {
            Some(metrics) => {
                let bytes = metrics.sum_by_name("bytes_scanned").map_or(0, |v| v.as_usize());
                (metrics.output_rows().unwrap_or(0) as u64, bytes as u64)
            }
            None => (0, 0),
        };
        plan.children().into_iter().map(Running::scanned).fold(own, |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// Bytes that the scans of a plan fetched; asked once its streams have ended.
pub fn scanned_bytes(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    Running::scanned(plan).1
}

/// Runs every output partition of a plan in a task of its own.
pub(crate) fn streams(
    plan: &Arc<dyn ExecutionPlan>,
    tasks: &Arc<TaskContext>,
) -> Result<Vec<SendableRecordBatchStream>> {
    let partitions = 0..plan.output_partitioning().partition_count();
    let streams = partitions.map(|p| {
        let stream = plan.execute(p, Arc::clone(tasks)).map_err(in_engine)?;
        Ok(spawn_buffered(stream, BUFFER))
    });
    streams.collect()
}

fn scan(graph: &Graph, step: &Step, input: usize, rejects: &Arc<Collector>) -> ScanInput {
    let files = &step.reads[input];
    let log = step.logs[input].clone();
    let inspect = (!graph.stages.is_empty() && step.suspect[input]).then(|| Inspect {
        watermark: step.before,
        ahead: step.ahead,
        rejects: Arc::clone(rejects) as _,
    });
    let least = if step.remote[input] { MIN_REMOTE_PIECE } else { MIN_PIECE };
    let mut files = pieces(files, graph.parallelism as u64, least);
    if let Some(deleted) = step.deleted.get(input) {
        mark(&mut files, &step.reads[input], deleted);
    }
    ScanInput { files, log, inspect, rejects: Some(Arc::clone(rejects) as _) }
}

/// Hands the marks of files on to their pieces, which come in the same order.
fn mark(pieces: &mut [ScanFile], files: &[DataFile], deleted: &[Option<Arc<DeletedRows>>]) {
    let mut marked = files.iter().zip(deleted).peekable();
    for piece in pieces {
        while marked.peek().is_some_and(|(file, _)| file.path != piece.file.path) {
            marked.next();
        }
        piece.deleted = marked.peek().and_then(|(_, deleted)| (*deleted).clone());
    }
}

/// Cuts files, and pieces of files, into byte ranges, so that all workers find about the same to do; a range stands for the
/// row groups whose first byte lies in it.
fn pieces(files: &[DataFile], workers: u64, least: u64) -> Vec<ScanFile> {
    let total: u64 = files.iter().map(DataFile::bytes).sum();
    let piece = total.div_ceil(PIECES * workers.max(1)).max(least);
    let mut out = vec![];
    for file in files {
        let count = file.bytes().div_ceil(piece).max(1);
        if count == 1 {
            out.push(ScanFile { file: file.clone(), range: file.range, deleted: None });
            continue;
        }
        let (from, to) = file.range.unwrap_or((0, file.size));
        let width = (to - from).div_ceil(count);
        for i in 0..count {
            let range = (from + i * width, (from + (i + 1) * width).min(to));
            out.push(ScanFile { file: file.clone(), range: Some(range), deleted: None });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_a_file_has_its_marks() {
        let files = [DataFile::new("a", 3), DataFile::new("b", 10 << 20), DataFile::new("c", 3)];
        let deleted = [1, 2].map(|rows| Some(Arc::new(DeletedRows { rows, runs: std::iter::once(0..1).collect() })));
        let deleted = [None, deleted[0].clone(), deleted[1].clone()];
        let mut pieces = pieces(&files, 2, MIN_PIECE);
        mark(&mut pieces, &files, &deleted);
        assert!(pieces.len() > 3);
        for piece in pieces {
            let file = files.iter().position(|f| f.path == piece.file.path).unwrap();
            assert_eq!(piece.deleted, deleted[file]);
        }
    }

    #[test]
    fn pieces_cover_each_byte_once() {
        let part = DataFile { range: Some((1_000, 5 << 20)), ..DataFile::new("d", 9 << 20) };
        let small = DataFile { range: Some((7, 9)), ..DataFile::new("e", 9 << 20) };
        let files = [DataFile::new("a", 10 << 20), DataFile::new("b", 3), DataFile::new("c", 7_654_321), part, small];
        let pieces = pieces(&files, 2, MIN_PIECE);
        assert!(pieces.len() > 6, "{pieces:?}");
        for f in &files {
            let ranges = pieces.iter().filter(|p| p.file.path == f.path).map(|p| p.range.unwrap_or((0, f.size)));
            let whole = f.range.unwrap_or((0, f.size));
            let end = ranges.fold(whole.0, |at, (from, to)| {
                assert_eq!(at, from);
                to
            });
            assert_eq!(end, whole.1);
        }
    }
}
