//! Histories that Spark wrote: deletion vectors, column mapping, widened types, V2 checkpoints over a cleaned log, zone-less
//! times. A windowed job over each must give what Spark itself answers, and so must the same query run as batch.
//!
//! The same Spark reads tables that Watershed wrote, as other [`readers`] do.
//!
//! One Spark makes all tables (`tables.py`), in the Python that `WATERSHED_SPARK` names (`tools/delta.sh`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use tempfile::TempDir;
use watershed::{Engine, Outcome, RunOptions};
use watershed_core::Error;
use watershed_lake::Stores;
use watershed_runtime::Summary;

use crate::readers::{self, Made};

#[derive(Deserialize)]
struct Answer {
    /// Over the source `s`.
    sql: String,
    /// As comma-separated text, sorted.
    rows: Vec<String>,
}

/// What Spark did: its answers by table, in a folder that it filled, and how it read tables of ours, see `readers`.
struct Spark {
    folder: TempDir,
    answers: BTreeMap<String, Answer>,
    ours: Vec<Made>,
}

/// Runs it once; `None` where there is no Spark.
async fn spark() -> Option<Spark> {
    let Some(python) = std::env::var("WATERSHED_SPARK").ok().filter(|python| !python.is_empty()) else {
        println!(
            "skipped: WATERSHED_SPARK names no Python with Spark and Delta (tools/delta.sh sets it up; make test does)"
        );
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("ours");
    let root = own.display().to_string();
    let mut ours = readers::make(&own, &root, Stores::default()).await;
    ours.push(readers::feed(&root).await);
    let asked = serde_json::to_string(&readers::asked(&ours, &own)).unwrap();
    fs::write(folder.path().join("read.json"), asked).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/spark/tables.py");
    let output = Command::new(python).arg(program).arg(folder.path()).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = fs::read(folder.path().join("answers.json")).unwrap();
    Some(Spark { folder, answers: serde_json::from_slice(&answers).unwrap(), ours })
}

/// What the query selects; the view's partition column is beside it.
const VIEW: &str = "SELECT * EXCLUDE (w_day) FROM v";

struct World<'a> {
    lake: &'a Path,
    home: TempDir,
}

impl World<'_> {
    fn engine(&self) -> Engine {
        self.engine_with("stop")
    }

    fn engine_with(&self, on_change: &str) -> Engine {
        let home = self.home.path().display().to_string();
        let builder = Engine::builder().home(home).setting("commit_interval", "0 s");
        builder.setting("on_change", on_change).build().unwrap()
    }

    async fn run(&self, table: &str, query: &str, to_the_end: bool) -> watershed_core::Result<Summary> {
        self.run_with(&self.engine(), table, query, to_the_end).await
    }

    async fn run_with(
        &self,
        engine: &Engine,
        table: &str,
        query: &str,
        to_the_end: bool,
    ) -> watershed_core::Result<Summary> {
        let lake = self.lake.join(table);
        let text = format!(
            "CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '{}', max_leak = '2 days'); \
             CREATE MATERIALIZED VIEW v WITH (location = '{}') AS {query};",
            lake.display(),
            self.home.path().join("view").display()
        );
        let options = RunOptions { to_the_end, ..RunOptions::default() };
        let mut summary = None;
        let mut seen = |outcome| {
            if let Outcome::Job(s) = outcome {
                summary = Some(*s);
            }
            Ok(())
        };
        engine.execute_with(&text, &options, &mut seen).await?;
        Ok(summary.expect("a job ran"))
    }

    /// The rows of a query as comma-separated text, sorted.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let batches = self.engine().query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let mut out = vec![];
        let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut out);
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        drop(writer);
        let text = String::from_utf8(out).unwrap();
        // Which tables have zones is not what is compared here.
        let mut rows: Vec<String> = text.lines().map(|line| line.replace("Z,", ",")).collect();
        rows.sort();
        rows
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_spark_wrote_are_histories_and_ours_are_read_by_it() {
    let Some(Spark { folder, answers, ours }) = spark().await else { return };
    readers::equal("Spark", &ours, &folder.path().join("ours")).await;
    let names: Vec<_> = answers.keys().map(String::as_str).collect();
    assert_eq!(names, ["by_id", "checkpointed", "dated", "marked", "named", "ntz", "widened"]);
    for (name, answer) in &answers {
        let world = World { lake: folder.path(), home: tempfile::tempdir().unwrap() };
        assert!(answer.rows.len() > 15, "{name}: {:?}", answer.rows);
        let summary = world.run(name, &answer.sql, true).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((summary.total.late, summary.total.bad), (0, 0), "{name}: {summary:?}");
        assert_eq!(world.rows(VIEW).await, answer.rows, "{name}: the view");
        assert_eq!(world.rows(&answer.sql).await, answer.rows, "{name}: the batch answer");
        println!("{name}: {} rows read, {} rows equal Spark's", summary.run.rows, answer.rows.len());
    }
    deletions_after_the_fact(folder.path(), &answers["marked"]).await;
}

/// The table went on after a job had read it: rows of files that were read were marked as deleted.
async fn deletions_after_the_fact(lake: &Path, answer: &Answer) {
    let world = World { lake, home: tempfile::tempdir().unwrap() };
    let at = lake.join("moving");
    fs::rename(lake.join("marked.before"), &at).unwrap();
    let before = world.run("moving", &answer.sql, false).await.unwrap();
    assert!(before.run.rows > 1000, "{before:?}");
    let rows = world.rows(VIEW).await;
    fs::remove_dir_all(&at).unwrap();
    fs::rename(lake.join("marked"), &at).unwrap();
    let error = world.run("moving", &answer.sql, false).await.unwrap_err();
    let Error::Stopped(why) = &error else { panic!("{error}") };
    assert!(why.contains("facts that were read are gone") && why.contains(".parquet was removed in 4"), "{why}");
    assert_eq!(world.rows(VIEW).await, rows, "nothing was done");
    // The updated row came in a file of its own, and its window is over.
    let after = world.run_with(&world.engine_with("ignore"), "moving", &answer.sql, false).await.unwrap();
    assert_eq!((after.run.rows, after.run.late), (1, 1), "{after:?}");
    assert_eq!(world.rows(VIEW).await, rows);
}
