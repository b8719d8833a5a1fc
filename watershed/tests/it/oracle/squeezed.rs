//! Memory so short that state goes to disk: the same answers.

use super::check::{Case, Variant, check_by, variant};
use super::facts::{Facts, Shape};

const QUERIES: [&str; 3] = [
    "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total, min(s) AS first FROM \
     TUMBLE(a, ts, INTERVAL '50 hours') GROUP BY window_start, window_end, k",
    "SELECT window_start, window_end, k, n % 7 AS bucket, count(DISTINCT v) AS kinds, array_agg(n ORDER BY n) AS all_n \
     FROM TUMBLE(a, ts, INTERVAL '3 days') GROUP BY window_start, window_end, k, n % 7",
    "SELECT window_start, window_end, count(*) AS n, sum(v) AS total FROM TUMBLE(a, ts, INTERVAL '1 day') \
     GROUP BY window_start, window_end",
];

/// Far less than what the groups take.
fn squeezed() -> [Variant; 2] {
    let short = [("memory_limit", "700 kB"), ("slice", "0 s"), ("commit_interval", "0 s")];
    [variant("squeezed", &short, false, &[2]), variant("squeezed and restarted", &short, true, &[2, 1, 3])]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_on_disk_gives_the_same_answers() {
    for (seed, sql) in QUERIES.into_iter().enumerate() {
        let shape = Shape { rows: 6_000, keys: 4_000, leaks: 3, ..Shape::default() };
        let case = Case::over([("a", Facts::draw(shape, 3_000 + seed as u64))], sql);
        check_by(&case, &squeezed()).await.unwrap_or_else(|e| panic!("{e}"));
    }
}
