//! Vacuum against real files: what goes, what stays and for whose sake, and who can read the table afterwards.
//!
//! Tables are written at [`START`] by the writers' clock; [`age`] gives files that time too.

mod jobs;

mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use watershed_core::clock::ManualClock;
use watershed_core::history::Version;
use watershed_core::settings::parse_span;
use watershed_core::sink::Sink;
use watershed_core::time::{EventTime, Span};
use watershed_core::{Error, Result};
use watershed_lake::upkeep::{CompactOptions, Pin, Pins, VacuumOptions, Vacuumed, compact, vacuum};
use watershed_lake::{TableSpec, open_history, table_info};

use crate::fixtures::*;
use crate::keyed::{self, Op};

/// The clock of the fixtures' writers.
const START: EventTime = EventTime(1_700_000_000_000_000);

const NO_PINS: Pins = Pins { versions: vec![], pending: vec![], prepared: vec![], logs: vec![], since: EventTime::MAX };

fn days(n: i64) -> EventTime {
    START.plus(Span(n * DAY))
}

/// The files below a folder, from there.
fn below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => open.push(entry),
                false => drop(found.insert(entry.strip_prefix(folder).unwrap().to_str().unwrap().to_string())),
            }
        }
    }
    found
}

fn root(lake: &Lake) -> PathBuf {
    lake.folder.path().join("t")
}

/// The table's files but for its log.
fn data(lake: &Lake) -> BTreeSet<String> {
    below(&root(lake)).into_iter().filter(|path| !path.starts_with("_delta_log/")).collect()
}

/// The log's files.
fn log(lake: &Lake) -> BTreeSet<String> {
    below(&root(lake).join("_delta_log"))
}

/// Lets a file have been written at a time.
fn written(path: &Path, at: EventTime) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_micros(at.0 as u64)).unwrap();
}

/// Lets all files of the table have been written at a time.
fn age(lake: &Lake, at: EventTime) {
    below(&root(lake)).iter().for_each(|path| written(&root(lake).join(path), at));
}

fn drop_in(lake: &Lake, path: &str) {
    let path = root(lake).join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "rubbish").unwrap();
    written(&path, START);
}

async fn try_at(lake: &Lake, now: EventTime, options: VacuumOptions, pins: &Pins) -> Result<Vacuumed> {
    vacuum(&lake.stores, &lake.at("t"), options, pins, &ManualClock::new(now, 1)).await
}

async fn vacuum_at(lake: &Lake, now: EventTime, pins: &Pins) -> Vacuumed {
    try_at(lake, now, VacuumOptions::default(), pins).await.unwrap()
}

fn gone(done: &Vacuumed) -> Vec<&str> {
    done.files.iter().map(|file| file.path.as_str()).collect()
}

fn adds(lake: &Lake, version: u64) -> Vec<Value> {
    entry(lake, "t", version).into_iter().filter_map(|action| action.get("add").cloned()).collect()
}

fn remove(add: &Value, at: EventTime) -> Value {
    let mut remove = json!({"path": add["path"], "dataChange": true, "deletionTimestamp": at.0 / 1000});
    if let Some(vector) = add.get("deletionVector") {
        remove["deletionVector"] = vector.clone();
    }
    json!({ "remove": remove })
}

/// A path of the log as the disk has it.
fn on_disk(add: &Value) -> String {
    let path = add["path"].as_str().unwrap();
    url::Url::parse("file:///").unwrap().join(path).unwrap().to_file_path().unwrap().to_str().unwrap()[1..].to_string()
}

async fn seen(lake: &Lake, version: Option<u64>) -> Result<Vec<(i64, i64)>> {
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await?;
    let newest = history.pin(None).await?.version;
    let Version::Delta { table_id, version: newest } = newest else { panic!("a folder?") };
    let version = Version::Delta { table_id, version: version.unwrap_or(newest) };
    Ok(facts(&files(&history.pin(Some((&version, None))).await?)))
}

async fn pin(lake: &Lake, version: u64) -> Pins {
    let table_id = table_info(&lake.stores, &lake.at("t")).await.unwrap().id;
    let of = |job: &str, table_id: &str, version| Pin { job: job.into(), table_id: table_id.into(), version };
    // Versions of other tables are no matter.
    Pins { versions: vec![of("j", &table_id, version), of("k", "another", 0)], ..NO_PINS }
}

/// A table of facts 1, 2, 3 in versions 1 to 3, of which the first two were compacted in version 4.
async fn compacted(lake: &Lake) {
    let sink = lake.sink("t", "").await;
    for k in 1..=3 {
        put(&sink, k, &[(k as i64, k as i64)]).await;
    }
    let (first, second) = (adds(lake, 1).remove(0), adds(lake, 2).remove(0));
    let both = prepare(&sink, &[(1, 1), (2, 2)]).await.files.remove(0);
    let add = json!({"path": both.path, "partitionValues": {}, "size": both.size, "modificationTime": 0, "dataChange": false, "stats": both.stats});
    put_entry(lake, "t", 4, &[remove(&first, START), remove(&second, START), json!({ "add": add })]);
    age(lake, START);
}

