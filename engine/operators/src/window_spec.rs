//! Which windows an aggregate has, and what its columns are: settled once, when the SQL is lowered.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use watershed_core::EventTime;

use crate::window_form::{WindowEnd, WindowForm};

/// A windowed aggregate, as the fragment's partial half and the operator's final half agree on it.
///
/// Columns of `partial`: the group columns, the one that tells the window first, then every aggregate's state columns.
/// Columns of `output`: the window's start and end, the other group columns, then one an aggregate.
#[derive(Debug)]
pub struct WindowSpec {
    /// For messages: the view.
    pub name: String,
    pub windows: Windows,
    /// Group columns; the first tells the window.
    pub group_fields: Vec<FieldRef>,
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub partial: SchemaRef,
    pub output: SchemaRef,
    /// Windows that begin before this are not emitted: the view begins here.
    pub from: Option<EventTime>,
    /// What the source's watermark becomes on its way through the aggregates below this one, from the lowest up.
    pub below: Vec<Below>,
}

/// How the first group column tells the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// It is the start of the only window that the row is in.
    Single(WindowEnd),
    /// It is the start of a pane, of windows that overlap.
    Paned(WindowForm),
}

/// An aggregate whose output is aggregated again, by a time that it puts out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    pub form: WindowForm,
    pub edge: Edge,
}

/// One of a window's two edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Start,
    End,
}

impl WindowSpec {
    /// The columns of `partial` by which rows are hashed to shards: windows that overlap share panes, so all of a key's are in
    /// one shard. None: without other keys one shard has them all.
    pub fn hashed(&self) -> Range<usize> {
        match self.windows {
            Windows::Single(_) => 0..self.group_fields.len(),
            Windows::Paned(_) => 1..self.group_fields.len(),
        }
    }

    /// The watermark in the time that this aggregate's windows are over: no row still to come from below is earlier.
    pub fn local(&self, watermark: EventTime) -> EventTime {
        self.below.iter().fold(watermark, |watermark, below| match below.edge {
            Edge::Start => below.form.start_after(watermark),
            Edge::End => below.form.end_after(watermark),
        })
    }
}
