//! One table partition's rows as Parquet files: a task takes batches from a channel and encodes, rolls and uploads.
//!
//! Memory is bounded by row groups: encoders share a budget, and one that holds more than its part of it flushes.
//! Floats are written plainly, for hashing values that hardly repeat is the largest cost of a dictionary.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::sync::mpsc;
use uuid::Uuid;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::SinkOptions;
use super::parquet_file::ParquetFile;
use super::shape::{Key, Shape};
use super::statistics::statistics;
use crate::keyed::fold::FileKeys;
use crate::keyed::key::KeyHash;
use crate::parquet_object::ObjectWriter;
use crate::stores::Place;

const ROW_GROUP_ROWS: usize = 1 << 20;
/// Row groups are not cut smaller than this for the budget's sake, or readers suffer.
pub(crate) const LEAST_ROW_GROUP: usize = 1 << 20;
/// And not left to grow beyond this, however much of the budget is free: readers gain nothing, and what an epoch holds would
/// depend on how long it lasts.
const MOST_ROW_GROUP: usize = 32 << 20;

/// What the encoders of one epoch share.
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) place: Place,
    pub(crate) shape: Arc<Shape>,
    pub(crate) target_file_size: u64,
    /// Bytes of unfinished row groups that all encoders of the epoch may hold together.
    pub(crate) buffer: usize,
    properties: WriterProperties,
    /// In file names, so that no two attempts ever write the same file.
    attempt: Uuid,
    /// What files are named after.
    kind: &'static str,
    /// A folder above those of the partitions, with a trailing slash, or nothing.
    root: &'static str,
    files: AtomicU64,
    running: AtomicUsize,
    failure: Mutex<Option<Error>>,
}

