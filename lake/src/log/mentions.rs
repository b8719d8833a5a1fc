//! What the log says of files besides the list of those that are there: which were removed, and what recent entries speak of.
//!
//! Removed files stand in the newest checkpoint, until the table's retention is over, and in the entries after it. Entries since
//! a given time are read as well, also those before the checkpoint: they know of removals that a checkpoint has forgotten
//! already, date those that have no time of their own, and alone name change files.

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Int64Type};
use deltalake::kernel::{Add, DeletionVectorDescriptor};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use watershed_core::{Error, EventTime, Result};

use super::{LOG, LogCommit, is_commit, newest_checkpoint, read_commit};
use crate::parquet_object::ObjectReader;
use crate::stores::Place;

/// Entries read at once.
const CONCURRENT: usize = 16;

/// A file that was spoken of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mention {
    /// As the log has it; it may be percent-encoded.
    pub(crate) path: String,
    /// Where its deletion vector lies: `storageType` and `pathOrInlineDv`.
    pub(crate) vector: Option<(String, String)>,
    /// When, by the writer's word or the store's, whichever is later; `EventTime::MIN` if neither is known.
    pub(crate) at: EventTime,
}

/// Removed files as far as they are known, and all files that entries since a time speak of; `files` is the log's listing.
pub(crate) async fn mentions(place: &Place, files: &[(u64, ObjectMeta)], since: EventTime) -> Result<Vec<Mention>> {
    let (base, checkpoint) = newest_checkpoint(files, u64::MAX);
    let mut found = vec![];
    for meta in checkpoint {
        read_checkpoint(place, meta, &mut found).await?;
    }
    let is_after = |version: u64| base.is_none_or(|base| version > base);
    let wanted = files
        .iter()
        .filter(|(version, meta)| is_commit(&meta.location) && (is_after(*version) || written(meta) >= since));
    let reads: Vec<_> = wanted
        .map(|(version, meta)| async move {
            match read_commit(place, *version).await? {
                Some(commit) => Ok((commit, written(meta))),
                // The checkpoint has what it said.
                None if !is_after(*version) => Ok((LogCommit::default(), EventTime::MIN)),
                None => Err(Error::stopped(format!(
                    "log entry {version} of table {} vanished while it was read",
                    place.url
                ))),
            }
        })
        .collect();
    let mut entries = futures::stream::iter(reads).buffered(CONCURRENT);
    while let Some((commit, at)) = entries.try_next().await? {
        for remove in commit.removes {
            let said = remove.deletion_timestamp.map_or(EventTime::MIN, millis);
            found.push(Mention { path: remove.path, vector: remove.deletion_vector.map(place_of), at: said.max(at) });
        }
        if at >= since {
            let added = |add: Add| Mention { path: add.path, vector: add.deletion_vector.map(place_of), at };
            found.extend(commit.adds.into_iter().map(added));
            found.extend(commit.changes.into_iter().map(|file| Mention { path: file.path, vector: None, at }));
        }
    }
    Ok(found)
}

/// `storageType` and `pathOrInlineDv`.
pub(crate) fn place_of(vector: DeletionVectorDescriptor) -> (String, String) {
    (vector.storage_type.as_ref().to_string(), vector.path_or_inline_dv)
}

fn written(meta: &ObjectMeta) -> EventTime {
    EventTime(meta.last_modified.timestamp_micros())
}

fn millis(millis: i64) -> EventTime {
    EventTime(millis.saturating_mul(1000))
}

async fn read_checkpoint(place: &Place, meta: &ObjectMeta, found: &mut Vec<Mention>) -> Result<()> {
    let fail = |e: Box<dyn std::error::Error + Send + Sync>| failed(place, &meta.location, e);
    let sidecars: Vec<String> = if meta.location.as_ref().ends_with(".json") {
        let bytes = place.store.get(&meta.location).await.map_err(|e| fail(e.into()))?;
        let bytes = bytes.bytes().await.map_err(|e| fail(e.into()))?;
        let entry = LogCommit::parse(0, &bytes).map_err(|e| fail(e.into()))?;
        entry.sidecars.into_iter().map(|sidecar| sidecar.path).collect()
    } else {
        read_removes(place, meta, found).await?
    };
    for name in sidecars {
        let path = place.path.clone().join(LOG).join("_sidecars").join(name.as_str());
        let meta = place.store.head(&path).await.map_err(|e| failed(place, &path, e.into()))?;
        read_removes(place, &meta, found).await?;
    }
    Ok(())
}

