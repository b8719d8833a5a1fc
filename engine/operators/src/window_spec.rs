//! Which windows an aggregate has, and what its columns are: settled once, when the SQL is lowered.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use chrono::{DateTime, Months};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use watershed_core::EventTime;
use watershed_core::time::Span;

/// A windowed aggregate, as the fragment's partial half and the operator's final half agree on it.
///
/// Columns of `partial`: the group columns, window start first, then every aggregate's state columns. Columns of `output`:
/// the group columns, then one a aggregate.
#[derive(Debug)]
pub struct WindowSpec {
    /// For messages: the view.
    pub name: String,
    pub end: WindowEnd,
    /// Group columns; the first is the window's start.
    pub group_fields: Vec<FieldRef>,
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub partial: SchemaRef,
    pub output: SchemaRef,
    /// Windows that begin before this are not emitted: the view begins here.
    pub from: Option<EventTime>,
}

/// Where a window ends, given where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEnd {
    Fixed(Span),
    /// Calendar months, UTC: a month, a quarter, a year.
    Months(u32),
}

impl WindowEnd {
    /// The end, exclusive, of the window that starts at `start`.
    pub fn of(self, start: EventTime) -> EventTime {
        match self {
            WindowEnd::Fixed(span) => start.plus(span),
            WindowEnd::Months(n) => {
                let start_date = DateTime::from_timestamp_micros(start.0);
                let end = start_date.and_then(|d| d.checked_add_months(Months::new(n)));
                end.map_or(EventTime::MAX, |d| EventTime(d.timestamp_micros()))
            }
        }
    }
}
