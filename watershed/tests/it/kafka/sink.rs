//! Results in a topic: what is in the messages, where they lie, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BinaryArray;
use arrow::record_batch::RecordBatch;
use object_store::memory::InMemory;
use object_store::path::Path;
use watershed_core::Error;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::sink::{CommitIdentity, Committed, PreparedCommit, Sink, message_schema};
use watershed_kafka::{Delivery, KafkaSink, Staging};

use super::broker::{Broker, Record};
use super::world::{DECLARED, Hours, World, hours, rides};

pub(super) const HOURS: &str = "
CREATE SINK hourly WITH (topic = '${TOPIC}_hours', format = 'json', delivery = '${DELIVERY}') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

pub(super) const RIDES: &str = "
CREATE SINK farther WITH (topic = '${TOPIC}_rides', format = 'json', key = 'city', delivery = '${DELIVERY}') AS
SELECT at, city, km, n FROM log WHERE km >= 500;
";

pub(super) const DELIVERIES: [&str; 2] = ["at least once", "exactly once"];

/// A statement with its delivery.
pub(super) fn by(delivery: &str, sql: &str) -> String {
    sql.replace("${DELIVERY}", delivery)
}

/// Kafka's `Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// Where a producer in Java puts a message with this key.
pub(super) fn java_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

#[test]
fn murmur2_is_that_of_kafka() {
    // As Kafka's own UtilsTest has them.
    for (text, expected) in [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
    }
}

/// The value of a message.
fn value(payload: Option<&Vec<u8>>) -> serde_json::Value {
    serde_json::from_slice(payload.expect("a payload")).unwrap()
}

