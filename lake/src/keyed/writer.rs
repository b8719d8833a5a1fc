//! Takes one epoch's rows for a keyed table: rows go to files at once, their keys stay in memory until the epoch is folded.
//!
//! ```text
//!  rows ─ operations ─▶ upserts ─ stored, hashed, folded in the batch ─▶ files by partition ┐
//!                  └──▶ deletes ─ their keys alone ─────────────────────▶ files of keys ────┴─ fold ─▶ PreparedCommit
//! ```
//!
//! Where new rows keep old values (`merge = 'partial'`), rows of one key are not dropped but merged, here as far as the epoch
//! goes.
//!
//! Deletes are written like rows, with nothing but key and sequence, into files of their own: so a prepared commit is whole
//! without this process. In a table with a sequence column such a file later joins the table with all of its rows marked. No
//! reader sees one of them, and they tell later writers how old the deletion is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, UInt64Array, new_null_array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{Field, Int64Type, Schema, UInt32Type, UInt64Type};
use async_trait::async_trait;
use roaring::RoaringTreemap;
use watershed_core::sink::{EpochWriter, PreparedCommit};
use watershed_core::{Error, Result};

use super::files::{TableFiles, written};
use super::fold::{fold, fold_batch, rounds};
use super::key::{KeyHash, sequence};
use super::operation::operations;
use super::resolve::{ChangeFile, Changes, group};
use super::scan::{KeyColumns, KeyFile};
use super::sieve::prints;
use super::table::Pending;
use super::{KeySpec, Merge, partial, scan, vectors};
use crate::history::marks;
use crate::table::SinkOptions;
use crate::table::encode::{Encoded, Encoding, Part, PartKeys};
use crate::table::shape::{Key, Shape, Stored, StoredRows};
use crate::table::writer::DeltaEpochWriter;

/// The columns that ride with rows through the cut.
const RIDERS: usize = 4;

/// One epoch of a keyed table.
pub(crate) struct KeyedWriter {
    location: String,
    rows: Half,
    deletes: Half,
    keys: Arc<KeyColumns>,
    spec: KeySpec,
    /// Where the operation column is in the rows.
    operation: Option<usize>,
    options: SinkOptions,
    batches: AtomicU64,
    pending: Pending,
}

/// The files of rows, or those of deletes.
struct Half {
    shape: Arc<Shape>,
    encoding: Arc<Encoding>,
    writer: DeltaEpochWriter,
}

impl KeyedWriter {
    pub(crate) fn new(
        location: &str,
        encodings: [Encoding; 2],
        keys: Arc<KeyColumns>,
        spec: KeySpec,
        operation: Option<usize>,
        options: SinkOptions,
        pending: Pending,
    ) -> KeyedWriter {
        let lanes = options.lanes;
        let half = |encoding: Encoding| {
            let encoding = Arc::new(encoding);
            Half { shape: encoding.shape.clone(), writer: DeltaEpochWriter::new(encoding.clone(), lanes), encoding }
        };
        let [rows, deletes] = encodings.map(half);
        let batches = AtomicU64::new(0);
        KeyedWriter { location: location.to_string(), rows, deletes, keys, spec, operation, options, batches, pending }
    }

    /// Takes rows that all do the same, which arrived as batch `arrival`.
    async fn take(&self, half: &Half, lane: usize, arrival: u64, rows: KeyedRows) -> Result<()> {
        half.writer.take(lane, parts(&half.shape, &self.keys, rows, arrival)?).await
    }

