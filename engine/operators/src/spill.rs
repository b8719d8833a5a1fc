//! Window state put aside on local disk, when it does not fit the memory limit.
//!
//! A chunk of partial states is written as an Arrow IPC file of its own and read back whole when its window is merged,
//! emitted or checkpointed; chunks are cut small enough for that. The files are those of DataFusion's disk manager, which
//! counts their bytes against `disk_limit`, removes a file with its last user, and their folder with the process.
//!
//! Invariant: a chunk that was put aside is what it was; where it lies shows in nothing but time.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use datafusion::common::DataFusionError;
use datafusion::execution::SpillFile;
use datafusion::execution::disk_manager::DiskManager;
use watershed_core::operator::Aside;
use watershed_core::{Error, Result};

/// Rows of one chunk at most: what is read back at a time.
pub(crate) const CHUNK_ROWS: usize = 32 * 1024;

/// Where the state of one shard may be put aside, and what it may keep in any case.
#[derive(Clone)]
pub struct Spill {
    pub disk: Arc<DiskManager>,
    /// Bytes that the shard may hold even when others have used up the limit: what it takes to work at all.
    pub least: usize,
}

/// A chunk on disk.
pub(crate) struct Spilled {
    file: Arc<dyn SpillFile>,
    rows: usize,
    /// Of the states in memory.
    bytes: usize,
    view: String,
}

impl std::fmt::Debug for Spilled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spilled").field("rows", &self.rows).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Spill {
    /// Writes a chunk of a view's state; `state` says in messages what that is.
    /// `bytes` are what the rows take in memory: they may be a part of a larger batch.
    pub(crate) fn put(&self, states: &RecordBatch, bytes: usize, view: &str, state: &str) -> Result<Spilled> {
        let write = || -> std::result::Result<Arc<dyn SpillFile>, DataFusionError> {
            let file = self.disk.create_tmp_file("window state")?;
            let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
            let mut writer = FileWriter::try_new_with_options(file.open_writer()?, &states.schema(), options)?;
            writer.write(states)?;
            writer.finish()?;
            writer.into_inner()?.finish()?;
            Ok(file)
        };
        let file = write().map_err(|e| self.failed(view, state, &e))?;
        Ok(Spilled { file, rows: states.num_rows(), bytes, view: view.to_string() })
    }

    fn failed(&self, view: &str, state: &str, e: &DataFusionError) -> Error {
        let folders: Vec<_> = self.disk.temp_dir_paths().iter().map(|p| p.display().to_string()).collect();
        let folders = if folders.is_empty() { "the temporary folder".to_string() } else { folders.join(", ") };
        let (used, text) = (self.disk.used_disk_space(), e.to_string());
        let what = if text.contains("exceeded the allowable limit") {
            format!(
                "{used} bytes of it are on disk in {folders}, and more exceeds disk_limit ({}); give more disk \
                 (disk_limit)",
                self.disk.max_temp_directory_size()
            )
        } else {
            format!("it cannot be put aside in {folders}: {text}; make room there, give another folder (spill_dir)")
        };
        Error::Resources(format!(
            "view {view}: {state} does not fit the memory limit, and {what} or more memory (memory_limit), or use \
             shorter windows or fewer keys; all that is committed is kept"
        ))
    }
}

impl Spilled {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
}

impl Aside for Spilled {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn load(&self) -> Result<RecordBatch> {
        let path = self.file.path().ok_or_else(|| Error::bug("a spilled chunk has no path"))?;
        let read = || -> std::result::Result<Option<RecordBatch>, ArrowError> {
            FileReader::try_new(BufReader::new(File::open(path)?), None)?.next().transpose()
        };
        let failed = |why: String| {
            Error::Resources(format!(
                "view {}: state that was put aside in {} cannot be read back: {why}; run again, which goes on from the \
                 last checkpoint",
                self.view,
                path.display()
            ))
        };
        read().map_err(|e| failed(e.to_string()))?.ok_or_else(|| failed("the file is empty".to_string()))
    }
}
