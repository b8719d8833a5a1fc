//! The facts: `OUT/PARTITION/part-0.parquet`, their partitions as in `layout.rs`, their columns as in `columns.rs`, and
//! the tables they may be joined with, `dimensions.rs`.
//!
//! **Invariant:** every byte is a function of the parameters alone. Each day or hour has its own stream of random numbers,
//! so the number of threads does not matter, and fewer days are a prefix of more.

mod columns;
mod dimensions;
mod layout;
mod random;

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use self::columns::{Columns, Shape};
pub(crate) use self::dimensions::Dimensions;
use self::layout::{Layout, Partition};
use self::random::Random;
use crate::Result;

/// Rows in a row group: what DuckDB (122,880) and others write, and enough of them a file for two threads to share it.
const ROW_GROUP: u64 = 131_072;

/// What to write.
#[derive(Args)]
pub(crate) struct Facts {
    /// The folder to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    layout: Layout,
    /// Which columns
    #[arg(long, value_enum, default_value_t = Shape::Plain)]
    shape: Shape,
    /// Rows of each day, or of each hour
    #[arg(long, default_value = "600000")]
    rows: NonZeroU64,
    /// Different keys
    #[arg(long, default_value = "1000")]
    keys: NonZeroU64,
    /// Other data of the same shape
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that write
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Facts {
    /// Writes all partitions, `threads` of them at a time.
    pub(crate) fn write(&self) -> Result<()> {
        let columns = Columns::new(self.shape, self.keys.get());
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            let writers: Vec<_> =
                (0..self.threads.max(1)).map(|_| scope.spawn(|| self.write_partitions(&columns, &next))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked")?)
        })
    }

    /// Writes partitions off the shared counter until there are none left.
    fn write_partitions(&self, columns: &Columns, next: &AtomicU64) -> Result<()> {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= self.layout.partitions() {
                return Ok(());
            }
            self.write_partition(columns, &self.layout.partition(place)?)?;
        }
    }

    fn write_partition(&self, columns: &Columns, partition: &Partition) -> Result<()> {
        let folder = self.out.join(&partition.folder);
        fs::create_dir_all(&folder)?;

        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(usize::try_from(ROW_GROUP)?))
            .build();
        let file = File::create(folder.join("part-0.parquet"))?;
        let mut writer = ArrowWriter::try_new(file, columns.schema(), Some(properties))?;

        let rows = self.rows.get();
        for stretch in &partition.stretches {
            let mut random = Random::new(self.seed, stretch.number);
            for first in (0..rows).step_by(usize::try_from(ROW_GROUP)?) {
                let some = first..rows.min(first + ROW_GROUP);
                writer.write(&columns.batch(stretch, some, rows, &mut random)?)?;
            }
        }
        writer.close()?;
        Ok(())
    }
}
