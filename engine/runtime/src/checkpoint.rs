//! Manifests and state files in the home: `{home}/jobs/{job}/{incarnation}/…`, see docs/formats/checkpoint.md.
//!
//! A manifest is created with put-if-absent, so of two runners one wins. State files carry the attempt's UUID, so the
//! loser never overwrites the winner's. **Unknown is not failed**: whatever a put answers, what counts is what a read then
//! finds (`core::epoch::after_put`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::Deserialize;
use uuid::Uuid;
use watershed_core::epoch::{AfterPut, FORMAT, Manifest, Position, ReadBack, after_put};
use watershed_core::history::{Snapshot, Version};
use watershed_core::{Error, Result};

/// Manifests kept behind the newest.
const KEEP: u64 = 2;

/// How kept listings are named, and how long one is left alone that no checkpoint names.
const LISTING: &str = "listing-";
const LISTING_REST: TimeDelta = TimeDelta::days(1);

/// How often a put that did not arrive is tried again.
const TRIES: u32 = 6;

/// The checkpoints of one job.
#[derive(Clone)]
pub struct Checkpoints {
    store: Arc<dyn ObjectStore>,
    root: Path,
    job: String,
}

/// The newest manifest, or why it cannot be used.
#[derive(Debug)]
pub enum Newest {
    None,
    Manifest(Box<Manifest>),
    /// The newest number, whose manifest cannot be read, and why.
    Unreadable {
        epoch: u64,
        why: String,
    },
}

impl Checkpoints {
    pub fn new(store: Arc<dyn ObjectStore>, home: &Path, job: &str, incarnation: Uuid) -> Self {
        let root = home.clone().join("jobs").join(job).join(incarnation.to_string());
        Checkpoints { store, root, job: job.into() }
    }

    fn manifest_path(&self, epoch: u64) -> Path {
        self.root.clone().join("manifests").join(format!("{epoch:020}.json"))
    }

    fn state_path(&self, file: &str) -> Path {
        self.root.clone().join("state").join(file)
    }

    /// The numbers of all manifests, ascending.
    pub async fn epochs(&self) -> Result<Vec<u64>> {
        let folder = self.root.clone().join("manifests");
        let listed: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| Error::storage("could not list", folder.as_ref(), e))?;
        let number = |p: &Path| p.filename()?.strip_suffix(".json")?.parse::<u64>().ok();
        let mut epochs: Vec<u64> = listed.iter().filter_map(|m| number(&m.location)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Reads the newest manifest.
    pub async fn newest(&self) -> Result<Newest> {
        let Some(epoch) = self.epochs().await?.pop() else { return Ok(Newest::None) };
        match self.read(epoch).await {
            Ok(Some(manifest)) => Ok(Newest::Manifest(Box::new(manifest))),
            Ok(None) => Err(Error::stopped(format!(
                "checkpoint {epoch} of job {} vanished while it was read: another runner goes on with the job; run \
                 again if that was not meant",
                self.job
            ))),
            Err(Error::Input(why)) => Ok(Newest::Unreadable { epoch, why }),
            Err(other) => Err(other),
        }
    }

    /// Reads one manifest; `None` when it is not there, an input error when it cannot be understood.
    pub async fn read(&self, epoch: u64) -> Result<Option<Manifest>> {
        let path = self.manifest_path(epoch);
        let Some(bytes) = self.get(&path).await? else { return Ok(None) };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |why: String| Error::input(format!("checkpoint {path} cannot be read: {why}"));
        let Format { format } = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        if format != FORMAT {
            return Err(Error::stopped(format!(
                "checkpoint {path} has format {format}, and this version of Watershed reads format {FORMAT}; run the \
                 version that wrote it, or build the view anew with CREATE OR REPLACE"
            )));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable(e.to_string()))
    }

    /// Creates a manifest, once. Fenced when the number is another's, or a higher one is there.
    pub async fn create(&self, manifest: &Manifest) -> Result<()> {
        let path = self.manifest_path(manifest.epoch);
        let body = serde_json::to_vec(manifest).map_err(|e| Error::bug(e.to_string()))?;
        let mut tries = 0;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.store.put_opts(&path, PutPayload::from(body.clone()), options).await;
            let Err(failure) = put else { break };
            let found = match self.read(manifest.epoch).await {
                Ok(None) => ReadBack::Absent,
                Ok(Some(there)) => ReadBack::Attempt(there.attempt),
                Err(e) => return Err(e),
            };
            match after_put(manifest.attempt, &found) {
                AfterPut::Ours => break,
                AfterPut::Fenced => return Err(self.fenced(manifest.epoch)),
                AfterPut::Retry if tries < TRIES => tries += 1,
                AfterPut::Retry => {
                    return Err(Error::storage_unknown("could not create checkpoint", path.as_ref(), failure));
                }
            }
            tokio::time::sleep(Duration::from_millis(20 << tries)).await;
        }
        // Numbers below the newest may have been cleaned up and be free again: then another runner is long past us.
        match self.epochs().await?.last() {
            Some(highest) if *highest > manifest.epoch => Err(self.fenced(*highest)),
            _ => Ok(()),
        }
    }

