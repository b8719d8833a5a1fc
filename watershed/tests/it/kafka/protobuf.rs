//! Protobuf messages in a topic, by descriptors that Google's compiler wrote: their columns, what becomes of those that are
//! none, and a view of all of them.

use std::fs;

use super::broker::Broker;
use super::world::{Ride, World, hours, rides};

const DECLARED: &str = "
CREATE SOURCE log (WATERMARK FOR at AS at - INTERVAL '10 minutes') WITH (
    tail = '${TOPIC}', format = 'protobuf', protobuf.descriptors = '${DIR}/shop.binpb', protobuf.message = 'shop.Event',
    protobuf.framing = 'confluent'
);
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(small) AS km
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, city;
CREATE MATERIALIZED VIEW events WITH (location = '${DIR}/events') AS SELECT * FROM log;
";

/// Before a message: the id of its schema, and that it is the fourth of its file.
const EVENT: &[u8] = &[0, 0, 0, 0, 9, 2, 6];

fn varint(mut rest: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// `Event { at: { seconds }, city, small: km }`
fn event(ride: &Ride) -> Vec<u8> {
    let (at, city) = (varint(ride.at as u64), format!("c{}", ride.city));
    let at = [&[0x1a, at.len() as u8 + 1, 8][..], &at].concat();
    [EVENT, &at, &[0x0a, city.len() as u8], city.as_bytes(), &[0x10], &varint(ride.km as u64)].concat()
}

#[test]
fn protobuf_messages_by_the_descriptors_of_their_type() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "events_of_shop", 2);
    let of_formats = concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/formats/tests/data");
    fs::copy(format!("{of_formats}/protobuf/shop.binpb"), world.dir.path().join("shop.binpb")).unwrap();
    let all = rides(11, 0..3_000, 30);
    broker.produce("events_of_shop", all.iter().map(|ride| ((ride.n % 2) as i32, None, Some(event(ride)), None)));
    // One with all fields, which Google's library wrote; one that is cut off, and a `shop.Cancel`.
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{of_formats}/protobuf.json")).unwrap()).unwrap();
    let hex = written["event"].as_str().unwrap();
    let full = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<_>>();
    let full = [EVENT, &full].concat();
    let others = [full.clone(), full[..20].to_vec(), [0, 0, 0, 0, 9, 2, 4, 8, 1].to_vec()];
    broker.produce("events_of_shop", others.into_iter().map(|payload| (0, None, Some(payload), None)));

    world.run(&[DECLARED], &["--final"]);
    let mut expected = hours(&all);
    expected.insert((1_769_860_800, "Bern".into()), (1, i64::from(u32::MAX)));
    assert_eq!(world.hourly(), expected);
    let errors = world.query("SELECT _error FROM hourly_late WHERE _reason = 'malformed' ORDER BY _row");
    assert_eq!(errors, ["the Protobuf message is cut off", "\"it is a shop.Cancel, not a shop.Event\""]);
    let full = world.query(
        "SELECT at, large, kind, cardinality(parts), kinds['k'], ratio, took, place['x'], place['ways'][1]['ok'], at_ms FROM events WHERE \
         city = 'Bern'",
    );
    assert_eq!(full, ["2026-01-31T12:00:00Z,18446744073709551615,SELL,2,BUY,0.5,1,-3,true,-1"]);
    assert_eq!(world.number("SELECT count(*) FROM events WHERE kind = 'KIND_UNKNOWN' AND place IS NULL"), 3_000);
    let declared = DECLARED.replace("log (", "log (at TIMESTAMP, citty VARCHAR, ");
    let refused = world.refused(&[&declared.replace("hourly", "other").replace("log", "source")], &[]);
    assert!(refused.contains("column 'citty': shop.Event has no such field; did you mean city?"), "{refused}");
}
