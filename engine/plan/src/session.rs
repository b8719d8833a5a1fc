//! The planner: names, and the way from a query to a streaming graph or to a batch answer.
//!
//! Two catalogs stand side by side. In the streaming one a name is a source, a hole in a plan, or a table to join it with; in
//! the batch one all are tables with files. Views and window table functions are rewritten in the query's syntax before either sees it, so both
//! plan the same text. The streaming one leaves out the optimiser's rules that take a source out of the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::DateTime;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast;
use watershed_core::error::{Error, Place, Result};
use watershed_core::history::Layout;
use watershed_core::scan::ScanFile;
use watershed_core::time::{EventTime, Span};

use crate::joins::StreamToTheRight;
use crate::lower::{LowerOptions, Lowered, Lowering};
use crate::scan::{engine_error, table_schema};
use crate::shape;
use crate::sql::place::{place, planning_error};
use crate::sql::window_tables::{Found, Mode};
use crate::sql::{header, refuse, views, window_functions, window_tables};
use crate::tables::{SourceProvider, files_table};
use crate::ties;

/// Rules that may optimise a source out of the plan, which the runtime has to follow all the same. Those that rewrite
/// aggregates need not be named: an aggregate never meets the optimiser.
const LEFT_OUT: [&str; 3] = ["propagate_empty_relation", "eliminate_filter", "eliminate_join"];

/// The physical rule that chooses the sides of joins.
const SIDES: &str = "join_selection";

/// A source as the planner knows it.
#[derive(Clone, Debug)]
pub struct SourceTable {
    pub name: String,
    pub layout: Layout,
    /// The column that the watermark speaks of.
    pub time_column: String,
    pub delay: Span,
}

/// Plans queries. Sources, tables and views are added first, in any order but that a view comes after what it reads.
pub struct Planner {
    streaming: SessionContext,
    batch: SessionContext,
    sources: BTreeMap<String, SourceTable>,
    /// Tables that streaming queries may join.
    dimensions: Vec<String>,
    tables: Vec<String>,
    /// Views, rewritten for either mode.
    views: BTreeMap<String, ViewQueries>,
}

#[derive(Clone)]
struct ViewQueries {
    panes: (ast::Query, Found),
    copies: (ast::Query, Found),
}

impl Planner {
    /// A planner for `parallelism` workers, over the runtime's object stores, memory pool and caches.
    pub fn new(runtime: Arc<RuntimeEnv>, parallelism: usize) -> Result<Planner> {
        let batch = state(&runtime, parallelism, SessionStateBuilder::new());
        let left_out = |rule: &Arc<dyn OptimizerRule + Send + Sync>| LEFT_OUT.contains(&rule.name());
        let (gone, rules): (Vec<_>, Vec<_>) = Optimizer::new().rules.into_iter().partition(left_out);
        if gone.len() != LEFT_OUT.len() {
            let found: Vec<_> = gone.iter().map(|rule| rule.name()).collect();
            return Err(Error::bug(format!("the optimiser has only these of the rules to leave out: {found:?}")));
        }
        let mut physical = PhysicalOptimizer::new().rules;
        let Some(sides) = physical.iter_mut().find(|rule| rule.name() == SIDES) else {
            return Err(Error::bug(format!("the optimiser has no rule {SIDES} to replace")));
        };
        *sides = Arc::new(StreamToTheRight);
        let builder = SessionStateBuilder::new().with_optimizer_rules(rules).with_physical_optimizer_rules(physical);
        let mut streaming = state(&runtime, parallelism, builder);
        let optimizer = &mut streaming.config_mut().options_mut().optimizer;
        // The table's side is collected whatever its size, and nothing that a join learns reaches scans that are still holes.
        optimizer.repartition_joins = false;
        optimizer.enable_dynamic_filter_pushdown = false;
        optimizer.enable_join_dynamic_filter_pushdown = false;
        let (mut streaming, mut batch) =
            (SessionContext::new_with_state(streaming), SessionContext::new_with_state(batch));
        for context in [&mut streaming, &mut batch] {
            datafusion_functions_json::register_all(context)
                .map_err(|e| Error::bug(format!("JSON functions cannot be registered: {e}")))?;
            window_functions::functions().for_each(|function| context.register_udf(function));
            context.register_udf(header::function());
        }
        Ok(Planner {
            streaming,
            batch,
            sources: BTreeMap::new(),
            dimensions: vec![],
            tables: vec![],
            views: BTreeMap::new(),
        })
    }

