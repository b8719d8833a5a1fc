//! A keyed table in memory, which can be copied at any moment, and stores around it in which something happens before each
//! operation: a fault, another writer's commit, a wait.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::TempDir;
use watershed_core::history::Version;
use watershed_lake::{Create, DeltaSink, FaultPlan, FaultStore, Stores, TableSpec, open_history};

use super::untimed;
use crate::fixtures::{files, open};

/// Key, time, value, sequence.
pub(crate) type Row = (i64, i64, i64, i64);

/// A table in a store in memory.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Stays empty, but the Delta kernel wants to see the folder of a local table.
    folder: Arc<TempDir>,
    store: Arc<InMemory>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { folder: Arc::new(tempfile::tempdir().unwrap()), store: Arc::default() }
    }

    /// A copy that goes its own way.
    pub(crate) fn copied(&self) -> Memory {
        Memory { folder: self.folder.clone(), store: Arc::new(self.store.fork()) }
    }

    /// Where the table is.
    pub(crate) fn at(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn root(&self) -> Path {
        Path::from_absolute_path(self.folder.path()).unwrap()
    }

    fn log(&self, version: u64) -> Path {
        self.root().join("_delta_log").join(format!("{version:020}.json"))
    }

    pub(crate) fn stores(&self) -> Stores {
        self.within(|store| store)
    }

    pub(crate) fn within(
        &self,
        wrap: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync + 'static,
    ) -> Stores {
        let store = self.store.clone();
        Stores::default().with_wrapper(Arc::new(move |_| wrap(store.clone())))
    }

    pub(crate) fn faulty(&self, plan: FaultPlan) -> (Stores, FaultStore) {
        let faults = FaultStore::new(self.store.clone(), plan);
        let inner = faults.clone();
        (self.within(move |_| Arc::new(inner.clone())), faults)
    }

    /// Stores in which this is awaited before each operation.
    pub(crate) fn around(&self, before: Before) -> Stores {
        self.within(move |inner| Arc::new(Around::new(inner, before.clone())))
    }

    /// Stores in which something happens once, before the operation of that number, if it comes to that.
    pub(crate) fn interrupted(
        &self,
        at: u64,
        with: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Stores {
        let operations = AtomicU64::new(0);
        self.around(Arc::new(move |_| match operations.fetch_add(1, Ordering::SeqCst) == at {
            true => with(),
            false => std::future::ready(()).boxed(),
        }))
    }

    /// A sink of the table over some of its stores.
    pub(crate) async fn sink(&self, stores: &Stores, spec: TableSpec) -> watershed_core::Result<DeltaSink> {
        static SEED: AtomicU64 = AtomicU64::new(9_000_000);
        open(stores, self.at(), spec, SEED.fetch_add(1, Ordering::SeqCst), Create::Now).await
    }

    /// Everything in the table's folder whose name ends so.
    pub(crate) async fn paths(&self, suffix: &str) -> Vec<Path> {
        let listed: Vec<_> = self.store.list(Some(&self.root())).collect().await;
        let paths = listed.into_iter().map(|meta| meta.unwrap().location);
        paths.filter(|path| path.as_ref().ends_with(suffix)).collect()
    }

    pub(crate) async fn get(&self, path: &Path) -> Bytes {
        self.store.get(path).await.unwrap().bytes().await.unwrap()
    }

    pub(crate) async fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.store.put(path, bytes.into()).await.unwrap();
    }

    pub(crate) async fn delete(&self, path: &Path) {
        self.store.delete(path).await.unwrap();
    }

    /// The newest version, if there is a table.
    pub(crate) async fn newest(&self) -> Option<u64> {
        let names = self.paths(".json").await.into_iter();
        names.filter_map(|path| path.filename()?.strip_suffix(".json")?.parse().ok()).max()
    }

    /// The actions of a version.
    pub(crate) async fn entry(&self, version: u64) -> Vec<serde_json::Value> {
        let bytes = self.get(&self.log(version)).await;
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) async fn put_entry(&self, version: u64, actions: &[serde_json::Value]) {
        let lines: Vec<String> = actions.iter().map(|action| action.to_string()).collect();
        self.put(&self.log(version), lines.join("\n").into_bytes()).await;
    }

    /// Every commit of an application: version and epoch.
    pub(crate) async fn commits_of(&self, application: &str) -> Vec<(u64, u64)> {
        let mut found = vec![];
        let Some(newest) = self.newest().await else { return found };
        for version in 0..=newest {
            let actions = self.entry(version).await;
            let transactions = actions.iter().filter_map(|action| action.get("txn"));
            let ours = transactions.filter(|txn| txn["appId"] == application);
            found.extend(ours.map(|txn| (version, txn["version"].as_u64().unwrap())));
        }
        found
    }

    /// The rows of a version, or of the newest, that a reader sees, sorted, doubles included; none without a table.
    pub(crate) async fn rows(&self, version: Option<u64>) -> Vec<Row> {
        match self.newest().await {
            Some(_) => rows_in(&self.stores(), self.at(), version).await.unwrap().1,
            None => vec![],
        }
    }
}

