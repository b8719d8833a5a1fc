//! Windowed aggregation over windows that do not overlap: partial states in, final rows out, one shard.
//!
//! On the watermark every window that ends at or before it is taken out of the state, its chunks are merged back, and it is
//! evaluated: emitted once and forgotten.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use watershed_core::change::ChangeBatch;
use watershed_core::operator::{ChunkId, Operator, StateSize, StateSnapshot};
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};

use crate::pane_aggregate::PaneAggregate;
use crate::window_form::WindowEnd;
use crate::window_spec::{WindowSpec, Windows};
use crate::window_state::{StateAccount, WindowState, in_engine};

/// Rows a batch of final results at most.
const EMIT_ROWS: usize = 32 * 1024;

/// One shard of the aggregate that a specification describes.
pub fn window_operator(spec: Arc<WindowSpec>, account: StateAccount) -> Box<dyn Operator> {
    match spec.windows {
        Windows::Single(end) => Box::new(WindowAggregate::new(spec, end, account)),
        Windows::Paned(form) => Box::new(PaneAggregate::new(spec, form, account)),
    }
}

/// One shard of a windowed aggregate.
pub struct WindowAggregate {
    spec: Arc<WindowSpec>,
    end: WindowEnd,
    state: WindowState,
}

impl WindowAggregate {
    pub(crate) fn new(spec: Arc<WindowSpec>, end: WindowEnd, account: StateAccount) -> Self {
        WindowAggregate { state: WindowState::new(Arc::clone(&spec), account), spec, end }
    }
}

impl Operator for WindowAggregate {
    fn push(&mut self, input: ChangeBatch) -> Result<()> {
        self.state.push(&appended(&input)?, |_| {})
    }

    fn advance(&mut self, _: EventTime, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let watermark = self.spec.local(watermark);
        let closed: Vec<_> = self.state.starts().filter(|s| self.end.of(*s) <= watermark).collect();
        let mut out = vec![];
        for start in closed {
            let Some(window) = self.state.forget(start) else { continue };
            if self.spec.from.is_none_or(|from| start >= from) {
                let groups = self.state.whole(window)?;
                let rows = groups.len();
                let interval = Interval { start, end: self.end.of(start) };
                out.extend(emit(&self.spec, &self.state, interval, groups.finish().map_err(in_engine)?, rows)?);
            }
        }
        self.state.settle()?;
        Ok(out)
    }

    fn checkpoint(&mut self) -> Result<StateSnapshot> {
        self.state.checkpoint()
    }

    fn restore(&mut self, id: Option<ChunkId>, chunk: RecordBatch) -> Result<()> {
        self.state.restore(id, &chunk)
    }

    fn state_schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.partial)
    }

    fn last_end(&self) -> Option<EventTime> {
        self.state.starts().next_back().map(|s| self.end.of(s))
    }

    fn size(&self) -> StateSize {
        self.state.size()
    }
}

/// The rows of an input that retracts nothing.
pub(crate) fn appended(input: &ChangeBatch) -> Result<RecordBatch> {
    match input.is_append() {
        true => Ok(input.rows.clone()),
        false => Err(Error::bug("a windowed aggregate was given retractions")),
    }
}

/// A closed window's keys and results as batches of the operator's output.
pub(crate) fn emit(
    spec: &WindowSpec,
    state: &WindowState,
    window: Interval,
    results: Vec<arrow::array::ArrayRef>,
    rows: usize,
) -> Result<Vec<ChangeBatch>> {
    let mut columns = vec![state.times(window.start, rows)?, state.times(window.end, rows)?];
    columns.extend(results);
    let all = state.batch(&spec.output, columns, rows)?;
    let cuts = (0..rows).step_by(EMIT_ROWS);
    Ok(cuts.map(|at| ChangeBatch::inserts(all.slice(at, EMIT_ROWS.min(rows - at)))).collect())
}

#[cfg(test)]
#[path = "window_aggregate/tests.rs"]
mod tests;
