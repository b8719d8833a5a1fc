//! Manifests are created once, fenced, cleaned up, and never understood by half.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, RecordBatch, StructArray};
use arrow::datatypes::{Field, Fields, Int8Type};
use arrow::util::pretty::pretty_format_batches;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use uuid::Uuid;
use watershed_core::epoch::{ChunkRef, Counts, FORMAT, Manifest};
use watershed_core::{Error, EventTime};
use watershed_runtime::checkpoint::{Checkpoints, Newest};

fn manifest(epoch: u64, attempt: u128) -> Manifest {
    Manifest {
        format: FORMAT,
        job: "j".into(),
        incarnation: Uuid::nil(),
        attempt: Uuid::from_u128(attempt),
        epoch,
        watermark: EventTime(7),
        positions: BTreeMap::new(),
        shards: 1,
        state: vec![],
        sinks: BTreeMap::new(),
        counts: Counts::default(),
        join: 0,
        ended: false,
        early: None,
        repairs: Default::default(),
    }
}

fn open() -> (Arc<InMemory>, Checkpoints) {
    let store = Arc::new(InMemory::new());
    let checkpoints = Checkpoints::new(Arc::clone(&store) as _, &Path::from("home"), "j", Uuid::nil());
    (store, checkpoints)
}

#[tokio::test]
async fn of_two_runners_one_wins() {
    let (_, checkpoints) = open();
    checkpoints.create(&manifest(1, 1)).await.unwrap();
    assert!(matches!(checkpoints.create(&manifest(1, 2)).await, Err(Error::Fenced { .. })));
    checkpoints
        .create(&manifest(1, 1))
        .await
        .expect("creating the same again is no fault: the answer may have been lost");
    checkpoints.create(&manifest(2, 2)).await.unwrap();
    let newest = checkpoints.newest().await.unwrap();
    assert!(matches!(newest, Newest::Manifest(m) if *m == manifest(2, 2)));
}

#[tokio::test]
async fn a_number_freed_by_clean_up_is_not_taken_again() {
    let (_, checkpoints) = open();
    for epoch in 1..=9 {
        checkpoints.create(&manifest(epoch, 1)).await.unwrap();
    }
    checkpoints.clean(9).await.unwrap();
    assert_eq!(checkpoints.epochs().await.unwrap(), [7, 8, 9]);
    let late = checkpoints.create(&manifest(3, 2)).await;
    assert!(matches!(late, Err(Error::Fenced { .. })), "{late:?}");
}

#[tokio::test]
async fn clean_up_spares_what_is_needed() {
    let (store, checkpoints) = open();
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    let name = |epoch: u64, attempt: u128| format!("{epoch:020}-{}-0.arrow", Uuid::from_u128(attempt));
    for epoch in 1..=9 {
        checkpoints.write_state(&name(epoch, 1), &schema, &[]).await.unwrap();
    }
    checkpoints.write_state(&name(10, 2), &schema, &[]).await.unwrap();
    let mut last = manifest(9, 1);
    last.state = vec![ChunkRef { file: name(2, 1), batch: 0, shard: 0, stage: 0 }];
    checkpoints.create(&last).await.unwrap();
    checkpoints.clean(9).await.unwrap();
    for (epoch, there) in [(1, false), (2, true), (6, false), (8, true), (9, true)] {
        let path = Path::from(format!("home/jobs/j/{}/state/{}", Uuid::nil(), name(epoch, 1)));
        assert_eq!(store.head(&path).await.is_ok(), there, "state of epoch {epoch}");
    }
    let ahead = Path::from(format!("home/jobs/j/{}/state/{}", Uuid::nil(), name(10, 2)));
    assert!(store.head(&ahead).await.is_ok(), "a file of an epoch still to be written is left alone");
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let (store, checkpoints) = open();
    checkpoints.create(&manifest(1, 1)).await.unwrap();
    let path = |epoch: u64| Path::from(format!("home/jobs/j/{}/manifests/{epoch:020}.json", Uuid::nil()));
    store.put(&path(2), "{ half".into()).await.unwrap();
    match checkpoints.newest().await.unwrap() {
        Newest::Unreadable { epoch: 2, why } => assert!(why.contains("cannot be read"), "{why}"),
        other => panic!("{other:?}"),
    }
    store.put(&path(3), r#"{"format": 9}"#.into()).await.unwrap();
    let error = checkpoints.newest().await.unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("CREATE OR REPLACE"), "{error}");
}

#[tokio::test]
async fn chunks_with_dictionaries_of_their_own_come_back() {
    let (_, checkpoints) = open();
    let chunk = |words: [&str; 3]| {
        let words: DictionaryArray<Int8Type> = words.into_iter().collect();
        let inner = Fields::from(vec![Field::new("w", words.data_type().clone(), true)]);
        let nested = StructArray::new(inner, vec![Arc::new(words.clone())], None);
        let columns: [(&str, ArrayRef); 2] = [("word", Arc::new(words)), ("nested", Arc::new(nested))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let chunks = [chunk(["a", "b", "a"]), chunk(["c", "a", "d"])];
    checkpoints.write_state("x.arrow", &chunks[0].schema(), &chunks).await.unwrap();
    let read = checkpoints.read_state("x.arrow").await.unwrap();
    assert_eq!(read.len(), 2);
    let text = |chunks: &[RecordBatch]| pretty_format_batches(chunks).unwrap().to_string();
    for (read, written) in read.iter().zip(&chunks) {
        assert_eq!(read.schema(), written.schema());
        assert_eq!(text(std::slice::from_ref(read)), text(std::slice::from_ref(written)));
    }
}
