//! What goes wrong in other people's warehouses: each is told with what, where and what to do, and nothing is lost. Once
//! it is mended, the next run goes on to the answer that there would have been.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use watershed::{Engine, LoadRequest, Outcome, RunOptions};
use watershed_core::EventTime;
use watershed_core::clock::ManualClock;
use watershed_core::time::Span;

/// 2024-03-01.
const FIRST: i64 = 1_709_251_200_000_000;

/// A year later than the last fact.
const NOW: i64 = FIRST + 365 * Span::DAY.0;

const VIEW: &str = "CREATE MATERIALIZED VIEW d AS
    SELECT window_start, count(*) AS n, sum(v) AS total FROM TUMBLE(s, ts, INTERVAL '1 day') GROUP BY window_start;";

/// A folder of Parquet files, one a day, and a home beside it.
struct World {
    dir: tempfile::TempDir,
    now: i64,
}

impl World {
    /// Three days of four rows.
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap(), now: NOW };
        (0..3).for_each(|day| world.day(day));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn lake(&self, day: i64) -> PathBuf {
        self.path("lake").join(format!("day=2024-03-{:02}", day + 1)).join("part.parquet")
    }

    fn day(&self, day: i64) {
        let times: Vec<i64> = (0..4).map(|i| FIRST + day * Span::DAY.0 + i * 6 * Span::HOUR.0).collect();
        let values = Arc::new(Int64Array::from_iter_values((0..4).map(|i| day * 10 + i)));
        write(&self.lake(day), &times, values);
    }

    fn engine(&self) -> Engine {
        // Ids are drawn from a seed: one that has been used in this world must not come again.
        let used = fs::read_dir(self.dir.path()).unwrap().count();
        fs::write(self.path(&format!("used-{used}")), "").unwrap();
        let clock = Arc::new(ManualClock::new(EventTime(self.now), used as u64));
        let home = self.path("home").display().to_string();
        Engine::builder().home(home).clock(clock).build().unwrap()
    }

    fn sql(&self, sql: &str) -> String {
        let lake = self.path("lake");
        format!("CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '{}');\n{sql}", lake.display())
    }

    async fn run(&self, sql: &str) -> Vec<Outcome> {
        self.engine().execute(&self.sql(sql)).await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    /// The error of a run, which has to say all of this.
    async fn refused(&self, sql: &str, words: &[&str]) -> String {
        let error = match self.engine().execute(&self.sql(sql)).await {
            Ok(outcomes) => panic!("{sql}\n{outcomes:?}"),
            Err(e) => e.to_string(),
        };
        for word in words {
            assert!(error.contains(word), "`{word}` is not said: {error}");
        }
        error
    }

    async fn text(&self, sql: &str) -> String {
        let batches = self.engine().query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let mut out = vec![];
        let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut out);
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        drop(writer);
        String::from_utf8(out).unwrap().trim_end().replace('\n', " ")
    }

    /// What the view has to hold in the end: the last day is closed by the clock.
    async fn is_whole(&self) {
        assert_eq!(self.text("SELECT n, total FROM d ORDER BY window_start").await, "4,6 4,46 4,86");
    }

    fn manifests(&self) -> Vec<PathBuf> {
        let incarnation = fs::read_dir(self.path("home/jobs/d")).unwrap().next().unwrap().unwrap().path();
        let mut all: Vec<_> = fs::read_dir(incarnation.join("manifests")).unwrap().map(|f| f.unwrap().path()).collect();
        all.sort();
        all
    }
}

