//! `watershed load FILES… --into LOCATION`

use clap::Args;
use watershed::LoadRequest;
use watershed_core::Result;

use super::Global;
use super::flags::ProcessFlags;
use super::progress::{bytes, count, print_line, time};

#[derive(Args)]
pub(crate) struct Load {
    /// Files, folders or patterns, on disk or in an object store (.parquet, .csv, .ndjson)
    #[arg(required = true, value_name = "FILES")]
    files: Vec<String>,

    /// The Delta table; made if it is not there
    #[arg(long, value_name = "LOCATION")]
    into: String,

    /// The column that says when a row happened
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,

    /// How the table is partitioned: `day` or `hour` of the time column, or a column's name
    #[arg(long, value_name = "day|hour|COLUMN")]
    partition_by: Option<String>,

    /// Load files again that were loaded before
    #[arg(long)]
    again: bool,

    /// Size of data files [default: 128 MB]
    #[arg(long, value_name = "SIZE")]
    target_file_size: Option<String>,

    #[command(flatten)]
    process: ProcessFlags,
}

impl Load {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let mut settings = self.process.given();
        settings.extend(self.target_file_size.map(|size| ("target_file_size".to_string(), size)));
        let engine = global.engine(&[], settings)?;
        let request = LoadRequest {
            files: self.files,
            into: self.into,
            time_column: self.time_column,
            partition_by: self.partition_by,
            again: self.again,
        };
        let loaded = engine.load(&request).await?;
        for file in &loaded.skipped {
            print_line(&format!("skipped {}: loaded before (--again loads it once more)", file.url));
        }
        let Some(version) = loaded.version else {
            print_line("nothing new");
            return Ok(());
        };
        let (files, size) = (loaded.files.len(), loaded.files.iter().map(|f| f.size).sum());
        print_line(&format!(
            "loaded {} rows from {files} file{} ({}) into {} in {}, version {version}",
            count(loaded.rows),
            if files == 1 { "" } else { "s" },
            bytes(size),
            loaded.location,
            time(loaded.elapsed),
        ));
        Ok(())
    }
}
