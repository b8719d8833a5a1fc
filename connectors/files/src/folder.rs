//! A folder of files as the result of a job, exactly once, by names.
//!
//! ```text
//! {folder}/{stem}-{epoch:020}-{n}.ndjson                  the n-th file of an epoch, from 0; mostly the only one
//! {folder}/_watershed/{stem}/staged/{id}.ndjson           the same before its epoch is committed
//! {folder}/_watershed/{stem}/epochs/{epoch:020}.json      see `record`
//! ```
//!
//! A staged file is written whole, the manifest names it, and the commit copies it to its name, which no store shows before it
//! is complete. A redo finds it there, or copies it again: to the same bytes. Then the epoch is recorded, and the staged file
//! removed. What writers left behind that came to no manifest is removed a day later, by whoever commits then.
//!
//! Invariant: an epoch that is on record has all its files, or had them; a file has a name only if its epoch has a manifest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use watershed_core::clock::Clock;
use watershed_core::epoch::{CommitDecision, decide_commit};
use watershed_core::sink::{CommitIdentity, Committed, EpochWriter, LastCommit, PreparedCommit, Sink, WrittenFile};
use watershed_core::time::Span;
use watershed_core::{Error, Result};

use crate::lines::lines;
use crate::record::{PAUSE, Records, TRIES, delete};

/// What is no result.
const OURS: &str = "_watershed";
const STAGED: &str = "staged";
const EPOCHS: &str = "epochs";
const SUFFIX: &str = ".ndjson";

/// How long a staged file is left alone that may be of another runner.
const REST: Span = Span::DAY;

/// Epochs between two looks for files that nobody needs.
const LOOK_AFTER: u64 = 64;

/// Where files go.
#[derive(Clone)]
pub struct Folder {
    /// For messages.
    pub location: String,
    pub store: Arc<dyn ObjectStore>,
    pub path: Path,
    /// With what the names of files begin: no other build of any sink may have the same.
    pub stem: String,
    /// Bytes from which on an epoch begins another file.
    pub file_size: u64,
}

/// A folder that a job writes to.
pub struct FolderSink {
    name: String,
    folder: Folder,
    clock: Arc<dyn Clock>,
    records: Records,
}

impl FolderSink {
    /// `name` is the sink's in its job, for [`Sink::name`]. Nothing is asked of the store yet.
    pub fn new(name: &str, folder: Folder, clock: Arc<dyn Clock>) -> FolderSink {
        let records = Records::new(Arc::clone(&folder.store), folder.own(EPOCHS));
        FolderSink { name: name.to_string(), folder, clock, records }
    }

    /// Copies a staged file to its name, unless it is there.
    async fn publish(&self, staged: &WrittenFile, epoch: u64, n: usize) -> Result<()> {
        let store = self.folder.store.as_ref();
        let (from, to) = (self.folder.staged(&staged.path), self.folder.named(epoch, n));
        let mut tries = 0;
        loop {
            if size(store, &to).await? == Some(staged.size) {
                return Ok(());
            }
            let failed: Box<dyn std::error::Error + Send + Sync> = match store.copy(&from, &to).await {
                // Some stores go on copying when they have answered.
                Ok(()) if size(store, &to).await? == Some(staged.size) => return Ok(()),
                Ok(()) => "it is not there yet".into(),
                Err(object_store::Error::NotFound { .. }) if size(store, &to).await? == Some(staged.size) => {
                    return Ok(());
                }
                Err(object_store::Error::NotFound { .. }) => return Err(gone(&from, "is gone")),
                Err(e) => e.into(),
            };
            tries += 1;
            if tries == TRIES {
                return Err(Error::storage_unknown("could not copy a staged file to", to.as_ref(), failed));
            }
            tracing::warn!(file = to.as_ref(), epoch, "a file is copied again: {failed}");
            tokio::time::sleep(PAUSE * tries).await;
        }
    }

    /// Removes what is left of writers that came to no manifest. Only for whoever has just committed: then no manifest that
    /// counts waits for a file this old.
    async fn remove_left(&self) {
        let before = self.clock.now().minus(REST).0;
        let folder = self.folder.own(STAGED);
        let found: Vec<ObjectMeta> = match self.folder.store.list(Some(&folder)).try_collect().await {
            Ok(found) => found,
            Err(e) => return tracing::debug!(folder = folder.as_ref(), "staged files were not listed: {e}"),
        };
        for file in found.into_iter().filter(|file| file.last_modified.timestamp_micros() < before) {
            delete(self.folder.store.as_ref(), &file.location).await;
        }
    }
}

impl Folder {
    /// Errors if the folder cannot be listed, or is a table's.
    pub async fn check(&self) -> Result<()> {
        let log = self.path.clone().join("_delta_log");
        let failed = |e| Error::storage("cannot list", &self.location, e);
        match self.store.list(Some(&log)).try_next().await.map_err(failed)? {
            Some(_) => {
                let location = &self.location;
                Err(Error::input(format!("{location} is a Delta table; give a folder of its own for the sink's files")))
            }
            None => Ok(()),
        }
    }

    fn staged(&self, name: &str) -> Path {
        self.own(STAGED).join(name)
    }

