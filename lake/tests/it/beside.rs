//! What others than the archive of a log did to a table, by its log.

use std::sync::Arc;

use serde_json::{Value, json};
use watershed_core::Error;
use watershed_core::history::{Beside, History, Version};
use watershed_core::log::archives_part;
use watershed_core::time::Interval;
use watershed_core::{EventTime, Result};
use watershed_lake::open_history;

use crate::fixtures::*;

struct Table {
    history: Arc<dyn History>,
    id: String,
}

/// What others did since a version, the archive having this name.
async fn beside(table: &Table, since: u64, archive: &'static str) -> Result<Beside> {
    let (history, table_id) = (&table.history, table.id.clone());
    let archives = move |application: &str| archives_part(application, archive);
    let mut found = history.beside(&Version::Delta { version: since, table_id }, &archives, true).await?;
    found.changed.sort();
    Ok(found)
}

/// From one fact to another, both included; statistics have times to the millisecond.
fn stretch(from: i64, last: i64) -> Interval {
    Interval { start: EventTime(from), end: EventTime(last + 1_000) }
}

/// The actions of a version that name files.
fn files_of(lake: &Lake, version: u64) -> Vec<Value> {
    entry(lake, "t", version).into_iter().filter(|action| !action["add"].is_null()).collect()
}

fn removes(adds: &[Value], data_change: bool) -> Vec<Value> {
    let remove = |add: &Value| json!({"remove": {"path": add["add"]["path"], "dataChange": data_change}});
    adds.iter().map(remove).collect()
}

#[tokio::test]
async fn commits_of_the_archive_are_passed_over_and_those_of_others_are_not() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    put(&sink, 1, &[(0, 1), (HOUR, 2)]).await;
    put(&sink, 2, &[(2 * HOUR, 3), (DAY + HOUR, 4), (DAY + 2 * HOUR, 5)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let Version::Delta { table_id: id, .. } = history.pin(None).await.unwrap().version else {
        panic!("not a Delta table")
    };
    let table = Table { history, id };
    let [first, second] = [files_of(&lake, 1), files_of(&lake, 2)];
    let txn = |application: &str| json!({"txn": {"appId": application, "version": 7}});

    // A job that is no archive has an application of its own, and what it writes is somebody's.
    let found = beside(&table, 0, "rides").await.unwrap();
    assert!(matches!(found.version, Version::Delta { version: 2, .. }));
    assert_eq!(found.changed, [stretch(0, HOUR), stretch(2 * HOUR, 2 * HOUR), stretch(DAY + HOUR, DAY + 2 * HOUR)]);
    assert_eq!((found.gone, beside(&table, 2, "rides").await.unwrap().changed), (None, vec![]));

    // What the archive brings is nothing new, and what another archive brings is.
    put_entry(&lake, "t", 3, &[&[txn("rides-0"), txn("rides-1")], &removes(&first, true)[..]].concat());
    put_entry(&lake, "t", 4, &[&[txn("other-0")], &first[..]].concat());
    for (archive, changed) in [("other", vec![stretch(0, HOUR)]), ("rides", vec![stretch(0, HOUR)])] {
        let found = beside(&table, 2, archive).await.unwrap();
        assert_eq!((found.changed, found.gone.is_some()), (changed, archive == "other"), "{archive}");
    }

    // A compaction changes no fact.
    let quiet = |(i, add): (usize, &Value)| {
        let mut add = add.clone();
        add["add"]["dataChange"] = json!(false);
        add["add"]["path"] = json!(format!("compacted-{i}.parquet"));
        add
    };
    let compacted: Vec<Value> = second.iter().enumerate().map(quiet).collect();
    put_entry(&lake, "t", 5, &[removes(&second, false), compacted.clone()].concat());
    let found = beside(&table, 4, "rides").await.unwrap();
    assert_eq!((found.changed, found.gone), (vec![], None));

    // Facts that go are told by the times of the file that had them.
    put_entry(&lake, "t", 6, &removes(&compacted, true));
    let found = beside(&table, 4, "rides").await.unwrap();
    assert_eq!(found.changed, [stretch(2 * HOUR, 2 * HOUR), stretch(DAY + HOUR, DAY + 2 * HOUR)]);
    let gone = found.gone.unwrap();
    assert!(gone.version == "6" && gone.path.contains("compacted-"), "{gone:?}");
    let found = beside(&table, 5, "rides").await.unwrap();
    assert_eq!(found.changed, [stretch(2 * HOUR, 2 * HOUR), stretch(DAY + HOUR, DAY + 2 * HOUR)]);

    // A file that is listed anew is what it was.
    put_entry(&lake, "t", 7, &[removes(&first, true), first.clone()].concat());
    let found = beside(&table, 6, "rides").await.unwrap();
    assert_eq!((found.changed, found.gone), (vec![], None));

    // What came and went in between was never known. Of a file that nobody can open any more its partition tells.
    let mut passing = second[0].clone();
    passing["add"]["path"] = json!("passing.parquet");
    passing["add"].as_object_mut().unwrap().remove("stats");
    put_entry(&lake, "t", 8, &[passing.clone()]);
    put_entry(&lake, "t", 9, &removes(&[passing], true));
    let found = beside(&table, 7, "rides").await.unwrap();
    let day = found.changed[0].start.0;
    assert_eq!((day % DAY, found.changed, found.gone), (0, vec![stretch(day, day + DAY - 1_000)], None));

    // What an archive plays back is new to whoever reads its log.
    let played_back = json!({"commitInfo": {"watershed": {"info": {"watershed.played_back": true}}}});
    put_entry(&lake, "t", 10, &[&[played_back, txn("rides-0")], &first[..]].concat());
    assert_eq!(beside(&table, 9, "rides").await.unwrap().changed, [stretch(0, HOUR)]);

    // An entry that is gone may have changed anything.
    std::fs::remove_file(lake.folder.path().join("t/_delta_log/00000000000000000006.json")).unwrap();
    let error = beside(&table, 5, "rides").await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("log entry 6")), "{error}");
}
