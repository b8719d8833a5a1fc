//! How many messages a second become rows, on one core: `cargo run --release --example speed [json | csv | avro | protobuf]`.
//!
//! Messages of about 200 bytes with six columns: a time as ISO text, two texts, an integer, a float and a flag.

use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use watershed_core::Result;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::tail::Messages;
use watershed_formats::{FormatOptions, decoder};

const MESSAGES: usize = 8192;
const BATCHES: usize = 500;

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}, {"name": "device", "type": "string"},
    {"name": "reading", "type": "long"}, {"name": "temperature", "type": "double"},
    {"name": "healthy", "type": "boolean"}, {"name": "message", "type": "string"}]}"#;

const DESCRIPTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/protobuf/shop.binpb");

/// A number, seven bits a byte.
fn varint(mut rest: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// As Avro has integers: zigzag, seven bits a byte.
fn long(value: i64) -> Vec<u8> {
    varint(((value << 1) ^ (value >> 63)) as u64)
}

fn text(text: &str) -> Vec<u8> {
    [&long(text.len() as i64)[..], text.as_bytes()].concat()
}

fn main() -> Result<()> {
    let format = std::env::args().nth(1).unwrap_or_else(|| "json".into());
    let schema = Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("device", DataType::Utf8, false),
        Field::new("reading", DataType::Int64, true),
        Field::new("temperature", DataType::Float64, true),
        Field::new("healthy", DataType::Boolean, true),
        Field::new("message", DataType::Utf8, true),
    ]));
    let message = |i: usize| {
        let (second, device) = (i % 60, format!("device-{:06}", i * 7919 % 100_000));
        let at = format!("2026-01-31T12:34:{second:02}.{:06}Z", i * 97 % 1_000_000);
        let (reading, temperature) = (i * 1_000_003, 15.0 + (i % 1000) as f64 / 37.0);
        let (healthy, said) = (!i.is_multiple_of(7), "all is as it should be and nothing else to say");
        match format.as_str() {
            "avro" => {
                let micros = 1_769_862_840_000_000 + i as i64;
                let numbers = [long(micros), text(&device), long(reading as i64), temperature.to_le_bytes().to_vec()];
                return [numbers.concat(), vec![u8::from(healthy)], text(said)].concat();
            }
            "protobuf" => {
                let bytes = |tag: u8, bytes: &[u8]| [&[tag][..], &varint(bytes.len() as u64), bytes].concat();
                let at =
                    [&[8][..], &varint(1_769_862_840 + i as u64), &[16], &varint(97_000 * i as u64 % 1_000_000_000)];
                let numbers = [&[24][..], &varint(reading as u64), &[33], &temperature.to_le_bytes()].concat();
                let texts = [bytes(10, &at.concat()), bytes(18, device.as_bytes()), numbers];
                return [texts.concat(), vec![40, u8::from(healthy)], bytes(50, said.as_bytes())].concat();
            }
            "csv" => format!("{at},{device},{reading},{temperature},{healthy},{said}"),
            _ => format!(
                "{{\"at\": \"{at}\", \"device\": \"{device}\", \"reading\": {reading}, \"temperature\": {temperature}, \
                 \"healthy\": {healthy}, \"message\": \"{said}\"}}"
            ),
        }
        .into_bytes()
    };
    let payloads: Vec<Vec<u8>> = (0..MESSAGES).map(message).collect();
    let messages = Messages {
        part: 0,
        offsets: Int64Array::from_iter_values(0..MESSAGES as i64),
        timestamps: TimestampMillisecondArray::from_value(0, MESSAGES),
        keys: BinaryArray::from_opt_vec(vec![None; MESSAGES]),
        payloads: BinaryArray::from_iter_values(&payloads),
        headers: None,
        next: MESSAGES as i64,
        at_end: false,
    };
    let mut options = FormatOptions { format, ..FormatOptions::default() };
    if options.format == "avro" {
        options.options.insert("avro.schema".into(), SCHEMA.into());
    }
    if options.format == "protobuf" {
        options.options.insert("protobuf.descriptors".into(), DESCRIPTORS.into());
        options.options.insert("protobuf.message".into(), "shop.Measured".into());
    }
    let decoder = decoder(&options, schema)?;
    let clock = SystemClock::default();
    let mut rows = 0;
    for _ in 0..BATCHES {
        rows += decoder.decode(&messages)?.rows.num_rows();
    }
    let seconds = clock.elapsed().as_secs_f64();
    let bytes = messages.bytes() as f64 * BATCHES as f64;
    let each = messages.bytes() / MESSAGES as u64;
    println!(
        "{rows} messages of {each} bytes: {:.0} messages/s, {:.0} MB/s",
        rows as f64 / seconds,
        bytes / seconds / 1e6
    );
    Ok(())
}
