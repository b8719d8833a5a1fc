//! The state of a windowed aggregate, one shard: a set of groups for each open window, or pane of windows that overlap.
//!
//! Each holds a hash table of the *other* keys and one accumulator set, so that closing it is dropping it, and its keys are
//! hashed without the window. Beside the live set there may be frozen *chunks*: partial states as record batches, made by a
//! checkpoint (taking states out of an accumulator empties it, so what a checkpoint took stays a batch until the window
//! closes) or by a restore. Checkpoints are incremental for free: a window that got no rows since has nothing live.
//!
//! **Invariant:** a window's content is the merge of its chunks and its live set; the order of merging does not matter to
//! any aggregate admitted by the planner.
//!
//! * [`aside`]: what is put aside on disk when memory is short.

mod aside;

pub(crate) use aside::{Merged, Part};

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use watershed_core::operator::{Aside, ChunkId, StateSize, StateSnapshot};
use watershed_core::{Error, EventTime, Result};

use crate::groups::{Groups, key_schema};
use crate::spill::{Spill, Spilled};
use crate::window_partial::runs;
use crate::window_spec::WindowSpec;

/// Chunks of one window beyond which a checkpoint rewrites them as one.
const MAX_CHUNKS: usize = 8;

/// Where a shard's memory is accounted, and where its state goes when that is full.
pub struct StateAccount {
    pub reservation: MemoryReservation,
    /// Without it, state that does not fit is an error.
    pub spill: Option<Spill>,
}

impl From<MemoryReservation> for StateAccount {
    fn from(reservation: MemoryReservation) -> Self {
        StateAccount { reservation, spill: None }
    }
}

/// The open windows of one shard.
pub(crate) struct WindowState {
    spec: Arc<WindowSpec>,
    key_schema: SchemaRef,
    windows: BTreeMap<EventTime, Window>,
    next_chunk: u64,
    account: MemoryReservation,
    spill: Option<Spill>,
    bytes: usize,
    /// What the owner keeps besides.
    besides: usize,
}

/// One open window.
#[derive(Default)]
pub(crate) struct Window {
    live: Option<Groups>,
    chunks: Vec<Chunk>,
    /// In memory.
    bytes: usize,
    /// Its owner holds its states as well, so that putting them aside would free nothing.
    pinned: bool,
}

struct Chunk {
    /// Set when a checkpoint holds it whole.
    id: Option<ChunkId>,
    states: Lies,
}

/// Where a chunk lies.
enum Lies {
    Here(RecordBatch),
    Aside(Arc<Spilled>),
}

impl Lies {
    fn load(&self) -> Result<RecordBatch> {
        match self {
            Lies::Here(states) => Ok(states.clone()),
            Lies::Aside(spilled) => spilled.load(),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Lies::Here(states) => states.num_rows(),
            Lies::Aside(spilled) => spilled.rows(),
        }
    }

    fn is_here(&self) -> bool {
        matches!(self, Lies::Here(_))
    }
}

impl WindowState {
    pub(crate) fn new(spec: Arc<WindowSpec>, account: StateAccount) -> Self {
        let key_schema = key_schema(&spec.group_fields);
        let StateAccount { reservation: account, spill } = account;
        let (windows, next_chunk, bytes, besides) = (BTreeMap::new(), 0, 0, 0);
        WindowState { spec, key_schema, windows, next_chunk, account, spill, bytes, besides }
    }

    /// Merges partial states of any windows; tells `touched` of each.
    pub(crate) fn push(&mut self, rows: &RecordBatch, mut touched: impl FnMut(EventTime)) -> Result<()> {
        self.by_window(rows, |this, start, part| {
            touched(start);
            this.merge(start, &part)
        })
    }