    /// The rows as the table has them, with their keys.
    fn keyed(&self, half: &Half, rows: &RecordBatch) -> Result<KeyedRows> {
        let stored = half.shape.stored(rows)?;
        let mut columns = Vec::with_capacity(self.keys.columns.len());
        for key in &self.keys.columns {
            let name = key.field.name();
            let column = match half.shape.find(name) {
                Some(Stored::InFiles(i, _)) => stored.file.column(i),
                Some(Stored::InPartitions(i, _)) => &stored.partitions[i],
                None => return Err(Error::bug(format!("{}: the key's column `{name}` is nowhere", self.location))),
            };
            if column.null_count() > 0 {
                return Err(Error::input(format!(
                    "table {}: a row has NULL in column `{name}`, which is part of the key; leave such rows out (WHERE \
                     {name} IS NOT NULL), or give the key a value there",
                    self.location
                )));
            }
            columns.push(column.clone());
        }
        let sequences = match &self.keys.sequence {
            None => vec![],
            Some(field) => {
                let column = stored.file.column_by_name(field.name());
                let column = column.ok_or_else(|| Error::bug(format!("no sequence column `{}`", field.name())))?;
                if column.null_count() > 0 {
                    return Err(Error::input(format!(
                        "table {}: a row has NULL in column `{}`, by which rows are put in order (sequence_by)",
                        self.location,
                        field.name()
                    )));
                }
                sequence(column)?.values().to_vec()
            }
        };
        let in_files = self.keys.columns.iter().zip(&columns).filter(|(key, _)| key.partition.is_none());
        let prints = prints(&in_files.map(|(_, column)| column.clone()).collect::<Vec<_>>());
        Ok(KeyedRows { hashes: self.keys.keyer.hashes(&columns)?, prints, sequences, stored })
    }

    /// An error that names a key which came twice in no order.
    fn twice(&self, key: &str) -> Error {
        Error::input(format!(
            "table {}: the key {key} comes more than once, and nothing says which row is the newer; keep one row of it, or \
             name the column that tells (sequence_by)",
            self.location
        ))
    }

    fn named(&self, rows: &RecordBatch, row: usize) -> String {
        let of = |name: &str| {
            let column = rows.column_by_name(name)?;
            let shown = arrow::util::display::array_value_to_string(column, row).ok()?;
            Some(format!("{name} = {shown}"))
        };
        let said: Vec<String> = self.spec.columns.iter().filter_map(|name| of(name)).collect();
        format!("({})", said.join(", "))
    }
}

/// Rows with their keys, cut into partitions: keys ride along as columns.
pub(super) fn parts(shape: &Shape, keys: &KeyColumns, rows: KeyedRows, arrival: u64) -> Result<Vec<(Key, Part)>> {
    let fail = |e| Error::bug(format!("keys beside their rows: {e}"));
    let KeyedRows { stored, hashes, prints, sequences } = rows;
    let word = |i: usize| Arc::new(UInt64Array::from_iter_values(hashes.iter().map(|h| h[i]))) as ArrayRef;
    let sequences = if sequences.is_empty() { vec![i64::MIN; hashes.len()] } else { sequences };
    let has_prints = prints.is_some();
    let prints = prints.unwrap_or_else(|| vec![0; hashes.len()]);
    let riders: [ArrayRef; RIDERS] =
        [word(0), word(1), Arc::new(Int64Array::from(sequences)), Arc::new(UInt32Array::from(prints))];
    let mut fields = stored.file.schema().fields().to_vec();
    let rider =
        |(i, rider): (usize, &ArrayRef)| Arc::new(Field::new(format!("_{i}"), rider.data_type().clone(), false));
    fields.extend(riders.iter().enumerate().map(rider));
    let columns = stored.file.columns().iter().cloned().chain(riders).collect();
    let file = RecordBatch::try_new(Schema::new(fields).into(), columns).map_err(fail)?;
    let mut parts = vec![];
    for (key, part) in shape.split(StoredRows { file, partitions: stored.partitions })? {
        let width = part.num_columns() - RIDERS;
        let word = |i: usize| part.column(width + i).as_primitive::<UInt64Type>().values();
        let hashes = word(0).iter().zip(word(1)).map(|(a, b)| [*a, *b]).collect();
        let sequences = match keys.sequence {
            Some(_) => part.column(width + 2).as_primitive::<Int64Type>().values().to_vec(),
            None => vec![],
        };
        let prints = match has_prints {
            true => part.column(width + 3).as_primitive::<UInt32Type>().values().to_vec(),
            false => vec![],
        };
        let rows = RecordBatch::try_new(shape.file_schema.clone(), part.columns()[..width].to_vec());
        let keys = PartKeys { hashes, prints, sequences, arrival };
        parts.push((key, Part { rows: rows.map_err(fail)?, keys: Some(keys) }));
    }
    Ok(parts)
}

