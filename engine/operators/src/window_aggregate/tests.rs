//! One shard against DataFusion's batch answer, with random cuts, watermarks, checkpoints and restores.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use watershed_core::time::Span;

use super::*;
use crate::window_partial::WindowPartialExec;
use crate::window_spec::WindowEnd;

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

struct Bench {
    context: SessionContext,
    template: AggregateExec,
    spec: Arc<WindowSpec>,
}

impl Bench {
    async fn new() -> Self {
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
            end: WindowEnd::Fixed(Span(10)),
            group_fields: template.schema().fields()[..2].to_vec(),
            aggregates: template.aggr_expr().to_vec(),
            partial: template.schema(),
            output: aggregate.schema(),
            from: None,
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

    /// What batch says, for windows that end at or before the watermark.
    async fn oracle(&self, rows: &[Row], watermark: i64) -> Vec<String> {
        let context = SessionContext::new();
        context.register_table("t", Arc::new(MemTable::try_new(schema(), vec![vec![batch(rows)]]).unwrap())).unwrap();
        let sql = format!("SELECT * FROM ({SQL}) WHERE arrow_cast(w, 'Int64') + 10 <= {watermark}");
        lines(&context.sql(&sql).await.unwrap().collect().await.unwrap())
    }

    fn shard(&self) -> WindowAggregate {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        WindowAggregate::new(Arc::clone(&self.spec), MemoryConsumer::new("test").register(&pool))
    }
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

fn row() -> impl Strategy<Value = Row> {
    (0..60i64, prop::option::of(0..4i64), prop::option::of((0..5i64).prop_map(|v| v as f64)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However rows are cut, checkpointed and restored, what is emitted is what batch says, window by window, once.
    #[test]
    fn equals_batch(
        steps in prop::collection::vec((prop::collection::vec(row(), 0..40), 0..70i64, 0..4u8), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new().await;
            let (mut shard, mut stored, mut watermark) = (bench.shard(), vec![], i64::MIN);
            let (mut used, mut emitted): (Vec<Row>, Vec<RecordBatch>) = (vec![], vec![]);
            for (rows, next, action) in steps {
                let rows: Vec<Row> = rows.into_iter().filter(|r| r.0.div_euclid(10) * 10 + 10 > watermark).collect();
                for partial in bench.partial(&rows).await {
                    shard.push(ChangeBatch::inserts(partial)).unwrap();
                }
                used.extend(rows);
                watermark = watermark.max(next);
                emitted.extend(shard.advance(EventTime(watermark)).unwrap().into_iter().map(|c| c.rows));
                if action > 0 {
                    let snapshot = shard.checkpoint().unwrap();
                    let kept: Vec<(ChunkId, RecordBatch)> =
                        stored.into_iter().filter(|(id, _)| snapshot.kept.contains(id)).collect();
                    prop_assert_eq!(kept.len(), snapshot.kept.len());
                    stored = kept;
                    stored.extend(snapshot.fresh);
                    prop_assert!(shard.checkpoint().unwrap().fresh.is_empty(), "nothing came in between");
                }
                if action == 2 {
                    shard = bench.shard();
                    for (id, chunk) in &stored {
                        shard.restore(Some(*id), chunk.clone()).unwrap();
                    }
                }
            }
            prop_assert_eq!(lines(&emitted), bench.oracle(&used, watermark).await);
            shard.advance(EventTime::MAX).unwrap();
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
        bench.spec.output.fields().iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, f)| f.clone()).collect();
    let spec = WindowSpec {
        name: "v".into(),
        end: bench.spec.end,
        group_fields: bench.spec.group_fields[..1].to_vec(),
        aggregates: bench.spec.aggregates.clone(),
        partial: Arc::new(Schema::new(fields)),
        output: Arc::new(Schema::new(output)),
        from: Some(EventTime(10)),
    };
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let mut shard = WindowAggregate::new(Arc::new(spec), MemoryConsumer::new("test").register(&pool));
    for partial in bench.partial(&[(3, None, Some(1.0)), (11, Some(1), Some(3.0)), (15, Some(2), Some(4.0))]).await {
        let columns: Vec<usize> = (0..partial.num_columns()).filter(|i| *i != 1).collect();
        shard.push(ChangeBatch::inserts(partial.project(&columns).unwrap())).unwrap();
    }
    let rows: Vec<_> = shard.advance(EventTime(20)).unwrap().into_iter().map(|c| c.rows).collect();
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
    let found: Vec<_> = shard.advance(EventTime::MAX).unwrap().into_iter().map(|c| c.rows).collect();
    assert!(lines(&found) == bench.oracle(&rows, 1000).await, "the answers differ");
}

#[tokio::test]
async fn memory_has_a_limit_that_names_the_view() {
    let bench = Bench::new().await;
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100 * 1024));
    let mut shard = WindowAggregate::new(Arc::clone(&bench.spec), MemoryConsumer::new("test").register(&pool));
    let rows: Vec<Row> = (0..20_000).map(|i| (i % 50, Some(i), Some(i as f64))).collect();
    let pushed = bench.partial(&rows).await.into_iter().try_for_each(|p| shard.push(ChangeBatch::inserts(p)));
    let error = pushed.unwrap_err();
    assert!(matches!(error, Error::Resources(_)), "{error:?}");
    assert!(error.to_string().contains("view v") && error.to_string().contains("groups"), "{error}");
}

#[test]
fn months_end_where_the_calendar_says() {
    let at = |text: &str| EventTime(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros());
    assert_eq!(WindowEnd::Months(1).of(at("2024-02-01T00:00:00Z")), at("2024-03-01T00:00:00Z"));
    assert_eq!(WindowEnd::Months(12).of(at("2024-01-01T00:00:00Z")), at("2025-01-01T00:00:00Z"));
    assert_eq!(WindowEnd::Fixed(Span::DAY).of(at("2024-02-29T00:00:00Z")), at("2024-03-01T00:00:00Z"));
}
