//! A folder of files as history, with hive-style `column=value` segments as partitions.
//!
//! The folder's version is its listing (`listing`): a hash over (path, size, ETag or modification time), with the listing
//! itself as keepsake, since nobody else remembers it. So a file is read once, and one that was replaced, or grew, is facts
//! that went away: files have to be put in place whole.
//!
//! What differs by the kind of file is little:
//!
//! | | Parquet | text |
//! |---|---|---|
//! | columns | those of all files, or of a sample (`evolve`) | declared |
//! | rows and times | footers (`footer`) | where folders tell the time: none; else each file is read (`text`) |
//! | pieces | row groups | none: a file is read by one worker |
//! | a file without bytes | an error | not there yet |
//! | no file | an error | an error, unless the source waits for them |
//!
//! Invariant: a pinned listing is rebuilt from its keepsake alone, and only if the hash is right; so files that came
//! later are not in it, and files that went are missed loudly when they are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use watershed_core::history::{Changes, DataFile, DeletedRows, History, Layout, Removed, Snapshot, Version};
use watershed_core::{Error, Result};

use super::delta::check_time_column;
use super::listing::{Entry, Kind, digest, list, parse_keepsake, relative};
use super::partition::{Column, TimeKey, detect};
use super::{HIVE_NULL, HistoryOptions, by_path, evolve, footer, group, own_interval, text};
use crate::stores::Place;

/// Footers read at once.
const FOOTERS: usize = 16;

pub(crate) struct FolderHistory {
    place: Place,
    layout: Layout,
    options: HistoryOptions,
    key: Option<TimeKey>,
    kind: Kind,
    /// What was seen in files so far, by path.
    seen: Mutex<HashMap<String, Entry>>,
}

