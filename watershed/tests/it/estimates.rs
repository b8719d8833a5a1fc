//! What a backfill was expected to cost, against what it then did: within a factor of two.

use serde_json::Value;
use tempfile::TempDir;
use watershed::{Engine, Estimate, LoadRequest, Outcome};
use watershed_core::time::{EventTime, Span};
use watershed_lake::{Stores, table_info};
use watershed_runtime::Summary;

use super::oracle::facts::{Facts, Shape};

/// At most twice, or half, of what is there; counts so small that one window more is too much are let go.
fn near(what: &str, expected: u64, reached: u64, small: u64) -> Result<(), String> {
    let ratio = expected as f64 / (reached as f64).max(1.0);
    let fits = (0.5..=2.0).contains(&ratio) || (expected <= small && reached <= small);
    if fits { Ok(()) } else { Err(format!("{what}: {expected} expected, {reached} reached")) }
}

fn job(outcomes: Vec<Outcome>) -> Summary {
    let mut jobs = outcomes.into_iter().filter_map(|o| match o {
        Outcome::Job(summary) => Some(*summary),
        _ => None,
    });
    jobs.next_back().expect("a job ran")
}

/// Estimates a view, runs it, and holds the one against the other.
async fn holds(engine: impl Fn() -> Engine, sources: &str, view: &str, location: &str) -> Result<(), String> {
    let text = format!("{sources}\nCREATE MATERIALIZED VIEW v WITH (location = '{location}') AS {view};");
    let plans = engine().estimate(&text, false).await.map_err(|e| e.to_string())?;
    assert!(!std::path::Path::new(location).exists(), "an estimate makes nothing");
    let estimate: Estimate = plans.last().and_then(|p| p.estimate.clone()).expect("an estimate");
    // An engine of its own, as a run has: it knows no footer that the sample has read.
    let engine = engine();
    let summary = job(engine.execute(&text).await.map_err(|e| e.to_string())?);
    let requests = engine.requests();
    let table = table_info(&Stores::default(), location).await.map_err(|e| e.to_string())?;
    let account = summary.run.account;
    let checks = [
        near("steps", estimate.steps, summary.run.slices, 2),
        near("files", estimate.files, account.files + account.pruned_files, 0),
        near("bytes", estimate.read_bytes, summary.run.bytes, 0),
        near("rows", estimate.rows, account.opened, 0),
        near("used", estimate.used_rows, account.used, 20),
        near("output rows", estimate.output_rows, table.rows.unwrap_or(0), 20),
        near("output bytes", estimate.output_bytes, table.bytes, 20_000),
        near("groups", estimate.peak_groups, summary.peak.groups as u64, 20),
        near("reads", estimate.requests.reads, requests.reads(), 0),
        near("writes", estimate.requests.writes, requests.writes(), 40),
        // Twice what a window's empty tables take: where an epoch ends while it is open, those of its frozen rows stand
        // beside those of the rows that still come. When epochs end is a matter of time.
        near("state", estimate.peak_bytes, summary.peak.bytes as u64, 40_000),
    ];
    let wrong: Vec<String> = checks.into_iter().filter_map(Result::err).collect();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{view}\n{}\n{estimate}\n{summary:?}", wrong.join("\n"))),
    }
}

const QUERIES: [&str; 6] = [
    "SELECT window_start, k, count(*) AS n, sum(v) AS total FROM TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, k",
    "SELECT window_start, s, max(n) AS most FROM TUMBLE(a, ts, INTERVAL '3 days') WHERE k > 1 GROUP BY window_start, s",
    "SELECT window_start, k, avg(v) AS mean FROM HOP(a, ts, INTERVAL '1 hour', INTERVAL '6 hours') GROUP BY window_start, k",
    "SELECT window_start, window_end, count(*) AS n FROM CUMULATE(a, ts, INTERVAL '1 hour', INTERVAL '1 day') \
     GROUP BY window_start, window_end",
    "SELECT ts, k, n * 2 AS n FROM a WHERE k > 2",
    "SELECT date_trunc('day', window_start) AS day, max(c) AS most FROM (SELECT window_start, k, count(*) AS c FROM \
     TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, k) GROUP BY date_trunc('day', window_start)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drawn_facts() {
    drawn(None).await;
}

/// The same facts in as many steps as they have partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drawn_facts_partition_by_partition() {
    drawn(Some("0 s")).await;
}

