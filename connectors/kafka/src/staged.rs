//! Messages of an epoch in a file, from when they are written until their transaction is committed.
//!
//! ```text
//! {folder}/{writer's id}.arrow      an Arrow IPC stream, LZ4: core's message schema, in the order of the messages
//! ```
//!
//! A file is removed once its epoch is committed. What writers left behind that came to no manifest is removed a day later, by
//! whoever commits then.
//!
//! Invariant: a name is used once, and its file appears whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use watershed_core::clock::Clock;
use watershed_core::sink::{EpochWriter, PreparedCommit, WrittenFile, message_schema};
use watershed_core::time::Span;
use watershed_core::{Error, Result};

/// How long a file is left alone that may be of another runner.
const REST: Span = Span::DAY;

/// Where messages are staged.
#[derive(Clone)]
pub struct Staging {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    clock: Arc<dyn Clock>,
}

impl Staging {
    /// In a folder that nobody else uses.
    pub fn new(store: Arc<dyn ObjectStore>, folder: Path, clock: Arc<dyn Clock>) -> Self {
        Staging { store, folder, clock }
    }

    pub(crate) fn writer(&self) -> StagedWriter {
        StagedWriter { staging: self.clone(), name: format!("{}.arrow", self.clock.id()), file: Mutex::new(None) }
    }

    /// Errors unless the file is there with its size.
    pub(crate) async fn verify(&self, file: &WrittenFile) -> Result<()> {
        let path = self.at(&file.path);
        let found = match self.store.head(&path).await {
            Ok(meta) => Some(meta.size),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(e) => return Err(Error::storage("cannot look for", path.as_ref(), e)),
        };
        if found == Some(file.size) {
            return Ok(());
        }
        let what = found.map_or("is gone".to_string(), |size| format!("has {size} bytes, not {}", file.size));
        Err(Error::stopped(format!(
            "{path} {what}: its messages were to be committed next; restore it, or make the sink anew (CREATE OR REPLACE SINK)"
        )))
    }

    /// The messages of a file.
    pub(crate) async fn read(&self, file: &WrittenFile) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let path = self.at(&file.path);
        let failed = |path: &Path, e| Error::storage("cannot read", path.as_ref(), e);
        let bytes = self.store.get(&path).await.map_err(|e| failed(&path, e))?.into_stream();
        let mut decoder = StreamDecoder::new();
        let batches = bytes.map(move |bytes| {
            let mut buffer = Buffer::from(bytes.map_err(|e| failed(&path, e))?);
            let mut found = vec![];
            while !buffer.is_empty() {
                let decoded = decoder.decode(&mut buffer);
                found.extend(decoded.map_err(|e| Error::stopped(format!("{path} cannot be read: {e}")))?);
            }
            Ok(futures::stream::iter(found.into_iter().map(Ok)))
        });
        Ok(batches.try_flatten().boxed())
    }

    /// Removes files whose messages are committed; what is left undone is done another time.
    pub(crate) async fn remove(&self, files: &[WrittenFile]) {
        for file in files {
            self.delete(&self.at(&file.path)).await;
        }
    }

    /// Removes what is left of writers that came to no manifest. Only for whoever has just committed: then no manifest that
    /// counts waits for a file this old.
    pub(crate) async fn remove_left(&self) {
        let before = self.clock.now().minus(REST).0;
        let found: Vec<ObjectMeta> = match self.store.list(Some(&self.folder)).try_collect().await {
            Ok(found) => found,
            Err(e) => return tracing::debug!(folder = self.folder.as_ref(), "staged files were not listed: {e}"),
        };
        for file in found.into_iter().filter(|file| file.last_modified.timestamp_micros() < before) {
            self.delete(&file.location).await;
        }
    }

    async fn delete(&self, path: &Path) {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => tracing::warn!(file = path.as_ref(), "a staged file was not removed: {e}"),
        }
    }

    fn at(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }
}

/// Stages the messages of one epoch.
pub(crate) struct StagedWriter {
    staging: Staging,
    name: String,
    /// Begun with the first message.
    file: Mutex<Option<File>>,
}

struct File {
    encoder: StreamWriter<Vec<u8>>,
    out: BufWriter,
    size: u64,
    rows: u64,
}