impl FolderHistory {
    pub(crate) async fn open(place: Place, location: &str, options: HistoryOptions) -> Result<Self> {
        let mut kind = options.text.clone().map_or(Kind::Parquet, Kind::Text);
        let entries = list(&place, &kind).await?;
        if entries.is_empty() {
            match &kind {
                Kind::Parquet => {
                    return Err(Error::input(format!(
                        "{location} holds neither a Delta table (_delta_log) nor Parquet files (*.parquet); check the path, \
                         or load something there (watershed load)"
                    )));
                }
                Kind::Text(_) if !options.waits => {
                    return Err(Error::input(format!(
                        "{location} holds no files that end with {}; check the path, or say tail = 'commits' to wait for \
                         them",
                        kind.endings().join(", ")
                    )));
                }
                Kind::Text(_) => {
                    tracing::warn!("{location} holds no files that end with {}", kind.endings().join(", "))
                }
            }
        }
        let columns = columns(&place, location, &entries, &kind)?;
        let key = match options.untimed {
            true => None,
            false => detect(location, &columns, options.declared())?,
        };
        let partition_columns: Vec<FieldRef> =
            columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true).into()).collect();
        // As in hive, the path's value counts where a file has the column too.
        let in_path = |f: &FieldRef| partition_columns.iter().any(|p| p.name() == f.name());
        let mut fields = match &kind {
            Kind::Parquet => in_files(&place, location, &entries).await?,
            Kind::Text(text) => text.format.schema().fields().to_vec(),
        };
        fields.retain(|field| !in_path(field));
        let file_schema = Arc::new(Schema::new(fields));
        if let Kind::Text(text) = &mut kind {
            text.format = text.format.with_schema(Arc::clone(&file_schema))?;
        }
        if let Some(column) = &options.time_column {
            check_time_column(location, column, &file_schema, &partition_columns)?;
        }
        let named = |column: usize| partition_columns[column].name().clone();
        let layout = Layout {
            location: location.to_string(),
            store: place.store_url.to_string(),
            file_schema,
            time_partition: key.as_ref().map(|key| key.label(named)),
            partition_columns,
            stored: None,
            inferred: matches!(kind, Kind::Parquet),
            text: match &kind {
                Kind::Parquet => None,
                Kind::Text(text) => Some(text.clone()),
            },
        };
        Ok(FolderHistory { place, layout, options, key, kind, seen: Mutex::default() })
    }

    async fn snapshot(&self, mut entries: Vec<Entry>) -> Result<Snapshot> {
        let location = &self.layout.location;
        let mut placed = Vec::with_capacity(entries.len());
        self.recall(&mut entries);
        for entry in &entries {
            let values = self.values(entry)?;
            let interval = match &self.key {
                None => None,
                Some(key) => key.interval(&values, &decode(relative(&self.place, &entry.path))).map_err(|e| {
                    Error::input(format!("{location}: the time partition of file {} is unclear: {e}", entry.path))
                })?,
            };
            placed.push((interval, entry.file(values)));
        }
        if self.key.is_none() && !self.options.untimed {
            self.look(&mut placed.iter_mut().map(|(_, file)| file).collect::<Vec<_>>()).await?;
            let column = self.options.time_column.as_deref();
            entries.iter_mut().zip(&placed).for_each(|(entry, (_, file))| entry.keep(file, column));
            self.remember(&entries);
        }
        let (partitions, timeless) = match self.options.untimed {
            true => (vec![], placed.into_iter().map(|(_, file)| file).collect()),
            false => group(location, self.key.is_some(), placed)?,
        };
        let keepsake = serde_json::to_vec(&entries).map_err(|e| Error::bug(format!("a listing as JSON: {e}")))?;
        let version = Version::Listing { digest: digest(&entries) };
        let by_statistics = self.key.is_none();
        Ok(Snapshot { version, partitions, timeless, by_statistics, keepsake: Some(keepsake) })
    }

    /// Fills in what was seen in these very files before.
    fn recall(&self, entries: &mut [Entry]) {
        entries.iter_mut().for_each(|entry| entry.only_of(self.options.time_column.as_deref()));
        self.remember(entries);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter_mut().filter(|entry| entry.seen.is_none()) {
            entry.seen = seen.get(&entry.path).filter(|known| known.is(entry)).and_then(|known| known.seen.clone());
        }
    }

    fn remember(&self, entries: &[Entry]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = entries.iter().filter(|e| e.seen.is_some() && !seen.get(&e.path).is_some_and(|known| known.is(e)));
        let fresh: Vec<Entry> = fresh.cloned().collect();
        seen.extend(fresh.into_iter().map(|entry| (entry.path.clone(), entry)));
    }

    /// A file's partition values in the layout's order.
    fn values(&self, entry: &Entry) -> Result<Vec<Option<String>>> {
        let pairs = pairs(&self.place, &entry.path);
        let columns = &self.layout.partition_columns;
        if columns.is_empty() && !pairs.is_empty() {
            return Err(Error::input(format!(
                "{}: file {} lies in column=value folders, and no file did when the run began: run again if that is how files \
                 are laid out now, else move it away",
                self.layout.location, entry.path
            )));
        }
        if pairs.len() != columns.len() || pairs.iter().zip(columns).any(|((name, _), c)| name != c.name()) {
            return Err(irregular(&self.layout.location, &entry.path, columns.iter().map(|c| c.name().as_str())));
        }
        for ((name, value), column) in pairs.iter().zip(columns) {
            if let (DataType::Int64, Some(text)) = (column.data_type(), value)
                && text.parse::<i64>().is_err()
            {
                return Err(Error::input(format!(
                    "{}: file {} has {name}={text}, where other files have integers; the history was opened before it \
                     came, so run again",
                    self.layout.location, entry.path
                )));
            }
        }
        Ok(pairs.into_iter().map(|(_, value)| value).collect())
    }

    fn parse_keepsake(&self, snapshot: &Snapshot) -> Result<Vec<Entry>> {
        let bytes = snapshot.keepsake.as_deref();
        let bytes = bytes.ok_or_else(|| Error::bug("the snapshot of a folder came without its listing"))?;
        parse_keepsake(&self.layout.location, bytes)
    }
}

