//! The unmarked rows of files, written anew: file after file and row after row, or in an order that was asked for.
//!
//! A row of an old file is found again in the new ones by counting, which is how marks are carried over; where rows were put in
//! another order, by where that put them.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, take_record_batch};
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio::sync::mpsc;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::order::RowOrder;
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
    /// Where rows went that were put in another order.
    places: Option<Vec<u32>>,
}

/// An old file as it was read.
pub(crate) struct Input {
    pub(crate) file: Arc<LiveFile>,
    pub(crate) marks: Arc<RoaringTreemap>,
    /// Its unmarked rows.
    pub(crate) rows: u64,
}

/// Rewrites files of one partition.
pub(crate) async fn rewrite(
    place: &Place,
    encoding: &Arc<Encoding>,
    files: &[Arc<LiveFile>],
    order: Option<&RowOrder>,
) -> Result<Rewritten> {
    let Some(first) = files.first() else { return Err(Error::bug("nothing to rewrite")) };
    let (sender, receiver) = mpsc::channel(WAITING);
    let writing = tokio::spawn(encoding.clone().run(first.partition.clone(), receiver));
    let (mut inputs, mut gathered) = (vec![], vec![]);
    let schema = &encoding.shape.file_schema;
    for file in files {
        let marks = file.marks(place).await?;
        let open = DataFile::open(place, &file.add.path, u64::try_from(file.add.size).unwrap_or_default()).await?;
        let unmarked = all_but(&marks, open.rows());
        let mut batches = open.read(schema.fields(), Some(unmarked), BATCH)?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows() as u64;
            match order {
                None => give(&sender, encoding, batch).await?,
                Some(_) => gathered.push(batch),
            }
        }
        inputs.push(Input { file: file.clone(), marks, rows });
    }
    let mut places = None;
    if let Some(order) = order {
        let fail = |e| Error::bug(format!("rows in another order: {e}"));
        let all = concat_batches(schema, &gathered).map_err(fail)?;
        drop(gathered);
        let indices = order.indices(&all)?;
        for from in (0..all.num_rows()).step_by(BATCH) {
            let some = indices.slice(from, BATCH.min(all.num_rows() - from));
            give(&sender, encoding, take_record_batch(&all, &some).map_err(fail)?).await?;
        }
        let mut of = vec![0; all.num_rows()];
        for (place, row) in indices.values().iter().enumerate() {
            of[*row as usize] = place as u32;
        }
        places = Some(of);
    }
    drop(sender);
    let written = writing.await.map_err(|e| Error::bug(format!("a file's encoder died: {e}")))?;
    let written = written.ok_or_else(|| encoding.failure())?;
    Ok(Rewritten { inputs, places, outputs: written.into_iter().map(|encoded| encoded.file).collect() })
}

async fn give(to: &mpsc::Sender<Part>, encoding: &Encoding, rows: RecordBatch) -> Result<()> {
    to.send(Part { rows, keys: None }).await.map_err(|_| encoding.failure())
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
            let put = |places: &Vec<u32>| usize::try_from(place).ok().and_then(|at| places.get(at)).copied();
            let place = self.places.as_ref().and_then(put).map_or(place, u64::from);
            if let Some(output) = starts.iter().position(|range| range.contains(&place)) {
                carried[output].insert(place - starts[output].start);
            }
        }
        carried
    }
}
