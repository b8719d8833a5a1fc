//! The feed itself: versions of a table, read one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::RowSelection;
use roaring::RoaringTreemap;
use uuid::Uuid;
use watershed_core::time::EventTime;
use watershed_core::{Error, Result};

use super::pair::Pairs;
use super::plan::{Part, What, plan};
use crate::data_file::{DataFile, all_but, constant};
use crate::history::marks;
use crate::keyed::KeySpec;
use crate::keyed::key::{KeyHash, Keyer};
use crate::log::{self, LogMetadata, columns, features, state};
use crate::stores::{Place, Stores};

/// What a feed has beside the table's columns: text, bigint, timestamp. The first is `insert`, `delete`, `update_preimage` or
/// `update_postimage`.
pub const CHANGE_COLUMNS: [&str; 3] = ["_change_type", "_commit_version", "_commit_timestamp"];

/// Rows of a batch.
const BATCH: usize = 8192;

/// Where a feed begins; the version is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Version(u64),
    /// The first version that was committed at or after this time.
    Time(EventTime),
}

/// What happened to a table between two versions, both included.
#[derive(Debug)]
pub struct ChangeFeed {
    place: Place,
    location: String,
    /// The table's columns and [`CHANGE_COLUMNS`].
    schema: SchemaRef,
    partition_columns: Vec<String>,
    key: Option<Key>,
    versions: VecDeque<Version>,
}

#[derive(Debug)]
struct Key {
    keyer: Keyer,
    columns: Vec<usize>,
}

#[derive(Debug)]
struct Version {
    version: u64,
    time: EventTime,
    parts: Vec<Part>,
}

/// The changes of the table at a location from a version or time on, up to a version or the newest. A version whose log
/// entry is gone is an error.
pub async fn changes(stores: &Stores, location: &str, since: Since, until: Option<u64>) -> Result<ChangeFeed> {
    let place = stores.open(location)?;
    let none = || Error::input(format!("{location} is not a Delta table: it has no _delta_log"));
    let snapshot = log::snapshot(&place, None).await?.ok_or_else(none)?;
    let metadata: LogMetadata = state::plain(&place, snapshot.metadata())?;
    features::check_readable(location, &state::plain(&place, snapshot.protocol())?)?;
    if columns::mapping(&metadata) != Ok(columns::Mapping::None) {
        return Err(Error::input(format!(
            "table {location} maps column names (delta.columnMapping.mode), and changes of such tables cannot be read yet"
        )));
    }
    let newest = snapshot.version();
    let until = until.unwrap_or(newest);
    if until > newest {
        return Err(Error::input(format!("table {location} has no version {until} yet; its newest is {newest}")));
    }
    let from = match since {
        Since::Version(version) if version <= until => version,
        Since::Version(version) => {
            return Err(Error::input(format!(
                "changes of table {location} from version {version} to {until}: the first is after the last"
            )));
        }
        Since::Time(_) => earliest(&place).await?,
    };
    let table = state::arrow_schema(&place, &metadata)?;
    let mut versions = VecDeque::new();
    for version in from..=until {
        let gone = || {
            Error::stopped(format!(
                "log entry {version} of table {location} is gone, so what it changed is not known; begin at a later version, \
                 and keep log entries longer (delta.logRetentionDuration)"
            ))
        };
        let commit = log::read_commit(&place, version).await?.ok_or_else(gone)?;
        let said = ["inCommitTimestamp", "timestamp"].iter().find_map(|name| commit.info.get(*name)?.as_i64());
        let time = match said {
            Some(millis) => EventTime(millis.saturating_mul(1000)),
            None => written(&place, version).await?,
        };
        if matches!(since, Since::Time(since) if time < since) {
            continue;
        }
        versions.push_back(Version { version, time, parts: plan(&commit) });
    }
    let key = key(&metadata, &table)?;
    let (partition_columns, location) = (metadata.partition_columns, location.to_string());
    Ok(ChangeFeed { schema: with_changes(&table), place, location, partition_columns, key, versions })
}

impl ChangeFeed {
    /// The table's columns, then [`CHANGE_COLUMNS`].
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The versions that it covers, also those that changed no row.
    pub fn versions(&self) -> impl Iterator<Item = u64> {
        self.versions.iter().map(|version| version.version)
    }

