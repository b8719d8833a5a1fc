//! Histories: Delta tables and hive-style folders of Parquet or text files, as time partitions of files.
//!
//! ```text
//!  list (log or folder) ──▶ files with values and statistics ──▶ partition: values ▶ interval ──▶ Snapshot
//! ```
//!
//! * `partition`: which partition column carries time, and which interval a value stands for. Pure.
//! * `value`, `pattern`: the same for one value, and for a path. Pure.
//! * `stats`: what a Delta log's statistics say of the event times. Pure.
//! * `footer`: the same from Parquet footers, for files whose list says nothing.
//! * `evolve`: one schema for a folder's files that differ. Pure.
//! * `marks`: the rows that a file's deletion vector marks.
//! * `listing`: a folder's files, its version.
//! * `text`: what text files hold, by reading them.
//! * `delta`, `folder`: the two kinds of history.
//!
//! **Invariant:** a file whose partition value cannot be placed in time is an error that names both; no file is
//! dropped.

mod delta;

mod folder;

mod listing;

mod text;

mod partition;

mod value;

mod pattern;

mod stats;

mod footer;

pub(crate) mod marks;

mod evolve;

pub(crate) use stats::read as statistics_of;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use watershed_core::cut;
use watershed_core::history::{DataFile, History, Snapshot, TimePartition, Times};
use watershed_core::text::TextFiles;
use watershed_core::time::{EventTime, Interval, Zone};
use watershed_core::{Error, Result};

use self::partition::Declared;
use crate::log;
use crate::stores::Stores;

/// What the source's declaration says about a history.
#[derive(Clone, Debug, Default)]
pub struct HistoryOptions {
    /// The event-time column.
    pub time_column: Option<String>,
    /// What carries time: a partition column, several (`year/month/day`), one and its width (`column:month`), a grain where
    /// it cannot be told, a pattern of paths (`{%Y/%m/%d}`), or `none`.
    pub time_partition: Option<String>,
    /// The zone whose calendar partitions follow; `None`: UTC.
    pub time_zone: Option<Zone>,
    /// Read it as a plain table, whose files are in no order: nothing is looked for in its partitions, and all files are
    /// timeless.
    pub untimed: bool,
    /// It is a folder of text files, of this format.
    pub text: Option<TextFiles>,
    /// The source waits for files of text that are still to come.
    pub waits: bool,
}

/// Opens a Delta table if the location has a Delta log, else a folder of Parquet files, or of text files where the options say
/// so.
pub async fn open_history(stores: &Stores, location: &str, options: &HistoryOptions) -> Result<Arc<dyn History>> {
    let place = stores.open(location)?;
    if log::is_delta(&place).await? {
        if options.text.is_some() {
            return Err(Error::input(format!(
                "{location} is a Delta table, which tells its columns itself: leave out format"
            )));
        }
        Ok(Arc::new(delta::DeltaHistory::open(place, location, options.clone()).await?))
    } else {
        Ok(Arc::new(folder::FolderHistory::open(place, location, options.clone()).await?))
    }
}

/// The interval of a file that no partition places: as wide as its statistics say.
fn own_interval(file: &DataFile) -> Option<Interval> {
    match file.times {
        Times::Known { min, max, .. } if min <= max => {
            Some(Interval { start: min, end: EventTime(max.0.saturating_add(1)) })
        }
        _ => None,
    }
}

/// How hive writes NULL.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

impl HistoryOptions {
    fn declared(&self) -> Declared<'_> {
        Declared {
            time_column: self.time_column.as_deref(),
            time_partition: self.time_partition.as_deref(),
            zone: self.time_zone,
        }
    }
}

/// Every file of a snapshot by path, with its partition's interval.
fn by_path(snapshot: &Snapshot) -> HashMap<&str, (Option<Interval>, &DataFile)> {
    let timed = snapshot.partitions.iter().flat_map(|p| p.files.iter().map(|file| (Some(p.interval), file)));
    let timeless = snapshot.timeless.iter().map(|file| (None, file));
    timed.chain(timeless).map(|(interval, file)| (file.path.as_str(), (interval, file))).collect()
}

/// Groups placed files by interval; files of a table that is not partitioned by time by their statistics.
fn group(
    location: &str,
    partitioned: bool,
    placed: Vec<(Option<Interval>, DataFile)>,
) -> Result<(Vec<TimePartition>, Vec<DataFile>)> {
    if !partitioned {
        return unpartitioned(location, placed.into_iter().map(|(_, file)| file).collect());
    }
    let mut partitions: BTreeMap<Interval, Vec<DataFile>> = BTreeMap::new();
    let mut timeless = vec![];
    for (interval, file) in placed {
        match interval {
            Some(interval) => partitions.entry(interval).or_default().push(file),
            None => timeless.push(file),
        }
    }
    let mut partitions: Vec<_> =
        partitions.into_iter().map(|(interval, files)| TimePartition { interval, files }).collect();
    for partition in &mut partitions {
        partition.files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    timeless.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = partitions.windows(2).find(|pair| pair[0].interval.end > pair[1].interval.start) {
        return Err(Error::input(format!(
            "{location}: time partitions {} and {} overlap: their values are of different grain; rewrite one of them, \
             or say which column is the time (time_partition)",
            pair[0].interval, pair[1].interval
        )));
    }
    Ok((partitions, timeless))
}

/// Clusters of files by their statistics; files of NULL times only are timeless.
fn unpartitioned(location: &str, files: Vec<DataFile>) -> Result<(Vec<TimePartition>, Vec<DataFile>)> {
    if let Some(file) = files.iter().find(|f| f.times == Times::Unknown) {
        return Err(Error::input(format!(
            "{location} is not partitioned by time, and file {} has no statistics of the event-time column: partition \
             it by day or hour (watershed load --partition-by day), or write statistics; if folders tell its time, say \
             how: time_partition = '{{%Y/%m/%d}}'",
            file.path
        )));
    }
    let (timed, mut timeless): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| own_interval(f).is_some());
    timeless.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((cut::clusters(timed), timeless))
}
