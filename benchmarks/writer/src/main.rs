//! Writers of keyed tables as an embedder has them, one process that commits again and again; and of logs.
//!
//! `stream` upserts rows with random keys into one partition, a commit a second; `single` upserts one row, and then one more
//! with a warm index. Both tell what each commit took as a line of JSON; `benchmarks/run.py` starts them and measures memory from
//! outside. `messages` fills a topic, and `arrivals` tells when the messages of one came.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::sink::{CommitIdentity, Sink};
use watershed_lake::{Create, DeltaSink, KeySpec, PartitionBy, SinkOptions, Stores, TableSpec};

mod arrivals;
mod messages;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Writers of keyed tables that commit again and again from one process, and of logs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Upsert rows with random keys into one partition, a commit a second
    Stream(Stream),
    /// Upsert one row, and another with a warm index
    Single(Single),
    /// Write messages into a topic
    Messages(messages::Messages),
    /// Read what a topic has, and when the broker took it
    Arrivals(arrivals::Arrivals),
}

#[derive(Args)]
struct Stream {
    /// Where the table is to be made
    table: String,
    /// Rows a second
    #[arg(long, default_value_t = 150_000)]
    rate: u64,
    /// Keys that there are
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

#[derive(Args)]
struct Single {
    /// A table with the columns id and v
    table: String,
    /// Keys that it has, from 0
    #[arg(long)]
    keys: u64,
    /// Bytes that the key index may take
    #[arg(long, default_value_t = 192 << 20)]
    index: usize,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Stream(stream) => runtime.block_on(stream.run()),
        Command::Single(single) => runtime.block_on(single.run()),
        Command::Messages(messages) => runtime.block_on(messages.run()),
        Command::Arrivals(arrivals) => arrivals.run(),
    }
}

/// A generator of numbers that look random and are the same in each run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn key(columns: &[&str]) -> KeySpec {
    let columns = columns.iter().map(|c| c.to_string()).collect();
    KeySpec { columns, fold: true, upgrade: true, ..KeySpec::default() }
}

fn identity(application: &str, epoch: u64) -> CommitIdentity {
    CommitIdentity { application: application.to_string(), epoch, after: (epoch > 1).then(|| epoch - 1) }
}

impl Stream {
    async fn run(self) -> Result<()> {
        let mut numbers = Numbers(1);
        let spec = TableSpec {
            schema: self.rows(&mut numbers, 0)?.schema(),
            partition_by: PartitionBy::parse("part")?,
            properties: BTreeMap::new(),
            owner: None,
            key: Some(key(&["part", "id"])),
        };
        let options = SinkOptions { create: Create::Now, lanes: 2, ..SinkOptions::default() };
        let clock = Arc::new(SystemClock::default());
        let sink = DeltaSink::open(&Stores::default(), "stream", &self.table, spec, options, clock.clone()).await?;
        let began = clock.elapsed();
        let (mut commits, mut rows) = (vec![], 0);
        for second in 1..=self.seconds {
            let batches: Vec<RecordBatch> =
                (0..10).map(|_| self.rows(&mut numbers, self.rate / 10)).collect::<Result<_>>()?;
            let due = began + Duration::from_secs(second - 1);
            tokio::time::sleep(due.saturating_sub(clock.elapsed())).await;
            let writer = sink.writer()?;
            let writing = clock.elapsed();
            for batch in batches {
                rows += batch.num_rows();
                writer.write(0, batch).await?;
            }
            let written = clock.elapsed() - writing;
            let committing = clock.elapsed();
            let prepared = writer.finish().await?;
            sink.commit(&identity("stream", second), &prepared, &BTreeMap::new()).await?;
            commits
                .push(json!({"write": written.as_secs_f64(), "commit": (clock.elapsed() - committing).as_secs_f64()}));
        }
        println!("{}", json!({"rows": rows, "seconds": (clock.elapsed() - began).as_secs_f64(), "commits": commits}));
        Ok(())
    }

    fn rows(&self, numbers: &mut Numbers, count: u64) -> Result<RecordBatch> {
        let ids: Vec<i64> = (0..count).map(|_| (numbers.next() % self.keys) as i64).collect();
        let values = Float64Array::from_iter_values(ids.iter().map(|_| numbers.next() as f64 / u64::MAX as f64));
        let texts = StringArray::from_iter_values(ids.iter().map(|id| format!("row-{}", id % 1000)));
        let columns: [(&str, ArrayRef); 4] = [
            ("part", Arc::new(Int64Array::from(vec![7; ids.len()]))),
            ("id", Arc::new(Int64Array::from(ids))),
            ("v", Arc::new(values)),
            ("s", Arc::new(texts)),
        ];
        Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?)
    }
}

impl Single {
    async fn run(self) -> Result<()> {
        let row = |id: u64| {
            let columns: [(&str, ArrayRef); 2] =
                [("id", Arc::new(Int64Array::from(vec![id as i64]))), ("v", Arc::new(Float64Array::from(vec![-1.0])))];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        };
        let spec = TableSpec {
            schema: row(0)?.schema(),
            partition_by: vec![],
            properties: BTreeMap::new(),
            owner: None,
            key: Some(key(&["id"])),
        };
        let options = SinkOptions { index: self.index, ..SinkOptions::default() };
        let clock = Arc::new(SystemClock::default());
        let sink = DeltaSink::open(&Stores::default(), "single", &self.table, spec, options, clock.clone()).await?;
        let mut took = vec![];
        for epoch in 1..=4 {
            let began = clock.elapsed();
            let writer = sink.writer()?;
            writer.write(0, row(epoch * 7_654_321 % self.keys)?).await?;
            let prepared = writer.finish().await?;
            sink.commit(&identity("single", epoch), &prepared, &BTreeMap::new()).await?;
            took.push((clock.elapsed() - began).as_secs_f64());
        }
        println!("{}", json!({ "commits": took }));
        Ok(())
    }
}
