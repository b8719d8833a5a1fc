//! Histories that grow between runs: new partitions, and new files in partitions that were read before.

use std::fs;

use watershed::LoadRequest;
use watershed_core::time::Grain;
use watershed_lake::Stores;

use super::check::{Case, World, compare, once, table, variants};
use super::compare::rows;
use super::facts::{Dice, Facts, Layout, Shape};

const SQL: &str = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM TUMBLE(a, ts, INTERVAL '7 hours') \
                   GROUP BY window_start, window_end, k";

/// Files come in a drawn order, a few before each run. What comes too late is listed; all else is in the result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_come_later_are_used_or_listed() {
    let layouts = [Layout::Hive(Grain::Day), Layout::Months, Layout::NewYork, Layout::Pattern, Layout::Flat];
    let mut listed = 0;
    for (seed, layout) in (300..310).zip(layouts.into_iter().cycle()) {
        let shape = Shape { partitions: 8, files: 3, leaks: 30, ..Shape::default() };
        let mut case = Case::over([("a", Facts::laid_out(layout, shape, seed))], SQL);
        case.options = layout.options().to_string();
        let world = World::new(&case);
        let lake = world.folder.path().join("a");
        fs::remove_dir_all(&lake).unwrap();
        let facts = &case.sources["a"];
        let mut dice = Dice::new(seed);
        let mut left: Vec<usize> = (0..facts.files.len()).collect();
        let mut run = 0;
        while !left.is_empty() {
            // Mostly in order, now and then from further on: so that partitions fill up after they were read.
            for _ in 0..(1 + dice.below(4)).min(left.len() as u64) {
                let ahead = if dice.chance(300) { dice.below(left.len() as u64) as usize } else { 0 };
                facts.write_file(&lake, left.remove(ahead));
            }
            let engine = world.engine(&variants()[3], run, Stores::default());
            once(&engine, &world.text(&case), false, false)
                .await
                .unwrap_or_else(|e| panic!("{layout:?}, seed {seed}: {e}"));
            run += 1;
        }
        let engine = world.engine(&variants()[1], 0, Stores::default());
        let last = once(&engine, &world.text(&case), false, true).await.unwrap();
        listed += last.total.late;
        if let Err(e) = compare(&world, &case, &last, true).await {
            panic!("{layout:?}, seed {seed}: {e}");
        }
    }
    assert!(listed > 0, "nothing ever came too late");
}

/// A table without partitions is read on when rows are appended to it, in time order as they mostly are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_to_a_table_without_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let sql = format!(
        "CREATE SOURCE a (WATERMARK FOR ts AS ts) WITH (lake = '{}');\n\
         CREATE MATERIALIZED VIEW v WITH (location = '{}') AS SELECT window_start, window_end, count(*) AS n FROM \
         TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end",
        path("lake"),
        path("view")
    );
    let engine = || watershed::Engine::builder().home(path("home")).build().unwrap();
    for hour in 0..4 {
        let csv = path(&format!("{hour}.csv"));
        let rows: String = (0..20).map(|m| format!("2024-05-01T{hour:02}:{:02}:00,{m}\n", m * 3)).collect();
        fs::write(&csv, format!("ts,v\n{rows}")).unwrap();
        let load = LoadRequest { files: vec![csv], into: path("lake"), ..LoadRequest::default() };
        engine().load(&load).await.unwrap();
        let summary = once(&engine(), &sql, false, false).await.unwrap();
        assert_eq!((summary.total.rows, summary.total.late), ((hour + 1) * 20, 0), "after load {hour}: {summary:?}");
    }
    let last = once(&engine(), &sql, false, true).await.unwrap();
    assert_eq!(last.total.late, 0);
    let found = rows(&table(&path("view"), "n").await);
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|r| r == &[super::compare::Cell::Exact("20".into())]), "{found:?}");
}
