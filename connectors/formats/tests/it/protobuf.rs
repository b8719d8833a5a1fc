//! Against messages that Google's Protobuf wrote, and descriptors that its compiler did (`tests/data/protobuf.py`).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::Value;
use watershed_core::tail::Decode;
use watershed_formats::{columns, decoder};

use crate::{check, format, open, sql_type};

/// The file of a descriptor set of `tests/data/protobuf`.
pub(crate) fn set(name: &str) -> String {
    format!("{}/tests/data/protobuf/{name}.binpb", env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// A message of `tests/data/protobuf.json`.
pub(crate) fn written(name: &str) -> Vec<u8> {
    let all: Value = serde_json::from_str(include_str!("../data/protobuf.json")).unwrap();
    bytes(all[name].as_str().unwrap())
}

pub(crate) fn list(of: DataType) -> DataType {
    DataType::List(Field::new("element", of, true).into())
}

pub(crate) fn structure(of: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields(of))
}

pub(crate) fn map(key: DataType, value: DataType) -> DataType {
    let entry = vec![Field::new("keys", key, false), Field::new("values", value, true)];
    DataType::Map(Field::new("key_value", DataType::Struct(entry.into()), false).into(), false)
}

fn fields(of: &[(&str, DataType)]) -> Fields {
    of.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect()
}

/// A decoder of messages of a type in shop.proto.
pub(crate) fn shop(message: &str, columns: &[(&str, DataType)]) -> Arc<dyn Decode> {
    with(message, columns, &[]).unwrap()
}

fn with(message: &str, columns: &[(&str, DataType)], more: &[(&str, &str)]) -> watershed_core::Result<Arc<dyn Decode>> {
    let descriptors = set("shop");
    let options = [&[("protobuf.descriptors", descriptors.as_str()), ("protobuf.message", message)][..], more].concat();
    decoder(&format("protobuf", &options), Arc::new(Schema::new(fields(columns))))
}

fn of(name: &str) -> DataType {
    sql_type(name)
}

#[test]
fn every_scalar() {
    let columns = [
        ("i32", of("INT")),
        ("i64", of("BIGINT")),
        ("u32", of("INT")),
        ("u64", of("BIGINT")),
        ("s32", of("BIGINT")),
        ("s64", of("BIGINT")),
        ("f32", of("BIGINT")),
        ("f64", DataType::Decimal128(20, 0)),
        ("sf32", of("DOUBLE")),
        ("sf64", DataType::Decimal128(24, 3)),
        ("ok", of("BOOLEAN")),
        ("ratio", of("REAL")),
        ("x", of("DOUBLE")),
        ("name", of("VIEW")),
        ("blob", of("BYTEA")),
        ("kind", of("TEXT")),
    ];
    let expected = "
        -2147483648 | -9223372036854775808 | 2147483647 | 9223372036854775807 | -2147483648 | -9223372036854775808 | \
        2147483647 | 9223372036854775807 | -1.0 | -9223372036854775808.000 | true | 0.1 | -1e300 | änn | 00ff | SELL
        0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0.0 | 0.000 | false | 0.0 | 0.0 |  |  | KIND_UNKNOWN
        1: column 'u32': 4294967295 is beyond INT";
    check(&shop("shop.Order", &columns), &[written("full"), written("bare"), vec![]], expected);
    let columns = [
        ("u32", of("BIGINT")),
        ("u64", DataType::UInt64),
        ("f32", DataType::UInt32),
        ("f64", DataType::Decimal128(38, 18)),
        ("ratio", of("DOUBLE")),
        ("kind", of("BIGINT")),
        ("i32", DataType::Decimal128(10, 0)),
        ("name", DataType::LargeUtf8),
    ];
    let expected = "
        2147483647 | 9223372036854775807 | 2147483647 | 9223372036854775807.000000000000000000 | 0.10000000149011612 | 2 | \
        -2147483648 | änn
        4294967295 | 18446744073709551615 | 4294967295 | 18446744073709551615.000000000000000000 | 0.0 | 77 | 0 |";
    check(&shop("shop.Order", &columns), &[written("full"), written("bare")], expected);
    let too_large = shop("shop.Order", &[("u64", of("BIGINT"))]);
    check(&too_large, &[written("bare")], "0: column 'u64': 18446744073709551615 is beyond BIGINT");
}

#[test]
fn what_is_not_there_and_what_is_empty() {
    let columns = [
        ("wi64", of("BIGINT")),
        ("wname", of("TEXT")),
        ("wok", of("BOOLEAN")),
        ("wu64", DataType::Decimal128(20, 0)),
        ("wx", of("DOUBLE")),
        ("maybe", of("INT")),
        ("maybe_kind", of("VIEW")),
        ("kind", of("VIEW")),
        ("at", of("TIMESTAMPTZ")),
        ("took", of("BIGINT")),
        ("card", of("TEXT")),
        ("cents", of("BIGINT")),
        ("free", structure(&[])),
        ("tags", list(of("TEXT"))),
        ("counts", map(of("TEXT"), of("BIGINT"))),
    ];
    let expected = "
        -5 | w | true | 18446744073709551615 | 0.5 | 0 | KIND_UNKNOWN | SELL | 2026-01-31T12:00:00.123456Z | -1500000 | visa | \
        NULL | NULL | [a, , ä] | {one: 1, : -2}
        0 |  | NULL | NULL | NULL | NULL | NULL | 77 | 1970-01-01T00:00:00Z | NULL | NULL | NULL | {} | [] | {}
        NULL | NULL | NULL | NULL | NULL | NULL | NULL | KIND_UNKNOWN | NULL | NULL | NULL | 5 | NULL | [] | {}";
    check(&shop("shop.Order", &columns), &[written("full"), written("bare"), written("paid")], expected);
    let schema = Schema::new(vec![Field::new("maybe", of("INT"), false), Field::new("tags", list(of("TEXT")), false)]);
    let descriptors = set("shop");
    let options = [("protobuf.descriptors", descriptors.as_str()), ("protobuf.message", "shop.Order")];
    let must = decoder(&format("protobuf", &options), Arc::new(schema)).unwrap();
    let expected = "0 | [a, , ä]\n1: column 'maybe' is NOT NULL, and is NULL or missing";
    check(&must, &[written("full"), written("paid")], expected);
}

#[test]
fn times_in_any_unit() {
    for (unit, expected) in [
        ("TIMESTAMP", "2026-01-31T12:00:00.123456 | [1969-12-31T23:59:59.999999, 1970-01-01T00:00:00]"),
        ("TIMESTAMP(3)", "2026-01-31T12:00:00.123 | [1969-12-31T23:59:59.999, 1970-01-01T00:00:00]"),
        ("TIMESTAMP(9)", "2026-01-31T12:00:00.123456789 | [1969-12-31T23:59:59.999999999, 1970-01-01T00:00:00]"),
    ] {
        let columns = [("at", of(unit)), ("times", list(of(unit)))];
        check(&shop("shop.Order", &columns), &[written("full")], expected);
    }
    let parts = structure(&[("nanos", of("INT")), ("seconds", of("BIGINT"))]);
    let both = shop("shop.Order", &[("at", parts.clone()), ("took", parts)]);
    let expected = "{nanos: 123456789, seconds: 1769860800} | {nanos: -500000999, seconds: -1}";
    check(&both, &[written("full")], expected);
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    for (unit, expected) in [("ms", "1969-12-31T23:59:59"), ("s", "1969-12-31T23:59:59"), ("ns", "1969-12-31T23:59:59")]
    {
        let numbers = with("shop.Event", &[("at_ms", seconds.clone())], &[("protobuf.timestamp", unit)]).unwrap();
        check(&numbers, &[written("event")], expected);
    }
    let odd = |seconds: i64, nanos: i32| {
        let mut time = vec![8];
        varint(seconds as u64, &mut time);
        time.push(16);
        varint(i64::from(nanos) as u64, &mut time);
        [&[0x8a, 1, time.len() as u8][..], &time].concat()
    };
    let payloads = [odd(1, 1_000_000_000), odd(1, -1), odd(i64::MAX, 0), odd(-62_135_596_800, 0)];
    let expected = "
        0001-01-01T00:00:00
        0: column 'at': its nanos are 1000000000, not 0 to 999999999
        1: column 'at': its nanos are -1, not 0 to 999999999
        2: column 'at': it is beyond TIMESTAMP";
    check(&shop("shop.Order", &[("at", of("TIMESTAMP"))]), &payloads, expected);
}

pub(crate) fn varint(mut rest: u64, into: &mut Vec<u8>) {
    while rest > 0x7f {
        into.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

#[test]
fn what_is_nested() {
    let part = structure(&[("n", of("INT"))]);
    let item = structure(&[
        ("part", part),
        ("prices", list(of("DOUBLE"))),
        ("sku", of("VIEW")),
        ("notes", map(of("TEXT"), of("INT"))),
    ]);
    let address =
        structure(&[("zip", of("TEXT")), ("floors", DataType::LargeList(Field::new("f", of("BIGINT"), true).into()))]);
    let columns = [
        ("numbers", list(of("INT"))),
        ("unpacked", list(of("BIGINT"))),
        ("kinds", list(of("TEXT"))),
        ("items", list(item.clone())),
        ("by_number", map(of("INT"), item)),
        ("flags", map(of("BOOLEAN"), of("TEXT"))),
        ("home", address.clone()),
        ("invoice", address),
    ];
    let expected = "
        [1, -1, 300] | [1, -2, 3] | [BUY, SELL, KIND_UNKNOWN, RETURN, 77] | \
        [{part: {n: 4}, prices: [1.5, 2.5], sku: s1, notes: {n: 1}}, {part: NULL, prices: [], sku: , notes: {}}] | \
        {-7: {part: NULL, prices: [], sku: , notes: {}}, 7: {part: NULL, prices: [], sku: seven, notes: {}}} | \
        {true: SELL, false: 9} | {zip: , floors: [1, 2]} | NULL
        [] | [] | [] | [] | {} | {} | NULL | {zip: NULL, floors: [9]}";
    check(&shop("shop.Order", &columns), &[written("full"), written("invoiced")], expected);
    // A map as what it is on the wire.
    let pairs = list(structure(&[("key", of("TEXT")), ("value", of("BIGINT"))]));
    check(&shop("shop.Order", &[("counts", pairs)]), &[written("full")], "[{key: one, value: 1}, {key: , value: -2}]");
}

#[test]
fn fields_that_come_again() {
    let columns = [
        ("i32", of("INT")),
        ("numbers", list(of("INT"))),
        ("counts", map(of("TEXT"), of("BIGINT"))),
        ("home", structure(&[("street", of("TEXT")), ("zip", of("TEXT")), ("floors", list(of("INT")))])),
        ("card", of("TEXT")),
        ("cents", of("BIGINT")),
    ];
    let shop = shop("shop.Order", &columns);
    let merged = [written("full"), written("full"), vec![8, 7], written("paid")].concat();
    let expected = "
        7 | [1, -1, 300, 1, -1, 300] | {one: 1, : -2} | {street: Main, zip: , floors: [1, 2, 1, 2]} | NULL | 5
        5 | [] | {} | NULL | visa | NULL
        0 | [] | {} | NULL | NULL | NULL";
    let card = [&[8, 5][..], &written("paid"), &[0xa2, 2, 4], b"visa"].concat();
    // A field of the `oneof` that is no column.
    let free = [&card[..], &[0xba, 2, 0]].concat();
    check(&shop, &[merged, card, free], &expected.replace("0 | []", "5 | []"));
}

#[test]
fn the_second_version_of_the_language() {
    let descriptors = set("old");
    let columns = [
        ("id", of("BIGINT")),
        ("count", of("INT")),
        ("level", of("TEXT")),
        ("loose", list(of("INT"))),
        ("tight", list(of("INT"))),
        ("place", structure(&[("lon", of("DOUBLE")), ("inner", structure(&[("n", of("INT"))]))])),
        ("sample", list(structure(&[("v", of("INT"))]))),
    ];
    let schema = Arc::new(Schema::new(fields(&columns)));
    // There is but one type in it.
    let old = decoder(&format("protobuf", &[("protobuf.descriptors", &descriptors)]), schema).unwrap();
    let expected = "
        -1 | 7 | LOW | [1, 2] | [3, 4] | {lon: 1.5, inner: {n: 3}} | [{v: 1}, {v: NULL}]
        NULL | NULL | NULL | [] | [] | NULL | []
        0 | NULL | 3 | [1, 2] | [5] | NULL | []";
    // Packed where it is not declared so, and the other way; a number that its enum does not have.
    let other = [&[8, 0, 24, 3, 42, 2, 1, 2, 48, 5][..]].concat();
    check(&old, &[written("reading"), written("lacking"), other], expected);
    let newer = set("new");
    let error = open("protobuf", &[("protobuf.descriptors", &newer)], &[("id", "INT")]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("new.proto is in an edition, which is not read yet"), "{error}");
}

#[test]
fn malformed_messages_are_malformed_alone() {
    let columns = [
        ("i32", of("INT")),
        ("name", of("TEXT")),
        ("tags", list(of("VIEW"))),
        ("home", structure(&[("street", of("TEXT")), ("floors", list(of("INT")))])),
        ("items", list(structure(&[("sku", of("TEXT")), ("count", of("INT"))]))),
        ("counts", map(of("TEXT"), of("BIGINT"))),
    ];
    let (sound, full) = ([&[8, 5, 114, 1][..], b"n"].concat(), written("full"));
    let payloads = [
        sound.clone(),
        full[..full.len() - 1].to_vec(),
        [&full[..], &[114, 1, 0xff]].concat(),
        vec![114, 5, b'x'],
        vec![13, 1, 0, 0, 0],
        [&[8][..], &[0xff, 0xff, 0xff, 0xff, 0x1f]].concat(),
        // The number of a thing before it is cut off within a list.
        [&full[..], &[0xfa, 1, 3, 16, 1, 10]].concat(),
        [&full[..], &[0x9a, 2, 3, 26, 1, 0x80]].concat(),
        [&full[..], &[0x82, 2, 3, 10, 1, 0xff]].concat(),
        vec![0xe5, 1, 1],
        b"{\"json\": 1}".to_vec(),
        vec![12],
        sound,
    ];
    let row = "5 | n | [] | NULL | [] | {}";
    let expected = format!(
        "{row}
        {row}
        1: the Protobuf message is cut off
        2: column 'name': it is not UTF-8
        3: the Protobuf message is cut off
        4: column 'i32': int32 has not the wire type I32
        5: column 'i32': 8589934591 is beyond int32
        6: column 'items': the Protobuf message is cut off
        7: column 'home': field 'floors': the Protobuf message is cut off
        8: column 'counts': its 'key': it is not UTF-8
        9: the Protobuf message is cut off
        10: the Protobuf message is cut off
        11: group 1 ends, and did not begin"
    );
    check(&shop("shop.Order", &columns), &payloads, &expected);
}

#[test]
fn messages_of_confluents_serializers() {
    let framing = [("protobuf.framing", "confluent")];
    let framed = |indexes: &[u8], body: &[u8]| [&[0, 0, 0, 0, 7], indexes, body].concat();
    let all = ["framed_address", "framed_order", "framed_item", "framed_code"].map(written);
    let first = with("shop.Address", &[("street", of("TEXT"))], &framing).unwrap();
    let expected = "
        Main
        1: it is a shop.Order, not a shop.Address
        2: it is a shop.Order.Item, not a shop.Address
        3: it is a shop.Cancel.Why.Code, not a shop.Address";
    check(&first, &all, expected);
    let code = with("shop.Cancel.Why.Code", &[("n", of("INT"))], &framing).unwrap();
    let expected = "
        3
        0: it is a shop.Address, not a shop.Cancel.Why.Code
        1: it is a shop.Order, not a shop.Cancel.Why.Code
        2: it is a shop.Order.Item, not a shop.Cancel.Why.Code";
    check(&code, &all, expected);
    let order = with("shop.Order", &[("cents", of("BIGINT"))], &framing).unwrap();
    let payloads = [
        all[1].clone(),
        framed(&[2, 2], &[]),
        framed(&[2, 40], &[16, 5]),
        framed(&[4, 2, 80], &[16, 5]),
        framed(&[4, 2, 1], &[16, 5]),
        framed(&[1], &[16, 5]),
        framed(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[16]),
        framed(&[], &[]),
        vec![0, 0, 0],
        vec![],
        b"{}".to_vec(),
    ];
    let expected = "
        5
        NULL
        2: its message indexes [20] are those of no message in shop.proto
        3: its message indexes [1, 40] are those of no message in shop.proto
        4: its message indexes are none
        5: its message indexes are none
        6: it ends within its message indexes
        7: it ends within its message indexes
        8: it ends within the id of its schema
        9: it is empty
        10: it begins with the byte 0x7b, not with the 0 before a schema's id";
    check(&order, &payloads, expected);
}

#[test]
fn columns_that_nobody_declared() {
    let (of_shop, of_old) = (set("shop"), set("old"));
    let event = format("protobuf", &[("protobuf.descriptors", &of_shop), ("protobuf.message", "shop.Event")]);
    let inferred = columns(&event).unwrap().unwrap();
    let shown: Vec<_> = inferred.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    let expected = [
        "at Timestamp(µs, \"UTC\")",
        "city Utf8",
        "small Int64",
        "large Decimal128(20, 0)",
        "kind Utf8",
        "parts List(Binary)",
        "kinds Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Utf8), unsorted)",
        "ratio Float32",
        "took Int64",
        "place Struct(\"x\": Int32, \"ways\": List(Struct(\"ok\": Boolean)))",
        "at_ms Int64",
    ];
    assert_eq!(shown, expected);
    let row = "2026-01-31T12:00:00Z | Bern | 4294967295 | 18446744073709551615 | SELL | [01, ] | {k: BUY} | 0.5 | 1 | \
               {x: -3, ways: [{ok: true}]} | -1";
    check(&decoder(&event, inferred).unwrap(), &[written("event")], row);
    let old = columns(&format("protobuf", &[("protobuf.descriptors", &of_old)])).unwrap().unwrap();
    let names: Vec<_> = old.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "count", "level", "name", "loose", "tight", "place", "sample"]);
    let order = format("protobuf", &[("protobuf.descriptors", &of_shop), ("protobuf.message", "shop.Order")]);
    let expected = "protobuf.message shop.Order: field 'home': field 'other': shop.Address holds messages of its own type; \
                    declare the columns that are wanted";
    assert_eq!(columns(&order).unwrap_err().to_string(), expected);
    assert!(columns(&format("json", &[])).unwrap().is_none());
}

#[test]
fn columns_that_do_not_fit() {
    let refused = |column: (&str, DataType), expected: &str| {
        assert_eq!(with("shop.Event", &[column], &[]).map(|_| ()).unwrap_err().to_string(), expected);
    };
    let fields = "city, small, at, large, kind, parts, kinds, ratio, took, place, nothing, nothings, at_ms";
    let no_such = format!("column 'citty': shop.Event has no such field; did you mean city? There are {fields}");
    refused(("citty", of("TEXT")), &no_such);
    refused(("xyz", of("TEXT")), &format!("column 'xyz': shop.Event has no such field; there are {fields}"));
    refused(("city", of("INT")), "column 'city' is INT, which does not hold its string; declare it text");
    refused(("at_ms", of("INT")), "column 'at_ms' is INT, which does not hold its int64; declare it BIGINT");
    refused(("small", of("SMALLINT")), "column 'small' is SMALLINT, which does not hold its uint32; declare it BIGINT");
    refused(("kind", of("BOOLEAN")), "column 'kind' is BOOLEAN, which does not hold its shop.Kind; declare it text");
    refused(("parts", of("BYTEA")), "column 'parts' is BYTEA, which does not hold its repeated bytes");
    refused(("place", of("TEXT")), "column 'place' is text, which does not hold its shop.Event.Place");
    refused(
        ("kinds", map(of("INT"), of("TEXT"))),
        "in 'kinds': field 'key' is INT, which does not hold its string; declare it text",
    );
    let at = "column 'at' is BIGINT, which does not hold its google.protobuf.Timestamp; declare it TIMESTAMP";
    refused(("at", of("BIGINT")), at);
    let hint = "column 'at_ms' is TIMESTAMP, which does not hold its int64; with protobuf.timestamp = 's', 'ms', 'us' or 'ns' \
                integers are times";
    refused(("at_ms", of("TIMESTAMP")), hint);
    let nested = structure(&[("x", of("INT")), ("way", of("TEXT"))]);
    let hint = "in 'place': field 'way': shop.Event.Place has no such field; did you mean ways? There are x, ways";
    refused(("place", nested), hint);
}

#[test]
fn options_of_protobuf() {
    let (shop, old, lone) = (set("shop"), set("old"), set("lone"));
    let error =
        |options: &[(&str, &str)]| open("protobuf", options, &[("n", "INT")]).map(|_| ()).unwrap_err().to_string();
    assert!(error(&[]).starts_with("format 'protobuf' needs protobuf.descriptors = 'FILE', which protoc"));
    let all = "say which message type it is: protobuf.message is one of shop.Address, shop.Order, shop.Cancel, shop.Event, \
               shop.Measured";
    assert_eq!(error(&[("protobuf.descriptors", &shop)]), all);
    for (given, meant) in [("shop.Ordr", "shop.Order"), ("Order", "shop.Order"), ("Code", "shop.Cancel.Why.Code")] {
        let expected = format!("option protobuf.message: there is no {given} in {shop}; did you mean {meant}?");
        assert_eq!(error(&[("protobuf.descriptors", &shop), ("protobuf.message", given)]), expected);
    }
    assert!(error(&[("protobuf.descriptors", &lone)]).ends_with("; write it with --include_imports"));
    let missing = error(&[("protobuf.descriptors", "/no/such/file")]);
    assert!(missing.starts_with("option protobuf.descriptors = '/no/such/file': it cannot be read: "), "{missing}");
    let stored = "option protobuf.descriptors = 's3://b/f': give the path of a local file";
    assert_eq!(error(&[("protobuf.descriptors", "s3://b/f")]), stored);
    let source = format!("{}/tests/data/protobuf/old.proto", env!("CARGO_MANIFEST_DIR"));
    assert!(
        error(&[("protobuf.descriptors", &source)]).contains("it is no set of descriptors; give the file that protoc")
    );
    let framing = error(&[("protobuf.descriptors", &old), ("protobuf.framing", "confluence")]);
    assert!(framing.contains("has no such field"), "{framing}");
    let registry = error(&[("protobuf.registry", "http://registry:8081")]);
    assert!(registry.starts_with("protobuf.registry: Protobuf schemas are not fetched from a registry"), "{registry}");
    let of_old = |more: (&str, &str)| {
        open("protobuf", &[("protobuf.descriptors", &old), more], &[("id", "BIGINT")])
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(
        of_old(("protobuf.framing", "confluence"))
            .starts_with("option protobuf.framing = 'confluence': give 'confluent'")
    );
    assert!(of_old(("protobuf.timestamp", "iso")).starts_with("option protobuf.timestamp = 'iso': give 's', 'ms'"));
}