    /// The starts of all windows, in order.
    pub(crate) fn starts(&self) -> impl DoubleEndedIterator<Item = EventTime> + '_ {
        self.windows.keys().copied()
    }

    /// The starts of the windows from one time to another, in order.
    pub(crate) fn range(&self, from: EventTime, to: EventTime) -> impl Iterator<Item = EventTime> + '_ {
        self.windows.range(from..to).map(|(start, _)| *start)
    }

    /// Takes a window out.
    pub(crate) fn forget(&mut self, start: EventTime) -> Option<Window> {
        let window = self.windows.remove(&start)?;
        self.bytes -= window.bytes;
        Some(window)
    }

    /// A window's chunks and live set as one live set.
    pub(crate) fn whole(&self, window: Window) -> Result<Groups> {
        let mut live = match window.live {
            Some(live) => live,
            None => Groups::new(&self.spec.aggregates, &self.key_schema).map_err(in_engine)?,
        };
        for chunk in window.chunks {
            merge(&mut live, &chunk.states.load()?).map_err(in_engine)?;
        }
        Ok(live)
    }

    /// A frozen window as one live set; the window stays as it is.
    pub(crate) fn peek(&self, start: EventTime) -> Result<Groups> {
        let mut whole = Groups::new(&self.spec.aggregates, &self.key_schema).map_err(in_engine)?;
        let window = self.windows.get(&start);
        if window.is_some_and(|window| window.live.is_some()) {
            return Err(Error::bug("a window is looked into that is not frozen"));
        }
        for chunk in window.into_iter().flat_map(|window| &window.chunks) {
            merge(&mut whole, &chunk.states.load()?).map_err(in_engine)?;
        }
        Ok(whole)
    }

    /// A window as one chunk in memory, which stays until it gets rows or is unpinned; to be read while it is open. `None` if
    /// there is no such window.
    pub(crate) fn seal(&mut self, start: EventTime) -> Result<Option<RecordBatch>> {
        let Some(mut window) = self.forget(start) else { return Ok(None) };
        let chunk = match (window.live.is_none(), window.chunks.pop()) {
            (true, Some(chunk)) if window.chunks.is_empty() => {
                Chunk { states: Lies::Here(chunk.states.load()?), ..chunk }
            }
            (_, last) => {
                window.chunks.extend(last);
                Chunk { id: None, states: Lies::Here(self.states(start, self.whole(window)?)?) }
            }
        };
        let states = chunk.states.load()?;
        self.windows.insert(start, Window { chunks: vec![chunk], pinned: true, ..Window::default() });
        self.account(start)?;
        Ok(Some(states))
    }

    /// The owner holds no sealed states any more.
    pub(crate) fn unpin(&mut self) {
        self.windows.values_mut().for_each(|window| window.pinned = false);
    }

    /// Accounts for what the owner keeps besides the windows, in bytes.
    pub(crate) fn keep_besides(&mut self, bytes: usize) -> Result<()> {
        self.besides = bytes;
        self.settle()
    }

    /// Freezes what is live; see [`watershed_core::operator::Operator::checkpoint`].
    pub(crate) fn checkpoint(&mut self) -> Result<StateSnapshot> {
        let mut snapshot = StateSnapshot::default();
        let starts: Vec<_> = self.starts().collect();
        for start in starts {
            let Some(mut window) = self.windows.remove(&start) else { continue };
            if window.live.is_some() && window.chunks.iter().filter(|c| c.states.is_here()).count() >= MAX_CHUNKS {
                let (here, aside) = window.chunks.into_iter().partition(|c| c.states.is_here());
                let here = Window { live: window.live, chunks: here, ..Window::default() };
                window = Window { live: Some(self.whole(here)?), chunks: aside, bytes: window.bytes, pinned: false };
            }
            if let Some(live) = window.live.take() {
                window.chunks.push(Chunk { id: None, states: Lies::Here(self.states(start, live)?) });
            }
            for chunk in &mut window.chunks {
                if let Some(id) = chunk.id {
                    snapshot.kept.push(id);
                    continue;
                }
                let id = ChunkId(self.next_chunk);
                self.next_chunk += 1;
                chunk.id = Some(id);
                match &chunk.states {
                    Lies::Here(states) => snapshot.fresh.push((id, states.clone())),
                    Lies::Aside(spilled) => snapshot.aside.push((id, Arc::clone(spilled) as _)),
                }
            }
            self.windows.insert(start, window);
            self.account(start)?;
        }
        Ok(snapshot)
    }

    /// Takes back a chunk; see [`watershed_core::operator::Operator::restore`].
    pub(crate) fn restore(&mut self, id: Option<ChunkId>, chunk: &RecordBatch) -> Result<()> {
        if let Some(ChunkId(n)) = id {
            self.next_chunk = self.next_chunk.max(n + 1);
        }
        let mut parts = vec![];
        self.by_window(chunk, |_, start, states| {
            parts.push((start, states));
            Ok(())
        })?;
        let id = id.filter(|_| parts.len() == 1);
        for (start, states) in parts {
            self.windows.entry(start).or_default().chunks.push(Chunk { id, states: Lies::Here(states) });
            self.account(start)?;
        }
        Ok(())
    }

    pub(crate) fn size(&self) -> StateSize {
        let groups = |w: &Window| {
            let chunks: usize = w.chunks.iter().map(|c| c.states.rows()).sum();
            w.live.as_ref().map_or(0, Groups::len) + chunks
        };
        let groups = self.windows.values().map(groups).sum();
        let chunks = self.windows.values().flat_map(|w| &w.chunks);
        let aside = chunks.map(|c| if let Lies::Aside(spilled) = &c.states { spilled.bytes() } else { 0 });
        StateSize { windows: self.windows.len(), groups, bytes: self.bytes + self.besides, spilled: aside.sum() }
    }

    /// The first column of a window's rows: one time, as often as there are rows, in the column's type.
    pub(crate) fn times(&self, time: EventTime, rows: usize) -> Result<ArrayRef> {
        let kind = self.spec.group_fields[0].data_type();
        let (numerator, denominator) = unit(kind)?;
        let value = time.0.checked_mul(denominator).map(|v| v.div_euclid(numerator));
        let value = value.ok_or_else(|| {
            Error::input(format!(
                "a window's edge {time} does not fit the type of the time, {kind}; cast the time to TIMESTAMP"
            ))
        })?;
        let plain: ArrayRef = Arc::new(Int64Array::from_value(value, rows));
        compute::cast(&plain, kind).map_err(|e| in_engine(e.into()))
    }

    /// Columns as a batch of a schema that says the same but for nullability and views.
    pub(crate) fn batch(&self, schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let columns = columns.into_iter().zip(schema.fields()).map(|(c, f)| match c.data_type() == f.data_type() {
            true => Ok(c),
            false => compute::cast(&c, f.data_type()),
        });
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        columns
            .and_then(|c| RecordBatch::try_new_with_options(Arc::clone(schema), c, &options))
            .map_err(|e| in_engine(e.into()))
    }

    /// Groups as a batch of partial states.
    fn states(&self, start: EventTime, groups: Groups) -> Result<RecordBatch> {
        let rows = groups.len();
        let mut columns = vec![self.times(start, rows)?];
        columns.extend(groups.into_states().map_err(in_engine)?);
        self.batch(&self.spec.partial, columns, rows)
    }

    /// Merges rows of one window, given as partial states.
    fn merge(&mut self, start: EventTime, states: &RecordBatch) -> Result<()> {
        let window = self.windows.entry(start).or_default();
        window.pinned = false;
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
        let here = window.chunks.iter().map(|c| match &c.states {
            Lies::Here(states) => states.get_array_memory_size(),
            Lies::Aside(_) => 0,
        });
        let now = here.sum::<usize>() + window.live.as_ref().map_or(0, Groups::bytes);
        self.bytes = self.bytes + now - window.bytes;
        window.bytes = now;
        self.settle()
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

/// What a failure inside DataFusion means to the user.
pub(crate) fn in_engine(e: DataFusionError) -> Error {
    match e.find_root() {
        DataFusionError::ResourcesExhausted(m) => Error::Resources(m.clone()),
        DataFusionError::Execution(m) => Error::input(m.clone()),
        DataFusionError::ArrowError(e, _) => Error::input(e.to_string()),
        _ => Error::bug(e.to_string()),
    }
}
