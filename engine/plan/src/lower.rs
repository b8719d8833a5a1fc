//! Lowering: from an analysed logical plan to a fragment, the stages of windowed aggregation above it, and a finish.
//!
//! ```text
//!  plan                     lowered
//!  Projection, HAVING       finish of the last stage, a shard by itself
//!  Aggregate by day         stage 2: windows over what stage 1 emits
//!  Projection               finish of stage 1: partial aggregation by day, hashed to shards
//!  Aggregate by hour        stage 1: windows over the sources
//!  Projection, Filter       fragment: partial aggregation by hour, hashed to shards
//!  TableScan                a hole
//! ```
//!
//! A plan is cut at its aggregates. Below each, everything becomes one projection that computes the group columns, the
//! window first, and the aggregates' arguments; DataFusion optimises and plans that, and a partial aggregate over plain
//! columns stands on top. A window's end is not grouped by where its start implies it; the operator puts out both.
//!
//! * [`grouping`]: which group columns are windows, and how a stage's watermark follows from the one below.
//! * [`stage`]: the plan below an aggregate.
//! * [`marks`]: panes in the place of windows that overlap.
//! * [`output`]: what the view's columns are.

mod grouping;

mod stage;

mod marks;

mod output;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Aggregate, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use watershed_core::error::{Error, Place, Result};
use watershed_core::{EventTime, time::Span};
use watershed_operators::{WindowForm, WindowSpec};

use crate::finish::Finish;
use crate::fragment::Fragment;
use crate::joins;
use crate::scan::table_schema;
use crate::session::SourceTable;
use crate::shape::{self, Places};
use crate::sql::place::planning_error;
use crate::trace::column;
use grouping::Grouping;
use output::output_key;

/// A query as the runtime runs it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Hole `i` of the fragment reads this source; one that is read twice has two holes.
    pub inputs: Vec<String>,
    pub fragment: Fragment,
    /// From the lowest up. None: stateless, the fragment's rows are the view's.
    pub stages: Vec<WindowStage>,
    /// The view's columns.
    pub output: SchemaRef,
    /// Output columns that the grouping implies to be a key, as far as the query puts them out.
    pub key: Vec<String>,
    /// The output column that is the window's start.
    pub window_start: Option<String>,
    /// Rejected rows: [`watershed_core::scan::REJECTED_COLUMNS`], then the columns of the sources that the query reads.
    pub rejected: SchemaRef,
}

/// A stateful stage of a windowed query.
#[derive(Clone, Debug)]
pub struct WindowStage {
    pub spec: Arc<WindowSpec>,
    /// Of the last stage: HAVING and what is computed over aggregates. Of the others: the next one's partial states.
    pub finish: Finish,
}

/// How a query is lowered.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// Streams of the fragment, and shards.
    pub parallelism: usize,
    /// Facts before this are not read, windows that begin before it not emitted.
    pub from: Option<EventTime>,
    /// When the view was made: what `now()` says in it, in every run.
    pub made: EventTime,
}

/// What lowering needs to know besides the plan.
pub(crate) struct Lowering<'a> {
    /// Plans fragments, in as many streams as asked for.
    pub(crate) state: &'a SessionState,
    /// Plans finishes, in one stream.
    pub(crate) single: &'a SessionState,
    pub(crate) sources: &'a BTreeMap<String, SourceTable>,
    pub(crate) options: &'a LowerOptions,
    /// The statement, its grouping, its first join and window: for errors.
    pub(crate) at: Option<Place>,
    pub(crate) grouping_at: Option<Place>,
    pub(crate) join_at: Option<Place>,
    pub(crate) window_at: Option<Place>,
}

/// An aggregate that has been lowered: what the one above it reads.
struct Below<'a> {
    aggregate: &'a Aggregate,
    grouping: Grouping,
    spec: Arc<WindowSpec>,
}

