//! What others do to the table of a source that has come to its log.
//!
//! Behind the seam the log alone brings facts, and what its archive commits is nothing new. But somebody else may load facts into
//! partitions that were read long ago, or change some there. Where a job puts late facts right, that has the windows it touches
//! computed anew, as it had while the history was read: the log of the table is looked at now and then, its archive's own
//! commits are passed over, and what the others changed is noted by its times (design §5). No row of it is read here.
//!
//! **Invariant:** the version of a position behind the seam is the last whose changes are noted, or on record as passed over.

use std::time::Duration;

use watershed_core::history::{Beside, Version};
use watershed_core::log::{self, archives_part};
use watershed_core::settings::OnChange;
use watershed_core::time::Interval;
use watershed_core::{EventTime, Result};

use super::Sources;
use super::pin::{Pinned, facts_are_gone};

/// The shortest time between two looks; else it is the commit interval, for no repair is made more often.
const EVERY: Duration = Duration::from_secs(1);

/// How long a version that was looked at need not be on record, while nothing else makes a checkpoint.
const RECORDED: Duration = Duration::from_secs(3600);

/// When it was last looked, and when the version that was looked at was last sure to be on record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    last: Option<Duration>,
    recorded: Option<Duration>,
}

impl Sources {
    /// Of a job that puts right what others change in a history whose log it reads.
    pub(crate) fn looking_beside(mut self, looks: bool) -> Self {
        self.beside = looks.then(Looks::default);
        self
    }

    /// Notes what others have changed since it was last looked, if it is time.
    pub(super) async fn look_beside(&mut self) -> Result<()> {
        let Some(looks) = self.beside.filter(|_| self.reads_logs()) else { return Ok(()) };
        let now = self.clock.elapsed();
        let every = EVERY.max(Duration::from_micros(self.settings.commit_interval.0.max(0) as u64));
        if looks.last.is_some_and(|then| now.saturating_sub(then) < every) {
            return Ok(());
        }
        let mut moved = false;
        for pinned in self.inputs.iter_mut().filter(|p| p.feed.is_some()) {
            moved |= pinned.look_beside(self.settings.on_change, self.ahead).await?;
        }
        // Entries of the table's log are cleaned up in time, so a quiet job must not stand at an old one for ever.
        let due = moved && looks.recorded.is_none_or(|then| now.saturating_sub(then) >= RECORDED);
        self.begun |= due;
        self.beside = Some(Looks { last: Some(now), recorded: if due { Some(now) } else { looks.recorded } });
        Ok(())
    }
}

impl Pinned {
    /// Whether there were newer versions.
    async fn look_beside(&mut self, on_change: OnChange, ahead: EventTime) -> Result<bool> {
        let Some(since @ Version::Delta { .. }) = self.position.version.clone() else { return Ok(false) };
        let archive = self.archive().await?;
        let archives = move |name: &str| archive.as_ref().is_some_and(|archive| archives_part(name, archive));
        let beside: Beside = self.input.history.beside(&since, &archives, on_change == OnChange::Repair).await?;
        if let (Some(removed), OnChange::Stop) = (&beside.gone, on_change) {
            return Err(facts_are_gone(&self.input, removed));
        }
        // Facts from later on are bad ones, and of no window.
        let sane = |i: &Interval| Interval { end: i.end.min(ahead), ..*i };
        let noted = self.changed.len();
        self.changed.extend(beside.changed.iter().map(sane).filter(|i| i.start < i.end));
        if self.changed.len() > noted {
            tracing::info!(
                source = self.input.name,
                files = self.changed.len() - noted,
                "others have changed facts of the history; their windows are computed anew"
            );
        }
        self.position.version = Some(beside.version);
        Ok(self.position.version != Some(since))
    }

    /// Under which name the log is archived in the history: as declared, or found at the seam, or else found now. `None`: not yet.
    async fn archive(&mut self) -> Result<Option<String>> {
        let declared = self.input.tail.as_ref().and_then(|tail| tail.archive.clone());
        if let Some(known) = declared.or(self.position.archive.clone()) {
            return Ok(Some(known));
        }
        let newest = self.input.history.pin(None).await?;
        let records = self.input.history.records(&newest.version).await?;
        let found = log::archive(&records, None, &self.input.history.layout().location)?;
        self.position.archive = found.map(|(name, _)| name);
        Ok(self.position.archive.clone())
    }
}