async fn drawn(slice: Option<&str>) {
    let shape = Shape { partitions: 30, files: 2, rows: 600, ..Shape::default() };
    for (i, query) in QUERIES.iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        Facts::draw(shape, 4_000 + i as u64).write(&folder.path().join("a"));
        let engine = || {
            let engine = Engine::builder().home(path("home")).setting("parallelism", "2");
            slice.into_iter().fold(engine, |engine, slice| engine.setting("slice", slice)).build().unwrap()
        };
        let source = format!("CREATE SOURCE a (WATERMARK FOR ts AS ts) WITH (lake = '{}');", path("a"));
        if let Err(e) = holds(engine, &source, query, &path("view")).await {
            panic!("{e}");
        }
    }
}

/// The demo's flights, and its views.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_of_the_demo() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let flights = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/flights.parquet").to_string();
    let engine = || Engine::builder().setting("parallelism", "2");
    let load = LoadRequest {
        files: vec![flights],
        into: path("flights"),
        time_column: Some("date".into()),
        partition_by: Some("day".into()),
        ..LoadRequest::default()
    };
    engine().home(path("home")).build().unwrap().load(&load).await.unwrap();
    let source = format!("CREATE SOURCE flights (WATERMARK FOR date AS date) WITH (lake = '{}');", path("flights"));
    let views = [
        "SELECT window_start, window_end, origin, count(*) AS flights, avg(delay) AS mean_delay FROM \
         TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, window_end, origin",
        "SELECT window_start, window_end, origin, count(*) AS flights FROM \
         HOP(flights, date, INTERVAL '1 hour', INTERVAL '3 hours') GROUP BY window_start, window_end, origin",
        "SELECT date, origin, destination, delay FROM flights WHERE delay >= 60",
    ];
    for (i, view) in views.iter().enumerate() {
        let engine = || engine().home(path(&format!("home{i}"))).build().unwrap();
        if let Err(e) = holds(engine, &source, view, &path(&format!("view{i}"))).await {
            panic!("{e}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_before_it_is_run() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut csv = "at,k\n".to_string();
    for i in 0..240 {
        let time = EventTime(1_714_521_600_000_000 + i * Span::HOUR.0);
        csv += &format!("{time},{}\n", i % 5);
    }
    std::fs::write(folder.path().join("a.csv"), csv).unwrap();
    let engine = Engine::builder().home(path("home")).build().unwrap();
    let load = LoadRequest {
        files: vec![path("a.csv")],
        into: path("lake"),
        time_column: Some("at".into()),
        partition_by: Some("day".into()),
        ..LoadRequest::default()
    };
    engine.load(&load).await.unwrap();
    let text = format!(
        "CREATE SOURCE a (WATERMARK FOR at AS at) WITH (lake = '{}');\n\
         CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n FROM TUMBLE(a, at, INTERVAL '1 hour') \
         WHERE at_day >= DATE '2024-05-08' GROUP BY window_start;",
        path("lake")
    );
    let file = path("a.sql");
    std::fs::write(&file, &text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"));
        let out = command.args(["--home", &path("home")]).args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let planned: Value = serde_json::from_str(run(&["plan", &file, "--json"]).lines().next().unwrap()).unwrap();
    let estimate = &planned["estimate"];
    assert!(planned["plan"].as_str().unwrap().contains("materialized view v"), "{planned}");
    assert_eq!(
        (&estimate["files"], &estimate["sources"][0]["pruned_files"]),
        (&Value::from(3), &Value::from(7)),
        "{planned}"
    );
    assert_eq!(
        (&estimate["rows"], &estimate["sources"][0]["rows"]),
        (&Value::from(72), &Value::from(240)),
        "{planned}"
    );
    assert_eq!(estimate["resumes"], false, "{planned}");
    assert!(run(&["plan", &file]).contains("backfill of v\n"));
    assert!(!run(&["plan", &file, "--no-estimate"]).contains("backfill of"));
    assert!(run(&["jobs"]).lines().count() == 1, "a plan makes nothing");

    engine.execute(&text).await.unwrap();
    let outcomes = engine.execute("EXPLAIN BACKFILL v").await.unwrap();
    let [Outcome::Text(told)] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(told.contains("backfill of v, going on from its checkpoint") && told.contains("0 steps"), "{told}");
}
