//! The tables that facts of the shape `sales` are joined with: `OUT/NAME/part-0.parquet`, a row for each key.
//!
//! | table | rows | columns |
//! |---|---|---|
//! | `customers` | as many as keys | `k`, `segment` (5 kinds) |
//! | `products` | [`PRODUCTS`] | `product`, `category` (40 kinds) |
//! | `regions` | [`REGIONS`] | `region`, `country` (25 kinds), `tax` (0.00 to 0.24) |
//!
//! **Invariant:** every byte is a function of the parameters alone.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use clap::Args;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::random::Random;
use crate::Result;

/// Keys of `products`, from 0.
pub(super) const PRODUCTS: u64 = 100_000;

/// Keys of `regions`, from 0.
pub(super) const REGIONS: u64 = 200;

/// What to write.
#[derive(Args)]
pub(crate) struct Dimensions {
    /// The folder to write
    #[arg(long)]
    out: PathBuf,
    /// Different keys of the facts
    #[arg(long, default_value = "1000")]
    keys: NonZeroU64,
    /// Other data of the same shape
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Dimensions {
    /// Writes all three tables.
    pub(crate) fn write(&self) -> Result<()> {
        // Streams of their own: no day of facts has so high a number.
        let draw = |table: u64, rows: u64, kinds: u64| {
            let mut random = Random::new(self.seed, u64::MAX - table);
            (0..rows).map(|_| random.below(kinds)).collect::<Vec<u64>>()
        };
        let text = |name: &str, kinds: &[u64]| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(kinds.iter().map(|kind| format!("{name} {kind:02}"))))
        };
        let keys = |rows: u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..rows.cast_signed())) };

        let customers = self.keys.get();
        let segments = text("segment", &draw(0, customers, 5));
        self.table("customers", vec![("k", keys(customers)), ("segment", segments)])?;

        let categories = text("category", &draw(1, PRODUCTS, 40));
        self.table("products", vec![("product", keys(PRODUCTS)), ("category", categories)])?;

        let countries = draw(2, REGIONS, 25);
        let tax = Arc::new(Float64Array::from_iter_values(countries.iter().map(|&country| country as f64 / 100.0)));
        let countries = text("country", &countries);
        self.table("regions", vec![("region", keys(REGIONS)), ("country", countries), ("tax", tax)])
    }

    fn table(&self, name: &str, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
        let folder = self.out.join(name);
        fs::create_dir_all(&folder)?;
        let batch = RecordBatch::try_from_iter(columns)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer =
            ArrowWriter::try_new(File::create(folder.join("part-0.parquet"))?, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(())
    }
}