fn failed(place: &Place, path: &Path, e: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::storage(format!("cannot read checkpoint {path} of table"), place.url.as_str(), e)
}

/// Reads the removes of a Parquet file of actions; returns the sidecars that it names.
async fn read_removes(place: &Place, meta: &ObjectMeta, found: &mut Vec<Mention>) -> Result<Vec<String>> {
    let fail = |e: Box<dyn std::error::Error + Send + Sync>| failed(place, &meta.location, e);
    let reader = ObjectReader::new(place.store.clone(), meta.location.clone(), meta.size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| fail(e.into()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["remove", "sidecar"]);
    let mut batches = builder.with_projection(mask).build().map_err(|e| fail(e.into()))?;
    let mut sidecars = vec![];
    while let Some(batch) = batches.try_next().await.map_err(|e| fail(e.into()))? {
        if let Some(of) = batch.column_by_name("sidecar").and_then(|c| c.as_struct_opt()) {
            let paths = column(of, "path", &DataType::Utf8).map_err(fail)?.ok_or_else(|| fail("no path".into()))?;
            let rows = (0..of.len()).filter(|row| of.is_valid(*row));
            sidecars.extend(rows.map(|row| paths.as_string::<i32>().value(row).to_string()));
        }
        if let Some(of) = batch.column_by_name("remove").and_then(|c| c.as_struct_opt()) {
            found.extend(removes(of).map_err(fail)?);
        }
    }
    Ok(sidecars)
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

fn removes(of: &StructArray) -> Result<Vec<Mention>, Fault> {
    let paths = column(of, "path", &DataType::Utf8)?.ok_or("its removes have no path")?;
    let times = column(of, "deletionTimestamp", &DataType::Int64)?;
    let vectors = of.column_by_name("deletionVector").and_then(|c| c.as_struct_opt());
    let vectors = vectors.map(Vectors::of).transpose()?;
    let mut found = vec![];
    for row in (0..of.len()).filter(|row| of.is_valid(*row)) {
        let time = times.as_ref().filter(|times| times.is_valid(row));
        found.push(Mention {
            path: paths.as_string::<i32>().value(row).to_string(),
            vector: vectors.as_ref().and_then(|vectors| vectors.at(row)),
            at: time.map_or(EventTime::MIN, |times| millis(times.as_primitive::<Int64Type>().value(row))),
        });
    }
    Ok(found)
}

/// What tells where deletion vectors lie.
struct Vectors<'a> {
    of: &'a StructArray,
    storage: ArrayRef,
    text: ArrayRef,
}

impl<'a> Vectors<'a> {
    fn of(of: &'a StructArray) -> Result<Self, Fault> {
        let column =
            |name| column(of, name, &DataType::Utf8)?.ok_or_else(|| Fault::from(format!("its vectors have no {name}")));
        Ok(Vectors { of, storage: column("storageType")?, text: column("pathOrInlineDv")? })
    }

    fn at(&self, row: usize) -> Option<(String, String)> {
        // Some writers have a struct of nulls where there is none.
        let there = self.of.is_valid(row) && self.storage.is_valid(row) && self.text.is_valid(row);
        let text = |column: &ArrayRef| column.as_string::<i32>().value(row).to_string();
        there.then(|| (text(&self.storage), text(&self.text)))
    }
}

fn column(of: &StructArray, name: &str, as_type: &DataType) -> Result<Option<ArrayRef>, Fault> {
    of.column_by_name(name).map(|column| arrow::compute::cast(column, as_type).map_err(Fault::from)).transpose()
}
