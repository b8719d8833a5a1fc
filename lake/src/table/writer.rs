//! Routes an epoch's rows to the table's partitions, and each partition's to the files that are being encoded.
//!
//! A partition has one file at a time while it is small, so that small partitions give one file an epoch; when much
//! comes for it, or its encoder falls behind, it gets more, up to the sink's lanes. Rows of one lane go to one file in
//! order. Partitions that nothing came for in a while are closed, since windows come in the order of time.
//!
//! Invariant: dropping the writer aborts its encoders; what they had written stays invisible.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use watershed_core::sink::{EpochWriter, PreparedCommit};
use watershed_core::{Error, Result};

use super::encode::{Encoded, Encoding, LEAST_ROW_GROUP, Part};
use super::shape::Key;

/// Batches that wait for one encoder.
const WAITING: usize = 4;
/// Rows of a partition that are worth another file.
const ROWS_A_FILE: u64 = 1 << 20;
/// A partition with fewer rows has one file, however slow.
const ROWS_TO_SPLIT: u64 = 1 << 18;
/// How often an encoder must have been behind to be helped.
const TIMES_BEHIND: u64 = 8;
/// Batches without a row for a partition after which it is closed, at first. Doubled whenever one so closed comes
/// again, so that rows in no order do not end in many small files.
const IDLE: u64 = 64;
/// The most partitions open at once, and the fewest that are kept open however little memory there is.
const MOST_OPEN: usize = 512;
const LEAST_OPEN: usize = 4;

/// Takes one epoch's rows.
pub(crate) struct DeltaEpochWriter {
    encoding: Arc<Encoding>,
    lanes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<Key, OpenPartition>,
    encoders: JoinSet<Option<Vec<Encoded>>>,
    batches: u64,
    patience: u64,
    closed: HashSet<Key>,
}

struct OpenPartition {
    files: Vec<mpsc::Sender<Part>>,
    rows: u64,
    behind: u64,
    used: u64,
}

impl DeltaEpochWriter {
    pub(crate) fn new(encoding: Arc<Encoding>, lanes: usize) -> Self {
        let state = State { patience: IDLE, ..Default::default() };
        DeltaEpochWriter { encoding, lanes: lanes.max(1), state: Mutex::new(state) }
    }

    /// The channel for a batch, opened if need be.
    async fn route(&self, lane: usize, key: Key, rows: u64) -> mpsc::Sender<Part> {
        let mut state = self.state.lock().await;
        if !state.open.contains_key(&key) {
            let most = (self.encoding.buffer / LEAST_ROW_GROUP).clamp(LEAST_OPEN, MOST_OPEN);
            state.make_room(&key, most);
        }
        let State { open, encoders, batches, .. } = &mut *state;
        let mut begin = |key: &Key| {
            let (sender, receiver) = mpsc::channel(WAITING);
            encoders.spawn(self.encoding.clone().run(key.clone(), receiver));
            sender
        };
        let partition = open.entry(key.clone()).or_insert_with(|| OpenPartition {
            files: vec![begin(&key)],
            rows: 0,
            behind: 0,
            used: 0,
        });
        partition.rows += rows;
        partition.used = *batches;
        let files = partition.files.len() as u64;
        let slow = partition.behind >= TIMES_BEHIND && partition.rows >= ROWS_TO_SPLIT * files;
        if partition.files.len() < self.lanes && (slow || partition.rows >= ROWS_A_FILE * files) {
            partition.files.push(begin(&key));
            partition.behind = 0;
        }
        let sender = &partition.files[lane % partition.files.len()];
        if sender.capacity() == 0 {
            partition.behind += 1;
        }
        sender.clone()
    }

    /// Hands on what was cut from one batch.
    pub(crate) async fn take(&self, lane: usize, parts: Vec<(Key, Part)>) -> Result<()> {
        self.state.lock().await.batches += 1;
        for (key, part) in parts {
            let sender = self.route(lane, key, part.rows.num_rows() as u64).await;
            if sender.send(part).await.is_err() {
                return Err(self.encoding.failure());
            }
        }
        Ok(())
    }

    /// Closes every file.
    pub(crate) async fn close(&self) -> Result<Vec<Encoded>> {
        let State { open, mut encoders, .. } = std::mem::take(&mut *self.state.lock().await);
        drop(open);
        let mut files = vec![];
        while let Some(ended) = encoders.join_next().await {
            let ended = ended.map_err(|e| Error::bug(format!("a file's encoder died: {e}")))?;
            files.extend(ended.ok_or_else(|| self.encoding.failure())?);
        }
        files.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        Ok(files)
    }
}

#[async_trait]
impl EpochWriter for DeltaEpochWriter {
    async fn write(&self, lane: usize, rows: RecordBatch) -> Result<()> {
        let parts = self.encoding.shape.cut(&rows)?;
        self.take(lane, parts.into_iter().map(|(key, rows)| (key, Part { rows, keys: None })).collect()).await
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        Ok(PreparedCommit {
            files: self.close().await?.into_iter().map(|encoded| encoded.file).collect(),
            ..PreparedCommit::default()
        })
    }
}

impl State {
    /// Closes partitions that nothing came for in a while, and the least used one if there are too many.
    fn make_room(&mut self, wanted: &Key, most: usize) {
        if self.closed.remove(wanted) {
            self.patience = self.patience.saturating_mul(2);
        }
        let State { open, batches, patience, closed, .. } = self;
        let idle = open.iter().filter(|(_, partition)| *batches - partition.used > *patience);
        let mut idle: Vec<Key> = idle.map(|(key, _)| key.clone()).collect();
        if idle.is_empty() && open.len() >= most {
            idle.extend(open.iter().min_by_key(|(_, p)| p.used).map(|(key, _)| key.clone()));
        }
        for key in idle {
            open.remove(&key);
            closed.insert(key);
        }
    }
}