    fn fenced(&self, epoch: u64) -> Error {
        Error::Fenced { job: self.job.clone(), message: format!("it wrote checkpoint {epoch}") }
    }

    /// Writes chunks as one state file.
    pub async fn write_state(&self, file: &str, schema: &SchemaRef, chunks: &[RecordBatch]) -> Result<()> {
        let encode = || {
            let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
            let mut writer = FileWriter::try_new_with_options(vec![], schema, options)?;
            for chunk in one_dictionary(schema, chunks)? {
                writer.write(&chunk)?;
            }
            writer.into_inner()
        };
        let body = encode().map_err(|e: ArrowError| Error::bug(format!("encoding state: {e}")))?;
        self.put(&self.state_path(file), body.into()).await
    }

    /// Reads all chunks of a state file.
    pub async fn read_state(&self, file: &str) -> Result<Vec<RecordBatch>> {
        let path = self.state_path(file);
        let missing = || {
            Error::stopped(format!(
                "state file {path} of job {} is missing; restore it, or build the view anew with CREATE OR REPLACE",
                self.job
            ))
        };
        let bytes = self.get(&path).await?.ok_or_else(missing)?;
        let decode = || FileReader::try_new(std::io::Cursor::new(bytes), None)?.collect::<Result<Vec<_>, _>>();
        decode().map_err(|e: ArrowError| {
            Error::stopped(format!(
                "state file {path} of job {} cannot be read: {e}; restore it, or build the view anew with CREATE OR \
                 REPLACE",
                self.job
            ))
        })
    }

    /// Keeps what a history needs to be pinned at this version again; returns its name.
    pub async fn keep(&self, snapshot: &Snapshot) -> Result<Option<String>> {
        let (Some(keepsake), Version::Listing { digest }) = (&snapshot.keepsake, &snapshot.version) else {
            return Ok(None);
        };
        let name = format!("{LISTING}{digest}.json");
        self.put(&self.state_path(&name), Bytes::copy_from_slice(keepsake)).await?;
        Ok(Some(name))
    }

    /// Reads what was kept.
    pub async fn keepsake(&self, name: Option<&str>) -> Result<Option<Bytes>> {
        let Some(name) = name else { return Ok(None) };
        let path = self.state_path(name);
        let missing = || {
            Error::stopped(format!(
                "{path}, the listing that job {} stands at, is missing; restore it, or build the view anew with \
                 CREATE OR REPLACE",
                self.job
            ))
        };
        self.get(&path).await?.ok_or_else(missing).map(Some)
    }

