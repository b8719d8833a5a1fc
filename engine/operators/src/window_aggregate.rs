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

use crate::groups::Groups;
use crate::pane_aggregate::PaneAggregate;
use crate::window_form::WindowEnd;
use crate::window_spec::{WindowSpec, Windows};
use crate::window_state::{Merged, Part, StateAccount, WindowState, in_engine};

/// Rows a batch of final results at most.
const EMIT_ROWS: usize = 32 * 1024;

/// Bytes of groups that are emitted at once: what is emitted is accounted for by nobody.
const EMIT_BYTES: usize = 32 << 20;

/// One shard of the aggregate that a specification describes.
pub fn window_operator(spec: Arc<WindowSpec>, account: impl Into<StateAccount>) -> Box<dyn Operator> {
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
    /// Windows, and parts of them, that are closed and not emitted yet; the next one last.
    closed: Vec<Part>,
}

impl WindowAggregate {
    pub(crate) fn new(spec: Arc<WindowSpec>, end: WindowEnd, account: impl Into<StateAccount>) -> Self {
        WindowAggregate { state: WindowState::new(Arc::clone(&spec), account.into()), spec, end, closed: vec![] }
    }

    fn emit(&self, start: EventTime, groups: Groups, out: &mut Vec<ChangeBatch>) -> Result<()> {
        let rows = groups.len();
        let interval = Interval { start, end: self.end.of(start) };
        out.extend(emit(&self.spec, &self.state, interval, groups.finish().map_err(in_engine)?, rows)?);
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn push(&mut self, input: ChangeBatch) -> Result<()> {
        self.state.push(&appended(&input)?, |_| {})
    }

    fn advance(&mut self, _: EventTime, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let watermark = self.spec.local(watermark);
        let closed = self.state.starts().filter(|s| self.end.of(*s) <= watermark);
        // The first is taken from the end.
        self.closed = closed.collect::<Vec<_>>().into_iter().rev().map(Part::all).collect();
        Ok(self.more()?.unwrap_or_default())
    }

    fn more(&mut self) -> Result<Option<Vec<ChangeBatch>>> {
        // What was emitted before has left.
        self.state.keep_besides(0)?;
        let (mut out, mut bytes) = (vec![], 0);
        while bytes < EMIT_BYTES
            && let Some(part) = self.closed.pop()
        {
            let start = part.start;
            if self.spec.from.is_some_and(|from| start < from) {
                self.state.forget(start);
                continue;
            }
            if !self.state.is_aside(start) {
                let Some(window) = self.state.forget(start) else { continue };
                let groups = self.state.whole(window)?;
                bytes += groups.bytes();
                self.emit(start, groups, &mut out)?;
                continue;
            }
            if part == Part::all(start) {
                let parts = self.state.parts(start);
                if parts.len() > 1 {
                    self.closed.extend(parts);
                    continue;
                }
            }
            match self.state.part(part)? {
                Merged::Halved(halves) => {
                    self.closed.extend(halves);
                    continue;
                }
                Merged::Groups(groups) => self.emit(start, groups, &mut out)?,
            }
            if self.closed.last().is_none_or(|next| next.start != start) {
                self.state.forget(start);
            }
            // One part at a time: it is as large as may be.
            break;
        }
        self.state.settle()?;
        Ok((!out.is_empty() || !self.closed.is_empty()).then_some(out))
    }

    fn provisional(&mut self, watermark: EventTime) -> Result<Vec<ChangeBatch>> {
        let watermark = self.spec.local(watermark);
        let mut out = vec![];
        for start in self.state.starts() {
            let is_open = self.end.of(start) > watermark && self.spec.from.is_none_or(|from| start >= from);
            if is_open {
                self.emit(start, self.state.peek(start)?, &mut out)?;
            }
        }
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
