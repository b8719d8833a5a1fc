//! Keyed tables against a map in memory, over stores that fail, beside others, and what they refuse.

mod model;

mod refused;

mod memory;

mod faults;

mod beside;

mod interleaved;

mod damaged;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use watershed_core::sink::{PreparedCommit, Sink};
use watershed_lake::{Create, DeltaSink, HistoryOptions, KeySpec, PartitionBy, TableSpec, open_history};

use crate::fixtures::{Lake, identity, open, read};

/// What one row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) key: i64,
    pub(crate) ts: i64,
    /// Less than zero: NULL.
    pub(crate) value: i64,
    pub(crate) sequence: i64,
    pub(crate) delete: bool,
}

/// A row of the table: (ts, value, sequence) by key.
pub(crate) type Rows = BTreeMap<i64, (i64, i64, i64)>;

pub(crate) fn batch(ops: &[Op]) -> RecordBatch {
    let of = |f: fn(&Op) -> i64| Arc::new(Int64Array::from_iter_values(ops.iter().map(f))) as ArrayRef;
    let values: ArrayRef = Arc::new(Int64Array::from_iter(ops.iter().map(|op| (op.value >= 0).then_some(op.value))));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values(ops.iter().map(|op| op.ts)).with_timezone("UTC"));
    let words: ArrayRef =
        Arc::new(StringArray::from_iter_values(ops.iter().map(|op| if op.delete { "delete" } else { "upsert" })));
    let columns = [("id", of(|op| op.key)), ("ts", times), ("v", values), ("n", of(|op| op.sequence)), ("op", words)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

pub(crate) fn schema() -> SchemaRef {
    batch(&[]).schema()
}

pub(crate) fn key() -> KeySpec {
    KeySpec { columns: vec!["id".into()], operation: Some("op".into()), fold: true, ..KeySpec::default() }
}

pub(crate) fn spec(by: &str, key: KeySpec) -> TableSpec {
    let partition_by = if by.is_empty() { vec![] } else { PartitionBy::parse(by).unwrap() };
    TableSpec { schema: schema(), partition_by, properties: BTreeMap::new(), owner: None, key: Some(key) }
}

pub(crate) async fn sink(lake: &Lake, name: &str, by: &str, key: KeySpec) -> watershed_core::Result<DeltaSink> {
    static SEED: AtomicU64 = AtomicU64::new(5_000_000);
    open(&lake.stores, &lake.at(name), spec(by, key), SEED.fetch_add(1, Ordering::SeqCst), Create::Now).await
}

pub(crate) async fn prepare(sink: &DeltaSink, batches: &[Vec<Op>]) -> watershed_core::Result<PreparedCommit> {
    let writer = sink.writer().unwrap();
    for ops in batches {
        writer.write(0, batch(ops)).await?;
    }
    writer.finish().await
}

fn untimed() -> HistoryOptions {
    HistoryOptions { untimed: true, ..HistoryOptions::default() }
}

/// Writes and commits an epoch.
pub(crate) async fn put(sink: &DeltaSink, epoch: u64, ops: &[Op]) {
    let prepared = prepare(sink, &[ops.to_vec()]).await.unwrap();
    let after = (epoch > 1).then(|| epoch - 1);
    sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await.unwrap();
}

/// The rows of a table as our own reader sees them. Two of one key are a failure.
pub(crate) async fn rows(lake: &Lake, name: &str) -> Rows {
    let mut rows = Rows::new();
    for (key, ts, value, sequence) in visible(lake, name).await {
        assert_eq!(rows.insert(key, (ts, value, sequence)), None, "key {key} is there twice");
    }
    rows
}

/// Every unmarked row: key, time, value, sequence.
pub(crate) async fn visible(lake: &Lake, name: &str) -> Vec<(i64, i64, i64, i64)> {
    let history = open_history(&lake.stores, &lake.at(name), &untimed()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    let columns: Vec<String> = history.layout().partition_columns.iter().map(|f| f.name().clone()).collect();
    let files = crate::fixtures::files(&snapshot);
    let deleted = history.deleted(&files).await.unwrap();
    let mut rows = vec![];
    for (file, deleted) in files.iter().zip(deleted) {
        let batch = read(&format!("/{}", file.path));
        let of = |name: &str, row: usize| match batch.column_by_name(name) {
            Some(column) if name == "ts" => column.as_primitive::<TimestampMicrosecondType>().value(row),
            Some(column) if column.is_null(row) => -1,
            Some(column) => column.as_primitive::<Int64Type>().value(row),
            None => {
                let at = columns.iter().position(|column| column == name).unwrap();
                file.values[at].as_ref().map_or(-1, |value| value.parse().unwrap())
            }
        };
        for row in 0..batch.num_rows() {
            let at = row as u64;
            if !deleted.as_ref().is_some_and(|d| d.runs.iter().any(|run| run.contains(&at))) {
                rows.push((of("id", row), of("ts", row), of("v", row), of("n", row)));
            }
        }
    }
    rows
}
