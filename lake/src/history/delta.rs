//! A Delta table as history: a version is a list of files, and what came between two versions stands in the log.
//!
//! The log and the files speak of columns by their stored names (`log::columns`), everybody else by the table's: the two
//! meet here.
//!
//! Invariant: tables whose reader features are not known here are refused by name; a log entry that is needed and gone
//! stops the job, with its version; a file comes with its deletion vector or not at all.

mod beside;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use deltalake::kernel::{Add, Snapshot as DeltaSnapshot};
use futures::TryStreamExt;
use watershed_core::history::{
    Archives, Beside, Changes, DataFile, DeletedRows, History, Layout, Records, Removed, Rewritten, Snapshot, Version,
};
use watershed_core::time::Interval;
use watershed_core::{Error, Result};

use super::partition::{Column, TimeKey, detect};
use super::pattern::Pattern;
use super::{HistoryOptions, by_path, footer, group, marks, own_interval, stats};
use crate::log::columns::{Columns, Mapping};
use crate::log::{self, LogMetadata, LogProtocol, features, state};
use crate::stores::Place;
use crate::table::archive;

pub(crate) struct DeltaHistory {
    place: Place,
    layout: Layout,
    /// The event-time column as statistics and files name it.
    stored_time: Option<String>,
    /// The partition columns as the log names them.
    stored_partitions: Vec<String>,
    /// Files need not have the stored names: their columns are found by number.
    by_id: bool,
    options: HistoryOptions,
    table_id: String,
    key: Option<TimeKey>,
}

impl DeltaHistory {
    pub(crate) async fn open(place: Place, location: &str, options: HistoryOptions) -> Result<Self> {
        let snapshot = log::snapshot(&place, None).await?;
        let snapshot = snapshot.ok_or_else(|| {
            Error::input(format!(
                "{location} was a Delta table and has no log any more; put the table back, or give its new location"
            ))
        })?;
        let metadata = checked(&place, location, &snapshot)?;
        let columns = Columns::of(&place, &metadata)?;
        let order = order(location, &columns.table, &metadata.partition_columns)?;
        let take = |schema: &SchemaRef, order: &[usize]| -> Vec<FieldRef> {
            order.iter().map(|i| schema.fields()[*i].clone()).collect()
        };
        let (in_files, in_paths) = order.split_at(order.len() - metadata.partition_columns.len());
        let file_schema: SchemaRef = Schema::new(take(&columns.table, in_files)).into();
        let partition_columns = take(&columns.table, in_paths);
        if let Some(column) = &options.time_column {
            check_time_column(location, column, &file_schema, &partition_columns)?;
        }
        let stored_time = options.time_column.as_ref().and_then(|name| columns.table.index_of(name).ok());
        let mut history = DeltaHistory {
            layout: Layout {
                location: location.to_string(),
                store: place.store_url.to_string(),
                file_schema,
                partition_columns,
                time_partition: None,
                inferred: false,
                text: None,
                stored: (columns.mapping != Mapping::None).then(|| Schema::new(take(&columns.stored, &order)).into()),
            },
            stored_time: stored_time.map(|i| columns.stored.field(i).name().clone()),
            stored_partitions: in_paths.iter().map(|i| columns.stored.field(*i).name().clone()).collect(),
            by_id: columns.mapping == Mapping::Id,
            place,
            options,
            table_id: metadata.id,
            key: None,
        };
        history.key = history.detect(&history.files(&snapshot).await?)?;
        history.layout.time_partition =
            history.key.as_ref().map(|key| key.label(|column| history.layout.partition_columns[column].name().clone()));
        Ok(history)
    }

    async fn files(&self, snapshot: &DeltaSnapshot) -> Result<Vec<DataFile>> {
        let log_store = log::log_store(&self.place);
        let mut views = snapshot.file_views(log_store.as_ref(), None);
        let mut files = vec![];
        let fail = |e| Error::storage("cannot list the files of", &self.layout.location, e);
        while let Some(view) = views.try_next().await.map_err(fail)? {
            let size = u64::try_from(view.size()).unwrap_or_default();
            let file = self.file(&view.path(), size, view.stats().as_deref(), view.partition_values_map())?;
            let deletion_vector = view.deletion_vector_descriptor().map(marks::descriptor);
            files.push(DataFile { deletion_vector, ..file });
        }
        Ok(files)
    }

