//! One shard against DataFusion's batch answer, with random cuts, watermarks, checkpoints and restores.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::DiskManager;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use watershed_core::time::Span;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use watershed_core::operator::ChunkId;

use super::*;
use crate::spill::Spill;
use crate::window_form::WindowForm;
use crate::window_partial::WindowPartialExec;

const SQL: &str = "SELECT date_bin(INTERVAL '10 microseconds', ts) AS w, k, count(*) AS n, sum(v) AS total, \
                   count(DISTINCT v) AS kinds, median(v) AS middle, max(v) FILTER (WHERE v > 2) AS high FROM t GROUP BY 1, 2";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Float64, true),
    ]))
}

type Row = (i64, Option<i64>, Option<f64>);

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.2))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<AggregateExec>().is_some() {
        return Some(Arc::clone(plan));
    }
    plan.children().into_iter().find_map(find)
}

fn refit(plan: Arc<dyn ExecutionPlan>, children: Vec<Arc<dyn ExecutionPlan>>) -> Arc<dyn ExecutionPlan> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    plan.replace_children(children, options).unwrap()
}

/// An aggregate's output with both edges of the window in its first column's place.
fn with_edges(schema: &Schema) -> SchemaRef {
    let (first, rest) = schema.fields().split_first().unwrap();
    let edges = ["$start", "$end"].map(|name| Arc::new(Field::new(name, first.data_type().clone(), true)));
    Arc::new(Schema::new(edges.into_iter().chain(rest.iter().cloned()).collect::<Vec<_>>()))
}

struct Bench {
    context: SessionContext,
    template: AggregateExec,
    spec: Arc<WindowSpec>,
}

impl Bench {
    async fn new() -> Self {
        Bench::of(Windows::Single(WindowEnd::Fixed(Span(10)))).await
    }

    /// Of windows that are told by times rounded down to tens.
    async fn of(windows: Windows) -> Self {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        context.register_table("t", Arc::new(MemTable::try_new(schema(), vec![vec![]]).unwrap())).unwrap();
        let state = context.state();
        let plan = context.sql(SQL).await.unwrap().into_unoptimized_plan();
        let plan = state.query_planner().create_physical_plan(&state.optimize(&plan).unwrap(), &state).await.unwrap();
        let found = find(&plan).unwrap();
        let aggregate = found.downcast_ref::<AggregateExec>().unwrap();
        let template = AggregateExec::try_new(
            AggregateMode::Partial,
            Arc::new(aggregate.group_expr().clone()),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            Arc::clone(aggregate.input()),
            aggregate.input_schema(),
        )
        .unwrap();
        let spec = Arc::new(WindowSpec {
            name: "v".into(),
            windows,
            group_fields: template.schema().fields()[..2].to_vec(),
            aggregates: template.aggr_expr().to_vec(),
            partial: template.schema(),
            output: with_edges(&aggregate.schema()),
            from: None,
            below: vec![],
        });
        Bench { context, template, spec }
    }

    async fn partial(&self, rows: &[Row]) -> Vec<RecordBatch> {
        let leaf = MemorySourceConfig::try_new_exec(&[vec![batch(rows)]], schema(), None).unwrap();
        fn fill(plan: &Arc<dyn ExecutionPlan>, leaf: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
            if plan.children().is_empty() {
                return Arc::clone(leaf);
            }
            let children = plan.children().into_iter().map(|c| fill(c, leaf)).collect();
            refit(Arc::clone(plan), children)
        }
        let leaf: Arc<dyn ExecutionPlan> = leaf;
        let input = fill(self.template.input(), &leaf);
        let plan = refit(Arc::new(WindowPartialExec::of(&self.template).unwrap()), vec![input]);
        collect(plan, self.context.task_ctx()).await.unwrap()
    }

