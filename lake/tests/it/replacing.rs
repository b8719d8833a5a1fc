//! Rows in the place of others: after any sequence of epochs, compactions, races and faults the table has what a list of rows
//! has that is treated alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watershed_core::Error;
use watershed_core::clock::{ManualClock, mix};
use watershed_core::sink::{Deleted, PreparedCommit, Replaced, Sink};
use watershed_core::time::{EventTime, Interval};
use watershed_lake::upkeep::{CompactOptions, compact};
use watershed_lake::{Create, DeltaSink, Fault, FaultPlan, FaultStore, HistoryOptions, Stores, open_history};

use crate::fixtures::*;

fn replaced(times: &[(i64, i64)]) -> Option<Replaced> {
    let interval = |(start, end): &(i64, i64)| Interval { start: EventTime(*start), end: EventTime(*end) };
    Some(Replaced { column: "ts".to_string(), times: times.iter().map(interval).collect() })
}

/// The (ts, k) rows that are not marked, sorted.
async fn rows_of(lake: &Lake) -> Vec<(i64, i64)> {
    let options = HistoryOptions { untimed: true, ..HistoryOptions::default() };
    let history = open_history(&lake.stores, &lake.at("t"), &options).await.unwrap();
    let files = files(&history.pin(None).await.unwrap());
    let deleted = history.deleted(&files).await.unwrap();
    let mut rows = vec![];
    for (file, deleted) in files.into_iter().zip(deleted) {
        let gone = |row: usize| deleted.as_ref().is_some_and(|d| d.runs.iter().any(|run| run.contains(&(row as u64))));
        let all = unsorted_facts(&file);
        rows.extend(all.into_iter().enumerate().filter(|(row, _)| !gone(*row)).map(|(_, fact)| fact));
    }
    rows.sort_unstable();
    rows
}

fn replace(model: &mut Vec<(i64, i64)>, times: &[(i64, i64)], new: &[(i64, i64)]) {
    model.retain(|(ts, _)| !times.iter().any(|(start, end)| start <= ts && ts < end));
    model.extend(new);
    model.sort_unstable();
}

