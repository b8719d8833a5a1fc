//! One shard's part of a step: take rows, merge them, and at the step's end emit what became final.
//!
//! A shard has an operator for each stage of the job and is owned by one task at a time: it is moved into the stage's task
//! and comes back with the report, so a panic or an error in one loses the shard and fails the run, visibly. What the last
//! stage emits is finished and written by the shard itself; what others emit goes back to the runner, which hashes it to
//! the shards of the next.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use watershed_core::change::ChangeBatch;
use watershed_core::operator::{Operator, StateSize};
use watershed_core::sink::EpochWriter;
use watershed_core::{Error, EventTime, Result};

use crate::in_engine;
use crate::job::Finish;

/// A lane of the job; of each stage, the shard of that number.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) stages: Vec<(Box<dyn Operator>, Arc<dyn Finish>)>,
    pub(crate) tasks: Arc<TaskContext>,
}

/// What a shard did in one stage of a step.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) written: u64,
    /// The end of the last window that was open before the watermark came.
    pub(crate) last_end: Option<EventTime>,
    /// What was held just before it.
    pub(crate) held: StateSize,
    /// What became final, for the next stage.
    pub(crate) emitted: Vec<RecordBatch>,
}

/// How a step moves the watermark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advance {
    pub(crate) before: EventTime,
    pub(crate) watermark: EventTime,
}

impl Shard {
    /// Runs a stage's input of a step through, then advances to its watermark.
    pub(crate) async fn step(
        mut self,
        stage: usize,
        mut rows: SendableRecordBatchStream,
        advance: Advance,
        writer: Arc<dyn EpochWriter>,
    ) -> Result<(Self, Report)> {
        let mut report = Report::default();
        if self.stages.is_empty() {
            while let Some(batch) = rows.next().await {
                report.written += write(self.index, &*writer, batch.map_err(in_engine)?).await?;
            }
            return Ok((self, report));
        }
        let is_last = stage + 1 == self.stages.len();
        let of_stage = self.stages.get_mut(stage);
        let (operator, finish) = of_stage.ok_or_else(|| Error::bug(format!("there is no stage {stage}")))?;
        while let Some(batch) = rows.next().await {
            operator.push(ChangeBatch::inserts(batch.map_err(in_engine)?))?;
        }
        drop(rows);
        report.last_end = operator.last_end();
        report.held = operator.size();
        let mut next = Some(operator.advance(advance.before, advance.watermark)?);
        while let Some(emitted) = next {
            let emitted: Vec<RecordBatch> = emitted.into_iter().map(|c| c.rows).collect();
            if !is_last {
                report.emitted.extend(emitted);
            } else if !emitted.is_empty() {
                let plan = finish.bind(vec![emitted])?;
                let mut results = plan.execute(0, Arc::clone(&self.tasks)).map_err(in_engine)?;
                while let Some(batch) = results.next().await {
                    report.written += write(self.index, &*writer, batch.map_err(in_engine)?).await?;
                }
            }
            next = operator.more()?;
        }
        Ok((self, report))
    }
}

async fn write(lane: usize, writer: &dyn EpochWriter, batch: RecordBatch) -> Result<u64> {
    let rows = batch.num_rows() as u64;
    if rows > 0 {
        writer.write(lane, batch).await?;
    }
    Ok(rows)
}