/// Rows of a batch that do the same.
pub(super) struct KeyedRows {
    pub(super) stored: StoredRows,
    pub(super) hashes: Vec<KeyHash>,
    pub(super) prints: Option<Vec<u32>>,
    /// Empty without a sequence column.
    pub(super) sequences: Vec<i64>,
}

impl KeyedRows {
    fn pick(self, rows: &UInt32Array) -> Result<KeyedRows> {
        let fail = |e| Error::bug(format!("rows of a batch that are left: {e}"));
        let picked = |i: u32| i as usize;
        let partitions = self.stored.partitions.iter().map(|column| take(column, rows, None));
        Ok(KeyedRows {
            hashes: rows.values().iter().map(|i| self.hashes[picked(*i)]).collect(),
            prints: self.prints.map(|prints| rows.values().iter().map(|i| prints[picked(*i)]).collect()),
            sequences: match self.sequences.is_empty() {
                true => vec![],
                false => rows.values().iter().map(|i| self.sequences[picked(*i)]).collect(),
            },
            stored: StoredRows {
                partitions: partitions.collect::<Result<_, _>>().map_err(fail)?,
                file: take_record_batch(&self.stored.file, rows).map_err(fail)?,
            },
        })
    }
}

#[async_trait]
impl EpochWriter for KeyedWriter {
    async fn write(&self, lane: usize, rows: RecordBatch) -> Result<()> {
        let (rows, deletes) = match self.operation {
            None => (rows, None),
            Some(at) => {
                let found = operations(&rows, at)?;
                (found.rows, found.deletes)
            }
        };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match self.rounds(&rows)? {
            None => self.take_rows(lane, rows, deletes).await,
            Some(rounds) => {
                for round in rounds {
                    let deletes = deletes.as_ref().map(|of| round.iter().map(|row| of[*row as usize]).collect());
                    let rows = take_record_batch(&rows, &UInt32Array::from(round))
                        .map_err(|e| Error::bug(format!("rows of a batch by their keys: {e}")))?;
                    self.take_rows(lane, rows, deletes).await?;
                }
                Ok(())
            }
        }
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        let rows = self.rows.writer.close().await?;
        let deletes = self.deletes.writer.close().await?;
        let mut all = rows;
        all.extend(deletes.into_iter().map(|mut encoded| {
            encoded.file.deletes = true;
            encoded
        }));
        let group = |encoded: &Encoded| group(self.keys.fixes_partition, &encoded.partition);
        let mut folded = fold(all.iter().map(|encoded| (group(encoded), &encoded.keys)));
        if let Some([_, (file, row)]) = folded.tie.filter(|_| !self.spec.fold) {
            let key = self.read_key(&all[file].file.path, all[file].file.size, row).await?;
            return Err(self.twice(&key));
        }
        if self.spec.merge == Merge::Partial {
            let encoding = &self.rows.encoding;
            let (place, shape, attempt) = (&encoding.place, self.rows.shape.clone(), encoding.attempt());
            let files = TableFiles { place, keys: &self.keys, shape, options: &self.options, attempt };
            folded = partial::within(&files, &mut all, folded).await?;
        }
        let outdone: Vec<Arc<RoaringTreemap>> = folded
            .outdone
            .iter()
            .filter(|rows| !rows.is_empty())
            .map(|rows| Arc::new(rows.iter().map(u64::from).collect()))
            .collect();
        let place = &self.rows.encoding.place;
        let mut vectors = vectors::write(place, self.rows.encoding.attempt(), &outdone).await?.into_iter();
        let (mut files, mut changes) = (vec![], Changes::default());
        for (mut encoded, outdone) in all.into_iter().zip(folded.outdone) {
            if !outdone.is_empty() {
                encoded.file.marks = vectors.next().map(marks::descriptor);
            }
            let (file, change) = written(encoded);
            files.push(file);
            changes.files.push(ChangeFile { outdone, ..change });
        }
        if let Some(first) = files.first() {
            self.pending.put(&first.path, changes);
        }
        Ok(PreparedCommit { files, ..PreparedCommit::default() })
    }
}