    /// Makes a function known to streaming and batch queries. It may not take the place of another one: a view's meaning would
    /// depend on who runs it.
    pub fn add_function(&mut self, function: ScalarUDF) -> Result<()> {
        let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
        let state = self.batch.state();
        let taken = |name: &str| {
            let scalar = state.scalar_functions().contains_key(name);
            scalar || state.aggregate_functions().contains_key(name) || state.window_functions().contains_key(name)
        };
        if let Some(name) = names.into_iter().find(|name| taken(name)) {
            let message = format!("function {name}: there is one of this name already; give yours another name");
            return Err(Error::input(message));
        }
        self.streaming.register_udf(function.clone());
        self.batch.register_udf(function);
        Ok(())
    }

    /// Makes a source known to streaming queries; its event time must be a timestamp.
    pub fn add_source(&mut self, source: SourceTable) -> Result<()> {
        let SourceTable { name, layout, time_column, .. } = &source;
        let schema = table_schema(layout);
        let Ok(field) = schema.field_with_name(time_column) else {
            let columns: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let message = format!(
                "source {name}: {} has no column {time_column} for the watermark; it has {}",
                layout.location,
                columns.join(", ")
            );
            return Err(Error::input(message));
        };
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            let message = format!(
                "source {name}: {time_column} is of type {}, but a watermark speaks of a TIMESTAMP: name another column \
                 in WATERMARK FOR",
                field.data_type()
            );
            return Err(Error::input(message));
        }
        let provider = SourceProvider::new(name.clone(), layout.clone());
        register(&self.streaming, name, Arc::new(provider))?;
        self.sources.insert(name.clone(), source);
        Ok(())
    }

    /// Makes a plain view known, to streaming and batch queries alike.
    pub fn add_view(&mut self, name: &str, query: ast::Query) -> Result<()> {
        let names = self.all_names();
        let panes = self.rewrite(query.clone(), &names, Mode::Panes)?;
        let copies = self.rewrite(query, &names, Mode::Copies)?;
        self.views.insert(name.to_string(), ViewQueries { panes, copies });
        Ok(())
    }

    /// Makes a table known to streaming queries, which may join sources with it.
    pub fn add_dimension(&mut self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        register(&self.streaming, name, table)?;
        if !self.dimensions.iter().any(|known| known == name) {
            self.dimensions.push(name.to_string());
        }
        Ok(())
    }

    /// Makes a table known to batch queries: these files are what it holds.
    pub fn add_table(&mut self, name: &str, layout: Layout, files: Vec<ScanFile>) -> Result<()> {
        self.add_table_provider(name, files_table(layout, files))
    }

    /// Makes a table of whatever kind known to batch queries.
    pub fn add_table_provider(&mut self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        register(&self.batch, name, table)?;
        if !self.tables.iter().any(|known| known == name) {
            self.tables.push(name.to_string());
        }
        Ok(())
    }

    /// Lowers a query to a streaming graph, or says what of it cannot be made incremental.
    pub async fn lower(&self, query: &ast::Query, options: &LowerOptions) -> Result<Lowered> {
        let at = place(query);
        let is_source = |name: &str| self.sources.contains_key(name);
        let state = as_of(with_parallelism(self.streaming.state(), options.parallelism), options.made);
        let single = as_of(with_parallelism(self.streaming.state(), 1), options.made);
        let mut planned = self.analysed(&state, query, Mode::Panes).await?;
        let places = shape::Places { query: at, join: planned.join_at };
        if planned.found.overlapping && shape::aggregates(&planned.plan, &is_source, places)?.is_empty() {
            // Without an aggregate there is nothing to share: each row is put out once a window.
            planned = self.analysed(&state, query, Mode::Copies).await?;
        }
        let Analysed { plan, grouping_at, join_at, found } = planned;
        let sources = &self.sources;
        let window_at = found.first;
        let lowering =
            Lowering { state: &state, single: &single, sources, options, at, grouping_at, join_at, window_at };
        lowering.lower(&plan).await
    }

    /// A streaming query's logical plan, once everything that may not stand in it has been refused.
    async fn analysed(&self, state: &SessionState, query: &ast::Query, mode: Mode) -> Result<Analysed> {
        let names: Vec<String> = self.sources.keys().chain(&self.dimensions).cloned().collect();
        let is_source = |name: &str| self.sources.contains_key(name);
        let at = place(query);
        let (query, found) = self.rewrite(query.clone(), &names, mode)?;
        refuse::check(&query, &self.dimensions)?;
        let grouping_at = refuse::grouping_place(&query);
        let join_at = refuse::join_place(&query);
        let plan = logical(state, query, at).await?;
        // Before constants are folded: now() is one then.
        shape::check_expressions(&plan, &is_source, at)?;
        let plan = analysed(state, plan).map_err(|e| planning_error(&e, at))?;
        shape::check_subqueries(&plan, &is_source, at)?;
        Ok(Analysed { plan, grouping_at, join_at, found })
    }

    /// The query as an ordinary batch query over the tables.
    pub async fn batch(&self, query: &ast::Query) -> Result<DataFrame> {
        let at = place(query);
        let (query, _) = self.rewrite(query.clone(), &self.tables, Mode::Copies)?;
        let state = self.batch.state();
        let plan = logical(&state, query, at).await?;
        Ok(DataFrame::new(state, plan))
    }

    /// The same, with `now()` as a view that was made at that time has it.
    pub async fn batch_as_of(&self, query: &ast::Query, made: EventTime) -> Result<DataFrame> {
        let at = place(query);
        let (query, _) = self.rewrite(query.clone(), &self.tables, Mode::Copies)?;
        let state = as_of(self.batch.state(), made);
        let plan = logical(&state, query, at).await?;
        Ok(DataFrame::new(state, plan))
    }

    /// What plans of this planner are run with.
    pub fn task_context(&self) -> Arc<TaskContext> {
        self.streaming.task_ctx()
    }

    fn all_names(&self) -> Vec<String> {
        self.sources.keys().chain(&self.dimensions).chain(&self.tables).cloned().collect()
    }

    fn rewrite(&self, mut query: ast::Query, names: &[String], mode: Mode) -> Result<(ast::Query, Found)> {
        let mut found = window_tables::rewrite(&mut query, mode)?;
        let views = self.views.iter().map(|(name, view)| {
            let (query, _) = if mode == Mode::Panes { &view.panes } else { &view.copies };
            (name.clone(), query.clone())
        });
        for name in views::expand(&mut query, &views.collect(), names)? {
            let inner = self.views.get(&name).map_or(Found::default(), |view| view.panes.1);
            found.first = found.first.or(inner.first);
            found.overlapping |= inner.overlapping;
        }
        Ok((query, found))
    }
}

