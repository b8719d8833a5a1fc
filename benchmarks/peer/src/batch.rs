//! The peer: one SELECT over the whole folder, planned and run by DataFusion as it comes, written by its own `COPY`.

use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use clap::Args;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use crate::Result;

/// What to run.
#[derive(Args)]
pub(crate) struct Batch {
    /// The folder of facts; the query's table `facts`
    #[arg(long)]
    data: PathBuf,
    /// What the folder is partitioned by: `day`, a date, or `hour` or `month`, which are text
    #[arg(long, default_value = "day")]
    partition: String,
    /// Another table of the query, and the folder of its Parquet files
    #[arg(long = "table", value_name = "NAME=FOLDER", value_parser = named)]
    tables: Vec<(String, PathBuf)>,
    /// The file that holds the SELECT
    #[arg(long)]
    sql: PathBuf,
    /// The folder to write
    #[arg(long)]
    out: PathBuf,
    /// How to compress what is written, as in DataFusion's settings
    #[arg(long, default_value = "snappy")]
    compression: String,
    /// Threads, and partitions that a plan aims at
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

impl Batch {
    /// Runs the query and prints how many rows it wrote.
    pub(crate) fn run(&self) -> Result<()> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads)
            .enable_all()
            .build()?
            .block_on(self.copy())
    }

    async fn copy(&self) -> Result<()> {
        let mut config = SessionConfig::new().with_target_partitions(self.threads);
        config.options_mut().execution.parquet.compression = Some(self.compression.clone());
        let context = SessionContext::new_with_config(config);
        let partition_type = if self.partition == "day" { DataType::Date32 } else { DataType::Utf8 };
        let hive = ParquetReadOptions::default().table_partition_cols(vec![(self.partition.clone(), partition_type)]);
        context.register_parquet("facts", folder(&self.data), hive).await?;
        for (name, location) in &self.tables {
            context.register_parquet(name, folder(location), ParquetReadOptions::default()).await?;
        }

        let select = std::fs::read_to_string(&self.sql)?;
        let target = folder(&self.out).replace('\'', "''");
        let copy = format!("COPY ({}) TO '{target}' STORED AS PARQUET", select.trim().trim_end_matches(';'));
        let written = context.sql(&copy).await?.collect().await?;
        println!("{}", arrow::util::pretty::pretty_format_batches(&written)?);
        Ok(())
    }
}

/// With a slash at its end, by which DataFusion knows a folder.
fn folder(path: &Path) -> String {
    format!("{}/", path.display())
}

fn named(text: &str) -> std::result::Result<(String, PathBuf), String> {
    let (name, location) = text.split_once('=').ok_or("say NAME=FOLDER")?;
    Ok((name.to_string(), PathBuf::from(location)))
}
