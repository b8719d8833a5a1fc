//! Change batches: what flows between fragments, operators and sinks.

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;

/// Rows that came, or came and went.
///
/// `weights: None` means every row is an insert, which is the whole backfill's case and costs nothing; with weights, row
/// `i` is inserted `weights[i]` times, or retracted when negative. Invariant: as many weights as rows, none zero or NULL.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    pub rows: RecordBatch,
    pub weights: Option<Int64Array>,
}

impl ChangeBatch {
    /// A batch of inserts.
    pub fn inserts(rows: RecordBatch) -> Self {
        ChangeBatch { rows, weights: None }
    }

    /// Whether nothing is retracted.
    pub fn is_append(&self) -> bool {
        self.weights.as_ref().is_none_or(|w| w.values().iter().all(|w| *w > 0))
    }
}
