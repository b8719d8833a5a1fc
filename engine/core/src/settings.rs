//! Settings: one table of names, the same in `WITH`, `SET`, `--flag` (with dashes) and `WATERSHED_…` (upper case).
//!
//! [`Settings`] is plain data with the defaults most users want. Values come as text from everywhere and are set by name,
//! so that an unknown name is an error with a suggestion wherever it stands; precedence is the caller's: environment
//! first, then `WITH`, `SET`, flags, each overriding what came before.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schedule::Schedule;
use crate::time::{EventTime, Span, Zone};

mod values;

pub use values::{parse_size, parse_span, parse_time};

/// Everything a user can set for a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Joins and cuts partitions to slices of about this width; zero: one partition a slice; `None`: joins small ones.
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
    /// What carries time in a history's partitions, where it cannot be told: columns, a grain, or a pattern of paths.
    pub time_partition: Option<String>,
    /// The zone of the calendar by which a history is partitioned; `None`: UTC.
    pub time_zone: Option<Zone>,
    /// What becomes of messages that no fact can be made of.
    pub on_error: OnError,
    /// How long a part of a log may be quiet before the watermark waits for it no more.
    pub idle_timeout: Span,
    pub late: Late,
    pub on_change: OnChange,
    /// Bytes; `None`: 60 % of the machine or cgroup.
    pub memory_limit: Option<u64>,
    /// Where state that does not fit is put aside, a local folder; `None`: the system's folder for temporary files.
    pub spill_dir: Option<String>,
    /// Bytes of it that may be on disk at a time.
    pub disk_limit: u64,
    /// Rows per second read; `None`: unlimited.
    pub throttle_rows: Option<u64>,
    /// Bytes per second read; `None`: unlimited.
    pub throttle_bytes: Option<u64>,
    /// When the job may run; `None`: always.
    pub schedule: Option<Schedule>,
    /// Bytes.
    pub target_file_size: u64,
    /// Small files of a partition of the result from which on they are put together, once no more rows come to it; 0: never.
    pub compact_files: u64,
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
            time_zone: None,
            on_error: OnError::Table,
            idle_timeout: Span(30 * Span::SECOND.0),
            late: Late::Table,
            on_change: OnChange::Stop,
            memory_limit: None,
            spill_dir: None,
            disk_limit: 100_000_000_000,
            throttle_rows: None,
            throttle_bytes: None,
            schedule: None,
            target_file_size: 128 << 20,
            compact_files: 16,
        }
    }
}

/// What becomes of late rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// Kept in `{location}_late`.
    Table,
    /// The windows that they missed are computed anew from the history.
    Repair,
}

/// What becomes of messages that no fact can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Kept in `{location}_late`, with what is wrong.
    Table,
    /// The job stops.
    Fail,
    /// Counted, and not kept.
    Skip,
}

/// What to do when facts that were read are removed or rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    Stop,
    Ignore,
    /// The windows that they were in are computed anew from the history.
    Repair,
}

impl Settings {
    /// Every name that [`Settings::set`] takes.
    pub const NAMES: [&'static str; 23] = [
        "slice",
        "from",
        "to",
        "parallelism",
        "commit_interval",
        "max_leak",
        "max_ahead",
        "grace",
        "bounded",
        "time_partition",
        "time_zone",
        "on_error",
        "idle_timeout",
        "late",
        "on_change",
        "memory_limit",
        "spill_dir",
        "disk_limit",
        "throttle_rows",
        "throttle_bytes",
        "schedule",
        "target_file_size",
        "compact_files",
    ];

    /// Names that are reserved for what is still to come.
    pub const NOT_YET: [&'static str; 1] = ["timestamp_type"];

    /// Sets one by name, from text. An unknown name or a value that is none is an error that says what there is.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |expected: &str| Error::input(format!("{name} = '{value}': expected {expected}"));
        let span =
            || parse_span(value).ok_or_else(|| wrong("a duration, such as '10 s', '1 hour', '2 days' or 'PT1H'"));
        let time = || parse_time(value).ok_or_else(|| wrong("a time, such as '2024-01-31' or '2024-01-31T12:00:00Z'"));
        let size = || parse_size(value).ok_or_else(|| wrong("a size, such as '128 MB' or '1GiB'"));
        let count = || value.trim().parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(|| wrong("a number above zero"));
        match name {
            "slice" => self.slice = Some(span()?),
            "from" => self.from = Some(time()?),
            "to" => self.to = Some(time()?),
            "parallelism" => {
                let workers = usize::try_from(count()?).ok().filter(|n| *n <= 1024);
                self.parallelism = Some(workers.ok_or_else(|| wrong("at most 1024 workers"))?);
            }
            "commit_interval" => self.commit_interval = span()?,
            "max_leak" => self.max_leak = Some(span()?),
            "max_ahead" => self.max_ahead = span()?,
            "grace" => self.grace = span()?,
            "bounded" => {
                self.bounded = match value.trim().to_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => true,
                    "false" | "no" | "off" | "0" => false,
                    _ => return Err(wrong("true or false")),
                }
            }
            "time_partition" => self.time_partition = Some(value.to_string()).filter(|v| !v.is_empty()),
            "time_zone" => {
                let zone = value.parse().map_err(|e| Error::input(format!("time_zone = '{value}': {e}")))?;
                self.time_zone = Some(zone);
            }
            "on_error" => {
                self.on_error = match value {
                    "table" => OnError::Table,
                    "fail" => OnError::Fail,
                    "skip" => OnError::Skip,
                    _ => return Err(wrong("'table', 'fail' or 'skip'")),
                }
            }
            "idle_timeout" => self.idle_timeout = span()?,
            "late" => {
                self.late = match value {
                    "table" => Late::Table,
                    "repair" => Late::Repair,
                    _ => return Err(wrong("'table' or 'repair'")),
                }
            }
            "on_change" => {
                self.on_change = match value {
                    "stop" => OnChange::Stop,
                    "ignore" => OnChange::Ignore,
                    "repair" => OnChange::Repair,
                    _ => return Err(wrong("'stop', 'ignore' or 'repair'")),
                }
            }
            "memory_limit" => self.memory_limit = Some(size()?),
            "spill_dir" => {
                if value.trim().is_empty() || value.contains("://") {
                    return Err(wrong("a local folder"));
                }
                self.spill_dir = Some(value.to_string());
            }
            "disk_limit" => self.disk_limit = size()?,
            "throttle_rows" => self.throttle_rows = Some(count()?),
            "throttle_bytes" => self.throttle_bytes = Some(size()?),
            "schedule" => {
                let schedule = value.parse().map_err(|e| Error::input(format!("schedule = '{value}': {e}")))?;
                self.schedule = Some(schedule);
            }
            "target_file_size" => self.target_file_size = size()?,
            "compact_files" => {
                let files = value.trim().replace('_', "").parse();
                self.compact_files = files.map_err(|_| wrong("a number of files, or 0 for never"))?;
            }
            other if Self::NOT_YET.contains(&other) => {
                return Err(Error::input(format!("setting {other}: not supported yet")));
            }
            other => return Err(unknown(other)),
        }
        Ok(())
    }
}

/// The error for a name that is none, with the one that was probably meant.
fn unknown(name: &str) -> Error {
    let scored = Settings::NAMES.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
    let hint = match nearest {
        Some((_, known)) => format!("did you mean {known}?"),
        None => format!("there are {}", Settings::NAMES.join(", ")),
    };
    Error::input(format!("unknown setting {name}; {hint}"))
}

#[cfg(test)]
mod tests;
