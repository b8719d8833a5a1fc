//! A commit happens once, or says why not.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;
use watershed_core::Error;
use watershed_core::sink::{Committed, PreparedCommit, Sink};
use watershed_lake::{Create, Stores, loaded, open_history, table_info};

use crate::fixtures::*;

#[tokio::test]
async fn an_epoch_is_committed_once() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    assert_eq!(sink.last_committed(APP).await.unwrap(), None);
    let prepared = prepare(&sink, &[(0, 1), (DAY, 2)]).await;
    sink.verify(&prepared).await.unwrap();
    let info = BTreeMap::from([("watermark".to_string(), json!(42)), ("positions".to_string(), json!({"s": [1, 2]}))]);
    let first = sink.commit(&identity(1, None), &prepared, &info).await.unwrap();
    assert_eq!(first, Committed::Now { version: 1 });
    assert_eq!(sink.commit(&identity(1, None), &prepared, &info).await.unwrap(), Committed::Before);

    // Another process, after a restart, is told the same.
    let again = lake.sink("t", "day(ts)").await;
    assert_eq!(again.commit(&identity(1, None), &prepared, &info).await.unwrap(), Committed::Before);
    let last = again.last_committed(APP).await.unwrap().unwrap();
    assert_eq!((last.epoch, last.info), (1, info));
    let next = prepare(&again, &[(1, 3)]).await;
    // Epochs without rows commit nothing, so numbers may jump.
    let committed = again.commit(&identity(4, Some(1)), &next, &BTreeMap::new()).await.unwrap();
    assert_eq!(committed, Committed::Now { version: 2 });

    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    assert_eq!(facts(&files(&snapshot)), [(0, 1), (1, 3), (DAY, 2)]);
}

#[tokio::test]
async fn what_does_not_fit_stops() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    put(&sink, 1, &[(0, 1)]).await;
    put(&sink, 2, &[(0, 2)]).await;
    let prepared = prepare(&sink, &[(0, 3)]).await;
    for (epoch, after, words) in [
        (5, Some(4), "it stands at epoch 2, but epoch 4 was committed before"),
        (5, None, "it stands at epoch 2, but this job committed none yet"),
        (5, Some(1), "it stands at epoch 2, but epoch 1 was committed before"),
    ] {
        let error = sink.commit(&identity(epoch, after), &prepared, &BTreeMap::new()).await.unwrap_err();
        assert!(matches!(&error, Error::Stopped(why) if why.contains(words) && why.contains("version 2")), "{error}");
    }
    // The table is made anew behind the sink's back: it is not taken for the old one.
    std::fs::remove_dir_all(lake.at("t")).unwrap();
    let other = lake.sink_of("t", spec(""), 77).await.unwrap();
    for epoch in 1..=4 {
        put(&other, epoch, &[(0, 9)]).await;
    }
    let error = sink.commit(&identity(3, Some(2)), &prepared, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("was made anew")), "{error}");
    // And a restarted runner, which knows no id, stops at the record.
    std::fs::remove_dir_all(lake.at("t")).unwrap();
    let restarted = lake.sink_of("t", spec(""), 78).await.unwrap();
    let error = restarted.commit(&identity(3, Some(2)), &prepared, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("its transaction record is gone")), "{error}");
    std::fs::remove_dir_all(lake.at("t")).unwrap();
    let error = restarted.commit(&identity(3, Some(2)), &prepared, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("is gone")), "{error}");
}

#[tokio::test]
async fn a_table_has_one_owner() {
    let lake = Lake::new();
    let (us, them) = (Uuid::from_u128(1), Uuid::from_u128(2));
    lake.sink_of("t", owned("", us), 1).await.unwrap();
    lake.sink_of("t", owned("", us), 2).await.unwrap();
    let error = lake.sink_of("t", owned("", them), 3).await.unwrap_err();
    assert!(
        matches!(&error, Error::Stopped(why) if why.contains("another view") && why.contains(&us.to_string())),
        "{error}"
    );
    lake.sink("free", "").await;
    let error = lake.sink_of("free", owned("", us), 4).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("was not made by this view")), "{error}");
    let info = table_info(&lake.stores, &lake.at("t")).await.unwrap();
    assert_eq!(info.properties["watershed.incarnation"], us.to_string());
}

#[tokio::test]
async fn foreign_changes_are_judged() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    put(&sink, 1, &[(0, 1)]).await;
    let path = entry(&lake, "t", 1).iter().find_map(|a| a["add"]["path"].as_str().map(str::to_string)).unwrap();
    // Deletes and others' transactions do not matter to an append.
    put_entry(
        &lake,
        "t",
        2,
        &[
            json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 1}}),
            json!({"txn": {"appId": "other", "version": 7}}),
        ],
    );
    put(&sink, 2, &[(0, 2)]).await;
    // A property changed: go on. The columns changed: stop.
    let mut metadata = entry(&lake, "t", 0).into_iter().find(|a| !a["metaData"].is_null()).unwrap();
    metadata["metaData"]["configuration"]["note"] = json!("x");
    put_entry(&lake, "t", 4, &[metadata.clone()]);
    put(&sink, 3, &[(0, 3)]).await;
    let schema = metadata["metaData"]["schemaString"].as_str().unwrap().replace("\"k\"", "\"kk\"");
    metadata["metaData"]["schemaString"] = json!(schema);
    put_entry(&lake, "t", 6, &[metadata.clone()]);
    let prepared = prepare(&sink, &[(0, 4)]).await;
    let error = sink.commit(&identity(4, Some(3)), &prepared, &BTreeMap::new()).await.unwrap_err().to_string();
    assert!(error.contains("has no column `k`"), "{error}");
    metadata["metaData"]["configuration"]["delta.setTransactionRetentionDuration"] = json!("interval 1 day");
    metadata["metaData"]["schemaString"] = entry(&lake, "t", 4)[0]["metaData"]["schemaString"].clone();
    put_entry(&lake, "t", 7, &[metadata]);
    let error = sink.commit(&identity(4, Some(3)), &prepared, &BTreeMap::new()).await.unwrap_err().to_string();
    assert!(error.contains("forgets transactions after interval 1 day"), "{error}");
}