impl Lowering<'_> {
    pub(crate) async fn lower(&self, plan: &LogicalPlan) -> Result<Lowered> {
        let is_source = |name: &str| self.sources.contains_key(name);
        let mut aggregates = shape::aggregates(plan, &is_source, Places { query: self.at, join: self.join_at })?;
        aggregates.reverse();
        match &aggregates[..] {
            [] => self.stateless(plan).await,
            aggregates => self.windowed(plan, aggregates).await,
        }
    }

    async fn stateless(&self, plan: &LogicalPlan) -> Result<Lowered> {
        let plan = self.since(plan.clone(), self.options.from)?;
        let mut physical = self.physical(self.state, &plan).await?;
        let partitions = self.options.parallelism.max(1);
        if physical.output_partitioning().partition_count() != partitions {
            let spread = RepartitionExec::try_new(physical, Partitioning::RoundRobinBatch(partitions));
            physical = Arc::new(spread.map_err(|e| self.error(&e))?);
        }
        let output = physical.schema();
        let fragment = self.fragment(physical, None, self.options.from)?;
        Ok(Lowered {
            inputs: fragment.inputs(),
            rejected: fragment.rejected(),
            fragment,
            stages: vec![],
            output,
            key: vec![],
            window_start: None,
        })
    }

    /// `aggregates` come from the lowest up.
    async fn windowed(&self, plan: &LogicalPlan, aggregates: &[&Aggregate]) -> Result<Lowered> {
        let mut fragment = None;
        let mut stages: Vec<WindowStage> = vec![];
        let mut below: Option<Below<'_>> = None;
        for aggregate in aggregates {
            let grouping = self.grouping(aggregate, below.as_ref())?;
            let input = match &below {
                None => self.since(aggregate.input.as_ref().clone(), grouping.from)?,
                Some(below) => self.above(&aggregate.input, below)?,
            };
            let (physical, spec) = self.stage(aggregate, &grouping, input).await?;
            match below {
                None => fragment = Some(self.fragment(physical, Some(grouping.form), grouping.from)?),
                Some(below) => stages.push(WindowStage { spec: below.spec, finish: Finish { plan: physical } }),
            }
            below = Some(Below { aggregate, grouping, spec: Arc::new(spec) });
        }
        let (Some(fragment), Some(last)) = (fragment, below) else {
            return Err(Error::bug("a windowed plan without an aggregate"));
        };
        let above = self.above(plan, &last)?;
        let finish = Finish { plan: self.physical(self.single, &above).await? };
        let (key, window_start) = output_key(plan, last.aggregate, &last.grouping).map_err(|e| self.error(&e))?;
        let output = finish.schema();
        stages.push(WindowStage { spec: last.spec, finish });
        Ok(Lowered {
            inputs: fragment.inputs(),
            rejected: fragment.rejected(),
            fragment,
            stages,
            output,
            key,
            window_start,
        })
    }

    fn names(&self, plan: &LogicalPlan) -> Vec<String> {
        let mut names: Vec<String> = vec![];
        for scan in shape::scans(plan) {
            if let LogicalPlan::TableScan(scan) = scan {
                let name = scan.table_name.table().to_string();
                if self.sources.contains_key(&name) && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Every scan of a source reads from a time on.
    fn since(&self, plan: LogicalPlan, from: Option<EventTime>) -> Result<LogicalPlan> {
        let Some(from) = from else { return Ok(plan) };
        let filtered = plan.transform_up(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let Some(source) = self.sources.get(scan.table_name.table()) else { return Ok(Transformed::no(node)) };
            let index = scan.projected_schema.index_of_column_by_name(Some(&scan.table_name), &source.time_column);
            let Some(index) = index else { return Ok(Transformed::no(node)) };
            let bound = time_literal(from, scan.projected_schema.field(index).data_type());
            let filter = column(&node, index).gt_eq(lit(bound));
            LogicalPlanBuilder::from(node).filter(filter)?.build().map(Transformed::yes)
        });
        filtered.data().map_err(|e| self.error(&e))
    }

    async fn physical(&self, state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = state.create_physical_plan(plan).await.map_err(|e| self.error(&e))?;
        joins::sealed(plan).map_err(|e| self.error(&e))
    }

    fn fragment(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        window: Option<WindowForm>,
        from: Option<EventTime>,
    ) -> Result<Fragment> {
        let source = |name: &str| {
            self.sources.get(name).ok_or_else(|| Error::bug(format!("a scan of {name}, which is no source")))
        };
        let time_index = |name: &str| {
            let source = source(name)?;
            let index = table_schema(&source.layout).index_of(&source.time_column);
            index.map_err(|e| Error::bug(format!("{name}: {e}")))
        };
        let table = |name: &str| source(name).map(|source| table_schema(&source.layout));
        Fragment::new(plan, window, from, Arc::clone(self.state.runtime_env()), time_index, table)
    }

    fn error(&self, error: &DataFusionError) -> Error {
        planning_error(error, self.at)
    }
}

/// The first time at or after `time` that the type can say.
fn time_literal(EventTime(time): EventTime, data_type: &DataType) -> ScalarValue {
    let up = |unit: i64| time.div_euclid(unit) + i64::from(time.rem_euclid(unit) != 0);
    match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            ScalarValue::TimestampSecond(Some(up(Span::SECOND.0)), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            ScalarValue::TimestampMillisecond(Some(up(1_000)), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            ScalarValue::TimestampNanosecond(Some(time.saturating_mul(1_000)), zone.clone())
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => ScalarValue::TimestampMicrosecond(Some(time), zone.clone()),
        _ => ScalarValue::TimestampMicrosecond(Some(time), None),
    }
}
