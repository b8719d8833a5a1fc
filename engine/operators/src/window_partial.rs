//! The partial half of a windowed aggregation: one worker's rows to partial states, window by window.
//!
//! DataFusion's partial aggregate would hash the pair (window, keys) of every row. Facts come roughly in time order, so a
//! batch holds one window or a few, each in long runs: rows are cut by window first, and within it only the keys are
//! hashed, in a small table of that window's own. Rows in no order at all are brought into window order by one counting
//! sort a batch, which costs about what the longer hash would have.
//!
//! When nearly every row is a group of its own, grouping here only doubles the work: after a probe the rest is turned
//! into states row by row, as DataFusion's partial aggregate does. When memory runs short, what is grouped so far is
//! emitted; the shards merge it anyway.
//!
//! Invariant: the states emitted, merged, are those of the input; neither order nor number of emitted batches matters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt};

use crate::codes::Codes;
use crate::groups::{Arguments, Groups, accumulators, key_schema};

/// Rows after which it is judged whether grouping is worth it.
const PROBE_ROWS: usize = 100_000;

/// Groups per row above which it is not, in tenths.
const PROBE_TENTHS: usize = 8;

/// Rows of a batch of states at most.
const EMIT_ROWS: usize = 32 * 1024;

/// All workers of a step together hold at most one part in so many of the memory: they can give way by emitting, while
/// the shards, which hold what is not final yet, cannot.
const SHARE: usize = 4;

/// Partial aggregation by window and keys.
#[derive(Clone, Debug)]
pub struct WindowPartialExec {
    input: Arc<dyn ExecutionPlan>,
    aggregation: Arc<Aggregation>,
    properties: Arc<PlanProperties>,
}

/// What is aggregated.
#[derive(Debug)]
struct Aggregation {
    /// Window start first.
    groups: Vec<Arc<dyn PhysicalExpr>>,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    schema: SchemaRef,
}

impl WindowPartialExec {
    /// Does what this partial aggregate of DataFusion's would do; its first group column is the window's start.
    pub fn of(aggregate: &AggregateExec) -> Result<Self> {
        let aggregation = Aggregation {
            groups: aggregate.group_expr().expr().iter().map(|(e, _)| Arc::clone(e)).collect(),
            aggregates: aggregate.aggr_expr().to_vec(),
            filters: aggregate.filter_expr().to_vec(),
            schema: aggregate.schema(),
        };
        Ok(Self::over(Arc::clone(aggregate.input()), Arc::new(aggregation)))
    }

    /// The same over an input in which some keys that are text come as dictionaries, see [`crate::codes`].
    pub fn with_coded(&self, input: Arc<dyn ExecutionPlan>) -> Self {
        Self::over(input, Arc::clone(&self.aggregation))
    }

    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The columns of the input that are keys besides the window, and nothing else.
    pub fn keys_alone(&self) -> BTreeSet<usize> {
        let Aggregation { groups, aggregates, filters, .. } = self.aggregation.as_ref();
        let arguments = aggregates.iter().flat_map(arguments);
        let others = arguments.chain(filters.iter().flatten().cloned()).chain(groups.first().cloned());
        let others: BTreeSet<usize> = others.flat_map(|e| collect_columns(&e)).map(|c| c.index()).collect();
        let keys = groups.iter().skip(1).filter_map(|key| Some(key.downcast_ref::<Column>()?.index()));
        keys.filter(|column| !others.contains(column)).collect()
    }

    fn over(input: Arc<dyn ExecutionPlan>, aggregation: Arc<Aggregation>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&aggregation.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        WindowPartialExec { input, aggregation, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WindowPartialExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.aggregation.groups.iter().map(|e| e.to_string()).collect();
        let aggregates: Vec<_> = self.aggregation.aggregates.iter().map(|a| a.name().to_string()).collect();
        write!(f, "WindowPartialExec: by=[{}], aggr=[{}]", groups.join(", "), aggregates.join(", "))
    }
}

impl ExecutionPlan for WindowPartialExec {
    fn name(&self) -> &str {
        "WindowPartialExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
            (Some(input), None) => Ok(Arc::new(Self::over(input, Arc::clone(&self.aggregation)))),
            _ => internal_err!("a partial aggregate has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let account = MemoryConsumer::new(format!("WindowPartialExec[{partition}]")).register(context.memory_pool());
        let workers = self.input.output_partitioning().partition_count().max(1);
        let share = match context.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) => limit / (SHARE * workers),
            _ => usize::MAX,
        };
        let worker = Worker::new(Arc::clone(&self.aggregation), &self.input.schema(), account, share)?;
        // Batches of the input, then the end; each yields states, mostly none until the end.
        let ended = futures::stream::once(std::future::ready(Ok(None)));
        let steps = input.map(|batch| batch.map(Some)).chain(ended);
        let states = steps.scan(worker, |worker, step: Result<Option<RecordBatch>>| {
            let states = step.and_then(|step| match step {
                Some(batch) => worker.push(&batch),
                None => worker.flush(),
            });
            std::future::ready(Some(states))
        });
        let states = states.map_ok(|batches| futures::stream::iter(batches.into_iter().map(Ok))).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), states)))
    }
}

