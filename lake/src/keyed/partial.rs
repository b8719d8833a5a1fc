//! `merge = 'partial'`: where a new row is NULL, the old value stays.
//!
//! Rows of one key form a chain, newest first: those of the epoch up to a delete, then, if there was none, the row of the
//! table. A chain comes down to one row, column by column the first value that is not NULL. Chains within the epoch are merged
//! when it is finished, so that a prepared commit is whole without this process; the table's row is added when it is
//! committed, and worked out anew like all that depends on the version. Merged rows go to files of their own, and the rows that
//! they are made of are marked.
//!
//! **Invariant:** what a merge reads are rows that are unmarked on the version it is worked out on, or of the epoch itself.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::files::{At, TableFiles, written};
use super::fold::{FileKeys, Folded};
use super::key::{KeyHash, KeyMap};
use super::live::{FileId, LiveFiles};
use super::resolve::{ChangeFile, Changes, Resolved};
use super::writer::{KeyedRows, parts};
use crate::table::encode::Encoded;
use crate::table::shape::StoredRows;
use crate::table::writer::DeltaEpochWriter;

/// Chains that are merged at once.
const CHUNK: usize = 1 << 17;
/// Files that are read at once.
const CONCURRENT: usize = 4;

/// Rows of one key, newest first.
struct Chain<R> {
    hash: KeyHash,
    print: Option<u32>,
    rows: Vec<R>,
    /// Nothing that the table has comes after them.
    whole: bool,
}

/// Merges the chains within an epoch: `encoded` are the files of its rows and deletes. Adds the merged files, and says of which
/// rows they are made.
pub(crate) async fn within(files: &TableFiles<'_>, encoded: &mut Vec<Encoded>, mut folded: Folded) -> Result<Folded> {
    let all: Vec<&FileKeys> = encoded.iter().map(|e| &e.keys).collect();
    let deletes: Vec<bool> = encoded.iter().map(|e| e.file.deletes).collect();
    let chains = chains(&all, &deletes, &folded);
    let mut merged: Vec<Encoded> = vec![];
    for whole in [false, true] {
        let chains: Vec<&Chain<(usize, u32)>> = chains.iter().filter(|chain| chain.whole == whole).collect();
        if chains.is_empty() {
            continue;
        }
        let encoding = files.encoding(if whole { "whole" } else { "merged" });
        let writer = DeltaEpochWriter::new(encoding.into(), 1);
        for chains in chains.chunks(CHUNK) {
            let mut wanted: BTreeMap<usize, RoaringTreemap> = BTreeMap::new();
            for (file, row) in chains.iter().flat_map(|chain| &chain.rows) {
                wanted.entry(*file).or_default().insert(u64::from(*row));
            }
            let at = |file: usize| {
                let of = &encoded[file];
                At { path: &of.file.path, size: of.file.size, partition: &of.partition }
            };
            let found = Found::read(files, wanted.iter().map(|(file, rows)| (*file, at(*file), rows))).await?;
            let places = chains.iter().map(|chain| chain.rows.iter().map(|(f, row)| found.place(f, *row)).collect());
            let places: Vec<Vec<(usize, usize)>> = places.collect::<Result<_>>()?;
            put(
                files,
                &writer,
                coalesce(&files.columns(), &found.batches, &places)?,
                chains.iter().map(|c| (c.hash, c.print)),
            )
            .await?;
            for (file, row) in chains.iter().flat_map(|chain| &chain.rows) {
                folded.outdone[*file].insert(*row);
            }
        }
        for mut file in writer.close().await? {
            file.file.whole = whole;
            merged.push(file);
        }
    }
    folded.outdone.extend(merged.iter().map(|_| Default::default()));
    encoded.extend(merged);
    Ok(folded)
}

