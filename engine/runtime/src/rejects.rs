//! Rows that were not used in a step, kept until its end and then written in the same epoch.
//!
//! One collector belongs to one step, also while the step is only read ahead; so the rows reach the epoch that the step
//! reaches. Memory is bounded by the rejected rows of the steps in flight.

use std::collections::HashSet;
use std::sync::Mutex;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryReservation;
use watershed_core::scan::{Reason, Rejects};
use watershed_core::{Error, Result};

/// Collects the rejected rows of one step.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    kept: Mutex<Kept>,
    /// Rows taken so far (source, file, row), where a source that the query reads twice would list each twice.
    seen: Option<Mutex<HashSet<(String, String, i64)>>>,
    /// What the kept rows take, and how much they may whatever else there is.
    account: Option<(MemoryReservation, usize)>,
}

/// What a step rejected.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) late: Vec<RecordBatch>,
    pub(crate) bad: Vec<RecordBatch>,
    /// Bad rows that are counted and not kept.
    pub(crate) skipped: u64,
}

impl Collector {
    /// `twice`: some source fills more than one hole.
    pub(crate) fn new(twice: bool, account: MemoryReservation, least: usize) -> Self {
        Collector { kept: Mutex::default(), seen: twice.then(Mutex::default), account: Some((account, least)) }
    }

    /// The rows that were not taken before.
    fn unseen(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(seen) = &self.seen else { return Ok(rows) };
        let mut seen = seen.lock().unwrap_or_else(|e| e.into_inner());
        let odd = |e: arrow::error::ArrowError| Error::bug(format!("rejected rows of another shape: {e}"));
        let text = |i: usize| cast(rows.column(i), &DataType::Utf8).map_err(odd);
        let (sources, files, numbers) = (text(0)?, text(1)?, cast(rows.column(2), &DataType::Int64).map_err(odd)?);
        let (sources, files) = (sources.as_string::<i32>(), files.as_string::<i32>());
        let numbers = numbers.as_primitive::<Int64Type>();
        let fresh = (0..rows.num_rows())
            .map(|i| Some(seen.insert((sources.value(i).to_string(), files.value(i).to_string(), numbers.value(i)))));
        filter_record_batch(&rows, &fresh.collect::<BooleanArray>()).map_err(odd)
    }

    /// Accounts for rows that are kept. A little is always allowed: what can give way then does.
    fn book(&self, bytes: usize) -> Result<()> {
        let Some((account, least)) = &self.account else { return Ok(()) };
        match account.try_grow(bytes) {
            Err(_) if account.size() + bytes <= *least => account.grow(bytes),
            Err(e) => {
                return Err(Error::Resources(format!(
                    "the late and bad rows of one slice do not fit the memory limit; give more (memory_limit), or \
                     narrower slices (slice): {e}"
                )));
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Empties the collector; asked once the step's streams have ended.
    pub(crate) fn drain(&self) -> Kept {
        if let Some((account, _)) = &self.account {
            account.free();
        }
        std::mem::take(&mut self.kept.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

impl Rejects for Collector {
    fn take(&self, reason: Reason, rows: RecordBatch) -> Result<()> {
        let rows = self.unseen(rows)?;
        self.book(rows.get_array_memory_size())?;
        let mut kept = self.kept.lock().unwrap_or_else(|e| e.into_inner());
        match reason {
            Reason::Late => kept.late.push(rows),
            Reason::NoTime | Reason::Ahead | Reason::Malformed => kept.bad.push(rows),
        }
        Ok(())
    }

    fn count(&self, bad: u64) {
        self.kept.lock().unwrap_or_else(|e| e.into_inner()).skipped += bad;
    }
}
