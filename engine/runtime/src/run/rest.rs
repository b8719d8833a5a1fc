//! Where a run rests, and how it leaves when it is asked to and cannot wait for the step in hand.
//!
//! Invariant: a rest begins with everything committed; and what is given up was never in a manifest, so the next run does
//! it again from the last one.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::TaskContext;
use watershed_core::epoch::Counts;
use watershed_core::scan::Pacing;
use watershed_core::{EventTime, Result};

use super::Runner;
use super::told::known;
use crate::control::{Asked, Order};
use crate::pace::Pacer;
use crate::progress::{GivenUp, Summary};
use crate::sources::Sources;

/// How often is told where a run stands that waits for its logs.
const TOLD: Duration = Duration::from_secs(1);

/// How long nothing need come of a log before the run looks after its epoch, its orders and its idle parts.
const QUIET: Duration = Duration::from_millis(50);

/// Where the newest manifest stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) watermark: EventTime,
    /// Of this run.
    pub(super) run: Counts,
}

impl Runner {
    pub(super) fn asked(&self) -> Asked<'_> {
        Asked { all: &self.context.stop, own: &self.reins.stop }
    }

    /// At a safe point: if the run is to rest, commits what it has and waits until it may go on or is asked to stop.
    pub(super) async fn rest(&mut self) -> Result<()> {
        if self.reins.order() == Order::Go || self.asked().requested() {
            return Ok(());
        }
        // What is read ahead stops where it is.
        self.reins.pacer.hold(true);
        if self.replay.is_none() && self.steps_in_epoch > 0 {
            self.end_epoch(false).await?;
        }
        self.settle().await?;
        loop {
            let order = self.reins.order();
            let text = match &order {
                Order::Go => break,
                _ => format!(
                    "{}; all that was read is committed (checkpoint {})",
                    order.words(&self.job.name),
                    self.epoch
                ),
            };
            self.context.progress.note(&self.job.name, &text);
            let asked = self.asked();
            tokio::select! {
                () = self.reins.other_than(&order) => {}
                () = asked.asked() => break,
            }
        }
        self.reins.pacer.hold(false);
        self.epoch_began = self.context.clock.elapsed();
        if !self.asked().requested() {
            self.context.progress.note(&self.job.name, "goes on");
        }
        Ok(())
    }

    /// Waits for more of the logs, at most until the epoch has to end or a moment has passed.
    pub(super) async fn quiet(&mut self, sources: &mut Sources) -> Result<()> {
        match self.steps_in_epoch {
            0 if self.early_is_due() => self.end_epoch(false).await?,
            // A commit that failed is told at once, not with the next one.
            0 => self.settle().await?,
            _ if self.replay.is_none() && self.epoch_is_due() => self.end_epoch(false).await?,
            _ => {}
        }
        self.repair_when_due().await?;
        self.look_at(sources);
        if self.context.clock.elapsed().saturating_sub(self.told) >= TOLD {
            self.tell();
        }
        let asked = self.asked();
        tokio::select! {
            ready = sources.ready() => ready,
            () = tokio::time::sleep(QUIET) => Ok(()),
            () = asked.asked() => Ok(()),
        }
    }

    /// The summary of a run that could not wait for the step in hand, or for its epoch's end.
    pub(super) fn give_up(self) -> Summary {
        let Kept { watermark, run } = self.kept;
        let slices = self.run.slices - run.slices;
        let given_up = GivenUp { slices, rows: self.run.rows - run.rows };
        Summary {
            run,
            total: self.before + run,
            watermark: known(watermark),
            given_up: Some(given_up),
            ..self.summary(false, true)
        }
    }
}

/// The surroundings of plans, with the job's pace in them.
pub(super) fn paced(tasks: &TaskContext, pacer: &Pacer) -> Arc<TaskContext> {
    let config = tasks.session_config().clone().with_extension(Arc::new(Pacing(Arc::new(pacer.clone()))));
    Arc::new(TaskContext::new(
        tasks.task_id(),
        tasks.session_id(),
        config,
        tasks.scalar_functions().clone(),
        tasks.higher_order_functions().clone(),
        tasks.aggregate_functions().clone(),
        tasks.window_functions().clone(),
        tasks.runtime_env(),
    ))
}
