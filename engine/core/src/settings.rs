//! Settings: one table of names, the same in `WITH`, `SET`, `--flag` (with dashes) and `WATERSHED_…` (upper case).
//!
//! [`Settings`] is plain data with the defaults most users want. Values come as text from everywhere and are set by name,
//! so that an unknown name is an error with a suggestion wherever it stands; precedence is the caller's: environment
//! first, then `WITH`, `SET`, flags, each overriding what came before.

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Span};

/// Everything a user can set for a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Joins small partitions to slices of about this width; `None`: one partition a slice.
    pub slice: Option<Span>,
    /// Facts before this are not read; fixed when the view is made.
    pub from: Option<EventTime>,
    /// Ends the run when the watermark reaches this.
    pub to: Option<EventTime>,
    /// Workers and shards; `None`: the machine's cores.
    pub parallelism: Option<usize>,
    /// How long an epoch lasts, in wall time.
    pub commit_interval: Span,
    /// How far into later partitions rows may leak and are still waited for; `None`: the grain, at least an hour.
    pub max_leak: Option<Span>,
    /// Event times later than now plus this are bad rows.
    pub max_ahead: Span,
    /// How long after its end a source's last partition is taken for closed.
    pub grace: Span,
    /// An ended source leaves the watermark's minimum.
    pub bounded: bool,
    /// The partition column that carries time, where it cannot be told.
    pub time_partition: Option<String>,
    pub late: Late,
    pub on_change: OnChange,
    /// Bytes; `None`: 60 % of the machine or cgroup.
    pub memory_limit: Option<u64>,
    /// Rows per second read; `None`: unlimited.
    pub throttle_rows: Option<u64>,
    /// Bytes per second read; `None`: unlimited.
    pub throttle_bytes: Option<u64>,
    /// Bytes.
    pub target_file_size: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            slice: None,
            from: None,
            to: None,
            parallelism: None,
            commit_interval: Span(10 * Span::SECOND.0),
            max_leak: None,
            max_ahead: Span::DAY,
            grace: Span::HOUR,
            bounded: false,
            time_partition: None,
            late: Late::Table,
            on_change: OnChange::Stop,
            memory_limit: None,
            throttle_rows: None,
            throttle_bytes: None,
            target_file_size: 128 << 20,
        }
    }
}

/// What becomes of late rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// Kept in `{location}_late`.
    Table,
}

/// What to do when facts that were read are removed or rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    Stop,
    Ignore,
}
