//! A topic of a test's own, and what is done with it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use arrow::array::Array;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::tail::{Fetched, Messages, Part, TailReader};
use watershed_core::{Error, Result};
use watershed_kafka::KafkaTail;

use crate::broker;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Topic {
    pub(crate) at: String,
    pub(crate) name: String,
}

/// What was read of a part.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Read {
    pub(crate) offsets: Vec<i64>,
    pub(crate) payloads: Vec<Option<String>>,
    pub(crate) next: i64,
    pub(crate) at_end: bool,
}

impl Topic {
    /// `None`, and a word about it, where there is no broker.
    pub(crate) fn new(parts: i32, config: &[(&str, &str)]) -> Option<Topic> {
        let topic = Topic { at: broker::at()?, name: format!("t{}", SystemClock::default().id()) };
        topic.make(parts, config);
        Some(topic)
    }

    pub(crate) fn location(&self) -> String {
        format!("kafka://{}/{}", self.at, self.name)
    }

    pub(crate) fn tail(&self, options: &[(&str, &str)]) -> KafkaTail {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        KafkaTail::new(&self.location(), &options).unwrap()
    }

    pub(crate) fn make(&self, parts: i32, config: &[(&str, &str)]) {
        let new = NewTopic::new(&self.name, parts, TopicReplication::Fixed(1));
        let new = config.iter().fold(new, |new, (name, value)| new.set(name, value));
        let made = block_on(self.admin().create_topics([&new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
        self.wait(|ends| ends.as_ref().is_some_and(|ends| ends.len() == parts as usize));
    }

    pub(crate) fn add_parts(&self, total: usize) {
        let new = NewPartitions::new(&self.name, total);
        let made = block_on(self.admin().create_partitions([&new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
        self.wait(|ends| ends.as_ref().is_some_and(|ends| ends.len() == total));
    }

    pub(crate) fn delete(&self) {
        let deleted = block_on(self.admin().delete_topics(&[&self.name], &AdminOptions::new())).unwrap();
        deleted.into_iter().for_each(|deleted| drop(deleted.unwrap()));
        self.wait(|ends| ends.is_none());
    }

    pub(crate) fn delete_before(&self, part: Part, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, part, Offset::Offset(offset)).unwrap();
        let deleted = block_on(self.admin().delete_records(&offsets, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|part| part.error().unwrap());
    }

    /// Writes messages to parts, those of a part in their order.
    pub(crate) fn write<'a>(&self, messages: impl IntoIterator<Item = (Part, Option<&'a str>, Option<&'a str>)>) {
        let producer = self.producer(&[("max.in.flight.requests.per.connection", "1")]);
        for (part, key, payload) in messages {
            send(&producer, &self.name, part, key, payload, None);
        }
        done(&producer);
    }

    /// Writes numbers to parts in turn, beginning with part 0.
    pub(crate) fn write_numbers(&self, numbers: std::ops::Range<usize>, parts: usize) {
        let producer = self.producer(&[("max.in.flight.requests.per.connection", "1"), ("linger.ms", "20")]);
        for n in numbers {
            send(&producer, &self.name, (n % parts) as Part, None, Some(&n.to_string()), None);
        }
        done(&producer);
    }

    /// A message at a time in milliseconds.
    pub(crate) fn write_at(&self, part: Part, payload: &str, millis: i64) {
        let producer = self.producer(&[]);
        send(&producer, &self.name, part, None, Some(payload), Some(millis));
        done(&producer);
    }

    /// A transaction of messages of one part, that is left open.
    pub(crate) fn begin(&self, part: Part, payloads: &[&str]) -> Transaction {
        let id = SystemClock::default().id().to_string();
        let producer = self.producer(&[("transactional.id", &id)]);
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        payloads.iter().for_each(|payload| send(&producer, &self.name, part, None, Some(payload), None));
        done(&producer);
        Transaction { next: self.producer(&[("transactional.id", &id)]), producer }
    }

    pub(crate) fn producer(&self, more: &[(&str, &str)]) -> BaseProducer<Acknowledged> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.at).set("acks", "all");
        for (name, value) in more {
            config.set(*name, *value);
        }
        config.create_with_context(Acknowledged::default()).unwrap()
    }

    /// The ends of the parts, as a consumer that is none of ours sees them; `None` for a topic that is not there.
    fn ends(&self) -> Option<Vec<i64>> {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.at).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.name), PATIENCE).unwrap();
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.name)?;
        if topic.error().is_some() {
            return None;
        }
        let parts = topic.partitions().iter().map(|part| part.id());
        parts.map(|part| consumer.fetch_watermarks(&self.name, part, PATIENCE).ok().map(|(_, end)| end)).collect()
    }

    fn wait(&self, until: impl Fn(&Option<Vec<i64>>) -> bool) {
        for _ in 0..300 {
            if until(&self.ends()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the topic did not become what it should");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.at).create().unwrap()
    }
}

/// Its end is written into the parts only after it was acknowledged, but before the next producer of its id may begin.
pub(crate) struct Transaction {
    producer: BaseProducer<Acknowledged>,
    next: BaseProducer<Acknowledged>,
}

impl Transaction {
    pub(crate) fn commit(self) {
        self.producer.commit_transaction(PATIENCE).unwrap();
        self.next.init_transactions(PATIENCE).unwrap();
    }

    pub(crate) fn abort(self) {
        self.producer.abort_transaction(PATIENCE).unwrap();
        self.next.init_transactions(PATIENCE).unwrap();
    }
}

/// Fails what was not acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged(Mutex<Option<KafkaError>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            *self.0.lock().unwrap() = Some(e.clone());
        }
    }
}

