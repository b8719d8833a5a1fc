//! The keys of a data file, read from its key columns alone.
//!
//! Rows are numbered as they lie in the file, marked ones included, since marks speak of them so. Columns are cast to the
//! table's types, for another writer may have stored them in its own; a key column that partitions the table is the same for
//! all rows of a file and comes from the log.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef};
use arrow::util::display::FormatOptions;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use watershed_core::{Error, Result};

use super::fold::FileKeys;
use super::key::{KeyHash, Keyer, sequence};
use crate::parquet_object::ObjectReader;
use crate::stores::Place;

const BATCH: usize = 64 << 10;

/// Where the columns that keys are judged by come from.
#[derive(Debug)]
pub(crate) struct KeyColumns {
    pub(crate) keyer: Keyer,
    pub(crate) columns: Vec<KeyColumn>,
    /// The column that orders versions of a row; never one that partitions the table.
    pub(crate) sequence: Option<FieldRef>,
    /// The key's columns fix the partition: a key is looked for in one partition only.
    pub(crate) fixes_partition: bool,
}

#[derive(Debug)]
pub(crate) struct KeyColumn {
    pub(crate) field: FieldRef,
    /// Which of the table's partition columns it is, if it is one.
    pub(crate) partition: Option<usize>,
}

/// A file to look into.
pub(crate) struct KeyFile<'a> {
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    /// Its values of the table's partition columns.
    pub(crate) partition: &'a [Option<String>],
}

/// Keys and sequences of rows that follow one another.
pub(crate) struct KeyRows {
    /// The first one's number.
    pub(crate) from: u64,
    pub(crate) hashes: Vec<KeyHash>,
    /// Empty without a sequence column.
    pub(crate) sequences: Vec<i64>,
}

/// Gives the keys of a file to `each`, in the file's order.
pub(crate) async fn scan(
    place: &Place,
    keys: &KeyColumns,
    file: &KeyFile<'_>,
    mut each: impl FnMut(KeyRows) -> Result<()>,
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| {
        let e = e.to_string();
        Error::storage("cannot read the keys of", format!("{}{}", place.url, file.path), e)
    };
    let reader = ObjectReader::new(place.store.clone(), place.at(file.path)?, file.size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| failed(&e))?;
    let stored = keys.columns.iter().filter(|c| c.partition.is_none()).map(|c| &c.field).chain(&keys.sequence);
    let stored: Vec<&str> = stored.map(|field| field.name().as_str()).collect();
    if let Some(missing) = stored.iter().find(|name| builder.schema().field_with_name(name).is_err()) {
        // Files from before the column was added: but a key is not added to a table.
        return Err(failed(&format!("it has no column `{missing}`")));
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), stored);
    let mut batches = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(|e| failed(&e))?;
    let mut from = 0;
    while let Some(batch) = batches.try_next().await.map_err(|e| failed(&e))? {
        let rows = batch.num_rows();
        let column = |field: &FieldRef| -> Result<ArrayRef> {
            let found = batch.column_by_name(field.name()).ok_or_else(|| failed(&format!("no `{}`", field.name())))?;
            cast(found, field.data_type()).map_err(|e| failed(&e))
        };
        let columns = keys.columns.iter().map(|key| match key.partition {
            None => column(&key.field),
            Some(i) => constant(file.partition.get(i).and_then(Option::as_deref), key.field.data_type(), rows)
                .map_err(|e| failed(&e)),
        });
        let hashes = keys.keyer.hashes(&columns.collect::<Result<Vec<_>>>()?)?;
        let sequences = match &keys.sequence {
            // A row without a sequence is older than any that has one.
            Some(field) => sequence(&column(field)?)?.iter().map(|s| s.unwrap_or(i64::MIN)).collect(),
            None => vec![],
        };
        each(KeyRows { from, hashes, sequences })?;
        from += rows as u64;
    }
    Ok(())
}

/// All keys of a file, of which this process does not know them any more.
pub(crate) async fn all(place: &Place, keys: &KeyColumns, file: &KeyFile<'_>) -> Result<FileKeys> {
    let mut all = FileKeys::default();
    scan(place, keys, file, |rows| {
        all.hashes.extend(rows.hashes);
        all.sequences.extend(rows.sequences);
        Ok(())
    })
    .await?;
    Ok(all)
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow::error::ArrowError> {
    if column.data_type() == to {
        return Ok(Arc::clone(column));
    }
    cast_with_options(column, to, &CastOptions { safe: false, format_options: FormatOptions::new() })
}

/// A partition value as a column.
pub(crate) fn constant(value: Option<&str>, to: &DataType, rows: usize) -> Result<ArrayRef, arrow::error::ArrowError> {
    let Some(value) = value else { return Ok(new_null_array(to, rows)) };
    let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![value]));
    let one = cast(&text, to)?;
    let same = arrow::array::UInt32Array::from(vec![0; rows]);
    arrow::compute::take(&one, &same, None)
}

impl KeyColumns {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|c| c.field.name().as_str()).collect()
    }

    /// The key's columns that files hold, with their types.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&str, &DataType)> {
        let stored = self.columns.iter().filter(|c| c.partition.is_none());
        stored.map(|c| (c.field.name().as_str(), c.field.data_type()))
    }
}

/// The key columns of one row, as the file has them.
pub(crate) async fn row(
    place: &Place,
    keys: &KeyColumns,
    file: &KeyFile<'_>,
    row: usize,
) -> Result<Option<RecordBatch>> {
    let failed = |e| Error::storage("cannot read", format!("{}{}", place.url, file.path), e);
    let reader = ObjectReader::new(place.store.clone(), place.at(file.path)?, file.size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), keys.stored().map(|(name, _)| name));
    let mut batches = builder.with_projection(mask).with_offset(row).with_limit(1).build().map_err(failed)?;
    batches.try_next().await.map_err(failed)
}
