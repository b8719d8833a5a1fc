//! The folder as readers see it: over a local disk, and over a store that fails at every step in turn.

use arrow::array::BinaryArray;
use futures::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use watershed_core::EventTime;
use watershed_core::clock::ManualClock;
use watershed_core::sink::message_schema;
use watershed_lake::faults::{Fault, FaultPlan, FaultStore};

use super::*;

/// Lines `{"n":from}` to `{"n":to - 1}`.
fn messages(range: std::ops::Range<u64>) -> RecordBatch {
    let payloads: BinaryArray = range.map(|n| Some(format!("{{\"n\":{n}}}").into_bytes())).collect();
    RecordBatch::try_new(message_schema(), vec![Arc::new(payloads.clone()), Arc::new(payloads)]).unwrap()
}

fn sink(store: &Arc<dyn ObjectStore>, file_size: u64) -> FolderSink {
    let folder = Folder {
        location: "out".into(),
        store: Arc::clone(store),
        path: Path::from("out"),
        stem: "build".into(),
        file_size,
    };
    FolderSink::new("result", folder, Arc::new(ManualClock::new(EventTime(0), 7)))
}

fn identity(epoch: u64, after: Option<u64>) -> CommitIdentity {
    CommitIdentity { application: "watershed/build/result".into(), epoch, after }
}

async fn prepare(sink: &FolderSink, range: std::ops::Range<u64>) -> Result<PreparedCommit> {
    let writer = sink.writer()?;
    writer.write(0, messages(range.start..range.end - 1)).await?;
    writer.write(1, messages(range.end - 1..range.end)).await?;
    writer.finish().await
}

/// What readers see, who pass over names with a `_`: names and lines.
async fn seen(store: &Arc<dyn ObjectStore>) -> Vec<(String, String)> {
    let mut found = vec![];
    let mut objects = store.list(Some(&Path::from("out")));
    while let Some(object) = objects.next().await {
        let path = object.unwrap().location;
        if !path.as_ref().contains("/_") {
            let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
            found.push((path.filename().unwrap().to_string(), String::from_utf8(bytes.to_vec()).unwrap()));
        }
    }
    found.sort();
    found
}

fn numbers(seen: &[(String, String)]) -> Vec<u64> {
    let number = |line: &str| line.trim_start_matches("{\"n\":").trim_end_matches('}').parse::<u64>().unwrap();
    seen.iter().flat_map(|(_, lines)| lines.lines().map(number).collect::<Vec<_>>()).collect()
}

fn info() -> BTreeMap<String, Value> {
    BTreeMap::from([("watershed.watermark".to_string(), Value::from(5))])
}

#[tokio::test]
async fn an_epoch_is_there_whole_with_its_commit_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    for store in [local, Arc::new(InMemory::new())] {
        let sink = sink(&store, 1 << 20);
        sink.folder.check().await.unwrap();
        assert_eq!(sink.last_committed("").await.unwrap(), None);
        assert!(sink.writer().unwrap().finish().await.unwrap().files.is_empty());
        let first = prepare(&sink, 0..100).await.unwrap();
        assert_eq!((first.files.len(), first.rows()), (1, 100));
        assert_eq!(seen(&store).await, [], "nothing is visible before the commit");
        sink.verify(&first).await.unwrap();
        assert_eq!(sink.commit(&identity(3, None), &first, &info()).await.unwrap(), Committed::Now { version: 3 });
        assert_eq!(sink.commit(&identity(3, None), &first, &info()).await.unwrap(), Committed::Before);
        assert_eq!(sink.last_committed("").await.unwrap(), Some(LastCommit { epoch: 3, info: info() }));
        let found = seen(&store).await;
        assert_eq!((found.len(), found[0].0.as_str()), (1, "build-00000000000000000003-0.ndjson"));
        assert_eq!(numbers(&found), (0..100).collect::<Vec<_>>());
        assert!(sink.verify(&first).await.is_err(), "the staged file is gone");

        // Files may be taken away by whoever reads them; the record stays.
        store.delete(&Path::from("out/build-00000000000000000003-0.ndjson")).await.unwrap();
        let second = prepare(&sink, 100..120).await.unwrap();
        sink.commit(&identity(4, Some(3)), &second, &info()).await.unwrap();
        assert_eq!(numbers(&seen(&store).await), (100..120).collect::<Vec<_>>());
        let odd = sink.commit(&identity(9, Some(7)), &second, &info()).await.unwrap_err();
        assert!(matches!(&odd, Error::Stopped(why) if why.contains("it stands at epoch 4")), "{odd}");
        let ours: Vec<_> = store.list(Some(&Path::from("out/_watershed"))).map(|f| f.unwrap().location).collect().await;
        assert_eq!(ours, [Path::from("out/_watershed/build/epochs/00000000000000000004.json")]);
    }
}