    /// The same job in another store, with nothing in it but what was kept for these positions.
    pub(crate) async fn aside(
        &self,
        store: Arc<dyn ObjectStore>,
        positions: &BTreeMap<String, Position>,
    ) -> Result<Checkpoints> {
        let aside = Checkpoints { store, root: self.root.clone(), job: self.job.clone() };
        for name in positions.values().filter_map(|p| p.keepsake.as_deref()) {
            if let Some(kept) = self.keepsake(Some(name)).await? {
                aside.put(&aside.state_path(name), kept).await?;
            }
        }
        Ok(aside)
    }

    /// Removes manifests and state files that no kept manifest needs. What fails is tried again next time.
    pub async fn clean(&self, newest: u64) -> Result<()> {
        let floor = newest.saturating_sub(KEEP);
        let mut needed = BTreeSet::new();
        let mut old = vec![];
        for epoch in self.epochs().await? {
            if epoch < floor {
                old.push(self.manifest_path(epoch));
            } else if let Some(manifest) = self.read(epoch).await? {
                needed.extend(manifest.state.into_iter().map(|c| c.file));
                needed.extend(manifest.positions.into_values().filter_map(|p| p.keepsake));
            }
        }
        let newest_written = self.store.head(&self.manifest_path(newest)).await;
        let newest_written = newest_written
            .map_err(|e| Error::storage("could not look at the checkpoints in", self.root.as_ref(), e))?;
        // State files are named by epoch first: those of epochs still to be written, ours or another's, are left alone. So
        // are listings that a run just starting may have kept before its first checkpoint.
        let unneeded = |file: &ObjectMeta| {
            let Some(name) = file.location.filename().filter(|name| !needed.contains(*name)) else { return false };
            let epoch = name.split('-').next().and_then(|e| e.parse::<u64>().ok());
            match epoch {
                Some(epoch) => epoch < floor,
                None => name.starts_with(LISTING) && file.last_modified < newest_written.last_modified - LISTING_REST,
            }
        };
        let folder = self.root.clone().join("state");
        let listed: Vec<_> = self
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|e| Error::storage("could not list", folder.as_ref(), e))?;
        old.extend(listed.into_iter().filter(unneeded).map(|m| m.location));
        for path in old {
            match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(Error::storage("could not remove", path.as_ref(), e)),
            }
        }
        Ok(())
    }

    /// Puts a file whose name nobody else uses, or whose content is its name: safe to repeat.
    async fn put(&self, path: &Path, body: Bytes) -> Result<()> {
        let mut tries = 0;
        loop {
            match self.store.put(path, PutPayload::from(body.clone())).await {
                Ok(_) => return Ok(()),
                Err(_) if tries < TRIES => tries += 1,
                Err(e) => return Err(Error::storage_unknown("could not write", path.as_ref(), e)),
            }
            tokio::time::sleep(Duration::from_millis(20 << tries)).await;
        }
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        let read = async { self.store.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::storage("could not read", path.as_ref(), e)),
        }
    }
}

/// The chunks, with a dictionary a column that all share: an IPC file cannot hold more.
fn one_dictionary(schema: &SchemaRef, chunks: &[RecordBatch]) -> Result<Vec<RecordBatch>, ArrowError> {
    fn has(kind: &DataType) -> bool {
        match kind {
            DataType::Dictionary(..) => true,
            DataType::Struct(fields) => fields.iter().any(|f| has(f.data_type())),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                has(item.data_type())
            }
            DataType::Map(entries, _) => has(entries.data_type()),
            _ => false,
        }
    }
    if !schema.fields().iter().any(|f| has(f.data_type())) {
        return Ok(chunks.to_vec());
    }
    let whole = concat_batches(schema, chunks)?;
    let mut at = 0;
    let piece = |chunk: &RecordBatch| {
        at += chunk.num_rows();
        whole.slice(at - chunk.num_rows(), chunk.num_rows())
    };
    Ok(chunks.iter().map(piece).collect())
}
