//! Windowed aggregation over windows that overlap: a row is aggregated once, in its pane, and panes are shared.
//!
//! The state is that of [`crate::window_state`], a set of groups a pane, kept until the last window with that pane was
//! emitted. On the watermark the panes of the windows that end are sealed: each becomes one batch of partial states, its
//! keys numbered ([`crate::pane_keys`]), and windows are merged from them ([`crate::sliding`]). Sealed panes, numbers and
//! runs are made anew from the state whenever need be; so none of them is in a checkpoint, and which windows were emitted
//! follows from the watermark alone.
//!
//! A late row that is in windows still to come reaches its pane as any other; what was merged with it is made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use watershed_core::change::ChangeBatch;
use watershed_core::operator::{ChunkId, Operator, StateSize, StateSnapshot};
use watershed_core::{Error, EventTime, Result};

use crate::groups::{key_schema, state_types};
use crate::pane_keys::PaneKeys;
use crate::sliding::{Partials, Sliding};
use crate::window_aggregate::{appended, emit};
use crate::window_form::WindowForm;
use crate::window_spec::WindowSpec;
use crate::window_state::{StateAccount, WindowState, in_engine};

/// Numbers beyond which it is asked how many of them are in use.
const MANY_KEYS: usize = 4096;

/// One shard of an aggregate over windows that overlap.
pub struct PaneAggregate {
    spec: Arc<WindowSpec>,
    form: WindowForm,
    state: WindowState,
    /// `None` until it is needed, and after it was thrown away.
    derived: Option<Derived>,
}

/// What follows from the state and makes emitting cheap.
struct Derived {
    keys: PaneKeys,
    sealed: BTreeMap<EventTime, Partials>,
    sliding: Sliding,
    /// Numbers beyond which it is asked how many of them are in use.
    many: usize,
}

impl PaneAggregate {
    pub(crate) fn new(spec: Arc<WindowSpec>, form: WindowForm, account: impl Into<StateAccount>) -> Self {
        PaneAggregate { state: WindowState::new(Arc::clone(&spec), account.into()), spec, form, derived: None }
    }

    fn derive(&self) -> Result<Derived, DataFusionError> {
        let keys = PaneKeys::new(&key_schema(&self.spec.group_fields))?;
        let sliding = Sliding::new(self.spec.aggregates.clone(), state_types(&self.spec)?);
        Ok(Derived { keys, sealed: BTreeMap::new(), sliding, many: MANY_KEYS })
    }

    /// Emits the windows that end after `before`, up to `watermark`.
    fn emit(&mut self, before: EventTime, watermark: EventTime, derived: &mut Derived) -> Result<Vec<ChangeBatch>> {
        let mut out = vec![];
        let (Some(first), Some(last)) = (self.state.starts().next(), self.state.starts().next_back()) else {
            return Ok(out);
        };
        let limit = watermark.min(self.form.last_end(last));
        let pane_end = |pane| self.form.pane_end().of(pane);
        let mut end = self.form.end_after(before).max(pane_end(first));
        while end <= limit {
            let window = self.form.window_ending(end);
            let panes: Vec<_> = self.state.range(window.start, window.end).collect();
            if panes.is_empty() {
                let Some(next) = self.state.range(window.end, EventTime::MAX).next() else { break };
                end = pane_end(next);
                continue;
            }
            end = pane_end(self.form.pane_start(end));
            if self.spec.from.is_some_and(|from| window.start < from) {
                continue;
            }
            for pane in panes {
                derived.seal(&mut self.state, pane)?;
            }
            let Derived { keys, sealed, sliding, .. } = &mut *derived;
            let (numbers, results) = sliding.window(window, sealed).map_err(in_engine)?;
            let mut columns = keys.keys(&numbers).map_err(in_engine)?;
            columns.extend(results);
            out.extend(emit(&self.spec, &self.state, window, columns, numbers.len())?);
        }
        Ok(out)
    }

    /// Forgets the panes whose last window has been emitted.
    fn forget(&mut self, watermark: EventTime, derived: &mut Derived) {
        let done: Vec<_> = self.state.starts().take_while(|pane| self.form.last_end(*pane) <= watermark).collect();
        for pane in done {
            self.state.forget(pane);
            derived.sealed.remove(&pane);
        }
    }
}

impl Derived {
    /// Makes a pane's partial states, if they are not made yet.
    fn seal(&mut self, state: &mut WindowState, pane: EventTime) -> Result<()> {
        if self.sealed.contains_key(&pane) {
            return Ok(());
        }
        let states = state.seal(pane)?.ok_or_else(|| Error::bug("a pane that is there is not"))?;
        let (keys, states_of) = states.columns()[1..].split_at(self.keys.width());
        let keys = self.keys.numbers(keys, states.num_rows()).map_err(in_engine)?;
        self.sealed.insert(pane, Partials { keys, states: states_of.to_vec() });
        Ok(())
    }

    /// Whether most numbers stand for keys that no pane has any more.
    fn is_stale(&mut self) -> bool {
        if self.keys.len() < self.many {
            return false;
        }
        let mut used = vec![false; self.keys.len()];
        for key in self.sealed.values().flat_map(|p| &p.keys) {
            used[*key as usize] = true;
        }
        let used = used.into_iter().filter(|used| *used).count();
        self.many = (used * 2).max(MANY_KEYS);
        self.keys.len() > self.many
    }

    fn bytes(&self) -> usize {
        // The states of sealed panes are those of the state's own chunks.
        let sealed: usize = self.sealed.values().map(|p| p.keys.capacity() * size_of::<u32>()).sum();
        self.keys.bytes() + self.sliding.bytes() + sealed
    }
}

impl Operator for PaneAggregate {
    fn push(&mut self, input: ChangeBatch) -> Result<()> {
        let derived = &mut self.derived;
        self.state.push(&appended(&input)?, |pane| {
            if let Some(derived) = derived {
                derived.sealed.remove(&pane);
                if derived.sliding.has_taken(pane) {
                    derived.sliding.reset();
                }
            }
        })
    }

    fn advance(&mut self, before: EventTime, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let (before, watermark) = (self.spec.local(before), self.spec.local(watermark));
        let mut derived = match self.derived.take() {
            Some(derived) => derived,
            None => self.derive().map_err(in_engine)?,
        };
        let out = self.emit(before, watermark, &mut derived)?;
        self.forget(watermark, &mut derived);
        let keep = self.state.starts().next().is_some() && !derived.is_stale();
        self.state.keep_besides(if keep { derived.bytes() } else { 0 })?;
        self.derived = keep.then_some(derived);
        if self.derived.is_none() {
            self.state.unpin();
        }
        Ok(out)
    }

    fn provisional(&mut self, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let watermark = self.spec.local(watermark);
        // What is derived goes from window to window and not back.
        let mut derived = self.derive().map_err(in_engine)?;
        self.derived = None;
        self.state.unpin();
        let out = self.emit(watermark, EventTime::MAX, &mut derived)?;
        self.state.unpin();
        self.state.keep_besides(0)?;
        Ok(out)
    }

    fn checkpoint(&mut self) -> Result<StateSnapshot> {
        self.state.checkpoint()
    }

    fn restore(&mut self, id: Option<ChunkId>, chunk: RecordBatch) -> Result<()> {
        self.derived = None;
        self.state.unpin();
        self.state.restore(id, &chunk)
    }

    fn state_schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.partial)
    }

    fn last_end(&self) -> Option<EventTime> {
        self.state.starts().next_back().map(|pane| self.form.last_end(pane))
    }

    fn size(&self) -> StateSize {
        self.state.size()
    }
}