    /// What batch says of rows copied for each of their windows, for windows that end at or before the watermark; a row
    /// comes with the watermark at which it came, and is not in windows that ended by then.
    async fn oracle(&self, rows: &[(Row, i64)], watermark: i64) -> Vec<String> {
        let copies = rows.iter().flat_map(|((t, k, v), before)| {
            let windows = windows_of(self.spec.windows, *t).into_iter();
            windows.filter(|(_, end)| *end > *before && *end <= watermark).map(|(s, e)| (s, e, *k, *v))
        });
        let copies: Vec<_> = copies.collect();
        let times = |times: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times)) };
        let table = RecordBatch::try_from_iter_with_nullable([
            ("s", times(copies.iter().map(|c| c.0).collect()), true),
            ("e", times(copies.iter().map(|c| c.1).collect()), true),
            ("k", Arc::new(Int64Array::from_iter(copies.iter().map(|c| c.2))), true),
            ("v", Arc::new(Float64Array::from_iter(copies.iter().map(|c| c.3))), true),
        ])
        .unwrap();
        let context = SessionContext::new();
        context.register_batch("t", table).unwrap();
        let sql = "SELECT s, e, k, count(*) AS n, sum(v) AS total, count(DISTINCT v) AS kinds, median(v) AS middle, \
                   max(v) FILTER (WHERE v > 2) AS high FROM t GROUP BY 1, 2, 3";
        lines(&context.sql(sql).await.unwrap().collect().await.unwrap())
    }

    fn shard(&self) -> Box<dyn Operator> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        window_operator(Arc::clone(&self.spec), MemoryConsumer::new("test").register(&pool))
    }

    /// A shard that may hold so much and puts the rest aside.
    fn squeezed(&self, least: usize, disk: &Arc<DiskManager>) -> Box<dyn Operator> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1));
        let reservation = MemoryConsumer::new("test").register(&pool);
        let spill = Some(Spill { disk: Arc::clone(disk), least });
        window_operator(Arc::clone(&self.spec), StateAccount { reservation, spill })
    }
}

/// A time's windows, written down one by one.
fn windows_of(windows: Windows, t: i64) -> Vec<(i64, i64)> {
    let floor = |by: i64| t.div_euclid(by) * by;
    match windows {
        Windows::Paned(WindowForm::Hop { slide, size, .. }) => {
            let starts = (0..size.0 / slide.0).map(|i| floor(slide.0) - i * slide.0);
            starts.map(|start| (start, start + size.0)).collect()
        }
        Windows::Paned(WindowForm::Cumulate { step, size, .. }) => {
            let start = floor(size.0);
            let ends = (1..=size.0 / step.0).map(|i| start + i * step.0);
            ends.filter(|end| t < *end).map(|end| (start, end)).collect()
        }
        _ => vec![(floor(10), floor(10) + 10)],
    }
}

fn forms() -> impl Strategy<Value = Windows> {
    let (unit, origin) = (Span(10), EventTime(0));
    (0..3u8, 1..9i64).prop_map(move |(kind, times)| match kind {
        0 => Windows::Single(WindowEnd::Fixed(unit)),
        1 => Windows::Paned(WindowForm::Hop { slide: unit, size: Span(10 * times), origin }),
        _ => Windows::Paned(WindowForm::Cumulate { step: unit, size: Span(10 * times), origin }),
    })
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let Some(first) = batches.first() else { return vec![] };
    let all = concat_batches(&first.schema(), batches).unwrap();
    let text = pretty_format_batches(&[all]).unwrap().to_string();
    let cells = |l: &str| l.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    let mut lines: Vec<_> = text.lines().skip(3).map(cells).filter(|l| !l.starts_with('+')).collect();
    lines.sort();
    lines
}

fn disk(limit: u64) -> Arc<DiskManager> {
    Arc::new(DiskManagerBuilder::default().with_max_temp_directory_size(limit).build().unwrap())
}

/// All that a watermark makes final.
fn advance(shard: &mut Box<dyn Operator>, before: i64, watermark: EventTime) -> Vec<RecordBatch> {
    let mut out = shard.advance(EventTime(before), watermark).unwrap();
    while let Some(more) = shard.more().unwrap() {
        out.extend(more);
    }
    out.into_iter().map(|c| c.rows).collect()
}

