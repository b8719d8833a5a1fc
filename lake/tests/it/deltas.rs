//! Delta tables as histories.

use serde_json::json;
use watershed_core::Error;
use watershed_core::history::{Times, Version};
use watershed_core::time::{EventTime, Grain};
use watershed_lake::{HistoryOptions, open_history};

use crate::fixtures::*;

#[tokio::test]
async fn lists_partitions_with_statistics() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    put(&sink, 1, &[(DAY + 5, 1), (DAY + 7, 2), (0, 3)]).await;
    put(&sink, 2, &[(DAY + 1, 4)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let layout = history.layout();
    assert_eq!(layout.time_partition, Some(("ts_day".to_string(), Grain::Day)));
    assert_eq!(layout.store, "file:///");
    assert_eq!(layout.file_schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["ts", "k", "v"]);
    let snapshot = history.pin(None).await.unwrap();
    let starts: Vec<(i64, i64, usize)> =
        snapshot.partitions.iter().map(|p| (p.interval.start.0, p.interval.end.0, p.files.len())).collect();
    assert_eq!(starts, [(0, DAY, 1), (DAY, 2 * DAY, 2)]);
    let mut times: Vec<_> = snapshot.partitions[1].files.iter().map(|f| (f.rows, f.times)).collect();
    times.sort_by_key(|(rows, _)| *rows);
    let known = |min, max| Times::Known { min: EventTime(min), max: EventTime(max), nulls: 0 };
    assert_eq!(times, [(Some(1), known(DAY + 1, DAY + 1)), (Some(2), known(DAY + 5, DAY + 7))]);
    assert_eq!(snapshot.partitions[0].files[0].values, [Some("1970-01-01".to_string())]);
    assert_eq!(facts(&files(&snapshot)), [(0, 3), (DAY + 1, 4), (DAY + 5, 1), (DAY + 7, 2)]);
}

#[tokio::test]
async fn pins_versions_and_tells_changes() {
    let lake = Lake::new();
    let sink = lake.sink("t", "hour(ts)").await;
    put(&sink, 1, &[(0, 1)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    assert_eq!(history.layout().time_partition, Some(("ts_hour".to_string(), Grain::Hour)));
    let old = history.pin(None).await.unwrap();
    put(&sink, 2, &[(HOUR, 2), (0, 3)]).await;
    let new = history.pin(None).await.unwrap();
    let back = history.pin(Some((&old.version, None))).await.unwrap();
    assert_eq!((back.partitions, &back.version), (old.partitions.clone(), &old.version));
    let changes = history.changes(&old, &new).await.unwrap();
    let mut added: Vec<_> = changes.added.iter().map(|(i, f)| (i.unwrap().start.0, f.rows)).collect();
    added.sort();
    assert_eq!(added, [(0, Some(1)), (HOUR, Some(1))]);
    assert!(changes.removed.is_empty());

    // A compaction keeps the facts; a delete does not; what came and went was never there.
    let adds = |version| {
        let actions = entry(&lake, "t", version);
        actions.into_iter().filter(|a| !a["add"].is_null()).map(|a| a["add"].clone()).collect::<Vec<_>>()
    };
    let first = adds(1).remove(0);
    let remove = |add: &serde_json::Value, change: bool| json!({"remove": {"path": add["path"], "dataChange": change}});
    let with = |add: &serde_json::Value, path: &str, change: bool| {
        let mut add = add.clone();
        (add["path"], add["dataChange"]) = (json!(path), json!(change));
        json!({ "add": add })
    };
    put_entry(&lake, "t", 3, &[remove(&first, false), with(&first, "compacted.parquet", false)]);
    let compacted = history.pin(None).await.unwrap();
    let changes = history.changes(&new, &compacted).await.unwrap();
    assert_eq!((changes.added.len(), changes.removed.len(), changes.rewritten.len()), (0, 0, 1));
    assert!(files(&new).iter().any(|f| f.path == changes.rewritten[0].removed[0]));
    assert!(changes.rewritten[0].added[0].1.path.ends_with("/compacted.parquet"));
    put_entry(&lake, "t", 4, &[with(&first, "brief.parquet", true)]);
    put_entry(
        &lake,
        "t",
        5,
        &[json!({"remove": {"path": "brief.parquet", "dataChange": true}}), with(&first, "stays.parquet", true)],
    );
    put_entry(&lake, "t", 6, &[json!({"remove": {"path": "compacted.parquet", "dataChange": true}})]);
    let deleted = history.pin(None).await.unwrap();
    let changes = history.changes(&compacted, &deleted).await.unwrap();
    assert_eq!(changes.added.len(), 1);
    assert!(changes.added[0].1.path.ends_with("/stays.parquet"));
    assert_eq!(changes.removed.len(), 1);
    let removed = &changes.removed[0];
    assert_eq!((removed.version.as_str(), removed.interval.unwrap().start), ("6", EventTime(0)));
    assert!(removed.path.ends_with("/compacted.parquet"));

    // A hole in the log is loud.
    std::fs::remove_file(lake.folder.path().join("t/_delta_log/00000000000000000004.json")).unwrap();
    let error = history.changes(&compacted, &deleted).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("log entry 4 of table")), "{error}");
}

#[tokio::test]
async fn a_table_made_anew_is_recognised() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    put(&sink, 1, &[(0, 1)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let old = history.pin(None).await.unwrap();
    std::fs::remove_dir_all(lake.at("t")).unwrap();
    let again = lake.sink_of("t", spec("day(ts)"), 2).await.unwrap();
    put(&again, 1, &[(0, 2)]).await;
    for history in [history, open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap()] {
        let error = history.pin(Some((&old.version, None))).await.unwrap_err();
        assert!(matches!(&error, Error::Stopped(why) if why.contains("was made anew")), "{error}");
    }
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let Version::Delta { table_id, .. } = history.pin(None).await.unwrap().version else { panic!("a folder?") };
    let error = history.pin(Some((&Version::Delta { version: 9, table_id }, None))).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("version 9") && why.contains("newest: 1")), "{error}");
}

