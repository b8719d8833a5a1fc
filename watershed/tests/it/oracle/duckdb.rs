//! Expected rows from DuckDB, over SQL that uses none of our forms: an engine that shares no code with ours.
//!
//! It reads the same tables and facts, less those listed as late, from Parquet files that no code of ours has touched, and leaves its answer
//! in one, whose columns are then taken for the types that our view has.

use std::fs::File;
use std::process::Command;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;

use super::check::{Case, World, rejected, table, used};
use super::compare::{rows, same};

/// Tables are the Parquet files of a folder, by name; the answer goes into a file.
const PROGRAM: &str = r#"
import duckdb, pathlib, sys
folder, sql, answer = sys.argv[1:]
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'; SET threads = 1")
for path in pathlib.Path(folder).glob("*.parquet"):
    db.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM read_parquet('{path}')")
db.execute(f"COPY ({sql}) TO '{answer}' (FORMAT PARQUET)")
"#;

/// Holds a view whose job has ended against DuckDB's answer to `sql`: the same columns in the same order.
pub(crate) async fn agrees(world: &World, case: &Case, sql: &str) -> Result<(), String> {
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with duckdb (make test sets it up)");
        return Ok(());
    };
    let (folder, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let facts = used(world, case, &rejected(world).await).into_iter().map(|(name, (_, kept))| (name, kept));
    let tables = case.tables.iter().map(|table| (table.name.clone(), table.rows.clone()));
    for (name, rows) in facts.chain(tables) {
        let file = File::create(folder.path().join(format!("{name}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    let answer = own.path().join("answer.parquet").display().to_string();
    let output = Command::new(python).args(["-c", PROGRAM]).arg(folder.path()).args([sql, &answer]).output();
    let output = output.expect("python starts");
    if !output.status.success() {
        return Err(format!("DuckDB: {}\n{sql}", String::from_utf8_lossy(&output.stderr)));
    }
    let context = SessionContext::new();
    context.register_parquet("answer", answer.as_str(), Default::default()).await.unwrap();
    let expected = context.sql("SELECT * FROM answer").await.unwrap().collect().await.unwrap();
    let found = table(&world.view(), "*").await;
    if expected.iter().all(|batch| batch.num_rows() == 0) {
        return Err(format!("DuckDB's answer has no rows, which shows nothing\n{sql}"));
    }
    let typed = like(&expected, &found)?;
    same(rows(&typed), rows(&found)).map_err(|e| format!("against DuckDB: {e}\n{}\n{sql}", case.sql))
}

/// The columns, by position, as the types of another answer.
fn like(answer: &[RecordBatch], other: &[RecordBatch]) -> Result<Vec<RecordBatch>, String> {
    let Some(schema) = other.first().map(RecordBatch::schema) else { return Ok(answer.to_vec()) };
    let typed = |batch: &RecordBatch| {
        if batch.num_columns() != schema.fields().len() {
            return Err(format!("DuckDB's answer has {} columns, ours {}", batch.num_columns(), schema.fields().len()));
        }
        let columns = batch.columns().iter().zip(schema.fields());
        let columns: Result<Vec<_>, _> = columns.map(|(c, f)| cast(c, f.data_type())).collect();
        RecordBatch::try_new(schema.clone(), columns.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    };
    answer.iter().map(typed).collect()
}