/// Disjoint stretches, some of nothing, some of whole days.
fn stretches(draw: &mut impl FnMut(u64) -> i64) -> Vec<(i64, i64)> {
    let (mut times, mut at) = (vec![], 0);
    for _ in 0..1 + draw(3) {
        let start = at + draw(20) * 3 * HOUR;
        at = start + 1 + draw(12) * 5 * HOUR;
        times.push((start, at));
        at += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_has_what_a_list_has() {
    for seed in 0..24u64 {
        println!("seed {seed}");
        let mut drawn = mix(seed);
        let mut draw = |below: u64| {
            drawn = mix(drawn);
            (drawn % below) as i64
        };
        let lake = Lake::new();
        let by = ["day(ts)", ""][draw(2) as usize];
        let sink = lake.sink("t", by).await;
        let clock = ManualClock::new(EventTime(1_700_000_000_000_000), seed);
        let mut model: Vec<(i64, i64)> = vec![];
        for epoch in 1..14u64 {
            let facts: Vec<(i64, i64)> =
                (0..draw(30)).map(|_| (draw(5) * DAY + draw(8) * 3 * HOUR, draw(1000))).collect();
            let mut prepared = match facts.is_empty() {
                true => PreparedCommit::default(),
                false => prepare(&sink, &facts).await,
            };
            let times = if draw(2) == 0 { vec![] } else { stretches(&mut draw) };
            prepared.replaced = replaced(&times).filter(|_| !times.is_empty());
            // Or by what is in them.
            if times.is_empty() && draw(3) == 0 {
                let gone: BTreeSet<i64> = model.iter().map(|(_, k)| *k).filter(|k| k % 3 == 0).collect();
                let texts = gone.iter().map(i64::to_string).collect();
                prepared.deleted = Some(Deleted { texts: BTreeMap::from([("k".to_string(), texts)]) });
                model.retain(|(_, k)| !gone.contains(k));
            }
            sink.commit(&identity(epoch, (epoch > 1).then(|| epoch - 1)), &prepared, &BTreeMap::new()).await.unwrap();
            replace(&mut model, &times, &facts);
            if draw(4) == 0 {
                compact(&lake.stores, &lake.at("t"), CompactOptions::default(), &clock).await.unwrap();
            }
            assert_eq!(rows_of(&lake).await, model, "seed {seed}, epoch {epoch}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_wins_brings_no_row_back() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    for epoch in 1..=4 {
        put(&sink, epoch, &[(epoch as i64 * HOUR, 1), (DAY + 1, epoch as i64)]).await;
    }
    let prepared = PreparedCommit { replaced: replaced(&[(HOUR, 3 * HOUR)]), ..prepare(&sink, &[(HOUR, 9)]).await };
    // The sink does not know of it until its own commit is refused.
    let clock = ManualClock::new(EventTime(1_700_000_000_000_000), 5);
    let done = compact(&lake.stores, &lake.at("t"), CompactOptions::default(), &clock).await.unwrap();
    assert!(done.files > 0);
    sink.commit(&identity(5, Some(4)), &prepared, &BTreeMap::new()).await.unwrap();
    let mut expected: Vec<(i64, i64)> = (1..=4).map(|k| (DAY + 1, k)).collect();
    replace(&mut expected, &[], &[(HOUR, 9), (3 * HOUR, 1), (4 * HOUR, 1)]);
    assert_eq!(rows_of(&lake).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_rows_are_replaced_once() {
    for kind in [Fault::Before, Fault::After, Fault::CrashBefore, Fault::CrashAfter] {
        let mut step = 0;
        loop {
            let lake = Lake::new();
            let sink = lake.sink("t", "day(ts)").await;
            put(&sink, 1, &[(1, 1), (HOUR, 2), (DAY, 3)]).await;
            let times = [(0, HOUR)];
            let prepared = PreparedCommit { replaced: replaced(&times), ..prepare(&sink, &[(2, 4)]).await };
            let plan = FaultPlan { at: Some((step, kind)), ..FaultPlan::default() };
            let counted: Arc<std::sync::Mutex<Vec<FaultStore>>> = Arc::default();
            let keep = Arc::clone(&counted);
            let stores = Stores::default().with_wrapper(Arc::new(move |inner| {
                let store = FaultStore::new(inner, plan.clone());
                keep.lock().unwrap().push(store.clone());
                Arc::new(store)
            }));
            let commit = async |stores: &Stores, seed| -> Result<(), Error> {
                let sink: DeltaSink = open(stores, &lake.at("t"), spec("day(ts)"), seed, Create::Now).await?;
                sink.commit(&identity(2, Some(1)), &prepared, &BTreeMap::new()).await.map(|_| ())
            };
            let _ = commit(&stores, 7_000 + step).await;
            // What a restart does: the same epoch again, until it is known.
            commit(&lake.stores, 8_000 + step).await.unwrap();
            assert_eq!(rows_of(&lake).await, [(2, 4), (HOUR, 2), (DAY, 3)], "{kind:?} at {step}");
            if counted.lock().unwrap().iter().all(|store| store.counts().faults() == 0) {
                break;
            }
            step += 1;
        }
        assert!(step > 3, "only {step} operations could fail");
    }
}

#[tokio::test]
async fn tables_that_must_not_change_say_so() {
    for (property, words) in
        [("delta.appendOnly", "may only be appended to"), ("delta.enableChangeDataFeed", "change data feed")]
    {
        let lake = Lake::new();
        let sink = lake.sink("t", "day(ts)").await;
        put(&sink, 1, &[(1, 1)]).await;
        let created = entry(&lake, "t", 0).into_iter().find(|action| action.get("metaData").is_some()).unwrap();
        let mut metadata = created.clone();
        metadata["metaData"]["configuration"][property] = serde_json::json!("true");
        put_entry(&lake, "t", 2, &[metadata]);
        let prepared = PreparedCommit { replaced: replaced(&[(0, 2)]), ..PreparedCommit::default() };
        let said = sink.commit(&identity(2, Some(1)), &prepared, &BTreeMap::new()).await.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert_eq!(rows_of(&lake).await, [(1, 1)]);
    }
}
