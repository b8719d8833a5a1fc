//! Early results (`EMIT EVERY`): whether a view can have them, and where in its result they are.

use std::sync::Arc;

use watershed_core::error::Place;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};
use watershed_plan::Lowered;
use watershed_runtime::Early;

use crate::verify::stretches::Axis;

/// How a view puts out what its open windows would be; errors if it cannot.
pub(crate) fn early(every: Option<Span>, view: &str, lowered: &Lowered, at: Place) -> Result<Option<Early>> {
    let Some(every) = every else { return Ok(None) };
    let refuse = |because: String| Err(Error::sql_at(format!("view {view}: EMIT EVERY: {because}"), Some(at)));
    match lowered.stages.len() {
        0 => return refuse("it has no windows, and its rows are put out as they come; leave it out".to_string()),
        1 => {}
        _ => {
            return refuse(
                "not supported for an aggregate over an aggregate, to which nothing comes from windows that are open; make a \
                 view of the lower one, or leave it out"
                    .to_string(),
            );
        }
    }
    let axis = match Axis::of(lowered, EventTime::MAX) {
        Ok(Some(axis)) => axis,
        Ok(None) => return Err(Error::bug("a view with an aggregate has no windows")),
        Err(Error::Input(because)) => return refuse(because),
        Err(other) => return Err(other),
    };
    let column = axis.column.clone();
    Ok(Some(Early { every, column, open_from: Arc::new(move |watermark| axis.open_from(watermark)) }))
}
