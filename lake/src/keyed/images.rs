//! Change files: what a commit did to rows, for readers of Delta's change data feed.
//!
//! Only a commit that replaces or deletes rows writes them, and then for all that it does: a reader takes a version either from
//! its change files or from its actions. Images of one key are an update. Delta protocol, "Add CDC File".

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, SchemaRef};
use deltalake::kernel::AddCDCFile;
use futures::TryStreamExt;
use roaring::{RoaringBitmap, RoaringTreemap};
use tokio::sync::mpsc;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::files::{At, BATCH, TableFiles, by_partition};
use super::key::{Hashed, KeyHash};
use super::live::LiveFiles;
use super::resolve::{ChangeFile, Changes, Resolved};
use crate::changes::CHANGE_COLUMNS;
use crate::data_file::{DataFile, only};
use crate::table::encode::{Encoded, Encoding, Part};
use crate::table::shape::Key;

/// The folder of change files.
const FOLDER: &str = "_change_data/";
/// Batches between reading and writing.
const WAITING: usize = 4;

type Keys = HashSet<KeyHash, BuildHasherDefault<Hashed>>;

/// A file of the commit, and which of its rows do not count.
pub(crate) struct Joining<'a> {
    pub(crate) file: &'a WrittenFile,
    pub(crate) change: &'a ChangeFile,
    pub(crate) marked: RoaringBitmap,
}

/// Writes the change files of a commit.
pub(crate) async fn write(
    files: &TableFiles<'_>,
    live: &LiveFiles,
    changes: &Changes,
    resolved: &Resolved,
    joining: &[Joining<'_>],
) -> Result<Vec<AddCDCFile>> {
    let field = Field::new(CHANGE_COLUMNS[0], DataType::Utf8, false);
    let shape = Arc::new(files.shape.with_column(field.into()));
    let encoding = TableFiles { shape, ..*files }.encoding("cdc").below(FOLDER);
    let writing = Writing { files, encoding: Arc::new(encoding) };
    let mut deleted = Keys::default();
    for (change, stale) in changes.files.iter().zip(&resolved.stale).filter(|(change, _)| change.deletes) {
        deleted.extend(change.rows().filter(|(row, _)| !stale.contains(*row)).map(|(_, hash)| hash));
    }
    let mut written = vec![];
    let mut before = vec![];
    for (id, rows) in &resolved.marks {
        let file = live.by_id(*id).ok_or_else(|| Error::bug(format!("file {id} is marked and not live")))?;
        before.push((file.partition.clone(), (At::live(file), rows)));
    }
    let mut replaced = Keys::default();
    for (partition, parts) in by_partition(before.into_iter()) {
        let of = |hash: &KeyHash| u32::from(!deleted.contains(hash));
        let mut seen = |hashes: &[KeyHash]| replaced.extend(hashes);
        written.extend(writing.partition(&partition, parts, ["delete", "update_preimage"], of, &mut seen).await?);
    }
    let after: Vec<(At<'_>, RoaringTreemap)> = joining
        .iter()
        .filter(|joining| !joining.file.deletes)
        .map(|joining| {
            let rows = (0..joining.file.rows).filter(|row| !joining.marked.contains(*row as u32)).collect();
            (At::written(joining.file, joining.change), rows)
        })
        .collect();
    let after = after.iter().filter(|(_, rows)| !rows.is_empty()).map(|(at, rows)| (at.partition.clone(), (*at, rows)));
    for (partition, parts) in by_partition(after) {
        let of = |hash: &KeyHash| u32::from(replaced.contains(hash));
        written.extend(writing.partition(&partition, parts, ["insert", "update_postimage"], of, &mut |_| ()).await?);
    }
    written.into_iter().map(|encoded| action(encoded.file)).collect()
}

struct Writing<'a> {
    files: &'a TableFiles<'a>,
    encoding: Arc<Encoding>,
}

impl Writing<'_> {
    /// Writes rows of one partition, with one of two words each.
    async fn partition(
        &self,
        partition: &Key,
        parts: Vec<(At<'_>, &RoaringTreemap)>,
        words: [&str; 2],
        of: impl Fn(&KeyHash) -> u32,
        seen: &mut impl FnMut(&[KeyHash]),
    ) -> Result<Vec<Encoded>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writing = tokio::spawn(self.encoding.clone().run(partition.clone(), receiver));
        let words: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
        for (at, rows) in parts {
            let open = DataFile::open(self.files.place, at.path, at.size).await?;
            let mut batches = open.read(self.files.shape.file_schema.fields(), Some(only(rows)), BATCH)?;
            while let Some(batch) = batches.try_next().await? {
                let hashes = self.files.keys.hashes(&batch, partition)?;
                seen(&hashes);
                let chosen = UInt32Array::from_iter_values(hashes.iter().map(&of));
                let rows = labelled(&self.encoding.shape.file_schema, &batch, &words, &chosen)?;
                if sender.send(Part { rows, keys: None }).await.is_err() {
                    return Err(self.encoding.failure());
                }
            }
        }
        drop(sender);
        let written = writing.await.map_err(|e| Error::bug(format!("a change file's encoder died: {e}")))?;
        written.ok_or_else(|| self.encoding.failure())
    }
}

fn labelled(schema: &SchemaRef, rows: &RecordBatch, words: &ArrayRef, chosen: &UInt32Array) -> Result<RecordBatch> {
    let fail = |e| Error::bug(format!("rows with what was done to them: {e}"));
    let words = take(words, chosen, None).map_err(fail)?;
    RecordBatch::try_new(schema.clone(), rows.columns().iter().cloned().chain([words]).collect()).map_err(fail)
}

fn action(file: WrittenFile) -> Result<AddCDCFile> {
    Ok(AddCDCFile {
        size: i64::try_from(file.size).map_err(|_| Error::bug(format!("{} is too large", file.path)))?,
        path: file.path,
        partition_values: file.values.into_iter().collect(),
        data_change: false,
        tags: None,
    })
}
