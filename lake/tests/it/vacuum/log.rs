//! The log cleaned up: what can still be read, by whom, and what is said of the rest.

use std::collections::BTreeMap;
use std::fs;

use futures::TryStreamExt;
use serde_json::json;
use watershed_core::Error;
use watershed_core::settings::parse_span;
use watershed_lake::TableSpec;
use watershed_lake::changes::{Since, changes};
use watershed_lake::upkeep::VacuumOptions;

use super::*;

#[tokio::test]
async fn a_log_is_cleaned_up_to_what_can_still_be_asked_for() {
    let lake = Lake::new();
    let properties = BTreeMap::from([("delta.checkpointInterval".to_string(), "4".to_string())]);
    let sink = lake.sink_of("t", TableSpec { properties, ..spec("") }, 3).await.unwrap();
    for epoch in 1..=10 {
        put(&sink, epoch, &[(epoch as i64, 1)]).await;
    }
    age(&lake, START);
    let entry_at = |version: u64| root(&lake).join(format!("_delta_log/{version:020}.json"));
    for version in 7..=10 {
        written(&entry_at(version), days(version as i64));
    }
    // A hint at a log checkpoint that goes is no hindrance.
    let hint = root(&lake).join("_delta_log/_last_checkpoint");
    let first_hint = fs::read_to_string(&hint).unwrap().replace("\"version\":8", "\"version\":4");
    assert!(first_hint.contains("\"version\":4"), "{first_hint}");
    let (all, young) = (log(&lake), vacuum_at(&lake, days(30), &NO_PINS).await);
    assert_eq!((young.log.unwrap().files, log(&lake)), (0, all.clone()));
    let keep = VacuumOptions { keep_log: true, ..VacuumOptions::default() };
    assert_eq!((try_at(&lake, days(39), keep, &NO_PINS).await.unwrap().log, log(&lake)), (None, all.clone()));
    let held = vacuum_at(&lake, days(39), &pin(&lake, 2).await).await.log.unwrap();
    assert_eq!((held.files, log(&lake)), (0, all.clone()));
    let dry = VacuumOptions { dry_run: true, ..VacuumOptions::default() };
    let dry = try_at(&lake, days(37), dry, &NO_PINS).await.unwrap().log.unwrap();
    assert_eq!((dry.files, dry.first, log(&lake)), (4, Some(4), all));

    // At day 39 versions from 9 on are young; 8 is read from its own log checkpoint. A job stands at 5.
    let done = vacuum_at(&lake, days(39), &pin(&lake, 5).await).await.log.unwrap();
    assert_eq!((done.files, done.first, done.checkpoint), (4, Some(4), None));
    for version in [4, 5, 9, 10] {
        assert_eq!(seen(&lake, Some(version)).await.unwrap().len(), version as usize);
    }
    let done = vacuum_at(&lake, days(39), &NO_PINS).await.log.unwrap();
    assert_eq!((done.files, done.first), (5, Some(8)));
    fs::write(&hint, first_hint).unwrap();
    assert_eq!(seen(&lake, None).await.unwrap().len(), 10);
    assert_eq!(seen(&lake, Some(8)).await.unwrap().len(), 8);
    let error = seen(&lake, Some(7)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Stopped(why) if why.contains("version 7") && why.contains("newest: 10")),
        "{error}"
    );

    // By others.
    let url = url::Url::from_directory_path(root(&lake)).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    assert_eq!((table.version(), table.get_file_uris().unwrap().count()), (Some(10), 10));
    // What goes on is written as before, and known as ours.
    put(&sink, 11, &[(11, 1)]).await;
    let again = lake.sink("t", "").await;
    put(&again, 12, &[(12, 1)]).await;
    assert_eq!(seen(&lake, None).await.unwrap().len(), 12);
    let gone = changes(&lake.stores, &lake.at("t"), Since::Version(7), None).await.unwrap_err();
    assert!(matches!(&gone, Error::Stopped(why) if why.contains("log entry 7") && why.contains("is gone")), "{gone}");
    let told = changes(&lake.stores, &lake.at("t"), Since::Version(9), None).await.unwrap();
    let told: Vec<_> = std::sync::Arc::new(told).read().try_collect().await.unwrap();
    assert_eq!(told.iter().map(|batch| batch.num_rows()).sum::<usize>(), 4);
}

#[tokio::test]
async fn a_log_without_checkpoints_gets_one() {
    let lake = Lake::new();
    compacted(&lake).await;
    let young = vacuum_at(&lake, days(30), &NO_PINS).await.log.unwrap();
    assert_eq!((young.files, young.checkpoint), (0, None));
    // It stands for the past only once that is over for it, too.
    written(&root(&lake).join("_delta_log/00000000000000000004.json"), days(20));
    let done = vacuum_at(&lake, days(31), &NO_PINS).await.log.unwrap();
    assert_eq!((done.files, done.checkpoint), (0, Some(4)));
    assert!(log(&lake).contains("00000000000000000004.checkpoint.parquet"));
    let done = vacuum_at(&lake, days(51), &NO_PINS).await.log.unwrap();
    assert_eq!((done.files, done.first, done.checkpoint), (4, Some(4), None));
    assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)]);

    // Nothing changes in a table whose owner says so.
    let lake = Lake::new();
    let properties = BTreeMap::from([("delta.enableExpiredLogCleanup".to_string(), "false".to_string())]);
    let sink = lake.sink_of("t", TableSpec { properties, ..spec("") }, 3).await.unwrap();
    put(&sink, 1, &[(1, 1)]).await;
    age(&lake, START);
    let done = vacuum_at(&lake, days(90), &NO_PINS).await.log.unwrap();
    assert_eq!((log(&lake).len(), done.left_alone.as_deref()), (2, Some("delta.enableExpiredLogCleanup is false")));
}

#[tokio::test]
async fn removals_that_only_a_checkpoint_knows_count() {
    let lake = Lake::new();
    let sink = keyed::sink(&lake, "t", "", keyed::key()).await.unwrap();
    keyed::put(&sink, 1, &[upsert(1, 1), upsert(2, 1)]).await;
    keyed::put(&sink, 2, &[upsert(1, 2)]).await;
    keyed::put(&sink, 3, &[upsert(2, 2)]).await;
    age(&lake, START);
    let mut metadata = entry(&lake, "t", 2).into_iter().find(|action| action.get("metaData").is_some()).unwrap();
    metadata["metaData"]["configuration"]["delta.logRetentionDuration"] = json!("interval 1 day");
    metadata["metaData"]["configuration"]["delta.deletedFileRetentionDuration"] = json!("interval 100000 days");
    put_entry(&lake, "t", 4, &[metadata]);
    written(&root(&lake).join("_delta_log/00000000000000000004.json"), START);
    let cleaned = vacuum_at(&lake, days(2), &NO_PINS).await;
    assert_eq!(cleaned.log.unwrap().files, 4);
    let all = data(&lake);
    let shorter =
        |span: &str| VacuumOptions { retention: parse_span(span), allow_shorter: true, ..VacuumOptions::default() };
    assert_eq!(gone(&try_at(&lake, days(7), shorter("7 days"), &NO_PINS).await.unwrap()), Vec::<&str>::new());
    let done = try_at(&lake, days(8), shorter("7 days"), &NO_PINS).await.unwrap();
    assert_eq!(done.files.len(), 2, "the first file and its vector of {all:?}");
    assert_eq!(keyed::rows(&lake, "t").await.len(), 2);
}
