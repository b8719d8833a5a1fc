//! The table's side of a join: read by the first step that needs it, kept for the run, given to every step.
//!
//! Invariant: what it read is one batch, so that a join which collects its build side shares the columns instead of copying
//! them. While it is read its memory is accounted here, with room for the table that the join will build; after that the join
//! accounts what it keeps.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, TryStreamExt};

/// What a row takes in a join's hash table, about.
const ROW_IN_TABLE: usize = 24;

type Rows = Shared<BoxFuture<'static, Result<RecordBatch, Arc<DataFusionError>>>>;

/// A leaf to everybody: nothing in it is a hole, and no step may copy or run what is below by itself.
pub(crate) struct DimensionExec {
    input: Arc<dyn ExecutionPlan>,
    rows: Mutex<Option<Rows>>,
}

impl DimensionExec {
    /// `input` has one partition.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        DimensionExec { input, rows: Mutex::default() }
    }

    fn rows(&self, context: Arc<TaskContext>) -> Rows {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let input = || Arc::clone(&self.input);
        rows.get_or_insert_with(|| read(input(), context).map(|read| read.map_err(Arc::new)).boxed().shared()).clone()
    }
}

async fn read(input: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<RecordBatch> {
    let memory = MemoryConsumer::new("a dimension table being read").register(context.memory_pool());
    let mut stream = input.execute(0, context)?;
    let mut batches = vec![];
    while let Some(batch) = stream.try_next().await? {
        let bytes = batch.get_array_memory_size() + batch.num_rows() * ROW_IN_TABLE;
        memory.try_grow(bytes).map_err(too_large)?;
        batches.push(batch);
    }
    Ok(concat_batches(&input.schema(), &batches)?)
}

fn too_large(e: DataFusionError) -> DataFusionError {
    match e {
        DataFusionError::ResourcesExhausted(message) => DataFusionError::ResourcesExhausted(format!(
            "a dimension table is too large to be joined in the memory there is ({message}); raise memory_limit, or take \
             fewer of its columns and rows: JOIN (SELECT … FROM t WHERE …)"
        )),
        other => other,
    }
}

impl fmt::Debug for DimensionExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DimensionExec").field("input", &self.input).finish_non_exhaustive()
    }
}

impl DisplayAs for DimensionExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = DisplayableExecutionPlan::new(self.input.as_ref()).indent(false).to_string();
        let nodes: Vec<_> = below.lines().map(str::trim).collect();
        write!(f, "DimensionExec, read once a run: {}", nodes.join(" ← "))
    }
}

impl ExecutionPlan for DimensionExec {
    fn name(&self) -> &str {
        "DimensionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a dimension has one partition, and {partition} was asked for");
        }
        let rows = self.rows(context).map(|rows| rows.map_err(DataFusionError::Shared));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.into_stream())))
    }
}
