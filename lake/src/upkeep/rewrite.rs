//! The unmarked rows of files, written anew in order: file after file, row after row.
//!
//! A row of an old file is found again in the new ones by counting, which is how marks are carried over.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio::sync::mpsc;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use crate::data_file::{DataFile, all_but};
use crate::keyed::live::LiveFile;
use crate::stores::Place;
use crate::table::encode::{Encoding, Part};

/// Batches between reading and writing.
const WAITING: usize = 4;
/// Rows of a batch.
const BATCH: usize = 8192;

/// Files that were rewritten, and what they became.
pub(crate) struct Rewritten {
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<WrittenFile>,
}

/// An old file as it was read.
pub(crate) struct Input {
    pub(crate) file: Arc<LiveFile>,
    pub(crate) marks: Arc<RoaringTreemap>,
    /// Its unmarked rows.
    pub(crate) rows: u64,
}

/// Rewrites files of one partition.
pub(crate) async fn rewrite(place: &Place, encoding: &Arc<Encoding>, files: &[Arc<LiveFile>]) -> Result<Rewritten> {
    let Some(first) = files.first() else { return Err(Error::bug("nothing to rewrite")) };
    let (sender, receiver) = mpsc::channel(WAITING);
    let writing = tokio::spawn(encoding.clone().run(first.partition.clone(), receiver));
    let mut inputs = vec![];
    for file in files {
        let marks = file.marks(place).await?;
        let rows = copy(place, &encoding.shape.file_schema, file, &marks, &sender).await.map_err(|e| {
            match sender.is_closed() {
                true => encoding.failure(),
                false => e,
            }
        })?;
        inputs.push(Input { file: file.clone(), marks, rows });
    }
    drop(sender);
    let written = writing.await.map_err(|e| Error::bug(format!("a file's encoder died: {e}")))?;
    let written = written.ok_or_else(|| encoding.failure())?;
    Ok(Rewritten { inputs, outputs: written.into_iter().map(|encoded| encoded.file).collect() })
}

async fn copy(
    place: &Place,
    schema: &SchemaRef,
    file: &LiveFile,
    marks: &RoaringTreemap,
    to: &mpsc::Sender<Part>,
) -> Result<u64> {
    let open = DataFile::open(place, &file.add.path, u64::try_from(file.add.size).unwrap_or_default()).await?;
    let unmarked = all_but(marks, open.rows());
    let mut batches = open.read(schema.fields(), Some(unmarked), BATCH)?;
    let mut copied = 0;
    while let Some(rows) = batches.try_next().await? {
        copied += rows.num_rows() as u64;
        let closed = |_| Error::storage("cannot write to", place.url.as_str(), "its encoder ended");
        to.send(Part { rows, keys: None }).await.map_err(closed)?;
    }
    Ok(copied)
}

impl Rewritten {
    /// Where rows of an input, by number, that were marked after it was read, lie in the outputs: by output, the rows.
    pub(crate) fn carried(&self, input: usize, marked: &RoaringTreemap) -> Vec<RoaringTreemap> {
        let before: u64 = self.inputs[..input].iter().map(|input| input.rows).sum();
        let mut carried = vec![RoaringTreemap::new(); self.outputs.len()];
        let mut starts: Vec<Range<u64>> = vec![];
        for output in &self.outputs {
            let from = starts.last().map_or(0, |range| range.end);
            starts.push(from..from + output.rows);
        }
        let known = &self.inputs[input].marks;
        for row in marked.iter().filter(|row| !known.contains(*row)) {
            // Of the rows up to this one, those that were copied; itself not counted.
            let place = before + row - known.rank(row);
            if let Some(output) = starts.iter().position(|range| range.contains(&place)) {
                carried[output].insert(place - starts[output].start);
            }
        }
        carried
    }
}
