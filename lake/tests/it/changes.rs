//! A table's changes as a log: what it tells is what the feed of the same versions tells, from wherever it is read on, and what
//! cannot be told any more is an error that names the version.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use serde_json::json;
use watershed_core::clock::mix;
use watershed_core::tail::{Fetched, FetchedRows, Numbering, PartPosition, Tail, TailPosition, TailReader, VERSION};
use watershed_core::{EventTime, Result};
use watershed_lake::changes::{ChangeTail, Since, changes};

use crate::fixtures::*;
use crate::keyed::{self, Op, key};

fn up(key: i64, value: i64) -> Op {
    Op { key, ts: key, value, sequence: 0, delete: false }
}

fn down(key: i64) -> Op {
    Op { delete: true, ..up(key, 0) }
}

async fn tail(lake: &Lake) -> ChangeTail {
    ChangeTail::open(&lake.stores, &lake.at("t"), None).await.unwrap()
}

async fn reader(tail: &ChangeTail, from: i64) -> Box<dyn TailReader> {
    tail.read(&BTreeMap::from([(0, from)])).await.unwrap()
}

/// What comes next; a reader that says nothing for long fails the test.
async fn next(reader: &mut Box<dyn TailReader>) -> Result<FetchedRows> {
    let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
    let mut fetched = next.expect("the reader says something")?;
    match (fetched.pop(), fetched.len()) {
        (Some(Fetched::Rows(rows)), 0) => Ok(rows),
        other => panic!("{other:?}"),
    }
}

/// All from an offset to the end that the log has now. Of each batch, offsets fit and versions end where they do.
async fn told(tail: &ChangeTail, from: i64) -> Result<Vec<FetchedRows>> {
    let end = tail.look().await?.parts[&0].end;
    let (mut reader, mut at, mut found) = (reader(tail, from).await, from, vec![]);
    while at < end {
        let rows = next(&mut reader).await?;
        assert_eq!(rows.offsets.len(), rows.rows.num_rows());
        assert!(rows.offsets.values().windows(2).all(|pair| pair[1] == pair[0] + 1));
        assert!(rows.offsets.values().first().is_none_or(|first| *first == at), "{} and {at}", rows.offsets.value(0));
        assert_eq!(rows.whole, rows.next % VERSION == 0);
        assert_eq!(rows.at_end, rows.next == end);
        at = rows.next;
        found.push(rows);
    }
    Ok(found)
}

fn together(found: &[FetchedRows]) -> RecordBatch {
    let schema = found[0].rows.schema();
    concat_batches(&schema, found.iter().map(|rows| &rows.rows)).unwrap()
}

/// Version, what was done, key and value of each row.
fn said(found: &[FetchedRows]) -> Vec<(i64, String, i64, i64)> {
    let rows = together(found);
    let number = |name: &str, row| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row);
    let words = rows.column_by_name("_change_type").unwrap().as_string::<i32>();
    let row = |i| (number("_commit_version", i), words.value(i).to_string(), number("id", i), number("v", i));
    (0..rows.num_rows()).map(row).collect()
}

fn expected(rows: &[(i64, &str, i64, i64)]) -> Vec<(i64, String, i64, i64)> {
    rows.iter().map(|(version, what, id, v)| (*version, what.to_string(), *id, *v)).collect()
}

/// From any row on comes what the feed has behind it.
pub(crate) async fn reads_on_behind_any_row(lake: &Lake, seed: u64) {
    let feed = Arc::new(changes(&lake.stores, &lake.at("t"), Since::Version(0), None).await.unwrap());
    let all: Vec<RecordBatch> = feed.clone().read().try_collect().await.unwrap();
    let all = concat_batches(&feed.schema(), &all).unwrap();
    let tail = tail(lake).await;
    let found = told(&tail, 0).await.unwrap();
    assert_eq!(together(&found), all);
    let offsets: Vec<i64> = found.iter().flat_map(|rows| rows.offsets.values().to_vec()).collect();
    for draw in 0..5 {
        let Some(row) = (mix(seed ^ mix(draw)) as usize).checked_rem(offsets.len()) else { continue };
        let behind = told(&tail, offsets[row]).await.unwrap();
        assert_eq!(together(&behind), all.slice(row, all.num_rows() - row));
    }
}

