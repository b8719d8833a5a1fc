//! Windowed aggregation: partial states in, final rows out, one shard.
//!
//! State is held window by window: a hash table of the *other* keys and one accumulator set, so that closing a window is
//! dropping it, and its keys are hashed without the window. Beside the live set a window may hold frozen *chunks*: partial
//! states as record batches, made by a checkpoint (taking states out of an accumulator empties it, so what a checkpoint
//! took stays a batch until the window closes) or by a restore. On the watermark the chunks are merged back and the window
//! is evaluated. Checkpoints are incremental for free: a window that got no rows since has nothing live.
//!
//! **Invariant:** a window's content is the merge of its chunks and its live set; the order of merging does not matter to
//! any aggregate admitted by the planner.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use watershed_core::change::ChangeBatch;
use watershed_core::operator::{ChunkId, Operator, StateSize, StateSnapshot};
use watershed_core::{Error, EventTime, Result};

use crate::groups::{Groups, key_schema};
use crate::window_partial::runs;
use crate::window_spec::WindowSpec;

/// Rows a batch of final results at most.
const EMIT_ROWS: usize = 32 * 1024;

/// Chunks of one window beyond which a checkpoint rewrites them as one.
const MAX_CHUNKS: usize = 8;

/// Where a shard's memory is accounted.
pub type StateAccount = MemoryReservation;

/// One shard of a windowed aggregate.
pub struct WindowAggregate {
    spec: Arc<WindowSpec>,
    key_schema: SchemaRef,
    windows: BTreeMap<EventTime, Window>,
    next_chunk: u64,
    account: StateAccount,
    bytes: usize,
}

/// One open window.
#[derive(Default)]
struct Window {
    live: Option<Groups>,
    chunks: Vec<Chunk>,
    bytes: usize,
}

struct Chunk {
    /// Set when a checkpoint holds it whole.
    id: Option<ChunkId>,
    states: RecordBatch,
}

impl WindowAggregate {
    pub fn new(spec: Arc<WindowSpec>, account: StateAccount) -> Self {
        let key_schema = key_schema(&spec.group_fields);
        WindowAggregate { spec, key_schema, windows: BTreeMap::new(), next_chunk: 0, account, bytes: 0 }
    }

    /// Merges rows of one window, given as partial states.
    fn merge(&mut self, start: EventTime, states: &RecordBatch) -> Result<()> {
        let window = self.windows.entry(start).or_default();
        let live = match &mut window.live {
            Some(live) => live,
            None => window.live.insert(Groups::new(&self.spec.aggregates, &self.key_schema).map_err(in_engine)?),
        };
        merge(live, states).map_err(in_engine)?;
        self.account(start)
    }

    /// Brings the account up to date for one window.
    fn account(&mut self, start: EventTime) -> Result<()> {
        let Some(window) = self.windows.get_mut(&start) else { return Ok(()) };
        let chunks: usize = window.chunks.iter().map(|c| c.states.get_array_memory_size()).sum();
        let now = chunks + window.live.as_ref().map_or(0, Groups::bytes);
        self.bytes = self.bytes + now - window.bytes;
        window.bytes = now;
        self.settle()
    }

    fn settle(&mut self) -> Result<()> {
        // Small changes are not worth a visit to the pool that all shards share.
        if self.bytes.abs_diff(self.account.size()) < 64 * 1024 && self.bytes != 0 {
            return Ok(());
        }
        let size = self.size();
        self.account.try_resize(self.bytes).map_err(|e| {
            Error::Resources(format!(
                "view {}: the state of {} open windows with {} groups does not fit the memory limit; give more \
                 (memory_limit), or use shorter windows or fewer keys: {e}",
                self.spec.name, size.windows, size.groups
            ))
        })
    }

    fn forget(&mut self, start: EventTime) -> Option<Window> {
        let window = self.windows.remove(&start)?;
        self.bytes -= window.bytes;
        Some(window)
    }

