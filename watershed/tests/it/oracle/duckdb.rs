//! Expected rows from DuckDB, over SQL that uses none of our forms: an engine that shares no code with ours reads the same
//! Parquet files.

use std::process::Command;

use watershed_lake::Stores;

use super::check::{Case, World, once, table, variants};
use super::compare::{Cell, Rows, rows, same};
use super::facts::{Facts, Shape};

/// Answers a query over a folder of Parquet files known as `a`; times as microseconds.
const PROGRAM: &str = r#"
import datetime, duckdb, json, sys
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
db.execute(f"CREATE VIEW a AS SELECT * FROM read_parquet('{sys.argv[1]}/*/*.parquet', hive_partitioning = false)")
def cell(v):
    if isinstance(v, datetime.date) and not isinstance(v, datetime.datetime):
        v = datetime.datetime(v.year, v.month, v.day)
    if isinstance(v, datetime.datetime):
        d = v - datetime.datetime(1970, 1, 1)
        return str((d.days * 86400 + d.seconds) * 1000000 + d.microseconds)
    return v
print(json.dumps([[cell(v) for v in row] for row in db.execute(sys.argv[2]).fetchall()]))
"#;

/// `None` where there is no DuckDB.
fn ask(folder: &str, sql: &str) -> Option<Rows> {
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with duckdb (make test sets it up)");
        return None;
    };
    let output = Command::new(python).args(["-c", PROGRAM, folder, sql]).output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Vec<Vec<serde_json::Value>> = serde_json::from_slice(&output.stdout).unwrap();
    let cell = |value: serde_json::Value| match value {
        serde_json::Value::Null => Cell::Null,
        serde_json::Value::Number(n) if n.is_f64() => Cell::Float(n.as_f64().unwrap()),
        serde_json::Value::String(s) => Cell::Exact(s),
        other => Cell::Exact(other.to_string()),
    };
    Some(answer.into_iter().map(|row| row.into_iter().map(cell).collect()).collect())
}

/// Our view, run with an epoch a step, against DuckDB's answer.
async fn agrees(seed: u64, columns: &str, ours: &str, theirs: &str) {
    let shape = Shape { leaks: 40, holes: 2, partitions: 30, ..Shape::default() };
    let mut case = Case::over([("a", Facts::draw(shape, seed))], ours);
    case.options = ", max_leak = '4 days'".into();
    let world = World::new(&case);
    let folder = world.folder.path().join("a").display().to_string();
    let Some(expected) = ask(&folder, theirs) else { return };
    assert!(expected.len() > 20, "the answer has too few rows to show anything: {}", expected.len());
    let engine = world.engine(&variants()[1], 0, Stores::default());
    let summary = once(&engine, &world.text(&case), false, true).await.unwrap();
    assert_eq!(summary.total.late, 0, "the facts leak less than is waited for");
    let found = rows(&table(&world.view(), columns).await);
    if let Err(e) = same(expected, found) {
        panic!("{ours}\n{theirs}\n{e}");
    }
}

macro_rules! agree {
    ($($name:ident: $seed:expr, $columns:expr, $ours:expr, $theirs:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            agrees($seed, $columns, $ours, $theirs).await;
        }
    )*};
}

agree! {
    hours: 101, "window_start, window_end, k, n, total, mean, low, high",
        "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, max(v) AS high FROM \
         TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, k",
        "SELECT date_trunc('hour', ts), date_trunc('hour', ts) + INTERVAL 1 hour, k, count(*), sum(v)::DOUBLE, avg(v), min(v), \
         max(v) FROM a GROUP BY ALL";
    seven_hours: 102, "window_start, window_end, s, n, kinds",
        "SELECT window_start, window_end, s, count(*) AS n, count(DISTINCT k) AS kinds FROM TUMBLE(a, ts, INTERVAL '7 hours') \
         GROUP BY window_start, window_end, s",
        "SELECT time_bucket(INTERVAL 7 hours, ts, TIMESTAMP '1970-01-01'), \
         time_bucket(INTERVAL 7 hours, ts, TIMESTAMP '1970-01-01') + INTERVAL 7 hours, s, count(*), count(DISTINCT k) FROM a \
         GROUP BY ALL";
    two_days_filtered: 103, "window_start, k, above, middle",
        "SELECT window_start, window_end, k, count(*) FILTER (WHERE v > 0) AS above, median(v) AS middle FROM \
         TUMBLE(a, ts, INTERVAL '2 days') WHERE n <> 3 GROUP BY window_start, window_end, k HAVING count(*) > 1",
        "SELECT time_bucket(INTERVAL 2 days, ts, TIMESTAMP '1970-01-01'), k, count(*) FILTER (v > 0), median(v) FROM a \
         WHERE n <> 3 GROUP BY ALL HAVING count(*) > 1";
    weeks_by_trunc: 104, "at, k, n",
        "SELECT date_trunc('week', ts) AS at, k, count(*) AS n FROM a GROUP BY date_trunc('week', ts), k",
        "SELECT date_trunc('week', ts)::TIMESTAMP, k, count(*) FROM a GROUP BY ALL";
    minutes_by_trunc: 105, "at, s, spread",
        "SELECT date_trunc('minute', ts) AS at, s, stddev_pop(v) AS spread FROM a WHERE v IS NOT NULL \
         GROUP BY date_trunc('minute', ts), s",
        "SELECT date_trunc('minute', ts), s, stddev_pop(v) FROM a WHERE v IS NOT NULL GROUP BY ALL";
    without_state: 106, "ts, k, twice",
        "SELECT ts, k, v * 2 AS twice FROM a WHERE v > 20 AND s LIKE '%a%'",
        "SELECT ts, k, v * 2 FROM a WHERE v > 20 AND s LIKE '%a%'";
}
