//! What a topic has, and when the broker took each message: a line each, milliseconds since 1970 and the payload.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::time::Duration;

use clap::Args;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::Result;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Arrivals {
    topic: String,
    /// A bootstrap.servers
    #[arg(long)]
    brokers: String,
}

impl Arrivals {
    /// Reads all that the topic has now.
    pub(crate) fn run(self) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", "arrivals").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(&self.topic), TIMEOUT)?;
        let topic = metadata.topics().first().ok_or("the broker does not know the topic")?;
        let (mut ends, mut wanted) = (BTreeMap::new(), TopicPartitionList::new());
        for partition in topic.partitions() {
            let (start, end) = consumer.fetch_watermarks(&self.topic, partition.id(), TIMEOUT)?;
            if start < end {
                ends.insert(partition.id(), end);
                wanted.add_partition_offset(&self.topic, partition.id(), Offset::Offset(start))?;
            }
        }
        consumer.assign(&wanted)?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        while !ends.is_empty() {
            let message = consumer.poll(TIMEOUT).ok_or("nothing comes")??;
            let at = message.timestamp().to_millis().ok_or("a message without a time")?;
            writeln!(out, "{at} {}", String::from_utf8_lossy(message.payload().unwrap_or_default()))?;
            if ends.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                ends.remove(&message.partition());
            }
        }
        Ok(out.flush()?)
    }
}