impl KeyedWriter {
    /// The rows of a batch in rounds, where rows of one key are merged: then each of them counts.
    fn rounds(&self, rows: &RecordBatch) -> Result<Option<Vec<Vec<u32>>>> {
        if self.spec.merge != Merge::Partial {
            return Ok(None);
        }
        let hashes = self.keyed(&self.deletes, &self.keys_alone(rows)?)?.hashes;
        let rounds = rounds(&hashes);
        match rounds.as_ref().and_then(|rounds| rounds.get(1)?.first()) {
            Some(row) if !self.spec.fold => Err(self.twice(&self.named(rows, *row as usize))),
            _ => Ok(rounds),
        }
    }

    /// Takes rows and which of them delete, folded within the batch.
    async fn take_rows(&self, lane: usize, rows: RecordBatch, deletes: Option<Vec<bool>>) -> Result<()> {
        let arrival = self.batches.fetch_add(1, Ordering::Relaxed);
        let Some(deletes) = deletes else {
            let keyed = self.keyed(&self.rows, &rows)?;
            let (left, tie) = fold_batch(&keyed.hashes, &keyed.sequences);
            if let Some([_, row]) = tie.filter(|_| !self.spec.fold) {
                return Err(self.twice(&self.named(&rows, row)));
            }
            let keyed = match left {
                Some(left) => keyed.pick(&UInt32Array::from(left))?,
                None => keyed,
            };
            return self.take(&self.rows, lane, arrival, keyed).await;
        };
        // Both kinds fold together, by the keys that both have.
        let fail = |e| Error::bug(format!("rows by what they do: {e}"));
        let alone = self.keys_alone(&rows)?;
        let keyed = self.keyed(&self.deletes, &alone)?;
        let (left, tie) = fold_batch(&keyed.hashes, &keyed.sequences);
        if let Some([_, row]) = tie.filter(|_| !self.spec.fold) {
            return Err(self.twice(&self.named(&rows, row)));
        }
        let left = left.unwrap_or_else(|| (0..rows.num_rows() as u32).collect());
        let (gone, kept): (Vec<u32>, Vec<u32>) = left.into_iter().partition(|row| deletes[*row as usize]);
        if !kept.is_empty() {
            let kept = take_record_batch(&rows, &UInt32Array::from(kept)).map_err(fail)?;
            let kept = self.keyed(&self.rows, &kept)?;
            self.take(&self.rows, lane, arrival, kept).await?;
        }
        if !gone.is_empty() {
            self.take(&self.deletes, 0, arrival, keyed.pick(&UInt32Array::from(gone))?).await?;
        }
        Ok(())
    }

    /// The rows with nothing but their keys and what orders them.
    fn keys_alone(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let kept = |name: &String| self.spec.columns.contains(name) || self.spec.sequence_by.as_ref() == Some(name);
        let schema = rows.schema();
        let column = |(field, column): (&Arc<Field>, &ArrayRef)| match kept(field.name()) {
            true => column.clone(),
            false => new_null_array(field.data_type(), rows.num_rows()),
        };
        let columns = schema.fields().iter().zip(rows.columns()).map(column).collect();
        let open: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        RecordBatch::try_new(Schema::new(open).into(), columns).map_err(|e| Error::bug(format!("keys alone: {e}")))
    }

    /// The key of a row that was written, for a message.
    async fn read_key(&self, path: &str, size: u64, row: usize) -> Result<String> {
        let place = &self.rows.encoding.place;
        let batch = scan::row(place, &self.keys, &KeyFile { path, size, partition: &[] }, row).await?;
        Ok(batch.map_or_else(|| format!("of row {row} of {path}"), |batch| self.named(&batch, 0)))
    }
}