/// One partition's work.
struct Worker {
    aggregation: Arc<Aggregation>,
    codes: Codes,
    /// By the window's start, in the column's own units.
    windows: BTreeMap<i64, Groups>,
    rows: usize,
    /// Set when grouping turned out not to be worth it: turns rows into states.
    rowwise: Option<Vec<Box<dyn GroupsAccumulator>>>,
    /// Whether it is still to be judged if grouping is worth it.
    probe: bool,
    account: MemoryReservation,
    /// Bytes beyond which the groups are emitted.
    share: usize,
}

impl Worker {
    fn new(aggregation: Arc<Aggregation>, input: &Schema, account: MemoryReservation, share: usize) -> Result<Self> {
        let fields = aggregation.schema.fields()[..aggregation.groups.len()].to_vec();
        let given = aggregation.groups[1..].iter().map(|key| key.data_type(input)).collect::<Result<Vec<_>>>()?;
        let codes = Codes::new(&given, key_schema(&fields));
        let probe = !given.is_empty();
        Ok(Worker { aggregation, codes, windows: BTreeMap::new(), rows: 0, rowwise: None, probe, account, share })
    }

    /// Takes a batch; what it returns may be emitted at once.
    fn push(&mut self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(vec![]);
        }
        let evaluate = |e: &Arc<dyn PhysicalExpr>| e.evaluate(batch)?.into_array(rows);
        let mut groups = self.aggregation.groups.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
        let arguments = self.arguments(batch)?;
        if let Some(rowwise) = &self.rowwise {
            self.codes.texts(&mut groups[1..])?;
            for (accumulator, of) in rowwise.iter().zip(&arguments) {
                groups.extend(accumulator.convert_to_state(&of.values, of.filter.as_ref())?);
            }
            return Ok(vec![self.states(groups, rows)?]);
        }
        let mut keys = groups.split_off(1);
        self.codes.encode(&mut keys)?;
        let starts = starts(&groups[0])?;
        let runs = runs(starts.values());
        if runs.len() <= 1 + rows / 64 {
            for (from, to) in runs {
                self.update(starts.value(from), &keys, &arguments, from, to - from)?;
            }
        } else {
            let (order, runs) = by_window(starts.values());
            let order = UInt32Array::from(order);
            let sorted = |array: &ArrayRef| Ok(take(array, &order, None)?);
            let keys = keys.iter().map(sorted).collect::<Result<Vec<_>>>()?;
            let arguments = arguments.iter().map(|of| of.sorted(&order)).collect::<Result<Vec<_>>>()?;
            for (start, from, to) in runs {
                self.update(start, &keys, &arguments, from, to - from)?;
            }
        }
        self.rows += rows;
        self.judge()
    }

    /// Feeds one window a stretch of rows.
    fn update(
        &mut self,
        start: i64,
        keys: &[ArrayRef],
        arguments: &[Arguments],
        from: usize,
        rows: usize,
    ) -> Result<()> {
        let groups = match self.windows.entry(start) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Groups::new(&self.aggregation.aggregates, self.codes.schema())?)
            }
        };
        let keys: Vec<_> = keys.iter().map(|k| k.slice(from, rows)).collect();
        let arguments: Vec<_> = arguments.iter().map(|of| of.slice(from, rows)).collect();
        groups.update(&keys, &arguments, rows)
    }

    fn arguments(&self, batch: &RecordBatch) -> Result<Vec<Arguments>> {
        let rows = batch.num_rows();
        let of = self.aggregation.aggregates.iter().zip(&self.aggregation.filters).map(|(aggregate, filter)| {
            let values = arguments(aggregate).into_iter().map(|e| e.evaluate(batch)?.into_array(rows));
            let filter = match filter {
                Some(filter) => Some(filter.evaluate(batch)?.into_array(rows)?.as_boolean().clone()),
                None => None,
            };
            Ok(Arguments { values: values.collect::<Result<_>>()?, filter })
        });
        of.collect()
    }

    /// Whether to go on grouping: not when memory is short, and not when there is a group a row.
    fn judge(&mut self) -> Result<Vec<RecordBatch>> {
        let bytes = self.windows.values().map(Groups::bytes).sum::<usize>() + self.codes.bytes();
        let short = bytes > self.share || self.codes.full() || self.account.try_resize(bytes).is_err();
        let mut vain = false;
        if self.probe && self.rows >= PROBE_ROWS {
            self.probe = false;
            let groups: usize = self.windows.values().map(Groups::len).sum();
            vain = groups * 10 > self.rows * PROBE_TENTHS;
            if vain {
                self.rowwise = Some(accumulators(&self.aggregation.aggregates)?);
            }
        }
        if short || vain { self.flush() } else { Ok(vec![]) }
    }

    /// Emits all groups.
    fn flush(&mut self) -> Result<Vec<RecordBatch>> {
        let mut out = vec![];
        let texts = self.codes.take();
        let keys = self.aggregation.groups.len() - 1;
        for (start, groups) in std::mem::take(&mut self.windows) {
            let rows = groups.len();
            let kind = self.aggregation.schema.field(0).data_type();
            let start = cast(&Int64Array::from_value(start, rows), kind)?;
            let mut columns = groups.into_states()?;
            texts.decode(&mut columns[..keys])?;
            columns.insert(0, start);
            let all = self.states(columns, rows)?;
            out.extend((0..rows).step_by(EMIT_ROWS).map(|at| all.slice(at, EMIT_ROWS.min(rows - at))));
        }
        self.account.free();
        Ok(out)
    }

    fn states(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.aggregation.schema), columns, &options)?)
    }
}

