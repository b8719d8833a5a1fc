//! The log as a job sees it: read under a clock that is moved by hand, and decoded as messages of brokers are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float64Type, Int16Type, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;
use watershed_core::clock::ManualClock;
use watershed_core::tail::{Decode, Fetched, Messages, Part, Tail, TailReader};
use watershed_core::{Error, EventTime};
use watershed_formats::{FormatOptions, decoder};

use crate::GeneratorTail;

/// 2026-01-01T00:00:00Z
const START: EventTime = EventTime(1_767_225_600_000_000);

fn micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn rides() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("city", DataType::Utf8, false),
        Field::new("km", DataType::Float64, false),
        Field::new("at", micros(), false),
    ]))
}

/// A log that is as old as said, and its clock.
fn log(given: &[(&str, &str)], columns: &Schema, age: Duration) -> (GeneratorTail, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(START, 0));
    clock.advance(age);
    let given: BTreeMap<String, String> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let log = GeneratorTail::new("generate://", &given, columns, "at", Some(START), clock.clone());
    (log.unwrap(), clock)
}

/// What a log has from these offsets on.
async fn read_from(log: &GeneratorTail, from: &BTreeMap<Part, i64>) -> Vec<Messages> {
    let ends: BTreeMap<Part, i64> = log.look().await.unwrap().parts.into_iter().map(|(p, has)| (p, has.end)).collect();
    let mut reader = log.read(from).await.unwrap();
    let (mut at, mut found) = (from.clone(), vec![]);
    while at != ends {
        for messages in reader.next().await.unwrap().into_iter().filter_map(Fetched::messages) {
            assert_eq!(messages.offsets.value(0), at[&messages.part], "in order, without gaps");
            assert_eq!(messages.at_end, messages.next == ends[&messages.part]);
            at.insert(messages.part, messages.next);
            found.push(messages);
        }
    }
    found
}

async fn read(log: &GeneratorTail) -> Vec<Messages> {
    let from = log.look().await.unwrap().parts.into_iter().map(|(part, has)| (part, has.start)).collect();
    read_from(log, &from).await
}

fn decoded(messages: &[Messages], columns: &SchemaRef) -> RecordBatch {
    let json = FormatOptions { format: "json".into(), ..FormatOptions::default() };
    let decode: Arc<dyn Decode> = decoder(&json, columns.clone()).unwrap();
    let rows = messages.iter().map(|messages| {
        let decoded = decode.decode(messages).unwrap();
        assert!(decoded.malformed.is_empty(), "{:?}", decoded.malformed);
        decoded.rows
    });
    concat_batches(columns, &rows.collect::<Vec<_>>()).unwrap()
}

fn payloads(messages: &[Messages]) -> BTreeMap<(Part, i64), Vec<u8>> {
    let of = |m: &Messages| {
        (0..m.len()).map(|i| ((m.part, m.offsets.value(i)), m.payloads.value(i).to_vec())).collect::<Vec<_>>()
    };
    messages.iter().flat_map(of).collect()
}