    /// Evaluates a closed window.
    fn emit(&self, start: EventTime, window: Window) -> Result<Vec<ChangeBatch>> {
        let live = self.whole(window).map_err(in_engine)?;
        let rows = live.len();
        let mut columns = vec![self.starts(start, rows)?];
        columns.extend(live.finish().map_err(in_engine)?);
        let all = self.batch(&self.spec.output, columns, rows)?;
        let cuts = (0..rows).step_by(EMIT_ROWS);
        Ok(cuts.map(|at| ChangeBatch::inserts(all.slice(at, EMIT_ROWS.min(rows - at)))).collect())
    }

    /// A window's chunks and live set as one live set.
    fn whole(&self, window: Window) -> Result<Groups, DataFusionError> {
        let mut live = match window.live {
            Some(live) => live,
            None => Groups::new(&self.spec.aggregates, &self.key_schema)?,
        };
        for chunk in window.chunks {
            merge(&mut live, &chunk.states)?;
        }
        Ok(live)
    }

    /// The window column: one value, as often as there are rows.
    fn starts(&self, start: EventTime, rows: usize) -> Result<ArrayRef> {
        let kind = self.spec.group_fields[0].data_type();
        let (numerator, denominator) = unit(kind)?;
        let value = start.0.checked_mul(denominator).map(|v| v.div_euclid(numerator));
        let value = value.ok_or_else(|| Error::bug(format!("window start {start} does not fit {kind}")))?;
        let plain: ArrayRef = Arc::new(Int64Array::from_value(value, rows));
        compute::cast(&plain, kind).map_err(|e| in_engine(e.into()))
    }

    fn batch(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        // Accumulators may answer with another nullability or view type than the plan said.
        let columns = columns.into_iter().zip(schema.fields()).map(|(c, f)| match c.data_type() == f.data_type() {
            true => Ok(c),
            false => compute::cast(&c, f.data_type()),
        });
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        columns
            .and_then(|c| RecordBatch::try_new_with_options(Arc::clone(schema), c, &options))
            .map_err(|e| in_engine(e.into()))
    }

    /// Cuts a batch of partial states by window and hands each part on.
    fn by_window(
        &mut self,
        rows: &RecordBatch,
        mut each: impl FnMut(&mut Self, EventTime, RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let starts = window_starts(rows.column(0), &self.spec.name)?;
        let runs = runs(&starts);
        if runs.len() <= 1 + starts.len() / 32 {
            for (from, to) in runs {
                each(self, EventTime(starts[from]), rows.slice(from, to - from))?;
            }
            return Ok(());
        }
        let mut parts: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, start) in starts.iter().enumerate() {
            parts.entry(*start).or_default().push(row as u32);
        }
        for (start, indices) in parts {
            let part =
                compute::take_record_batch(rows, &UInt32Array::from(indices)).map_err(|e| in_engine(e.into()))?;
            each(self, EventTime(start), part)?;
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn push(&mut self, input: ChangeBatch) -> Result<()> {
        if !input.is_append() {
            return Err(Error::bug("a windowed aggregate was given retractions"));
        }
        self.by_window(&input.rows, |this, start, part| this.merge(start, &part))
    }

    fn advance(&mut self, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let closed: Vec<_> = self.windows.keys().copied().filter(|s| self.spec.end.of(*s) <= watermark).collect();
        let mut out = vec![];
        for start in closed {
            let Some(window) = self.forget(start) else { continue };
            if self.spec.from.is_none_or(|from| start >= from) {
                out.extend(self.emit(start, window)?);
            }
        }
        self.settle()?;
        Ok(out)
    }

    fn checkpoint(&mut self) -> Result<StateSnapshot> {
        let mut snapshot = StateSnapshot::default();
        let starts: Vec<_> = self.windows.keys().copied().collect();
        for start in starts {
            let Some(mut window) = self.windows.remove(&start) else { continue };
            let before = window.bytes;
            if window.live.is_some() && window.chunks.len() >= MAX_CHUNKS {
                let live = self.whole(window).map_err(in_engine)?;
                window = Window { live: Some(live), chunks: vec![], bytes: before };
            }
            if let Some(live) = window.live.take() {
                let rows = live.len();
                let mut columns = vec![self.starts(start, rows)?];
                columns.extend(live.into_states().map_err(in_engine)?);
                window.chunks.push(Chunk { id: None, states: self.batch(&self.spec.partial, columns, rows)? });
            }
            for chunk in &mut window.chunks {
                match chunk.id {
                    Some(id) => snapshot.kept.push(id),
                    None => {
                        let id = ChunkId(self.next_chunk);
                        self.next_chunk += 1;
                        chunk.id = Some(id);
                        snapshot.fresh.push((id, chunk.states.clone()));
                    }
                }
            }
            self.windows.insert(start, window);
            self.account(start)?;
        }
        Ok(snapshot)
    }

    fn restore(&mut self, id: Option<ChunkId>, chunk: RecordBatch) -> Result<()> {
        if let Some(ChunkId(n)) = id {
            self.next_chunk = self.next_chunk.max(n + 1);
        }
        let mut parts = vec![];
        self.by_window(&chunk, |_, start, states| {
            parts.push((start, states));
            Ok(())
        })?;
        let id = id.filter(|_| parts.len() == 1);
        for (start, states) in parts {
            self.windows.entry(start).or_default().chunks.push(Chunk { id, states });
            self.account(start)?;
        }
        Ok(())
    }

    fn state_schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.partial)
    }

