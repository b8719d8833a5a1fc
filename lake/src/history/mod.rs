//! Histories: Delta tables and hive-style Parquet folders, as time partitions of files.
//!
//! ```text
//!  list (log or folder) ──▶ files with values and statistics ──▶ partition: values ▶ interval ──▶ Snapshot
//! ```
//!
//! * `partition`: which partition column carries time, and which interval a value stands for. Pure.
//! * `stats`: what a Delta log's statistics say of the event times. Pure.
//! * `footer`: the same from Parquet footers, for files whose list says nothing.
//! * `evolve`: one schema for a folder's files that differ. Pure.
//! * `marks`: the rows that a file's deletion vector marks.
//! * `delta`, `folder`: the two kinds of history.
//!
//! **Invariant:** a file whose partition value cannot be placed in time is an error that names both; no file is
//! dropped.

mod delta;

mod folder;

mod partition;

mod stats;

mod footer;

mod marks;

mod evolve;

pub(crate) use stats::read as statistics_of;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use watershed_core::history::{DataFile, History, Snapshot, TimePartition, Times};
use watershed_core::time::{EventTime, Interval};
use watershed_core::{Error, Result};

use crate::log;
use crate::stores::Stores;

/// What the source's declaration says about a history.
#[derive(Clone, Debug, Default)]
pub struct HistoryOptions {
    /// The event-time column.
    pub time_column: Option<String>,
    /// The partition column that carries time, or `day` or `hour` where the grain cannot be told.
    pub time_partition: Option<String>,
    /// Read it as a plain table, whose files are in no order: nothing is looked for in its partitions, and all files are
    /// timeless.
    pub untimed: bool,
}

/// Opens a Delta table if the location has a Delta log, else a folder of Parquet files.
pub async fn open_history(stores: &Stores, location: &str, options: &HistoryOptions) -> Result<Arc<dyn History>> {
    let place = stores.open(location)?;
    if log::is_delta(&place).await? {
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

/// Every file of a snapshot by path, with its partition's interval.
fn by_path(snapshot: &Snapshot) -> HashMap<&str, (Option<Interval>, &DataFile)> {
    let timed = snapshot.partitions.iter().flat_map(|p| p.files.iter().map(|file| (Some(p.interval), file)));
    let timeless = snapshot.timeless.iter().map(|file| (None, file));
    timed.chain(timeless).map(|(interval, file)| (file.path.as_str(), (interval, file))).collect()
}

/// Groups placed files by interval. `whole` files, of an unpartitioned table, become one partition by their statistics.
fn group(
    location: &str,
    partitioned: bool,
    placed: Vec<(Option<Interval>, DataFile)>,
) -> Result<(Vec<TimePartition>, Vec<DataFile>)> {
    if !partitioned {
        return whole(location, placed.into_iter().map(|(_, file)| file).collect());
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
            "{location}: time partitions {} and {} overlap: their values are of different grain",
            pair[0].interval, pair[1].interval
        )));
    }
    Ok((partitions, timeless))
}

/// One partition as wide as the statistics say; files of NULL times only are timeless.
fn whole(location: &str, files: Vec<DataFile>) -> Result<(Vec<TimePartition>, Vec<DataFile>)> {
    let (mut low, mut high) = (EventTime::MAX, EventTime::MIN);
    let (mut timed, mut timeless) = (vec![], vec![]);
    for file in files {
        match file.times {
            Times::Unknown => {
                return Err(Error::input(format!(
                    "{location} is not partitioned by time, and file {} has no statistics of the event-time column: \
                     partition it by day or hour (watershed load --partition-by day), or write statistics",
                    file.path
                )));
            }
            Times::Known { min, max, .. } if min > max => timeless.push(file),
            Times::Known { min, max, .. } => {
                (low, high) = (low.min(min), high.max(max));
                timed.push(file);
            }
        }
    }
    timed.sort_by(|a, b| a.path.cmp(&b.path));
    let interval = Interval { start: low, end: EventTime(high.0.saturating_add(1)) };
    let partitions = if timed.is_empty() { vec![] } else { vec![TimePartition { interval, files: timed }] };
    Ok((partitions, timeless))
}
