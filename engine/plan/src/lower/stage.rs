//! The plan below an aggregate: a projection of group columns and arguments, partial aggregation, and the way to the shards;
//! and what stands above one, over a hole that its operator fills.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::{CastExpr, Column as PhysicalColumn, lit as physical_lit};
use datafusion::physical_expr::{Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use watershed_core::error::Result;
use watershed_operators::{WindowForm, WindowPartialExec, WindowSpec, WindowStartExpr, check_aggregates};

use super::grouping::Grouping;
use super::marks;
use super::output::unique;
use super::{Below, Lowering};
use crate::coded::coded;
use crate::tables::WindowsProvider;
use crate::trace::column;

impl Lowering<'_> {
    /// Partial states of an aggregate over `input`, each in the stream of its shard, and the aggregate's specification.
    pub(super) async fn stage(
        &self,
        aggregate: &Aggregate,
        grouping: &Grouping,
        input: LogicalPlan,
    ) -> Result<(Arc<dyn ExecutionPlan>, WindowSpec)> {
        let input = match grouping.form.overlaps() {
            true => marks::to_panes(input).map_err(|e| self.error(&e))?,
            false => input,
        };
        let mut arguments = Arguments::new(grouping.columns.clone());
        let calls = aggregate.aggr_expr.iter().map(|e| arguments.of(e)).collect::<Result<Vec<_>, _>>();
        let calls = calls.map_err(|e| self.error(&e))?;
        let projected = LogicalPlanBuilder::from(input).project(arguments.columns()).and_then(|b| b.build());
        let projected = projected.map_err(|e| self.error(&e))?;
        let physical = self.physical(self.state, &projected).await?;
        let physical = floored(physical, grouping.form).map_err(|e| self.error(&e))?;

        let names = unique(aggregate.aggr_expr.iter().map(|e| e.schema_name().to_string()));
        let partial = self.partial(physical, projected.schema(), grouping, &calls, &names);
        let (partial, group_fields) = partial.map_err(|e| self.error(&e))?;
        let results = partial.aggr_expr().iter().map(|a| a.field());
        let time = group_fields[0].data_type();
        let edges = ["$start", "$end"].map(|name| Arc::new(Field::new(name, time.clone(), true)));
        let output = edges.into_iter().chain(group_fields[1..].iter().cloned()).chain(results);
        let spec = WindowSpec {
            name: format!("the view over {}", self.names(&aggregate.input).join(" and ")),
            windows: grouping.windows,
            aggregates: partial.aggr_expr().to_vec(),
            partial: partial.schema(),
            output: Arc::new(Schema::new(output.collect::<Vec<FieldRef>>())),
            group_fields,
            from: grouping.from,
            below: grouping.below.clone(),
        };
        let sharded = self.sharded(partial, spec.hashed()).map_err(|e| self.error(&e))?;
        Ok((sharded, spec))
    }

    /// What stands above an aggregate, over the rows that its operator emits.
    pub(super) fn above(&self, plan: &LogicalPlan, below: &Below<'_>) -> Result<LogicalPlan> {
        let above = || {
            let Below { aggregate, grouping, spec } = below;
            let provider = provider_as_source(Arc::new(WindowsProvider::new(Arc::clone(&spec.output))));
            let windows = LogicalPlanBuilder::scan("windows", provider, None)?.build()?;
            let mut exprs = vec![];
            for i in 0..aggregate.schema.fields().len() {
                let output = match grouping.groups.get(i) {
                    Some(group) => group.output,
                    None => grouping.columns.len() + 1 + i - grouping.groups.len(),
                };
                let (qualifier, field) = aggregate.schema.qualified_field(i);
                let value = column(&windows, output).cast_to(field.data_type(), windows.schema())?;
                exprs.push(value.alias_qualified(qualifier.cloned(), field.name()));
            }
            let windows = LogicalPlanBuilder::from(windows).project(exprs)?.build()?;
            replaced(plan, aggregate, &windows)
        };
        above().map_err(|e| self.error(&e))
    }

    /// The partial aggregate over the projection, and its group fields.
    fn partial(
        &self,
        input: Arc<dyn ExecutionPlan>,
        logical: &DFSchema,
        grouping: &Grouping,
        calls: &[Expr],
        names: &[String],
    ) -> Result<(AggregateExec, Vec<FieldRef>), DataFusionError> {
        let schema = input.schema();
        let context = PhysicalPlanningContext::default();
        let props = self.state.execution_props();
        let (mut aggregates, mut filters) = (vec![], vec![]);
        for (call, name) in calls.iter().zip(names) {
            let lowered =
                LoweredAggregateBuilder::new(call, logical, &schema, props, &context).with_name(name).build()?;
            aggregates.push(lowered.aggregate);
            filters.push(lowered.filter);
        }
        check_aggregates(&aggregates)?;
        let group = grouping.columns.iter().enumerate().map(|(i, (_, name))| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(PhysicalColumn::new(name, i));
            (column, name.clone())
        });
        let group = PhysicalGroupBy::new_single(group.collect());
        let partial = AggregateExec::try_new(AggregateMode::Partial, group, aggregates, filters, input, schema)?;
        let fields = partial.schema().fields()[..grouping.columns.len()].to_vec();
        Ok((partial, fields))
    }

    /// Partial states, each in the stream of its shard.
    fn sharded(&self, partial: AggregateExec, hashed: Range<usize>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let shards = self.options.parallelism.max(1);
        let partial: Arc<dyn ExecutionPlan> = Arc::new(coded(WindowPartialExec::of(&partial)?)?);
        if shards == 1 && partial.output_partitioning().partition_count() == 1 {
            return Ok(partial);
        }
        let schema = partial.schema();
        let key = |i: usize| Arc::new(PhysicalColumn::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>;
        let mut keys: Vec<_> = hashed.map(key).collect();
        if keys.is_empty() {
            // All to one shard; recovery hashes the same.
            keys.push(physical_lit(0i64));
        }
        Ok(Arc::new(RepartitionExec::try_new(partial, Partitioning::Hash(keys, shards))?))
    }
}