#[tokio::test]
async fn messages_are_what_they_were() {
    // Jobs go on in logs that were begun by an earlier build: these bytes stay.
    let given = [("rows_per_second", "3"), ("parts", "2"), ("sequence", "id"), ("disorder", "1 min"), ("seed", "5")];
    let (log, _) = log(&given, &rides(), Duration::from_secs(1));
    let found = payloads(&read(&log).await).into_values().map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>();
    let expected: [&str; 4] = [
        r#"{"id":0,"city":"city_28","km":5.80,"at":"2025-12-31T23:59:37.951207Z"}"#,
        r#"{"id":2,"city":"city_7","km":45.34,"at":"2025-12-31T23:59:03.722719Z"}"#,
        r#"{"id":1,"city":"city_6","km":96.76,"at":"2025-12-31T23:59:41.185241Z"}"#,
        r#"{"id":3,"city":"city_55","km":13.58,"at":"2025-12-31T23:59:49.116141Z"}"#,
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_row_is_the_same_from_wherever_it_is_read() {
    let given = [("rows_per_second", "1000"), ("parts", "3"), ("skew", "0.9"), ("disorder", "1 h"), ("late", "0.1")];
    let (log, clock) = log(&given, &rides(), Duration::from_secs(20));
    let all = payloads(&read(&log).await);
    assert_eq!(all.len(), 20_001);
    let from = BTreeMap::from([(0, 0), (1, 4_321), (2, 6_666)]);
    clock.advance(Duration::from_millis(100));
    let again = payloads(&read_from(&log, &from).await);
    assert_eq!(again.len(), 20_101 - 4_321 - 6_666);
    for (place, payload) in &again {
        assert_eq!(all.get(place).unwrap_or(payload), payload, "{place:?}");
    }
    // Another seed, another log; and of fewer columns each is as it was.
    let (other, _) = log_of_seed(&given, "1", &rides());
    assert_ne!(payloads(&read(&other).await), all);
    let fewer = Arc::new(rides().project(&[3, 1]).unwrap());
    let (few, _) = log_of_seed(&given, "0", &fewer);
    let (few, whole) =
        (decoded(&read(&few).await, &fewer), decoded(&read(&log_of_seed(&given, "0", &rides()).0).await, &rides()));
    assert_eq!(few, whole.project(&[3, 1]).unwrap());
}

fn log_of_seed(given: &[(&str, &str)], seed: &str, columns: &Schema) -> (GeneratorTail, Arc<ManualClock>) {
    log(&[given, &[("seed", seed)]].concat(), columns, Duration::from_secs(20))
}

#[tokio::test]
async fn every_type_has_values_that_the_decoder_takes() {
    let names: [(&str, DataType); 14] = [
        ("at", DataType::Timestamp(TimeUnit::Second, None)),
        ("made", micros()),
        ("day", DataType::Date32),
        ("n", DataType::Int64),
        ("key", DataType::Int16),
        ("tiny", DataType::Int8),
        ("x", DataType::Float64),
        ("single", DataType::Float32),
        ("money", DataType::Decimal128(10, 2)),
        ("wide", DataType::Decimal128(38, 30)),
        ("whole", DataType::Decimal128(1, 0)),
        ("od\"d", DataType::Utf8),
        ("ok", DataType::Boolean),
        ("view", DataType::Utf8View),
    ];
    let fields = names.into_iter().map(|(name, data_type)| Field::new(name, data_type, false));
    let own = [Field::new("_offset", DataType::Int64, false), Field::new("_timestamp", micros(), false)];
    let columns = Arc::new(Schema::new(fields.chain(own).collect::<Vec<_>>()));
    let given = [("rows_per_second", "100"), ("keys", "90"), ("sequence", "n")];
    let (log, _) = log(&given, &columns, Duration::from_secs(20));
    let rows = decoded(&read(&log).await, &columns);
    let column = |name: &str| rows.column_by_name(name).unwrap();
    let number = column("n").as_primitive::<Int64Type>();
    assert_eq!(number.values().to_vec(), (0..2_001).collect::<Vec<i64>>());
    assert_eq!(column("_offset").as_primitive::<Int64Type>(), number);
    let keys: BTreeSet<i16> = column("key").as_primitive::<Int16Type>().values().iter().copied().collect();
    assert_eq!(keys, (0..90).collect());
    let texts: BTreeSet<&str> = column("od\"d").as_string::<i32>().iter().flatten().collect();
    assert!(texts.len() == 90 && texts.contains("od\"d_0") && texts.contains("od\"d_89"), "{texts:?}");
    let reals = column("x").as_primitive::<Float64Type>();
    assert!(reals.values().iter().all(|x| (0.0..100.0).contains(x) && (x * 100.0 - (x * 100.0).round()).abs() < 1e-9));
    let money = column("money").as_primitive::<Decimal128Type>();
    assert!(money.values().iter().any(|m| *m > 9_000) && money.values().iter().all(|m| (0..10_000).contains(m)));
    assert!(column("whole").as_primitive::<Decimal128Type>().values().iter().any(|m| *m > 5));
    assert_eq!(column("day").as_primitive::<Date32Type>().value(7), 20_454);
    let truth = column("ok").as_boolean().true_count();
    assert!((800..1_200).contains(&truth), "{truth}");
    assert_eq!(column("made").as_primitive::<TimestampMicrosecondType>().value(150), START.0 + 1_500_000);
}

/// How many events are earlier than the delay allows, behind those before them in their part.
fn late(messages: &[Messages], delay: i64) -> usize {
    let mut newest: BTreeMap<Part, i64> = BTreeMap::new();
    let mut late = 0;
    for messages in messages {
        let rows = decoded(std::slice::from_ref(messages), &rides());
        for at in rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>().values() {
            let newest = newest.entry(messages.part).or_insert(*at);
            late += usize::from(*at < *newest - delay);
            *newest = (*newest).max(*at);
        }
    }
    late
}

#[tokio::test]
async fn events_are_out_of_order_by_as_much_as_was_said_and_late_as_often() {
    let given = [("rows_per_second", "500"), ("parts", "2"), ("disorder", "10 s")];
    let age = Duration::from_secs(40);
    let ordered = read(&log(&given[..2], &rides(), age).0).await;
    assert_eq!(late(&ordered, 0), 0);
    let disordered = read(&log(&given, &rides(), age).0).await;
    assert_eq!(late(&disordered, 10_000_000), 0);
    assert!(late(&disordered, 5_000_000) > 1_000);
    let some = read(&log(&[&given[..], &[("late", "0.05")]].concat(), &rides(), age).0).await;
    let late = late(&some, 10_000_000);
    assert!((800..1_200).contains(&late), "{late} of 20,000");
}

#[tokio::test]
async fn rows_come_when_they_are_written_and_not_before() {
    let (log, clock) = log(&[("rows_per_second", "10"), ("parts", "2"), ("rows", "24")], &rides(), Duration::ZERO);
    let ends =
        async |log: &GeneratorTail| log.look().await.unwrap().parts.values().map(|has| has.end).collect::<Vec<_>>();
    assert_eq!(ends(&log).await, [1, 0]);
    let mut reader = log.read(&BTreeMap::from([(0, 0), (1, 0)])).await.unwrap();
    let next = async |reader: &mut Box<dyn TailReader>| {
        let found = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
        let found = found.map_or(vec![], |found| found.unwrap());
        let messages = found.into_iter().filter_map(Fetched::messages);
        messages.map(|m| (m.part, m.next, m.at_end)).collect::<Vec<_>>()
    };
    assert_eq!(next(&mut reader).await, [(0, 1, true)]);
    assert_eq!(next(&mut reader).await, []);
    clock.advance(Duration::from_millis(999));
    assert_eq!(next(&mut reader).await, [(1, 5, true), (0, 5, true)]);
    // What is set back takes nothing away.
    clock.set(START);
    assert_eq!(ends(&log).await, [5, 5]);
    assert_eq!(next(&mut reader).await, []);
    // A part that is held waits for whoever lets it go.
    clock.advance(Duration::from_secs(3600));
    reader.hold(&BTreeSet::from([0])).await.unwrap();
    assert_eq!(next(&mut reader).await, [(1, 12, true)]);
    assert_eq!(next(&mut reader).await, []);
    reader.hold(&BTreeSet::new()).await.unwrap();
    assert_eq!(next(&mut reader).await, [(0, 12, true)]);
    assert_eq!(next(&mut reader).await, []);
    assert_eq!(ends(&log).await, [12, 12]);
    // By time of writing.
    let at =
        async |micros: i64| log.at_time(EventTime(START.0 + micros)).await.unwrap().into_values().collect::<Vec<_>>();
    assert_eq!([at(-1).await, at(0).await, at(100_001).await], [[0, 0], [0, 0], [1, 1]]);
    assert_eq!(at(7_200_000_000).await, [12, 12]);
}

#[tokio::test]
async fn an_offset_that_is_not_there_is_an_error_that_names_it() {
    let (log, _) = log(&[("rows", "5")], &rides(), Duration::from_secs(10));
    for from in [BTreeMap::from([(0, 6)]), BTreeMap::from([(0, -1)]), BTreeMap::from([(1, 0)])] {
        let said = log.read(&from).await.err().unwrap();
        let (part, offset) = from.first_key_value().unwrap();
        assert!(
            matches!(&said, Error::Stopped(why) if why.contains(&format!("no offset {offset} in part {part}"))),
            "{said}"
        );
    }
    let mut reader = log.read(&BTreeMap::from([(0, 5)])).await.unwrap();
    assert!(reader.add(&BTreeMap::from([(1, 0)])).await.is_err());
}

#[test]
fn what_cannot_be_generated_is_refused() {
    let of = |location: &str, name: &str, data_type: DataType, given: &[(&str, &str)]| {
        let columns = Schema::new(vec![Field::new("at", micros(), true), Field::new(name, data_type, true)]);
        let given = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let clock = Arc::new(ManualClock::new(START, 0));
        GeneratorTail::new(location, &given, &columns, "at", Some(START), clock).unwrap_err().to_string()
    };
    let int = DataType::Int32;
    assert!(of("generate://x", "n", int.clone(), &[]).contains("write it as generate://"));
    assert!(of("generate://", "n", DataType::Binary, &[]).contains("column n is Binary"));
    assert!(of("generate://", "n", DataType::Int8, &[("keys", "129")]).contains("has no 129 keys"));
    assert!(of("generate://", "n", int.clone(), &[("sequence", "m")]).contains("no column m"));
    assert!(of("generate://", "n", int, &[("sequence", "n")]).contains("BIGINT"));
}
