//! Windows that were emitted before one of their facts came, computed anew and put in the place of what the result has.
//!
//! ```text
//!  gate ─ late rows ─▶ windows missed ─▶ noted, in the manifest          (core::repair)
//!  noted ─ histories pinned: have they all that was read? ─▶ computed anew ─▶ files, Replaced ─▶ an epoch of its own
//! ```
//!
//! How windows are computed anew is [`Recompute`]'s affair: from the histories alone, with nothing of the operators' state.
//! So a repair may be done between any two steps. It ends the epoch in hand first, for what that emitted may be what is put
//! right.
//!
//! **Invariant:** a note leaves the manifests in the very one that has its windows' new rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use watershed_core::epoch::Position;
use watershed_core::history::Snapshot;
use watershed_core::log;
use watershed_core::repair::{Needs, covers};
use watershed_core::scan::REJECTED_COLUMNS;
use watershed_core::sink::Replaced;
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};

use super::Runner;
use crate::in_engine;
use crate::job::{Input, Recompute};

/// How long an epoch of repairs may take before it is committed, about; what is left comes in the next.
const TURN: Duration = Duration::from_secs(10);

/// What repairs are made with.
pub(super) struct Repairer {
    recompute: Arc<dyn Recompute>,
    inputs: Vec<Input>,
    /// When it was last tried.
    tried: Duration,
}

impl Repairer {
    pub(super) fn new(recompute: &Arc<dyn Recompute>, inputs: &[Input], now: Duration) -> Self {
        Repairer { recompute: Arc::clone(recompute), inputs: inputs.to_vec(), tried: now }
    }

    /// The histories as they are now, if they have all that is needed.
    async fn facts(
        &self,
        needs: &Needs,
        positions: &BTreeMap<String, Position>,
    ) -> Result<Option<BTreeMap<String, Snapshot>>> {
        let mut facts = BTreeMap::new();
        for input in &self.inputs {
            let snapshot = input.history.pin(None).await?;
            if let Some((tail, needs)) = input.tail.as_ref().zip(needs.get(&input.name)) {
                let records = input.history.records(&snapshot.version).await?;
                let known = positions.get(&input.name).and_then(|position| position.archive.as_ref());
                let archived = match tail.archive.as_ref().or(known) {
                    Some(name) => log::parts_of(&records, name),
                    None => log::archive(&records, None, &input.history.layout().location)?.unwrap_or_default().1,
                };
                let has = archived.into_iter().map(|(part, last)| (part, last + 1)).collect();
                if !covers(&has, needs) {
                    return Ok(None);
                }
            }
            facts.insert(input.name.clone(), snapshot);
        }
        Ok(Some(facts))
    }
}

impl Runner {
    /// Notes the windows that late rows have missed, all of which this epoch's manifest will have.
    pub(super) fn note(&mut self, late: &[RecordBatch]) -> Result<()> {
        for rows in late {
            self.missed.extend(missed(rows)?);
        }
        Ok(())
    }

    /// Notes the windows of facts that are no more: at once if they have been emitted, else when they are.
    pub(super) fn note_changed(&mut self, changed: &[Interval]) {
        let Some(repairer) = &self.repairer else { return };
        for facts in changed {
            let (done, open) = repairer.recompute.touched(*facts, self.watermark);
            self.missed.extend(done);
            self.repairs.when_closed(open);
        }
        self.missed.extend(self.repairs.closed(self.watermark));
    }

    /// Does what repairs can be done, if it is time to look.
    pub(super) async fn repair_when_due(&mut self) -> Result<()> {
        let now = self.context.clock.elapsed();
        let wished = Duration::from_micros(self.job.settings.commit_interval.0.max(0) as u64);
        let due = self.repairer.as_ref().is_some_and(|repairer| now.saturating_sub(repairer.tried) >= wished);
        if due && self.replay.is_none() && !self.repairs.is_empty() {
            self.repair().await?;
        }
        Ok(())
    }

    /// Does what repairs can be done now; whether any was.
    pub(super) async fn repair(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some(needs) = self.repairs.needed().cloned()
            && !self.asked().requested()
        {
            let Some(repairer) = self.repairer.take() else { break };
            let done = self.repair_with(&repairer, &needs).await;
            self.repairer = Some(Repairer { tried: self.context.clock.elapsed(), ..repairer });
            if !done? {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// An epoch of repairs; `false` if the histories do not have yet what it takes.
    async fn repair_with(&mut self, repairer: &Repairer, needs: &Needs) -> Result<bool> {
        let Some(facts) = repairer.facts(needs, &self.positions).await? else { return Ok(false) };
        let facts = Arc::new(facts);
        if self.steps_in_epoch > 0 {
            self.end_epoch(false).await?;
        }
        // What the result has is what is put right.
        self.settle().await?;
        let began = self.context.clock.elapsed();
        let windows = self.repairs.next().to_vec();
        let mut replaced: Option<Replaced> = None;
        let mut count = 0;
        for missed in windows {
            let of = repairer.recompute.windows(missed);
            let rows = repairer.recompute.rows(&of, &facts, self.watermark).await?;
            self.run.written += self.write_all(rows).await?;
            match &mut replaced {
                Some(replaced) => replaced.times.extend(of.times),
                None => replaced = Some(of),
            }
            count += 1;
            if self.context.clock.elapsed().saturating_sub(began) >= TURN || self.asked().requested() {
                break;
            }
        }
        self.repairs.done(count);
        self.replaced = replaced;
        self.end_epoch(false).await?;
        self.settle().await?;
        tracing::info!(job = self.job.name, epoch = self.epoch, count, "late facts: their windows were computed anew");
        Ok(true)
    }

    /// Rows into the epoch in hand, made by a task of their own, so that the loop may be dropped at any moment.
    async fn write_all(&mut self, mut rows: datafusion::execution::SendableRecordBatchStream) -> Result<u64> {
        let writer = Arc::clone(&self.writers.main);
        let written = SpawnedTask::spawn(async move {
            let mut written = 0;
            while let Some(batch) = rows.next().await {
                let batch = batch.map_err(in_engine)?;
                if batch.num_rows() > 0 {
                    written += batch.num_rows() as u64;
                    writer.write(0, batch).await?;
                }
            }
            Ok(written)
        });
        super::joined(written.join().await)?
    }
}

/// From the first window that each late row has missed to the end of the last.
fn missed(late: &RecordBatch) -> Result<Vec<Interval>> {
    let column = |name: &str| {
        let at = REJECTED_COLUMNS.iter().position(|known| *known == name);
        let column = at.and_then(|at| late.columns().get(at)?.as_primitive_opt::<TimestampMicrosecondType>());
        column.ok_or_else(|| Error::bug(format!("late rows without {name}")))
    };
    let (from, until) = (column("_missed_from")?, column("_missed_until")?);
    let interval = |row: usize| {
        let known = from.is_valid(row) && until.is_valid(row);
        known.then(|| Interval { start: EventTime(from.value(row)), end: EventTime(until.value(row)) })
    };
    let all: Option<Vec<Interval>> = (0..late.num_rows()).map(interval).collect();
    let mut all = all.ok_or_else(|| Error::bug("a late row that has missed no window"))?;
    all.sort();
    all.dedup();
    Ok(all)
}
