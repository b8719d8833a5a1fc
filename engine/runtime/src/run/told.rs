//! What a run says of itself: where it stands while it goes on, and what it did when it has ended.

use datafusion::execution::memory_pool::MemoryLimit;
use watershed_core::EventTime;
use watershed_core::operator::StateSize;

use super::Runner;
use crate::progress::{ProgressUpdate, Summary};

impl Runner {
    /// Tells where the run stands.
    pub(super) fn tell(&mut self) {
        self.told = self.context.clock.elapsed();
        let mut state = StateSize::default();
        for shard in &self.shards {
            for (operator, _) in &shard.stages {
                let size = operator.size();
                state.windows = state.windows.max(size.windows);
                state.groups += size.groups;
                state.bytes += size.bytes;
                state.spilled += size.spilled;
            }
        }
        let update = ProgressUpdate {
            elapsed: self.context.clock.elapsed().saturating_sub(self.began),
            slices: self.run.slices,
            rows: self.run.rows,
            bytes: self.bytes_done,
            bytes_total: self.bytes_total,
            written: self.run.written,
            late: self.run.late,
            repaired: self.run.repaired,
            repairs: self.repairs.len(),
            bad: self.run.bad,
            account: self.run.account,
            watermark: known(self.watermark),
            epoch: self.epoch,
            state,
            newest: self.newest,
            commits: self.commits,
            lag_messages: self.lag.map(|lag| lag.messages),
            lag_bytes: self.lag.map_or(Some(0), |lag| lag.bytes).map(|bytes| bytes.saturating_add(self.files_left())),
            memory_used: self.context.tasks.memory_pool().reserved() as u64,
            memory_limit: match self.context.tasks.memory_pool().memory_limit() {
                MemoryLimit::Finite(bytes) => Some(bytes as u64),
                _ => None,
            },
        };
        self.context.progress.update(&self.job.name, &update);
    }

    /// Bytes of the files that this run will read and has not read.
    fn files_left(&self) -> u64 {
        self.bytes_total.saturating_sub(self.bytes_done)
    }

    pub(super) fn summary(&self, nothing_new: bool, stopped: bool) -> Summary {
        Summary {
            job: self.job.name.clone(),
            nothing_new,
            stopped,
            paused: None,
            given_up: None,
            run: self.run,
            total: self.before + self.run,
            watermark: known(self.watermark),
            epoch: self.epoch,
            elapsed: self.context.clock.elapsed().saturating_sub(self.began),
            peak: self.peak,
            repairs: self.repairs.len(),
        }
    }
}

/// None before the first step.
pub(super) fn known(watermark: EventTime) -> Option<EventTime> {
    (watermark != EventTime::MIN).then_some(watermark)
}
