//! Any Protobuf messages: spoilt ones are what Google's parser says of them (`tests/data/protobuf.py`), no bytes panic, and
//! how messages were fetched never matters.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use watershed_core::tail::Decode;
use watershed_formats::decoder;

use crate::oracle::{spoils, spoilt_ones_spoil_no_others};
use crate::protobuf::{bytes, list, map, set, shop, structure, varint, written};
use crate::{format, messages, open, sql_type};

/// The columns that `protobuf.py` has the values of.
fn columns() -> Vec<(&'static str, DataType)> {
    let of = sql_type;
    let address = structure(&[("street", of("TEXT")), ("zip", of("TEXT")), ("floors", list(of("INT")))]);
    let item = structure(&[
        ("sku", of("TEXT")),
        ("count", of("INT")),
        ("part", structure(&[("n", of("INT"))])),
        ("prices", list(of("DOUBLE"))),
        ("notes", map(of("TEXT"), of("INT"))),
    ]);
    vec![
        ("i32", of("INT")),
        ("i64", of("BIGINT")),
        ("u64", DataType::Decimal128(20, 0)),
        ("s32", of("INT")),
        ("f32", of("BIGINT")),
        ("sf64", of("BIGINT")),
        ("ok", of("BOOLEAN")),
        ("name", of("TEXT")),
        ("blob", of("BYTEA")),
        ("kind", of("INT")),
        ("at", of("TIMESTAMP")),
        ("wi64", of("BIGINT")),
        ("wname", of("TEXT")),
        ("maybe", of("INT")),
        ("numbers", list(of("INT"))),
        ("unpacked", list(of("BIGINT"))),
        ("tags", list(of("TEXT"))),
        ("items", list(item)),
        ("counts", map(of("TEXT"), of("BIGINT"))),
        ("home", address.clone()),
        ("card", of("TEXT")),
        ("invoice", address),
        ("cents", of("BIGINT")),
    ]
}

/// All others of an order.
fn others() -> Vec<(&'static str, DataType)> {
    let of = sql_type;
    let item = structure(&[
        ("sku", of("VIEW")),
        ("prices", list(of("DOUBLE"))),
        ("count", of("INT")),
        ("notes", map(of("TEXT"), of("INT"))),
        ("part", structure(&[("n", of("BIGINT"))])),
    ]);
    vec![
        ("u32", of("BIGINT")),
        ("s64", of("BIGINT")),
        ("f64", DataType::UInt64),
        ("sf32", of("INT")),
        ("ratio", of("REAL")),
        ("x", of("DOUBLE")),
        ("took", of("BIGINT")),
        ("wok", of("BOOLEAN")),
        ("wu64", DataType::Decimal128(20, 0)),
        ("wx", of("DOUBLE")),
        ("maybe_kind", of("VIEW")),
        ("kinds", list(of("TEXT"))),
        ("times", list(of("TIMESTAMP"))),
        ("by_number", map(of("INT"), item)),
        ("flags", map(of("BOOLEAN"), of("TEXT"))),
        ("free", structure(&[])),
    ]
}

/// A value of a row, as `protobuf.py` writes it.
fn value(array: &ArrayRef, at: usize) -> Value {
    let fields = |of: &StructArray| {
        let fields = of.fields().iter().zip(of.columns());
        Value::from_iter(fields.map(|(field, column)| (field.name().clone(), value(column, at))))
    };
    match array.data_type() {
        _ if array.is_null(at) => Value::Null,
        DataType::Int32 => json!(array.as_primitive::<Int32Type>().value(at)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(at)),
        DataType::Decimal128(..) => {
            json!(array.as_primitive::<arrow::datatypes::Decimal128Type>().value(at).to_string())
        }
        DataType::Float64 => json!(array.as_primitive::<arrow::datatypes::Float64Type>().value(at).to_bits()),
        DataType::Boolean => json!(array.as_boolean().value(at)),
        DataType::Utf8 => json!(array.as_string::<i32>().value(at)),
        DataType::Binary => {
            let hex = array.as_binary::<i32>().value(at).iter().map(|byte| format!("{byte:02x}"));
            json!(hex.collect::<String>())
        }
        DataType::Timestamp(..) => json!(array.as_primitive::<TimestampMicrosecondType>().value(at)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(at);
            (0..items.len()).map(|at| value(&items, at)).collect()
        }
        DataType::Map(..) => {
            let entries: ArrayRef = Arc::new(array.as_map().value(at));
            let entries = entries.as_struct();
            let pair = |at| json!([value(entries.column(0), at), value(entries.column(1), at)]);
            let mut pairs: Vec<_> = (0..entries.len()).map(pair).collect();
            pairs.sort_by_key(|pair| pair[0].as_str().map(str::to_string));
            Value::from(pairs)
        }
        DataType::Struct(_) => fields(array.as_struct()),
        other => panic!("{other}"),
    }
}

