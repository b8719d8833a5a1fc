//! The unmarked rows of files, written anew in order: file after file, row after row.
//!
//! A row of an old file is found again in the new ones by counting, which is how marks are carried over.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use arrow::util::display::FormatOptions;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use roaring::RoaringTreemap;
use tokio::sync::mpsc;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use crate::keyed::live::LiveFile;
use crate::parquet_object::ObjectReader;
use crate::stores::Place;
use crate::table::encode::{Encoding, Part};

/// Batches between reading and writing.
const WAITING: usize = 4;

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
    let path = &file.add.path;
    let failed = |e: &dyn std::fmt::Display| {
        let e = e.to_string();
        Error::storage("cannot read", format!("{}{path}", place.url), e)
    };
    let size = u64::try_from(file.add.size).unwrap_or_default();
    let reader = ObjectReader::new(place.store.clone(), place.at(path)?, size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| failed(&e))?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
    let builder = builder.with_row_selection(unmarked(marks, rows));
    let mut batches = builder.build().map_err(|e| failed(&e))?;
    let mut copied = 0;
    while let Some(batch) = batches.try_next().await.map_err(|e| failed(&e))? {
        // Files from before a column was added do not have it; others may have stored it in a narrower type.
        let column = |field: &arrow::datatypes::FieldRef| -> Result<ArrayRef> {
            let Some(found) = batch.column_by_name(field.name()) else {
                return Ok(new_null_array(field.data_type(), batch.num_rows()));
            };
            let options = CastOptions { safe: false, format_options: FormatOptions::new() };
            cast_with_options(found, field.data_type(), &options).map_err(|e| failed(&e))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|e| failed(&e))?;
        copied += rows.num_rows() as u64;
        let closed = |_| Error::storage("cannot write to", place.url.as_str(), "its encoder ended");
        to.send(Part { rows, keys: None }).await.map_err(closed)?;
    }
    Ok(copied)
}

/// The rows of a file that are not marked.
pub(crate) fn unmarked(marks: &RoaringTreemap, rows: u64) -> RowSelection {
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let mut selectors: Vec<RowSelector> = vec![];
    let mut at = 0;
    for row in marks.iter().take_while(|row| *row < rows) {
        if row > at {
            selectors.push(RowSelector::select(count(row - at)));
        }
        selectors.push(RowSelector::skip(1));
        at = row + 1;
    }
    selectors.push(RowSelector::select(count(rows.saturating_sub(at))));
    RowSelection::from(selectors)
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
