//! Lowering: from an analysed logical plan to a fragment, the windowed aggregate's specification, and a finish.
//!
//! A windowed plan is cut at its aggregate. Below it everything becomes one projection that computes the group columns,
//! window start first, and the aggregates' arguments; DataFusion optimises and plans that, and a partial aggregate over
//! plain columns stands on top. `window_end` is not grouped by: the start implies it, and the finish computes it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::{CastExpr, Column as PhysicalColumn};
use datafusion::physical_expr::{Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use watershed_core::error::{Error, Place, Result};
use watershed_core::{EventTime, time::Span};
use watershed_operators::{WindowPartialExec, WindowSpec, WindowStartExpr, check_aggregates};

use crate::finish::Finish;
use crate::fragment::Fragment;
use crate::scan::table_schema;
use crate::session::SourceTable;
use crate::shape;
use crate::sql::place::planning_error;
use crate::tables::WindowsProvider;
use crate::trace::{Traced, column, trace};
use crate::window::{Meaning, WindowForm, meaning};

/// A query as the runtime runs it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Hole `i` of the fragment reads this source; one that is read twice has two holes.
    pub inputs: Vec<String>,
    pub fragment: Fragment,
    /// `None`: stateless, the fragment's rows are the view's.
    pub window: Option<WindowStage>,
    /// The view's columns.
    pub output: SchemaRef,
    /// Output columns that the grouping implies to be a key, as far as the query puts them out.
    pub key: Vec<String>,
    /// The output column that is the window's start.
    pub window_start: Option<String>,
    /// Rejected rows: [`watershed_core::scan::REJECTED_COLUMNS`], then the columns of the sources that the query reads.
    pub rejected: SchemaRef,
}

/// The stateful half of a windowed query.
#[derive(Clone, Debug)]
pub struct WindowStage {
    pub spec: Arc<WindowSpec>,
    /// HAVING and what is computed over aggregates.
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
    /// The statement, its grouping, its first window: for errors.
    pub(crate) at: Option<Place>,
    pub(crate) grouping_at: Option<Place>,
    pub(crate) window_at: Option<Place>,
}

