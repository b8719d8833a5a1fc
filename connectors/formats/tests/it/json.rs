//! JSON: what one object comes to, column by column, and that what is none is malformed and shifts nothing.

use crate::{check, messages, open};

#[test]
fn fields_by_name() {
    let json = open("json", &[], &[("user", "TEXT"), ("n", "BIGINT"), ("x", "DOUBLE"), ("ok", "BOOLEAN")]).unwrap();
    let payloads = [
        r#"{"user": "ann", "n": 1, "x": 1.5, "ok": true}"#,
        r#" { "ok":false , "ignored":{"n":[7]}, "n":-9223372036854775808, "user":"\u00e4 \ud83d\ude00 \"" } "#,
        r#"{}"#,
        r#"{"user": null, "n": null, "N": 5, "x": 1e999}"#,
        r#"{"n": "12", "x": "2.5", "user": 7.50, "n": 13}"#,
        "{\"user\": true}\r\n",
    ];
    let expected = "
        ann | 1 | 1.5 | true
        ä 😀 \" | -9223372036854775808 | NULL | false
        NULL | NULL | NULL | NULL
        NULL | NULL | inf | NULL
        7.50 | 13 | 2.5 | NULL
        true | NULL | NULL | NULL";
    check(&json, &payloads, expected);
}

