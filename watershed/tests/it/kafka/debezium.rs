//! A database's table that is changed at random, its changes in a topic as Debezium writes them, and a keyed table that
//! mirrors it: whoever is killed and whenever, in the end the two have the same rows.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use watershed_core::clock::mix;

use super::broker::Broker;
use super::broker::topics::Message;
use super::kills::rounds;
use super::world::World;
use crate::campaign::seed;
use crate::oracle::facts::Dice;

const PARTITIONS: i32 = 3;

const KEYS: u64 = 300;

const CHANGES: &str = "
CREATE SOURCE customers_changes (
    id BIGINT, name VARCHAR, balance DECIMAL(12, 2), seen TIMESTAMP, _op VARCHAR, _changed_at TIMESTAMP, _offset BIGINT,
    WATERMARK FOR _changed_at AS _changed_at
) WITH (tail = '${TOPIC}', format = 'debezium-json', debezium.timestamp = 'us', debezium.decimal = 'precise');
";

const MIRROR: &str = "
CREATE TABLE customers (
    id BIGINT, name VARCHAR, balance DECIMAL(12, 2), seen TIMESTAMP, version BIGINT, PRIMARY KEY (id)
) WITH (location = '${DIR}/customers', sequence_by = 'version');
INSERT INTO customers WITH (operation = '_op')
SELECT id, name, balance, seen, _offset, _op FROM customers_changes;
";

const ARCHIVE: &str = "
CREATE TABLE kept (
    id BIGINT, name VARCHAR, balance DECIMAL(12, 2), seen TIMESTAMP, _op VARCHAR, _changed_at TIMESTAMP, _offset BIGINT
) WITH (location = '${DIR}/kept', partition_by = 'day(_changed_at)');
INSERT INTO kept SELECT id, name, balance, seen, _op, _changed_at, _offset FROM customers_changes;
";

/// The changes that are archived, and those behind them in the log.
const ALL_CHANGES: &str = "
CREATE SOURCE customers_changes (WATERMARK FOR _changed_at AS _changed_at) WITH (
    lake = '${DIR}/kept', tail = '${TOPIC}', format = 'debezium-json', debezium.timestamp = 'us', debezium.decimal = 'precise'
);
";

/// A row of the table: name, balance in hundredths, and when it was seen, in microseconds since 1970.
type Row = (Option<String>, i64, i64);

struct Database {
    rows: BTreeMap<i64, Row>,
    dice: Dice,
    now: i64,
}

impl Database {
    fn new(seed: u64) -> Self {
        Database { rows: BTreeMap::new(), dice: Dice::new(seed), now: 1_769_860_800_000 }
    }

    /// So many changes, with the tombstones that follow deletions.
    fn changes(&mut self, count: usize) -> Vec<Message> {
        let mut messages = vec![];
        for _ in 0..count {
            let id = self.dice.below(KEYS) as i64;
            match self.rows.get(&id).cloned() {
                None => self.insert(id, "c", &mut messages),
                Some(before) if self.dice.chance(250) => self.delete(id, &before, &mut messages),
                Some(before) if self.dice.chance(100) => {
                    // Another key: Debezium tells of a deletion and a creation.
                    self.delete(id, &before, &mut messages);
                    let other = self.dice.below(KEYS) as i64;
                    if !self.rows.contains_key(&other) {
                        self.insert(other, "c", &mut messages);
                    }
                }
                Some(before) => {
                    let after = self.row();
                    messages.push(self.message(id, "u", &image(id, &before), &image(id, &after)));
                    self.rows.insert(id, after);
                }
            }
        }
        messages
    }

    fn insert(&mut self, id: i64, op: &str, messages: &mut Vec<Message>) {
        let row = self.row();
        messages.push(self.message(id, op, &Value::Null, &image(id, &row)));
        self.rows.insert(id, row);
    }

    fn delete(&mut self, id: i64, before: &Row, messages: &mut Vec<Message>) {
        // With or without REPLICA IDENTITY FULL.
        let before = if self.dice.chance(500) { image(id, before) } else { json!({"id": id}) };
        messages.push(self.message(id, "d", &before, &Value::Null));
        let tombstone = messages[messages.len() - 1].clone();
        messages.push((tombstone.0, tombstone.1, None, None));
        self.rows.remove(&id);
    }

    fn row(&mut self) -> Row {
        let name = (!self.dice.chance(50)).then(|| format!("name {}", self.dice.below(1_000_000)));
        let balance = self.dice.below(2_000_000) as i64 - 1_000_000;
        (name, balance, self.now * 1000 + self.dice.below(1_000_000) as i64)
    }

