//! `watershed compact TABLE…`

use clap::Args;
use watershed::upkeep::{CompactOptions, RowOrder};
use watershed_core::settings::parse_size;
use watershed_core::{Error, Result};

use super::Global;
use super::progress::{bytes, count, print_line};

#[derive(Args)]
pub(crate) struct Compact {
    /// Tables and materialized views by name, or Delta tables by location
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,

    /// Size that files shall have; those of less than half are put together [default: 128 MB]
    #[arg(long, value_name = "SIZE")]
    target_file_size: Option<String>,

    /// Part of marked rows, in percent, from which on a file is rewritten whatever its size
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    dead_rows: u8,

    /// Put the rows of whole partitions in order by these columns, the first of them first; what is in order stays
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with = "z_order_by")]
    sort_by: Vec<String>,

    /// Put the rows of whole partitions in order by all of these columns alike, along a Z-order curve
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    z_order_by: Vec<String>,
}

impl Compact {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let engine = global.engine(&[], vec![])?;
        let mut options = CompactOptions { dead_rows: f64::from(self.dead_rows) / 100.0, ..CompactOptions::default() };
        if let Some(size) = &self.target_file_size {
            let unclear = || Error::input(format!("--target-file-size {size}: give a size, such as '128 MB'"));
            options.target_file_size = parse_size(size).filter(|size| *size > 0).ok_or_else(unclear)?;
        }
        options.order = match (self.sort_by.is_empty(), self.z_order_by.is_empty()) {
            (true, true) => None,
            (false, _) => Some(RowOrder::Sorted(self.sort_by)),
            (true, false) => Some(RowOrder::ZOrder(self.z_order_by)),
        };
        for table in &self.tables {
            let done = engine.compact(table, options.clone()).await?;
            if done.yielded > 0 {
                print_line(&format!(
                    "{table}: {} files were changed by others meanwhile and left as they are; compact again",
                    count(done.yielded)
                ));
            }
            match done.version {
                None if done.yielded == 0 => print_line(&format!("{table}: nothing to do")),
                None => {}
                Some(version) => print_line(&format!(
                    "{table}: {} files ({}, {} marked rows) became {} ({}), version {version}",
                    count(done.files),
                    bytes(done.bytes),
                    count(done.marked),
                    count(done.new_files),
                    bytes(done.new_bytes),
                )),
            }
        }
        Ok(())
    }
}
