//! What a run tells while it goes, and at its end.

use std::time::Duration;

use serde::Serialize;
use watershed_core::EventTime;
use watershed_core::account::Account;
use watershed_core::epoch::Counts;
use watershed_core::operator::StateSize;
use watershed_core::time::Span;

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
    /// Bytes of the files and messages of finished slices, since the run began.
    pub bytes: u64,
    /// Bytes of all files this run will read, and of the messages that it has read.
    pub bytes_total: u64,
    pub written: u64,
    pub late: u64,
    /// Late rows for which the windows they missed are computed anew.
    pub repaired: u64,
    /// Stretches of windows that wait for that.
    pub repairs: usize,
    pub bad: u64,
    /// What became of each row.
    pub account: Account,
    pub watermark: Option<EventTime>,
    /// The last epoch whose manifest was written.
    pub epoch: u64,
    pub state: StateSize,
    /// How far the facts reach that the run may read; lag is what the watermark has still to go to it.
    pub newest: Option<EventTime>,
    /// Epochs of this run that put rows into a table.
    pub commits: u64,
    /// Messages that the logs have and that were not read, as far as known; `None` while no log is read.
    pub lag_messages: Option<u64>,
    /// Bytes that were not read: of files exactly, of the messages of logs as estimated ([`watershed_core::log::lag`]); `None`
    /// while nothing is known of what messages hold.
    pub lag_bytes: Option<u64>,
    /// Bytes accounted for in the memory pool of all jobs, and its size.
    pub memory_used: u64,
    pub memory_limit: Option<u64>,
}

impl ProgressUpdate {
    /// Of a run that has done nothing.
    pub fn nothing_yet() -> Self {
        ProgressUpdate {
            elapsed: Duration::ZERO,
            slices: 0,
            rows: 0,
            bytes: 0,
            bytes_total: 0,
            written: 0,
            late: 0,
            repaired: 0,
            repairs: 0,
            bad: 0,
            account: Account::default(),
            watermark: None,
            epoch: 0,
            state: StateSize::default(),
            newest: None,
            commits: 0,
            lag_messages: None,
            lag_bytes: None,
            memory_used: 0,
            memory_limit: None,
        }
    }

    /// Event time that the watermark has still to go, in microseconds; never below zero.
    pub fn lag(&self) -> Option<Span> {
        let newest = self.newest?;
        self.watermark.map(|w| Span(newest.0.saturating_sub(w.0).max(0)))
    }

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
    /// The most state that this run held at once.
    pub peak: StateSize,
    /// Stretches of windows that wait to be computed anew.
    pub repairs: usize,
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
            peak: StateSize::default(),
            repairs: 0,
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