    /// A change as one of both converters writes it.
    fn message(&mut self, id: i64, op: &str, before: &Value, after: &Value) -> Message {
        self.now += self.dice.below(50) as i64;
        let source = json!({"connector": "postgresql", "ts_ms": self.now, "table": "customers", "lsn": self.now});
        let change =
            json!({"before": before, "after": after, "source": source, "op": op, "ts_ms": self.now + 300}).to_string();
        let payload = match self.dice.chance(500) {
            true => format!(r#"{{"schema":{},"payload":{change}}}"#, schema()),
            false => change,
        };
        (partition(id), Some(json!({"id": id}).to_string().into_bytes()), Some(payload.into_bytes()), None)
    }
}

fn partition(id: i64) -> i32 {
    (mix(id as u64) % PARTITIONS as u64) as i32
}

fn image(id: i64, (name, balance, seen): &Row) -> Value {
    let bytes = balance.to_be_bytes();
    json!({"id": id, "name": name, "balance": BASE64_STANDARD.encode(bytes), "seen": seen})
}

fn schema() -> Value {
    let field = |name: &str, plain: &str, semantic: &str| json!({"type": plain, "optional": true, "name": semantic, "field": name, "parameters": {"scale": "2"}});
    let fields = json!([
        {"type": "int64", "optional": false, "field": "id"},
        {"type": "string", "optional": true, "field": "name"},
        field("balance", "bytes", "org.apache.kafka.connect.data.Decimal"),
        field("seen", "int64", "io.debezium.time.MicroTimestamp"),
    ]);
    let image = |name: &str| json!({"type": "struct", "fields": fields, "optional": true, "field": name});
    json!({"type": "struct", "fields": [image("before"), image("after")], "name": "shop.public.customers.Envelope"})
}

/// What the mirror has.
fn mirrored(world: &World<'_>) -> BTreeMap<i64, Row> {
    let sql = "SELECT id, CAST(balance * 100 AS BIGINT), CAST(extract(epoch FROM seen) * 1000000 AS BIGINT), name FROM customers";
    let mut rows = BTreeMap::new();
    for line in world.query(sql) {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |i: usize| fields[i].parse::<i64>().unwrap();
        let name = Some(fields[3].to_string()).filter(|name| !name.is_empty());
        let before = rows.insert(number(0), (name, number(1), number(2)));
        assert_eq!(before, None, "{line} is there twice");
    }
    rows
}

#[test]
fn a_table_that_is_mirrored_is_the_same_after_kills() {
    let Some(broker) = Broker::shared() else { return };
    let seed = seed(17);
    let mut dice = Dice::new(seed);
    let world = World::new(broker, "customers_changed", PARTITIONS);
    let mut database = Database::new(seed);
    let mut snapshot = vec![];
    (0..KEYS as i64 / 2).for_each(|id| database.insert(id, "r", &mut snapshot));
    broker.produce("customers_changed", snapshot);
    let often = ["--commit-interval", "20 ms"];
    world.run(&[CHANGES, MIRROR], &often);
    assert_eq!(mirrored(&world), database.rows, "seed {seed}: the snapshot");
    for round in 1..=rounds() {
        let mut mirror = world.start(&[CHANGES, MIRROR], &often);
        for _ in 0..4 {
            broker.produce("customers_changed", database.changes(250));
            thread::sleep(Duration::from_millis(dice.below(200)));
        }
        thread::sleep(Duration::from_millis(dice.below(300)));
        // Who ended by itself complained of something.
        let ended = mirror.try_wait().unwrap();
        assert!(ended.is_none(), "seed {seed}, round {round}: {ended:?}");
        mirror.kill().unwrap();
        mirror.wait().unwrap();
    }
    world.run(&[CHANGES, MIRROR], &often);
    assert_eq!(mirrored(&world), database.rows, "seed {seed}");

    // What is no change of a row is kept, and the next one counts.
    let truncated = json!({"before": null, "after": null, "source": {"ts_ms": database.now}, "op": "t"}).to_string();
    let odd = [truncated, "{}".to_string()].map(|text| (0, None, Some(text.into_bytes()), None));
    broker.produce("customers_changed", odd);
    broker.produce("customers_changed", database.changes(100));
    world.run(&[CHANGES, MIRROR], &often);
    assert_eq!(mirrored(&world), database.rows, "seed {seed}: after a truncation");
    let errors = world.query("SELECT _reason, _error FROM customers_late ORDER BY _row");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("malformed,") && errors[0].contains("the table was truncated"), "{errors:?}");
}

#[test]
fn a_mirror_of_changes_that_the_log_has_forgotten() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "customers_kept", PARTITIONS);
    let mut database = Database::new(18);
    for _ in 0..3 {
        broker.produce("customers_kept", database.changes(700));
        // A day passes, which is a partition of the archive.
        database.now += 86_400_000;
    }
    world.run(&[CHANGES, ARCHIVE], &[]);
    let mut last = BTreeMap::<i32, i64>::new();
    for line in world.query("SELECT id, max(_offset) FROM kept GROUP BY id") {
        let (id, offset) = line.split_once(',').unwrap();
        let last = last.entry(partition(id.parse().unwrap())).or_default();
        *last = (*last).max(offset.parse().unwrap());
    }
    last.into_iter().for_each(|(part, offset)| broker.delete_records("customers_kept", part, offset));
    broker.produce("customers_kept", database.changes(700));
    let other = World { dir: tempfile::tempdir().unwrap(), broker, topic: world.topic.clone(), partitions: PARTITIONS };
    let all = ALL_CHANGES.replace("${DIR}/kept", &world.dir.path().join("kept").display().to_string());
    other.run(&[&all, MIRROR], &[]);
    assert_eq!(mirrored(&other), database.rows);
}

#[test]
fn rows_of_changes_are_not_taken_for_facts() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "changes_refused", 1);
    let blind = CHANGES.replace("_op VARCHAR, ", "");
    let refused = world.refused(&[&blind, "CREATE MATERIALIZED VIEW v AS SELECT id FROM customers_changes;"], &[]);
    assert!(
        refused.contains("rows of this source are changes") && refused.contains("declare a column _op"),
        "{refused}"
    );
}
