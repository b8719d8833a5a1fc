//! Sources that follow a table: what is committed to it is read as it comes, in the open partitions too.
//!
//! The table is looked at now and then; a newer version is pinned and what it adds is read as an increment of the history,
//! so that positions, compactions and facts that go away mean here what they mean there. As of the part of a log, its
//! watermark is the latest event time that was committed, less the declared delay.
//!
//! Invariant: a version is read whole before the next one is looked for.

use std::time::Duration;

use watershed_core::history::Snapshot;
use watershed_core::slice;
use watershed_core::{EventTime, Result};

use super::pin::Pinned;
use super::{Next, Sources};

/// Between two looks at a table.
const EVERY: Duration = Duration::from_secs(1);

impl Sources {
    pub(crate) fn follows(&self) -> bool {
        self.inputs.iter().any(|p| p.input.follow)
    }

    /// Looks for newer versions, if it is time; whether there were any.
    pub(super) async fn follow(&mut self) -> Result<bool> {
        let now = self.clock.elapsed();
        let ends = self.until_caught_up || self.rules.to_the_end;
        if ends || !self.follows() || now.saturating_sub(self.followed) < EVERY {
            return Ok(false);
        }
        self.followed = now;
        self.ahead = self.ahead.max(self.clock.now().plus(self.settings.max_ahead));
        let mut came = false;
        for i in 0..self.inputs.len() {
            let pinned = &self.inputs[i];
            if pinned.input.follow {
                let newer = pinned.input.history.pin(None).await?;
                if newer.version != pinned.snapshot.version {
                    self.pin_at_newer(i, newer).await?;
                    came = true;
                }
            }
        }
        Ok(came)
    }

    /// Brings a source that has read its version to a newer one.
    pub(super) async fn pin_at_newer(&mut self, i: usize, newer: Snapshot) -> Result<()> {
        let pinned = &mut self.inputs[i];
        let (input, before) = (pinned.input.clone(), std::mem::take(&mut pinned.position));
        let now = self.clock.now();
        *pinned = Pinned::at(input, before, newer, &self.settings, now, &self.checkpoints).await?;
        self.came += self.unread(&self.inputs[i]);
        Ok(())
    }

    /// With everything read that there is: the watermark may still move, or the run may end, or more may come.
    pub(super) fn followed_step(&mut self) -> Result<Next> {
        let boundary = self.inputs.iter().map(|p| p.position.boundary).min().unwrap_or(EventTime::MAX);
        let watermark = slice::watermark_after(&self.standings(), &self.rules, boundary, self.watermark);
        let nothing = vec![vec![]; self.inputs.len()];
        if watermark > self.watermark {
            return Ok(Next::Step(Box::new(self.step(nothing, vec![], watermark))));
        }
        match (self.rules.to_the_end && self.windows_open, self.until_caught_up || self.rules.to_the_end) {
            (true, _) => Ok(Next::Step(Box::new(self.step(nothing, vec![], EventTime::MAX)))),
            (false, true) => Ok(Next::End),
            (false, false) => Ok(Next::Quiet),
        }
    }
}
