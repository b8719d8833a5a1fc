//! A folder of Parquet files as history, with hive-style `column=value` segments as partitions.
//!
//! The folder's version is its listing: a hash over (path, size, ETag or modification time), with the listing itself as
//! keepsake, since nobody else remembers it. Segments that begin with `_` or `.` are passed over, as everywhere. Its columns
//! are those of all files, or of a sample (`evolve`).
//!
//! Invariant: a pinned listing is rebuilt from its keepsake alone, and only if the hash is right; so files that came
//! later are not in it, and files that went are missed loudly when they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use watershed_core::history::{Changes, DataFile, DeletedRows, History, Layout, Removed, Snapshot, Version};
use watershed_core::{Error, Result};

use super::delta::check_time_column;
use super::partition::{Column, TimeKey, detect};
use super::{HIVE_NULL, HistoryOptions, by_path, evolve, footer, group, own_interval};
use crate::stores::Place;

/// Footers read at once.
const FOOTERS: usize = 16;

pub(crate) struct FolderHistory {
    place: Place,
    layout: Layout,
    options: HistoryOptions,
    key: Option<TimeKey>,
}

/// One line of a listing. `tag` is the ETag, or the modification time where there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Entry {
    path: String,
    size: u64,
    tag: String,
}

impl FolderHistory {
    pub(crate) async fn open(place: Place, location: &str, options: HistoryOptions) -> Result<Self> {
        let entries = list(&place).await?;
        if entries.is_empty() {
            return Err(Error::input(format!(
                "{location} holds neither a Delta table (_delta_log) nor Parquet files (*.parquet); check the path, \
                 or load something there (watershed load)"
            )));
        }
        let columns = columns(&place, location, &entries)?;
        let key = match options.untimed {
            true => None,
            false => detect(location, &columns, options.declared())?,
        };
        let partition_columns: Vec<FieldRef> =
            columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true).into()).collect();
        // As in hive, the path's value counts where a file has the column too.
        let in_path = |f: &FieldRef| partition_columns.iter().any(|p| p.name() == f.name());
        let mut fields = in_files(&place, location, &entries).await?;
        fields.retain(|field| !in_path(field));
        let file_schema = Schema::new(fields);
        if let Some(column) = &options.time_column {
            check_time_column(location, column, &file_schema, &partition_columns)?;
        }
        let named = |column: usize| partition_columns[column].name().clone();
        let layout = Layout {
            location: location.to_string(),
            store: place.store_url.to_string(),
            file_schema: file_schema.into(),
            time_partition: key.as_ref().map(|key| key.label(named)),
            partition_columns,
            stored: None,
            inferred: true,
        };
        Ok(FolderHistory { place, layout, options, key })
    }

    async fn snapshot(&self, entries: Vec<Entry>) -> Result<Snapshot> {
        let location = &self.layout.location;
        let mut placed = Vec::with_capacity(entries.len());
        for entry in &entries {
            let values = self.values(entry)?;
            let interval = match &self.key {
                None => None,
                Some(key) => key.interval(&values, &decode(relative(&self.place, &entry.path))).map_err(|e| {
                    Error::input(format!("{location}: the time partition of file {} is unclear: {e}", entry.path))
                })?,
            };
            let file = DataFile { values, ..DataFile::new(&entry.path, entry.size) };
            placed.push((interval, file));
        }
        if self.key.is_none() && !self.options.untimed {
            self.look(&mut placed.iter_mut().map(|(_, file)| file).collect::<Vec<_>>()).await?;
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

    /// A file's partition values in the layout's order.
    fn values(&self, entry: &Entry) -> Result<Vec<Option<String>>> {
        let pairs = pairs(&self.place, &entry.path);
        let columns = &self.layout.partition_columns;
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
            None => list(&self.place).await?,
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
        let mut kept = BTreeSet::new();
        let (old, new) = (by_path(from), by_path(to));
        for entry in &after {
            match before.get(&entry.path) {
                Some(known) if known == entry => {
                    kept.insert(entry.path.as_str());
                }
                Some(_) => {}
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
            changes.removed.push(Removed { version: digest.clone(), path, interval });
        }
        Ok(changes)
    }

    async fn look(&self, files: &mut [&mut DataFile]) -> Result<()> {
        footer::look(&self.place, self.options.time_column.as_deref(), files).await
    }

    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>> {
        Ok(vec![None; files.len()])
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        footer::pieces(&self.place, self.options.time_column.as_deref(), files).await
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

/// The Parquet files below a place, by path.
async fn list(place: &Place) -> Result<Vec<Entry>> {
    let mut listed = place.store.list(Some(&place.path));
    let mut entries = vec![];
    loop {
        match listed.try_next().await {
            Ok(Some(meta)) => {
                let relative = relative(place, meta.location.as_ref());
                let hidden = relative.split('/').any(|s| s.starts_with(['_', '.']) && !s.contains('='));
                if !hidden && relative.ends_with(".parquet") {
                    if meta.size == 0 {
                        return Err(empty(place, &meta));
                    }
                    entries.push(entry(&meta));
                }
            }
            Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
            Err(e) => return Err(Error::storage("cannot list", place.url.as_str(), e)),
        }
    }
    // A location may be one file.
    if entries.is_empty()
        && place.path.extension() == Some("parquet")
        && let Ok(meta) = place.store.head(&place.path).await
    {
        entries.push(entry(&meta));
    }
    entries.sort();
    Ok(entries)
}

/// To pass over it would lose what is still to be written to it.
fn empty(place: &Place, meta: &ObjectMeta) -> Error {
    Error::input(format!(
        "{}: {} has no bytes, and so is no Parquet file: it is still being written, or its writer died; wait for it, write it \
         anew, or take it away",
        place.url, meta.location
    ))
}

fn entry(meta: &ObjectMeta) -> Entry {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    Entry { path: meta.location.to_string(), size: meta.size, tag }
}

/// The partition columns, named by the first file and typed by the values of all.
fn columns(place: &Place, location: &str, entries: &[Entry]) -> Result<Vec<Column>> {
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
    let typed = |(name, values): (String, BTreeSet<String>)| Column {
        name,
        data_type: data_type(&values),
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

fn relative<'a>(place: &Place, path: &'a str) -> &'a str {
    path.strip_prefix(place.path.as_ref()).unwrap_or(path).trim_start_matches('/')
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

fn digest(entries: &[Entry]) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(format!("{}\t{}\t{}\n", entry.path, entry.size, entry.tag));
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_keepsake(location: &str, bytes: &[u8]) -> Result<Vec<Entry>> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::stopped(format!("the kept listing of {location} cannot be understood: {e}")))
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