fn row() -> impl Strategy<Value = Row> {
    (0..60i64, prop::option::of(0..4i64), prop::option::of((0..5i64).prop_map(|v| v as f64)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However rows are cut, checkpointed and restored, what is emitted is what batch says, window by window, once; a row that
    /// comes too late for some of its windows is in the others.
    #[test]
    fn equals_batch(
        windows in forms(),
        steps in prop::collection::vec((prop::collection::vec(row(), 0..40), 0..140i64, 0..4u8), 1..12),
        // Memory so short that state goes to disk; not for windows that overlap, whose panes are held to emit them.
        short in any::<bool>(),
    ) {
        let (disk, short) = (disk(1 << 30), short && matches!(windows, Windows::Single(_)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::of(windows).await;
            let fresh = || if short { bench.squeezed(96 << 10, &disk) } else { bench.shard() };
            let (mut shard, mut stored, mut watermark) = (fresh(), vec![], i64::MIN);
            let (mut used, mut emitted): (Vec<(Row, i64)>, Vec<RecordBatch>) = (vec![], vec![]);
            for (rows, next, action) in steps {
                let open = |r: &Row| windows_of(windows, r.0).iter().any(|(_, end)| *end > watermark);
                let rows: Vec<Row> = rows.into_iter().filter(open).collect();
                for partial in bench.partial(&rows).await {
                    shard.push(ChangeBatch::inserts(partial)).unwrap();
                }
                used.extend(rows.into_iter().map(|row| (row, watermark)));
                let before = watermark;
                watermark = watermark.max(next);
                emitted.extend(advance(&mut shard, before, EventTime(watermark)));
                if action > 0 {
                    let snapshot = shard.checkpoint().unwrap();
                    let kept: Vec<(ChunkId, RecordBatch)> =
                        stored.into_iter().filter(|(id, _)| snapshot.kept.contains(id)).collect();
                    prop_assert_eq!(kept.len(), snapshot.kept.len());
                    stored = kept;
                    stored.extend(snapshot.fresh);
                    stored.extend(snapshot.aside.into_iter().map(|(id, chunk)| (id, chunk.load().unwrap())));
                    let again = shard.checkpoint().unwrap();
                    prop_assert!(again.fresh.is_empty() && again.aside.is_empty(), "nothing came in between");
                }
                if action == 2 {
                    shard = fresh();
                    for (id, chunk) in &stored {
                        shard.restore(Some(*id), chunk.clone()).unwrap();
                    }
                }
            }
            prop_assert_eq!(lines(&emitted), bench.oracle(&used, watermark).await);
            emitted.extend(advance(&mut shard, watermark, EventTime::MAX));
            prop_assert_eq!(lines(&emitted), bench.oracle(&used, i64::MAX).await);
            prop_assert_eq!(shard.size(), StateSize::default());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_window_is_the_only_key() {
    let bench = Bench::new().await;
    let fields: Vec<_> =
        bench.spec.partial.fields().iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.clone()).collect();
    let output: Vec<_> =
        bench.spec.output.fields().iter().enumerate().filter(|(i, _)| *i != 2).map(|(_, f)| f.clone()).collect();
    let spec = WindowSpec {
        name: "v".into(),
        windows: bench.spec.windows,
        group_fields: bench.spec.group_fields[..1].to_vec(),
        aggregates: bench.spec.aggregates.clone(),
        partial: Arc::new(Schema::new(fields)),
        output: Arc::new(Schema::new(output)),
        from: Some(EventTime(10)),
        below: vec![],
    };
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let mut shard = window_operator(Arc::new(spec), MemoryConsumer::new("test").register(&pool));
    for partial in bench.partial(&[(3, None, Some(1.0)), (11, Some(1), Some(3.0)), (15, Some(2), Some(4.0))]).await {
        let columns: Vec<usize> = (0..partial.num_columns()).filter(|i| *i != 1).collect();
        shard.push(ChangeBatch::inserts(partial.project(&columns).unwrap())).unwrap();
    }
    let rows: Vec<_> = shard.advance(EventTime::MIN, EventTime(20)).unwrap().into_iter().map(|c| c.rows).collect();
    assert_eq!(lines(&rows).len(), 1, "the window before `from` is not emitted, the other has one row: {rows:?}");
    assert!(lines(&rows)[0].contains("|2|7.0|2|3.5|4.0|"), "{rows:?}");
}

/// A group a row: after its probe the partial half turns rows into states one by one.
#[tokio::test]
async fn a_group_a_row_equals_batch() {
    let bench = Bench::new().await;
    let rows: Vec<Row> = (0..250_000i64).map(|i| (i % 37, Some(i * 7919 % 200_000), Some((i % 11) as f64))).collect();
    let partial = bench.partial(&rows).await;
    let states: usize = partial.iter().map(RecordBatch::num_rows).sum();
    assert!(states > 200_000, "grouping went on all the same: {states}");
    let mut shard = bench.shard();
    partial.into_iter().try_for_each(|p| shard.push(ChangeBatch::inserts(p))).unwrap();
    let first = shard.advance(EventTime::MIN, EventTime::MAX).unwrap();
    let mut found: Vec<_> = first.into_iter().map(|c| c.rows).collect();
    // All windows close at once, and come in parts.
    while let Some(more) = shard.more().unwrap() {
        found.extend(more.into_iter().map(|c| c.rows));
    }
    let rows: Vec<_> = rows.into_iter().map(|row| (row, i64::MIN)).collect();
    assert!(lines(&found) == bench.oracle(&rows, 1000).await, "the answers differ");
}

#[tokio::test]
async fn memory_has_a_limit_that_names_the_view() {
    let bench = Bench::new().await;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100 * 1024));
    let mut shard = window_operator(Arc::clone(&bench.spec), MemoryConsumer::new("test").register(&pool));
    let rows: Vec<Row> = (0..20_000).map(|i| (i % 50, Some(i), Some(i as f64))).collect();
    let pushed = bench.partial(&rows).await.into_iter().try_for_each(|p| shard.push(ChangeBatch::inserts(p)));
    let error = pushed.unwrap_err();
    assert!(matches!(error, Error::Resources(_)), "{error:?}");
    assert!(error.to_string().contains("view v") && error.to_string().contains("groups"), "{error}");
}

/// Rows of a group each, in five windows.
fn many(rows: i64) -> Vec<Row> {
    (0..rows).map(|i| (i % 50, Some(i / 2), Some((i % 13) as f64))).collect()
}

#[tokio::test]
async fn what_does_not_fit_goes_to_disk_and_comes_back() {
    let bench = Bench::new().await;
    let disk = disk(1 << 30);
    let mut shard = bench.squeezed(1 << 20, &disk);
    let rows = many(60_000);
    let mut most = 0;
    for rows in rows.chunks(10_000) {
        for partial in bench.partial(rows).await {
            shard.push(ChangeBatch::inserts(partial)).unwrap();
            let size = shard.size();
            // The account is brought up to date now and then only.
            assert!(size.bytes <= (1 << 20) + (64 << 10), "{size:?}");
            most = most.max(size.spilled);
        }
    }
    assert!(most > 1 << 20 && disk.used_disk_space() > 0, "{most}");
    // A checkpoint has it all, and another shard goes on from that.
    let snapshot = shard.checkpoint().unwrap();
    assert!(!snapshot.aside.is_empty());
    let mut other = bench.squeezed(1 << 20, &disk);
    for (id, chunk) in snapshot.fresh {
        other.restore(Some(id), chunk).unwrap();
    }
    for (id, chunk) in snapshot.aside {
        other.restore(Some(id), chunk.load().unwrap()).unwrap();
    }
    let expected = bench.oracle(&rows.into_iter().map(|row| (row, i64::MIN)).collect::<Vec<_>>(), 1000).await;
    for mut shard in [shard, other] {
        let first = shard.advance(EventTime::MIN, EventTime::MAX).unwrap();
        assert!(shard.size().windows > 0, "it was emitted at once");
        let mut found: Vec<_> = first.into_iter().map(|c| c.rows).collect();
        while let Some(more) = shard.more().unwrap() {
            found.extend(more.into_iter().map(|c| c.rows));
        }
        assert!(lines(&found) == expected, "the answers differ");
        assert_eq!(shard.size(), StateSize::default());
    }
    assert_eq!(disk.used_disk_space(), 0);
}

#[tokio::test]
async fn the_disk_has_a_limit_that_is_told() {
    let bench = Bench::new().await;
    let mut shard = bench.squeezed(256 << 10, &disk(10_000));
    let pushed = bench.partial(&many(60_000)).await.into_iter().try_for_each(|p| shard.push(ChangeBatch::inserts(p)));
    let error = pushed.unwrap_err();
    assert!(matches!(error, Error::Resources(_)), "{error:?}");
    assert!(error.to_string().contains("view v") && error.to_string().contains("disk_limit (10000)"), "{error}");
}
