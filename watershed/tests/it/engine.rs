//! The library: what statements do to the catalog, the tables and each other.

use std::fs;
use std::sync::Arc;

use watershed::catalog::Kind;
use watershed::{Engine, LoadRequest, Outcome};
use watershed_core::EventTime;
use watershed_core::clock::ManualClock;

const SOURCE: &str = "CREATE SOURCE s (WATERMARK FOR ts AS ts) WITH (lake = '${LAKE}');";

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Three days of one row an hour: k is `a` in even hours and `b` in odd ones, v the hour of all.
    async fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let mut text = "ts,k,v\n".to_string();
        for hour in 0..72 {
            let key = if hour % 2 == 0 { "a" } else { "b" };
            text.push_str(&format!("2024-03-{:02}T{:02}:30:00,{key},{hour}\n", 1 + hour / 24, hour % 24));
        }
        fs::write(world.path("s.csv"), text).unwrap();
        let request = LoadRequest {
            files: vec![world.path("s.csv")],
            into: world.path("lake"),
            time_column: Some("ts".into()),
            ..LoadRequest::default()
        };
        assert_eq!(world.engine().load(&request).await.unwrap().rows, 72);
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn engine(&self) -> Engine {
        let clock =
            ManualClock::new(EventTime(1_800_000_000_000_000), fs::read_dir(self.dir.path()).unwrap().count() as u64);
        let clock = Arc::new(clock);
        // Ids are drawn from a seed: one that has been used in this world must not come again.
        let marker = format!("used-{}", fs::read_dir(self.dir.path()).unwrap().count());
        fs::write(self.path(&marker), "").unwrap();
        Engine::builder().home(self.path("home")).clock(clock).variables([("LAKE", self.path("lake"))]).build().unwrap()
    }

    async fn run(&self, sql: &str) -> Vec<Outcome> {
        self.engine().execute(&format!("{SOURCE}\n{sql}")).await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
    }

    async fn refused(&self, sql: &str) -> String {
        match self.engine().execute(&format!("{SOURCE}\n{sql}")).await {
            Ok(outcomes) => panic!("{sql}\n{outcomes:?}"),
            Err(e) => e.to_string(),
        }
    }

    async fn text(&self, sql: &str) -> String {
        let batches = self.engine().query(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let mut out = vec![];
        let mut writer = arrow::csv::WriterBuilder::new().with_header(false).build(&mut out);
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        drop(writer);
        String::from_utf8(out).unwrap().trim_end().replace('\n', " ")
    }
}

#[tokio::test]
async fn views_are_part_of_what_a_job_means() {
    let world = World::new().await;
    let view = "CREATE VIEW big AS SELECT * FROM s WHERE v >= 10;";
    let job = "CREATE MATERIALIZED VIEW d AS SELECT date_trunc('day', ts) AS day, count(*) AS n FROM big GROUP BY 1;";
    world.run(&format!("{view} {job}")).await;
    assert_eq!(world.text("SELECT n FROM d ORDER BY day").await, "14 24 24");
    assert_eq!(world.text("SELECT count(*) FROM big").await, "62");

    let error =
        world.refused(&format!("{} {job}", view.replace("10", "20").replace("CREATE", "CREATE OR REPLACE"))).await;
    assert!(error.contains("view big, which materialized view d reads, was changed since"), "{error}");
    let error = world.refused("DROP VIEW big;").await;
    assert!(error.contains("view big is read by materialized view d; drop that first"), "{error}");
    let error = world.refused("CREATE VIEW d AS SELECT 1;").await;
    assert!(error.contains("d is the name of a materialized view"), "{error}");
}

