//! What a keyed table refuses, and that nothing is half done then.

use watershed_core::sink::Sink;
use watershed_lake::{KeySpec, Merge, WriteMode};

use super::*;
use crate::fixtures::{entry, put_entry};

fn op(key: i64, value: i64) -> Op {
    Op { key, ts: 0, value, sequence: value, delete: false }
}

#[tokio::test]
async fn a_table_that_replaced_nothing_asks_readers_for_nothing() {
    let lake = Lake::new();
    let sink = sink(&lake, "t", "", key()).await.unwrap();
    put(&sink, 1, &[op(1, 10), op(2, 20)]).await;
    let features = |version| {
        let actions = entry(&lake, "t", version);
        actions.iter().find_map(|a| a.get("protocol").map(|p| p["minReaderVersion"].as_i64().unwrap()))
    };
    assert_eq!((features(0), features(1)), (Some(1), None));
    put(&sink, 2, &[op(2, 21)]).await;
    assert_eq!(features(2), Some(3));
    let metadata = entry(&lake, "t", 2).into_iter().find_map(|a| a.get("metaData").cloned()).unwrap();
    assert_eq!(metadata["configuration"]["delta.enableDeletionVectors"], "true");
    assert_eq!(metadata["configuration"]["watershed.primary_key"], "id");
    put(&sink, 3, &[op(1, 11)]).await;
    assert_eq!(features(3), None);
    assert_eq!(rows(&lake, "t").await, Rows::from([(1, (0, 11, 11)), (2, (0, 21, 21))]));
}

#[tokio::test]
async fn a_file_goes_with_its_last_row() {
    let lake = Lake::new();
    let sink = sink(&lake, "t", "", key()).await.unwrap();
    put(&sink, 1, &[op(1, 10), op(2, 20)]).await;
    put(&sink, 2, &[op(1, 11), Op { delete: true, ..op(2, 0) }]).await;
    let actions = entry(&lake, "t", 2);
    let adds = actions.iter().filter(|a| a.get("add").is_some()).count();
    assert_eq!((adds, rows(&lake, "t").await), (1, Rows::from([(1, (0, 11, 11))])));
    // And no vector was needed.
    assert!(actions.iter().all(|a| a.get("protocol").is_none()));
}

#[tokio::test]
async fn keys_that_nothing_puts_in_order_are_refused() {
    let lake = Lake::new();
    let strict = KeySpec { fold: false, ..key() };
    let sink = sink(&lake, "t", "", strict.clone()).await.unwrap();
    for batches in [vec![vec![op(1, 1), op(7, 1), op(7, 2)]], vec![vec![op(7, 1)], vec![op(3, 1), op(7, 2)]]] {
        let error = prepare(&sink, &batches).await.unwrap_err().to_string();
        assert!(error.contains("the key (id = 7) comes more than once"), "{error}");
        assert!(error.contains("sequence_by"), "{error}");
    }
    let ordered = KeySpec { sequence_by: Some("n".into()), ..strict };
    let sink = super::sink(&lake, "u", "", ordered).await.unwrap();
    prepare(&sink, &[vec![op(7, 2)], vec![op(7, 1)]]).await.unwrap();
    let error = prepare(&sink, &[vec![op(7, 2)], vec![op(7, 2)]]).await.unwrap_err().to_string();
    assert!(error.contains("the key (id = 7) comes more than once"), "{error}");
}