#[test]
fn spoilt_messages_are_what_googles_parser_says() {
    let all: Vec<Value> = serde_json::from_str(include_str!("../data/protobuf_mutated.json")).unwrap();
    let empty = all[0]["is"].clone();
    // All fields are read, for what is spoilt in others is not seen.
    let decode = shop("shop.Order", &[columns(), others()].concat());
    let payloads: Vec<_> = all.iter().map(|one| Some(bytes(one["message"].as_str().unwrap()))).collect();
    let decoded = decode.decode(&messages(&payloads)).unwrap();
    let mut malformed = decoded.malformed.iter().peekable();
    let (mut row, mut same, mut refused, mut odd) = (0, 0, 0, 0);
    for (at, one) in all.iter().enumerate() {
        let why = malformed.next_if(|(message, _)| *message == at).map(|(_, why)| why);
        let hex = one["message"].as_str().unwrap();
        let Some(differs) = one["is"].as_object() else {
            assert!(why.is_some(), "Google's parser refuses {hex}");
            refused += 1;
            continue;
        };
        // Numbers that are too large and not the field's last are not seen by the script.
        let cut = why.is_some_and(|why| why.ends_with("is longer than 64 bits") || why.contains(" is beyond "));
        if cut || one["odd"] == true {
            // What it passes over or cuts off we refuse; unless a later value of the field took its place.
            odd += usize::from(why.is_some());
            row += usize::from(why.is_none());
            continue;
        }
        assert_eq!(why, None, "Google's parser reads {hex}");
        for (name, _) in columns() {
            let column = decoded.rows.column_by_name(name).unwrap();
            let mut expected = differs.get(name).unwrap_or(&empty[name]).clone();
            if let ("at", Some([seconds, nanos])) = (name, expected.as_array().map(Vec::as_slice)) {
                let micros = i128::from(seconds.as_i64().unwrap()) * 1_000_000;
                expected = json!((micros + i128::from(nanos.as_i64().unwrap() / 1000)) as i64);
            }
            assert_eq!(value(column, row), expected, "{name} of {hex}");
        }
        row += 1;
        same += 1;
    }
    assert_eq!(row, decoded.rows.num_rows());
    assert!(same > 500 && refused > 150 && odd > 30, "{same} {refused} {odd}");
}

/// A field that may be one of an order's, or none.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let tagged = |number: u64, of_type: u64| {
        let mut tag = vec![];
        varint(number << 3 | of_type, &mut tag);
        tag
    };
    let length = move |number: u64, body: Vec<u8>| {
        let mut field = tagged(number, 2);
        varint(body.len() as u64, &mut field);
        [field, body].concat()
    };
    let number = 1u64..41;
    let varints = (number.clone(), any::<u64>(), 0u32..64).prop_map(move |(number, value, bits)| {
        let mut field = tagged(number, 0);
        varint(value >> bits, &mut field);
        field
    });
    let bytes = (number.clone(), vec(0u8..40, 0..12)).prop_map(move |(number, body)| length(number, body));
    let texts = (number.clone(), "[a-zä]{0,5}").prop_map(move |(number, text)| length(number, text.into_bytes()));
    let nested = (number.clone(), prop_oneof![Just("home"), Just("paid"), Just("event"), Just("bare")]).prop_map(
        move |(number, name)| {
            length(number, if name == "home" { vec![10, 1, b's', 26, 2, 1, 2] } else { written(name) })
        },
    );
    let fixed = (number, any::<u64>(), any::<bool>()).prop_map(move |(number, value, long)| match long {
        true => [tagged(number, 1), value.to_le_bytes().to_vec()].concat(),
        false => [tagged(number, 5), value.to_le_bytes()[..4].to_vec()].concat(),
    });
    prop_oneof![4 => varints, 2 => bytes, 2 => texts, 3 => nested, 1 => fixed]
}

