//! What the tests share: stores over a temporary folder, a sink of (ts, k, v) rows, and reading files back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use uuid::Uuid;
use watershed_core::clock::ManualClock;
use watershed_core::history::{DataFile, Snapshot};
use watershed_core::sink::{CommitIdentity, PreparedCommit, Sink};
use watershed_core::time::{EventTime, Span};
use watershed_lake::{Create, DeltaSink, HistoryOptions, PartitionBy, SinkOptions, Stores, TableSpec};

pub(crate) const DAY: i64 = Span::DAY.0;
pub(crate) const HOUR: i64 = Span::HOUR.0;
pub(crate) const APP: &str = "watershed/job/view";

/// A temporary folder and stores.
pub(crate) struct Lake {
    pub(crate) folder: TempDir,
    pub(crate) stores: Stores,
}

impl Lake {
    pub(crate) fn new() -> Lake {
        Lake { folder: tempfile::tempdir().unwrap(), stores: Stores::default() }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    pub(crate) async fn sink(&self, name: &str, by: &str) -> DeltaSink {
        static SEED: AtomicU64 = AtomicU64::new(1_000_000);
        self.sink_of(name, spec(by), SEED.fetch_add(1, Ordering::SeqCst)).await.unwrap()
    }

    pub(crate) async fn sink_of(&self, name: &str, spec: TableSpec, seed: u64) -> watershed_core::Result<DeltaSink> {
        open(&self.stores, &self.at(name), spec, seed, Create::Now).await
    }
}

pub(crate) async fn open(
    stores: &Stores,
    location: &str,
    spec: TableSpec,
    seed: u64,
    create: Create,
) -> watershed_core::Result<DeltaSink> {
    let options = SinkOptions { create, lanes: 2, ..Default::default() };
    let clock = Arc::new(ManualClock::new(EventTime(1_700_000_000_000_000), seed));
    DeltaSink::open(stores, "view", location, spec, options, clock).await
}

pub(crate) fn spec(by: &str) -> TableSpec {
    let partition_by = if by.is_empty() { vec![] } else { PartitionBy::parse(by).unwrap() };
    TableSpec { schema: schema(), partition_by, properties: BTreeMap::new(), owner: None, key: None }
}

pub(crate) fn owned(by: &str, owner: Uuid) -> TableSpec {
    TableSpec { owner: Some(owner), ..spec(by) }
}

pub(crate) fn schema() -> SchemaRef {
    rows(&[]).schema()
}

/// Rows (ts, k, v) with v = 10 k.
pub(crate) fn rows(facts: &[(i64, i64)]) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(facts.iter().map(|f| f.0));
    let keys = Int64Array::from_iter_values(facts.iter().map(|f| f.1));
    let values = Int64Array::from_iter_values(facts.iter().map(|f| f.1 * 10));
    RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(times) as ArrayRef, true),
        ("k", Arc::new(keys) as ArrayRef, true),
        ("v", Arc::new(values) as ArrayRef, true),
    ])
    .unwrap()
}

pub(crate) async fn prepare(sink: &DeltaSink, facts: &[(i64, i64)]) -> PreparedCommit {
    let writer = sink.writer().unwrap();
    writer.write(0, rows(facts)).await.unwrap();
    writer.finish().await.unwrap()
}

pub(crate) fn identity(epoch: u64, after: Option<u64>) -> CommitIdentity {
    CommitIdentity { application: APP.to_string(), epoch, after }
}

/// Writes and commits an epoch.
pub(crate) async fn put(sink: &DeltaSink, epoch: u64, facts: &[(i64, i64)]) {
    let prepared = prepare(sink, facts).await;
    let after = (epoch > 1).then(|| epoch - 1);
    sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await.unwrap();
}

pub(crate) fn by_time() -> HistoryOptions {
    HistoryOptions { time_column: Some("ts".to_string()), ..HistoryOptions::default() }
}

/// Every file of a snapshot, timeless ones first.
pub(crate) fn files(snapshot: &Snapshot) -> Vec<DataFile> {
    let timed = snapshot.partitions.iter().flat_map(|p| p.files.clone());
    snapshot.timeless.iter().cloned().chain(timed).collect()
}

/// The (ts, k) facts in files, sorted.
pub(crate) fn facts(files: &[DataFile]) -> Vec<(i64, i64)> {
    let mut facts: Vec<(i64, i64)> = files.iter().flat_map(unsorted_facts).collect();
    facts.sort_unstable();
    facts
}

/// The (ts, k) facts of a file by their number in it.
pub(crate) fn unsorted_facts(file: &DataFile) -> Vec<(i64, i64)> {
    let batch = read(&format!("/{}", file.path));
    let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>().clone();
    let keys = batch.column_by_name("k").unwrap().as_primitive::<Int64Type>().clone();
    times.values().iter().copied().zip(keys.values().iter().copied()).collect()
}

pub(crate) fn read(path: &str) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().collect::<Result<_, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

/// The log entry of a version, one action a line.
pub(crate) fn entry(lake: &Lake, table: &str, version: u64) -> Vec<serde_json::Value> {
    let path = lake.folder.path().join(table).join(format!("_delta_log/{version:020}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts a log entry by hand, as a foreign writer would.
pub(crate) fn put_entry(lake: &Lake, table: &str, version: u64, actions: &[serde_json::Value]) {
    let path = lake.folder.path().join(table).join(format!("_delta_log/{version:020}.json"));
    let lines: Vec<String> = actions.iter().map(|a| a.to_string()).collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, lines.join("\n")).unwrap();
}