#[tokio::test]
async fn columns_that_cannot_be_keys_are_refused() {
    let lake = Lake::new();
    for (spec, words) in [
        (KeySpec { columns: vec!["nope".into()], ..key() }, "the key's `nope` is no column of the rows"),
        (KeySpec { columns: vec!["id".into(), "id".into()], ..key() }, "names `id` twice"),
        (KeySpec { columns: vec![], ..key() }, "at least one column"),
        (KeySpec { sequence_by: Some("nope".into()), ..key() }, "sequence_by's `nope`"),
        (KeySpec { operation: Some("nope".into()), ..key() }, "no column `nope` for the operation"),
    ] {
        let error = sink(&lake, "t", "", spec).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(!lake.folder.path().join("t").exists());
}

#[tokio::test]
async fn another_key_than_the_tables_is_refused() {
    let lake = Lake::new();
    drop(sink(&lake, "t", "", key()).await.unwrap());
    let other = KeySpec { columns: vec!["id".into(), "v".into()], ..key() };
    let error = sink(&lake, "t", "", other).await.unwrap_err().to_string();
    assert!(error.contains("the key of table") && error.contains("is (id), not (id, v)"), "{error}");
}

#[tokio::test]
async fn a_foreign_table_is_upgraded_only_when_asked() {
    let lake = Lake::new();
    let plain = TableSpec { key: None, ..spec("", key()) };
    let columns: Vec<usize> = (0..4).collect();
    let plain = TableSpec { schema: Arc::new(plain.schema.project(&columns).unwrap()), ..plain };
    let foreign = open(&lake.stores, &lake.at("t"), plain, 77, Create::Now).await.unwrap();
    let writer = foreign.writer().unwrap();
    writer.write(0, batch(&[op(1, 10), op(2, 20)]).project(&columns).unwrap()).await.unwrap();
    foreign.commit(&identity(1, None), &writer.finish().await.unwrap(), &BTreeMap::new()).await.unwrap();

    let sink = super::sink(&lake, "t", "", key()).await.unwrap();
    let prepared = prepare(&sink, &[vec![op(2, 21)]]).await.unwrap();
    let other = watershed_core::sink::CommitIdentity { application: "keyed".into(), epoch: 1, after: None };
    let error = sink.commit(&other, &prepared, &BTreeMap::new()).await.unwrap_err().to_string();
    assert!(error.contains("--upgrade"), "{error}");
    assert_eq!(rows(&lake, "t").await.len(), 2);
    let sink = super::sink(&lake, "t", "", KeySpec { upgrade: true, ..key() }).await.unwrap();
    sink.commit(&other, &prepared, &BTreeMap::new()).await.unwrap();
    assert_eq!(rows(&lake, "t").await, Rows::from([(1, (0, 10, 10)), (2, (0, 21, 21))]));
}

#[tokio::test]
async fn tables_that_must_not_be_replaced_in_are_refused() {
    for (property, value, words) in [
        ("delta.appendOnly", "true", "only be appended to"),
        ("watershed.merge", "newest", "merge = 'newest': give 'replace'"),
        ("watershed.merge", "partial", "made with merge = 'partial' and write_mode = 'merge-on-read'"),
        ("watershed.write_mode", "lazy", "write_mode = 'lazy': give 'merge-on-read'"),
    ] {
        let lake = Lake::new();
        drop(sink(&lake, "t", "", key()).await.unwrap());
        let mut metadata = entry(&lake, "t", 0).into_iter().find(|a| a.get("metaData").is_some()).unwrap();
        metadata["metaData"]["configuration"][property] = value.into();
        put_entry(&lake, "t", 1, &[metadata]);
        let error = sink(&lake, "t", "", key()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_vector_or_a_file_that_is_gone_stops_the_commit() {
    for (suffix, words) in [(".bin", "cannot be used"), (".parquet", "cannot read")] {
        let lake = Lake::new();
        let sink = sink(&lake, "t", "", key()).await.unwrap();
        put(&sink, 1, &[op(1, 10), op(2, 20)]).await;
        put(&sink, 2, &[op(1, 11)]).await;
        let again = super::sink(&lake, "t", "", key()).await.unwrap();
        let prepared = prepare(&again, &[vec![op(1, 12), op(2, 22)]]).await.unwrap();
        let table = lake.folder.path().join("t");
        let prepared_names: Vec<&str> = prepared.files.iter().map(|f| f.path.as_str()).collect();
        for file in std::fs::read_dir(&table).unwrap().map(|e| e.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.ends_with(suffix) && !prepared_names.contains(&name) {
                std::fs::remove_file(file).unwrap();
            }
        }
        let error = again.commit(&identity(3, Some(2)), &prepared, &BTreeMap::new()).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!table.join("_delta_log/00000000000000000003.json").exists());
    }
}

#[tokio::test]
async fn a_key_is_never_null() {
    let lake = Lake::new();
    let sink = sink(&lake, "t", "", key()).await.unwrap();
    let rows = batch(&[op(1, 1)]);
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(Int64Array::from(vec![None]));
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let error = sink.writer().unwrap().write(0, rows).await.unwrap_err().to_string();
    assert!(error.contains("NULL in column `id`, which is part of the key"), "{error}");
}

#[tokio::test]
async fn manners_that_do_not_go_together_are_refused() {
    let sequence_by = Some("n".to_string());
    let partial = KeySpec { merge: Merge::Partial, sequence_by: sequence_by.clone(), ..key() };
    let copies = KeySpec { write_mode: WriteMode::CopyOnWrite, sequence_by, ..key() };
    for (key, words) in
        [(partial, "merge = 'partial' does not go with sequence_by"), (copies, "deletes do not go with")]
    {
        let lake = Lake::new();
        let error = sink(&lake, "t", "", key).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!lake.folder.path().join("t").exists());
    }
}