/// The windows in a topic, each as often as it is there; every message is checked for its key and its partition.
pub(super) fn windows(broker: &Broker, topic: &str, partitions: i32) -> Vec<((i64, String), (i64, i64))> {
    let window = |record: Record| {
        let value = value(record.payload.as_ref());
        let (start, city) = (value["window_start"].as_str().unwrap(), value["city"].as_str().unwrap());
        let key = record.key.unwrap();
        assert_eq!(String::from_utf8_lossy(&key), format!(r#"{{"window_start":"{start}","city":"{city}"}}"#));
        assert_eq!(record.partition, java_partition(&key, partitions), "{value}");
        let start = chrono::DateTime::parse_from_rfc3339(start).unwrap().timestamp();
        ((start, city.to_string()), (value["rides"].as_i64().unwrap(), value["km"].as_i64().unwrap()))
    };
    broker.read_all(topic).into_iter().map(window).collect()
}

/// The rides in a topic as they were sent, in the order of their numbers, each as often as it is there; keys and partitions are
/// checked.
pub(super) fn sent(broker: &Broker, topic: &str, partitions: i32) -> Vec<(u64, String)> {
    let ride = |record: Record| {
        let value = value(record.payload.as_ref());
        let key = record.key.unwrap();
        assert_eq!(String::from_utf8_lossy(&key), format!(r#"{{"city":"{}"}}"#, value["city"].as_str().unwrap()));
        assert_eq!(record.partition, java_partition(&key, partitions), "{value}");
        (value["n"].as_u64().unwrap(), String::from_utf8(record.payload.unwrap()).unwrap())
    };
    let mut rides: Vec<_> = broker.read_all(topic).into_iter().map(ride).collect();
    rides.sort();
    rides
}

#[test]
fn windows_and_rows_become_messages() {
    let Some(broker) = Broker::shared() else { return };
    for (seed, delivery) in DELIVERIES.into_iter().enumerate() {
        let topic = format!("messages_{seed}");
        let world = World::new(broker, &topic, 3);
        let (to_hours, to_rides) = (format!("{topic}_hours"), format!("{topic}_rides"));
        broker.create(&to_hours, 5, &[]);
        broker.create(&to_rides, 3, &[]);
        let all = rides(20 + seed as u64, 0..6_000, 30);
        let (hourly, farther) = (by(delivery, HOURS), by(delivery, RIDES));
        let sql = [DECLARED, &hourly, &farther];
        world.produce(&all[..3_000]);
        world.run(&sql, &[]);
        let half = windows(broker, &to_hours, 5);
        assert!(!half.is_empty() && half.len() < hours(&all).len());
        let said = world.run(&sql, &[]);
        assert!(said.contains("nothing new"), "{said}");
        world.produce(&all[3_000..]);
        world.run(&sql, &["--final"]);

        let found = windows(broker, &to_hours, 5);
        assert_eq!(found.len(), hours(&all).len(), "{delivery}: every window once");
        assert_eq!(found.into_iter().collect::<Hours>(), hours(&all), "{delivery}");
        let expected: Vec<_> = all.iter().filter(|ride| ride.km >= 500).map(|ride| (ride.n, ride.json())).collect();
        assert_eq!(sent(broker, &to_rides, 3), expected, "{delivery}");
        let staged = walk(&world.dir.path().join("home/jobs")).into_iter().filter(|path| path.contains("/staged/"));
        assert_eq!(staged.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[test]
fn what_is_written_is_read_as_a_source() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "chained", 2);
    broker.create("chained_hours", 2, &[]);
    let all = rides(30, 0..3_000, 30);
    world.produce(&all);
    world.run(&[DECLARED, &by("exactly once", HOURS)], &["--final"]);
    let back = "
        CREATE SOURCE hours (window_start TIMESTAMP, city VARCHAR, rides BIGINT, km BIGINT, WATERMARK FOR window_start AS
            window_start) WITH (tail = '${TOPIC}_hours', format = 'json');
        CREATE TABLE hourly (window_start TIMESTAMP, city VARCHAR, rides BIGINT, km BIGINT);
        INSERT INTO hourly WITH (job = 'back') SELECT window_start, city, rides, km FROM hours;";
    world.run(&[back], &[]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn a_sink_is_a_job_like_others() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "standing", 1);
    broker.create("standing_hours", 1, &[]);
    world.produce(&rides(31, 0..500, 30));
    let sink = by("exactly once", HOURS);
    world.run(&[DECLARED, &sink], &[]);
    let out = world.command(&["jobs", "--json"]).output().unwrap();
    let job: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((job["job"].as_str(), job["kind"].as_str()), (Some("hourly"), Some("sink")), "{job}");
    assert!(job["location"].as_str().unwrap().ends_with("/standing_hours"), "{job}");

    let refused = world.refused(&[DECLARED, &sink.replace("1 hour", "2 hours")], &[]);
    assert!(refused.contains("CREATE OR REPLACE SINK hourly"), "{refused}");
    let refused = world.refused(&["CREATE MATERIALIZED VIEW hourly AS SELECT at, km FROM log;"], &[]);
    assert!(refused.contains("hourly is the name of a sink") && refused.contains("DROP SINK hourly"), "{refused}");
    let refused = world.refused(&["DROP SOURCE log;"], &[]);
    assert!(refused.contains("read by sink hourly"), "{refused}");
    let plan = world.sql(&["EXPLAIN ", sink.trim()]);
    let plan = crate::binary::all_said(&world.command(&["run", &plan]).output().unwrap());
    assert!(plan.contains("key window_start, city, exactly once, a transaction an epoch"), "{plan}");
    // Late rows stay a table.
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);

    // Built anew, it writes everything again.
    let before = broker.read_all("standing_hours").len();
    world.run(&[DECLARED, &sink.replace("CREATE SINK", "CREATE OR REPLACE SINK")], &[]);
    assert_eq!(broker.read_all("standing_hours").len(), 2 * before);
    let said = world.run(&["DROP SINK hourly;"], &[]);
    assert!(said.contains("dropped sink hourly; its messages stay in kafka://"), "{said}");
    let out = world.command(&["jobs", "--json"]).output().unwrap();
    assert!(out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn what_a_sink_cannot_do_is_refused_before_anything_is_made() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "unsent", 1);
    broker.create("unsent_hours", 1, &[]);
    for (change, expected) in [
        (("${TOPIC}_hours", "${TOPIC}_not"), "have no topic `unsent_not`"),
        (("topic = '${TOPIC}_hours', ", ""), "topic = 'kafka://"),
        (("format = 'json'", "format = 'avro'"), "'json'"),
        (("format = 'json', ", ""), "format = 'json'"),
        (("exactly once", "at most once"), "'at least once' or 'exactly once'"),
        (("format", "key = 'town', format"), "there is no column town; there are window_start, city"),
        (("format", "kafka.acks = '1', format"), "acknowledged by all replicas"),
        (("format", "kafka.sasl.password = 'hush', format"), "${NAME}"),
        (("format", "kafka.linger = '1', format"), "linger"),
        (("format", "partition_by = 'city', format"), "besides settings it takes topic"),
    ] {
        let sink = by("exactly once", HOURS).replace(change.0, change.1);
        let refused = world.refused(&[DECLARED, &sink], &[]);
        assert!(refused.contains(expected), "{change:?}: {refused}");
        assert!(!refused.contains("fault in Watershed") && !refused.contains("hush"), "{refused}");
    }
    let out = world.command(&["jobs", "--json"]).output().unwrap();
    assert!(out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_message_that_is_too_large_is_told_and_goes_on_once_it_may() {
    let Some(broker) = Broker::shared() else { return };
    for (seed, delivery) in DELIVERIES.into_iter().enumerate() {
        let topic = format!("large_{seed}");
        let world = World::new(broker, &topic, 1);
        let to = format!("{topic}_rides");
        broker.create(&to, 2, &[("max.message.bytes", "2000")]);
        world.produce(&rides(33, 0..3, 30));
        let sink = by(delivery, RIDES).replace("km >= 500", "true").replace("city,", "repeat(city, 2000) AS city,");
        let refused = world.refused(&[DECLARED, &sink], &[]);
        assert!(refused.contains("raise max.message.bytes of topic"), "{delivery}: {refused}");
        broker.configure(&to, "max.message.bytes", "1000000");
        world.run(&[DECLARED, &sink], &[]);
        assert_eq!(broker.read_all(&to).len(), 3, "{delivery}");
    }
}

fn messages(keys: std::ops::Range<u8>) -> RecordBatch {
    let bytes: BinaryArray = keys.map(|i| Some([i])).collect();
    RecordBatch::try_new(message_schema(), vec![Arc::new(bytes.clone()), Arc::new(bytes)]).unwrap()
}

#[tokio::test]
async fn an_older_runner_is_fenced_and_an_epoch_is_there_once() {
    let Some(broker) = Broker::shared() else { return };
    broker.create("fenced", 3, &[]);
    let store = Arc::new(InMemory::new());
    let runner = || {
        let clock = Arc::new(SystemClock::default());
        let staging = Staging::new(store.clone(), Path::from("staged"), clock);
        let url = format!("kafka://{}/fenced", broker.address());
        KafkaSink::new("result", "j", &url, &BTreeMap::new(), Delivery::ExactlyOnce(staging)).unwrap()
    };
    let application = format!("watershed/{}/result", SystemClock::default().id());
    let identity = |epoch: u64, after: Option<u64>| CommitIdentity { application: application.clone(), epoch, after };
    let prepare = async |sink: &KafkaSink, keys: std::ops::Range<u8>| -> PreparedCommit {
        let writer = sink.writer().unwrap();
        writer.write(0, messages(keys)).await.unwrap();
        writer.finish().await.unwrap()
    };
    let info = BTreeMap::new();
    let (older, newer) = (runner(), runner());
    assert_eq!(older.last_committed(&application).await.unwrap(), None);
    let first = prepare(&older, 0..10).await;
    let done = older.commit(&identity(2, None), &first, &info).await.unwrap();
    assert!(matches!(done, Committed::Now { .. }));
    assert_eq!(newer.last_committed(&application).await.unwrap().unwrap().epoch, 2);

    // The newer one finds what the older did, and does the next itself.
    assert_eq!(newer.commit(&identity(2, None), &first, &info).await.unwrap(), Committed::Before);
    let second = prepare(&newer, 10..20).await;
    newer.verify(&second).await.unwrap();
    newer.commit(&identity(5, Some(2)), &second, &info).await.unwrap();
    assert!(newer.verify(&second).await.is_err(), "the staged file is gone");
    let third = prepare(&older, 20..30).await;
    assert_eq!(older.commit(&identity(5, Some(2)), &third, &info).await.unwrap(), Committed::Before);
    let third = prepare(&older, 20..30).await;
    let fenced = older.commit(&identity(6, Some(5)), &third, &info).await.unwrap_err();
    assert!(matches!(fenced, Error::Fenced { .. }), "{fenced}");
    // And what does not follow on what is there is not done at all.
    let odd = newer.commit(&identity(9, Some(7)), &third, &info).await.unwrap_err();
    assert!(matches!(&odd, Error::Stopped(why) if why.contains("it stands at epoch 5")), "{odd}");

    let mut keys: Vec<_> = broker.read_all("fenced").into_iter().map(|record| record.key.unwrap()[0]).collect();
    keys.sort_unstable();
    assert_eq!(keys, (0..20).collect::<Vec<u8>>());
}
