//! Random streams of changes against a map in memory: folds, moves between partitions, restarts, commits that are redone
//! from what was written alone, a second writer and a compaction that get in between.

use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use watershed_core::clock::SystemClock;
use watershed_core::sink::{Committed, Sink};
use watershed_lake::changes::{Since, changes};
use watershed_lake::upkeep::{CompactOptions, Compacted, RowOrder, compact as compact_table};
use watershed_lake::{DeltaSink, KeySpec, Merge, WriteMode};

use super::*;
use crate::fixtures::{DAY, entry, put_entry};

/// What happens before the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    /// The writer begins anew, with nothing but the table.
    Restart,
    /// The commit is redone by a writer that has not written it.
    Redo,
    /// Another writer of the same table commits changes of its own first.
    Another,
    /// Another rewrites what can be rewritten into one file a partition.
    Compaction,
}

#[derive(Clone, Debug)]
struct Step {
    batches: Vec<Vec<Op>>,
    between: Between,
    others: Vec<Op>,
}

#[derive(Clone, Debug)]
struct Case {
    by: &'static str,
    key: KeySpec,
    /// The table keeps a change data feed.
    feed: bool,
    steps: Vec<Step>,
}

impl Case {
    async fn sink(&self, lake: &Lake) -> DeltaSink {
        static SEED: AtomicU64 = AtomicU64::new(7_000_000);
        let mut spec = spec(self.by, self.key.clone());
        if self.feed {
            spec.properties.insert("delta.enableChangeDataFeed".into(), "true".into());
        }
        let seed = SEED.fetch_add(1, Ordering::SeqCst);
        crate::fixtures::open(&lake.stores, &lake.at("t"), spec, seed, Create::Now).await.unwrap()
    }
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![1 => Just(-1), 3 => 0..1000i64];
    (0..12i64, 0..3i64, value, 0..9i64, prop::bool::weighted(0.25)).prop_map(|(key, day, value, sequence, delete)| Op {
        key,
        ts: day * DAY + key,
        value,
        sequence,
        delete,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let between = prop_oneof![
        3 => Just(Between::Nothing),
        1 => Just(Between::Restart),
        1 => Just(Between::Redo),
        1 => Just(Between::Another),
        1 => Just(Between::Compaction),
    ];
    (prop::collection::vec(prop::collection::vec(op(), 0..8), 1..4), between, prop::collection::vec(op(), 1..6))
        .prop_map(|(batches, between, others)| Step { batches, between, others })
}

fn case() -> impl Strategy<Value = Case> {
    let by = prop_oneof![Just(""), Just("day(ts)"), Just("id"), Just("v")];
    let names = prop_oneof![Just(vec!["id"]), Just(vec!["id", "ts"])];
    let manner = prop_oneof![
        2 => Just((false, Merge::Replace, WriteMode::MergeOnRead)),
        2 => Just((true, Merge::Replace, WriteMode::MergeOnRead)),
        2 => Just((false, Merge::Partial, WriteMode::MergeOnRead)),
        1 => Just((false, Merge::Replace, WriteMode::CopyOnWrite)),
        1 => Just((false, Merge::Partial, WriteMode::CopyOnWrite)),
    ];
    let steps = prop::collection::vec(step(), 1..9);
    (by, names, manner, any::<bool>(), steps).prop_map(|(by, names, (sequenced, merge, write_mode), feed, steps)| {
        let columns = names.into_iter().map(String::from).collect();
        let sequence_by = sequenced.then(|| "n".to_string());
        Case { by, key: KeySpec { columns, sequence_by, merge, write_mode, ..key() }, feed, steps }
    })
}

/// The map, which knows what was deleted when.
#[derive(Clone, Default)]
pub(super) struct Model {
    rows: BTreeMap<Vec<i64>, (Option<Op>, i64)>,
}

impl Model {
    pub(super) fn take(&mut self, key: &KeySpec, op: &Op) {
        let of = if key.columns.len() == 2 { vec![op.key, op.ts] } else { vec![op.key] };
        if key.sequence_by.is_some() && self.rows.get(&of).is_some_and(|(_, known)| *known > op.sequence) {
            return;
        }
        let mut op = *op;
        if let (Merge::Partial, -1, Some((Some(old), _))) = (key.merge, op.value, self.rows.get(&of)) {
            op.value = old.value;
        }
        self.rows.insert(of, ((!op.delete).then_some(op), op.sequence));
    }

    pub(super) fn rows(&self) -> Vec<(i64, i64, i64, i64)> {
        let live = self.rows.values().filter_map(|(op, _)| *op);
        let mut rows: Vec<_> = live.map(|op| (op.key, op.ts, op.value, op.sequence)).collect();
        rows.sort_unstable();
        rows
    }
}

/// All rows that can be seen, doubles included.
async fn seen(lake: &Lake) -> Vec<(i64, i64, i64, i64)> {
    let mut seen = visible(lake, "t").await;
    seen.sort_unstable();
    seen
}

async fn run(case: &Case) {
    let lake = Lake::new();
    let mut writer = case.sink(&lake).await;
    let mut model = Model::default();
    let (mut epoch, mut last) = (0, None);
    for (number, step) in case.steps.iter().enumerate() {
        let prepared = prepare(&writer, &step.batches).await.unwrap();
        if prepared.files.is_empty() {
            continue;
        }
        match step.between {
            Between::Nothing => {}
            Between::Restart | Between::Redo => writer = case.sink(&lake).await,
            Between::Another => {
                let other = case.sink(&lake).await;
                let theirs = prepare(&other, std::slice::from_ref(&step.others)).await.unwrap();
                let identity = watershed_core::sink::CommitIdentity {
                    application: format!("other-{number}"),
                    epoch: 1,
                    after: None,
                };
                other.commit(&identity, &theirs, &BTreeMap::new()).await.unwrap();
                step.others.iter().for_each(|op| model.take(&case.key, op));
            }
            // What a compaction of another's drops is what deletions were remembered by.
            Between::Compaction if case.key.sequence_by.is_none() && number % 2 == 0 => compact(&lake).await,
            Between::Compaction => drop(tidy(&lake, order(number)).await),
        }
        epoch += 1;
        let done = writer.commit(&identity(epoch, last), &prepared, &BTreeMap::new()).await.unwrap();
        assert!(matches!(done, Committed::Now { .. }));
        if step.between == Between::Redo {
            let again = writer.commit(&identity(epoch, last), &prepared, &BTreeMap::new()).await.unwrap();
            assert_eq!(again, Committed::Before);
        }
        last = Some(epoch);
        step.batches.iter().flatten().for_each(|op| model.take(&case.key, op));
        assert_eq!(seen(&lake).await, model.rows(), "after step {number}");
        asks_for_what_it_needs(&lake, case);
    }
    if epoch > 0 {
        assert_eq!(replayed(&lake, &case.key).await, model.rows(), "from the change feed");
        crate::changes::reads_on_behind_any_row(&lake, epoch).await;
    }
}

/// Copies need no deletion vectors; a feed has change files for whatever replaces rows.
fn asks_for_what_it_needs(lake: &Lake, case: &Case) {
    for version in 1..=newest(lake) {
        let actions = entry(lake, "t", version);
        let all = |name: &'static str| actions.iter().filter_map(move |action| action.get(name));
        if case.key.write_mode == WriteMode::CopyOnWrite {
            assert!(all("add").all(|add| add["deletionVector"].is_null()), "{actions:?}");
            assert_eq!(all("protocol").count(), 0, "{actions:?}");
        }
        let replaces = all("remove").any(|remove| remove["dataChange"] == true);
        assert_eq!(all("cdc").count() > 0, case.feed && replaces, "{actions:?}");
    }
}

/// The rows that the change feed from version 0 on leads to; every image has to fit what was there.
async fn replayed(lake: &Lake, key: &KeySpec) -> Vec<(i64, i64, i64, i64)> {
    let feed = changes(&lake.stores, &lake.at("t"), Since::Version(0), None).await.unwrap();
    let batches: Vec<RecordBatch> = Arc::new(feed).read().try_collect().await.unwrap();
    let mut rows: BTreeMap<Vec<i64>, (i64, i64, i64, i64)> = BTreeMap::new();
    let mut updating = BTreeMap::new();
    for batch in &batches {
        let number = |name: &str, row| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
        let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
        let words = batch.column_by_name("_change_type").unwrap().as_string::<i32>();
        for i in 0..batch.num_rows() {
            let value = batch.column_by_name("v").unwrap();
            let value = if value.is_null(i) { -1 } else { number("v", i) };
            let row = (number("id", i), times.value(i), value, number("n", i));
            let of = if key.columns.len() == 2 { vec![row.0, row.1] } else { vec![row.0] };
            match words.value(i) {
                "insert" => assert_eq!(rows.insert(of, row), None),
                "delete" => assert_eq!(rows.remove(&of), Some(row)),
                "update_preimage" => {
                    assert_eq!(rows.remove(&of), Some(row));
                    updating.insert(of, row);
                }
                "update_postimage" => {
                    assert!(updating.remove(&of).is_some(), "an update of {of:?} without what was before");
                    assert_eq!(rows.insert(of, row), None);
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(updating.is_empty(), "{updating:?}");
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_unstable();
    rows
}

/// One of the orders in which rows can be put, or none.
fn order(number: usize) -> Option<RowOrder> {
    let columns = vec!["n".to_string(), "ts".to_string()];
    [None, Some(RowOrder::Sorted(columns.clone())), Some(RowOrder::ZOrder(columns))][number % 3].clone()
}

/// Our own compaction, which rewrites whatever has a marked row.
async fn tidy(lake: &Lake, order: Option<RowOrder>) -> Compacted {
    let options = CompactOptions { dead_rows: 0.0001, order, ..CompactOptions::default() };
    let clock = SystemClock::default();
    compact_table(&lake.stores, &lake.at("t"), options, &clock).await.unwrap()
}

/// Rewrites every partition's unmarked rows into one file, as a foreign OPTIMIZE does: without data change.
async fn compact(lake: &Lake) {
    let adds = live_adds(lake).await;
    let mut by_partition: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for add in adds {
        by_partition.entry(add["partitionValues"].to_string()).or_default().push(add);
    }
    let mut actions = vec![];
    for adds in by_partition.values().filter(|adds| adds.len() > 1) {
        let mut parts = vec![];
        for add in adds {
            let (batch, kept) = live_rows(lake, add).await;
            let kept = arrow::array::BooleanArray::from(kept);
            parts.push(arrow::compute::filter_record_batch(&batch, &kept).unwrap());
            let mut remove = serde_json::json!({"path": add["path"], "dataChange": false, "deletionTimestamp": 1});
            if !add["deletionVector"].is_null() {
                remove["deletionVector"] = add["deletionVector"].clone();
            }
            actions.push(serde_json::json!({ "remove": remove }));
        }
        let all = arrow::compute::concat_batches(&parts[0].schema(), &parts).unwrap();
        if all.num_rows() == 0 {
            continue;
        }
        // A name for what this version brings.
        let name = format!("compacted-{}-{}.parquet", newest(lake) + 1, actions.len());
        let path = lake.folder.path().join("t").join(&name);
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, all.schema(), None).unwrap();
        writer.write(&all).unwrap();
        writer.close().unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        let rows = serde_json::json!({"numRecords": all.num_rows()}).to_string();
        actions.push(
            serde_json::json!({"add": {"path": name, "size": size, "partitionValues": adds[0]["partitionValues"],
            "modificationTime": 1, "dataChange": false, "stats": rows}}),
        );
    }
    if !actions.is_empty() {
        put_entry(lake, "t", newest(lake) + 1, &actions);
    }
}

fn newest(lake: &Lake) -> u64 {
    let log = lake.folder.path().join("t/_delta_log");
    let names = std::fs::read_dir(log).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap()
}

/// The `add` actions of the newest version, replayed by hand.
async fn live_adds(lake: &Lake) -> Vec<serde_json::Value> {
    let mut live: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for version in 0..=newest(lake) {
        let actions = entry(lake, "t", version);
        for remove in actions.iter().filter_map(|a| a.get("remove")) {
            live.remove(remove["path"].as_str().unwrap());
        }
        for add in actions.iter().filter_map(|a| a.get("add")) {
            live.insert(add["path"].as_str().unwrap().to_string(), add.clone());
        }
    }
    live.into_values().collect()
}

/// A file's rows, and which of them are unmarked.
async fn live_rows(lake: &Lake, add: &serde_json::Value) -> (RecordBatch, Vec<bool>) {
    let history = open_history(&lake.stores, &lake.at("t"), &untimed()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    let wanted = add["path"].as_str().unwrap();
    let decoded = wanted.replace("%253A", "%3A");
    let files = crate::fixtures::files(&snapshot);
    let file = files.iter().find(|f| f.path.ends_with(wanted) || f.path.ends_with(&decoded));
    let file = file.unwrap_or_else(|| panic!("{wanted} among {files:?}")).clone();
    let deleted = history.deleted(std::slice::from_ref(&file)).await.unwrap().pop().unwrap();
    let batch = read(&format!("/{}", file.path));
    let marked = |i: u64| deleted.as_ref().is_some_and(|d| d.runs.iter().any(|run| run.contains(&i)));
    let kept = (0..batch.num_rows() as u64).map(|i| !marked(i)).collect();
    (batch, kept)
}

#[test]
fn a_keyed_table_is_a_map() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases = std::env::var("WATERSHED_KEYED").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&case(), |case| {
        runtime.block_on(run(&case));
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_once_lose_nothing() {
    let lake = Arc::new(Lake::new());
    drop(sink(&lake, "t", "", key()).await.unwrap());
    let mut running = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let lake = lake.clone();
        running.spawn(async move {
            let sink: DeltaSink = sink(&lake, "t", "", key()).await.unwrap();
            for epoch in 1..=12i64 {
                // Keys of all writers meet; the last value of each key is one that somebody wrote.
                let ops: Vec<Op> = (0..20)
                    .map(|i| Op {
                        key: (epoch * 7 + i * (writer + 1)) % 30,
                        ts: 0,
                        value: writer * 1000 + epoch,
                        sequence: 0,
                        delete: false,
                    })
                    .collect();
                let prepared = prepare(&sink, &[ops]).await.unwrap();
                let epoch = epoch as u64;
                let identity = watershed_core::sink::CommitIdentity {
                    application: format!("writer-{writer}"),
                    epoch,
                    after: (epoch > 1).then(|| epoch - 1),
                };
                sink.commit(&identity, &prepared, &BTreeMap::new()).await.unwrap();
            }
        });
    }
    // Beside them, somebody who keeps the table in shape.
    let upkeep = lake.clone();
    let mut carried_on = tokio::spawn(async move {
        let (mut done, mut turn) = (0, 0);
        loop {
            turn += 1;
            if tidy(&upkeep, order(turn)).await.version.is_some() {
                done += 1;
            }
            if done == 6 {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    // With nobody left to write, there may be nothing left to do.
    if tokio::time::timeout(std::time::Duration::from_millis(200), &mut carried_on).await.is_err() {
        carried_on.abort();
    }
    // `rows` fails when a key is there twice.
    assert_eq!(rows(&lake, "t").await.len(), 30);
}
