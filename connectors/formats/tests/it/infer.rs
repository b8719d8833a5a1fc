//! Columns that nobody declared: what they are, and that the format reads the messages of the sample as them.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use watershed_core::tail::Messages;
use watershed_formats::{Inferred, columns, decoder, infer, is_own};

use crate::avro::{Written, serve};
use crate::{format, messages};

/// The names and types of columns.
fn shown(inferred: &Inferred) -> Vec<String> {
    inferred.columns.iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
}

fn of(name: &str, options: &[(&str, &str)], payloads: &[impl AsRef<[u8]>], time: Option<&str>) -> Inferred {
    let all = messages(&payloads.iter().map(Some).collect::<Vec<_>>());
    let format = format(name, options);
    let inferred = infer(&format, std::slice::from_ref(&all), time).unwrap();
    // What was counted as read is a fact of these columns.
    let decoded = decoder(&format, arrow::datatypes::Schema::new(inferred.columns.clone()).into()).unwrap();
    let decoded = decoded.decode(&all).unwrap();
    assert_eq!(decoded.malformed.len(), inferred.malformed, "{:?}", decoded.malformed);
    inferred
}

fn refused(name: &str, options: &[(&str, &str)], payloads: &[&[u8]]) -> String {
    let all = messages(&payloads.iter().map(Some).collect::<Vec<_>>());
    infer(&format(name, options), &[all], None).unwrap_err().to_string()
}

