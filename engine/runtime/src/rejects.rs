//! Rows that were not used in a step, kept until its end and then written in the same epoch.
//!
//! One collector belongs to one step, also while the step is only read ahead; so the rows reach the epoch that the step
//! reaches. Memory is bounded by the rejected rows of the steps in flight.

use std::sync::Mutex;

use arrow::record_batch::RecordBatch;
use watershed_core::Result;
use watershed_core::scan::{Reason, Rejects};

/// Collects the rejected rows of one step.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    kept: Mutex<Kept>,
}

/// What a step rejected.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) late: u64,
    pub(crate) bad: u64,
    pub(crate) rows: Vec<RecordBatch>,
}

impl Collector {
    /// Empties the collector; asked once the step's streams have ended.
    pub(crate) fn drain(&self) -> Kept {
        std::mem::take(&mut self.kept.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

impl Rejects for Collector {
    fn take(&self, reason: Reason, rows: RecordBatch) -> Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        let count = match reason {
            Reason::Late => &mut kept.late,
            Reason::NoTime | Reason::Ahead => &mut kept.bad,
        };
        *count += rows.num_rows() as u64;
        kept.rows.push(rows);
        Ok(())
    }
}
