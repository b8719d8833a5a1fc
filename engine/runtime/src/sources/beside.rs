//! What others do to the table of a source that has come to its log.
//!
//! Behind the seam the log alone brings facts, and what its archive commits is nothing new. But somebody else may load facts into
//! partitions that were read long ago, or change some there. Where `late = 'repair'`, that has the windows it touches computed
//! anew, as it had while the history was read: the log of the table is looked at now and then, its archive's own commits are
//! passed over, and what the others changed is noted by its times (design §5). No row of it is read here.
//!
//! **Invariant:** the version of a position behind the seam is the last whose changes are noted, or on record as passed over.

use std::time::Duration;

use watershed_core::history::Version;
use watershed_core::log::archives_part;
use watershed_core::settings::{Late, OnChange};
use watershed_core::time::Interval;
use watershed_core::{EventTime, Result};

use super::Sources;
use super::pin::{Pinned, facts_are_gone};

/// The shortest time between two looks; else it is the commit interval, for no repair is made more often.
const EVERY: Duration = Duration::from_secs(1);

impl Sources {
    /// Notes what others have changed since it was last looked, if it is time.
    pub(super) async fn look_beside(&mut self) -> Result<()> {
        if self.settings.late != Late::Repair {
            return Ok(());
        }
        let now = self.clock.elapsed();
        let every = EVERY.max(Duration::from_micros(self.settings.commit_interval.0.max(0) as u64));
        if self.beside.is_some_and(|then| now.saturating_sub(then) < every) {
            return Ok(());
        }
        self.beside = Some(now);
        for pinned in self.inputs.iter_mut().filter(|p| p.feed.is_some()) {
            pinned.look_beside(self.settings.on_change, self.ahead).await?;
        }
        Ok(())
    }
}

impl Pinned {
    async fn look_beside(&mut self, on_change: OnChange, ahead: EventTime) -> Result<()> {
        let (Some(tail), Some(since @ Version::Delta { .. })) = (&self.input.tail, &self.position.version) else {
            return Ok(());
        };
        let archive = tail.archive.clone();
        let archives = move |application: &str| archives_part(application, archive.as_deref());
        let beside = self.input.history.beside(since, &archives).await?;
        if let (Some((removed, _)), OnChange::Stop) = (beside.gone.first(), on_change) {
            return Err(facts_are_gone(&self.input, removed));
        }
        let gone = beside.gone.iter().filter(|_| on_change == OnChange::Repair).map(|(_, happened)| *happened);
        // Facts from later on are bad ones, and of no window.
        let sane = |i: Interval| Interval { end: i.end.min(ahead), ..i };
        let changed = beside.came.iter().copied().chain(gone).map(sane).filter(|i| i.start < i.end);
        let noted = self.changed.len();
        self.changed.extend(changed);
        if self.changed.len() > noted {
            tracing::info!(
                source = self.input.name,
                files = self.changed.len() - noted,
                "others have changed facts of the history; the windows of these are computed anew"
            );
        }
        self.position.version = Some(beside.version);
        Ok(())
    }
}