#[test]
fn columns_of_json() {
    let payloads = [
        r#"{"at": "2026-01-31T12:00:00Z", "n": 1, "x": 1, "_offset": 7, "tags": [], "home": {"zip": null}, "odd": [1]}"#,
        "{",
        r#"{"day": "2026-01-31", "x": 2.5, "tags": ["a"], "home": {"zip": "1", "Nr": 5}, "odd": 7, "n": null}"#,
        "[1]",
    ];
    let inferred = of("json", &[], &payloads, Some("at"));
    let expected = [
        "at Timestamp(µs)",
        "n Int64",
        "x Float64",
        "tags List(Utf8, field: 'element')",
        "home Struct(\"zip\": Utf8, \"Nr\": Int64)",
        "day Date32",
    ];
    assert_eq!(shown(&inferred), expected, "and none that is the message's own");
    assert_eq!((inferred.read, inferred.malformed), (2, 2));
    let odd = ["'odd': it is a list or an object in one message and something else in another"];
    assert_eq!(inferred.left_out, odd);

    let numbers = [r#"{"at": 1769860800000, "n": 1}"#];
    let unit = [("json.timestamp", "ms")];
    assert_eq!(shown(&of("json", &unit, &numbers, Some("at"))), ["at Timestamp(µs)", "n Int64"]);
    assert_eq!(shown(&of("json", &[], &numbers, Some("at"))), ["at Int64", "n Int64"]);
    assert_eq!(shown(&of("json", &unit, &[r#"{"at": "2026-01-31T12:00:00Z"}"#], None)), ["at Utf8"]);
}

#[test]
fn messages_that_say_nothing() {
    let expected = "of 2 messages none can be read as format 'json', the first of them, at offset 1000 of part 3: EOF while \
                    parsing an object at line 1 column 1";
    assert_eq!(refused("json", &[], &[b"{", b"x"]), expected);
    assert!(refused("json", &[], &[b"{}"]).starts_with("no columns can be made of 1 messages"));
    assert!(refused("json", &[], &[b"{\"a\": {}}"]).contains("'a': it is an object without a field"));
    assert!(refused("debezium-json", &[], &[b"{\"id\": 1}"]).contains("it is no change: it has no `op`"));
    assert!(refused("avro", &[], &[b"x"]).starts_with("format 'avro' needs avro.registry"));
    let tombstones: [Option<&[u8]>; 2] = [None, None];
    let none = infer(&format("json", &[]), &[messages(&tombstones)], None).unwrap_err().to_string();
    assert!(none.starts_with("no columns can be made of 0 messages"), "{none}");
}

#[test]
fn columns_that_are_known_without_messages() {
    let known = |name: &str, options: &[(&str, &str)]| {
        let known = columns(&format(name, options)).unwrap();
        known.map(|known| known.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>())
    };
    let written = Written::of(include_str!("../data/avro.json"));
    assert_eq!(known("raw", &[]).unwrap(), ["value"]);
    assert_eq!(known("avro", &[("avro.schema", written.schema(2))]).unwrap(), ["name", "id", "more", "at"]);
    assert_eq!(known("avro", &[("avro.registry", "http://host")]), None);
    assert_eq!((known("json", &[]), known("debezium-json", &[])), (None, None));
    assert!(columns(&format("csv", &[])).unwrap_err().to_string().contains("have no names for their columns"));
    let odd = columns(&format("avro", &[("avro.schema", "\"string\"")])).unwrap_err().to_string();
    assert_eq!(odd, "option avro.schema: it is no record");
    assert!(is_own("json", "_headers") && is_own("debezium-avro", "_op"));
    assert!(!is_own("json", "_op") && !is_own("json", "at"));
}

#[test]
fn columns_of_avro_are_those_of_the_schema_that_was_registered_last() {
    let written = Written::of(include_str!("../data/avro.json"));
    let served = serve(vec![
        ("/schemas/ids/1", 200, json!({"schema": written.schema(1)})),
        ("/schemas/ids/2", 200, json!({"schema": written.schema(2)})),
        ("/schemas/ids/4", 200, json!({"schema": "message X {}", "schemaType": "PROTOBUF"})),
    ]);
    let options = [("avro.registry", served.url.as_str())];
    let payloads = [written.framed(2, 0), written.framed(1, 0), b"{}".to_vec()];
    let all = messages(&payloads.iter().map(Some).collect::<Vec<_>>());
    let inferred = infer(&format("avro", &options), &[all], None).unwrap();
    let newer = [
        "name Utf8",
        "id Int32",
        "more List(Map(\"key_value\": non-null Struct(\"key\": non-null Utf8, \"value\": Float64), unsorted), field: 'element')",
        "at Timestamp(µs, \"UTC\")",
    ];
    assert_eq!(shown(&inferred), newer);
    assert_eq!((inferred.read, inferred.malformed), (2, 1));

    let inferred = of("avro", &options, &[written.framed(1, 0), written.framed(1, 1)], None);
    let of_first = shown(&inferred);
    for column in
        ["id Int64", "price Decimal128(8, 2)", "day Date32", "kind Utf8", "hash Binary", "uid Utf8", "ratio Float32"]
    {
        assert!(of_first.contains(&column.to_string()), "{column}: {of_first:?}");
    }
    assert_eq!(inferred.left_out.len(), 1, "{:?}", inferred.left_out);
    assert!(inferred.left_out[0].starts_with("'other': no column holds its Union("));
    let unusable = refused("avro", &options, &[&[0, 0, 0, 0, 4, 2]]);
    assert!(unusable.contains("none can be read") && unusable.contains("it is a schema of PROTOBUF"), "{unusable}");
}

#[test]
fn columns_of_changes() {
    let change = |row: Value| json!({"before": null, "after": row, "op": "c", "ts_ms": 5, "source": {"ts_ms": 4}});
    let plain = [
        change(json!({"id": 1, "name": "a", "seen": "2026-01-31T12:00:00Z", "doc": "__debezium_unavailable_value"})),
        json!({"before": {"id": 1, "name": null, "big": 18446744073709551615_u64}, "after": null, "op": "d"}),
    ];
    let of_plain: Vec<String> = plain.iter().map(Value::to_string).collect();
    let all = messages(&of_plain.iter().map(Some).collect::<Vec<_>>());
    let inferred = infer(&format("debezium-json", &[]), &[all], None).unwrap();
    let expected = [
        "doc Utf8",
        "id Int64",
        "name Utf8",
        "seen Timestamp(µs)",
        "big Utf8",
        "_op Utf8",
        "_changed_at Timestamp(µs)",
    ];
    assert_eq!(shown(&inferred), expected);

    // A schema beside the change is exact.
    let field = |name: &str, plain: &str, semantic: &str| json!({"type": plain, "field": name, "name": semantic});
    let mut decimal = field("price", "bytes", "org.apache.kafka.connect.data.Decimal");
    decimal["parameters"] = json!({"scale": "2", "connect.decimal.precision": "10"});
    let mut tags = field("tags", "array", "");
    tags["items"] = json!({"type": "string"});
    let row = json!({"type": "struct", "field": "after", "fields": [
        field("id", "int32", ""), field("at", "int64", "io.debezium.time.MicroTimestamp"), field("day", "int32", "io.debezium.time.Date"),
        decimal, tags, field("took", "int64", "io.debezium.time.MicroTime"), field("photo", "bytes", ""),
        field("any", "struct", "io.debezium.data.VariableScaleDecimal"),
    ]});
    let schema = json!({"type": "struct", "fields": [row]});
    let change =
        change(json!({"id": 1, "at": 5, "day": 7, "price": "AQ==", "tags": ["x"], "took": 1, "photo": "AQ=="}));
    let enveloped = json!({"schema": schema, "payload": change}).to_string();
    let inferred = of("debezium-json", &[], &[enveloped], None);
    let expected = [
        "id Int32",
        "at Timestamp(µs)",
        "day Date32",
        "price Decimal128(10, 2)",
        "tags List(Utf8, field: 'element')",
        "took Int64",
        "photo Binary",
        "_op Utf8",
        "_changed_at Timestamp(µs)",
    ];
    assert_eq!(shown(&inferred), expected);
    assert!(inferred.left_out[0].starts_with("'any': "), "{:?}", inferred.left_out);

    let written = Written::of(include_str!("../data/debezium.json"));
    let served = serve(vec![("/schemas/ids/1", 200, json!({"schema": written.schema(1)}))]);
    let inferred = of("debezium-avro", &[("avro.registry", &served.url)], &[written.framed(1, 0)], None);
    let found = shown(&inferred);
    for column in [
        "id Int32",
        "balance Decimal128(10, 2)",
        "ms Timestamp(µs)",
        "ns Timestamp(µs)",
        "zoned Timestamp(µs)",
        "day Date32",
        "connect_day Date32",
        "took Int64",
        "_op Utf8",
    ] {
        assert!(found.contains(&column.to_string()), "{column}: {found:?}, {:?}", inferred.left_out);
    }
}

/// Any JSON, of few names and kinds so that fields meet.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        prop_oneof![
            Just("2026-01-31T12:00:00Z"),
            Just("2026-01-31 12:00:00.5"),
            Just("2026-01-31"),
            Just("x"),
            Just("")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[abc]", inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec(("[abcd]", value()), 1..5).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn objects_are_facts_of_the_columns_that_they_show(objects in vec(object(), 1..12), cut in 0..12usize) {
        let payloads: Vec<_> = objects.into_iter().map(|object| Some(Value::Object(object).to_string())).collect();
        let all = messages(&payloads);
        let json = format("json", &[]);
        let Ok(inferred) = infer(&json, std::slice::from_ref(&all), None) else { return Ok(()) };
        let decode = decoder(&json, arrow::datatypes::Schema::new(inferred.columns.clone()).into()).unwrap();
        let decoded = decode.decode(&all).unwrap();
        prop_assert_eq!(&decoded.malformed, &vec![], "{:?}", inferred);
        prop_assert_eq!(inferred.read, payloads.len());
        // However they are fetched.
        let cut = cut.min(all.len());
        let halves: [Messages; 2] = [all.slice(0, cut), all.slice(cut, all.len() - cut)];
        prop_assert_eq!(infer(&json, &halves, None).unwrap(), inferred);
    }

    #[test]
    fn nothing_panics(payloads in vec(vec(any::<u8>(), 0..40), 0..8), name in prop_oneof![Just("json"), Just("debezium-json")]) {
        let all = messages(&payloads.iter().map(Some).collect::<Vec<_>>());
        let _ = infer(&format(name, &[]), &[all], Some("at"));
    }
}
