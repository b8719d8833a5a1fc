//! `watershed load FILES… --into LOCATION`

use clap::{Args, ValueEnum};
use watershed::{LoadMode, LoadRequest, Merge, WriteMode};
use watershed_core::Result;

use super::Global;
use super::flags::ProcessFlags;
use super::progress::{bytes, count, print_line, time};

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Append,
    Upsert,
}

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

    /// How rows go into the table: appended, or in place of those with the same key [default: upsert if the table has a key]
    #[arg(long, value_name = "append|upsert")]
    mode: Option<Mode>,

    /// The columns of the key, separated by commas
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    key: Vec<String>,

    /// The column that tells which row of a key is the newer; an older one never replaces a newer
    #[arg(long, value_name = "COLUMN")]
    sequence_by: Option<String>,

    /// The column that says what a row does to its key: upsert, insert, update or delete (also i, u, d, and Debezium's)
    #[arg(long, value_name = "COLUMN")]
    operation: Option<String>,

    /// What a new row does to the old one: replaces it, or keeps its values where the new ones are NULL [default: replace]
    #[arg(long, value_name = "replace|partial", value_parser = ["replace", "partial"])]
    merge: Option<String>,

    /// How replaced rows leave the table: marked in deletion vectors, or their files written anew [default: merge-on-read]
    #[arg(long, value_name = "merge-on-read|copy-on-write", value_parser = ["merge-on-read", "copy-on-write"])]
    write_mode: Option<String>,

    /// Let a table that another made use deletion vectors from now on; older readers then refuse it
    #[arg(long)]
    upgrade: bool,

    /// Size of data files [default: 128 MB]
    #[arg(long, value_name = "SIZE")]
    target_file_size: Option<String>,

    /// In a table with a key: small files of a partition from which on they are put together; 0: never [default: 16]
    #[arg(long, value_name = "FILES")]
    compact_files: Option<u64>,

    #[command(flatten)]
    process: ProcessFlags,
}

impl Load {
    pub(crate) async fn run(self, global: &Global) -> Result<()> {
        let mut settings = self.process.given();
        settings.extend(self.target_file_size.map(|size| ("target_file_size".to_string(), size)));
        settings.extend(self.compact_files.map(|files| ("compact_files".to_string(), files.to_string())));
        let engine = global.engine(&[], settings)?;
        let request = LoadRequest {
            files: self.files,
            into: self.into,
            time_column: self.time_column,
            partition_by: self.partition_by,
            again: self.again,
            mode: self.mode.map(|mode| match mode {
                Mode::Append => LoadMode::Append,
                Mode::Upsert => LoadMode::Upsert,
            }),
            key: self.key,
            sequence_by: self.sequence_by,
            operation: self.operation,
            upgrade: self.upgrade,
            merge: self.merge.as_deref().map(Merge::parse).transpose()?,
            write_mode: self.write_mode.as_deref().map(WriteMode::parse).transpose()?,
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
