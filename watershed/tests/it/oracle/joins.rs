//! Joins with dimension tables, by the full check; and what a table's change between two runs comes to.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use watershed_core::epoch::{Manifest, Position};
use watershed_core::history::Version;
use watershed_lake::Stores;

use super::check::{Case, World, check, manifests, once, table, variants};
use super::compare::rows;
use super::facts::{Facts, Shape};
use super::tables::{Format, Table};

fn rows_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

/// Keys narrower than the facts', one of them twice, one NULL, one that no fact has; key 0 is missing.
fn keys(format: Format) -> Table {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2), Some(2), Some(3), None, Some(77)]))),
        (
            "name",
            Arc::new(StringArray::from(vec![Some("one"), Some("two"), Some("due"), None, Some("none"), Some("?")])),
        ),
        ("weight", Arc::new(Float64Array::from(vec![Some(0.5), Some(2.0), None, Some(1.0), Some(9.0), Some(9.0)]))),
    ];
    Table::new("keys", rows_of(columns), format)
}

fn texts(format: Format) -> Table {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("naïve"), None]))),
        ("common", Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), Some(true)]))),
    ];
    Table::new("texts", rows_of(columns), format)
}

fn ranges(format: Format) -> Table {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("low", Arc::new(Int64Array::from(vec![-10, 0, 10, 20]))),
        ("high", Arc::new(Int64Array::from(vec![0, 10, 20, 30]))),
        ("range", Arc::new(StringArray::from(vec!["below", "small", "middle", "large"]))),
    ];
    Table::new("ranges", rows_of(columns), format)
}

fn untidy(seed: u64) -> Facts {
    Facts::draw(Shape { leaks: 60, timeless: 15, holes: 3, partitions: 8, ..Shape::default() }, seed)
}

macro_rules! joins {
    ($($name:ident: $tables:expr, $sql:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let facts = untidy(700 + stringify!($name).len() as u64);
            if let Err(e) = check(&Case::over([("a", facts)], $sql).joining($tables)).await {
                panic!("{e}");
            }
        }
    )*};
}

joins! {
    inner: [keys(Format::Delta)], "SELECT window_start, window_end, name, count(*) AS n, sum(v * weight) AS total FROM \
        TUMBLE(a, ts, INTERVAL '3 hours') JOIN keys ON a.k = keys.id GROUP BY window_start, window_end, name";
    left: [keys(Format::Csv)], "SELECT window_start, window_end, coalesce(name, 'unknown') AS name, count(*) AS n, count(id) AS \
        known FROM TUMBLE(a, ts, INTERVAL '1 day') LEFT JOIN keys ON k = id AND weight < 3 GROUP BY window_start, window_end, \
        coalesce(name, 'unknown')";
    the_table_comes_first: [keys(Format::Parquet)], "SELECT window_start, window_end, max(weight) AS w, count(*) AS n FROM \
        keys RIGHT JOIN TUMBLE(a, ts, INTERVAL '5 hours') ON id = k GROUP BY window_start, window_end";
    semi: [keys(Format::Csv)], "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '2 hours') WHERE k \
        IN (SELECT id FROM keys WHERE weight > 0.7) GROUP BY window_start, window_end, k";
    anti: [keys(Format::Delta)], "SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '2 hours') WHERE \
        NOT EXISTS (SELECT 1 FROM keys WHERE keys.id = a.k) GROUP BY window_start, window_end, k";
    exists_or_not: [keys(Format::Parquet)], "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(a, ts, INTERVAL \
        '2 hours') WHERE v > 50 OR EXISTS (SELECT 1 FROM keys WHERE keys.id = a.k AND keys.weight > a.n) GROUP BY window_start, \
        window_end";
    three_tables: [keys(Format::Csv), texts(Format::Parquet), ranges(Format::Delta)], "SELECT window_start, window_end, name, \
        common, range, count(*) AS n, avg(v) AS mean FROM TUMBLE(a, ts, INTERVAL '6 hours') JOIN keys ON k = id LEFT JOIN texts \
        ON s = text JOIN ranges ON n >= low AND n < high GROUP BY window_start, window_end, name, common, range";
    commas: [keys(Format::Delta), texts(Format::Csv)], "SELECT window_start, window_end, name, count(*) AS n FROM texts, keys, \
        TUMBLE(a, ts, INTERVAL '12 hours') WHERE k = id AND s = text AND common GROUP BY window_start, window_end, name";
    over_an_aggregate_of_the_table: [keys(Format::Parquet)], "SELECT window_start, window_end, kinds, count(*) AS n FROM \
        TUMBLE(a, ts, INTERVAL '8 hours') JOIN (SELECT id, count(DISTINCT name) AS kinds FROM keys GROUP BY id ORDER BY id LIMIT \
        3) AS t ON t.id = k GROUP BY window_start, window_end, kinds";
    cross: [ranges(Format::Csv)], "SELECT window_start, window_end, range, sum(n + low) AS total FROM \
        TUMBLE(a, ts, INTERVAL '1 day') CROSS JOIN ranges GROUP BY window_start, window_end, range";
    stateless: [keys(Format::Delta), texts(Format::Delta)], "SELECT ts, k, name, common, v * weight AS weighed FROM a LEFT JOIN \
        keys ON k = id LEFT JOIN texts ON s = text WHERE v > 0 OR v IS NULL";
    stateless_semi: [texts(Format::Parquet)], "SELECT ts, s FROM a WHERE s IN (SELECT text FROM texts) AND NOT EXISTS (SELECT 1 \
        FROM texts WHERE text = s AND NOT common)";
}