impl Encoding {
    pub(crate) fn new(place: Place, shape: Arc<Shape>, options: &SinkOptions, attempt: Uuid) -> Self {
        let properties = properties(&shape.file_schema);
        Encoding {
            place,
            shape,
            target_file_size: options.target_file_size,
            buffer: options.buffer,
            properties,
            attempt,
            kind: "part",
            root: "",
            files: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Gives files another kind of name.
    pub(crate) fn named(self, kind: &'static str) -> Self {
        Encoding { kind, ..self }
    }

    /// Puts files below a folder of the table.
    pub(crate) fn below(self, root: &'static str) -> Self {
        Encoding { root, ..self }
    }

    pub(crate) fn attempt(&self) -> Uuid {
        self.attempt
    }

    /// The first failure of an encoder; a channel that closed early means there is one.
    pub(crate) fn failure(&self) -> Error {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        failure.take().unwrap_or_else(|| {
            Error::storage("writing has failed before at", self.place.url.as_str(), "see the first error")
        })
    }

    /// Encodes what comes until the channel closes. `None` after a failure, which is kept for whoever asks.
    pub(crate) async fn run(self: Arc<Self>, key: Key, parts: mpsc::Receiver<Part>) -> Option<Vec<Encoded>> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let written = self.encode(&key, parts).await;
        self.running.fetch_sub(1, Ordering::Relaxed);
        match written {
            Ok(files) => Some(files),
            Err(e) => {
                self.failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                None
            }
        }
    }

    async fn encode(&self, key: &Key, mut parts: mpsc::Receiver<Part>) -> Result<Vec<Encoded>> {
        let mut written = vec![];
        let mut open: Option<OpenFile> = None;
        while let Some(part) = parts.recv().await {
            let mut file = match open.take() {
                Some(file) => file,
                None => self.begin(key)?,
            };
            if let Some(keys) = part.keys {
                file.keys.arrivals.push((file.keys.hashes.len(), keys.arrival));
                file.keys.hashes.extend(keys.hashes);
                file.keys.prints.extend(keys.prints);
                file.keys.sequences.extend(keys.sequences);
            }
            self.append(&mut file, &part.rows).await?;
            if u64::try_from(file.writer.size()).unwrap_or(u64::MAX) >= self.target_file_size {
                written.push(self.end(key, file).await?);
            } else {
                open = Some(file);
            }
        }
        if let Some(file) = open {
            written.push(self.end(key, file).await?);
        }
        Ok(written)
    }

    fn begin(&self, key: &Key) -> Result<OpenFile> {
        let n = self.files.fetch_add(1, Ordering::Relaxed);
        let path =
            format!("{}{}{}-{}-{n:05}.snappy.parquet", self.root, folder(&self.shape, key), self.kind, self.attempt);
        let object = ObjectWriter::new(self.place.store.clone(), self.place.at(&path)?);
        let schema = self.shape.file_schema.clone();
        let nan = vec![false; schema.fields().len()];
        let writer = ParquetFile::begin(object, schema, self.properties.clone());
        Ok(OpenFile {
            writer: writer.map_err(|e| self.failed(&path, e))?,
            path,
            nan,
            rows: 0,
            keys: FileKeys::default(),
        })
    }

    async fn append(&self, file: &mut OpenFile, batch: &RecordBatch) -> Result<()> {
        for (nan, column) in file.nan.iter_mut().zip(batch.columns()) {
            *nan = *nan || has_nan(column);
        }
        file.rows += batch.num_rows() as u64;
        file.writer.write(batch).await.map_err(|e| self.failed(&file.path, e))?;
        let share = self.buffer / self.running.load(Ordering::Relaxed).max(1);
        if file.writer.memory_size() > share.clamp(LEAST_ROW_GROUP, MOST_ROW_GROUP) {
            file.writer.flush().await.map_err(|e| self.failed(&file.path, e))?;
        }
        Ok(())
    }

    async fn end(&self, key: &Key, mut file: OpenFile) -> Result<Encoded> {
        let metadata = file.writer.finish().await.map_err(|e| self.failed(&file.path, e))?;
        let stats = statistics(&metadata, &self.shape.file_schema, &file.nan, &self.shape.planned_by());
        let written = WrittenFile {
            path: file.path,
            size: file.writer.bytes_written() as u64,
            rows: file.rows,
            values: self.shape.values(key),
            stats,
            marks: None,
            deletes: false,
            whole: false,
        };
        Ok(Encoded { file: written, partition: key.clone(), keys: file.keys })
    }

    fn failed(&self, path: &str, e: parquet::errors::ParquetError) -> Error {
        // A data file that was half written, or wholly and unknown to us, is an orphan and harms nobody.
        Error::storage("cannot write", format!("{}{path}", self.place.url), e)
    }
}

/// Rows on their way to a file.
pub(crate) struct Part {
    pub(crate) rows: RecordBatch,
    /// Of a keyed table.
    pub(crate) keys: Option<PartKeys>,
}

/// The keys of a part's rows, row by row.
pub(crate) struct PartKeys {
    pub(crate) hashes: Vec<KeyHash>,
    /// Empty for keys without.
    pub(crate) prints: Vec<u32>,
    /// Empty without a sequence column.
    pub(crate) sequences: Vec<i64>,
    pub(crate) arrival: u64,
}

/// A file that was written whole.
pub(crate) struct Encoded {
    pub(crate) file: WrittenFile,
    pub(crate) partition: Key,
    /// Empty in a table without a key.
    pub(crate) keys: FileKeys,
}

struct OpenFile {
    path: String,
    writer: ParquetFile,
    nan: Vec<bool>,
    rows: u64,
    keys: FileKeys,
}

fn properties(schema: &Schema) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("watershed ", env!("CARGO_PKG_VERSION")).to_string());
    for field in schema.fields().iter().filter(|f| f.data_type().is_floating()) {
        let column = ColumnPath::new(vec![field.name().clone()]);
        properties = properties.set_column_dictionary_enabled(column, false);
    }
    properties.build()
}

fn has_nan(column: &dyn Array) -> bool {
    match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().values().iter().any(|v| v.is_nan()),
        DataType::Float64 => column.as_primitive::<Float64Type>().values().iter().any(|v| v.is_nan()),
        _ => false,
    }
}

/// The hive-style folder of a key, with a trailing slash, or nothing.
fn folder(shape: &Shape, key: &Key) -> String {
    let segment = |(column, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{}={}/", escape(column), escape(value)),
        None => format!("{}=__HIVE_DEFAULT_PARTITION__/", escape(column)),
    };
    shape.partition_columns.iter().zip(key).map(segment).collect()
}

/// Percent-encodes what file systems and object stores do not take, as hive does; the folder's name is for people and
/// for readers without a log.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'@');
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