/// The rows of each key that came more than once and was not deleted at last, from the newest back to a delete.
fn chains(files: &[&FileKeys], deletes: &[bool], folded: &Folded) -> Vec<Chain<(usize, u32)>> {
    let mut found: KeyMap<Vec<(u64, usize, u32)>> = KeyMap::default();
    for (file, rows) in files.iter().zip(&folded.outdone) {
        found.extend(rows.iter().map(|row| (file.hashes[row as usize], vec![])));
    }
    for (number, file) in files.iter().enumerate() {
        for (row, (hash, arrival)) in file.hashes.iter().zip(file.arrived()).enumerate() {
            if let Some(rows) = found.get_mut(hash) {
                rows.push((arrival, number, row as u32));
            }
        }
    }
    let chain = |(hash, mut rows): (KeyHash, Vec<(u64, usize, u32)>)| {
        rows.sort_unstable_by(|a, b| b.cmp(a));
        let until = rows.iter().position(|(_, file, _)| deletes[*file]);
        rows.truncate(until.unwrap_or(rows.len()));
        let rows: Vec<(usize, u32)> = rows.into_iter().map(|(_, file, row)| (file, row)).collect();
        let (file, row) = *rows.first()?;
        let print = files[file].prints.get(row as usize).copied();
        Some(Chain { hash, print, rows, whole: until.is_some() })
    };
    let mut chains: Vec<_> = found.into_iter().filter_map(chain).collect();
    chains.sort_unstable_by_key(|chain| chain.rows[0]);
    chains
}

/// Merges the epoch's rows with those of the table that they replace. Says in `resolved` that the epoch's own do not join it.
pub(crate) async fn with_table(
    files: &TableFiles<'_>,
    live: &LiveFiles,
    changes: &Changes,
    prepared: &[WrittenFile],
    resolved: &mut Resolved,
) -> Result<Vec<(WrittenFile, ChangeFile)>> {
    let mut replaced = std::mem::take(&mut resolved.replaced);
    replaced.retain(|((file, _), _)| !changes.files[*file].deletes && !changes.files[*file].whole);
    if replaced.is_empty() {
        return Ok(vec![]);
    }
    replaced.sort_unstable();
    // A table that others appended to may have a key twice: the rest is replaced all the same.
    replaced.dedup_by_key(|(change, _)| *change);
    let writer = DeltaEpochWriter::new(files.encoding("merged").into(), 1);
    for chunk in replaced.chunks(CHUNK) {
        let mut wanted: BTreeMap<(bool, usize), RoaringTreemap> = BTreeMap::new();
        for ((file, row), (id, old)) in chunk {
            wanted.entry((false, *file)).or_default().insert(u64::from(*row));
            wanted.entry((true, *id as usize)).or_default().insert(u64::from(*old));
        }
        let mut reads = vec![];
        for (of, rows) in &wanted {
            let at = match of {
                (false, file) => At::written(&prepared[*file], &changes.files[*file]),
                (true, id) => {
                    let id = FileId::try_from(*id).unwrap_or(FileId::MAX);
                    At::live(live.by_id(id).ok_or_else(|| Error::bug(format!("file {id} is replaced and not live")))?)
                }
            };
            reads.push((*of, at, rows));
        }
        let found = Found::read(files, reads.into_iter()).await?;
        let places = chunk.iter().map(|((file, row), (id, old))| {
            Ok(vec![found.place(&(false, *file), *row)?, found.place(&(true, *id as usize), *old)?])
        });
        let rows = coalesce(&files.columns(), &found.batches, &places.collect::<Result<Vec<_>>>()?)?;
        let keys = chunk.iter().map(|((file, row), _)| {
            let (keys, row) = (&changes.files[*file].keys, *row as usize);
            (keys.hashes[row], keys.prints.get(row).copied())
        });
        put(files, &writer, rows, keys).await?;
        for ((file, row), _) in chunk {
            resolved.stale[*file].insert(*row);
        }
    }
    Ok(writer.close().await?.into_iter().map(written).collect())
}

/// Rows that were read, by file and number.
struct Found<F> {
    batches: Vec<RecordBatch>,
    files: HashMap<F, (usize, RoaringTreemap)>,
}