/// Two runs over parts of a history, the table changed in between.
async fn refreshed(format: Format) {
    let sql = "SELECT ts, k, name FROM a JOIN keys ON k = id";
    let before = keys(format);
    let renamed: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5]))),
        ("name", Arc::new(StringArray::from(vec!["ONE", "TWO", "THREE", "FOUR", "FIVE"]))),
        ("weight", Arc::new(Float64Array::from(vec![1.0; 5]))),
    ];
    let after = Table::new("keys", rows_of(renamed), format);
    let case = Case::over([("a", Facts::draw(Shape::default(), 9))], sql).joining([before]);
    let world = World::new(&case);
    let facts = &case.sources["a"];
    let lake = world.folder.path().join("a");
    fs::remove_dir_all(&lake).unwrap();
    let half = facts.files.iter().position(|f| f.partition == 3).unwrap();
    let run = async |number: usize| {
        let engine = world.engine(&variants()[1], number, Stores::default());
        once(&engine, &world.text(&case), false, number > 1).await.unwrap()
    };
    (0..half).for_each(|file| facts.write_file(&lake, file));
    run(0).await;
    let first = versions(&world);
    let old = rows(&table(&world.view(), "ts, k, name").await);
    assert!(!old.is_empty() && old.iter().all(|row| !format!("{row:?}").contains("TWO")), "{old:?}");

    after.write_version(world.folder.path(), 1);
    let nothing = run(1).await;
    assert!(nothing.nothing_new, "a table's change alone is no fact: {nothing:?}");
    (half..facts.files.len()).for_each(|file| facts.write_file(&lake, file));
    run(2).await;
    let second = versions(&world);
    let all = rows(&table(&world.view(), "ts, k, name").await);
    let is_old =
        |row: &&Vec<_>| ["one", "two", "due"].iter().any(|name| format!("{row:?}").contains(&format!("\"{name}\"")));
    let is_new =
        |row: &&Vec<_>| ["ONE", "TWO", "THREE", "FOUR", "FIVE"].iter().any(|name| format!("{row:?}").contains(name));
    let kept = all.iter().filter(|row| old.contains(*row)).count();
    assert_eq!(kept, old.len(), "rows that were there stay as they were");
    assert!(all.iter().filter(is_old).all(|row| old.contains(row)), "a new row has the old table's name");
    assert!(all.iter().filter(is_new).count() > 10, "{all:?}");

    assert_ne!(first, second);
    match (format, second) {
        (Format::Delta, Some(Version::Delta { version, .. })) => assert_eq!(version, 1),
        (Format::Csv | Format::Parquet, Some(Version::Listing { .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// The version of `keys` in the newest checkpoint.
fn versions(world: &World) -> Option<Version> {
    let newest = manifests(&world.home()).pop().unwrap();
    let manifest: Manifest = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
    let position: &Position = &manifest.positions["keys"];
    assert_eq!(position, &Position { version: position.version.clone(), ..Position::default() });
    position.version.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_table_is_refreshed_between_runs() {
    refreshed(Format::Delta).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_refreshed_between_runs() {
    refreshed(Format::Csv).await;
    refreshed(Format::Parquet).await;
}

/// The newest checkpoint is lost after its commit: the run repeats its steps only over the same table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_checkpoint_is_not_replayed_over_another_table() {
    for changed in [false, true] {
        let sql = "SELECT ts, k, name FROM a JOIN keys ON k = id";
        let case = Case::over([("a", Facts::draw(Shape::default(), 11))], sql).joining([keys(Format::Delta)]);
        let world = World::new(&case);
        let engine = |number| world.engine(&variants()[1], number, Stores::default());
        once(&engine(0), &world.text(&case), false, false).await.unwrap();
        let whole = rows(&table(&world.view(), "ts, k, name").await).len();
        let newest = manifests(&world.home()).pop().unwrap();
        fs::write(&newest, "torn").unwrap();
        if changed {
            keys(Format::Delta).write_version(world.folder.path(), 1);
        }
        let again = once(&engine(1), &world.text(&case), false, false).await;
        match (changed, again) {
            (false, Ok(_)) => assert_eq!(rows(&table(&world.view(), "ts, k, name").await).len(), whole),
            (true, Err(e)) => {
                for part in ["they joined keys at version 0", "stands at version 1", "CREATE OR REPLACE"] {
                    assert!(e.contains(part), "{e}");
                }
            }
            (_, other) => panic!("changed: {changed}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_joins_what_another_job_of_the_text_made() {
    let case = Case::over([("a", Facts::draw(Shape::default(), 12))], "SELECT k, count(*) AS n FROM a GROUP BY k");
    let world = World::new(&case);
    let (home, lake) = (world.home(), world.folder.path().join("a"));
    let engine = || watershed::Engine::builder().home(home.display().to_string()).build().unwrap();
    let text = format!(
        "CREATE SOURCE a (WATERMARK FOR ts AS ts) WITH (lake = '{}');
         CREATE MATERIALIZED VIEW daily AS SELECT window_start AS day, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '1 day') \
         GROUP BY window_start;
         CREATE TABLE marks (k BIGINT, ts TIMESTAMP);
         INSERT INTO marks SELECT k, ts FROM a WHERE n > 38;
         CREATE VIEW both_of_them AS SELECT m.k, m.ts FROM marks m JOIN daily d ON date_trunc('day', m.ts) = d.day;
         CREATE MATERIALIZED VIEW shares AS SELECT a.ts, d.n FROM a JOIN daily d ON date_trunc('day', a.ts) = d.day \
         WHERE EXISTS (SELECT 1 FROM both_of_them b WHERE b.k = a.k);",
        lake.display()
    );
    engine().execute(&text).await.unwrap();
    let count = async |sql: &str| {
        let batches = engine().query(sql).await.unwrap();
        format!("{:?}", batches[0].column(0).slice(0, 1))
    };
    let shares = count("SELECT count(*) FROM shares").await;
    let expected = count(
        "SELECT count(*) FROM a JOIN daily d ON date_trunc('day', a.ts) = d.day WHERE a.ts < (SELECT max(day) FROM daily) + \
         INTERVAL '1 day' AND a.k IN (SELECT k FROM both_of_them)",
    )
    .await;
    assert_eq!(shares, expected);
    assert!(!shares.contains("  0,"), "{shares}");
    let refused = engine().execute("DROP TABLE marks").await.unwrap_err().to_string();
    assert!(refused.contains("marks is read by"), "{refused}");
    // Said again it finds nothing new, tables that are joined or not.
    engine().execute(&text).await.unwrap();
}
