//! That the harness does what it says, so that a test of the reader that fails is about the reader.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Broker;
use super::topics::{Message, Record};

/// A message with a key, a payload and a time, all told from a number.
fn numbered(partition: i32, n: i64) -> Message {
    (partition, Some(format!("k{n}").into()), Some(format!("v{n}").into()), Some(1_700_000_000_000 + n))
}

/// The same as it is read.
fn read(partition: i32, offset: i64, n: i64) -> Record {
    let (_, key, payload, timestamp) = numbered(partition, n);
    Record { partition, offset, timestamp_ms: timestamp.unwrap(), key, payload }
}

#[test]
fn topics_are_made_and_changed_and_go() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("harness", 2, &[("cleanup.policy", "compact,delete")]);
    assert_eq!(broker.ends("harness"), [(0, 0), (0, 0)]);
    assert_eq!(broker.read_all("harness"), []);
    broker.add_partitions("harness", 3);
    broker.produce("harness", (0..10).map(|n| numbered(2, n)));
    broker.produce("harness", [(0, Some(b"k".to_vec()), None, None)]);
    assert_eq!(broker.ends("harness"), [(0, 1), (0, 0), (0, 10)]);
    let all = broker.read_all("harness");
    assert_eq!((all[0].key.as_deref(), all[0].payload.as_deref()), (Some(&b"k"[..]), None));
    assert!(all[0].timestamp_ms > 1_700_000_000_000);
    assert_eq!(all[1..], (0..10).map(|n| read(2, n, n)).collect::<Vec<_>>());
    broker.delete("harness");
    broker.create("harness", 1, &[]);
    assert_eq!(broker.read_all("harness"), []);
}

#[test]
fn transactions_are_committed_or_given_up() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("transactions", 1, &[]);
    broker.produce_transaction("transactions", [numbered(0, 0), numbered(0, 1)], true);
    broker.produce_transaction("transactions", [numbered(0, 2)], false);
    broker.produce("transactions", [numbered(0, 3)]);
    assert_eq!(broker.read_all("transactions"), [read(0, 0, 0), read(0, 1, 1), read(0, 5, 3)]);
    // Each end takes an offset.
    assert_eq!(broker.ends("transactions"), [(0, 6)]);
}

#[test]
fn what_a_killed_broker_acknowledged_is_there_again() {
    let Some(mut broker) = Broker::start_own(&[("log.segment.bytes", "1048576")]) else { return };
    broker.create("kept", 2, &[]);
    broker.produce("kept", (0..1000).map(|n| numbered(i32::from(n % 2 == 1), n)));
    broker.delete_records("kept", 1, 499);
    broker.delete_records("kept", 1, 10);
    let kept = broker.read_all("kept");
    assert_eq!(kept.len(), 501);
    assert_eq!(kept[500], read(1, 499, 999));
    for _ in 0..2 {
        broker.kill();
        broker.start_again();
        assert_eq!(broker.ends("kept"), [(0, 500), (499, 500)]);
        assert_eq!(broker.read_all("kept"), kept);
    }
    broker.produce_transaction("kept", [numbered(0, 1000)], true);
    assert_eq!(broker.read_all("kept")[500], read(0, 500, 1000));
    broker.delete_records("kept", 0, 500);
    assert_eq!(broker.ends("kept")[0], (500, 502));
}

#[test]
fn users_are_let_in_by_their_passwords() {
    let Some(broker) = Broker::start_secured("s3cret") else { return };
    let topics = |protocol: &str, address: &str, password: &str, seconds| {
        let mut client = broker.client();
        client.set("bootstrap.servers", address).set("security.protocol", protocol);
        client.set("sasl.mechanism", "PLAIN").set("sasl.username", "reader").set("sasl.password", password);
        if protocol == "SASL_SSL" {
            client.set("ssl.ca.location", broker.tls().1.display().to_string());
        }
        let asker: BaseConsumer = client.create().unwrap();
        asker.fetch_metadata(None, Duration::from_secs(seconds)).map(|cluster| cluster.topics().len())
    };
    broker.create("secret", 1, &[]);
    for (protocol, address) in [("SASL_PLAINTEXT", broker.sasl()), ("SASL_SSL", broker.tls().0)] {
        assert_eq!(topics(protocol, &address, "s3cret", 60).unwrap(), 1, "{protocol}");
        assert!(topics(protocol, &address, "secret", 2).is_err(), "{protocol}");
    }
}
