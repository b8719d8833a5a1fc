//! Queries over drawn facts, each by the full check.

use arrow::datatypes::{DataType, TimeUnit};
use watershed_core::time::Grain;
use watershed_lake::Stores;

use super::check::{Case, World, check, once, variants};
use super::facts::{Facts, Shape};

/// Facts as clean as facts get.
fn tidy() -> Facts {
    Facts::draw(Shape::default(), 1)
}

/// Leaks, NULL times and holes.
fn untidy(seed: u64) -> Facts {
    Facts::draw(Shape { leaks: 60, timeless: 15, holes: 3, partitions: 8, ..Shape::default() }, seed)
}

fn hourly(seed: u64) -> Facts {
    Facts::draw(Shape { grain: Grain::Hour, partitions: 40, rows: 25, leaks: 40, ..Shape::default() }, seed)
}

async fn holds(case: Case) {
    if let Err(e) = check(&case).await {
        panic!("{e}");
    }
}

macro_rules! cases {
    ($($name:ident: $facts:expr, $sql:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            holds(Case::over([("a", $facts)], $sql)).await;
        }
    )*};
}

cases! {
    tumble_an_hour: tidy(), "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total, avg(v) AS mean, min(v) AS low, \
        max(v) AS high FROM TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, k";
    tumble_untidy: untidy(2), "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM \
        TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, k";
    tumble_five_hours_across_partitions: untidy(3), "SELECT window_start, window_end, s, count(*) AS n, max(v) AS high FROM \
        TUMBLE(a, ts, INTERVAL '5 hours') GROUP BY window_start, window_end, s";
    tumble_two_days_over_hours: hourly(4), "SELECT window_start, window_end, k, count(v) AS n FROM \
        TUMBLE(a, ts, INTERVAL '2 days') GROUP BY window_start, window_end, k";
    tumble_without_keys: untidy(5), "SELECT window_start, window_end, count(*) AS n, sum(n) AS total FROM \
        TUMBLE(a, ts, INTERVAL '90 minutes') GROUP BY window_start, window_end";
    tumble_many_keys: untidy(6), "SELECT window_start, window_end, k, s, n, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, k, s, n";
    tumble_floats_as_keys: tidy(), "SELECT window_start, window_end, v, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end, v";
    distinct_and_filter: untidy(7), "SELECT window_start, window_end, k, count(DISTINCT n) AS kinds, sum(DISTINCT v) AS sums, \
        count(*) FILTER (WHERE v > 0) AS above, sum(v) FILTER (WHERE s = 'a') AS of_a FROM \
        TUMBLE(a, ts, INTERVAL '3 hours') GROUP BY window_start, window_end, k";
    several_distincts_and_moments: untidy(8), "SELECT window_start, window_end, count(DISTINCT k) AS keys, \
        count(DISTINCT s) AS texts, stddev(v) AS spread, var_pop(v) AS variance, median(v) AS middle, \
        bool_and(v > 0) AS all_above, corr(v, n) AS r FROM TUMBLE(a, ts, INTERVAL '12 hours') GROUP BY window_start, window_end";
    having: untidy(9), "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '2 hours') \
        GROUP BY window_start, window_end, k HAVING count(*) > 3 AND max(v) > 0";
    expressions_around: untidy(10), "SELECT window_start, window_end, k % 2 AS parity, round(sum(v) / count(*), 3) AS mean, \
        upper(max(s)) AS last, CASE WHEN count(*) > 5 THEN 'many' ELSE 'few' END AS size FROM \
        TUMBLE(a, ts, INTERVAL '4 hours') WHERE v IS NOT NULL GROUP BY window_start, window_end, k % 2";
    filtered: untidy(11), "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 hour') \
        WHERE k = 2 AND v > 10 GROUP BY window_start, window_end";
    filtered_by_time: tidy(), "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 hour') \
        WHERE ts >= TIMESTAMP '2026-01-03' GROUP BY window_start, window_end, k";
    string_minima: untidy(12), "SELECT window_start, window_end, min(s) AS low, max(s) AS high, count(s) AS n FROM \
        TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end";
    bits_and_booleans: untidy(22), "SELECT window_start, window_end, k, bit_and(n) AS ands, bit_or(n) AS ors, bit_xor(n) AS xors, \
        bool_or(v > 50) AS any_high FROM TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, k";
    regressions: untidy(23), "SELECT window_start, window_end, regr_slope(v, n) AS slope, covar_samp(v, n) AS covar, \
        stddev_pop(n) AS spread FROM TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end";
    a_subquery: untidy(13), "SELECT window_start, window_end, bucket, count(*) AS n FROM \
        (SELECT window_start, window_end, CASE WHEN v > 0 THEN 'up' ELSE 'down' END AS bucket FROM \
        TUMBLE(a, ts, INTERVAL '1 hour') WHERE s IS NOT NULL) AS t GROUP BY window_start, window_end, bucket";
    stateless: untidy(14), "SELECT ts, k, upper(s) AS s, v * 2 AS twice FROM a WHERE v > 20 OR v IS NULL";
    stateless_everything: hourly(15), "SELECT ts, k, s, v, n FROM a";
}

