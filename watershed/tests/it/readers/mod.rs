//! Others read what Watershed writes: each result table, read by DuckDB's Delta extension, Polars, the Python `deltalake`
//! package and Spark, holds what `watershed query` says, on disk and in a bucket.
//!
//! Tables are made once a place: windowed and partitioned by day, stateless and partitioned by hour and a key with NULLs, one of every
//! type that a table has, the late rows of the first, and a keyed one whose rows were replaced, moved and deleted, and which was vacuumed. Spark reads them where it also writes some, in `spark`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};
use watershed::upkeep::VacuumOptions;
use watershed::{Engine, LoadRequest};
use watershed_core::time::Span;
use watershed_lake::Stores;

use crate::minio::server::{Bucket, shared};
use crate::oracle::compare::{rows, same};
use crate::oracle::facts::{Facts, Shape};

/// A result table.
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) location: String,
    expected: Vec<RecordBatch>,
}

const TABLES: [&str; 6] = ["windowed", "stateless", "types", "windowed_late", "keyed", "copied"];

/// Makes the tables below a root, over facts in a folder, and asks for their rows.
pub(crate) async fn make(facts: &Path, root: &str, stores: Stores) -> Vec<Made> {
    let shape = Shape { leaks: 60, timeless: 20, rows: 80, ..Shape::default() };
    let drawn = Facts { wide: true, ..Facts::draw(shape, 77) };
    drawn.write(&facts.join("a"));
    let engine = Engine::builder().home(format!("{root}/home")).stores(stores);
    let engine = engine.setting("commit_interval", "0 s").setting("slice", "0 s").build().unwrap();
    let text = format!(
        "CREATE SOURCE a (WATERMARK FOR ts AS ts) WITH (lake = '{}', max_leak = '0 s');
         CREATE MATERIALIZED VIEW windowed WITH (location = '{root}/windowed') AS
         SELECT window_start, window_end, k, s, count(*) AS c, sum(v) AS total, min(n) AS least
         FROM TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, k, s;
         CREATE MATERIALIZED VIEW stateless WITH (location = '{root}/stateless', partition_by = 'hour(ts), k') AS
         SELECT ts, k, s, v, n FROM a WHERE n > 0;
         CREATE MATERIALIZED VIEW types WITH (location = '{root}/types') AS
         SELECT ts, bool, i8, i16, i32, u8, u16, u32, u64, f32, v, dec, date, at_s, at_ms, at_us, at_ns, bin, bview, fixed, s, large,
                text, dict, list, pair, map FROM a;",
        facts.join("a").display()
    );
    engine.execute(&text).await.unwrap();
    let late = format!(
        "CREATE SOURCE windowed_late (WATERMARK FOR _event_time AS _event_time) WITH (lake = '{root}/windowed_late');"
    );
    engine.execute(&late).await.unwrap();
    keyed(&engine, facts, root).await;
    copied(&engine, facts, root).await;
    let mut made = vec![];
    for name in TABLES {
        let expected = engine.query(&format!("SELECT * FROM {name}")).await.unwrap();
        assert!(expected.iter().map(RecordBatch::num_rows).sum::<usize>() > 10, "{name} has rows enough to compare");
        made.push(Made { name, location: format!("{root}/{name}"), expected });
    }
    made
}

/// Loads a keyed table in turns: new rows, newer ones in other partitions with deletions, some that are too old, and twice the
/// same, so that files go.
async fn keyed(engine: &Engine, facts: &Path, root: &str) {
    let table = format!(
        "CREATE TABLE keyed (id BIGINT, region VARCHAR, v DOUBLE, n BIGINT, PRIMARY KEY (id))
         WITH (location = '{root}/keyed', partition_by = 'region', sequence_by = 'n');"
    );
    engine.execute(&table).await.unwrap();
    let row = |id: u64, turn: u64| {
        let op = if turn == 1 && id.is_multiple_of(5) { "delete" } else { "upsert" };
        format!("{id},r{},{}.5,{},{op}\n", (id + turn) % 3, id * 10 + turn, [10, 20, 15, 30, 40][turn as usize])
    };
    for (turn, ids) in [0..500u64, 100..300, 200..400, 0..50, 0..50].into_iter().enumerate() {
        let rows: String = ids.map(|id| row(id, turn as u64)).collect();
        let file = facts.join(format!("changes-{turn}.csv"));
        std::fs::write(&file, format!("id,region,v,n,op\n{rows}")).unwrap();
        let request = LoadRequest {
            files: vec![file.display().to_string()],
            into: format!("{root}/keyed"),
            operation: Some("op".to_string()),
            ..LoadRequest::default()
        };
        engine.load(&request).await.unwrap();
    }
    // The files of the fourth turn have no rows any more.
    let options = VacuumOptions { retention: Some(Span(0)), allow_shorter: true, ..VacuumOptions::default() };
    let vacuumed = engine.vacuum("keyed", options).await.unwrap();
    assert!(!vacuumed.files.is_empty(), "{vacuumed:?}");
    let newest = "SELECT count(*) AS c, sum(n) AS n, count(DISTINCT id) AS ids FROM keyed";
    let found = engine.query(newest).await.unwrap();
    let cell = |i: usize| found[0].column(i).as_primitive::<Int64Type>().value(0);
    // 40 of the 200 that came again were deleted and stay so; 160 are at 20, 100 of the third turn at 15, 50 of the last at 40,
    // and 150 at 10.
    assert_eq!([cell(0), cell(1), cell(2)], [460, 160 * 20 + 100 * 15 + 50 * 40 + 150 * 10, 460]);
}

