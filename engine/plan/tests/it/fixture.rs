//! Small Parquet tables in a folder of their own, and a planner that knows them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect_partitioned};
use watershed_core::history::{DataFile, Layout, Times};
use watershed_core::scan::{ScanFile, ScanInput};
use watershed_core::time::{EventTime, Grain, Span};
use watershed_core::{Error, Result};
use watershed_plan::{LowerOptions, Lowered, Planner, Query, SourceTable, Statement, parse};

/// Rows of `flights`, an hour apart, over these days of January 2024.
pub(crate) const DAYS: i64 = 3;
pub(crate) const ROWS_A_DAY: i64 = 24;

pub(crate) struct Fixture {
    pub(crate) planner: Planner,
    /// Each day's file.
    pub(crate) files: Vec<ScanFile>,
    pub(crate) folder: tempfile::TempDir,
}

/// Two tables of the same files: `flights` with time `date`, and `arrivals`, the same with time `arrival`. Partitioned by
/// `day`; row groups of five rows.
pub(crate) fn fixture() -> Fixture {
    fixture_with(2)
}

pub(crate) fn fixture_with(parallelism: usize) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<_> = (0..DAYS).map(|day| write_day(folder.path(), day)).collect();
    let layout = layout(folder.path());
    let mut planner = Planner::new(Arc::new(RuntimeEnv::default()), parallelism).unwrap();
    for (name, time) in [("flights", "date"), ("arrivals", "arrival")] {
        let source =
            SourceTable { name: name.into(), layout: layout.clone(), time_column: time.into(), delay: Span::MINUTE };
        planner.add_source(source).unwrap();
        planner.add_table(name, layout.clone(), files.clone()).unwrap();
    }
    Fixture { planner, files, folder }
}

pub(crate) fn layout(folder: &Path) -> Layout {
    Layout {
        location: folder.display().to_string(),
        store: "file:///".into(),
        file_schema: file_schema(),
        partition_columns: vec![Arc::new(Field::new("day", DataType::Date32, true))],
        time_partition: Some(("day".into(), Grain::Day)),
        stored: None,
        inferred: false,
        text: None,
    }
}

fn file_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("date", time.clone(), true),
        Field::new("arrival", time, true),
        Field::new("origin", DataType::Utf8, true),
        Field::new("delay", DataType::Int64, true),
        Field::new("distance", DataType::Float64, true),
    ]))
}

/// Midnight of a day of January 2024, from 0.
pub(crate) fn midnight(day: i64) -> EventTime {
    EventTime(DateTime::parse_from_rfc3339("2024-01-01T00:00:00Z").unwrap().timestamp_micros() + day * Span::DAY.0)
}

fn write_day(folder: &Path, day: i64) -> ScanFile {
    let hours = || (0..ROWS_A_DAY).map(move |h| midnight(day).0 + h * Span::HOUR.0);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(hours())),
        Arc::new(TimestampMicrosecondArray::from_iter_values(hours().map(|t| t + 90 * Span::MINUTE.0))),
        Arc::new(StringArray::from_iter((0..ROWS_A_DAY).map(|h| ["JFK", "SFO", "BOS"].get(h as usize % 4)))),
        Arc::new(Int64Array::from_iter((0..ROWS_A_DAY).map(|h| (h % 5 != 0).then_some(h - 3)))),
        Arc::new(Float64Array::from_iter_values((0..ROWS_A_DAY).map(|h| 100.0 + h as f64))),
    ];
    let batch = RecordBatch::try_new(file_schema(), columns).unwrap();
    let path = folder.join(format!("day={day}.parquet"));
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(5)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, file_schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let times = Times::Known { min: midnight(day), max: EventTime(midnight(day + 1).0 - Span::HOUR.0), nulls: 0 };
    let value = DateTime::from_timestamp_micros(midnight(day).0).unwrap().format("%Y-%m-%d").to_string();
    let path = object_store::path::Path::from_filesystem_path(&path).unwrap();
    let rows = Some(ROWS_A_DAY as u64);
    let file = DataFile { rows, values: vec![Some(value)], times, ..DataFile::new(path, size) };
    ScanFile { file, range: None, deleted: None }
}

/// The one query of a text.
pub(crate) fn query(text: &str) -> Result<Query> {
    let mut statements = parse(text, &|_| None)?;
    match statements.remove(0).statement {
        Statement::Query(query) => Ok(query),
        other => Err(Error::bug(format!("not a query: {other}"))),
    }
}

impl Fixture {
    pub(crate) async fn lower(&self, text: &str) -> Result<Lowered> {
        self.lower_from(text, None).await
    }

    pub(crate) async fn lower_from(&self, text: &str, from: Option<EventTime>) -> Result<Lowered> {
        self.planner.lower(&query(text)?, &LowerOptions { parallelism: 2, from, made: midnight(400) }).await
    }

    /// Each hole reads every file.
    pub(crate) fn everything(&self, lowered: &Lowered) -> Vec<ScanInput> {
        lowered
            .inputs
            .iter()
            .map(|_| ScanInput { files: self.files.clone(), log: vec![], inspect: None, rejects: None })
            .collect()
    }

    /// Runs a bound plan; the rows of each partition.
    pub(crate) async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> Vec<Vec<RecordBatch>> {
        let partitions = plan.output_partitioning().partition_count();
        let collected = collect_partitioned(plan, self.planner.task_context()).await.unwrap();
        assert_eq!(collected.len(), partitions);
        collected
    }

    /// The batch answer, sorted, as text.
    pub(crate) async fn batch(&self, text: &str) -> Vec<String> {
        let frame = self.planner.batch(&query(text).unwrap()).await.unwrap();
        lines(&frame.collect().await.unwrap())
    }
}

pub(crate) fn rows(partitions: &[Vec<RecordBatch>]) -> usize {
    partitions.iter().flatten().map(|batch| batch.num_rows()).sum()
}

/// Rows as text, in order of the text.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let text = arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<_> = text.lines().filter(|l| l.starts_with("| ")).skip(1).map(squeezed).collect();
    lines.sort();
    lines
}

/// Column widths depend on the rows shown.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
