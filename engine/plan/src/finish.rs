//! What stands above an aggregate, planned once, run over what each watermark makes final: HAVING and projections, or the way
//! to the next aggregate.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use watershed_core::Result;

use crate::scan::engine_error;

/// A plan over the aggregate's output, with one hole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Finish {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
}

impl Finish {
    /// The plan over batches of [`watershed_operators::WindowSpec::output`], shard by shard.
    pub fn bind(&self, batches: Vec<Vec<RecordBatch>>) -> Result<Arc<dyn ExecutionPlan>> {
        fill(&self.plan, &mut Some(batches)).map_err(engine_error)
    }

    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// The plan, indented.
    pub fn display(&self) -> String {
        DisplayableExecutionPlan::new(self.plan.as_ref()).indent(false).to_string()
    }
}

fn fill(
    plan: &Arc<dyn ExecutionPlan>,
    batches: &mut Option<Vec<Vec<RecordBatch>>>,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    if let Some(hole) = plan.downcast_ref::<WindowsExec>() {
        let Some(batches) = batches.take() else { return internal_err!("a finish has one hole") };
        let input = MemorySourceConfig::try_new_exec(&batches, Arc::clone(&hole.input), hole.projection.clone())?;
        return Ok(input);
    }
    let children = plan.children().into_iter().map(|child| fill(child, batches));
    let children = children.collect::<datafusion::common::Result<Vec<_>>>()?;
    Arc::clone(plan).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

/// The hole that the aggregate's output fills.
#[derive(Debug)]
pub(crate) struct WindowsExec {
    input: SchemaRef,
    projection: Option<Vec<usize>>,
    properties: Arc<PlanProperties>,
}

impl WindowsExec {
    pub(crate) fn try_new(
        input: &SchemaRef,
        projection: Option<&Vec<usize>>,
        partitions: usize,
    ) -> datafusion::common::Result<Self> {
        let schema = match projection {
            Some(columns) => Arc::new(input.project(columns)?),
            None => Arc::clone(input),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(WindowsExec { input: Arc::clone(input), projection: projection.cloned(), properties: Arc::new(properties) })
    }
}

impl DisplayAs for WindowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, "WindowsExec: columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for WindowsExec {
    fn name(&self) -> &str {
        "WindowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> datafusion::common::Result<SendableRecordBatchStream> {
        internal_err!("a finish was not bound to batches")
    }
}