/// Event times as Delta has them, and as other writers do: windows are of the same type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_times_of_other_types() {
    let times = [
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
    ];
    let tumble = "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '5 hours') \
                  GROUP BY window_start, window_end, k HAVING window_start >= TIMESTAMP '2026-01-02'";
    let trunc = "SELECT date_trunc('day', ts) AS at, count(*) AS n FROM a WHERE ts < TIMESTAMP '2026-01-07' \
                 GROUP BY date_trunc('day', ts)";
    for time in times {
        for (sql, end) in [(tumble, "window_end"), (trunc, "at + INTERVAL '1 day'")] {
            let mut facts = untidy(24);
            facts.time = time.clone();
            let mut case = Case::over([("a", facts)], sql);
            case.end = end.into();
            check(&case).await.map(drop).unwrap_or_else(|e| panic!("{time}: {e}"));
        }
    }
}

/// Windows by their calendar start have no `window_end` in the output: its end is computed here.
async fn by_trunc(unit: &str, end: &str, facts: Facts) {
    let start = format!("date_trunc('{unit}', ts)");
    let sql = format!("SELECT {start} AS at, k, count(*) AS n, sum(v) AS total FROM a GROUP BY {start}, k");
    let mut case = Case::over([("a", facts)], &sql);
    case.end = format!("at + INTERVAL '{end}'");
    holds(case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn group_by_date_trunc() {
    by_trunc("hour", "1 hour", untidy(16)).await;
    by_trunc("day", "1 day", hourly(17)).await;
    by_trunc("week", "7 days", untidy(18)).await;
    by_trunc("month", "1 month", untidy(19)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_delay_waits() {
    let sql = "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 hour') \
               GROUP BY window_start, window_end, k";
    let mut case = Case::over([("a", untidy(20))], sql);
    case.delay = " - INTERVAL '7 hours'".into();
    holds(case).await;
}

/// Rows that leak further than `max_leak` are late, listed, and left out of the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_leaks_are_listed() {
    let facts = Facts::draw(Shape { leaks: 150, partitions: 8, ..Shape::default() }, 21);
    let sql = "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 hour') \
               WHERE v > -50 OR v IS NULL GROUP BY window_start, window_end, k";
    let mut case = Case::over([("a", facts)], sql);
    case.options = ", max_leak = '1 hour'".into();
    let world = World::new(&case);
    let engine = world.engine(&variants()[1], 0, Stores::default());
    let summary = once(&engine, &world.text(&case), false, false).await.unwrap();
    assert!(summary.total.late > 10, "the facts leak further than is waited for: {summary:?}");
    holds(case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unions_of_sources_of_different_grain_and_length() {
    let day = Facts::draw(Shape { partitions: 3, leaks: 30, ..Shape::default() }, 30);
    let sql = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM \
         (SELECT window_start, window_end, k, v FROM TUMBLE(a, ts, INTERVAL '2 hours') \
          UNION ALL SELECT window_start, window_end, k + 100 AS k, v FROM TUMBLE(b, ts, INTERVAL '2 hours')) AS u \
         GROUP BY window_start, window_end, k";
    holds(Case::over([("a", day), ("b", hourly(31))], sql)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_read_twice() {
    let sql = "SELECT window_start, window_end, count(*) AS n FROM \
         (SELECT window_start, window_end FROM TUMBLE(a, ts, INTERVAL '1 hour') WHERE v > 0 \
          UNION ALL SELECT window_start, window_end FROM TUMBLE(a, ts, INTERVAL '1 hour') WHERE k = 1) AS u \
         GROUP BY window_start, window_end";
    holds(Case::over([("a", Facts::draw(Shape { leaks: 60, partitions: 8, ..Shape::default() }, 32))], sql)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateless_union() {
    let sql = "SELECT ts, k FROM a WHERE k > 1 UNION ALL SELECT ts, n AS k FROM b";
    let end_together = Shape { grain: Grain::Hour, partitions: 8 * 24, rows: 3, ..Shape::default() };
    holds(Case::over([("a", untidy(33)), ("b", Facts::draw(end_together, 34))], sql)).await;
}