    /// The changes, version by version; within one, what was deleted comes first.
    pub fn read(self: Arc<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let reading = Reading { feed: self, at: 0, parts: VecDeque::new(), pairs: Pairs::default(), open: None };
        futures::stream::try_unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|batch| (batch, reading)))
        })
        .boxed()
    }

    /// The rows of a part, without what was done to them.
    async fn rows(&self, part: &Part) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let size = match part.size.and_then(|size| u64::try_from(size).ok()) {
            Some(size) => size,
            None => {
                let found = self.place.store.head(&self.place.at(&part.path)?).await;
                found.map_err(|e| Error::storage("cannot read", format!("{}{}", self.place.url, part.path), e))?.size
            }
        };
        let open = DataFile::open(&self.place, &part.path, size).await.map_err(|e| {
            // What was replaced is kept only as long as the table's retention says.
            match e.to_string().contains("not found") {
                true => Error::stopped(format!("{e}; a vacuum has removed it: begin at a later version")),
                false => e,
            }
        })?;
        let chosen = self.chosen(part, open.rows()).await?;
        let told = usize::from(part.what == What::Told);
        let fields = self.schema.fields()[..self.schema.fields().len() - CHANGE_COLUMNS.len() + told].to_vec();
        let (in_partitions, in_files): (Vec<FieldRef>, Vec<FieldRef>) =
            fields.iter().cloned().partition(|field| self.partition_columns.contains(field.name()));
        let values: Vec<Option<String>> = in_partitions
            .iter()
            .map(|field| part.values.get(field.name()).cloned().flatten().filter(|v| !v.is_empty()))
            .collect();
        let schema: SchemaRef = Schema::new(fields).into();
        let rows = open.read(&in_files, Some(chosen), BATCH)?.map(move |rows| {
            let rows = rows?;
            let fail = |e| Error::stopped(format!("a partition value of the table's log: {e}"));
            let column = |field: &FieldRef| -> Result<ArrayRef> {
                match in_partitions.iter().position(|f| f.name() == field.name()) {
                    Some(at) => constant(values[at].as_deref(), field.data_type(), rows.num_rows()).map_err(fail),
                    None => Ok(rows[field.name().as_str()].clone()),
                }
            };
            let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(fail)
        });
        Ok(rows.boxed())
    }

    /// Which rows of its file a part speaks of.
    async fn chosen(&self, part: &Part, rows: u64) -> Result<RowSelection> {
        let read = |vector: Option<deltalake::kernel::DeletionVectorDescriptor>| async move {
            match vector {
                None => Ok(None),
                Some(vector) => {
                    let vector = marks::descriptor(vector);
                    marks::bitmap(&self.place, &self.location, &part.path, &vector).await.map(Some)
                }
            }
        };
        let unless = read(part.unless.clone()).await?.unwrap_or_default();
        let skipped = match read(part.marked.clone()).await? {
            None => unless,
            Some(marked) => {
                let mut all = RoaringTreemap::new();
                all.insert_range(0..rows);
                all - (marked - unless)
            }
        };
        Ok(all_but(&skipped, rows))
    }

    /// The keys that a version both deleted and inserted.
    async fn pairs(&self, version: &Version) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        let Some(key) = &self.key else { return Ok(pairs) };
        let has = |what| version.parts.iter().any(|part| part.what == what);
        if !(has(What::Deleted) && has(What::Inserted)) {
            return Ok(pairs);
        }
        // Deletes come first.
        for part in &version.parts {
            let mut rows = self.rows(part).await?;
            while let Some(batch) = rows.try_next().await? {
                let hashes = self.hashes(key, &batch)?;
                match part.what {
                    What::Deleted => pairs.delete(&hashes),
                    _ => pairs.insert(&hashes),
                }
            }
        }
        Ok(pairs)
    }

    fn hashes(&self, key: &Key, batch: &RecordBatch) -> Result<Vec<KeyHash>> {
        key.keyer.hashes(&key.columns.iter().map(|i| batch.column(*i).clone()).collect::<Vec<_>>())
    }
}

