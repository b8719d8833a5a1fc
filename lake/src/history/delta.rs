//! A Delta table as history: a version is a list of files, and what came between two versions stands in the log.
//!
//! Invariant: files with deletion vectors, and tables whose reader features are not known here, are refused by name; a
//! log entry that is needed and gone stops the job, with its version.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use deltalake::kernel::{Add, Snapshot as DeltaSnapshot};
use futures::TryStreamExt;
use watershed_core::history::{Changes, DataFile, History, Layout, Removed, Rewritten, Snapshot, Version};
use watershed_core::time::Interval;
use watershed_core::{Error, Result};

use super::partition::{Column, TimeKey, detect};
use super::pattern::Pattern;
use super::{HistoryOptions, by_path, footer, group, own_interval, stats};
use crate::log::{self, LogMetadata, LogProtocol, features, state};
use crate::stores::Place;

pub(crate) struct DeltaHistory {
    place: Place,
    layout: Layout,
    options: HistoryOptions,
    table_id: String,
    key: Option<TimeKey>,
}

impl DeltaHistory {
    pub(crate) async fn open(place: Place, location: &str, options: HistoryOptions) -> Result<Self> {
        let snapshot = log::snapshot(&place, None).await?;
        let snapshot = snapshot.ok_or_else(|| Error::input(format!("{location} is not a Delta table any more")))?;
        let metadata = checked(&place, location, &snapshot)?;
        let schema = state::arrow_schema(&place, &metadata)?;
        let (file_schema, partition_columns) = split(location, &schema, &metadata.partition_columns)?;
        if let Some(column) = &options.time_column {
            check_time_column(location, column, &file_schema, &partition_columns)?;
        }
        let mut history = DeltaHistory {
            layout: Layout {
                location: location.to_string(),
                store: place.store_url.to_string(),
                file_schema,
                partition_columns,
                time_partition: None,
            },
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
            if view.deletion_vector_descriptor().is_some() {
                return Err(self.marked(&view.path()));
            }
            let size = u64::try_from(view.size()).unwrap_or_default();
            files.push(self.file(&view.path(), size, view.stats().as_deref(), view.partition_values_map())?);
        }
        Ok(files)
    }

    fn added(&self, add: Add) -> Result<DataFile> {
        if add.deletion_vector.is_some() {
            return Err(self.marked(&add.path));
        }
        let size = u64::try_from(add.size).unwrap_or_default();
        self.file(&add.path, size, add.stats.as_deref(), add.partition_values)
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
        let (rows, times) = stats::read(statistics, self.options.time_column.as_deref());
        // Delta takes an empty value for NULL.
        let mut value = |column: &FieldRef| values.remove(column.name()).flatten().filter(|v| !v.is_empty());
        let values = self.layout.partition_columns.iter().map(&mut value).collect();
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
                footer::look(&self.place, self.options.time_column.as_deref(), &mut [&mut file]).await?;
                own_interval(&file)
            }
        };
        Ok((interval, file))
    }

    /// A file that came since a snapshot.
    async fn placed(&self, add: Add) -> Result<(Option<Interval>, DataFile)> {
        self.place_in_time(self.key.as_ref(), self.added(add)?).await
    }

    fn marked(&self, path: &str) -> Error {
        Error::input(format!(
            "table {} uses the reader feature 'deletionVectors' for file {path}, which Watershed cannot read yet; \
             purge the deleted rows (REORG TABLE … APPLY (PURGE)) first",
            self.layout.location
        ))
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
            Some((Version::Listing { .. }, _)) => {
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
                "table {location} went back from version {first} to {last}: it was restored or made anew"
            )));
        }
        let mut added: BTreeMap<String, Add> = BTreeMap::new();
        // Files that a compaction made: they may be removed again, and then it matters which partition they lay in.
        let mut compacted: BTreeMap<String, Add> = BTreeMap::new();
        let (mut removed, mut rewritten) = (vec![], vec![]);
        let before = by_path(from);
        for version in first + 1..=*last {
            let commit = log::read_commit(&self.place, version).await?.ok_or_else(|| {
                Error::stopped(format!(
                    "log entry {version} of table {location} is gone, so what came after version {first} is not known; \
                     build the view anew (CREATE OR REPLACE), and keep log entries longer (delta.logRetentionDuration)"
                ))
            })?;
            if let Some(metadata) = commit.metadata.filter(|m| m.id != *a) {
                return Err(self.anew(&metadata.id, a));
            }
            let (kept, gone): (Vec<_>, Vec<_>) = commit.removes.into_iter().partition(|r| !r.data_change);
            let mut rewrite = Rewritten { removed: vec![], added: vec![] };
            for remove in kept {
                rewrite.removed.push(self.place.at(&remove.path)?.to_string());
            }
            for remove in gone {
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
                if add.data_change {
                    added.insert(add.path.clone(), add);
                    continue;
                }
                let (interval, file) = self.placed(add.clone()).await?;
                // The same file listed anew, with other statistics.
                let known = before.contains_key(file.path.as_str()) || added.contains_key(&add.path);
                if known && !rewrite.removed.contains(&file.path) {
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
        footer::look(&self.place, self.options.time_column.as_deref(), files).await
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        footer::pieces(&self.place, self.options.time_column.as_deref(), files).await
    }
}

/// The metadata of a snapshot that can be read.
fn checked(place: &Place, location: &str, snapshot: &DeltaSnapshot) -> Result<LogMetadata> {
    let metadata: LogMetadata = state::plain(place, snapshot.metadata())?;
    let protocol: LogProtocol = state::plain(place, snapshot.protocol())?;
    features::check_readable(location, &protocol, &metadata)?;
    Ok(metadata)
}

/// Columns in files, and partition columns in the order the table names them.
fn split(location: &str, schema: &Schema, partition_by: &[String]) -> Result<(SchemaRef, Vec<FieldRef>)> {
    let find = |name: &String| {
        let found = schema.fields().iter().find(|f| f.name() == name).cloned();
        found.ok_or_else(|| {
            Error::input(format!("table {location} is partitioned by `{name}`, which is no column of it"))
        })
    };
    let partition_columns = partition_by.iter().map(find).collect::<Result<_>>()?;
    let in_files = schema.fields().iter().filter(|f| !partition_by.contains(f.name())).cloned();
    Ok((Schema::new(in_files.collect::<Vec<_>>()).into(), partition_columns))
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