impl StagedWriter {
    fn begin(&self) -> Result<File> {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME));
        let encoder = StreamWriter::try_new_with_options(vec![], &message_schema(), options.map_err(odd)?);
        let out = BufWriter::new(Arc::clone(&self.staging.store), self.staging.at(&self.name));
        Ok(File { encoder: encoder.map_err(odd)?, out, size: 0, rows: 0 })
    }

    /// Hands on what was encoded.
    async fn hand_on(&self, file: &mut File) -> Result<()> {
        let bytes = Bytes::from(std::mem::take(file.encoder.get_mut()));
        file.size += bytes.len() as u64;
        file.out.put(bytes).await.map_err(|e| self.unwritten(e))
    }

    fn unwritten(&self, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::storage_unknown("could not write", self.staging.at(&self.name).as_ref(), e)
    }
}

#[async_trait]
impl EpochWriter for StagedWriter {
    async fn write(&self, _: usize, rows: RecordBatch) -> Result<()> {
        let mut guard = self.file.lock().await;
        if guard.is_none() {
            *guard = Some(self.begin()?);
        }
        let Some(file) = guard.as_mut() else { return Err(Error::bug("a staged file that was begun is not there")) };
        file.encoder.write(&rows).map_err(odd)?;
        file.rows += rows.num_rows() as u64;
        self.hand_on(file).await
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        let Some(mut file) = self.file.lock().await.take() else { return Ok(PreparedCommit::default()) };
        file.encoder.finish().map_err(odd)?;
        self.hand_on(&mut file).await?;
        file.out.shutdown().await.map_err(|e| self.unwritten(e))?;
        let written = WrittenFile {
            path: self.name.clone(),
            size: file.size,
            rows: file.rows,
            values: BTreeMap::new(),
            stats: String::new(),
            marks: None,
            deletes: false,
            whole: false,
        };
        Ok(PreparedCommit { files: vec![written], ..PreparedCommit::default() })
    }
}

fn odd(e: ArrowError) -> Error {
    Error::bug(format!("staging messages: {e}"))
}

#[cfg(test)]
mod tests {
    use arrow::array::BinaryArray;
    use object_store::memory::InMemory;
    use watershed_core::EventTime;
    use watershed_core::clock::ManualClock;

    use super::*;

    fn messages(n: u8) -> RecordBatch {
        let keys: BinaryArray = (0..n).map(|i| (i % 2 == 0).then_some(vec![i])).collect();
        let payloads: BinaryArray = (0..n).map(|i| (i % 3 == 0).then_some(vec![i; usize::from(i) * 100])).collect();
        RecordBatch::try_new(message_schema(), vec![Arc::new(keys), Arc::new(payloads)]).unwrap()
    }

    #[tokio::test]
    async fn what_was_staged_is_read_back_and_removed_when_it_is_done_with() {
        let clock = Arc::new(ManualClock::new(EventTime(0), 1));
        let staging = Staging::new(Arc::new(InMemory::new()), Path::from("job/staged"), clock.clone());
        assert!(staging.writer().finish().await.unwrap().files.is_empty());
        let (one, other) = (staging.writer(), staging.writer());
        for writer in [&one, &other] {
            writer.write(0, messages(200)).await.unwrap();
            writer.write(1, messages(7)).await.unwrap();
        }
        let files = one.finish().await.unwrap().files;
        let left = other.finish().await.unwrap().files;
        assert_eq!((files.len(), files[0].rows), (1, 207));
        staging.verify(&files[0]).await.unwrap();
        let found: Vec<RecordBatch> = staging.read(&files[0]).await.unwrap().try_collect().await.unwrap();
        assert_eq!(found, [messages(200), messages(7)]);

        staging.remove(&files).await;
        let gone = staging.verify(&files[0]).await.unwrap_err();
        assert!(matches!(&gone, Error::Stopped(why) if why.contains("is gone")), "{gone}");
        // The store's clock is the machine's.
        staging.remove_left().await;
        staging.verify(&left[0]).await.unwrap();
        clock.set(EventTime(i64::MAX / 2));
        staging.remove_left().await;
        assert!(staging.verify(&left[0]).await.is_err());
    }
}
