//! The facts: `OUT/day=YYYY-MM-DD/part-0.parquet`, each with the columns
//!
//! | column | type | |
//! |---|---|---|
//! | `ts` | timestamp, µs, no zone | roughly in order, as facts usually are: each up to [`JITTER`] off its place |
//! | `k` | 64-bit integer, or text | uniform in `0..keys` |
//! | `v` | 64-bit float | uniform in 0.00 to 999.99, two digits |
//!
//! **Invariant:** every byte is a function of the parameters alone. Each day has its own stream of random numbers, so
//! the number of threads does not matter, and fewer days are a prefix of more.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use chrono::{Days, NaiveDate, NaiveTime};
use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::Result;

/// Rows in a row group: what DuckDB (122,880) and others write, and enough of them a file for two threads to share it.
const ROW_GROUP: u64 = 131_072;

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// How far a fact may be from its place in the order: half a minute either way.
const JITTER: i64 = 30_000_000;

/// What to write.
#[derive(Args)]
pub(crate) struct Facts {
    /// The folder to write
    #[arg(long)]
    out: PathBuf,
    /// The first day
    #[arg(long, default_value = "2026-01-01")]
    first: NaiveDate,
    /// How many days
    #[arg(long, default_value_t = 180)]
    days: u64,
    /// Rows of each day
    #[arg(long, default_value = "600000")]
    rows: NonZeroU64,
    /// Different keys
    #[arg(long, default_value = "1000")]
    keys: NonZeroU64,
    /// Other data of the same shape
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keys are text, not numbers
    #[arg(long)]
    string_keys: bool,
    /// Threads that write
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Facts {
    /// Writes all days, `threads` of them at a time.
    pub(crate) fn write(&self) -> Result<()> {
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(|| self.write_days(&next))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)
        })
    }

    /// Writes days off the shared counter until there are none left.
    fn write_days(&self, next: &AtomicU64) -> Result<()> {
        loop {
            let day = next.fetch_add(1, Ordering::Relaxed);
            if day >= self.days {
                return Ok(());
            }
            self.write_day(day)?;
        }
    }

    fn write_day(&self, day: u64) -> Result<()> {
        let date = self.first.checked_add_days(Days::new(day)).ok_or("the last day is beyond the calendar")?;
        let folder = self.out.join(format!("day={date}"));
        fs::create_dir_all(&folder)?;

        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(usize::try_from(ROW_GROUP)?))
            .build();
        let schema = self.schema();
        let file = File::create(folder.join("part-0.parquet"))?;
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))?;

        let start = date.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
        let mut random = Random::new(self.seed, day);
        let rows = self.rows.get();
        for first in (0..rows).step_by(usize::try_from(ROW_GROUP)?) {
            let end = rows.min(first + ROW_GROUP);
            writer.write(&self.batch(&schema, start, first..end, &mut random)?)?;
        }
        writer.close()?;
        Ok(())
    }

    fn batch(
        &self,
        schema: &SchemaRef,
        start: i64,
        rows: std::ops::Range<u64>,
        random: &mut Random,
    ) -> Result<RecordBatch> {
        let room = usize::try_from(rows.end - rows.start)?;
        let mut times = Vec::with_capacity(room);
        let mut keys = Vec::with_capacity(room);
        let mut values = Vec::with_capacity(room);
        for row in rows {
            let place = (i128::from(row) * i128::from(DAY) / i128::from(self.rows.get())) as i64;
            let jitter = random.below(2 * JITTER as u64 + 1) as i64 - JITTER;
            times.push(start + (place + jitter).clamp(0, DAY - 1));
            keys.push(random.below(self.keys.get()) as i64);
            values.push(random.below(100_000) as f64 / 100.0);
        }
        let keys: ArrayRef = if self.string_keys {
            Arc::new(StringArray::from_iter_values(keys.into_iter().map(|key| format!("key-{key:08}"))))
        } else {
            Arc::new(Int64Array::from(keys))
        };
        let columns: Vec<ArrayRef> =
            vec![Arc::new(TimestampMicrosecondArray::from(times)), keys, Arc::new(Float64Array::from(values))];
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }

    fn schema(&self) -> SchemaRef {
        let key = if self.string_keys { DataType::Utf8 } else { DataType::Int64 };
        Arc::new(Schema::new(vec![
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
            Field::new("k", key, false),
            Field::new("v", DataType::Float64, false),
        ]))
    }
}

/// SplitMix64 (Steele, Lea, Flood: *Fast Splittable Pseudorandom Number Generators*, 2014).
struct Random(u64);

impl Random {
    /// The stream of one day.
    fn new(seed: u64, day: u64) -> Self {
        let mut seeds = Random(seed);
        let mut random = Random(seeds.next() ^ day.wrapping_mul(0xd1b5_4a32_d192_ed03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`, but for a bias below 2⁻⁴⁰ at the bounds used here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_a_stream_of_its_own_that_does_not_change() {
        let draw = |seed, day| {
            (0..4).map(|_| ()).scan(Random::new(seed, day), |r, ()| Some(r.below(1000))).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert!(draw(7, 7).iter().all(|&n| n < 1000));
    }
}