/// The arguments of aggregates, computed below them as columns; the group columns come first.
struct Arguments {
    columns: Vec<(Expr, String)>,
}

impl Arguments {
    fn new(groups: Vec<(Expr, String)>) -> Self {
        Arguments { columns: groups }
    }

    /// An aggregate's call over columns of the projection. Constants stay: some functions want to see them.
    fn of(&mut self, expr: &Expr) -> Result<Expr, DataFusionError> {
        let replaced = expr.clone().transform_down(|e| {
            let Expr::AggregateFunction(mut call) = e else { return Ok(Transformed::no(e)) };
            let AggregateFunctionParams { args, filter, order_by, .. } = &mut call.params;
            for argument in args {
                *argument = self.column(argument);
            }
            for sort in order_by {
                sort.expr = self.column(&sort.expr);
            }
            if let Some(filter) = filter {
                **filter = self.column(filter);
            }
            Ok(Transformed::new(
                Expr::AggregateFunction(call),
                true,
                datafusion::common::tree_node::TreeNodeRecursion::Jump,
            ))
        });
        replaced.data()
    }

    fn column(&mut self, expr: &Expr) -> Expr {
        if expr.column_refs().is_empty() {
            return expr.clone();
        }
        let known = self.columns.iter().find(|(known, _)| known == expr).map(|(_, name)| name.clone());
        let name = known.unwrap_or_else(|| {
            let mut name = format!("$arg{}", self.columns.len());
            while self.columns.iter().any(|(_, known)| *known == name) {
                name.push('_');
            }
            self.columns.push((expr.clone(), name.clone()));
            name
        });
        Expr::Column(Column::new_unqualified(name))
    }

    fn columns(&self) -> Vec<Expr> {
        self.columns.iter().map(|(expr, name)| expr.clone().alias(name)).collect()
    }
}

/// The projection below an aggregate with the start of its window, the first column, computed the short way.
fn floored(plan: Arc<dyn ExecutionPlan>, form: WindowForm) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let (WindowForm::Fixed { width, origin }, Some(projection)) = (form, plan.downcast_ref::<ProjectionExec>()) else {
        return Ok(plan);
    };
    let input = Arc::clone(projection.input());
    let mut exprs = projection.expr().to_vec();
    let Some(first) = exprs.first_mut() else { return Ok(plan) };
    let Some(call) = first.expr.downcast_ref::<ScalarFunctionExpr>() else { return Ok(plan) };
    let (true, Some(time)) = (matches!(call.name(), "date_bin" | "date_trunc"), call.args().get(1)) else {
        return Ok(plan);
    };
    // `date_bin` and `date_trunc` take some types as nanoseconds; the window is of the event time's own type all the same.
    let time = time.downcast_ref::<CastExpr>().map_or(time, |cast| cast.expr());
    let kind = time.data_type(&input.schema())?;
    let zone = |kind: &DataType| match kind {
        DataType::Timestamp(_, zone) => Some(zone.clone()),
        _ => None,
    };
    if zone(&kind).is_none() || zone(&kind) != zone(&first.expr.data_type(&input.schema())?) {
        return Ok(plan);
    }
    let Some(start) = WindowStartExpr::try_new(Arc::clone(time), width, origin, &kind) else { return Ok(plan) };
    first.expr = Arc::new(start);
    Ok(Arc::new(ProjectionExec::try_new(exprs, input)?))
}

/// The plan with an aggregate of it replaced.
fn replaced(plan: &LogicalPlan, aggregate: &Aggregate, with: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if let LogicalPlan::Aggregate(found) = plan
        && std::ptr::eq(found, aggregate)
    {
        return Ok(with.clone());
    }
    let inputs = plan.inputs();
    if inputs.is_empty() {
        return Ok(plan.clone());
    }
    let inputs = inputs.into_iter().map(|input| replaced(input, aggregate, with));
    plan.with_new_exprs(plan.expressions(), inputs.collect::<Result<_, _>>()?)
}