#[async_trait]
impl History for FolderHistory {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    async fn pin(&self, at: Option<(&Version, Option<&[u8]>)>) -> Result<Snapshot> {
        let location = &self.layout.location;
        let entries = match at {
            None => list(&self.place, &self.kind).await?,
            Some((Version::Listing { digest: expected }, Some(keepsake))) => {
                let entries = parse_keepsake(location, keepsake)?;
                if digest(&entries) != *expected {
                    return Err(Error::stopped(format!(
                        "the kept listing of {location} is not the one the checkpoint names ({expected}): restore the \
                         job's folder, or build the view anew (CREATE OR REPLACE)"
                    )));
                }
                entries
            }
            Some((Version::Listing { digest }, None)) => {
                return Err(Error::stopped(format!(
                    "listing {digest} of {location} was not kept, so it cannot be read again; build the view anew \
                     (CREATE OR REPLACE)"
                )));
            }
            Some((Version::Nothing, _)) => {
                return Err(Error::stopped(format!(
                    "{location}: the job read no history before; build the view anew (CREATE OR REPLACE)"
                )));
            }
            Some((Version::Delta { version, .. }, _)) => {
                return Err(Error::stopped(format!(
                    "{location} was a Delta table when the job read version {version} of it; its log is gone; put it \
                     back, or build the view anew (CREATE OR REPLACE)"
                )));
            }
        };
        self.snapshot(entries).await
    }

    async fn changes(&self, from: &Snapshot, to: &Snapshot) -> Result<Changes> {
        let before: BTreeMap<String, Entry> =
            self.parse_keepsake(from)?.into_iter().map(|e| (e.path.clone(), e)).collect();
        let after = self.parse_keepsake(to)?;
        let Version::Listing { digest } = &to.version else {
            return Err(Error::bug("the history of a folder was asked for changes of a Delta table"));
        };
        let mut changes = Changes::default();
        let (mut kept, mut replaced) = (BTreeSet::new(), BTreeSet::new());
        let (old, new) = (by_path(from), by_path(to));
        for entry in &after {
            match before.get(&entry.path) {
                Some(known) if known.is(entry) => {
                    kept.insert(entry.path.as_str());
                }
                Some(_) => _ = replaced.insert(entry.path.clone()),
                None => {
                    let (interval, file) = new
                        .get(entry.path.as_str())
                        .ok_or_else(|| Error::bug(format!("{} is listed but in no partition", entry.path)))?;
                    let own = if to.by_statistics { own_interval(file) } else { *interval };
                    changes.added.push((own, (*file).clone()));
                }
            }
        }
        for path in before.into_keys().filter(|path| !kept.contains(path.as_str())) {
            let interval = old.get(path.as_str()).and_then(|(interval, _)| *interval);
            let version = match replaced.contains(&path) {
                true => format!("{digest} (there is a file of that name with other bytes: put files in place whole)"),
                false => digest.clone(),
            };
            changes.removed.push(Removed { version, path, interval });
        }
        Ok(changes)
    }

    async fn look(&self, files: &mut [&mut DataFile]) -> Result<()> {
        let time_column = self.options.time_column.as_deref();
        match &self.kind {
            Kind::Parquet => footer::look(&self.place, time_column, files).await,
            // A partition's start is promise enough, and costs nothing.
            Kind::Text(_) if self.key.is_some() => Ok(()),
            Kind::Text(text) => text::look(&self.place, &text.format, time_column, files).await,
        }
    }

    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>> {
        Ok(vec![None; files.len()])
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        match &self.kind {
            Kind::Parquet => footer::pieces(&self.place, self.options.time_column.as_deref(), files).await,
            Kind::Text(_) => {
                let mut files = files;
                self.look(&mut files.iter_mut().collect::<Vec<_>>()).await?;
                Ok(files)
            }
        }
    }
}

/// The columns of a folder's files, of a sample where they are many.
async fn in_files(place: &Place, location: &str, entries: &[Entry]) -> Result<Vec<FieldRef>> {
    let sampled: Vec<&Entry> = evolve::sample(entries.len()).into_iter().map(|i| &entries[i]).collect();
    let footers = sampled.iter().map(|entry| footer::read(place, &entry.path, entry.size).boxed()).collect::<Vec<_>>();
    let footers: Vec<_> = futures::stream::iter(footers).buffered(FOOTERS).try_collect().await?;
    let schemas = sampled.iter().zip(&footers).map(|(entry, footer)| {
        let path = entry.path.as_str();
        footer::schema(footer, path).map(|schema| (path, schema))
    });
    evolve::union(location, &schemas.collect::<Result<Vec<_>>>()?)
}