    fn added(&self, add: Add) -> Result<DataFile> {
        let size = u64::try_from(add.size).unwrap_or_default();
        let file = self.file(&add.path, size, add.stats.as_deref(), add.partition_values)?;
        Ok(DataFile { deletion_vector: add.deletion_vector.map(marks::descriptor), ..file })
    }

    fn file(
        &self,
        path: &str,
        size: u64,
        statistics: Option<&str>,
        mut values: std::collections::HashMap<String, Option<String>>,
    ) -> Result<DataFile> {
        if path.contains("://") || path.starts_with('/') {
            return Err(Error::input(format!(
                "table {} names the file {path}, which lies outside of it (a shallow clone); Watershed cannot read \
                 such tables yet",
                self.layout.location
            )));
        }
        let (rows, times) = stats::read(statistics, self.stored_time.as_deref());
        // Delta takes an empty value for NULL.
        let mut value = |column: &String| values.remove(column).flatten().filter(|v| !v.is_empty());
        let values = self.stored_partitions.iter().map(&mut value).collect();
        Ok(DataFile { rows, values, times, ..DataFile::new(self.place.at(path)?, size) })
    }

    /// A file with the interval of its partition, or of its statistics in a table that is not partitioned by time.
    async fn place_in_time(&self, key: Option<&TimeKey>, mut file: DataFile) -> Result<(Option<Interval>, DataFile)> {
        let interval = match key {
            Some(key) => key.interval(&file.values, "").map_err(|e| {
                let location = &self.layout.location;
                Error::input(format!("{location}: the time partition of file {} is unclear: {e}", file.path))
            })?,
            None => {
                self.look(&mut [&mut file]).await?;
                own_interval(&file)
            }
        };
        Ok((interval, file))
    }

    /// A file that came since a snapshot.
    async fn placed(&self, add: Add) -> Result<(Option<Interval>, DataFile)> {
        self.place_in_time(self.key.as_ref(), self.added(add)?).await
    }

    fn detect(&self, files: &[DataFile]) -> Result<Option<TimeKey>> {
        let columns: Vec<Column> = self
            .layout
            .partition_columns
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let samples: BTreeSet<&String> = files.iter().filter_map(|f| f.values[i].as_ref()).collect();
                Column {
                    name: field.name().clone(),
                    data_type: field.data_type().clone(),
                    samples: samples.into_iter().cloned().collect(),
                }
            })
            .collect();
        if self.options.untimed {
            return Ok(None);
        }
        if let Some(text) = self.options.time_partition.as_deref().filter(|text| Pattern::is_one(text)) {
            return Err(Error::input(format!(
                "time_partition = '{text}': {} is a Delta table, whose log and not whose paths tell partitions; name \
                 its partition columns, as in 'year/month/day'",
                self.layout.location
            )));
        }
        detect(&self.layout.location, &columns, self.options.declared())
    }

    fn anew(&self, found: &str, expected: &str) -> Error {
        Error::stopped(format!(
            "table {} was made anew: its id is {found}, the job read {expected}; what was read cannot be continued, so \
             build the view anew (CREATE OR REPLACE)",
            self.layout.location
        ))
    }
}