    /// Of this build alone: others may rest for as long as they like.
    fn own(&self, what: &str) -> Path {
        self.path.clone().join(OURS).join(self.stem.as_str()).join(what)
    }

    fn named(&self, epoch: u64, n: usize) -> Path {
        self.path.clone().join(format!("{}-{epoch:020}-{n}{SUFFIX}", self.stem))
    }
}

impl fmt::Debug for FolderSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FolderSink").field(&self.folder.location).finish()
    }
}

#[async_trait]
impl Sink for FolderSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> &str {
        &self.folder.location
    }

    fn writer(&self) -> Result<Arc<dyn EpochWriter>> {
        let (folder, clock) = (self.folder.clone(), Arc::clone(&self.clock));
        Ok(Arc::new(FolderWriter { folder, clock, files: Mutex::default() }))
    }

    async fn commit(
        &self,
        identity: &CommitIdentity,
        prepared: &PreparedCommit,
        info: &BTreeMap<String, Value>,
    ) -> Result<Committed> {
        match decide_commit(identity.epoch, identity.after, self.records.last().await?) {
            CommitDecision::Done => return Ok(Committed::Before),
            CommitDecision::Commit => {}
            CommitDecision::Stop(why) => {
                return Err(Error::stopped(format!(
                    "{}: {why}; that is recorded in its {OURS}: put it back as it was, or make the sink anew with CREATE OR \
                     REPLACE SINK",
                    self.folder.location
                )));
            }
        }
        for (n, file) in prepared.files.iter().enumerate() {
            self.publish(file, identity.epoch, n).await?;
        }
        self.records.write(identity.epoch, info).await?;
        for file in &prepared.files {
            delete(self.folder.store.as_ref(), &self.folder.staged(&file.path)).await;
        }
        if identity.after.is_none() || identity.epoch.is_multiple_of(LOOK_AFTER) {
            self.remove_left().await;
        }
        Ok(Committed::Now { version: identity.epoch })
    }

    async fn last_committed(&self, _: &str) -> Result<Option<LastCommit>> {
        self.records.read().await
    }

    async fn verify(&self, prepared: &PreparedCommit) -> Result<()> {
        for file in &prepared.files {
            let path = self.folder.staged(&file.path);
            match size(self.folder.store.as_ref(), &path).await? {
                Some(size) if size == file.size => {}
                Some(size) => return Err(gone(&path, &format!("has {size} bytes, not {}", file.size))),
                None => return Err(gone(&path, "is gone")),
            }
        }
        Ok(())
    }
}

fn gone(path: &Path, what: &str) -> Error {
    Error::stopped(format!(
        "{path} {what}: its rows were to be committed next; restore it, or make the sink anew (CREATE OR REPLACE SINK)"
    ))
}

async fn size(store: &dyn ObjectStore, path: &Path) -> Result<Option<u64>> {
    match store.head(path).await {
        Ok(meta) => Ok(Some(meta.size)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(Error::storage("cannot look for", path.as_ref(), e)),
    }
}

/// Stages the lines of one epoch.
struct FolderWriter {
    folder: Folder,
    clock: Arc<dyn Clock>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Begun with the first line.
    open: Option<Open>,
    closed: Vec<WrittenFile>,
}

struct Open {
    name: String,
    out: BufWriter,
    size: u64,
    rows: u64,
}

impl FolderWriter {
    async fn close(&self, open: Open) -> Result<WrittenFile> {
        let Open { name, mut out, size, rows } = open;
        out.shutdown().await.map_err(|e| self.unwritten(&name, e))?;
        Ok(WrittenFile {
            path: name,
            size,
            rows,
            values: BTreeMap::new(),
            stats: String::new(),
            marks: None,
            deletes: false,
            whole: false,
        })
    }

    fn unwritten(&self, name: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::storage_unknown("could not write", self.folder.staged(name).as_ref(), e)
    }
}

#[async_trait]
impl EpochWriter for FolderWriter {
    async fn write(&self, _: usize, rows: RecordBatch) -> Result<()> {
        let lines = Bytes::from(lines(&rows)?);
        if lines.is_empty() {
            return Ok(());
        }
        let mut files = self.files.lock().await;
        let open = match &mut files.open {
            Some(open) => open,
            none => none.insert({
                let name = format!("{}{SUFFIX}", self.clock.id());
                let out = BufWriter::new(Arc::clone(&self.folder.store), self.folder.staged(&name));
                Open { name, out, size: 0, rows: 0 }
            }),
        };
        open.size += lines.len() as u64;
        open.rows += rows.num_rows() as u64;
        let put = open.out.put(lines).await;
        put.map_err(|e| self.unwritten(&open.name, e))?;
        if open.size >= self.folder.file_size
            && let Some(full) = files.open.take()
        {
            files.closed.push(self.close(full).await?);
        }
        Ok(())
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        let Files { open, mut closed } = std::mem::take(&mut *self.files.lock().await);
        if let Some(open) = open {
            closed.push(self.close(open).await?);
        }
        Ok(PreparedCommit { files: closed, ..PreparedCommit::default() })
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
