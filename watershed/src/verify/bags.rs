//! Rows without windows, compared as bags in two readings. The first counts rows and sums their hashes, bucket by bucket, in
//! memory that does not depend on how many there are; the second looks only at rows of buckets that differ.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::dataframe::DataFrame;
use futures::TryStreamExt;
use watershed_core::Result;

use super::compare::{comparable, odd, shown};
use super::{Difference, Verification};
use crate::batch::in_query;

const BUCKETS: u64 = 1 << 14;

/// Distinct rows that are looked at in the second reading, at most.
const MOST: usize = 1 << 20;

/// Compares two bags and adds what differs.
pub(super) async fn compare(expected: DataFrame, found: DataFrame, show: usize, told: &mut Verification) -> Result<()> {
    let schema = found.schema().inner().clone();
    let mut buckets = vec![(0i64, 0u64); BUCKETS as usize];
    for (frame, sign) in [(expected.clone(), 1i64), (found.clone(), -1)] {
        let mut rows = 0;
        each(frame, &schema, |hash, _, _, _| {
            let bucket = &mut buckets[(hash % BUCKETS) as usize];
            bucket.0 += sign;
            bucket.1 = if sign > 0 { bucket.1.wrapping_add(hash) } else { bucket.1.wrapping_sub(hash) };
            rows += 1;
            Ok(())
        })
        .await?;
        *(if sign > 0 { &mut told.expected } else { &mut told.found }) += rows;
    }
    if buckets.iter().all(|bucket| *bucket == (0, 0)) {
        return Ok(());
    }
    type Row = (i64, Vec<(String, String)>);
    let mut differing: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    let mut too_many = false;
    for (frame, sign) in [(expected, 1i64), (found, -1)] {
        each(frame, &schema, |hash, bytes, columns, row| {
            if buckets[(hash % BUCKETS) as usize] == (0, 0) {
                return Ok(());
            }
            if let Some(known) = differing.get_mut(bytes) {
                known.0 += sign;
            } else if differing.len() < MOST {
                let value = |(i, c): (usize, &ArrayRef)| Ok((schema.field(i).name().clone(), shown(c, row)?));
                differing.insert(bytes.to_vec(), (sign, columns.iter().enumerate().map(value).collect::<Result<_>>()?));
            } else {
                too_many = true;
            }
            Ok(())
        })
        .await?;
    }
    if too_many {
        told.notes.push(format!("more rows differ than can be told one by one; the counts are those of {MOST} rows"));
    }
    for (count, text) in differing.into_values().filter(|(count, _)| *count != 0) {
        let times = count.unsigned_abs();
        *(if count > 0 { &mut told.missing } else { &mut told.extra }) += times;
        for _ in 0..times.min(show.saturating_sub(told.shown.len()) as u64) {
            told.shown.push(match count > 0 {
                true => Difference::Missing { expected: text.clone() },
                false => Difference::Extra { found: text.clone() },
            });
        }
    }
    Ok(())
}

/// Every row with its hash and its bytes, in columns of one schema.
async fn each(
    frame: DataFrame,
    schema: &SchemaRef,
    mut row: impl FnMut(u64, &[u8], &[ArrayRef], usize) -> Result<()>,
) -> Result<()> {
    let mut batches = frame.execute_stream().await.map_err(in_query)?;
    let mut converter: Option<RowConverter> = None;
    while let Some(batch) = batches.try_next().await.map_err(in_query)? {
        let columns = alike(&batch, schema)?;
        let plain = comparable(&columns)?;
        if converter.is_none() {
            let fields = plain.iter().map(|c| SortField::new(c.data_type().clone())).collect();
            converter = Some(RowConverter::new(fields).map_err(odd)?);
        }
        let Some(converter) = &converter else { continue };
        let rows = converter.convert_columns(&plain).map_err(odd)?;
        for i in 0..batch.num_rows() {
            let bytes = rows.row(i);
            // Its keys are fixed, so both readings have the same buckets.
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes.data());
            row(hasher.finish(), bytes.data(), &columns, i)?;
        }
    }
    Ok(())
}

fn alike(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<ArrayRef>> {
    let pairs = batch.columns().iter().zip(schema.fields());
    pairs.map(|(column, field)| cast(column, field.data_type()).map_err(odd)).collect()
}