#[async_trait]
impl History for DeltaHistory {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    async fn pin(&self, at: Option<(&Version, Option<&[u8]>)>) -> Result<Snapshot> {
        let location = &self.layout.location;
        let wanted = match at {
            None => None,
            Some((Version::Delta { version, table_id }, _)) => {
                if *table_id != self.table_id {
                    return Err(self.anew(&self.table_id, table_id));
                }
                Some(*version)
            }
            Some((Version::Listing { .. } | Version::Nothing, _)) => {
                return Err(Error::stopped(format!(
                    "{location} is a Delta table now, but was a folder of Parquet files when the job read it; build \
                     the view anew (CREATE OR REPLACE)"
                )));
            }
        };
        let snapshot = match log::snapshot(&self.place, wanted).await {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => return Err(Error::stopped(format!("table {location} is gone: there is no Delta log"))),
            Err(e) => match wanted {
                // Cleaned log entries and a passing error of the store look alike; the version is what helps.
                Some(version) => {
                    let newest = log::snapshot(&self.place, None).await?.map(|s| s.version());
                    return Err(Error::stopped(format!(
                        "version {version} of table {location} cannot be read (newest: {}): {e}; if its log was \
                         cleaned up, build the view anew (CREATE OR REPLACE)",
                        newest.map_or("none".to_string(), |v| v.to_string())
                    )));
                }
                None => return Err(e),
            },
        };
        let metadata = checked(&self.place, location, &snapshot)?;
        if metadata.id != self.table_id {
            return Err(self.anew(&metadata.id, &self.table_id));
        }
        let files = self.files(&snapshot).await?;
        let version = Version::Delta { version: snapshot.version(), table_id: metadata.id };
        if self.options.untimed {
            return Ok(Snapshot { version, partitions: vec![], timeless: files, by_statistics: false, keepsake: None });
        }
        let key = match &self.key {
            Some(key) => Some(key.clone()),
            None => self.detect(&files)?,
        };
        let mut placed = Vec::with_capacity(files.len());
        for file in files {
            placed.push(self.place_in_time(key.as_ref(), file).await?);
        }
        let (partitions, timeless) = group(location, key.is_some(), placed)?;
        let by_statistics = key.is_none();
        Ok(Snapshot { version, partitions, timeless, by_statistics, keepsake: None })
    }

    async fn changes(&self, from: &Snapshot, to: &Snapshot) -> Result<Changes> {
        let (Version::Delta { version: first, table_id: a }, Version::Delta { version: last, table_id: b }) =
            (&from.version, &to.version)
        else {
            return Err(Error::bug("the history of a Delta table was asked for changes of folders"));
        };
        if a != b {
            return Err(self.anew(b, a));
        }
        let location = &self.layout.location;
        if first > last {
            return Err(Error::stopped(format!(
                "table {location} went back from version {first} to {last}: it was restored or made anew; bring \
                 version {first} back, or build the view anew (CREATE OR REPLACE)"
            )));
        }
        let mut added: BTreeMap<String, Add> = BTreeMap::new();
        // Files that a compaction made: they may be removed again, and then it matters which partition they lay in.
        let mut compacted: BTreeMap<String, Add> = BTreeMap::new();
        let (mut removed, mut rewritten) = (vec![], vec![]);
        let before = by_path(from);
        for version in first + 1..=*last {
            let commit =
                log::read_commit(&self.place, version).await?.ok_or_else(|| gone(location, version, *first))?;
            if let Some(metadata) = commit.metadata.filter(|m| m.id != *a) {
                return Err(self.anew(&metadata.id, a));
            }
            let again: BTreeSet<String> = commit.adds.iter().map(|add| add.path.clone()).collect();
            let (kept, gone): (Vec<_>, Vec<_>) = commit.removes.into_iter().partition(|r| !r.data_change);
            let mut rewrite = Rewritten { removed: vec![], added: vec![] };
            for remove in kept {
                rewrite.removed.push(self.place.at(&remove.path)?.to_string());
            }
            for remove in gone {
                // The same file with other marks is looked at below.
                if again.contains(&remove.path) {
                    continue;
                }
                // What came and went between the two versions was never read.
                if added.remove(&remove.path).is_none() {
                    let path = self.place.at(&remove.path)?.to_string();
                    let interval = match (before.get(path.as_str()), compacted.remove(&remove.path)) {
                        (None, Some(add)) => self.placed(add).await?.0,
                        (known, _) => known.and_then(|(interval, _)| *interval),
                    };
                    removed.push(Removed { version: version.to_string(), path, interval });
                }
            }
            for add in commit.adds {
                // Not read before, so it is read as it was last: with its newest marks.
                if added.contains_key(&add.path) {
                    added.insert(add.path.clone(), add);
                    continue;
                }
                let (interval, file) = self.placed(add.clone()).await?;
                let known = before.get(file.path.as_str());
                let marks = match compacted.get(&add.path) {
                    Some(compacted) => Some(compacted.deletion_vector.clone().map(marks::descriptor)),
                    None => known.map(|(_, file)| file.deletion_vector.clone()),
                };
                match marks {
                    None if add.data_change => {
                        added.insert(add.path.clone(), add);
                        continue;
                    }
                    // A file that was there. Other marks are other facts, unless the commit says that it changes none.
                    Some(marks) if add.data_change => {
                        if marks != file.deletion_vector {
                            removed.push(Removed { version: version.to_string(), path: file.path, interval });
                        }
                        compacted.insert(add.path.clone(), add);
                        continue;
                    }
                    _ => {}
                }
                // The same file listed anew, with other statistics.
                if known.is_some() && !rewrite.removed.contains(&file.path) {
                    rewrite.removed.push(file.path.clone());
                }
                rewrite.added.push((interval, file));
                compacted.insert(add.path.clone(), add);
            }
            if !rewrite.added.is_empty() {
                rewritten.push(rewrite);
            }
        }
        let mut changes = Changes { added: vec![], removed, rewritten };
        for add in added.into_values() {
            changes.added.push(self.placed(add).await?);
        }
        Ok(changes)
    }