#[tokio::test]
async fn what_was_removed_goes_when_its_time_is_over() {
    let lake = Lake::new();
    compacted(&lake).await;
    let old: BTreeSet<String> = [on_disk(&adds(&lake, 1)[0]), on_disk(&adds(&lake, 2)[0])].into();
    let stays = ["_SUCCESS", "readme.txt", "_hidden/x.parquet", ".tmp/x.parquet", "x.parquet.crc"];
    stays.iter().for_each(|path| drop_in(&lake, path));
    for path in ["orphan.parquet", "_change_data/cdc-1.parquet"] {
        drop_in(&lake, path);
    }
    drop_in(&lake, "young.parquet");
    written(&root(&lake).join("young.parquet"), days(1));
    let all = data(&lake);

    // Seven days, where nobody says otherwise.
    assert_eq!(gone(&vacuum_at(&lake, days(7), &NO_PINS).await), Vec::<&str>::new());
    let soon = days(7).plus(Span::SECOND);
    let dry = try_at(&lake, soon, VacuumOptions { dry_run: true, ..Default::default() }, &NO_PINS).await.unwrap();
    assert_eq!(data(&lake), all);
    let done = vacuum_at(&lake, soon, &NO_PINS).await;
    assert_eq!((&done.files, done.bytes), (&dry.files, dry.bytes));
    let mut expected: BTreeSet<String> = old;
    expected.extend(["orphan.parquet", "_change_data/cdc-1.parquet"].map(String::from));
    assert_eq!(gone(&done).into_iter().map(String::from).collect::<BTreeSet<_>>(), expected);
    assert_eq!(data(&lake), all.difference(&expected).cloned().collect());
    assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(gone(&vacuum_at(&lake, soon, &NO_PINS).await), Vec::<&str>::new());
    assert_eq!(gone(&vacuum_at(&lake, days(9), &NO_PINS).await), ["young.parquet"]);
}

#[tokio::test]
async fn the_retention_is_the_tables_unless_a_longer_one_is_asked_for() {
    let lake = Lake::new();
    compacted(&lake).await;
    let asked = |span: &str, allow_shorter| VacuumOptions {
        retention: Some(parse_span(span).unwrap()),
        allow_shorter,
        dry_run: true,
        ..VacuumOptions::default()
    };
    let error = try_at(&lake, days(30), asked("6 days", false), &NO_PINS).await.unwrap_err();
    let words = "a retention of 6 d is shorter than 7 d (the default)";
    assert!(
        matches!(&error, Error::Input(why) if why.contains(words) && why.contains("--allow-shorter-retention")),
        "{error}"
    );
    assert_eq!(try_at(&lake, days(1), asked("1 hour", true), &NO_PINS).await.unwrap().files.len(), 2);
    assert_eq!(try_at(&lake, days(9), asked("10 days", false), &NO_PINS).await.unwrap().files.len(), 0);

    // Its log forgets removals after a week; entries still know of them.
    let mut metadata = entry(&lake, "t", 0).into_iter().find(|action| action.get("metaData").is_some()).unwrap();
    let mut set = |version: u64, text: &str| {
        metadata["metaData"]["configuration"]["delta.deletedFileRetentionDuration"] = json!(text);
        put_entry(&lake, "t", version, std::slice::from_ref(&metadata));
    };
    set(5, "interval 2 days");
    assert_eq!(vacuum_at(&lake, days(2), &NO_PINS).await.files.len(), 0);
    let error = try_at(&lake, days(3), asked("1 day", false), &NO_PINS).await.unwrap_err().to_string();
    assert!(error.contains("shorter than 2 d (delta.deletedFileRetentionDuration)"), "{error}");
    assert_eq!(try_at(&lake, days(3), asked("2 days", false), &NO_PINS).await.unwrap().files.len(), 2);
    set(6, "soon");
    let error = try_at(&lake, days(3), VacuumOptions::default(), &NO_PINS).await.unwrap_err().to_string();
    assert!(error.contains("delta.deletedFileRetentionDuration = 'soon' is no span"), "{error}");
}