#[tokio::test]
async fn unpartitioned_tables_need_statistics() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    put(&sink, 1, &[(5, 1), (1_000_000, 2)]).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    // The maximum may have been truncated to milliseconds.
    assert_eq!((snapshot.partitions[0].interval.start.0, snapshot.partitions[0].interval.end.0), (5, 1_001_000));
    let error = open_history(&lake.stores, &lake.at("t"), &HistoryOptions::default()).await.unwrap();
    let error = error.pin(None).await.unwrap_err().to_string();
    assert!(error.contains("partition it by day or hour"), "{error}");
}

#[tokio::test]
async fn refuses_features_by_name() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    put(&sink, 1, &[(0, 1)]).await;
    let open = || async { open_history(&lake.stores, &lake.at("t"), &by_time()).await };
    let history = open().await.unwrap();
    let column = |name: &str| HistoryOptions { time_column: Some(name.to_string()), ..Default::default() };
    for (name, words) in
        [("k", "`k` is Int64"), ("nope", "its columns are ts, k, v"), ("ts_day", "is a partition column")]
    {
        let error = open_history(&lake.stores, &lake.at("t"), &column(name)).await.err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }

    let versions = json!({"minReaderVersion": 3, "minWriterVersion": 7});
    let mut protocol = json!({ "protocol": versions });
    protocol["protocol"]["readerFeatures"] = json!(["deletionVectors", "variantType"]);
    protocol["protocol"]["writerFeatures"] = protocol["protocol"]["readerFeatures"].clone();
    put_entry(&lake, "t", 2, &[protocol]);
    for error in [history.pin(None).await.unwrap_err(), open().await.err().unwrap()] {
        assert!(error.to_string().contains("uses the reader feature 'variantType'"), "{error}");
    }
}

#[tokio::test]
async fn partition_values_of_any_text_come_back() {
    let lake = Lake::new();
    let (schema, batch) = {
        use arrow::array::{ArrayRef, RecordBatch, StringArray};
        let names: Vec<Option<&str>> = vec![Some("a b/ü%2F=:#?"), None, Some("plain")];
        let base = rows(&[(0, 1), (1, 2), (2, 3)]);
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("ts", base.column(0).clone(), true),
            ("k", base.column(1).clone(), true),
            ("name", std::sync::Arc::new(StringArray::from(names)) as ArrayRef, true),
        ])
        .unwrap();
        (batch.schema(), batch)
    };
    let spec = watershed_lake::TableSpec { schema, ..spec("day(ts), name") };
    let sink = lake.sink_of("t", spec, 1).await.unwrap();
    let writer = watershed_core::sink::Sink::writer(&sink).unwrap();
    writer.write(0, batch).await.unwrap();
    let prepared = writer.finish().await.unwrap();
    watershed_core::sink::Sink::verify(&sink, &prepared).await.unwrap();
    watershed_core::sink::Sink::commit(&sink, &identity(1, None), &prepared, &Default::default()).await.unwrap();
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    let mut values: Vec<_> = files(&snapshot).into_iter().map(|f| f.values[1].clone()).collect();
    values.sort();
    assert_eq!(values, [None, Some("a b/ü%2F=:#?".to_string()), Some("plain".to_string())]);
    assert_eq!(facts(&files(&snapshot)), [(0, 1), (1, 2), (2, 3)]);
}
