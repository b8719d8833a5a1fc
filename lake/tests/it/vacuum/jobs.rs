//! What stays for the sake of jobs, and what others may do while a vacuum is under way.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions,
};
use watershed_core::history::Version;
use watershed_core::sink::Sink;
use watershed_core::tail::{PartPosition, TailPosition, VERSION};
use watershed_lake::{Fault, FaultPlan, FaultStore, Stores, open_history};

use super::*;

#[tokio::test]
async fn a_version_that_a_job_stands_at_stays_readable() {
    let lake = Lake::new();
    compacted(&lake).await;
    let done = vacuum_at(&lake, days(50), &pin(&lake, 2).await).await;
    assert_eq!((done.files.len(), done.held), (0, 2));
    assert_eq!(done.pins.iter().map(|pin| (pin.job.as_str(), pin.version)).collect::<Vec<_>>(), [("j", 2)]);
    assert_eq!(seen(&lake, Some(2)).await.unwrap(), [(1, 1), (2, 2)]);
    let done = vacuum_at(&lake, days(50), &pin(&lake, 1).await).await;
    assert_eq!((done.files.len(), done.held), (1, 1));
    assert_eq!(seen(&lake, Some(1)).await.unwrap(), [(1, 1)]);
    // A version that nobody has heard of cannot be kept, and that is said.
    let done = vacuum_at(&lake, days(50), &pin(&lake, 77).await).await;
    assert_eq!((done.files.len(), done.lost.len(), done.pins.len()), (1, 1, 0));
    assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn what_a_job_has_still_to_read_stays() {
    let lake = Lake::new();
    compacted(&lake).await;
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    let newest = history.pin(None).await.unwrap().version;
    let Version::Delta { table_id, .. } = newest else { panic!("a folder?") };
    let then = history.pin(Some((&Version::Delta { version: 1, table_id }, None))).await.unwrap();
    // As if an increment had kept the file that it found replaced.
    let pending = Pins { pending: files(&then), ..pin(&lake, 4).await };
    let second = on_disk(&adds(&lake, 2)[0]);
    let done = vacuum_at(&lake, days(50), &pending).await;
    assert_eq!((gone(&done), done.held), (vec![second.as_str()], 1));
    assert_eq!(facts(&pending.pending), [(1, 1)]);
}

#[tokio::test]
async fn what_a_job_has_still_to_read_as_changes_stays() {
    let lake = Lake::new();
    compacted(&lake).await;
    let table_id = table_info(&lake.stores, &lake.at("t")).await.unwrap().id;
    let standing = |id: &str, next| {
        let parts = BTreeMap::from([(0, PartPosition::at(next))]);
        Pins {
            logs: vec![("j".into(), TailPosition { id: Some(id.into()), parts, ..TailPosition::default() })],
            ..NO_PINS
        }
    };
    let done = async |pins: &Pins| {
        let done = vacuum_at(&lake, days(50), pins).await;
        (done.files.len(), done.held, done.pins.iter().map(|pin| pin.version).collect::<Vec<_>>())
    };
    // All that version 2 held, and then what changed.
    assert_eq!(done(&standing(&table_id, 2 * VERSION + VERSION / 2 + 1)).await, (0, 2, vec![2, 3]));
    assert_eq!(done(&standing(&table_id, VERSION)).await, (0, 2, vec![1]));
    // Within version 2; and what version 4 removed is told by the files that it removed.
    assert_eq!(done(&standing(&table_id, 2 * VERSION + 1)).await, (0, 2, vec![2]));
    assert_eq!(done(&standing(&table_id, 4 * VERSION)).await, (0, 2, vec![4]));
    // All was read; and a log that is another.
    let mut nothing = standing(&table_id, 5 * VERSION);
    nothing.logs.extend(standing("another", 0).logs);
    assert_eq!(done(&nothing).await, (2, 0, vec![]));
}

#[tokio::test]
async fn what_jobs_have_written_and_not_committed_stays() {
    let lake = Lake::new();
    let sink = keyed::sink(&lake, "t", "", keyed::key()).await.unwrap();
    keyed::put(&sink, 1, &[upsert(1, 1)]).await;
    // Rows that others of the same epoch outdo are marked in a file of its own.
    let prepared = keyed::prepare(&sink, &[vec![upsert(2, 1)], vec![upsert(2, 2)], vec![upsert(3, 1)]]).await.unwrap();
    let waits = prepared.files.iter().filter_map(|file| file.marks.as_ref()).count();
    assert_eq!(waits, 1, "{prepared:?}");
    age(&lake, START);
    let all = data(&lake);
    let since = Pins { since: START, ..NO_PINS };
    let named = Pins { prepared: vec![prepared.clone()], ..NO_PINS };
    for pins in [since, named] {
        assert_eq!(gone(&vacuum_at(&lake, days(50), &pins).await), Vec::<&str>::new());
        assert_eq!(data(&lake), all);
    }
    sink.commit(&identity(2, Some(1)), &prepared, &BTreeMap::new()).await.unwrap();
    assert_eq!(keyed::rows(&lake, "t").await.len(), 3);
    let unnamed = keyed::prepare(&sink, &[vec![upsert(9, 1)]]).await.unwrap();
    age(&lake, START);
    // With it goes a vector that the commit put into another one.
    let done = vacuum_at(&lake, days(50), &NO_PINS).await;
    assert!(gone(&done).contains(&unnamed.files[0].path.as_str()), "{done:?}");
    assert_eq!(keyed::rows(&lake, "t").await.len(), 3);
}

/// A store before whose n-th question something happens.
struct Meanwhile {
    inner: Arc<dyn ObjectStore>,
    left: Arc<AtomicI64>,
    happens: Arc<dyn Fn() + Send + Sync>,
}

impl Meanwhile {
    fn asked(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            (self.happens)();
        }
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

type Stored<T> = object_store::Result<T>;

#[async_trait]
impl ObjectStore for Meanwhile {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Stored<PutResult> {
        self.asked();
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Stored<Box<dyn MultipartUpload>> {
        self.asked();
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Stored<GetResult> {
        self.asked();
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Stored<Vec<Bytes>> {
        self.asked();
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Stored<Path>>) -> BoxStream<'static, Stored<Path>> {
        self.asked();
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Stored<ObjectMeta>> {
        self.asked();
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Stored<ObjectMeta>> {
        self.asked();
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Stored<ListResult> {
        self.asked();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Stored<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Stored<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// A table with a log to be cleaned up, files to be removed, and one, its third, that another removes and replaces before the n-th
/// question to the store. Whether that came to pass.
async fn while_vacuumed(n: i64) -> bool {
    let lake = Lake::new();
    compacted(&lake).await;
    let third = adds(&lake, 3).remove(0);
    let name = on_disk(&third);
    let copy = format!("copy-{name}");
    fs::copy(root(&lake).join(&name), root(&lake).join(&copy)).unwrap();
    age(&lake, START);
    let mut added = third.clone();
    added["path"] = json!(copy);
    let actions = [remove(&third, days(50)), json!({ "add": added })];
    let (left, table) = (Arc::new(AtomicI64::new(n)), root(&lake));
    let happens: Arc<dyn Fn() + Send + Sync> = {
        Arc::new(move || {
            let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
            fs::write(table.join("_delta_log/00000000000000000005.json"), lines.join("\n")).unwrap();
        })
    };
    // Its writer wrote it just now.
    written(&root(&lake).join(&copy), days(50));
    let counted = left.clone();
    let stores = Stores::default().with_wrapper(Arc::new(move |inner| {
        Arc::new(Meanwhile { inner, left: counted.clone(), happens: happens.clone() })
    }));
    let clock = ManualClock::new(days(50), 1);
    let done = vacuum(&stores, &lake.at("t"), VacuumOptions::default(), &NO_PINS, &clock).await.unwrap();
    assert_eq!(done.files.len(), 2, "{n}: {done:?}");
    assert!(data(&lake).contains(&name) && data(&lake).contains(&copy), "{n}: {done:?}");
    assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)], "{n}");
    left.load(Ordering::SeqCst) < 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_while_a_vacuum_is_under_way_stays() {
    let mut n = 0;
    while while_vacuumed(n).await {
        n += 1;
    }
    assert!(n > 10, "{n} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_may_be_cut_short_anywhere() {
    for n in 0.. {
        let lake = Lake::new();
        compacted(&lake).await;
        let plan = FaultPlan { at: Some((n, Fault::CrashBefore)), ..FaultPlan::default() };
        let stores =
            Stores::default().with_wrapper(Arc::new(move |inner| Arc::new(FaultStore::new(inner, plan.clone()))));
        let clock = ManualClock::new(days(50), 1);
        let cut = vacuum(&stores, &lake.at("t"), VacuumOptions::default(), &NO_PINS, &clock).await;
        assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)], "{n}: {cut:?}");
        let again = vacuum_at(&lake, days(50), &NO_PINS).await;
        assert_eq!(seen(&lake, None).await.unwrap(), [(1, 1), (2, 2), (3, 3)], "{n}: {again:?}");
        assert_eq!((data(&lake).len(), log(&lake).contains("00000000000000000003.json")), (2, false), "{n}: {again:?}");
        if cut.is_ok() {
            assert!(n > 10, "{n} operations");
            return;
        }
    }
}
