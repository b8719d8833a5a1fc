//! The columns that are the message's own, `_offset`, `_part`, `_timestamp` and `_key`: never the payload's.

use std::sync::Arc;

use arrow::array::{BinaryArray, TimestampMillisecondArray};

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