#[tokio::test]
async fn inserts_go_by_position_and_are_jobs_of_their_own() {
    let world = World::new().await;
    let table = "CREATE TABLE t (name VARCHAR, amount BIGINT);";
    let sql = format!(
        "{table} INSERT INTO t SELECT k, v FROM s WHERE v < 3; INSERT INTO t WITH (job = 'more') SELECT k, v + 100 FROM s WHERE v = 3;"
    );
    world.run(&sql).await;
    assert_eq!(world.text("SELECT name, amount FROM t ORDER BY amount").await, "a,0 b,1 a,2 b,103");
    let again = world.run(&sql).await;
    assert!(again.iter().all(|o| matches!(o, Outcome::Job(s) if s.nothing_new)), "{again:?}");

    let jobs = world.engine().jobs().await.unwrap();
    assert_eq!(
        jobs.iter().map(|j| (j.name.as_str(), j.kind)).collect::<Vec<_>>(),
        [("more", Kind::Insert), ("t", Kind::Insert)]
    );
    let error = world.refused("INSERT INTO t SELECT k, v FROM s WHERE v < 4;").await;
    assert!(error.contains("job t was created by another statement") && error.contains("WITH (job = '…')"), "{error}");
    let error = world.refused("INSERT INTO t WITH (job = 'x') SELECT k FROM s;").await;
    assert!(error.contains("the query has 1 columns, the table 2 (name, amount)"), "{error}");
    let error = world.refused("INSERT INTO t WITH (job = 'x') VALUES ('a', 1);").await;
    assert!(error.contains("reads from no source") || error.contains("VALUES"), "{error}");
    let error = world.refused("INSERT INTO nowhere SELECT k FROM s;").await;
    assert!(error.contains("there is no table nowhere"), "{error}");

    world.run("DROP TABLE t;").await;
    assert!(world.engine().jobs().await.unwrap().is_empty());
    assert!(!fs::exists(world.path("home/tables/t/_delta_log/00000000000000000000.json")).unwrap());
}

#[tokio::test]
async fn a_view_is_dropped_with_its_table_or_without() {
    let world = World::new().await;
    let view = "CREATE MATERIALIZED VIEW d AS SELECT ts, v FROM s WHERE v < 3;";
    world.run(view).await;
    world.run("DROP MATERIALIZED VIEW d KEEP TABLE;").await;
    assert!(world.engine().query("SELECT * FROM d").await.is_err());
    // The table that was kept is nobody's now, and is not written to.
    let error = world.refused(view).await;
    assert!(error.contains("there is a table in") && error.contains("home/tables/d"), "{error}");
    fs::remove_dir_all(world.path("home/tables/d")).unwrap();
    world.run(view).await;
    assert_eq!(world.text("SELECT count(*) FROM d").await, "3");
    world.run("DROP MATERIALIZED VIEW d;").await;
    assert!(!fs::exists(world.path("home/tables/d/_delta_log/00000000000000000000.json")).unwrap());
    world.run(view).await;
    assert_eq!(world.text("SELECT count(*) FROM d").await, "3");
    // A drop that was cut short before the table was gone does not stand in the way of the next.
    let kept = world.path("kept");
    assert!(
        std::process::Command::new("cp").args(["-r", &world.path("home/tables/d"), &kept]).status().unwrap().success()
    );
    world.run("DROP MATERIALIZED VIEW d;").await;
    fs::remove_dir_all(world.path("home/tables/d")).unwrap();
    fs::rename(kept, world.path("home/tables/d")).unwrap();
    world.run(view).await;
    assert_eq!(world.text("SELECT count(*) FROM d").await, "3");
    let error = world.refused("DROP VIEW d;").await;
    assert!(error.contains("d is a materialized view, not a view"), "{error}");
    world.run("DROP VIEW IF EXISTS nothing;").await;
}

#[tokio::test]
async fn where_a_view_begins_is_fixed_when_it_is_made() {
    let world = World::new().await;
    let view = "CREATE MATERIALIZED VIEW d AS SELECT date_trunc('day', ts) AS day, count(*) AS n FROM s GROUP BY 1;";
    world.run(&format!("SET \"from\" = '2024-03-02'; {view}")).await;
    assert_eq!(world.text("SELECT n FROM d ORDER BY day").await, "24 24");
    // Said again or not said, it is the same; something else is refused.
    for said in ["SET \"from\" = '2024-03-02T00:00:00Z';", ""] {
        let again = world.run(&format!("{said} {view}")).await;
        assert!(matches!(&again[..], [Outcome::Job(s)] if s.nothing_new), "{again:?}");
    }
    let error = world.refused(&format!("SET \"from\" = '2024-03-01'; {view}")).await;
    assert!(error.contains("begins at 2024-03-02T00:00:00Z, which is fixed"), "{error}");
}

