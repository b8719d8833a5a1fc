//! A Parquet file of a table, read as the table has its columns.
//!
//! Files from before a column was added do not have it: its rows are NULL there. Other writers may have stored a column in a
//! type of their own, which is cast. Partition columns are in no file; they come from the log, as one value.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use roaring::RoaringTreemap;
use watershed_core::{Error, Result};

use crate::parquet_object::ObjectReader;
use crate::stores::Place;

/// An open file: its footer is read, its rows are not.
pub(crate) struct DataFile {
    /// For messages.
    name: String,
    builder: ParquetRecordBatchStreamBuilder<ObjectReader>,
}

impl DataFile {
    /// Opens the file at a path below the table's root.
    pub(crate) async fn open(place: &Place, path: &str, size: u64) -> Result<DataFile> {
        let name = format!("{}{path}", place.url);
        let reader = ObjectReader::new(place.store.clone(), place.at(path)?, size);
        match ParquetRecordBatchStreamBuilder::new(reader).await {
            Ok(builder) => Ok(DataFile { name, builder }),
            Err(e) => Err(Error::storage("cannot read", name, e)),
        }
    }

    /// How many rows it has, marked ones included.
    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.builder.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.builder.schema().field_with_name(column).is_ok()
    }

    pub(crate) fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::storage("cannot read", &self.name, why.to_string())
    }

    /// These columns of the rows that are selected, or of all.
    pub(crate) fn read(
        self,
        columns: &[FieldRef],
        rows: Option<RowSelection>,
        batch: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let DataFile { name, builder } = self;
        let failed = move |e: &dyn std::fmt::Display| Error::storage("cannot read", &name, e.to_string());
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(|f| f.name().as_str()));
        let mut builder = builder.with_projection(mask).with_batch_size(batch);
        if let Some(rows) = rows {
            builder = builder.with_row_selection(rows);
        }
        let batches = builder.build().map_err(|e| failed(&e))?;
        let schema = Arc::new(Schema::new(columns.to_vec()));
        let typed = move |batch: RecordBatch| -> Result<RecordBatch, ArrowError> {
            let column = |field: &FieldRef| match batch.column_by_name(field.name()) {
                Some(found) => typed(found, field.data_type()),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            };
            let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        };
        Ok(batches.map(move |batch| typed(batch.map_err(|e| failed(&e))?).map_err(|e| failed(&e))).boxed())
    }
}

/// The rows of a stream as one batch.
pub(crate) async fn gather(
    schema: &arrow::datatypes::SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch>>,
) -> Result<RecordBatch> {
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    arrow::compute::concat_batches(schema, &batches)
        .map_err(|e| Error::bug(format!("rows of a file put together: {e}")))
}

/// A column in another type, of which none of its values may be lost.
fn typed(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    cast_with_options(column, to, &CastOptions { safe: false, format_options: FormatOptions::new() })
}

/// A partition value as a column.
pub(crate) fn constant(value: Option<&str>, to: &DataType, rows: usize) -> Result<ArrayRef, ArrowError> {
    let Some(value) = value else { return Ok(new_null_array(to, rows)) };
    let text: ArrayRef = Arc::new(StringArray::from(vec![value]));
    take(&typed(&text, to)?, &UInt32Array::from(vec![0; rows]), None)
}

/// The rows of a file that are not among these.
pub(crate) fn all_but(marks: &RoaringTreemap, rows: u64) -> RowSelection {
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

/// These rows of a file alone.
pub(crate) fn only(rows: &RoaringTreemap) -> RowSelection {
    let mut selectors: Vec<RowSelector> = vec![];
    let mut at = 0;
    for row in rows {
        if row > at {
            selectors.push(RowSelector::skip(count(row - at)));
        }
        selectors.push(RowSelector::select(1));
        at = row + 1;
    }
    RowSelection::from(selectors)
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