/// An order with all its fields.
fn orders() -> Arc<dyn Decode> {
    shop("shop.Order", &[columns(), others(), vec![("_key", sql_type("TEXT"))]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn spoilt_messages_spoil_no_others(spoils in spoils(), at in any::<Index>()) {
        let sound = ["full", "bare", "invoiced", "paid"].map(written);
        spoilt_ones_spoil_no_others(orders().as_ref(), &sound, &spoils, at)?;
    }

    #[test]
    fn any_fields_are_read_alone_as_with_others(fields in vec(vec(field(), 0..8), 1..40), at in any::<Index>()) {
        let payloads: Vec<_> = fields.iter().map(|fields| fields.concat()).collect();
        let decode = orders();
        let sound: Vec<_> = payloads.iter().filter(|payload| {
            decode.decode(&messages(&[Some(payload)])).unwrap().malformed.is_empty()
        }).cloned().collect();
        prop_assume!(!sound.is_empty());
        let spoils = vec![None; sound.len()];
        spoilt_ones_spoil_no_others(decode.as_ref(), &sound, &spoils, at)?;
        let decoded = decode.decode(&messages(&payloads.iter().map(Some).collect::<Vec<_>>())).unwrap();
        prop_assert_eq!(decoded.rows.num_rows(), sound.len());
    }

    #[test]
    fn any_bytes_panic_nowhere(payloads in vec(vec(any::<u8>(), 0..60), 1..40)) {
        let payloads: Vec<_> = payloads.iter().map(Some).collect();
        let framed = set("old");
        let old = open("protobuf", &[("protobuf.descriptors", &framed)], &[("id", "BIGINT"), ("level", "TEXT")]).unwrap();
        let descriptors = set("shop");
        let options = [
            ("protobuf.descriptors", descriptors.as_str()),
            ("protobuf.message", "shop.Order.Item"),
            ("protobuf.framing", "confluent"),
        ];
        let item = open("protobuf", &options, &[("sku", "TEXT"), ("count", "INT")]).unwrap();
        for decode in [orders(), old, item] {
            let decoded = decode.decode(&messages(&payloads)).unwrap();
            prop_assert_eq!(decoded.rows.num_rows() + decoded.malformed.len(), payloads.len());
        }
    }

    #[test]
    fn any_descriptors_panic_nowhere(name in prop_oneof![Just("shop"), Just("old")], at in any::<Index>(), byte: u8, cut: bool) {
        let mut spoilt = std::fs::read(set(name)).unwrap();
        let at = at.index(spoilt.len());
        match cut {
            true => spoilt.truncate(at),
            false => spoilt[at] = byte,
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&spoilt).unwrap();
        let path = file.path().to_str().unwrap().to_string();
        let options = [("protobuf.descriptors", path.as_str()), ("protobuf.message", if name == "old" { "Reading" } else { "shop.Event" })];
        let of = format("protobuf", &options);
        if let Ok(Some(inferred)) = watershed_formats::columns(&of) {
            let decode = decoder(&of, inferred).unwrap();
            decode.decode(&messages(&[Some(written("event")), Some(written("reading"))])).unwrap();
        }
        _ = decoder(&of, Arc::new(Schema::new(vec![Field::new("at", sql_type("TIMESTAMP"), true)])));
    }
}

#[test]
fn what_a_payload_only_claims_is_not_asked_for() {
    // A length of 2^60, in a message, a list and a map.
    let huge = |field: &[u8]| [field, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]].concat();
    let payloads = [huge(&[114]), huge(&[0xd2, 1]), huge(&[0x82, 2]), [&[0x9a, 2, 10][..], &huge(&[26])].concat()];
    let decoded = orders().decode(&messages(&payloads.map(Some))).unwrap();
    assert_eq!(decoded.malformed.len(), 4);
    // Addresses within each other, deeper than any stack.
    let mut deep = vec![];
    for _ in 0..5000 {
        let mut outer = vec![34];
        varint(deep.len() as u64, &mut outer);
        outer.extend(&deep);
        deep = outer;
    }
    let mut home = vec![0x9a, 2];
    varint(deep.len() as u64, &mut home);
    home.extend(deep);
    let decoded = orders().decode(&messages(&[Some(home)])).unwrap();
    assert_eq!(decoded.rows.num_rows(), 1);
}