#[tokio::test]
async fn a_removal_without_a_time_is_as_old_as_its_entry() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    put(&sink, 1, &[(1, 1)]).await;
    put(&sink, 2, &[(2, 2)]).await;
    let first = adds(&lake, 1).remove(0);
    put_entry(&lake, "t", 3, &[json!({"remove": {"path": first["path"], "dataChange": true}})]);
    age(&lake, START);
    written(&root(&lake).join("_delta_log/00000000000000000003.json"), days(5));
    assert_eq!(vacuum_at(&lake, days(12), &NO_PINS).await.files.len(), 0);
    assert_eq!(gone(&vacuum_at(&lake, days(13), &NO_PINS).await), [on_disk(&first)]);
}

#[tokio::test]
async fn names_are_the_same_however_they_are_encoded() {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};

    let lake = Lake::new();
    let base = rows(&[(0, 1), (1, 2), (2, 3), (3, 4)]);
    let names = StringArray::from(vec![Some("a b/ü%2F=:#?"), None, Some("plain"), Some("100%")]);
    let columns = [
        ("ts", base.column(0).clone(), true),
        ("k", base.column(1).clone(), true),
        ("_x", std::sync::Arc::new(names) as ArrayRef, true),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let spec = TableSpec { schema: batch.schema(), ..spec("day(ts), _x") };
    let sink = lake.sink_of("t", spec, 1).await.unwrap();
    for epoch in 1..=2 {
        let writer = sink.writer().unwrap();
        writer.write(0, batch.clone()).await.unwrap();
        let prepared = writer.finish().await.unwrap();
        sink.commit(&identity(epoch, (epoch > 1).then_some(1)), &prepared, &BTreeMap::new()).await.unwrap();
    }
    let removed = adds(&lake, 1);
    put_entry(&lake, "t", 3, &removed.iter().map(|add| remove(add, START)).collect::<Vec<_>>());
    // Writers that encode once less, or once more: what readers make of it is theirs, but it stays.
    let name = on_disk(&adds(&lake, 2)[0]);
    let mut other = adds(&lake, 2)[0].clone();
    let literal = "ts_day=1970-01-01/_x=a%20b/y.parquet";
    fs::create_dir_all(root(&lake).join(literal).parent().unwrap()).unwrap();
    fs::copy(root(&lake).join(name), root(&lake).join(literal)).unwrap();
    other["path"] = json!(literal);
    put_entry(&lake, "t", 4, &[json!({ "add": other })]);
    drop_in(&lake, "ts_day=1970-01-01/_x=1/orphan.parquet");
    drop_in(&lake, "_y=1/not-ours.parquet");
    age(&lake, START);
    let live: BTreeSet<String> = adds(&lake, 2).iter().map(on_disk).collect();
    assert_eq!((live.len(), removed.len()), (4, 4));
    let done = vacuum_at(&lake, days(8), &NO_PINS).await;
    let mut expected: BTreeSet<String> = removed.iter().map(on_disk).collect();
    expected.insert("ts_day=1970-01-01/_x=1/orphan.parquet".to_string());
    assert_eq!(gone(&done).into_iter().map(String::from).collect::<BTreeSet<_>>(), expected);
    let left = data(&lake);
    assert!(live.is_subset(&left), "{left:?}");
    assert!(left.contains(literal) && left.contains("_y=1/not-ours.parquet"), "{left:?}");
}

fn upsert(key: i64, value: i64) -> Op {
    Op { key, ts: key, value, sequence: 0, delete: false }
}

#[tokio::test]
async fn files_of_deletion_vectors_stay_as_long_as_one_of_theirs_is_needed() {
    let lake = Lake::new();
    let sink = keyed::sink(&lake, "t", "day(ts)", keyed::key()).await.unwrap();
    let at = |day: i64, value| Op { ts: day * DAY, ..upsert(day, value) };
    let both = |value| [at(0, value), at(1, value), Op { key: 10, ..at(0, value) }, Op { key: 11, ..at(1, value) }];
    keyed::put(&sink, 1, &both(1)).await;
    // A vector for each of two files, in one file; then one of them is replaced.
    keyed::put(&sink, 2, &[at(0, 2), at(1, 2)]).await;
    keyed::put(&sink, 3, &[Op { key: 10, ..at(0, 3) }]).await;
    let vectors = || data(&lake).into_iter().filter(|path| path.ends_with(".bin")).collect::<Vec<_>>();
    let before = keyed::rows(&lake, "t").await;
    assert_eq!((vectors().len(), before.len()), (1, 4), "{:?}", data(&lake));
    age(&lake, START);
    let done = vacuum_at(&lake, days(8), &NO_PINS).await;
    assert!(gone(&done).iter().all(|path| path.ends_with(".parquet")), "{done:?}");
    assert_eq!((keyed::rows(&lake, "t").await, vectors().len()), (before.clone(), 1));

    keyed::put(&sink, 4, &[Op { key: 11, ..at(1, 4) }]).await;
    let options = CompactOptions { dead_rows: 0.0001, ..CompactOptions::default() };
    compact(&lake.stores, &lake.at("t"), options, &ManualClock::new(START, 9)).await.unwrap();
    let before = keyed::rows(&lake, "t").await;
    age(&lake, START);
    // A reader of an older version needs it until then.
    assert_eq!(gone(&vacuum_at(&lake, days(7), &NO_PINS).await), Vec::<&str>::new());
    vacuum_at(&lake, days(8), &NO_PINS).await;
    assert_eq!((keyed::rows(&lake, "t").await, vectors()), (before, vec![]));
    assert_eq!(data(&lake).len(), 2);
}

