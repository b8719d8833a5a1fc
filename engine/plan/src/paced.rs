//! A scan that is held back: the job's pace is kept batch by batch, whatever the size of a step.
//!
//! It stands right above every scan of a source. When the session that a step is run in has a [`Pacing`], each batch is
//! booked with it and passed on once it is paid for; else batches go through as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use watershed_core::scan::Pacing;

/// Passes its input on at the job's pace.
#[derive(Debug)]
pub(crate) struct PacedExec {
    input: Arc<dyn ExecutionPlan>,
    /// Bytes of the scan that were booked.
    booked: Arc<AtomicU64>,
    /// What is read is in memory: bytes are those of the rows, as no scan counts them.
    of_log: bool,
}

impl PacedExec {
    pub(crate) fn over(input: Arc<dyn ExecutionPlan>, of_log: bool) -> Arc<dyn ExecutionPlan> {
        Arc::new(PacedExec { input, booked: Arc::default(), of_log })
    }
}

impl DisplayAs for PacedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PacedExec")
    }
}

impl ExecutionPlan for PacedExec {
    fn name(&self) -> &str {
        "PacedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(input), None) => Ok(PacedExec::over(input, self.of_log)),
            _ => internal_err!("a paced scan has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let Some(pacing) = context.session_config().get_extension::<Pacing>() else { return Ok(rows) };
        let scan = Arc::clone(&self.input);
        let fetched = move || {
            let bytes = scan.metrics().and_then(|m| m.sum_by_name("bytes_scanned"));
            bytes.map_or(0, |bytes| bytes.as_usize() as u64)
        };
        let schema = self.schema();
        let booked = Arc::clone(&self.booked);
        let mut counting = pacing.0.by_bytes();
        let of_log = self.of_log;
        let paced = rows.then(move |batch| {
            let mut bytes = 0;
            if of_log {
                bytes = batch.as_ref().map_or(0, |batch| batch.get_array_memory_size() as u64);
            } else if pacing.0.by_bytes() {
                // The scan counts over all its streams; what one finds new it books, whoever fetched it. What was fetched
                // before there was a limit is no debt.
                let now = fetched();
                let before = booked.fetch_max(now, Ordering::Relaxed);
                bytes = if counting { now.saturating_sub(before) } else { 0 };
                counting = true;
            } else {
                counting = false;
            }
            let pacing = Arc::clone(&pacing);
            async move {
                let batch = batch?;
                pacing.0.book(batch.num_rows() as u64, bytes).await;
                Ok(batch)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, paced)))
    }
}
