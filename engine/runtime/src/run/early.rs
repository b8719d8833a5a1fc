//! Early results: what windows that are still open would be if they ended now, put out and replaced until they are final.
//!
//! An epoch whose turn it is adds a row for each group of each open window, and takes back the rows that the last such epoch
//! added. An epoch in between takes back those whose windows have ended meanwhile, for it brings their final rows.
//!
//! **Invariant:** in the result every row of a window that was not final at the watermark of the newest manifest is of the last
//! epoch that put out early results, and of a window that was, there is its final row alone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use watershed_core::sink::Replaced;
use watershed_core::time::Interval;
use watershed_core::{EventTime, Result};

use super::{Runner, Writers};
use crate::in_engine;
use crate::job::Early;

/// Where early results stand.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The result may have early rows, of windows that were not final at this watermark.
    pub(super) until: Option<EventTime>,
    /// Rows have come since they were put out.
    pub(super) stale: bool,
    /// When they were.
    pub(super) at: Duration,
    /// The run comes to its end, and nothing will replace what is put out now before another.
    pub(super) leaving: bool,
}

impl Runner {
    /// Whether early results should be put out as soon as may be.
    pub(super) fn early_is_due(&self) -> bool {
        let Some(Early { every, .. }) = &self.job.early else { return false };
        let every = Duration::from_micros(every.0.max(0) as u64);
        let waited = self.context.clock.elapsed().saturating_sub(self.shown.at);
        self.replay.is_none() && self.shown.stale && (self.shown.leaving || waited >= every)
    }

    /// Adds early results to an epoch whose shards have just been frozen; what of the result it stands in for.
    pub(super) async fn show(&mut self, writers: &Writers, ended: bool) -> Result<Option<Replaced>> {
        let Some(early) = self.job.early.clone() else { return Ok(None) };
        let due = !ended && self.early_is_due();
        let before = self.shown.until;
        if due {
            for shard in &mut self.shards {
                let Some((operator, finish)) = shard.stages.last_mut() else { continue };
                let rows = operator.provisional(self.watermark)?.into_iter().map(|change| change.rows).collect();
                let plan = finish.bind(vec![rows])?;
                let mut results = plan.execute(0, Arc::clone(&shard.tasks)).map_err(in_engine)?;
                while let Some(batch) = results.next().await {
                    let batch = batch.map_err(in_engine)?;
                    if batch.num_rows() > 0 {
                        self.run.written += batch.num_rows() as u64;
                        writers.main.write(shard.index, batch).await?;
                    }
                }
            }
            (self.shown.stale, self.shown.at) = (false, self.context.clock.elapsed());
        }
        self.shown.until = match before {
            _ if ended => None,
            None if !due => None,
            _ => Some(self.watermark),
        };
        let Some(before) = before else { return Ok(None) };
        let end = if due || ended { EventTime::MAX } else { (early.open_from)(self.watermark) };
        let times = Interval { start: (early.open_from)(before), end };
        Ok((times.start < times.end).then(|| Replaced { column: early.column, times: vec![times] }))
    }
}