impl Arguments {
    fn slice(&self, from: usize, rows: usize) -> Arguments {
        let values = self.values.iter().map(|v| v.slice(from, rows)).collect();
        Arguments { values, filter: self.filter.as_ref().map(|f| f.slice(from, rows)) }
    }

    fn sorted(&self, order: &UInt32Array) -> Result<Arguments> {
        let values = self.values.iter().map(|v| Ok(take(v, order, None)?)).collect::<Result<_>>()?;
        let filter = match &self.filter {
            Some(filter) => Some(take(filter, order, None)?.as_boolean().clone()),
            None => None,
        };
        Ok(Arguments { values, filter })
    }
}

/// What an aggregate looks at. What it is ordered by comes after its arguments, as DataFusion's accumulators expect.
fn arguments(aggregate: &Arc<AggregateFunctionExpr>) -> Vec<Arc<dyn PhysicalExpr>> {
    let order = aggregate.order_bys().iter().map(|sort| Arc::clone(&sort.expr));
    aggregate.expressions().into_iter().chain(order).collect()
}

/// The window of each row, in the column's own units.
fn starts(column: &ArrayRef) -> Result<Int64Array> {
    if column.null_count() > 0 {
        return exec_err!(
            "a row without an event time came from a file whose statistics say it has none: the file's statistics are \
             wrong, rewrite it"
        );
    }
    if !matches!(column.data_type(), DataType::Timestamp(_, _)) {
        return internal_err!("a window start of type {}", column.data_type());
    }
    Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Stretches of equal values, as index ranges.
pub(crate) fn runs(values: &[i64]) -> Vec<(usize, usize)> {
    let mut runs = vec![];
    let mut from = 0;
    while from < values.len() {
        let first = values[from];
        let to = from + values[from..].iter().take_while(|v| **v == first).count();
        runs.push((from, to));
        from = to;
    }
    runs
}

/// A stable order of the rows by window, and each window's stretch in it.
fn by_window(starts: &[i64]) -> (Vec<u32>, Vec<(i64, usize, usize)>) {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for start in starts {
        *counts.entry(*start).or_default() += 1;
    }
    let mut stretches = vec![];
    let mut at = 0;
    for (start, count) in &mut counts {
        stretches.push((*start, at, at + *count));
        (*count, at) = (at, at + *count);
    }
    let mut order = vec![0; starts.len()];
    for (row, start) in starts.iter().enumerate() {
        if let Some(next) = counts.get_mut(start) {
            order[*next] = row as u32;
            *next += 1;
        }
    }
    (order, stretches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_ordered_by_window_and_stay_in_order_within() {
        let (order, stretches) = by_window(&[20, 10, 20, 30, 10]);
        assert_eq!(order, [1, 4, 0, 2, 3]);
        assert_eq!(stretches, [(10, 0, 2), (20, 2, 4), (30, 4, 5)]);
        assert_eq!(runs(&[1, 1, 2, 1]), [(0, 2), (2, 3), (3, 4)]);
        assert!(runs(&[]).is_empty());
    }
}