/// A streaming query, planned and analysed.
struct Analysed {
    plan: LogicalPlan,
    grouping_at: Option<Place>,
    join_at: Option<Place>,
    found: Found,
}

fn register(context: &SessionContext, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
    let reference = datafusion::common::TableReference::bare(name.to_string());
    let deregistered = context.deregister_table(reference.clone());
    deregistered.and_then(|_| context.register_table(reference, provider)).map_err(engine_error)?;
    Ok(())
}

/// Bytes that a sort holds back where there is memory enough: DataFusion's default.
const SORT_RESERVE: usize = 10 << 20;

fn state(runtime: &Arc<RuntimeEnv>, parallelism: usize, builder: SessionStateBuilder) -> SessionState {
    // What a sort holds back for merging must leave room for something to sort.
    let held_back = match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(limit) => SORT_RESERVE.min(limit / (16 * parallelism.max(1))),
        _ => SORT_RESERVE,
    };
    let config = SessionConfig::new()
        .with_sort_spill_reservation_bytes(held_back)
        .with_target_partitions(parallelism.max(1))
        .with_round_robin_repartition(false)
        .set_bool("datafusion.sql_parser.collect_spans", true);
    builder.with_config(config).with_runtime_env(Arc::clone(runtime)).with_default_features().build()
}

fn with_parallelism(mut state: SessionState, parallelism: usize) -> SessionState {
    state.config_mut().options_mut().execution.target_partitions = parallelism.max(1);
    state
}

/// What `now()` says.
fn as_of(mut state: SessionState, now: EventTime) -> SessionState {
    state.execution_props_mut().query_execution_start_time = DateTime::from_timestamp_micros(now.0);
    state
}

async fn logical(state: &SessionState, query: ast::Query, at: Option<Place>) -> Result<LogicalPlan> {
    let statement = EngineStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
    let plan = state.statement_to_plan(statement).await.and_then(ties::broken);
    plan.map_err(|e| planning_error(&e, at))
}

/// Types settled, constants folded, DISTINCT made GROUP BY, IN and EXISTS made joins, filters as far down as they go; the
/// plan's shape is still the query's.
fn analysed(state: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let plan = state.analyzer().execute_and_check(plan, &state.config_options().clone(), |_, _| {})?;
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(PushDownFilter::new()),
    ];
    Optimizer::with_rules(rules).optimize(plan, state, |_, _| {})
}