#[tokio::test]
async fn a_table_may_wait_for_its_first_rows() {
    let lake = Lake::new();
    let at = lake.at("late");
    let sink = open(&lake.stores, &at, spec(""), 1, Create::AtFirstRows).await.unwrap();
    assert_eq!(sink.last_committed(APP).await.unwrap(), None);
    assert!(!std::path::Path::new(&at).exists());
    put(&sink, 1, &[(0, 1)]).await;
    assert_eq!(table_info(&lake.stores, &at).await.unwrap().rows, Some(1));
    assert_eq!(sink.last_committed(APP).await.unwrap().unwrap().epoch, 1);
}

#[tokio::test]
async fn a_load_is_known_by_its_files() {
    let lake = Lake::new();
    let at = lake.at("t");
    let own = |names: &[&str], v| names.iter().map(|n| (format!("watershed/load/{n}"), v)).collect::<Vec<_>>();
    let ids: Vec<String> = own(&["a", "b", "c"], 1).into_iter().map(|(id, _)| id).collect();
    assert!(loaded(&lake.stores, &at, &ids).await.unwrap().is_empty());
    let sink = lake.sink("t", "day(ts)").await;
    let prepared = prepare(&sink, &[(0, 1)]).await;
    let info = BTreeMap::new();
    let both = own(&["a", "b"], 1);
    assert_eq!(sink.commit_load(&both, &prepared, &info).await.unwrap(), Committed::Now { version: 1 });
    assert_eq!(sink.commit_load(&both, &prepared, &info).await.unwrap(), Committed::Before);
    let found = loaded(&lake.stores, &at, &ids).await.unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), both);
    assert_eq!(sink.applications(&ids).await.unwrap().into_iter().collect::<Vec<_>>(), both);
    let error = sink.commit_load(&own(&["b", "c"], 1), &prepared, &info).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("(watershed/load/b)")), "{error}");
    // --again takes the next number.
    let again = prepare(&sink, &[(0, 1)]).await;
    assert_eq!(sink.commit_load(&own(&["a"], 2), &again, &info).await.unwrap(), Committed::Now { version: 2 });
}

#[tokio::test]
async fn a_missing_or_short_file_is_found_before_a_redo() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    let prepared = prepare(&sink, &[(0, 1)]).await;
    let path = format!("{}/{}", lake.at("t"), prepared.files[0].path);
    std::fs::write(&path, "x").unwrap();
    let error = sink.verify(&prepared).await.unwrap_err().to_string();
    assert!(error.contains("has 1 bytes, not "), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(sink.verify(&prepared).await.unwrap_err().to_string().contains("is gone"));
    sink.verify(&PreparedCommit::default()).await.unwrap();
}

/// Transactions survive log checkpoints and the clean-up of the entries before them.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_keep_what_was_committed() {
    let lake = Lake::new();
    let mut spec = spec("");
    spec.properties.insert("delta.checkpointInterval".to_string(), "4".to_string());
    let sink = lake.sink_of("t", spec.clone(), 1).await.unwrap();
    for epoch in 1..=9 {
        put(&sink, epoch, &[(0, i64::try_from(epoch).unwrap())]).await;
    }
    let log = lake.folder.path().join("t/_delta_log");
    assert!(log.join("00000000000000000008.checkpoint.parquet").exists());
    for version in 0..8 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let again = lake.sink_of("t", spec, 2).await.unwrap();
    assert_eq!(again.last_committed(APP).await.unwrap().unwrap().epoch, 9);
    put(&again, 10, &[(0, 10)]).await;
    // The first sink stands at version 8 and goes on from there.
    put(&sink, 11, &[(0, 11)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    assert_eq!(facts(&files(&snapshot)), (1..=11).map(|k| (0, k)).collect::<Vec<_>>());
}

#[tokio::test]
async fn refuses_what_it_cannot_write() {
    let lake = Lake::new();
    let mut odd = spec("");
    odd.properties.insert("delta.enableRowTracking".to_string(), "true".to_string());
    let error = lake.sink_of("t", odd, 1).await.unwrap_err().to_string();
    assert!(error.contains("`delta.enableRowTracking` is not supported"), "{error}");
    let error = table_info(&Stores::default(), &lake.at("nothing")).await.unwrap_err().to_string();
    assert!(error.contains("is not a Delta table"), "{error}");
}
