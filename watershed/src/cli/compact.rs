//! `watershed compact TABLE…`

use clap::Args;
use watershed::upkeep::CompactOptions;
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
}

impl Compact {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let engine = global.engine(&[], vec![])?;
        let mut options = CompactOptions { dead_rows: f64::from(self.dead_rows) / 100.0, ..CompactOptions::default() };
        if let Some(size) = &self.target_file_size {
            let unclear = || Error::input(format!("--target-file-size {size}: give a size, such as '128 MB'"));
            options.target_file_size = parse_size(size).filter(|size| *size > 0).ok_or_else(unclear)?;
        }
        for table in &self.tables {
            let done = engine.compact(table, options).await?;
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