/// Versions 1 to 3: two keys; one of them anew and a third; one deleted.
async fn table(lake: &Lake, by: &str) {
    let sink = keyed::sink(lake, "t", by, key()).await.unwrap();
    keyed::put(&sink, 1, &[up(1, 10), up(2, 20)]).await;
    keyed::put(&sink, 2, &[up(2, 21), up(3, 30)]).await;
    keyed::put(&sink, 3, &[down(1)]).await;
}

#[tokio::test]
async fn versions_are_told_row_by_row() {
    for by in ["", "id", "v"] {
        let lake = Lake::new();
        table(&lake, by).await;
        let tail = tail(&lake).await;
        let state = tail.look().await.unwrap();
        assert_eq!((state.parts[&0].clone(), state.numbering), (0..4 * VERSION, Numbering::Versions));
        let mut found = said(&told(&tail, VERSION).await.unwrap());
        found.sort();
        let all = [
            (1, "insert", 1, 10),
            (1, "insert", 2, 20),
            (2, "insert", 3, 30),
            (2, "update_postimage", 2, 21),
            (2, "update_preimage", 2, 20),
            (3, "delete", 1, 10),
        ];
        assert_eq!(found, expected(&all), "by {by:?}");
        reads_on_behind_any_row(&lake, 1).await;
    }
}

#[tokio::test]
async fn what_the_table_holds_comes_before_what_it_becomes() {
    let lake = Lake::new();
    table(&lake, "id").await;
    let tail = tail(&lake).await;
    let begun = told(&tail, tail.content()).await.unwrap();
    assert_eq!(said(&begun), expected(&[(3, "insert", 2, 21), (3, "insert", 3, 30)]));
    let sink = keyed::sink(&lake, "t", "id", key()).await.unwrap();
    keyed::put(&sink, 4, &[down(3), up(4, 40)]).await;
    // In the middle of it, and with an entry more.
    let rest = told(&tail, begun[0].offsets.value(0) + 1).await.unwrap();
    assert_eq!(said(&rest), expected(&[(3, "insert", 3, 30), (4, "delete", 3, 30), (4, "insert", 4, 40)]));
}

#[tokio::test]
async fn a_reader_waits_for_what_comes() {
    let lake = Lake::new();
    table(&lake, "").await;
    let tail = tail(&lake).await;
    let mut reader = reader(&tail, 3 * VERSION).await;
    assert!(next(&mut reader).await.unwrap().at_end);
    let nothing = tokio::time::timeout(Duration::from_millis(1500), reader.next()).await;
    assert!(nothing.is_err());
    let sink = keyed::sink(&lake, "t", "", key()).await.unwrap();
    keyed::put(&sink, 4, &[up(7, 70)]).await;
    // One that is held says nothing, and loses nothing.
    reader.hold(&[0].into()).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1500), reader.next()).await.is_err());
    reader.hold(&[].into()).await.unwrap();
    assert_eq!(said(&[next(&mut reader).await.unwrap()]), expected(&[(4, "insert", 7, 70)]));
}

#[tokio::test]
async fn times_are_looked_up_from_the_newest_back() {
    let lake = Lake::new();
    table(&lake, "").await;
    for version in 0..4 {
        let mut actions = entry(&lake, "t", version);
        let info = actions.iter_mut().find(|action| action.get("commitInfo").is_some()).unwrap();
        info["commitInfo"]["timestamp"] = json!(1000 * version);
        put_entry(&lake, "t", version, &actions);
    }
    let tail = tail(&lake).await;
    for (seconds, version) in [(-1, 0), (1, 1), (2, 2), (3, 3), (4, 4)] {
        let at = tail.at_time(EventTime(seconds * 1_000_000)).await.unwrap();
        assert_eq!(at, BTreeMap::from([(0, version * VERSION)]));
    }
}

#[tokio::test]
async fn a_version_that_is_gone_is_named() {
    let lake = Lake::new();
    table(&lake, "").await;
    let tail_before = tail(&lake).await;
    let file = adds_of(&lake, 1);
    fs::remove_file(lake.folder.path().join("t").join(&file)).unwrap();
    let said = told(&tail_before, VERSION).await.unwrap_err().to_string();
    assert!(said.contains("what version 1 of table") && said.contains("a vacuum has removed it"), "{said}");
    fs::remove_file(lake.folder.path().join("t/_delta_log/00000000000000000002.json")).unwrap();
    let said = told(&tail_before, 2 * VERSION).await.unwrap_err().to_string();
    assert!(said.contains("log entry 2 of table") && said.contains("is gone"), "{said}");
}

