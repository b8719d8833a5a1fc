//! One shard's part of a step: take the fragment's rows, merge them, and at the step's end emit what became final.
//!
//! A shard is owned by one task at a time: it is moved into the step's task and comes back with the report, so a panic or
//! an error in one loses the shard and fails the run, visibly.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use futures::StreamExt;
use watershed_core::change::ChangeBatch;
use watershed_core::operator::Operator;
use watershed_core::sink::EpochWriter;
use watershed_core::{EventTime, Result};

use crate::in_engine;
use crate::job::Finish;

/// A lane of the job; with an operator, its shard.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) stateful: Option<(Box<dyn Operator>, Arc<dyn Finish>)>,
    pub(crate) tasks: Arc<TaskContext>,
}

/// What a shard did in a step.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) written: u64,
    /// The end of the last window that was open before the watermark came.
    pub(crate) last_end: Option<EventTime>,
}

impl Shard {
    /// Runs the step's input through, then advances to its watermark.
    pub(crate) async fn step(
        mut self,
        mut rows: SendableRecordBatchStream,
        watermark: EventTime,
        writer: Arc<dyn EpochWriter>,
    ) -> Result<(Self, Report)> {
        let mut report = Report::default();
        let Some((operator, finish)) = &mut self.stateful else {
            while let Some(batch) = rows.next().await {
                report.written += write(self.index, &*writer, batch.map_err(in_engine)?).await?;
            }
            return Ok((self, report));
        };
        while let Some(batch) = rows.next().await {
            operator.push(ChangeBatch::inserts(batch.map_err(in_engine)?))?;
        }
        drop(rows);
        report.last_end = operator.last_end();
        let emitted: Vec<RecordBatch> = operator.advance(watermark)?.into_iter().map(|c| c.rows).collect();
        if !emitted.is_empty() {
            let plan = finish.bind(emitted)?;
            let mut results = plan.execute(0, Arc::clone(&self.tasks)).map_err(in_engine)?;
            while let Some(batch) = results.next().await {
                report.written += write(self.index, &*writer, batch.map_err(in_engine)?).await?;
            }
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
