//! What a run tells while it goes, and at its end.

use std::time::Duration;

use serde::Serialize;
use watershed_core::EventTime;
use watershed_core::epoch::Counts;
use watershed_core::operator::StateSize;

/// Told after each step and each commit; must return at once.
pub trait Progress: Send + Sync {
    fn update(&self, job: &str, update: &ProgressUpdate);

    /// Something happened that a person should know of: the job rests, was altered, goes on.
    fn note(&self, _job: &str, _text: &str) {}
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct ProgressUpdate {
    pub elapsed: Duration,
    /// Since the run began.
    pub slices: u64,
    pub rows: u64,
    /// Bytes of the files of finished slices, since the run began.
    pub bytes: u64,
    /// Bytes of all files this run will read.
    pub bytes_total: u64,
    pub written: u64,
    pub late: u64,
    pub bad: u64,
    pub watermark: Option<EventTime>,
    /// The last epoch whose manifest was written.
    pub epoch: u64,
    pub state: StateSize,
}

impl ProgressUpdate {
    /// Time to the end at the pace so far; `None` before there is one.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.bytes_total.checked_sub(self.bytes)?;
        (self.bytes > 0).then(|| self.elapsed.mul_f64(left as f64 / self.bytes as f64))
    }
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub job: String,
    /// Nothing was there to be read or closed.
    pub nothing_new: bool,
    /// Ended early because it was asked to.
    pub stopped: bool,
    /// Since when the job is paused, if that is why nothing was done.
    pub paused: Option<EventTime>,
    /// What was begun and not kept, where the stop could not wait for it.
    pub given_up: Option<GivenUp>,
    /// Of this run alone.
    pub run: Counts,
    /// Since the job began.
    pub total: Counts,
    pub watermark: Option<EventTime>,
    pub epoch: u64,
    pub elapsed: Duration,
}

impl Summary {
    /// Of a run that did nothing.
    pub(crate) fn nothing(job: &str) -> Self {
        Summary {
            job: job.to_string(),
            nothing_new: true,
            stopped: false,
            paused: None,
            given_up: None,
            run: Counts::default(),
            total: Counts::default(),
            watermark: None,
            epoch: 0,
            elapsed: Duration::ZERO,
        }
    }
}

/// What a run that was stopped had done since its last checkpoint; the next run does it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GivenUp {
    /// Finished slices.
    pub slices: u64,
    /// Rows of those.
    pub rows: u64,
}

/// Tells nobody.
pub struct NoProgress;

impl Progress for NoProgress {
    fn update(&self, _: &str, _: &ProgressUpdate) {}
}
