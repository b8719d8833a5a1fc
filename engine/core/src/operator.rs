//! The seam of stateful operators: change batches in, change batches out, and told of each watermark.
//!
//! An operator instance is one *shard*: it owns the keys that hash to it and is driven by one task, so it needs no locks.
//! Its state leaves in two ways only: emitted and forgotten when the watermark passes, or taken as a checkpoint.
//!
//! State is checkpointed in *chunks*: record batches of partial states that can be merged back in any order and on any
//! shard. A chunk, once frozen, never changes; so a checkpoint writes only what is fresh and names what is kept.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::Serialize;

use crate::change::ChangeBatch;
use crate::error::Result;
use crate::time::EventTime;

/// Names a frozen chunk within one shard and one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub u64);

/// A shard's whole state: chunks that an earlier checkpoint holds, and those frozen just now.
#[derive(Debug, Default)]
pub struct StateSnapshot {
    pub kept: Vec<ChunkId>,
    pub fresh: Vec<(ChunkId, RecordBatch)>,
    /// Fresh ones that do not lie in memory; to be loaded one after the other.
    pub aside: Vec<(ChunkId, Arc<dyn Aside>)>,
}

/// A chunk that was put aside for want of memory.
pub trait Aside: Send + Sync + Debug {
    /// What it takes in memory.
    fn bytes(&self) -> usize;

    fn load(&self) -> Result<RecordBatch>;
}

/// How much a shard holds, for progress and for errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StateSize {
    pub windows: usize,
    pub groups: usize,
    /// In memory.
    pub bytes: usize,
    /// Put aside on disk, as bytes in memory.
    pub spilled: usize,
}

/// One shard of a stateful operator.
///
/// Laws: the rows emitted up to a watermark do not depend on how the input was cut into batches, on their order within a
/// step, or on checkpoints and restores in between; after `advance(w)`, and `more` to its end, nothing that
/// ends at or before `w` is held.
pub trait Operator: Send {
    /// Takes one batch of the fragment's output (partial states, for aggregates).
    fn push(&mut self, input: ChangeBatch) -> Result<()>;

    /// The step is over and the watermark goes from `before` to `watermark`: returns what became final and forgets it. What
    /// was final at `before` has been emitted, also when it was by an instance that this one was restored from.
    fn advance(&mut self, before: EventTime, watermark: EventTime) -> Result<Vec<ChangeBatch>>;

    /// What [`Operator::advance`] left for later, where all at once would not fit into memory: to be called until there is
    /// no more.
    fn more(&mut self) -> Result<Option<Vec<ChangeBatch>>> {
        Ok(None)
    }

    /// What the windows that end after a watermark would be if nothing more came, all of which stays as it is. To be asked right
    /// after [`Operator::checkpoint`].
    fn provisional(&mut self, watermark: EventTime) -> Result<Vec<ChangeBatch>>;

    /// Freezes the state. Calling it twice without input in between returns no fresh chunk the second time.
    fn checkpoint(&mut self) -> Result<StateSnapshot>;

    /// Takes back a chunk, possibly only the rows of it that belong to this shard. `id` is given when the chunk is whole
    /// and may be kept by reference; without it, it counts as fresh at the next checkpoint.
    fn restore(&mut self, id: Option<ChunkId>, chunk: RecordBatch) -> Result<()>;

    /// The schema of state chunks; the first column is the window's start.
    fn state_schema(&self) -> SchemaRef;

    /// The end of the last window held, for `--final`.
    fn last_end(&self) -> Option<EventTime>;

    fn size(&self) -> StateSize;
}