    fn last_end(&self) -> Option<EventTime> {
        self.windows.keys().next_back().map(|s| self.spec.end.of(*s))
    }

    fn size(&self) -> StateSize {
        let groups = |w: &Window| {
            let chunks: usize = w.chunks.iter().map(|c| c.states.num_rows()).sum();
            w.live.as_ref().map_or(0, Groups::len) + chunks
        };
        StateSize { windows: self.windows.len(), groups: self.windows.values().map(groups).sum(), bytes: self.bytes }
    }
}

/// Merges partial states: the window's start, the keys, the states of all aggregates.
fn merge(groups: &mut Groups, rows: &RecordBatch) -> Result<(), DataFusionError> {
    let (keys, states) = rows.columns()[1..].split_at(groups.keys());
    groups.merge(keys, states, rows.num_rows())
}

/// Window starts in microseconds.
fn window_starts(column: &ArrayRef, view: &str) -> Result<Vec<i64>> {
    if column.null_count() > 0 {
        return Err(Error::input(format!(
            "view {view}: a row without an event time came from a file whose statistics say it has none; the file's \
             statistics are wrong, rewrite it"
        )));
    }
    let (numerator, denominator) = unit(column.data_type())?;
    let plain = compute::cast(column, &DataType::Int64).map_err(|e| in_engine(e.into()))?;
    let values = plain.as_primitive::<Int64Type>().values();
    Ok(values.iter().map(|v| v.saturating_mul(numerator).div_euclid(denominator)).collect())
}

/// One of the column's units as a ratio of microseconds: (numerator, denominator).
fn unit(kind: &DataType) -> Result<(i64, i64)> {
    match kind {
        DataType::Timestamp(TimeUnit::Second, _) => Ok((1_000_000, 1)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok((1_000, 1)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok((1, 1)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok((1, 1_000)),
        other => Err(Error::bug(format!("a window start of type {other}"))),
    }
}

fn in_engine(e: DataFusionError) -> Error {
    match e.find_root() {
        DataFusionError::ResourcesExhausted(m) => Error::Resources(m.clone()),
        DataFusionError::Execution(m) => Error::input(m.clone()),
        DataFusionError::ArrowError(e, _) => Error::input(e.to_string()),
        _ => Error::bug(e.to_string()),
    }
}

#[cfg(test)]
#[path = "window_aggregate/tests.rs"]
mod tests;