#[tokio::test]
async fn a_large_epoch_is_several_files() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = sink(&store, 100);
    let writer = sink.writer().unwrap();
    for n in 0..10 {
        writer.write(0, messages(n * 5..n * 5 + 5)).await.unwrap();
    }
    let prepared = writer.finish().await.unwrap();
    assert_eq!((prepared.files.len(), prepared.rows()), (4, 50));
    sink.commit(&identity(1, None), &prepared, &info()).await.unwrap();
    assert_eq!(numbers(&seen(&store).await), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_commit_that_fails_anywhere_is_done_again_to_the_same_files() {
    let faults = [Fault::Before, Fault::After, Fault::CrashBefore, Fault::CrashAfter];
    let mut most = 0;
    for fault in faults {
        for at in 0.. {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            // Whoever ran before wrote epoch 1, and staged epoch 2 in two files.
            let before = sink(&store, 50);
            let first = prepare(&before, 0..3).await.unwrap();
            before.commit(&identity(1, None), &first, &info()).await.unwrap();
            let second = prepare(&before, 3..20).await.unwrap();
            assert_eq!(second.files.len(), 2);
            let failing =
                FaultStore::new(Arc::clone(&store), FaultPlan { at: Some((at, fault)), ..FaultPlan::default() });
            let counts = failing.clone();
            let failing: Arc<dyn ObjectStore> = Arc::new(failing);
            let ended = sink(&failing, 50).commit(&identity(2, Some(1)), &second, &info()).await;
            if counts.counts().faults() == 0 {
                most = most.max(at);
                ended.unwrap();
                break;
            }
            // A reader sees whole files only, whenever it looks.
            for (name, lines) in seen(&store).await {
                assert!(lines.ends_with("}\n"), "{fault:?} at {at}: {name}");
            }
            // The next run.
            let next = sink(&store, 50);
            if next.last_committed("").await.unwrap().is_none_or(|last| last.epoch < 2) {
                next.verify(&second).await.unwrap();
                next.commit(&identity(2, Some(1)), &second, &info()).await.unwrap();
            }
            assert_eq!(numbers(&seen(&store).await), (0..20).collect::<Vec<_>>(), "{fault:?} at {at}");
            assert_eq!(seen(&store).await.len(), 3, "{fault:?} at {at}");
            assert_eq!(next.last_committed("").await.unwrap().unwrap().epoch, 2);
        }
    }
    assert!(most > 8, "only {most} operations could fail");
}

#[tokio::test]
async fn what_came_to_no_manifest_is_removed_after_a_day() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::new(EventTime(0), 7));
    let mut sink = sink(&store, 1 << 20);
    sink.clock = clock.clone();
    prepare(&sink, 0..3).await.unwrap();
    // Another build's may be named by a manifest.
    let other = Folder { stem: "other".into(), ..sink.folder.clone() };
    let other = FolderSink::new("result", other, clock.clone());
    let resting = prepare(&other, 0..3).await.unwrap();
    let staged = async || store.list(Some(&Path::from("out/_watershed/build/staged"))).count().await;
    // The store's clock is the machine's.
    sink.remove_left().await;
    assert_eq!(staged().await, 1);
    clock.set(EventTime(i64::MAX / 2));
    sink.remove_left().await;
    assert_eq!(staged().await, 0);
    other.verify(&resting).await.unwrap();
}

#[tokio::test]
async fn a_table_is_no_folder_for_files() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = Path::from("out/_delta_log/00000000000000000000.json");
    store.put(&log, "{}".into()).await.unwrap();
    let refused = sink(&store, 1).folder.check().await.unwrap_err().to_string();
    assert!(refused.contains("out is a Delta table"), "{refused}");
}