/// A feed being read.
struct Reading {
    feed: Arc<ChangeFeed>,
    /// The place of the version behind the one that is read.
    at: usize,
    parts: VecDeque<Part>,
    pairs: Pairs,
    open: Option<(Part, BoxStream<'static, Result<RecordBatch>>)>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some((part, rows)) = &mut self.open {
                match rows.try_next().await? {
                    Some(batch) if batch.num_rows() == 0 => continue,
                    Some(batch) => {
                        let what = part.what;
                        return self.labelled(what, batch).map(Some);
                    }
                    None => self.open = None,
                }
            } else if let Some(part) = self.parts.pop_front() {
                let rows = self.feed.rows(&part).await?;
                self.open = Some((part, rows));
            } else {
                let feed = self.feed.clone();
                let Some(version) = feed.versions.get(self.at) else { return Ok(None) };
                self.parts = version.parts.iter().cloned().collect();
                self.pairs = feed.pairs(version).await?;
                self.at += 1;
            }
        }
    }

    /// A batch with what was done to its rows, and when.
    fn labelled(&self, what: What, batch: RecordBatch) -> Result<RecordBatch> {
        let fail = |e| Error::bug(format!("changes as rows: {e}"));
        let feed = &self.feed;
        let version = &feed.versions[self.at - 1];
        let rows = batch.num_rows();
        let mut columns = batch.columns().to_vec();
        match (what, &feed.key) {
            (What::Told, _) => {}
            (_, Some(key)) if !self.pairs.is_empty() => {
                let updated = feed.hashes(key, &batch)?;
                let updated = updated.iter().map(|key| u32::from(self.pairs.updated(key)));
                let words = match what {
                    What::Deleted => ["delete", "update_preimage"],
                    _ => ["insert", "update_postimage"],
                };
                let words: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
                let rows = arrow::array::UInt32Array::from_iter_values(updated);
                columns.push(take(&words, &rows, None).map_err(fail)?);
            }
            _ => {
                let word = if what == What::Deleted { "delete" } else { "insert" };
                columns.push(Arc::new(StringArray::from(vec![word; rows])));
            }
        }
        let number = i64::try_from(version.version).unwrap_or(i64::MAX);
        columns.push(Arc::new(Int64Array::from(vec![number; rows])));
        columns.push(Arc::new(TimestampMicrosecondArray::from(vec![version.time.0; rows]).with_timezone("UTC")));
        if what == What::Told {
            let told = columns[columns.len() - CHANGE_COLUMNS.len()].as_string::<i32>();
            if told.iter().any(|word| word.is_none()) {
                return Err(Error::stopped(format!(
                    "a change file of version {} of table {} does not say what was done to its rows (_change_type)",
                    version.version, feed.location
                )));
            }
        }
        RecordBatch::try_new(feed.schema.clone(), columns).map_err(fail)
    }
}

fn with_changes(table: &SchemaRef) -> SchemaRef {
    // Files of versions before a column was there have NULL in it.
    let mut fields: Vec<FieldRef> =
        table.fields().iter().map(|f| Arc::new(Field::new(f.name(), f.data_type().clone(), true))).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (name, data_type) in CHANGE_COLUMNS.into_iter().zip([DataType::Utf8, DataType::Int64, time]) {
        fields.push(Arc::new(Field::new(name, data_type, false)));
    }
    Schema::new(fields).into()
}

fn key(metadata: &LogMetadata, table: &SchemaRef) -> Result<Option<Key>> {
    let Some(spec) = KeySpec::of(&metadata.configuration) else { return Ok(None) };
    let columns: Option<Vec<usize>> = spec.columns.iter().map(|name| table.index_of(name).ok()).collect();
    // A key whose columns are no more pairs nothing.
    let Some(columns) = columns else { return Ok(None) };
    let types: Vec<DataType> = columns.iter().map(|i| table.field(*i).data_type().clone()).collect();
    // Hashes live no longer than this feed, and decide only what an image is called.
    Ok(Some(Key { keyer: Keyer::new(&types, Uuid::nil())?, columns }))
}

/// The first version whose log entry is there.
async fn earliest(place: &Place) -> Result<u64> {
    let files = log::list_log(place, None).await?;
    Ok(files.iter().filter(|(_, meta)| log::is_commit(&meta.location)).map(|(version, _)| *version).min().unwrap_or(0))
}

/// When a log entry was put, for entries that do not say it.
async fn written(place: &Place, version: u64) -> Result<EventTime> {
    let path = log::commit_path(place, version);
    let meta = place.store.head(&path).await;
    let meta = meta.map_err(|e| Error::storage("cannot look for", format!("{}{path}", place.store_url), e))?;
    Ok(EventTime(meta.last_modified.timestamp_micros()))
}
