//! The node at a bound hole: counts what passes, and knows what the scan below opened.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use crate::watched::Watched;

/// Passes rows on as they are.
#[derive(Debug)]
pub(crate) struct CountedExec {
    input: Arc<dyn ExecutionPlan>,
    pub(crate) watched: Arc<Watched>,
    /// Files that partition values ruled out.
    pub(crate) pruned_files: u64,
    /// Of the rows of a log: how many there are.
    pub(crate) of_log: Option<u64>,
    passed: Arc<AtomicU64>,
    ended: Arc<AtomicUsize>,
}

impl CountedExec {
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        watched: Arc<Watched>,
        pruned_files: u64,
        of_log: Option<u64>,
    ) -> Self {
        CountedExec { input, watched, pruned_files, of_log, passed: Arc::default(), ended: Arc::default() }
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// Rows that passed.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether every stream was read to its end. A join with an empty table does not even begin.
    pub(crate) fn whole(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == self.input.output_partitioning().partition_count()
    }
}

impl DisplayAs for CountedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountedExec")
    }
}

impl ExecutionPlan for CountedExec {
    fn name(&self) -> &str {
        "CountedExec"
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
            (Some(input), None) => {
                Ok(Arc::new(CountedExec::new(input, Arc::clone(&self.watched), self.pruned_files, self.of_log)))
            }
            _ => internal_err!("a counted scan has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (passed, ended) = (Arc::clone(&self.passed), Arc::clone(&self.ended));
        let counted = input.inspect(move |batch| {
            if let Ok(batch) = batch {
                passed.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            }
        });
        let end = futures::stream::poll_fn(move |_| {
            ended.fetch_add(1, Ordering::Relaxed);
            std::task::Poll::Ready(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counted.chain(end))))
    }
}