impl<F: Eq + std::hash::Hash + Clone> Found<F> {
    async fn read<'a>(
        files: &TableFiles<'_>,
        wanted: impl Iterator<Item = (F, At<'a>, &'a RoaringTreemap)>,
    ) -> Result<Found<F>> {
        let mut reads = vec![];
        for (file, at, rows) in wanted {
            reads.push(async move { files.rows(at, rows).await.map(|batch| (file, rows.clone(), batch)) });
        }
        let read: Vec<_> = futures::stream::iter(reads).buffered(CONCURRENT).try_collect().await?;
        let mut found = Found { batches: vec![], files: HashMap::new() };
        for (file, rows, batch) in read {
            found.files.insert(file, (found.batches.len(), rows));
            found.batches.push(batch);
        }
        Ok(found)
    }

    /// Which row of which batch it is.
    fn place(&self, file: &F, row: u32) -> Result<(usize, usize)> {
        let (batch, rows) = self.files.get(file).ok_or_else(|| Error::bug("a row of a file that was not read"))?;
        let before = rows.rank(u64::from(row)).saturating_sub(1);
        Ok((*batch, usize::try_from(before).unwrap_or(usize::MAX)))
    }
}

/// One row a chain: column by column the first value that is not NULL.
fn coalesce(schema: &SchemaRef, batches: &[RecordBatch], chains: &[Vec<(usize, usize)>]) -> Result<RecordBatch> {
    let fail = |e| Error::bug(format!("merging rows: {e}"));
    let mut columns = vec![];
    for at in 0..schema.fields().len() {
        let values: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
        let first = |chain: &Vec<(usize, usize)>| {
            let there = chain.iter().find(|(batch, row)| values[*batch].is_valid(*row));
            there.or_else(|| chain.first()).copied()
        };
        let chosen: Vec<(usize, usize)> = chains.iter().filter_map(first).collect();
        columns.push(interleave(&values, &chosen).map_err(fail)?);
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(fail)
}

/// Gives merged rows to a writer, with their keys in the same order.
async fn put(
    files: &TableFiles<'_>,
    writer: &DeltaEpochWriter,
    rows: RecordBatch,
    keys: impl Iterator<Item = (KeyHash, Option<u32>)>,
) -> Result<()> {
    let width = files.shape.file_schema.fields().len();
    let file = RecordBatch::try_new(files.shape.file_schema.clone(), rows.columns()[..width].to_vec())
        .map_err(|e| Error::input(format!("{}: merged rows do not fit the table: {e}", files.place.url)))?;
    let stored = StoredRows { file, partitions: rows.columns()[width..].to_vec() };
    let (hashes, prints): (Vec<KeyHash>, Vec<Option<u32>>) = keys.unzip();
    let rows = KeyedRows { stored, hashes, prints: prints.into_iter().collect(), sequences: vec![] };
    writer.take(0, parts(&files.shape, files.keys, rows, 0)?).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::super::fold::fold;
    use super::*;

    #[test]
    fn chains_end_at_a_delete() {
        let file = |keys: &[u64], arrival: u64| FileKeys {
            hashes: keys.iter().map(|key| [*key, 0]).collect(),
            prints: vec![],
            sequences: vec![],
            arrivals: vec![(0, arrival)],
        };
        // Key 1 comes three times; 2 is deleted and comes again; 3 is deleted at last; 4 comes once.
        let files = [file(&[1, 2, 3, 4], 0), file(&[1], 1), file(&[1, 2], 3), file(&[2, 3], 2)];
        let deletes = [false, false, false, true];
        let folded = fold(files.iter().map(|file| (None, file)));
        let all: Vec<&FileKeys> = files.iter().collect();
        let mut found: Vec<_> =
            chains(&all, &deletes, &folded).into_iter().map(|c| (c.hash[0], c.rows, c.whole)).collect();
        found.sort();
        assert_eq!(found, [(1, vec![(2, 0), (1, 0), (0, 0)], false), (2, vec![(2, 1)], true)]);
    }

    #[test]
    fn the_first_value_that_is_there_counts() {
        let batch = |a: Vec<Option<i64>>, b: Vec<Option<i64>>| {
            let of = |v| Arc::new(Int64Array::from(v)) as ArrayRef;
            RecordBatch::try_from_iter_with_nullable([("a", of(a), true), ("b", of(b), true)]).unwrap()
        };
        let batches = [batch(vec![None, Some(1)], vec![Some(5), None]), batch(vec![Some(7)], vec![None])];
        let chains = [vec![(0, 0), (1, 0)], vec![(1, 0), (0, 1)]];
        let merged = coalesce(&batches[0].schema(), &batches, &chains).unwrap();
        let column = |i: usize| merged.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
        assert_eq!((column(0), column(1)), (vec![Some(7), Some(7)], vec![Some(5), None]));
    }
}
