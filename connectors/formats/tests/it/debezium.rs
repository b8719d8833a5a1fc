//! Debezium's changes, in JSON with and without a schema and in Avro as fastavro wrote it (`tests/data/debezium.py`): what each
//! comes to, and that what cannot be carried out is malformed and names why.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::avro::{Served, Written, serve};
use crate::oracle::{spoils, spoilt_ones_spoil_no_others};
use crate::{check, messages, open, shown};

const CHANGES: [(&str, &str); 4] = [("id", "BIGINT"), ("name", "TEXT"), ("_op", "TEXT"), ("_changed_at", "TIMESTAMP")];

/// A change as Debezium has it, without a schema.
fn change(op: &str, before: Value, after: Value) -> Value {
    json!({
        "before": before,
        "after": after,
        "source": {
            "version": "3.0.0.Final", "connector": "postgresql", "name": "shop", "ts_ms": 1_769_860_800_123_i64, "snapshot": "false",
            "db": "shop", "sequence": "[\"24023119\",\"24023128\"]", "schema": "public", "table": "customers", "txId": 555,
            "lsn": 24_023_128, "xmin": null
        },
        "transaction": null,
        "op": op,
        "ts_ms": 1_769_860_800_500_i64
    })
}

/// The same as Kafka Connect's converter writes it, with the schema of a row of these fields.
fn enveloped(fields: &Value, change: &Value) -> String {
    let image = |name: &str| json!({"type": "struct", "fields": fields, "optional": true, "name": "shop.public.customers.Value", "field": name});
    let source = json!({"type": "struct", "fields": [{"type": "int64", "optional": false, "field": "ts_ms"}], "optional": false,
        "name": "io.debezium.connector.postgresql.Source", "field": "source"});
    let others = [
        json!({"type": "string", "optional": false, "field": "op"}),
        json!({"type": "int64", "optional": true, "field": "ts_ms"}),
    ];
    let fields = [image("before"), image("after"), source].into_iter().chain(others).collect::<Vec<_>>();
    let schema = json!({"type": "struct", "fields": fields, "optional": false, "name": "shop.public.customers.Envelope", "version": 1});
    // Kafka Connect writes the schema first.
    format!(r#"{{"schema":{schema},"payload":{change}}}"#)
}

fn field(name: &str, plain: &str, semantic: Option<&str>) -> Value {
    let mut field = json!({"type": plain, "optional": true, "field": name});
    if let Some(semantic) = semantic {
        field["name"] = json!(semantic);
        field["version"] = json!(1);
    }
    field
}

fn texts(changes: &[Value]) -> Vec<String> {
    changes.iter().map(Value::to_string).collect()
}

#[test]
fn a_change_is_one_image_of_its_row() {
    let debezium = open("debezium-json", &[], &CHANGES).unwrap();
    let row = |id: i64, name: &str| json!({"id": id, "name": name, "more": [1, {"x": null}]});
    let mut unseen = change("u", Value::Null, row(4, "dan"));
    unseen["source"]["ts_ms"] = Value::Null;
    let mut untimed = unseen.clone();
    untimed.as_object_mut().unwrap().remove("source");
    untimed["ts_ms"] = Value::Null;
    let changes = [
        change("r", Value::Null, row(1, "ann")),
        change("c", Value::Null, row(2, "bob")),
        change("u", row(1, "ann"), row(1, "Ann \" }")),
        change("d", row(2, "bob"), Value::Null),
        change("d", json!({"id": 1}), Value::Null),
        unseen,
        untimed,
    ];
    let expected = r#"
        1 | ann | r | 2026-01-31T12:00:00.123
        2 | bob | c | 2026-01-31T12:00:00.123
        1 | Ann " } | u | 2026-01-31T12:00:00.123
        2 | bob | d | 2026-01-31T12:00:00.123
        1 | NULL | d | 2026-01-31T12:00:00.123
        4 | dan | u | 2026-01-31T12:00:00.500
        4 | dan | u | NULL"#;
    check(&debezium, &texts(&changes), expected);
    let fields = json!([field("id", "int32", None), field("name", "string", None), field("more", "array", None)]);
    let enveloped: Vec<_> = changes.iter().map(|change| enveloped(&fields, change)).collect();
    check(&debezium, &enveloped, expected);
    let schemaless: Vec<_> =
        changes.iter().map(|change| format!(r#" {{ "schema": null, "payload" : {change} }}"#)).collect();
    check(&debezium, &schemaless, expected);
}

#[test]
fn what_changes_no_row_is_malformed() {
    let debezium = open("debezium-json", &[], &CHANGES).unwrap();
    let row = json!({"id": 1, "name": "ann"});
    let mut log_message = change("m", Value::Null, Value::Null);
    log_message["message"] = json!({"prefix": "p", "content": "aGk="});
    let mut payloads = texts(&[
        change("c", Value::Null, row.clone()),
        change("t", Value::Null, Value::Null),
        log_message,
        change("d", Value::Null, Value::Null),
        change("u", row.clone(), Value::Null),
        change("x", row.clone(), row.clone()),
        row.clone(),
        change("c", Value::Null, json!([1])),
        change("c", Value::Null, json!({"id": "many"})),
        change("u", json!({"id": {}}), row.clone()),
    ]);
    payloads.extend([
        r#"{"schema": {}}"#.to_string(),
        r#"{"schema": {}, "payload": {}}"#.to_string(),
        r#"{"schema": {"fields": [{"field": "after", "fields": []}]}, "payload": null}"#.to_string(),
        format!(r#"{{"schema": null, "payload": {}}} x"#, change("c", Value::Null, row.clone())),
        r#"{"schema": null, "payload": {"op""#.to_string(),
        String::new(),
        change("c", Value::Null, row.clone()).to_string() + "{}",
    ]);
    let expected = "
        1 | ann | c | 2026-01-31T12:00:00.123
        1: the table was truncated, which cannot be done by changes of rows
        2: it is a message of the database's log, and no change of a row
        3: it deletes a row, and without `before` does not say which
        4: its op is 'u', and it has no `after`
        5: its op 'x' is none of c, u, r and d
        6: it has no op: it is no change, or one that a transform has unwrapped
        7: whilst decoding field 'after': expected { got [1]
        8: column 'id': 'many' is no BIGINT
        9: whilst decoding field 'before': whilst decoding field 'id': expected string got {}
        10: it has a schema and no payload
        11: its schema is none of a change: no `after` is in it
        12: expected { got null
        13: something follows the JSON object
        14: the JSON object ends early
        15: it is empty
        16: something follows the JSON object";
    check(&debezium, &payloads, expected);
    let must = open("debezium-json", &[], &[("id", "BIGINT!"), ("name", "TEXT!"), ("_op", "TEXT!")]).unwrap();
    let payloads = texts(&[change("d", json!({"id": 1}), Value::Null), change("d", row, Value::Null)]);
    check(&must, &payloads, "1 | ann | d\n0: column 'name' is NOT NULL, and is NULL or missing");
}

#[test]
fn tombstones_behind_deletions_are_passed_over() {
    let debezium = open("debezium-json", &[], &[("_offset", "BIGINT"), ("id", "BIGINT"), ("_op", "VIEW")]).unwrap();
    let deletion = change("d", json!({"id": 1}), Value::Null).to_string();
    let decoded = debezium.decode(&messages(&[Some(&deletion), None, Some(&deletion), None])).unwrap();
    assert_eq!(shown(&decoded), "1000 | 1 | d\n1004 | 1 | d\n");
}

/// The schema says how values are written.
#[test]
fn types_of_a_schema() {
    let columns = [
        ("ms", "TIMESTAMP"),
        ("us", "TIMESTAMP(9)"),
        ("ns", "TIMESTAMPTZ"),
        ("c", "BERLIN"),
        ("zoned", "TIMESTAMP"),
        ("day", "DATE"),
        ("price", "DECIMAL"),
        ("text", "DECIMAL"),
        ("x", "DECIMAL"),
        ("photo", "BYTEA"),
        ("took", "BIGINT"),
        ("raw", "BIGINT"),
        ("tags", "TEXT[]"),
        ("ok", "BOOLEAN"),
        ("kind", "TEXT"),
        ("missing", "INT"),
        ("_op", "TEXT"),
    ];
    let mut price = field("price", "bytes", Some("org.apache.kafka.connect.data.Decimal"));
    price["parameters"] = json!({"scale": "1", "connect.decimal.precision": "9"});
    let mut tags = field("tags", "array", None);
    tags["items"] = json!({"type": "string", "optional": true});
    let fields = json!([
        field("ms", "int64", Some("io.debezium.time.Timestamp")),
        field("us", "int64", Some("io.debezium.time.MicroTimestamp")),
        field("ns", "int64", Some("io.debezium.time.NanoTimestamp")),
        field("c", "int64", Some("org.apache.kafka.connect.data.Timestamp")),
        field("zoned", "string", Some("io.debezium.time.ZonedTimestamp")),
        field("day", "int32", Some("io.debezium.time.Date")),
        price,
        field("text", "string", None),
        field("x", "double", None),
        field("photo", "bytes", None),
        field("took", "int64", Some("io.debezium.time.MicroTime")),
        field("raw", "int64", Some("io.debezium.time.MicroTimestamp")),
        tags,
        field("ok", "boolean", None),
        field("kind", "string", Some("io.debezium.data.Enum")),
    ]);
    let debezium = open("debezium-json", &[], &columns).unwrap();
    let row = json!({
        "ms": 1_769_860_800_123_i64, "us": 1_769_860_800_123_456_i64, "ns": 1_769_860_800_123_456_789_i64, "c": 1_769_860_800_000_i64,
        "zoned": "2026-01-31T13:00:00.5+01:00", "day": 20_484, "price": "+y4=", "text": "12.345", "x": 2.5, "photo": "AP8=",
        "took": 3_600_000_000_i64, "raw": 1, "tags": ["a", null], "ok": true, "kind": "VIP"
    });
    let with = |name: &str, value: Value| {
        let mut row = row.clone();
        row[name] = value;
        enveloped(&fields, &change("c", Value::Null, row))
    };
    let payloads = [
        with("took", json!(3_600_000_000_i64)),
        with("price", json!("####")),
        with("price", json!("f////w==")),
        with("photo", json!("hex!")),
        with("day", json!("soon")),
        with("us", json!("2026-01-31T00:00:00Z")),
        with("zoned", json!(1_769_860_800)),
        with("kind", json!("__debezium_unavailable_value")),
        with("photo", json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
        with("tags", json!(["__debezium_unavailable_value"])),
    ];
    let unsent = "the database did not send its value, which had not changed; it does with REPLICA IDENTITY FULL";
    let expected = format!(
        "
        2026-01-31T12:00:00.123 | 2026-01-31T12:00:00.123456 | 2026-01-31T12:00:00.123456Z | 2026-01-31T13:00:00+01:00 | \
        2026-01-31T12:00:00.500 | 2026-01-31 | -123.40 | 12.35 | 2.50 | 00ff | 3600000000 | 1 | [a, NULL] | true | VIP | NULL | c
        1: column 'price': '####' is no DECIMAL(10, 2); it should be a decimal's bytes in base64, or a number
        2: column 'price': 'f////w==' is no DECIMAL(10, 2); it should be a decimal's bytes in base64, or a number
        3: column 'photo': 'hex!' is no BYTEA; it should be base64
        4: column 'day': 'soon' is no DATE; it should be days since 1970
        5: column 'us': '2026-01-31T00:00:00Z' is no TIMESTAMP; it should be a number since 1970
        6: column 'zoned': '1769860800' is no TIMESTAMP; numbers are times with debezium.timestamp = 's', 'ms', 'us' or 'ns'
        7: column 'kind': {unsent}
        8: column 'photo': {unsent}
        9: column 'tags': {unsent}"
    );
    check(&debezium, &payloads, &expected);
}

/// `1234` is a number, or bytes: `d7 6d f8`.
#[test]
fn decimals_that_may_be_numbers() {
    let mut price = field("price", "bytes", Some("org.apache.kafka.connect.data.Decimal"));
    price["parameters"] = json!({"scale": "2"});
    let fields = json!([price]);
    let debezium = open("debezium-json", &[], &[("price", "DECIMAL"), ("_op", "TEXT")]).unwrap();
    let of = |price: Value| enveloped(&fields, &change("d", json!({"price": price}), Value::Null));
    let payloads =
        [of(json!("1234")), of(json!(1234)), of(json!(12.5)), of(json!("12+4")), of(json!(0.125)), of(json!("1e10"))];
    let expected = "
        -26588.24 | d
        1234.00 | d
        12.50 | d
        -26583.76 | d
        -27572.60 | d
        4: column 'price': '0.125' is no DECIMAL(10, 2); it should be a decimal's bytes in base64, or a number";
    check(&debezium, &payloads, expected);
}

#[test]
fn a_schema_that_a_column_does_not_hold() {
    let mut price = field("price", "bytes", Some("org.apache.kafka.connect.data.Decimal"));
    price["parameters"] = json!({"scale": "4"});
    let mut times = field("times", "array", None);
    times["items"] = json!({"type": "int64", "optional": true, "name": "io.debezium.time.MicroTimestamp"});
    let fields = json!([
        field("id", "int64", None),
        price,
        times,
        field("at", "int64", None),
        field("time", "int32", Some("io.debezium.time.Time")),
        field("bits", "bytes", Some("io.debezium.data.Bits")),
        field("any", "struct", Some("io.debezium.data.VariableScaleDecimal")),
    ]);
    let payload = [enveloped(&fields, &change("c", Value::Null, json!({"id": 1})))];
    for (column, data_type, expected) in [
        ("id", "TEXT", "it is text, which does not hold its int64"),
        ("id", "TIMESTAMP", "it is TIMESTAMP, which does not hold its int64"),
        ("price", "DECIMAL", "it has 4 digits behind the point, which DECIMAL(10, 2) does not hold"),
        ("price", "DOUBLE", "it is DOUBLE, which does not hold its bytes (org.apache.kafka.connect.data.Decimal)"),
        ("times", "TEXT[]", "it is text, which does not hold its int64 (io.debezium.time.MicroTimestamp)"),
        ("at", "TIMESTAMP", "it is TIMESTAMP, which does not hold its int64"),
        ("time", "TIME", "it is Time64(µs), which does not hold its int32 (io.debezium.time.Time)"),
        ("bits", "BIGINT", "it is BIGINT, which does not hold its bytes (io.debezium.data.Bits)"),
        (
            "any",
            "DECIMAL",
            "it is a VariableScaleDecimal, which is not read as DECIMAL: set decimal.handling.mode = 'string' in the connector",
        ),
    ] {
        let debezium = open("debezium-json", &[], &[(column, data_type), ("_op", "TEXT")]).unwrap();
        check(&debezium, &payload, &format!("0: column '{column}': {expected}"));
    }
    let long =
        enveloped(&json!([field("id", "int64", Some(&"x".repeat(100_000)))]), &change("c", Value::Null, json!({})));
    let debezium = open("debezium-json", &[], &[("id", "TEXT"), ("_op", "TEXT")]).unwrap();
    let decoded = debezium.decode(&messages(&[Some(long)])).unwrap();
    assert!(decoded.malformed[0].1.len() < 400, "a reason fits a line");
    let numbers = open("debezium-json", &[], &[("times", "BIGINT[]"), ("bits", "BYTEA"), ("_op", "TEXT")]).unwrap();
    check(&numbers, &payload, "NULL | NULL | c");
}

/// Nothing says how values are written but the columns, and options.
#[test]
fn types_without_a_schema() {
    let columns = [
        ("at", "TIMESTAMP"),
        ("day", "DATE"),
        ("photo", "BYTEA"),
        ("n", "BIGINT"),
        ("_op", "TEXT"),
        ("_changed_at", "TIMESTAMPTZ"),
    ];
    let payloads = texts(&[
        change("c", Value::Null, json!({"at": "2026-01-31T13:00:00+01:00", "day": 20_484, "photo": "AP8=", "n": "7"})),
        change("c", Value::Null, json!({"day": "2026-01-31"})),
        change("c", Value::Null, json!({"at": 1_769_860_800_123_i64})),
        change("c", Value::Null, json!({"photo": "\\x00ff"})),
    ]);
    let debezium = open("debezium-json", &[], &columns).unwrap();
    let expected = "
        2026-01-31T12:00:00 | 2026-01-31 | 00ff | 7 | c | 2026-01-31T12:00:00.123Z
        NULL | 2026-01-31 | NULL | NULL | c | 2026-01-31T12:00:00.123Z
        2: column 'at': '1769860800123' is no TIMESTAMP; numbers are times with debezium.timestamp = 's', 'ms', 'us' or 'ns'
        3: column 'photo': '\\x00ff' is no BYTEA; it should be base64";
    check(&debezium, &payloads, expected);
    let millis = open(
        "debezium-json",
        &[("debezium.timestamp", "ms")],
        &columns[..1].iter().chain(&columns[4..5]).copied().collect::<Vec<_>>(),
    );
    check(&millis.unwrap(), &payloads[..3], "2026-01-31T12:00:00 | c\nNULL | c\n2026-01-31T12:00:00.123 | c");

    let columns = [("price", "DECIMAL"), ("_op", "TEXT")];
    let price = |price: Value| change("c", Value::Null, json!({"price": price}));
    let prices = texts(&[price(json!("1234")), price(json!(1.5)), price(json!("AN3h"))]);
    let unsaid = open("debezium-json", &[], &columns).unwrap();
    let reason =
        "column 'price': without a schema it is not known how decimals are written: say it with debezium.decimal";
    check(&unsaid, &prices[..1], &format!("0: {reason}"));
    let precise = open("debezium-json", &[("debezium.decimal", "precise")], &columns).unwrap();
    check(&precise, &prices, "-26588.24 | c\n1.50 | c\n568.01 | c");
    let string = open("debezium-json", &[("debezium.decimal", "string")], &columns).unwrap();
    check(&string, &prices, "1234.00 | c\n1.50 | c\n2: column 'price': 'AN3h' is no DECIMAL(10, 2)");
}

#[test]
fn changes_in_avro() {
    let (written, served) = (written(), registry());
    let registry = [("avro.registry", served.url.as_str())];
    let debezium = open("debezium-avro", &registry, &CHANGES).unwrap();
    let payloads: Vec<_> = (0..9)
        .map(|at| written.framed(1, at))
        .chain([written.framed(2, 0), written.framed(3, 0), written.framed(2, 1), vec![0, 0, 0, 0, 9, 2]])
        .collect();
    let unsent = "the database did not send its value, which had not changed; it does with REPLICA IDENTITY FULL";
    let expected = format!(
        "
        1001 | Sally | r | 2026-01-31T12:00:00
        1002 | George | c | 2026-01-31T12:00:01
        1001 | Anne | u | 2026-01-31T12:00:00
        1001 | NULL | d | 2026-01-31T12:00:02
        1099511627776 | Ed | u | 2026-01-31T12:00:00
        1002 | NULL | d | 2026-01-31T12:00:00
        4: it deletes a row, and without `before` does not say which
        5: its op is 'c', and it has no `after`
        6: the table was truncated, which cannot be done by changes of rows
        7: it is a message of the database's log, and no change of a row
        8: column 'name': {unsent}
        10: its schema 3: it is none of a change: no row is in it
        12: its schema 9: the schema registry {} does not have it",
        served.url
    );
    check(&debezium, &payloads, &expected);
}

#[test]
fn types_in_avro() {
    let (written, served) = (written(), registry());
    let registry = [("avro.registry", served.url.as_str())];
    let columns = [
        ("balance", "DECIMAL"),
        ("text_balance", "DECIMAL"),
        ("ms", "TIMESTAMP"),
        ("us", "TIMESTAMPTZ"),
        ("ns", "TIMESTAMP(3)"),
        ("zoned", "TIMESTAMP"),
        ("day", "DATE"),
        ("connect_day", "DATE"),
        ("took", "BIGINT"),
        ("photo", "BYTEA"),
        ("tags", "TEXT[]"),
        ("uid", "TEXT"),
        ("missing", "TEXT"),
        ("_op", "TEXT"),
    ];
    let debezium = open("debezium-avro", &registry, &columns).unwrap();
    let expected = "
        -12.34 | 12345678.91 | 2026-01-31T12:00:00.123 | 2026-01-31T12:00:00.123456Z | 2026-01-31T12:00:00.123 | \
        2026-01-31T12:00:00.123456 | 2026-01-31 | 2026-01-31 | 1000000 | 00ff | [a, NULL] | \
        12345678-1234-5678-1234-567812345678 | NULL | r
        1: column 'photo': the database did not send its value, which had not changed; it does with REPLICA IDENTITY FULL";
    check(&debezium, &[written.framed(1, 0), written.framed(1, 2)], expected);
    // As they are written, and not as they are meant.
    let plain = [("us", "BIGINT"), ("zoned", "TEXT"), ("day", "INT"), ("_op", "TEXT")];
    let debezium = open("debezium-avro", &[("avro.schema", written.schema(1))], &plain).unwrap();
    let expected = "1769860800123456 | 2026-01-31T13:00:00.123456+01:00 | 20484 | r";
    check(&debezium, &[written.record(1, 0)], expected);
    for (column, data_type, expected) in [
        ("id", "SMALLINT", "column 'id' is SMALLINT, which does not hold its INT"),
        ("took", "TIMESTAMP", "column 'took' is TIMESTAMP, which does not hold its BIGINT"),
        (
            "any",
            "DECIMAL",
            "column 'any': it is a VariableScaleDecimal, which is not read as DECIMAL: set decimal.handling.mode = 'string' in the \
             connector",
        ),
    ] {
        let debezium = open("debezium-avro", &registry, &[(column, data_type), ("_op", "TEXT")]).unwrap();
        check(&debezium, &[written.framed(1, 0)], &format!("0: its schema 1: {expected}"));
    }
}

#[test]
fn what_a_source_of_changes_must_be() {
    for format in ["debezium-json", "debezium-avro"] {
        let error = |columns| open(format, &[], columns).map(|_| ()).unwrap_err().to_string();
        let expected = format!(
            "format '{format}': rows of this source are changes, deletions among them: declare a column _op VARCHAR"
        );
        assert!(error(&[("id", "BIGINT")]).starts_with(&expected), "{}", error(&[("id", "BIGINT")]));
        assert_eq!(error(&[("_op", "BIGINT")]), "column _op is the change's own, so it is text, not BIGINT");
        let time = error(&[("_op", "TEXT"), ("_changed_at", "DATE")]);
        assert_eq!(time, "column _changed_at is the change's own, so it is TIMESTAMP, not DATE");
    }
    let error = |options: &[(&str, &str)], column| {
        open("debezium-json", options, &[column, ("_op", "TEXT")]).map(|_| ()).unwrap_err().to_string()
    };
    assert!(error(&[("debezium.decimal", "base64")], ("n", "INT")).ends_with("'precise', 'string' or 'double'"));
    assert!(
        error(&[("debezium.timestamp", "micros")], ("n", "INT")).starts_with("option debezium.timestamp = 'micros'")
    );
    let avro = open("debezium-avro", &[], &[("_op", "TEXT")]).map(|_| ()).unwrap_err().to_string();
    assert!(avro.starts_with("format 'debezium-avro' needs avro.registry"), "{avro}");
    let nothing = open("debezium-json", &[], &[("_op", "TEXT")]).unwrap();
    check(&nothing, &texts(&[change("d", json!({"id": 1}), Value::Null)]), "d");
}

fn written() -> Written {
    Written::of(include_str!("../data/debezium.json"))
}

fn registry() -> Served {
    let written = written();
    let schema = |id| json!({"schema": written.schema(id)});
    serve(vec![
        ("/schemas/ids/1", 200, schema(1)),
        ("/schemas/ids/2", 200, schema(2)),
        ("/schemas/ids/3", 200, schema(3)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn spoilt_changes_spoil_no_others(spoils in spoils(), at in any::<Index>()) {
        let mut columns = CHANGES.to_vec();
        columns.extend([("balance", "DECIMAL"), ("_offset", "BIGINT")]);
        let json = open("debezium-json", &[("debezium.decimal", "precise")], &columns).unwrap();
        let mut balance = field("balance", "bytes", Some("org.apache.kafka.connect.data.Decimal"));
        balance["parameters"] = json!({"scale": "1"});
        let fields = json!([field("id", "int32", None), field("name", "string", None), balance]);
        let changes = [
            change("c", Value::Null, json!({"id": 1, "name": "ann", "balance": "1234"})),
            change("d", json!({"id": 1}), Value::Null),
            change("u", json!({"id": 2}), json!({"id": 2, "name": null, "balance": "AN3h"})),
        ];
        let sound = changes.iter().flat_map(|change| [enveloped(&fields, change).into_bytes(), change.to_string().into_bytes()]);
        spoilt_ones_spoil_no_others(json.as_ref(), &sound.collect::<Vec<_>>(), &spoils, at)?;

        let written = written();
        let avro = open("debezium-avro", &[("avro.schema", written.schema(1))], &columns).unwrap();
        let sound: Vec<_> = (0..4).map(|at| written.record(1, at)).collect();
        spoilt_ones_spoil_no_others(avro.as_ref(), &sound, &spoils, at)?;
    }
}