/// A keyed table for readers without deletion vectors: files are written anew, and NULL keeps what was.
async fn copied(engine: &Engine, facts: &Path, root: &str) {
    let table = format!(
        "CREATE TABLE copied (id BIGINT, region VARCHAR, v DOUBLE, n BIGINT, PRIMARY KEY (id))
         WITH (location = '{root}/copied', partition_by = 'region', merge = 'partial', write_mode = 'copy-on-write',
               change_data_feed = true);"
    );
    engine.execute(&table).await.unwrap();
    // All; a part of them with another `n` alone; some in another partition; and some that are deleted.
    type Turn = (&'static str, std::ops::Range<u64>, fn(u64) -> String);
    let turns: [Turn; 4] = [
        ("id,region,v,n", 0..500, |id| format!("{id},r{},{id}.5,1", id % 3)),
        ("id,region,v,n", 100..300, |id| format!("{id},,,2")),
        ("id,region", 200..250, |id| format!("{id},r{}", (id + 1) % 3)),
        ("id,region,op", 290..310, |id| format!("{id},,d")),
    ];
    for (turn, (header, ids, row)) in turns.into_iter().enumerate() {
        let rows: Vec<String> = ids.map(row).collect();
        let file = facts.join(format!("parts-{turn}.csv"));
        std::fs::write(&file, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
        let request = LoadRequest {
            files: vec![file.display().to_string()],
            into: format!("{root}/copied"),
            operation: header.ends_with("op").then(|| "op".to_string()),
            ..LoadRequest::default()
        };
        engine.load(&request).await.unwrap();
    }
    let sums = "SELECT count(*) AS c, sum(n) AS n, count(*) FILTER (WHERE region = 'r' || ((id + 1) % 3) AND v = id + 0.5) AS \
                moved FROM copied";
    let found = engine.query(sums).await.unwrap();
    let cell = |i: usize| found[0].column(i).as_primitive::<Int64Type>().value(0);
    // 10 of the 200 at 2 are gone, and 10 of the 300 at 1.
    assert_eq!([cell(0), cell(1), cell(2)], [480, 190 * 2 + 290, 50]);
}

/// The change feed of the copied table, as Watershed tells it.
pub(crate) async fn feed(root: &str) -> Made {
    let engine = Engine::builder().home(format!("{root}/home")).build().unwrap();
    let location = format!("{root}/copied");
    let feed = format!("SELECT * EXCLUDE (_commit_timestamp) FROM CHANGES('{location}', 0)");
    let expected = engine.query(&feed).await.unwrap();
    assert_eq!(expected.iter().map(RecordBatch::num_rows).sum::<usize>(), 500 + 2 * 200 + 2 * 50 + 20);
    Made { name: "copied_changes", location, expected }
}

/// What a reader is asked, each table's rows to be left in a folder.
pub(crate) fn asked(tables: &[Made], answers: &Path) -> Vec<Value> {
    let table = |t: &Made| json!({"name": t.name, "location": t.location, "answer": answers.join(format!("{}.parquet", t.name))});
    tables.iter().map(table).collect()
}

/// Holds what a reader left against what Watershed says.
pub(crate) async fn equal(reader: &str, tables: &[Made], answers: &Path) {
    for table in tables {
        let context = SessionContext::new();
        let answer = answers.join(format!("{}.parquet", table.name)).display().to_string();
        context.register_parquet("answer", answer.as_str(), Default::default()).await.unwrap();
        let schema = table.expected[0].schema();
        let names: Vec<String> = schema.fields().iter().map(|f| format!("\"{}\"", f.name())).collect();
        let all = context.table("answer").await.unwrap();
        assert_eq!(all.schema().fields().len(), names.len(), "{reader} finds other columns in {}", table.name);
        let found = context.sql(&format!("SELECT {} FROM answer", names.join(", "))).await;
        let found = found.unwrap_or_else(|e| panic!("{reader}, {}: {e}", table.name)).collect().await.unwrap();
        let plain: Vec<RecordBatch> = table.expected.iter().map(without_maps).collect();
        let schema = plain[0].schema();
        let typed: Vec<RecordBatch> = found.iter().map(|batch| like(&without_maps(batch), &schema)).collect();
        if let Err(e) = same(rows(&plain), rows(&typed)) {
            panic!("{reader} reads table {} differently: {e}", table.name);
        }
        println!("{reader}: {} rows of {} equal", rows(&typed).len(), table.name);
    }
}

/// The columns cast to the types of a schema; what cannot be cast is not the same.
fn like(batch: &RecordBatch, schema: &Arc<Schema>) -> RecordBatch {
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| {
        let similar = column.data_type().is_numeric() == field.data_type().is_numeric()
            && column.data_type().is_temporal() == field.data_type().is_temporal();
        assert!(similar, "column {} is read as {}, not {}", field.name(), column.data_type(), field.data_type());
        cast(column, field.data_type()).unwrap_or_else(|e| panic!("column {}: {e}", field.name()))
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column).collect();
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// Maps as lists of pairs, which is what readers without maps make of them.
fn without_maps(batch: &RecordBatch) -> RecordBatch {
    let mut fields: Vec<Arc<Field>> = vec![];
    let mut columns: Vec<ArrayRef> = vec![];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column: ArrayRef = match column.data_type() {
            DataType::Map(..) => {
                let map = column.as_map();
                let pairs = StructArray::from(vec![
                    (Arc::new(Field::new("key", map.keys().data_type().clone(), true)), map.keys().clone()),
                    (Arc::new(Field::new("value", map.values().data_type().clone(), true)), map.values().clone()),
                ]);
                let item = Arc::new(Field::new("item", pairs.data_type().clone(), true));
                Arc::new(ListArray::new(item, map.offsets().clone(), Arc::new(pairs), map.nulls().cloned()))
            }
            _ => column.clone(),
        };
        fields.push(Arc::new(Field::new(field.name(), column.data_type().clone(), true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The Pythons that have readers, by the variable that names them.
const READERS: [(&str, &str, &str); 3] = [
    ("deltalake", "WATERSHED_PYTHON", "tools/python.sh"),
    ("polars", "WATERSHED_PYTHON", "tools/python.sh"),
    ("duckdb", "WATERSHED_DUCKDB", "tools/duckdb.sh"),
];

async fn read_by_all(tables: &[Made], s3: Option<Value>) {
    for (reader, variable, tool) in READERS {
        let Some(python) = std::env::var(variable).ok().filter(|python| !python.is_empty()) else {
            println!("skipped: {variable} names no Python with {reader} ({tool} sets it up; make test does)");
            continue;
        };
        let answers = tempfile::tempdir().unwrap();
        let asked = json!({"tables": asked(tables, answers.path()), "s3": s3});
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/readers/read.py");
        let mut child = Command::new(python);
        child.arg(program).arg(reader).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("python starts");
        write!(child.stdin.take().unwrap(), "{asked}").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{reader}: {}", String::from_utf8_lossy(&output.stderr));
        equal(reader, tables, answers.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_tables_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let tables = make(folder.path(), &folder.path().display().to_string(), Stores::default()).await;
    read_by_all(&tables, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_readers_of_tables_in_a_bucket() {
    let Some(server) = shared() else { return };
    let bucket: Bucket<'_> = server.bucket("readers");
    let folder = tempfile::tempdir().unwrap();
    let tables = make(folder.path(), &bucket.at("root"), server.stores()).await;
    let (key, secret) = server.keys();
    let s3 = BTreeMap::from([
        ("endpoint", format!("127.0.0.1:{}", server.port())),
        ("key", key.into()),
        ("secret", secret.into()),
    ]);
    read_by_all(&tables, Some(json!(s3))).await;
}