/// The rows that a reader sees through these stores, with the version that they are of.
pub(crate) async fn rows_in(
    stores: &Stores,
    at: &str,
    version: Option<u64>,
) -> watershed_core::Result<(u64, Vec<Row>)> {
    let history = open_history(stores, at, &untimed()).await?;
    let mut snapshot = history.pin(None).await?;
    if let Some(wanted) = version {
        let Version::Delta { table_id, .. } = &snapshot.version else { panic!("no Delta table") };
        let wanted = Version::Delta { version: wanted, table_id: table_id.clone() };
        snapshot = history.pin(Some((&wanted, None))).await?;
    }
    let Version::Delta { version, .. } = snapshot.version else { panic!("no Delta table") };
    let columns: Vec<String> = history.layout().partition_columns.iter().map(|f| f.name().clone()).collect();
    let files = files(&snapshot);
    let deleted = history.deleted(&files).await?;
    let store = stores.open(at)?.store;
    let mut rows = vec![];
    for (file, deleted) in files.iter().zip(deleted) {
        let failed =
            |e: &dyn fmt::Display| watershed_core::Error::storage("cannot read", file.path.as_str(), e.to_string());
        let found = store.get(&Path::parse(&file.path).unwrap()).await.map_err(|e| failed(&e))?;
        let bytes = found.bytes().await.map_err(|e| failed(&e))?;
        let mut first = 0;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let of = |name: &str, row: usize| match batch.column_by_name(name) {
                Some(column) if name == "ts" => column.as_primitive::<TimestampMicrosecondType>().value(row),
                Some(column) if column.is_null(row) => -1,
                Some(column) => column.as_primitive::<Int64Type>().value(row),
                None => {
                    let at = columns.iter().position(|column| column == name).unwrap();
                    file.values[at].as_ref().map_or(-1, |value| value.parse().unwrap())
                }
            };
            for row in 0..batch.num_rows() {
                let at = first + row as u64;
                if !deleted.as_ref().is_some_and(|d| d.runs.iter().any(|run| run.contains(&at))) {
                    rows.push((of("id", row), of("ts", row), of("v", row), of("n", row)));
                }
            }
            first += batch.num_rows() as u64;
        }
    }
    rows.sort_unstable();
    Ok((version, rows))
}

/// What happens before an operation on a path.
pub(crate) type Before = Arc<dyn Fn(&Path) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store that has something happen before each of its operations.
pub(crate) struct Around {
    inner: Arc<dyn ObjectStore>,
    before: Before,
}

impl Around {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, before: Before) -> Around {
        Around { inner, before }
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Around({:?})", self.inner)
    }
}

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Around({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Around {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        (self.before)(location).await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        (self.before)(location).await;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        (self.before)(location).await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        (self.before)(location).await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix) = (self.inner.clone(), prefix.cloned());
        let before = (self.before)(&prefix.clone().unwrap_or_default());
        before.map(move |()| inner.list(prefix.as_ref())).flatten_stream().boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, prefix, offset) = (self.inner.clone(), prefix.cloned(), offset.clone());
        let before = (self.before)(&prefix.clone().unwrap_or_default());
        before.map(move |()| inner.list_with_offset(prefix.as_ref(), &offset)).flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        (self.before)(&prefix.cloned().unwrap_or_default()).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        (self.before)(to).await;
        self.inner.copy_opts(from, to, options).await
    }
}