pub(crate) fn send(
    producer: &BaseProducer<Acknowledged>,
    topic: &str,
    part: Part,
    key: Option<&str>,
    payload: Option<&str>,
    millis: Option<i64>,
) {
    loop {
        let mut record = BaseRecord::<str, str>::to(topic).partition(part);
        record.key = key;
        record.payload = payload;
        record.timestamp = millis;
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((e, _)) => panic!("{e}"),
        }
    }
}

pub(crate) fn done(producer: &BaseProducer<Acknowledged>) {
    producer.flush(PATIENCE).unwrap();
    assert_eq!(*producer.context().0.lock().unwrap(), None);
}

pub(crate) fn from_start(parts: Part) -> BTreeMap<Part, i64> {
    (0..parts).map(|part| (part, 0)).collect()
}

/// The next batches; a reader that says nothing for long fails the test.
pub(crate) async fn next(reader: &mut Box<dyn TailReader>) -> Result<Vec<Messages>> {
    let fetched = tokio::time::timeout(PATIENCE, reader.next()).await.expect("the reader says something")?;
    Ok(fetched.into_iter().filter_map(Fetched::messages).collect())
}

/// Whether nothing comes for a moment.
pub(crate) async fn silent(reader: &mut Box<dyn TailReader>) -> bool {
    tokio::time::timeout(Duration::from_millis(700), reader.next()).await.is_err()
}

/// Reads on until something is so, and checks that batches fit together.
pub(crate) async fn read_until(
    reader: &mut Box<dyn TailReader>,
    read: &mut BTreeMap<Part, Read>,
    until: impl Fn(&BTreeMap<Part, Read>) -> bool,
) -> Result<()> {
    while !until(read) {
        for batch in next(reader).await? {
            note(read, &batch);
        }
    }
    Ok(())
}

pub(crate) fn note(read: &mut BTreeMap<Part, Read>, batch: &Messages) {
    let of = read.entry(batch.part).or_default();
    assert!(batch.len() == batch.payloads.len() && batch.len() == batch.keys.len());
    assert!(batch.len() == batch.timestamps.len() && (batch.at_end || !batch.is_empty()));
    for row in 0..batch.len() {
        let offset = batch.offsets.value(row);
        assert!(offset >= of.next, "part {} offset {offset} after {}", batch.part, of.next);
        of.next = offset + 1;
        of.offsets.push(offset);
        let payload = (!batch.payloads.is_null(row)).then(|| batch.payloads.value(row));
        of.payloads.push(payload.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()));
    }
    assert!(batch.next >= of.next, "part {}: {} after {}", batch.part, batch.next, of.next);
    of.next = batch.next;
    of.at_end = batch.at_end;
}

/// What a reader that has to end says at last.
pub(crate) async fn last_word(reader: &mut Box<dyn TailReader>) -> Error {
    loop {
        if let Err(e) = next(reader).await {
            return e;
        }
    }
}