impl Lowering<'_> {
    pub(crate) async fn lower(&self, plan: &LogicalPlan) -> Result<Lowered> {
        match shape::aggregate(plan, self.at)? {
            None => self.stateless(plan).await,
            Some(aggregate) => self.windowed(plan, aggregate).await,
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
            window: None,
            output,
            key: vec![],
            window_start: None,
        })
    }

    async fn windowed(&self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Lowered> {
        let grouping = self.grouping(aggregate)?;
        let from = self.options.from.map(|from| grouping.form.first_from(from));

        let input = self.since(aggregate.input.as_ref().clone(), from)?;
        let mut arguments = Arguments::new(grouping.columns.clone());
        let calls = aggregate.aggr_expr.iter().map(|e| arguments.of(e)).collect::<Result<Vec<_>, _>>();
        let calls = calls.map_err(|e| self.error(&e))?;
        let projected = LogicalPlanBuilder::from(input).project(arguments.columns()).and_then(|b| b.build());
        let projected = projected.map_err(|e| self.error(&e))?;
        let physical = self.physical(self.state, &projected).await?;
        let physical = floored(physical, grouping.form).map_err(|e| self.error(&e))?;

        let names = unique(aggregate.aggr_expr.iter().map(|e| e.schema_name().to_string()));
        let partial = self.partial(physical, projected.schema(), &grouping, &calls, &names);
        let (partial, group_fields) = partial.map_err(|e| self.error(&e))?;
        let results = partial.aggr_expr().iter().map(|a| a.field());
        let spec = WindowSpec {
            name: format!("the view over {}", self.names(&aggregate.input).join(" and ")),
            end: grouping.form.end(),
            aggregates: partial.aggr_expr().to_vec(),
            partial: partial.schema(),
            output: Arc::new(Schema::new(group_fields.iter().cloned().chain(results).collect::<Vec<FieldRef>>())),
            group_fields,
            from,
        };
        let finish = self.finish(plan, aggregate, &grouping, &spec).await?;
        let sharded = self.sharded(partial, grouping.columns.len()).map_err(|e| self.error(&e))?;
        let fragment = self.fragment(sharded, Some(grouping.form), from)?;
        let (key, window_start) = output_key(plan, aggregate, &grouping).map_err(|e| self.error(&e))?;
        Ok(Lowered {
            inputs: fragment.inputs(),
            rejected: fragment.rejected(),
            fragment,
            output: finish.schema(),
            window: Some(WindowStage { spec: Arc::new(spec), finish }),
            key,
            window_start,
        })
    }

    /// Finds the window among the group expressions, and what remains to group by.
    fn grouping(&self, aggregate: &Aggregate) -> Result<Grouping> {
        let at = self.window_at.or(self.grouping_at).or(self.at);
        let mut window: Option<WindowForm> = None;
        let mut roles = vec![];
        for expr in &aggregate.group_expr {
            let meaning = self.meaning(expr, aggregate, at)?;
            if let Role::Start(form) | Role::End(form) = meaning {
                match window {
                    Some(known) if known != form => {
                        let message = "two different windows in one GROUP BY: not supported yet; group by the narrower \
                                       one, and compute the wider one from its window_start in SELECT";
                        return Err(Error::sql_at(message, self.grouping_at.or(at)));
                    }
                    _ => window = Some(form),
                }
            }
            roles.push(meaning);
        }
        let Some(form) = window else { return Err(self.no_window(aggregate)) };

        // The start itself where the query has it, else the end less the width.
        let start = roles.iter().position(|role| matches!(role, Role::Start(_)));
        let end = roles.iter().position(|role| matches!(role, Role::End(_)));
        let (first, start) = match (start, end) {
            (Some(i), _) => (i, aggregate.group_expr[i].clone()),
            (None, Some(i)) => (i, aggregate.group_expr[i].clone() - lit(form.interval())),
            (None, None) => return Err(Error::bug("a window is neither a start nor an end")),
        };
        let name = |i: usize| aggregate.schema.field(i).name().clone();
        let start_name = if matches!(roles[first], Role::Start(_)) { name(first) } else { "window_start".to_string() };
        let keys = (0..roles.len()).filter(|i| roles[*i] == Role::Key);
        let exprs: Vec<Expr> =
            std::iter::once(start).chain(keys.clone().map(|i| aggregate.group_expr[i].clone())).collect();
        let names = unique(std::iter::once(start_name).chain(keys.map(name)));
        Ok(Grouping { form, roles, columns: exprs.into_iter().zip(names).collect() })
    }

    /// What a group expression is; in every branch of a union it must be the same. A window counts only over the column
    /// that its source's watermark speaks of: over another one it is a key like any other.
    fn meaning(&self, expr: &Expr, aggregate: &Aggregate, at: Option<Place>) -> Result<Role> {
        let mut branches = vec![];
        let mut stray = None;
        for (source, meaning) in self.meanings(expr, aggregate)? {
            let (role, time) = match meaning {
                Meaning::Other => (Role::Key, None),
                Meaning::Not(why) => return Err(Error::sql_at(why, at)),
                Meaning::Start(form, time) => (Role::Start(form), Some(time)),
                Meaning::End(form, time) => (Role::End(form), Some(time)),
            };
            let watermark = self.sources.get(&source).map(|s| s.time_column.clone());
            let role = match time {
                Some(time) if watermark.as_ref() != Some(&time.name) => {
                    stray = Some((source.clone(), time.name));
                    Role::Key
                }
                _ => role,
            };
            branches.push((source, role));
        }
        let Some((first, role)) = branches.first().cloned() else { return Ok(Role::Key) };
        match branches.into_iter().find(|(_, other)| *other != role) {
            None => Ok(role),
            Some((other, _)) => {
                let message = match stray {
                    Some((source, column)) => self.stray(&source, &column),
                    None => format!(
                        "the branches of UNION ALL have different windows in one column ({first} and {other}): compute the \
                         window once, over the union"
                    ),
                };
                Err(Error::sql_at(message, at))
            }
        }
    }

    /// What an expression over the aggregate's input is, seen as a window, for each source it comes from.
    fn meanings(&self, expr: &Expr, aggregate: &Aggregate) -> Result<Vec<(String, Meaning)>> {
        let traced = trace(expr, &aggregate.input).map_err(|e| self.error(&e))?;
        let scans = traced.into_iter().filter_map(|Traced { expr, leaf }| {
            if let LogicalPlan::Unnest(unnest) = leaf {
                // A branch of its own, and nothing that the watermark speaks of.
                return Some((self.names(&unnest.input).into_iter().next()?, Meaning::Other));
            }
            let LogicalPlan::TableScan(scan) = leaf else { return None };
            let type_of = |c: &Column| scan.projected_schema.field_from_column(c).ok().map(|f| f.data_type().clone());
            Some((scan.table_name.table().to_string(), meaning(&expr, &type_of)))
        });
        Ok(scans.collect())
    }

    fn stray(&self, source: &str, column: &str) -> String {
        let time = self.time_of(source);
        format!(
            "the window is over {column}, but the watermark of {source} is over {time}: make the window over {time}, or \
             declare WATERMARK FOR {column} AS {column} in CREATE SOURCE"
        )
    }

    fn time_of(&self, source: &str) -> &str {
        self.sources.get(source).map_or("ts", |s| s.time_column.as_str())
    }

    fn no_window(&self, aggregate: &Aggregate) -> Error {
        for expr in &aggregate.group_expr {
            for (source, meaning) in self.meanings(expr, aggregate).unwrap_or_default() {
                if let Meaning::Start(_, column) | Meaning::End(_, column) = meaning {
                    let at = self.window_at.or(self.grouping_at).or(self.at);
                    return Error::sql_at(self.stray(&source, &column.name), at);
                }
            }
        }
        if self.window_at.is_some() {
            let message =
                "Aggregate: the window is not grouped by, so no group is ever final: add window_start to GROUP BY";
            return Error::sql_at(message, self.grouping_at.or(self.at));
        }
        let first = self.names(&aggregate.input).into_iter().next().unwrap_or_default();
        let time = self.time_of(&first);
        if aggregate.aggr_expr.is_empty() {
            let message = format!(
                "SELECT DISTINCT (Distinct): every row there ever was would have to be remembered; put a window among the \
                 columns: SELECT DISTINCT window_start, … FROM TUMBLE({first}, {time}, INTERVAL '1 hour')"
            );
            return Error::sql_at(message, self.grouping_at.or(self.at));
        }
        let what =
            if aggregate.group_expr.is_empty() { "an aggregate over everything" } else { "GROUP BY without a window" };
        let message = format!(
            "Aggregate: {what} is never final, and its state grows without bound; group by a window: \
             FROM TUMBLE({first}, {time}, INTERVAL '1 hour') GROUP BY window_start, or GROUP BY date_trunc('hour', {time})"
        );
        Error::sql_at(message, self.grouping_at.or(self.at))
    }

    fn names(&self, plan: &LogicalPlan) -> Vec<String> {
        let mut names: Vec<String> = vec![];
        for scan in shape::scans(plan) {
            if let LogicalPlan::TableScan(scan) = scan {
                let name = scan.table_name.table().to_string();
                if !names.contains(&name) {
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
        state.create_physical_plan(plan).await.map_err(|e| self.error(&e))
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
    fn sharded(&self, partial: AggregateExec, width: usize) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let shards = self.options.parallelism.max(1);
        let partial: Arc<dyn ExecutionPlan> = Arc::new(WindowPartialExec::of(&partial)?);
        if shards == 1 && partial.output_partitioning().partition_count() == 1 {
            return Ok(partial);
        }
        let schema = partial.schema();
        let keys =
            (0..width).map(|i| Arc::new(PhysicalColumn::new(schema.field(i).name(), i)) as Arc<dyn PhysicalExpr>);
        Ok(Arc::new(RepartitionExec::try_new(partial, Partitioning::Hash(keys.collect(), shards))?))
    }

    /// Plans what stands above the aggregate over the aggregate's output as the operator gives it.
    async fn finish(
        &self,
        plan: &LogicalPlan,
        aggregate: &Aggregate,
        grouping: &Grouping,
        spec: &WindowSpec,
    ) -> Result<Finish> {
        let above = || {
            let provider = provider_as_source(Arc::new(WindowsProvider::new(Arc::clone(&spec.output))));
            let windows = LogicalPlanBuilder::scan("windows", provider, None)?.build()?;
            let start = column(&windows, 0);
            let mut next_key = 1;
            let mut exprs = vec![];
            for i in 0..aggregate.schema.fields().len() {
                let value = match grouping.roles.get(i) {
                    Some(Role::Start(_)) => start.clone(),
                    Some(Role::End(form)) => start.clone() + lit(form.interval()),
                    Some(Role::Key) => {
                        next_key += 1;
                        column(&windows, next_key - 1)
                    }
                    None => column(&windows, grouping.columns.len() + i - grouping.roles.len()),
                };
                let (qualifier, field) = aggregate.schema.qualified_field(i);
                exprs.push(value.alias_qualified(qualifier.cloned(), field.name()));
            }
            let windows = LogicalPlanBuilder::from(windows).project(exprs)?.build()?;
            replace_aggregate(plan, windows)
        };
        let above = above().map_err(|e| self.error(&e))?;
        Ok(Finish { plan: self.physical(self.single, &above).await? })
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

/// How an aggregate is grouped.
struct Grouping {
    form: WindowForm,
    /// For each group expression of the query.
    roles: Vec<Role>,
    /// What is really grouped by, with names: the window's start, then the keys in the query's order.
    columns: Vec<(Expr, String)>,
}

/// What a group expression is to its aggregate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Start(WindowForm),
    End(WindowForm),
    Key,
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

/// The plan with its aggregate replaced.
fn replace_aggregate(plan: &LogicalPlan, with: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    match (plan, &plan.inputs()[..]) {
        (LogicalPlan::Aggregate(_), _) => Ok(with),
        (_, [input]) => {
            let input = replace_aggregate(input, with)?;
            plan.with_new_exprs(plan.expressions(), vec![input])
        }
        _ => Err(DataFusionError::Internal("what stands above an aggregate has one input".to_string())),
    }
}

/// Output columns that are group columns, and the one that is the window's start.
fn output_key(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    grouping: &Grouping,
) -> Result<(Vec<String>, Option<String>), DataFusionError> {
    let mut carriers = vec![];
    for i in 0..plan.schema().fields().len() {
        let traced = trace(&column(plan, i), plan)?;
        let [Traced { expr: Expr::Column(c), .. }] = &traced[..] else { continue };
        let group = aggregate.schema.maybe_index_of_column(c);
        if let Some(role) = group.and_then(|g| grouping.roles.get(g).map(|role| (g, *role))) {
            carriers.push((plan.schema().field(i).name().clone(), role));
        }
    }
    let start = carriers.iter().find(|(_, (_, role))| matches!(role, Role::Start(_))).map(|(name, _)| name.clone());
    if shape::multiplies(plan) {
        return Ok((vec![], start));
    }
    let mut seen = vec![];
    let mut key = vec![];
    for (name, (group, role)) in carriers {
        // One column stands for the window: its start, or its end where the start is not put out.
        let group = match role {
            Role::End(_) if start.is_some() => continue,
            Role::Start(_) | Role::End(_) => usize::MAX,
            Role::Key => group,
        };
        if !seen.contains(&group) {
            seen.push(group);
            key.push(name);
        }
    }
    Ok((key, start))
}

fn unique(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken: Vec<String> = vec![];
    for mut name in names {
        while taken.contains(&name) {
            name.push('_');
        }
        taken.push(name);
    }
    taken
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