fn adds_of(lake: &Lake, version: u64) -> String {
    let actions = entry(lake, "t", version);
    let add = actions.iter().find_map(|action| action["add"]["path"].as_str());
    add.unwrap().to_string()
}

#[tokio::test]
async fn a_table_made_anew_is_not_taken_for_the_one_before() {
    let lake = Lake::new();
    table(&lake, "").await;
    let tail = tail(&lake).await;
    let mut reader = reader(&tail, 3 * VERSION).await;
    assert!(next(&mut reader).await.unwrap().at_end);
    fs::remove_dir_all(lake.folder.path().join("t")).unwrap();
    table(&lake, "").await;
    let said = next(&mut reader).await.unwrap_err().to_string();
    // Whoever looks in between finds none.
    assert!(said.contains("was deleted and made anew: its id is") || said.contains("is gone"), "{said}");
    // And so it is known later.
    let position = |id: Option<String>| TailPosition {
        id,
        parts: BTreeMap::from([(0, PartPosition::at(3 * VERSION))]),
        ..TailPosition::default()
    };
    let then = tail.look().await.unwrap().id;
    let now = ChangeTail::open(&lake.stores, &lake.at("t"), None).await.unwrap().look().await.unwrap();
    let said = watershed_core::log::resume(&position(then), &now, "t").unwrap_err().to_string();
    assert!(said.contains("made anew"), "{said}");
}

#[tokio::test]
async fn a_table_without_a_key_may_be_given_one() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    put(&sink, 1, &[(1, 1), (2, 2)]).await;
    put(&sink, 2, &[(3, 2), (4, 4)]).await;
    // As an UPDATE of another's that writes files anew: what was in the first is now in the second.
    let mut second = entry(&lake, "t", 2);
    let size = fs::metadata(lake.folder.path().join("t").join(adds_of(&lake, 1))).unwrap().len();
    second.push(json!({"remove": {"path": adds_of(&lake, 1), "dataChange": true, "deletionTimestamp": 1, "size": size,
        "extendedFileMetadata": true, "partitionValues": {}}}));
    put_entry(&lake, "t", 2, &second);
    let words = async |key: Option<&[String]>| {
        let tail = ChangeTail::open(&lake.stores, &lake.at("t"), key).await.unwrap();
        let rows = together(&told(&tail, 2 * VERSION).await.unwrap());
        let words = rows.column_by_name("_change_type").unwrap().as_string::<i32>().clone();
        let keys = rows.column_by_name("k").unwrap().as_primitive::<Int64Type>().clone();
        (0..rows.num_rows()).map(|i| format!("{} {}", words.value(i), keys.value(i))).collect::<Vec<_>>()
    };
    assert_eq!(words(None).await, ["delete 1", "delete 2", "insert 2", "insert 4"]);
    let key = ["k".to_string()];
    assert_eq!(words(Some(&key)).await, ["delete 1", "update_preimage 2", "update_postimage 2", "insert 4"]);
    let odd = ChangeTail::open(&lake.stores, &lake.at("t"), Some(&["x".to_string()])).await.unwrap_err().to_string();
    assert!(odd.contains("has no column `x`"), "{odd}");
}

#[tokio::test]
async fn a_large_version_comes_in_batches_and_is_gone_on_with_within() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    let facts: Vec<(i64, i64)> = (0..50_000).map(|n| (n, n)).collect();
    put(&sink, 1, &facts).await;
    let tail = tail(&lake).await;
    let found = told(&tail, VERSION).await.unwrap();
    assert!(found.len() > 5 && found.iter().all(|rows| rows.rows.num_rows() <= 8192));
    let all = together(&found);
    for row in [1, 8_191, 8_192, 30_000, 49_999] {
        let rest = together(&told(&tail, VERSION + row).await.unwrap());
        assert_eq!(rest, all.slice(row as usize, 50_000 - row as usize));
    }
    // All of it was read, and the version has no more.
    let beyond = told(&tail, VERSION + 50_001).await.unwrap_err().to_string();
    assert!(beyond.contains("has fewer rows than were read of it before"), "{beyond}");
}
