//! The columns that are the message's own, `_offset`, `_part`, `_timestamp`, `_key` and `_headers`: never the payload's.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, ListArray, StringArray, StructArray, TimestampMillisecondArray};
use arrow::buffer::OffsetBuffer;
use watershed_core::tail::{header_fields, header_item};

use crate::{messages, open, shown};

#[test]
fn what_a_message_has_besides_its_payload() {
    let columns =
        [("_key", "TEXT"), ("n", "INT"), ("_timestamp", "TIMESTAMPTZ"), ("_part", "BIGINT"), ("_offset", "BIGINT")];
    let json = open("json", &[], &columns).unwrap();
    let payloads = [r#"{"n": 0}"#, "x", r#"{"n": 2, "_key": "of the payload", "_offset": 5}"#, r#"{"n": 3}"#];
    let decoded = json.decode(&messages(&payloads.map(Some))).unwrap();
    let expected = "\
        key 0 | 0 | 1970-01-01T00:00:00Z | 3 | 1000\n\
        key 2 | 2 | NULL | 3 | 1004\n\
        NULL | 3 | 1970-01-01T00:00:00.003Z | 3 | 1006\n\
        1: Encountered unexpected 'x' whilst parsing value\n";
    assert_eq!(shown(&decoded), expected);
    assert_eq!(decoded.offsets.values(), &[1000, 1004, 1006]);
}

#[test]
fn what_does_not_fit_is_malformed_but_for_tombstones() {
    keys_and_times("TEXT");
    keys_and_times("VIEW");
}

fn keys_and_times(key: &str) {
    let columns = [("_key", key), ("_timestamp", "TIMESTAMP(9)!"), ("n", "INT")];
    let json = open("json", &[], &columns).unwrap();
    let n = Some(r#"{"n": 1}"#);
    let mut given = messages(&[n, n, n, n, None, n]);
    given.keys = BinaryArray::from_opt_vec(vec![None, Some(b"\xff"), Some(b"k"), None, Some(b"\xff"), None]);
    given.timestamps = TimestampMillisecondArray::from(vec![Some(0), Some(1), None, Some(i64::MAX), None, Some(5)]);
    let decoded = json.decode(&given).unwrap();
    let expected = [
        (1, "column '_key': not a value of text".to_string()),
        (2, "column '_timestamp' is NOT NULL, and the message has none".to_string()),
        (3, "column '_timestamp': not a value of TIMESTAMP".to_string()),
    ];
    assert_eq!(decoded.malformed, expected);
    assert_eq!(decoded.offsets.values(), &[1000, 1010]);
}

#[test]
fn a_slice_of_an_array_is_read_as_one() {
    let json = open("json", &[], &[("n", "INT"), ("_key", "BYTEA")]).unwrap();
    let all = messages(&[Some("x"), Some(r#"{"n": 1}"#), None, Some(r#"{"n": 3}"#), Some("x")]);
    let (from, to) = (1, 4);
    let mut some = all.clone();
    some.offsets = all.offsets.slice(from, to - from);
    some.timestamps = all.timestamps.slice(from, to - from);
    some.keys = all.keys.slice(from, to - from);
    some.payloads = all.payloads.slice(from, to - from);
    let decoded = json.decode(&some).unwrap();
    assert_eq!(shown(&decoded), "1 | NULL\n3 | NULL\n");
    assert_eq!(decoded.offsets.values(), &[1002, 1006]);
    assert!(Arc::ptr_eq(&decoded.rows.schema(), &json.schema()));
}

/// A name, which may be none, and a value.
type Header<'a> = (Option<&'a str>, Option<&'a [u8]>);

/// Headers of messages.
fn headers(of: &[&[Header<'_>]]) -> Option<ListArray> {
    let all: Vec<_> = of.iter().copied().flatten().collect();
    let names: StringArray = all.iter().map(|(name, _)| *name).collect();
    let values: BinaryArray = all.iter().map(|(_, value)| *value).collect();
    let items = StructArray::new(header_fields(), vec![Arc::new(names), Arc::new(values)], None);
    let offsets = OffsetBuffer::from_lengths(of.iter().map(|headers| headers.len()));
    Some(ListArray::new(header_item(), offsets, Arc::new(items), None))
}

#[test]
fn headers_are_kept_whatever_they_hold_and_whatever_the_format() {
    let trace: Header<'_> = (Some("trace"), Some(b"\xff\x00"));
    let none = (Some("trace"), None);
    for (format, payload) in [("json", r#"{"n": "1", "_headers": []}"#), ("csv", "1"), ("raw", "1")] {
        for kind in ["HEADERS", "LARGE HEADERS"] {
            let decode = open(format, &[], &[("n", "TEXT"), ("_headers", kind)]).unwrap();
            let mut given = messages(&[Some(payload); 4]);
            given.headers = headers(&[&[trace, none, trace], &[], &[(None, Some(b"x"))], &[none]]);
            let decoded = decode.decode(&given).unwrap();
            let reason = "column '_headers': the name of a header is not UTF-8".to_string();
            assert_eq!(decoded.malformed, [(2, reason)], "{format}");
            assert_eq!(decoded.offsets.values(), &[1000, 1002, 1006]);
            let expected = "1 | [{key: trace, value: ff00}, {key: trace, value: NULL}, {key: trace, value: ff00}]\n\
                            1 | []\n1 | [{key: trace, value: NULL}]\n";
            assert!(shown(&decoded).starts_with(expected), "{}", shown(&decoded));
        }
    }
}

#[test]
fn headers_of_a_part_of_the_messages_are_those_of_these_messages() {
    let json = open("json", &[], &[("n", "INT"), ("_headers", "HEADERS")]).unwrap();
    let mut given = messages(&[Some("x"), Some(r#"{"n": 1}"#), Some(r#"{"n": 2}"#)]);
    let all = headers(&[&[(None, None)], &[(Some("a"), None)], &[(Some("b"), Some(b"2")), (Some("c"), None)]]).unwrap();
    given.headers = Some(all.clone());
    assert_eq!(json.decode(&given).unwrap().malformed.len(), 1, "one reason for a message is enough");
    let mut some = messages(&[Some(r#"{"n": 1}"#), Some(r#"{"n": 2}"#)]);
    some.headers = Some(all.slice(1, 2));
    let decoded = json.decode(&some).unwrap();
    let column = decoded.rows.column(1).as_list::<i32>();
    assert_eq!((column.value_length(0), column.value_length(1), column.values().len()), (1, 2, 3));
    assert_eq!(shown(&decoded), "1 | [{key: a, value: NULL}]\n2 | [{key: b, value: 32}, {key: c, value: NULL}]\n");
}

#[test]
fn headers_that_nobody_knows_are_null_and_of_another_type_refused() {
    let json = open("json", &[], &[("n", "INT"), ("_headers", "HEADERS")]).unwrap();
    assert_eq!(shown(&json.decode(&messages(&[Some(r#"{"n": 1}"#)])).unwrap()), "1 | NULL\n");
    let strict = open("json", &[], &[("n", "INT"), ("_headers", "HEADERS!")]).unwrap();
    let refused = strict.decode(&messages(&[Some(r#"{"n": 1}"#)])).unwrap();
    assert_eq!(refused.malformed, [(0, "column '_headers' is NOT NULL, and the message has none".to_string())]);
    let error = |kind| open("json", &[], &[("_headers", kind), ("n", "INT")]).err().unwrap().to_string();
    for kind in ["MAP", "TEXT", "TEXT[]"] {
        let expected = "column _headers is the message's own, so it is ARRAY<STRUCT<key VARCHAR, value BYTEA>>, not";
        assert!(error(kind).contains(expected), "{}", error(kind));
    }
}
