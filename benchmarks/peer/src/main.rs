//! The benchmarks' Rust half: `generate` and `dimensions` write what all engines read, `batch` is the peer that answers the
//! same SQL with DataFusion in one go. It knows nothing of Watershed, so it measures what DataFusion does by itself.
//! `benchmarks/run.py` starts it as a process of its own and measures from outside.

mod batch;
mod generate;

use std::error::Error;

use clap::{Parser, Subcommand};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "The benchmarks' data, and DataFusion's batch answer to the same question")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write facts as a Parquet folder with a partition a day, an hour or a month
    Generate(generate::Facts),
    /// Write the tables that facts are joined with
    Dimensions(generate::Dimensions),
    /// Run one SELECT over the folder, and write its rows as Parquet
    Batch(batch::Batch),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Generate(facts) => facts.write(),
        Command::Dimensions(tables) => tables.write(),
        Command::Batch(batch) => batch.run(),
    }
}