fn write(path: &Path, times: &[i64], values: ArrayRef) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let fields = vec![Field::new("ts", time, true), Field::new("v", values.data_type().clone(), true)];
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(times.iter().copied()));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![times, values]).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn a_lake_that_is_not_there() {
    let world = World::new();
    fs::rename(world.path("lake"), world.path("elsewhere")).unwrap();
    world.refused(VIEW, &["source s", "lake"]).await;
    fs::rename(world.path("elsewhere"), world.path("lake")).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
    // And one that was there: what has been read stays, and the source is named.
    fs::rename(world.path("lake"), world.path("elsewhere")).unwrap();
    world.refused(VIEW, &["source s", "lake"]).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_truncated_file() {
    let world = World::new();
    let whole = fs::read(world.lake(1)).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 3, 0] {
        fs::write(world.lake(1), &whole[..length]).unwrap();
        let name = world.lake(1).display().to_string();
        world.refused(VIEW, &[name.trim_start_matches('/')]).await;
    }
    fs::write(world.lake(1), &whole).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_file_with_a_hole_in_its_middle() {
    let world = World::new();
    let whole = fs::read(world.lake(2)).unwrap();
    // The footer is fine, and the pages are not.
    let mut torn = whole.clone();
    torn[4..60].fill(0xff);
    fs::write(world.lake(2), torn).unwrap();
    let name = world.lake(2).display().to_string();
    world.refused(VIEW, &[name.trim_start_matches('/')]).await;
    fs::write(world.lake(2), whole).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_column_of_another_type_in_one_partition() {
    let world = World::new();
    let times: Vec<i64> = (0..4).map(|i| FIRST + Span::DAY.0 + i * 6 * Span::HOUR.0).collect();
    write(&world.lake(1), &times, Arc::new(StringArray::from(vec!["10", "11", "12", "13"])));
    world.refused(VIEW, &["day=2024-03-02/part.parquet", "`v`", "Utf8", "Int64", "rewrite"]).await;
    world.day(1);
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn facts_of_the_far_future() {
    let world = World::new();
    let times = [FIRST + Span::DAY.0, FIRST + 300_000 * Span::DAY.0, FIRST + Span::DAY.0 + 1];
    write(&world.lake(1), &times, Arc::new(Int64Array::from(vec![1, 2, 3])));
    world.run(VIEW).await;
    assert_eq!(world.text("SELECT n, total FROM d ORDER BY window_start").await, "4,6 2,4 4,86");
    assert_eq!(world.text("SELECT v, _reason FROM d_late").await, "2,event time beyond max_ahead");
    // A partition of the far future closes nothing before it.
    let world = World::new();
    let far = world.path("lake/day=2999-01-01/part.parquet");
    write(&far, &[FIRST + 356_167 * Span::DAY.0], Arc::new(Int64Array::from(vec![7])));
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn empty_tables() {
    let world = World { dir: tempfile::tempdir().unwrap(), now: NOW };
    fs::create_dir_all(world.path("lake")).unwrap();
    world.refused(VIEW, &["source s", "lake", "neither a Delta table", "nor Parquet files"]).await;
    // A file without rows says what the columns are.
    write(&world.lake(0), &[], Arc::new(Int64Array::from(Vec::<i64>::new())));
    world.run(VIEW).await;
    assert_eq!(world.text("SELECT count(*) FROM d").await, "0");
    (0..3).for_each(|day| {
        if day > 0 {
            world.day(day);
        }
    });
    world.run(VIEW).await;
    assert_eq!(world.text("SELECT n FROM d ORDER BY window_start").await, "4 4");
}

#[tokio::test]
async fn a_partition_name_that_is_no_time() {
    let world = World::new();
    let odd = world.path("lake/day=2024-13-45/part.parquet");
    write(&odd, &[FIRST], Arc::new(Int64Array::from(vec![1])));
    world.refused(VIEW, &["2024-13-45", "day"]).await;
    fs::remove_dir_all(odd.parent().unwrap()).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_file_that_was_vacuumed_under_a_table() {
    let world = World::new();
    let lines: String = (0..12).map(|i| format!("2024-03-{:02}T{:02}:00:00,{i}\n", 1 + i / 4, i % 4 * 6)).collect();
    fs::write(world.path("s.csv"), format!("ts,v\n{lines}")).unwrap();
    let request = LoadRequest {
        files: vec![world.path("s.csv").display().to_string()],
        into: world.path("delta").display().to_string(),
        time_column: Some("ts".into()),
        partition_by: Some("day".into()),
        ..LoadRequest::default()
    };
    world.engine().load(&request).await.unwrap();
    let delta = world.path("delta");
    let sql = VIEW.replace("s, ts", "t, ts");
    let sql = format!("CREATE SOURCE t (WATERMARK FOR ts AS ts) WITH (lake = '{}');\n{sql}", delta.display());
    let folder = delta.join("ts_day=2024-03-02");
    let file = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).find(|p| p.extension().is_some()).unwrap();
    fs::rename(&file, world.path("kept")).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    world.refused(&sql, &[name]).await;
    fs::rename(world.path("kept"), &file).unwrap();
    world.run(&sql).await;
    assert_eq!(world.text("SELECT n, total FROM d ORDER BY window_start").await, "4,6 4,22 4,38");
}

#[tokio::test]
async fn sql_that_would_need_all_there_ever_was() {
    let world = World::new();
    for (sql, words) in [
        ("CREATE MATERIALIZED VIEW d AS SELECT v, count(*) AS n FROM s GROUP BY v;", ["window", "TUMBLE"]),
        ("CREATE MATERIALIZED VIEW d AS SELECT DISTINCT v FROM s;", ["DISTINCT", "window"]),
        ("CREATE MATERIALIZED VIEW d AS SELECT ts, sum(v) OVER (ORDER BY ts) AS n FROM s;", ["OVER", "window"]),
    ] {
        world.refused(sql, &words).await;
    }
    assert!(world.engine().jobs().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_view_whose_sql_was_changed() {
    let world = World::new();
    world.run(VIEW).await;
    let changed = VIEW.replace("sum(v)", "sum(v + 1)");
    world.refused(&changed, &["created by another statement", "+ 1", "CREATE OR REPLACE"]).await;
    world.is_whole().await;
    world.run(&changed.replace("CREATE MATERIALIZED", "CREATE OR REPLACE MATERIALIZED")).await;
    assert_eq!(world.text("SELECT total FROM d ORDER BY window_start").await, "10 50 90");
}

#[tokio::test]
async fn checkpoints_that_cannot_be_read() {
    let world = World::new();
    fs::rename(world.lake(2), world.path("later")).unwrap();
    world.run(VIEW).await;
    let manifests = world.manifests();
    let newest = manifests.last().unwrap();
    let text = fs::read_to_string(newest).unwrap();

    // Another version's.
    fs::write(newest, text.replacen("\"format\":1", "\"format\":77", 1)).unwrap();
    world.refused(VIEW, &["format 77", "format 1", "CREATE OR REPLACE"]).await;
    // Torn: the one before is replayed, to the very same rows, and the run goes on from there.
    fs::rename(world.path("later"), world.lake(2)).unwrap();
    fs::write(newest, &text[..text.len() / 2]).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
    let again = world.run(VIEW).await;
    assert!(matches!(&again[..], [Outcome::Job(s)] if s.nothing_new), "{again:?}");
    // All of them torn.
    world.manifests().iter().for_each(|path| fs::write(path, "{").unwrap());
    world.refused(VIEW, &["checkpoint", "CREATE OR REPLACE"]).await;
    world.is_whole().await;
    world.run(&VIEW.replace("CREATE MATERIALIZED", "CREATE OR REPLACE MATERIALIZED")).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_result_table_that_somebody_else_changed() {
    let world = World::new();
    fs::rename(world.lake(2), world.path("later")).unwrap();
    world.run(VIEW).await;
    let log = world.path("home/tables/d/_delta_log");
    let versions =
        fs::read_dir(&log).unwrap().filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "json"));
    let next = log.join(format!("{:020}.json", versions.count()));

    // A commit without rows is none of ours to judge.
    fs::write(&next, "{\"commitInfo\":{\"operation\":\"SET TBLPROPERTIES\"}}\n").unwrap();
    fs::rename(world.path("later"), world.lake(2)).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;

    // The last commit taken back: it is in the checkpoint, and made again.
    let versions = || {
        let json = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
        let mut all: Vec<_> = fs::read_dir(&log).unwrap().map(|f| f.unwrap().path()).filter(json).collect();
        all.sort();
        all
    };
    fs::remove_file(versions().last().unwrap()).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
    // Set back further than that.
    let all = versions();
    all[1..].iter().for_each(|path| fs::rename(path, world.path(path.file_name().unwrap().to_str().unwrap())).unwrap());
    world.refused(VIEW, &["job d", "tables/d", "put it back", "CREATE OR REPLACE"]).await;
    all[1..].iter().for_each(|path| fs::rename(world.path(path.file_name().unwrap().to_str().unwrap()), path).unwrap());
    world.run(VIEW).await;
    world.is_whole().await;

    // Gone.
    fs::rename(world.path("home/tables/d"), world.path("away")).unwrap();
    for _ in 0..2 {
        world.refused(VIEW, &["job d", "tables/d", "was removed", "put it back", "CREATE OR REPLACE"]).await;
        assert!(!world.path("home/tables/d").exists(), "nothing is made in its place");
    }
    fs::rename(world.path("away"), world.path("home/tables/d")).unwrap();
    world.run(VIEW).await;
    world.is_whole().await;
}

#[tokio::test]
async fn a_table_of_inserts_that_is_gone() {
    let world = World::new();
    fs::rename(world.lake(2), world.path("later")).unwrap();
    let sql = "CREATE TABLE t (at TIMESTAMP, v BIGINT); INSERT INTO t SELECT ts, v FROM s;";
    world.run(sql).await;
    fs::rename(world.path("later"), world.lake(2)).unwrap();
    world.run(sql).await;
    world.day(3);
    fs::rename(world.path("home/tables/t"), world.path("away")).unwrap();
    world.refused(sql, &["job t", "tables/t", "was removed", "put it back"]).await;
    assert!(!world.path("home/tables/t").exists(), "nothing is made in its place");
    fs::rename(world.path("away"), world.path("home/tables/t")).unwrap();
    world.run(sql).await;
    assert_eq!(world.text("SELECT count(*), sum(v) FROM t").await, "16,264");
}

#[tokio::test]
async fn a_newest_checkpoint_that_is_lost_before_the_end() {
    let world = World { dir: tempfile::tempdir().unwrap(), now: NOW };
    for day in 0..2 {
        world.day(day);
        world.run(VIEW).await;
    }
    let newest = world.manifests().pop().unwrap();
    let text = fs::read_to_string(&newest).unwrap();
    fs::write(&newest, &text[..text.len() / 2]).unwrap();
    // With its table gone too, there is nothing to go on from, and nothing is made.
    fs::rename(world.path("home/tables/d"), world.path("away")).unwrap();
    world.refused(VIEW, &["tables/d", "was removed", "put it back"]).await;
    assert!(!world.path("home/tables/d").exists());
    fs::rename(world.path("away"), world.path("home/tables/d")).unwrap();
    // A run to the very end repeats what was lost, and then reads what came since before it ends the job.
    world.day(2);
    let options = RunOptions { to_the_end: true, ..RunOptions::default() };
    let mut seen = |_| Ok(());
    world.engine().execute_with(&world.sql(VIEW), &options, &mut seen).await.unwrap();
    world.is_whole().await;
    world.refused(VIEW, &["was ended by --final"]).await;
}

#[tokio::test]
async fn a_clock_that_jumps() {
    let mut world = World::new();
    // Back before the facts: none of them is closed by it, the later ones lie in the future and nothing is emitted for good.
    world.now = FIRST - 400 * Span::DAY.0;
    world.run(VIEW).await;
    let early = world.text("SELECT n FROM d ORDER BY window_start").await;
    assert!(["", "4", "4 4"].contains(&early.as_str()), "{early}");
    world.now = NOW;
    world.run(VIEW).await;
    // Forward by a century and back again.
    world.now = NOW + 36_500 * Span::DAY.0;
    world.run(VIEW).await;
    world.now = NOW;
    world.day(3);
    world.run(VIEW).await;
    let found = world.text("SELECT sum(n) FROM d").await.parse::<u64>().unwrap();
    let late = world.text("SELECT count(*) FROM d_late").await.parse::<u64>().unwrap();
    assert_eq!(found + late, 16, "every fact is used or listed");
}