/// The partition columns, named by the first file and typed by the values of all.
fn columns(place: &Place, location: &str, entries: &[Entry], kind: &Kind) -> Result<Vec<Column>> {
    let mut names: Vec<String> = vec![];
    let mut values: Vec<BTreeSet<String>> = vec![];
    for (i, entry) in entries.iter().enumerate() {
        let pairs = pairs(place, &entry.path);
        if i == 0 {
            names = pairs.iter().map(|(name, _)| name.clone()).collect();
            values = vec![BTreeSet::new(); names.len()];
        }
        if pairs.len() != names.len() || pairs.iter().zip(&names).any(|((name, _), expected)| name != expected) {
            return Err(irregular(location, &entry.path, names.iter().map(String::as_str)));
        }
        for ((_, value), values) in pairs.into_iter().zip(&mut values) {
            values.extend(value);
        }
    }
    let declared = |name: &str| match kind {
        Kind::Parquet => None,
        Kind::Text(text) => Some(text.format.schema().field_with_name(name).ok()?.data_type().clone()),
    };
    let typed = |(name, values): (String, BTreeSet<String>)| Column {
        data_type: declared(&name).unwrap_or_else(|| data_type(&values)),
        name,
        samples: values.into_iter().collect(),
    };
    Ok(names.into_iter().zip(values).map(typed).collect())
}

/// DATE, TIMESTAMP or BIGINT where all values are written as Arrow's casts read them, else text.
fn data_type(values: &BTreeSet<String>) -> DataType {
    let all = |test: &dyn Fn(&str) -> bool| !values.is_empty() && values.iter().all(|v| test(v));
    if all(&|v| v.len() == 10 && chrono::NaiveDate::parse_from_str(v, "%Y-%m-%d").is_ok()) {
        return DataType::Date32;
    }
    if all(&|v| chrono::NaiveDateTime::parse_from_str(v, "%Y-%m-%d %H:%M:%S%.f").is_ok()) {
        return DataType::Timestamp(TimeUnit::Microsecond, None);
    }
    // Leading zeros, as in `hour=05`, still are integers.
    if all(&|v| v.parse::<i64>().is_ok()) {
        return DataType::Int64;
    }
    DataType::Utf8
}

/// The `column=value` segments of a path.
fn pairs(place: &Place, path: &str) -> Vec<(String, Option<String>)> {
    let folders = relative(place, path).rsplit_once('/').map_or("", |(folders, _)| folders);
    let pairs = folders.split('/').filter_map(|segment| segment.split_once('='));
    pairs.map(|(name, value)| (decode(name), Some(value).filter(|v| *v != HIVE_NULL).map(decode))).collect()
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                i += 3;
            }
            None => {
                decoded.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_string())
}

fn irregular<'a>(location: &str, path: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let expected: Vec<String> = names.map(|name| format!("{name}=…")).collect();
    let expected = if expected.is_empty() { "no column=value folders".to_string() } else { expected.join("/") };
    Error::input(format!("{location}: file {path} is not laid out as the others, which have {expected}; move it away"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hive_segments() {
        let place = crate::Stores::default().open("/lake/t").unwrap();
        let found = pairs(&place, "lake/t/d=2026-01-31/x/k=a%2Fb%20c/n=__HIVE_DEFAULT_PARTITION__/f.parquet");
        let own = |name: &str, value: Option<&str>| (name.to_string(), value.map(str::to_string));
        assert_eq!(found, [own("d", Some("2026-01-31")), own("k", Some("a/b c")), own("n", None)]);
        assert_eq!((decode("100%"), decode("%zz"), decode("%ff")), ("100%".into(), "%zz".into(), "%ff".into()));
    }

    #[test]
    fn types_values() {
        let of = |values: &[&str]| data_type(&values.iter().map(|v| v.to_string()).collect());
        assert_eq!(of(&["2026-01-31"]), DataType::Date32);
        assert_eq!(of(&["2026-01-31 05:00:00"]), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(of(&["05", "11"]), DataType::Int64);
        assert_eq!(of(&["20260131", "x"]), DataType::Utf8);
        assert_eq!(of(&["2026-01-31T05"]), DataType::Utf8);
        assert_eq!(of(&[]), DataType::Utf8);
    }
}