#[test]
fn what_is_not_one_object_is_malformed_and_shifts_nothing() {
    let json = open("json", &[], &[("n", "BIGINT")]).unwrap();
    let payloads: Vec<&[u8]> = vec![
        br#"{"n": 0}"#,
        b"",
        b" \n",
        br#"{"n": 3"#,
        br#"}"#,
        br#"{"n": 5}{"n": 55}"#,
        br#"{"n": 6} x"#,
        br#"[{"n": 7}]"#,
        b"8",
        br#""nine""#,
        b"null",
        b"true",
        b"<n>12</n>",
        b"{\"t\": \"\xff\"}",
        b"{\"\xe2\": \"\x96\x81\"}",
        br#"{"t": "\ud800"}"#,
        br#"{"n": 16}"#,
        br#"{"n": 17}{"#,
    ];
    let expected = r#"
        0
        16
        1: it is empty
        2: it is empty
        3: the JSON object ends early
        4: Encountered unexpected '}' whilst parsing value
        5: something follows the JSON object
        6: something follows the JSON object
        7: expected { got [{"n": 7}]
        8: the JSON object ends early
        9: expected { got "nine"
        10: expected { got null
        11: expected { got true
        12: Encountered unexpected '<' whilst parsing value
        13: Encountered non-UTF-8 data
        14: Encountered truncated UTF-8 sequence
        15: Encountered unexpected '"' whilst parsing surrogate pair escape
        17: something follows the JSON object"#;
    check(&json, &payloads, expected);
}

#[test]
fn a_type_that_does_not_fit_is_named() {
    let columns = [("n", "INT"), ("x", "DOUBLE"), ("ok", "BOOLEAN"), ("t", "TEXT"), ("b", "BYTEA"), ("l", "BIGINT[]")];
    let json = open("json", &[], &columns).unwrap();
    let payloads = [
        r#"{"n": 2.0, "b": "00ff", "l": [1, null, 3e0]}"#,
        r#"{"n": 2.5}"#,
        r#"{"n": 2147483648}"#,
        r#"{"n": true}"#,
        r#"{"n": {}}"#,
        r#"{"x": "much"}"#,
        r#"{"ok": 1}"#,
        r#"{"t": ["a"]}"#,
        r#"{"b": 7}"#,
        r#"{"b": "xy"}"#,
        r#"{"l": 7}"#,
        r#"{"l": [7.5]}"#,
    ];
    let expected = "
        2 | NULL | NULL | NULL | 00ff | [1, NULL, 3]
        1: column 'n': '2.5' is no INT
        2: column 'n': '2147483648' is no INT
        3: column 'n': 'true' is no INT
        4: whilst decoding field 'n': expected string got {}
        5: whilst decoding field 'x': failed to parse \"much\" as Float64
        6: whilst decoding field 'ok': expected boolean got 1
        7: whilst decoding field 't': expected string got [\"a\"]
        8: whilst decoding field 'b': expected binary data encoded as string got 7
        9: whilst decoding field 'b': invalid hex encoding in binary data: invalid digit 0x78 at position 0
        10: whilst decoding field 'l': expected [ got 7
        11: column 'l': '7.5' is no BIGINT";
    check(&json, &payloads, expected);
}

#[test]
fn decimals_are_exact() {
    let json = open("json", &[], &[("d", "DECIMAL")]).unwrap();
    let payloads =
        [r#"{"d": 12345678.91}"#, r#"{"d": "-0.005"}"#, r#"{"d": 1e-1}"#, r#"{"d": 100000000}"#, r#"{"d": 1e65536}"#];
    let expected = "
        12345678.91
        -0.01
        0.10
        3: column 'd': '100000000' is no DECIMAL(10, 2)
        4: column 'd': '1e65536' is no DECIMAL(10, 2)";
    check(&json, &payloads, expected);
}

#[test]
fn times_as_text() {
    let columns = [("u", "TIMESTAMP"), ("z", "TIMESTAMPTZ"), ("b", "BERLIN"), ("n", "TIMESTAMP(9)"), ("d", "DATE")];
    let json = open("json", &[], &columns).unwrap();
    let payloads = [
        r#"{"u": "2026-01-31T12:00:00.123456Z", "z": "2026-01-31T12:00:00+01:00", "b": "2026-07-31T12:00:00"}"#,
        r#"{"u": "2026-01-31", "z": "2026-01-31 12:00:00", "n": "2026-01-31T00:00:00.123456789Z", "d": "2026-01-31"}"#,
        r#"{"u": 1769860800000}"#,
        r#"{"u": "31.01.2026"}"#,
        r#"{"n": "2500-01-01"}"#,
        r#"{"d": 20000}"#,
        r#"{"b": "2026-03-29T02:30:00"}"#,
    ];
    let expected = "
        2026-01-31T12:00:00.123456 | 2026-01-31T11:00:00Z | 2026-07-31T12:00:00+02:00 | NULL | NULL
        2026-01-31T00:00:00 | 2026-01-31T12:00:00Z | NULL | 2026-01-31T00:00:00.123456789 | 2026-01-31
        2: column 'u': '1769860800000' is no TIMESTAMP; numbers are times with json.timestamp = 's', 'ms', 'us' or 'ns'
        3: column 'u': '31.01.2026' is no TIMESTAMP; numbers are times with json.timestamp = 's', 'ms', 'us' or 'ns'
        4: column 'n': '2500-01-01' is no TIMESTAMP; numbers are times with json.timestamp = 's', 'ms', 'us' or 'ns'
        5: column 'd': '20000' is no DATE
        6: column 'b': '2026-03-29T02:30:00' is no TIMESTAMP; numbers are times with json.timestamp = 's', 'ms', 'us' or 'ns'";
    check(&json, &payloads, expected);
}

#[test]
fn times_as_numbers() {
    let columns = [("u", "TIMESTAMP"), ("m", "TIMESTAMP(3)")];
    let millis = open("json", &[("json.timestamp", "ms")], &columns).unwrap();
    let payloads =
        [r#"{"u": 1769860800123, "m": "1769860800123"}"#, r#"{"u": -1, "m": -1}"#, r#"{"u": "2026-01-31T00:00:00Z"}"#];
    let expected = "
        2026-01-31T12:00:00.123 | 2026-01-31T12:00:00.123
        1969-12-31T23:59:59.999 | 1969-12-31T23:59:59.999
        2: column 'u': '2026-01-31T00:00:00Z' is no TIMESTAMP; it should be a number since 1970";
    check(&millis, &payloads, expected);
    let seconds = open("json", &[("json.timestamp", "s")], &columns).unwrap();
    let payloads = [r#"{"u": 1769860800.123456, "m": 1.7698608e9}"#, r#"{"u": -0.5, "m": -0.0001}"#, r#"{"u": 1e18}"#];
    let expected = "
        2026-01-31T12:00:00.123456 | 2026-01-31T12:00:00
        1969-12-31T23:59:59.500 | 1969-12-31T23:59:59.999
        2: column 'u': '1e18' is no TIMESTAMP; it should be a number since 1970";
    check(&seconds, &payloads, expected);
    let nanos = open("json", &[("json.timestamp", "ns")], &columns).unwrap();
    check(&nanos, &[r#"{"u": 1769860800123456789}"#], "2026-01-31T12:00:00.123456 | NULL");
}

#[test]
fn nested_columns_follow_the_same_rules() {
    let json = open("json", &[], &[("s", "STRUCT"), ("m", "MAP")]).unwrap();
    let payloads = [
        r#"{"s": {"at": "2026-01-31T00:00:00Z", "n": 1}, "m": {"a": 1, "b": null}}"#,
        r#"{"s": {"n": 1.5}}"#,
        r#"{"s": {"at": 5}}"#,
        r#"{"m": {"a": 0.5}}"#,
        r#"{"s": null, "m": {}}"#,
    ];
    let expected = "
        {at: 2026-01-31T00:00:00, n: 1} | {a: 1, b: NULL}
        NULL | {}
        1: column 's': field 'n': '1.5' is no INT
        2: column 's': field 'at': '5' is no TIMESTAMP; numbers are times with json.timestamp = 's', 'ms', 'us' or 'ns'
        3: column 'm': field 'value': '0.5' is no BIGINT";
    check(&json, &payloads, expected);
}

#[test]
fn a_column_that_is_not_null() {
    let json = open("json", &[], &[("n", "BIGINT!"), ("t", "TEXT")]).unwrap();
    let payloads = [r#"{"n": 1}"#, r#"{"t": "a"}"#, r#"{"n": null}"#];
    let expected = "
        1 | NULL
        1: column 'n' is NOT NULL, and is NULL or missing
        2: column 'n' is NOT NULL, and is NULL or missing";
    check(&json, &payloads, expected);
}

#[test]
fn nesting_has_an_end() {
    let json = open("json", &[], &[("n", "BIGINT")]).unwrap();
    let nested = |levels: usize| format!(r#"{{"n": 1, "x": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let brackets = format!(r#"{{"n": 2, "x": "{}"}}"#, "[\\\"".repeat(10_000));
    let payloads = [nested(126), nested(127), nested(500_000), "[".repeat(500_000), brackets];
    let expected = "
        1
        2
        1: it is nested deeper than 127 levels
        2: it is nested deeper than 127 levels
        3: it is nested deeper than 127 levels";
    check(&json, &payloads, expected);
    // Where the column itself is the nested value, arrow's error quotes it.
    let deep = format!(r#"{{"n": {}{}}}"#, "[".repeat(126), "]".repeat(126));
    let decoded = json.decode(&messages(&[Some(deep)])).unwrap();
    assert!(decoded.malformed[0].1.starts_with("whilst decoding field 'n': expected string got [["));
}

#[test]
fn commas_are_not_looked_at_closely() {
    let json = open("json", &[], &[("n", "BIGINT"), ("t", "TEXT")]).unwrap();
    let payloads = [r#"{"n": 1,}"#, r#"{,"n": 2 "t": "b"}"#, "{\"t\": \"a\tb\nc\"}"];
    let decoded = json.decode(&messages(&payloads.map(Some))).unwrap();
    assert_eq!((decoded.rows.num_rows(), decoded.malformed.len()), (3, 0));
}

#[test]
fn tombstones_are_passed_over() {
    let json = open("json", &[], &[("_offset", "BIGINT"), ("n", "BIGINT!")]).unwrap();
    let decoded = json.decode(&messages(&[None, Some(r#"{"n": 1}"#), None, Some("{}"), None])).unwrap();
    assert_eq!(decoded.offsets.values(), &[1002]);
    assert_eq!(decoded.malformed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [3]);
    let none = json.decode(&messages::<&str>(&[])).unwrap();
    assert_eq!((none.rows.num_rows(), none.rows.schema()), (0, json.schema()));
}

#[test]
fn without_columns_of_the_payload_it_is_still_looked_at() {
    let json = open("json", &[], &[("_offset", "BIGINT")]).unwrap();
    check(&json, &["{}", "{", r#"{"n": 1}"#], "1000\n1004\n1: the JSON object ends early");
}

#[test]
fn columns_that_json_cannot_give() {
    let error = |columns| open("json", &[], columns).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error(&[("_part", "TEXT")]), "column _part is the message's own, so it is INT or BIGINT, not text");
    let times = open("json", &[("json.timestamp", "millis")], &[("n", "BIGINT")]).map(|_| ()).unwrap_err();
    let expected = "option json.timestamp = 'millis': give 'iso', or for numbers since 1970 's', 'ms', 'us' or 'ns'";
    assert_eq!(times.to_string(), expected);
}

/// The slow way, through all sizes of chunks, gives what the fast way does.
#[test]
fn many_malformed_messages_among_many() {
    let json = open("json", &[], &[("_offset", "BIGINT!"), ("n", "BIGINT!")]).unwrap();
    let payload = |i: usize| match i % 100 {
        7 => "{".to_string(),
        50 => r#"{"n": "many"}"#.to_string(),
        51 => "{}".to_string(),
        _ => format!(r#"{{"n": {i}}}"#),
    };
    let payloads: Vec<_> = (0..5000).map(|i| Some(payload(i))).collect();
    let decoded = json.decode(&messages(&payloads)).unwrap();
    let fine: Vec<i64> = (0..5000).filter(|i| ![7, 50, 51].contains(&(i % 100))).collect();
    assert_eq!(decoded.rows.num_rows(), fine.len());
    let column =
        |at: usize| arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(decoded.rows.column(at));
    assert_eq!(column(1).values(), &fine[..]);
    assert_eq!(column(0).values(), decoded.offsets.values());
    assert!(fine.iter().zip(decoded.offsets.values()).all(|(n, offset)| 1000 + 2 * n == *offset));
    assert_eq!(decoded.malformed.len(), 150);
}