#[tokio::test]
async fn a_vector_at_an_absolute_path_within_the_table_stays() {
    let lake = Lake::new();
    let sink = keyed::sink(&lake, "t", "", keyed::key()).await.unwrap();
    keyed::put(&sink, 1, &[upsert(1, 1), upsert(2, 1)]).await;
    keyed::put(&sink, 2, &[upsert(1, 2)]).await;
    let mut marked = adds(&lake, 2).into_iter().find(|add| add.get("deletionVector").is_some()).unwrap();
    let name = data(&lake).into_iter().find(|path| path.ends_with(".bin")).unwrap();
    let without = remove(&marked, START);
    marked["deletionVector"]["storageType"] = json!("p");
    let absolute = url::Url::from_file_path(root(&lake).join(&name)).unwrap();
    marked["deletionVector"]["pathOrInlineDv"] = json!(absolute.to_string());
    put_entry(&lake, "t", 3, &[without, json!({ "add": marked })]);
    age(&lake, START);
    let rows = keyed::rows(&lake, "t").await;
    assert_eq!(gone(&vacuum_at(&lake, days(9), &NO_PINS).await), Vec::<&str>::new());
    assert_eq!(keyed::rows(&lake, "t").await, rows);
}

#[tokio::test]
async fn change_files_go_by_the_age_of_their_commit() {
    let lake = Lake::new();
    compacted(&lake).await;
    for name in ["_change_data/cdc-old.parquet", "_change_data/cdc-new.parquet"] {
        drop_in(&lake, name);
    }
    let cdc =
        json!({"cdc": {"path": "_change_data/cdc-new.parquet", "size": 7, "partitionValues": {}, "dataChange": false}});
    put_entry(&lake, "t", 5, &[cdc]);
    written(&root(&lake).join("_delta_log/00000000000000000005.json"), days(5));
    let done = vacuum_at(&lake, days(8), &NO_PINS).await;
    assert!(gone(&done).contains(&"_change_data/cdc-old.parquet"), "{done:?}");
    assert!(data(&lake).contains("_change_data/cdc-new.parquet"));
}

#[tokio::test]
async fn what_a_restore_brought_back_stays() {
    let lake = Lake::new();
    compacted(&lake).await;
    let (first, both) = (adds(&lake, 1).remove(0), adds(&lake, 4).remove(0));
    put_entry(&lake, "t", 5, &[remove(&both, START), json!({ "add": first })]);
    age(&lake, START);
    let done = vacuum_at(&lake, days(8), &NO_PINS).await;
    assert_eq!(done.files.len(), 2);
    assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (3, 3)]);
}

#[tokio::test]
async fn a_table_within_the_table_is_another() {
    let lake = Lake::new();
    compacted(&lake).await;
    fs::rename(lake.at("t"), lake.at("inner")).unwrap();
    compacted(&lake).await;
    fs::create_dir_all(lake.at("t/sub")).unwrap();
    fs::rename(lake.at("inner"), lake.at("t/sub/inner")).unwrap();
    let inner = below(Path::new(&lake.at("t/sub/inner")));
    let done = vacuum_at(&lake, days(8), &NO_PINS).await;
    assert_eq!(done.files.len(), 2);
    assert_eq!(below(Path::new(&lake.at("t/sub/inner"))), inner);
}

#[tokio::test]
async fn what_is_not_understood_is_left_alone() {
    let lake = Lake::new();
    fs::create_dir_all(lake.at("t")).unwrap();
    let error = try_at(&lake, days(9), VacuumOptions::default(), &NO_PINS).await.unwrap_err().to_string();
    assert!(error.contains("is not a Delta table"), "{error}");
    compacted(&lake).await;
    let all = data(&lake);
    let protocol = |reader: &[&str], writer: &[&str]| json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer}});
    for (version, protocol, words) in [
        (5, protocol(&["vacuumProtocolCheck"], &["vacuumProtocolCheck", "futureFeature"]), "'futureFeature'"),
        (6, protocol(&["variantType"], &["variantType"]), "'variantType'"),
    ] {
        put_entry(&lake, "t", version, &[protocol]);
        let error = try_at(&lake, days(9), VacuumOptions::default(), &NO_PINS).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(data(&lake), all);
    }
}
