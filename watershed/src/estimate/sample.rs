//! The job's own plan over a few of its files: fragment, operators, finish. What it counts is what the model goes by.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use watershed_core::account::Account;
use watershed_core::change::ChangeBatch;
use watershed_core::clock::Clock;
use watershed_core::operator::StateSize;
use watershed_core::scan::{ScanFile, ScanInput};
use watershed_core::{Error, EventTime, Result};
use watershed_runtime::{Graph, Input, scanned_bytes};

use super::{BYTES, Calibration, ENOUGH, PLACES};
use crate::batch::in_query;

pub(super) struct Sampler<'a> {
    pub(super) graph: Graph,
    pub(super) tasks: Arc<TaskContext>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) inputs: &'a [Input],
}

/// What the sampled files came to.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    pub(super) calibration: Calibration,
    pub(super) account: Account,
    /// Sizes of the files, and bytes fetched of them.
    pub(super) file_bytes: u64,
    pub(super) read_bytes: u64,
    /// Rows that went into each stage, from the lowest up, and what it held and put out.
    pub(super) stages: Vec<StageSample>,
    /// Rows of the result.
    pub(super) output: Vec<RecordBatch>,
    /// Whether every place was read whole, so that windows without rows can be told.
    pub(super) whole: bool,
    /// Steps that were read, by number.
    pub(super) steps: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StageSample {
    pub(super) rows: u64,
    pub(super) windows: u64,
    pub(super) groups: u64,
    pub(super) bytes: u64,
    pub(super) emitted: u64,
}

impl Sampler<'_> {
    /// Files of up to [`PLACES`] steps, spread over the run.
    pub(super) async fn sample(&self, holes: &[usize], reads: &[Vec<Vec<ScanFile>>]) -> Result<Sampled> {
        let filled: Vec<usize> = (0..reads.len()).filter(|i| reads[*i].iter().any(|f| !f.is_empty())).collect();
        let mut places: Vec<usize> =
            (0..PLACES).filter_map(|i| filled.get((2 * i + 1) * filled.len() / (2 * PLACES)).copied()).collect();
        places.dedup();
        let mut sampled = Sampled { whole: true, ..Sampled::default() };
        sampled.stages = vec![StageSample::default(); self.graph.stages.len()];
        let began = self.clock.elapsed();
        let share = BYTES / places.len().max(1) as u64 / holes.len().max(1) as u64;
        // The middle first: it stands for most.
        places.sort_by_key(|p| p.abs_diff(reads.len() / 2));
        for place in places {
            if self.clock.elapsed().saturating_sub(began) > ENOUGH {
                break;
            }
            let mut inputs = vec![];
            for (hole, files) in holes.iter().zip(&reads[place]) {
                let text = self.inputs[*hole].history.layout().text.is_some();
                let (files, whole) = some(files, share, text);
                sampled.whole &= whole;
                let bare: Vec<_> = files.iter().map(|f| f.file.clone()).collect();
                let deleted = self.inputs[*hole].history.deleted(&bare).await?;
                sampled.file_bytes += files.iter().map(bytes).sum::<u64>();
                sampled.calibration.files += files.len() as u64;
                let files = files.into_iter().zip(deleted).map(|(f, deleted)| ScanFile { deleted, ..f }).collect();
                inputs.push(ScanInput { files, ..ScanInput::default() });
            }
            sampled.steps.push(place);
            self.run(&inputs, &mut sampled).await?;
        }
        let seconds = self.clock.elapsed().saturating_sub(began).as_secs_f64();
        let rows = sampled.account.opened;
        sampled.calibration = Calibration { bytes: sampled.file_bytes, rows, seconds, ..sampled.calibration };
        Ok(sampled)
    }

    async fn run(&self, inputs: &[ScanInput], sampled: &mut Sampled) -> Result<()> {
        let plan = self.graph.fragment.bind(inputs)?;
        let mut rows = self.collect(&plan).await?;
        let account = self.graph.fragment.account(&plan)?;
        sampled.account += account;
        sampled.read_bytes += scanned_bytes(&plan);
        let mut entered = account.used;
        let stages = self.graph.stages.len();
        for (number, stage) in self.graph.stages.iter().enumerate() {
            let (mut emitted, mut held, mut out) = (vec![], StateSize::default(), 0);
            for (shard, batches) in rows.into_iter().enumerate() {
                let mut operator = (stage.operator)(shard);
                for batch in batches {
                    operator.push(ChangeBatch::inserts(batch))?;
                }
                let size = operator.size();
                held.windows = held.windows.max(size.windows);
                held.groups += size.groups;
                held.bytes += size.bytes;
                let mut final_rows: Vec<RecordBatch> = vec![];
                let mut next = Some(operator.advance(EventTime::MIN, EventTime::MAX)?);
                while let Some(emitted) = next {
                    final_rows.extend(emitted.into_iter().map(|c| c.rows));
                    next = operator.more()?;
                }
                out += final_rows.iter().map(|b| b.num_rows() as u64).sum::<u64>();
                emitted.push(final_rows);
            }
            let told = &mut sampled.stages[number];
            told.rows += entered;
            told.windows += held.windows as u64;
            told.groups += held.groups as u64;
            told.bytes += held.bytes as u64;
            told.emitted += out;
            entered = out;
            rows = vec![];
            if number + 1 < stages {
                rows = self.collect(&stage.finish.bind(emitted)?).await?;
                continue;
            }
            for shard in emitted {
                rows.extend(self.collect(&stage.finish.bind(vec![shard])?).await?);
            }
        }
        sampled.output.extend(rows.into_iter().flatten());
        Ok(())
    }

    async fn collect(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Vec<RecordBatch>>> {
        collect_partitioned(Arc::clone(plan), Arc::clone(&self.tasks)).await.map_err(in_query)
    }
}