    async fn look(&self, files: &mut [&mut DataFile]) -> Result<()> {
        // A column that is not found by its name would be taken for one of NULLs.
        let time = self.stored_time.as_deref().filter(|_| !self.by_id);
        footer::look(&self.place, time, files).await
    }

    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>> {
        marks::deleted(&self.place, &self.layout.location, files).await
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        // A column that is not found by its name would be taken for one of NULLs.
        let time = self.stored_time.as_deref().filter(|_| !self.by_id);
        footer::pieces(&self.place, time, files).await
    }

    async fn beside(&self, since: &Version, archives: &Archives, times_of_gone: bool) -> Result<Beside> {
        match since {
            Version::Delta { version, table_id } if *table_id == self.table_id => {
                self.others(*version, archives, times_of_gone).await
            }
            Version::Delta { table_id, .. } => Err(self.anew(&self.table_id, table_id)),
            Version::Listing { .. } | Version::Nothing => {
                Err(Error::bug("a Delta table was asked what a folder has become"))
            }
        }
    }

    async fn records(&self, at: &Version) -> Result<Records> {
        match at {
            Version::Delta { version, .. } => archive::records(&self.place, *version).await,
            Version::Listing { .. } | Version::Nothing => Ok(Records::default()),
        }
    }
}

fn gone(location: &str, version: u64, since: u64) -> Error {
    Error::stopped(format!(
        "log entry {version} of table {location} is gone, so what came after version {since} is not known; build the view \
         anew (CREATE OR REPLACE), and keep log entries longer (delta.logRetentionDuration)"
    ))
}

/// The metadata of a snapshot that can be read.
fn checked(place: &Place, location: &str, snapshot: &DeltaSnapshot) -> Result<LogMetadata> {
    let metadata: LogMetadata = state::plain(place, snapshot.metadata())?;
    let protocol: LogProtocol = state::plain(place, snapshot.protocol())?;
    features::check_readable(location, &protocol)?;
    Ok(metadata)
}

/// Where the columns of files, then those of partitions in the order the table names them, stand in its schema.
fn order(location: &str, schema: &Schema, partition_by: &[String]) -> Result<Vec<usize>> {
    let find = |name: &String| {
        schema
            .index_of(name)
            .map_err(|_| Error::input(format!("table {location} is partitioned by `{name}`, which is no column of it")))
    };
    let in_paths = partition_by.iter().map(find).collect::<Result<Vec<_>>>()?;
    let in_files = (0..schema.fields().len()).filter(|i| !in_paths.contains(i));
    Ok(in_files.chain(in_paths.iter().copied()).collect())
}

/// Errors unless the column can be an event time.
pub(crate) fn check_time_column(
    location: &str,
    column: &str,
    file_schema: &Schema,
    partition_columns: &[FieldRef],
) -> Result<()> {
    if partition_columns.iter().any(|field| field.name() == column) {
        return Err(Error::input(format!(
            "{location}: `{column}` is a partition column, so it tells a file's time, not a row's; take a TIMESTAMP \
             column of the rows as event time"
        )));
    }
    let Ok(field) = file_schema.field_with_name(column) else {
        let names: Vec<&str> = file_schema.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::input(format!("{location} has no column `{column}`; its columns are {}", names.join(", "))));
    };
    match field.data_type() {
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            _,
        ) => Ok(()),
        DataType::Date32 | DataType::Date64 => Err(Error::input(format!(
            "{location}: `{column}` is a DATE, and an event time must be a TIMESTAMP; store a TIMESTAMP beside it"
        ))),
        other => Err(Error::input(format!("{location}: `{column}` is {other}, and an event time must be a TIMESTAMP"))),
    }
}
