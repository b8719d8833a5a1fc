//! Shapes of histories' time: months, days of New York, patterned paths, tables without partitions, and partitions that are
//! cut or joined, each by the full check.

use watershed_core::time::Grain;
use watershed_lake::Stores;

use super::check::{Case, World, check, check_by, once, variant};
use super::facts::{Facts, Layout, Shape};

const SQL: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM TUMBLE(a, ts, INTERVAL '7 hours') \
                   GROUP BY window_start, window_end, k";

fn case(layout: Layout, shape: Shape, seed: u64) -> Case {
    let mut case = Case::over([("a", Facts::laid_out(layout, shape, seed))], SQL);
    case.options = layout.options().to_string();
    case
}

async fn holds(layout: Layout, partitions: i64) {
    let untidy = Shape { leaks: 60, timeless: 15, holes: 2, partitions, ..Shape::default() };
    for (shape, seed) in [(Shape { partitions, ..Shape::default() }, 40), (untidy, 41)] {
        let case = case(layout, shape, seed);
        check(&case).await.unwrap_or_else(|e| panic!("{layout:?}, seed {seed}: {e}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn months() {
    holds(Layout::Months, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_of_new_york() {
    holds(Layout::NewYork, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterned_paths() {
    holds(Layout::Pattern, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_without_partitions() {
    holds(Layout::Flat, 6).await;
}

/// What is partitioned by nothing is still read in as many slices as its files allow, and nothing of it is late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_partitions_is_cut_where_files_end() {
    let mut case = case(Layout::Flat, Shape { partitions: 9, files: 1, ..Shape::default() }, 42);
    case.sources.get_mut("a").unwrap().files.retain(|f| !f.rows.is_empty());
    let world = World::new(&case);
    let by_file = variant("", &[("slice", "0 s")], false, &[2]);
    let summary = once(&world.engine(&by_file, 0, Stores::default()), &world.text(&case), false, true).await.unwrap();
    assert!(summary.run.slices >= case.sources["a"].files.len() as u64, "{summary:?}");
    assert_eq!(summary.total.late, 0);
}

/// Slices narrower than partitions: files that follow each other in time are cut apart, others are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_partitions_are_cut_where_files_end() {
    let narrow = |name, restart, parallelism: &[usize]| {
        variant(name, &[("commit_interval", "0 s"), ("slice", "5 hours")], restart, parallelism)
    };
    let variants = [narrow("cut", false, &[2]), narrow("cut and restarted", true, &[2, 1])];
    let shape = Shape { files: 6, partitions: 4, rows: 60, ..Shape::default() };
    for (seed, leaks, timeless) in [(50, 0, 0), (51, 40, 15)] {
        let mut case = case(Layout::Hive(Grain::Day), Shape { leaks, timeless, ..shape }, seed);
        let facts = case.sources.remove("a").unwrap().in_order();
        case.sources.insert("a".into(), facts);
        check_by(&case, &variants).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let world = World::new(&case);
        let engine = world.engine(&variants[0], 0, Stores::default());
        let summary = once(&engine, &world.text(&case), false, true).await.unwrap();
        assert!(summary.run.slices > 6, "4 days, and more slices: {summary:?}");
    }
}

/// Left alone, small partitions are joined; the result is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_partitions_are_joined() {
    let plain = [variant("joined", &[], false, &[2]), variant("joined and restarted", &[], true, &[1, 3])];
    let shape = Shape { grain: Grain::Hour, partitions: 100, rows: 12, leaks: 40, ..Shape::default() };
    let case = case(Layout::Hive(Grain::Hour), shape, 60);
    check_by(&case, &plain).await.unwrap_or_else(|e| panic!("{e}"));
    let world = World::new(&case);
    let summary = once(&world.engine(&plain[0], 0, Stores::default()), &world.text(&case), false, false).await.unwrap();
    assert!(summary.run.slices < 5, "{summary:?}");
}

/// Sources of different grain, joined and cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_of_different_grain_joined_and_cut() {
    let sql = "SELECT window_start, window_end, k, count(*) AS n FROM \
         (SELECT window_start, window_end, k FROM TUMBLE(a, ts, INTERVAL '2 hours') \
          UNION ALL SELECT window_start, window_end, k + 100 AS k FROM TUMBLE(b, ts, INTERVAL '2 hours')) AS u \
         GROUP BY window_start, window_end, k";
    let month = Shape { partitions: 2, files: 8, rows: 80, leaks: 20, ..Shape::default() };
    let day = Shape { partitions: 40, rows: 20, leaks: 30, holes: 2, ..Shape::default() };
    let month = Facts::laid_out(Layout::Months, month, 70).in_order();
    let case = Case::over([("a", month), ("b", Facts::draw(day, 71))], sql);
    let by = |name, slice, restart| variant(name, &[("commit_interval", "0 s"), ("slice", slice)], restart, &[2, 1]);
    let variants = [by("joined", "9 days", false), by("cut", "36 hours", true), by("one by one", "0 s", false)];
    check_by(&case, &variants).await.unwrap_or_else(|e| panic!("{e}"));
}