fn bytes(file: &ScanFile) -> u64 {
    file.range.map_or(file.file.bytes(), |(from, to)| to - from)
}

/// Files of about so many bytes, the last one cut; and whether these are all. `whole`: files that cannot be cut, and of which
/// those that are too long are left out.
fn some(files: &[ScanFile], most: u64, whole: bool) -> (Vec<ScanFile>, bool) {
    let mut taken = vec![];
    let mut left = most;
    for file in files {
        if left == 0 {
            return (taken, false);
        }
        let size = bytes(file);
        let (from, to) = file.range.unwrap_or((0, file.file.size));
        if size > left && whole {
            return (taken, false);
        }
        if size > left {
            taken.push(ScanFile { range: Some((from, from + left)), ..file.clone() });
            return (taken, false);
        }
        taken.push(ScanFile { range: Some((from, to)), ..file.clone() });
        left -= size;
    }
    (taken, true)
}

impl Sampled {
    pub(super) fn output_rows(&self) -> u64 {
        self.output.iter().map(|b| b.num_rows() as u64).sum()
    }

    /// Bytes that so many rows of the result take in a file of their own, written as tables are.
    pub(super) fn file_size(&self, rows: u64) -> Result<f64> {
        let Some(first) = self.output.first() else { return Ok(0.0) };
        let odd = |e: parquet::errors::ParquetError| Error::bug(format!("a sample of the result: {e}"));
        let all = concat_batches(&first.schema(), &self.output).map_err(|e| Error::bug(e.to_string()))?;
        let there = all.num_rows() as u64;
        if there == 0 {
            return Ok(0.0);
        }
        let part = all.slice(0, usize::try_from(rows.clamp(1, there.min(1 << 18))).unwrap_or(1));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .build();
        let mut file = vec![];
        let mut writer = ArrowWriter::try_new(&mut file, part.schema(), Some(properties)).map_err(odd)?;
        writer.write(&part).map_err(odd)?;
        writer.close().map_err(odd)?;
        Ok(file.len() as f64 * rows as f64 / part.num_rows() as f64)
    }
}
