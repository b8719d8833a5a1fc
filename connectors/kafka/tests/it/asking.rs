//! What a topic has, and what is said where it cannot be told.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use watershed_core::tail::{PartPosition, Tail, TailPosition};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime};
use watershed_kafka::KafkaTail;

use crate::topic::{PATIENCE, Topic};

fn tail(location: &str, options: &[(&str, &str)]) -> watershed_core::Result<KafkaTail> {
    KafkaTail::new(location, &options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
}

#[tokio::test]
async fn a_topic_is_told_as_it_is() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    let tail = topic.tail(&[]);
    assert_eq!(tail.location(), topic.location());
    let empty = tail.look().await.unwrap();
    assert_eq!(empty.parts, BTreeMap::from([(0, 0..0), (1, 0..0), (2, 0..0)]));
    topic.write_numbers(0..30, 3);
    topic.delete_before(1, 4);
    let now = tail.look().await.unwrap();
    assert_eq!(now.parts, BTreeMap::from([(0, 0..10), (1, 4..10), (2, 0..10)]));
    assert!(now.id.is_some() && now.id == empty.id, "{:?} {:?}", now.id, empty.id);
    topic.add_parts(4);
    assert_eq!(tail.look().await.unwrap().parts.len(), 4);
    assert_eq!(topic.tail(&[]).look().await.unwrap().id, now.id, "another client sees the same id");

    topic.delete();
    let gone = tail.look().await.unwrap_err();
    assert!(matches!(&gone, Error::Input(said) if said.contains(&topic.name) && said.contains(&topic.at)), "{gone}");
    topic.make(1, &[]);
    let anew = tail.look().await.unwrap();
    assert!(anew.id.is_some() && anew.id != now.id, "{anew:?}");
    assert_eq!(topic.tail(&[]).look().await.unwrap(), anew);
}

#[tokio::test]
async fn an_end_is_that_of_open_transactions_too() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write_at(0, "before", 1000);
    let open = topic.begin(0, &["open"]);
    let tail = topic.tail(&[]);
    assert_eq!(tail.look().await.unwrap().parts[&0], 0..2);
    assert_eq!(tail.at_time(EventTime(1_001_000)).await.unwrap(), BTreeMap::from([(0, 1)]));
    open.commit();
    assert_eq!(tail.look().await.unwrap().parts[&0], 0..3);
}

#[tokio::test]
async fn a_time_is_an_offset_in_each_part() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    for (n, millis) in [1000, 2000, 3000].into_iter().enumerate() {
        topic.write_at(0, &n.to_string(), millis);
    }
    topic.write_at(1, "late", 500);
    let tail = topic.tail(&[]);
    let at = |micros: i64| tail.at_time(EventTime(micros));
    assert_eq!(at(i64::MIN).await.unwrap(), BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
    assert_eq!(at(2_000_000).await.unwrap(), BTreeMap::from([(0, 1), (1, 1), (2, 0)]));
    assert_eq!(
        at(2_000_001).await.unwrap(),
        BTreeMap::from([(0, 2), (1, 1), (2, 0)]),
        "a part of a millisecond counts"
    );
    assert_eq!(at(9_000_000).await.unwrap(), BTreeMap::from([(0, 3), (1, 1), (2, 0)]));
    assert_eq!(at(i64::MAX).await.unwrap(), BTreeMap::from([(0, 3), (1, 1), (2, 0)]));
}

#[tokio::test]
async fn a_group_is_told_where_the_job_is_if_it_was_named() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    topic.write_numbers(0..20, 2);
    let group = format!("group-{}", topic.name);
    let parts = BTreeMap::from([(0, PartPosition::at(7)), (1, PartPosition::at(3))]);
    let position = TailPosition { parts, ..TailPosition::default() };
    topic.tail(&[]).report(&position).await.unwrap();
    let tail = topic.tail(&[("group.id", &group)]);
    let monitor: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &topic.at).set("group.id", &group).create().unwrap();
    // A broker's first group makes it make the topic that keeps them, and until then the broker knows of none.
    let committed = || {
        let mut parts = TopicPartitionList::new();
        parts.add_partition_range(&topic.name, 0, 1);
        let found = monitor.committed_offsets(parts, PATIENCE)?;
        Ok::<_, KafkaError>(found.elements().iter().map(|part| part.offset()).collect::<Vec<_>>())
    };
    for _ in 0..100 {
        // As a job does with each commit.
        tail.report(&position).await.unwrap();
        if committed().is_ok_and(|offsets| offsets == [Offset::Offset(7), Offset::Offset(3)]) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{:?}", committed());
}

#[tokio::test]
async fn how_long_messages_are_kept_is_told() {
    for (config, keeps) in [
        (&[("retention.ms", "5400000")][..], Some(Span(5_400_000_000))),
        (&[("retention.ms", "-1")][..], None),
        (&[("retention.ms", "5400000"), ("cleanup.policy", "compact")][..], None),
    ] {
        let Some(topic) = Topic::new(1, config) else { return };
        assert_eq!(topic.tail(&[]).keeps().await.unwrap(), keeps, "{config:?}");
    }
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    let other = tail(&format!("kafka://{}/no-such-topic", topic.at), &[]).unwrap();
    let said = other.look().await.unwrap_err();
    assert!(
        matches!(&said, Error::Input(said) if said.contains("`no-such-topic`") && said.contains(&topic.at)),
        "{said}"
    );
    assert!(matches!(other.read(&BTreeMap::from([(0, 0)])).await.err().unwrap(), Error::Input(_)));
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_the_environments_fault() {
    // Nobody listens on the discard port of loopback.
    let tail = tail("kafka://127.0.0.1:9/topic", &[]).unwrap();
    let said = tail.look().await.unwrap_err();
    let text = said.to_string();
    assert!(matches!(said, Error::Storage { .. }) && text.contains("kafka://127.0.0.1:9/topic"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[test]
fn properties_that_librdkafka_does_not_take_are_told_without_secrets() {
    let said = |options: &[(&str, &str)]| tail("kafka://b:9092/topic", options).unwrap_err().to_string();
    let unknown = said(&[("fetch.wait.mx.ms", "5")]);
    assert!(unknown.contains("fetch.wait.mx.ms") && unknown.contains("kafka://b:9092/topic"), "{unknown}");
    let wrong = said(&[("fetch.wait.max.ms", "soon")]);
    assert!(wrong.contains("fetch.wait.max.ms"), "{wrong}");
    let key = said(&[("security.protocol", "ssl"), ("ssl.key.pem", "hush-hush"), ("ssl.key.password", "shush")]);
    assert!(!key.contains("hush"), "{key}");
    let kerberos = said(&[("security.protocol", "sasl_ssl"), ("sasl.password", "hush")]);
    assert!(kerberos.contains("sasl.mechanism") && !kerberos.contains("hush"), "{kerberos}");
}
