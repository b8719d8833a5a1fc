//! The keys of a data file, read from its key columns alone.
//!
//! Rows are numbered as they lie in the file, marked ones included, since marks speak of them so. Columns are cast to the
//! table's types, for another writer may have stored them in its own; a key column that partitions the table is the same for
//! all rows of a file and comes from the log.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::FieldRef;
use futures::TryStreamExt;
use watershed_core::{Error, Result};

use super::fold::FileKeys;
use super::key::{KeyHash, Keyer, sequence};
use super::sieve::{Sieve, prints};
use crate::data_file::{DataFile, constant, only};
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
    /// A new row keeps old values where it is NULL.
    pub(crate) partial: bool,
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

/// Keys and sequences of rows, in the file's order.
pub(crate) struct KeyRows {
    /// Their numbers in the file.
    pub(crate) rows: Vec<u64>,
    pub(crate) hashes: Vec<KeyHash>,
    /// Empty for keys without, and where a sieve was used.
    pub(crate) prints: Vec<u32>,
    /// Empty without a sequence column.
    pub(crate) sequences: Vec<i64>,
}

/// Gives the keys of a file to `each`, in the file's order; with a sieve, only those that pass it.
pub(crate) async fn scan(
    place: &Place,
    keys: &KeyColumns,
    file: &KeyFile<'_>,
    sieve: Option<&Sieve>,
    mut each: impl FnMut(KeyRows) -> Result<()>,
) -> Result<()> {
    let open = DataFile::open(place, file.path, file.size).await?;
    let stored: Vec<FieldRef> = keys.stored().chain(&keys.sequence).cloned().collect();
    if let Some(missing) = stored.iter().find(|field| !open.has(field.name())) {
        // Files from before the column was added: but a key is not added to a table.
        return Err(open.failed(format!("it has no column `{}`", missing.name())));
    }
    let mut batches = open.read(&stored, None, BATCH)?;
    let mut from = 0;
    while let Some(batch) = batches.try_next().await? {
        let first = from;
        from += batch.num_rows() as u64;
        let in_files = &batch.columns()[..batch.num_columns() - usize::from(keys.sequence.is_some())];
        let mut prints = prints(in_files);
        let passed = sieve.and_then(|sieve| prints.take().map(|prints| sieve.rows(&prints)));
        let (batch, rows) = match passed {
            Some(passed) if passed.is_empty() => continue,
            Some(passed) => {
                let rows = passed.iter().map(|row| first + u64::from(*row)).collect();
                let fail = |e| Error::bug(format!("rows that passed the sieve: {e}"));
                (take_record_batch(&batch, &UInt32Array::from(passed)).map_err(fail)?, rows)
            }
            None => (batch, (first..from).collect::<Vec<_>>()),
        };
        let hashes = keys.hashes(&batch, file.partition)?;
        let sequences = match &keys.sequence {
            // A row without a sequence is older than any that has one.
            Some(_) => sequence(batch.column(batch.num_columns() - 1))?.iter().map(|s| s.unwrap_or(i64::MIN)).collect(),
            None => vec![],
        };
        each(KeyRows { rows, hashes, prints: prints.unwrap_or_default(), sequences })?;
    }
    Ok(())
}

/// All keys of a file, of which this process does not know them any more.
pub(crate) async fn all(place: &Place, keys: &KeyColumns, file: &KeyFile<'_>) -> Result<FileKeys> {
    let mut all = FileKeys::default();
    scan(place, keys, file, None, |rows| {
        all.hashes.extend(rows.hashes);
        all.prints.extend(rows.prints);
        all.sequences.extend(rows.sequences);
        Ok(())
    })
    .await?;
    Ok(all)
}

impl KeyColumns {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|c| c.field.name().as_str()).collect()
    }

    /// The key's columns that files hold.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &FieldRef> {
        self.columns.iter().filter(|c| c.partition.is_none()).map(|c| &c.field)
    }

    /// The keys of rows that have the key's columns of files, and lie in a partition.
    pub(crate) fn hashes(&self, rows: &RecordBatch, partition: &[Option<String>]) -> Result<Vec<KeyHash>> {
        let column = |key: &KeyColumn| -> Result<ArrayRef> {
            let name = key.field.name();
            match key.partition {
                None => {
                    let missing = || Error::bug(format!("rows without the key's column `{name}`"));
                    rows.column_by_name(name).cloned().ok_or_else(missing)
                }
                Some(i) => {
                    constant(partition.get(i).and_then(Option::as_deref), key.field.data_type(), rows.num_rows())
                        .map_err(|e| Error::input(format!("the partition value of the key's column `{name}`: {e}")))
                }
            }
        };
        self.keyer.hashes(&self.columns.iter().map(column).collect::<Result<Vec<_>>>()?)
    }
}

/// The key columns of one row, as the file has them.
pub(crate) async fn row(
    place: &Place,
    keys: &KeyColumns,
    file: &KeyFile<'_>,
    row: usize,
) -> Result<Option<RecordBatch>> {
    let open = DataFile::open(place, file.path, file.size).await?;
    let stored: Vec<FieldRef> = keys.stored().cloned().collect();
    open.read(&stored, Some(only(&[row as u64].into_iter().collect())), 1)?.try_next().await
}
