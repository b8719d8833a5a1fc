//! What tests do with topics: make and change them, write messages, and look at what there is without our own reader.
//!
//! Whatever returns has happened: a topic that was made is led, messages are acknowledged, a transaction is ended in the
//! log too, and what was deleted stays so if the broker is killed then.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};
use watershed_core::clock::{Clock, SystemClock};

use super::{Broker, patiently};

type Admin = AdminClient<DefaultClientContext>;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A message to be written: partition, key, payload (`None`: a tombstone) and time in milliseconds (`None`: now).
pub(crate) type Message = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

/// A name, and a value that may be none.
pub(crate) type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
}

impl Broker {
    /// Makes a topic with these properties, such as `retention.ms`; all others are the broker's.
    pub(crate) fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let admin = self.admin();
        let made = block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|topic| drop(topic.unwrap()));
        wait_for(&admin, topic, Some(partitions));
    }

    /// Adds partitions until the topic has `total`.
    pub(crate) fn add_partitions(&self, topic: &str, total: i32) {
        let new = NewPartitions::new(topic, usize::try_from(total).unwrap());
        let admin = self.admin();
        let made = block_on(admin.create_partitions([&new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|topic| drop(topic.unwrap()));
        wait_for(&admin, topic, Some(total));
    }

    /// Gives a topic this property, and all others the broker's.
    pub(crate) fn configure(&self, topic: &str, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let altered = block_on(self.admin().alter_configs([&change], &AdminOptions::new())).unwrap();
        altered.into_iter().for_each(|topic| drop(topic.unwrap()));
    }

    pub(crate) fn delete(&self, topic: &str) {
        let admin = self.admin();
        let deleted = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
        deleted.into_iter().for_each(|topic| drop(topic.unwrap()));
        wait_for(&admin, topic, None);
    }

    /// Deletes the messages of a partition before an offset.
    pub(crate) fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        let deleted = block_on(self.admin().delete_records(&offsets, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|partition| partition.error().unwrap());
        // A broker that is killed forgets where a log begins until it has written that down, which it does a little later.
        let written = patiently(|| self.written_start(topic, partition) >= before);
        assert!(written, "{topic} {partition} does not come to begin at {before}");
    }

    /// Where a partition begins as far as the disk tells: by a line of a file of them all, or else by its first segment's name.
    fn written_start(&self, topic: &str, partition: i32) -> i64 {
        let lines = fs::read_to_string(self.data().join("log-start-offset-checkpoint")).unwrap_or_default();
        let of = format!("{topic} {partition} ");
        let line = lines.lines().find_map(|line| line.strip_prefix(&of)?.parse().ok());
        let files = fs::read_dir(self.data().join(format!("{topic}-{partition}"))).unwrap();
        let segments = files.filter_map(|file| file.unwrap().file_name().to_str()?.strip_suffix(".log")?.parse().ok());
        line.into_iter().chain(segments.min()).max().unwrap_or(0)
    }

    /// Writes messages, those of a partition in their order.
    pub(crate) fn produce(&self, topic: &str, messages: impl IntoIterator<Item = Message>) {
        // One request at a time keeps the order; an idempotent producer would, too, but takes half a second to begin.
        let producer = self.producer(&[("max.in.flight.requests.per.connection", "1")]);
        send(&producer, topic, messages);
    }

    /// Writes messages of one partition without keys, each with its headers.
    pub(crate) fn produce_with_headers(&self, topic: &str, partition: i32, messages: &[(&str, &[Header<'_>])]) {
        let producer = self.producer(&[("max.in.flight.requests.per.connection", "1")]);
        for (payload, headers) in messages {
            let all = OwnedHeaders::new_with_capacity(headers.len());
            let all = headers.iter().fold(all, |all, (key, value)| {
                let header = rdkafka::message::Header { key, value: *value };
                all.insert(header)
            });
            let record = BaseRecord::<[u8], str>::to(topic).partition(partition).payload(*payload).headers(all);
            assert!(producer.send(record).is_ok(), "{topic} {partition}: {payload}");
        }
        producer.flush(TIMEOUT).unwrap();
        let refused = producer.context().0.lock().unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// Writes messages as one transaction, which is committed or given up; either leaves a gap at the end of each partition.
    pub(crate) fn produce_transaction(&self, topic: &str, messages: impl IntoIterator<Item = Message>, commit: bool) {
        let id = SystemClock::default().id().to_string();
        let producer = self.producer(&[("transactional.id", &id)]);
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, topic, messages);
        match commit {
            true => producer.commit_transaction(TIMEOUT).unwrap(),
            false => producer.abort_transaction(TIMEOUT).unwrap(),
        }
        // Its end is written into the partitions only later, but before the next producer of its id may begin.
        self.producer(&[("transactional.id", &id)]).init_transactions(TIMEOUT).unwrap();
    }

    /// All messages that are committed, by partition and offset.
    pub(crate) fn read_all(&self, topic: &str) -> Vec<Record> {
        let reader = self.consumer("read_committed");
        let mut open = partitions(reader.client(), topic).unwrap();
        let mut from = TopicPartitionList::new();
        (0..open).for_each(|partition| from.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
        reader.assign(&from).unwrap();
        let mut records = vec![];
        while open > 0 {
            match reader.poll(TIMEOUT).expect("Kafka answers") {
                Ok(message) => records.push(Record {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp_ms: message.timestamp().to_millis().unwrap(),
                    key: message.key().map(<[u8]>::to_vec),
                    payload: message.payload().map(<[u8]>::to_vec),
                }),
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(e) => panic!("{topic}: {e}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Of each partition the first offset that is there and the one after the last, whether committed or not.
    pub(crate) fn ends(&self, topic: &str) -> Vec<(i64, i64)> {
        let reader = self.consumer("read_uncommitted");
        let all = 0..partitions(reader.client(), topic).unwrap();
        all.map(|partition| reader.fetch_watermarks(topic, partition, TIMEOUT).unwrap()).collect()
    }

    fn admin(&self) -> Admin {
        self.client().create().unwrap()
    }

    fn producer(&self, config: &[(&str, &str)]) -> BaseProducer<Deliveries> {
        let mut client = self.client();
        client.set("linger.ms", "5");
        for (name, value) in config {
            client.set(*name, *value);
        }
        client.create_with_context(Deliveries::default()).unwrap()
    }

    fn consumer(&self, isolation: &str) -> BaseConsumer {
        let mut client = self.client();
        // Its group only names it: partitions are assigned, and nothing is committed.
        client.set("group.id", "tests").set("enable.auto.commit", "false");
        client.set("enable.partition.eof", "true").set("isolation.level", isolation);
        // Its end is what a partition answers when it has waited for more.
        client.set("fetch.wait.max.ms", "10");
        client.create().unwrap()
    }
}

/// How many partitions a topic has; `None` where there is no such topic, or some of its partitions cannot be used yet.
fn partitions(client: &Client<impl ClientContext>, topic: &str) -> Option<i32> {
    let cluster = client.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    let found = cluster.topics().iter().find(|found| found.name() == topic && found.error().is_none())?;
    let led = found.partitions().iter().all(|partition| partition.leader() >= 0);
    led.then(|| i32::try_from(found.partitions().len()).unwrap())
}

fn wait_for(admin: &Admin, topic: &str, count: Option<i32>) {
    let there = || partitions(admin.inner(), topic) == count;
    assert!(patiently(there), "{topic} does not come to {count:?} partitions");
}

/// Messages that were not acknowledged.
#[derive(Default)]
struct Deliveries(Mutex<Vec<String>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((e, message)) = result {
            self.0.lock().unwrap().push(format!("{} {}: {e}", message.topic(), message.partition()));
        }
    }
}

/// Writes messages and waits until they are acknowledged.
fn send(producer: &BaseProducer<Deliveries>, topic: &str, messages: impl IntoIterator<Item = Message>) {
    for (partition, key, payload, timestamp) in messages {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        record.key = key.as_deref();
        record.payload = payload.as_deref();
        record.timestamp = timestamp;
        while let Err((e, unsent)) = producer.send(record) {
            assert_eq!(e.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{topic} {partition}: {e}");
            producer.poll(Duration::from_millis(10));
            record = unsent;
        }
    }
    producer.flush(TIMEOUT).unwrap();
    let refused = producer.context().0.lock().unwrap();
    assert!(refused.is_empty(), "{refused:?}");
}