#[tokio::test]
async fn a_key_is_implied_by_the_grouping_or_refused() {
    let world = World::new().await;
    let view = |options: &str| {
        format!(
            "CREATE MATERIALIZED VIEW d {options} AS SELECT window_start, window_end, k, count(*) AS n \
             FROM TUMBLE(s, ts, INTERVAL '1 day') GROUP BY window_start, window_end, k;"
        )
    };
    for (key, words) in [
        ("window_start", "not implied by the grouping, whose key is window_start, k"),
        ("window_start, x", "no column x; it has window_start, window_end, k, n"),
    ] {
        let error = world.refused(&view(&format!("WITH (primary_key = '{key}')"))).await;
        assert!(error.contains(words), "{key}: {error}");
    }
    let error = world.refused("CREATE MATERIALIZED VIEW d WITH (primary_key = 'v') AS SELECT v FROM s;").await;
    assert!(error.contains("have no key"), "{error}");
    world.run(&view("WITH (primary_key = 'window_start, k')")).await;
    let entry = fs::read_to_string(world.path("home/tables/d/_delta_log/00000000000000000000.json")).unwrap();
    assert!(entry.contains("\"watershed.primary_key\":\"window_start,k\""), "{entry}");
    assert!(entry.contains("\"partitionColumns\":[\"window_start_day\"]"), "{entry}");
}

#[tokio::test]
async fn nothing_is_done_when_a_later_statement_of_the_text_is_wrong() {
    let world = World::new().await;
    let error = world
        .refused("CREATE MATERIALIZED VIEW d AS SELECT ts FROM s; CREATE MATERIALIZED VIEW e AS SELECT nothing FROM s;")
        .await;
    assert!(error.contains("nothing"), "{error}");
    assert!(world.engine().jobs().await.unwrap().is_empty());
    let error = world.refused("CREATE MATERIALIZED VIEW d AS SELECT ts FROM s; SELECT (;").await;
    assert!(error.starts_with("line 2"), "{error}");
}

#[tokio::test]
async fn a_later_job_reads_what_an_earlier_one_of_the_text_made() {
    let world = World::new().await;
    let sql = "CREATE MATERIALIZED VIEW hourly AS SELECT window_start, window_end, count(*) AS n \
               FROM TUMBLE(s, ts, INTERVAL '1 hour') GROUP BY window_start, window_end; \
               CREATE SOURCE h (WATERMARK FOR window_start AS window_start) WITH (lake = '${HOURLY}'); \
               CREATE MATERIALIZED VIEW daily AS SELECT date_trunc('day', window_start) AS day, sum(n) AS n FROM h GROUP BY 1;";
    let engine = Engine::builder()
        .home(world.path("home"))
        .variables([("LAKE", world.path("lake")), ("HOURLY", world.path("home/tables/hourly"))])
        .build()
        .unwrap();
    engine.execute(&format!("{SOURCE} {sql}")).await.unwrap();
    assert_eq!(world.text("SELECT n FROM daily ORDER BY day").await, "24 24 24");
    let error = world.refused("CREATE MATERIALIZED VIEW x AS SELECT n FROM hourly;").await;
    assert!(error.contains("hourly is a table, and a job follows a source"), "{error}");
}

#[tokio::test]
async fn queries_and_plans_stand_in_a_text_too() {
    let world = World::new().await;
    let outcomes = world.run("SELECT count(*) AS n FROM s; DESCRIBE s; EXPLAIN SELECT k FROM s;").await;
    let [Outcome::Done(_), Outcome::Rows { batches, .. }, Outcome::Text(columns), Outcome::Text(plan)] = &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
    assert!(columns.contains("event time"), "{columns}");
    assert!(plan.contains("batch query"), "{plan}");
    assert!(world.engine().query("SELECT 1; SELECT 2").await.unwrap_err().to_string().contains("one query at a time"));
}
