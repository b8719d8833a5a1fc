//! Raw payloads: the bytes as they are, of tombstones too.

use crate::{check, messages, open, shown};

#[test]
fn the_payload_as_it_is() {
    let bytes = open("raw", &[], &[("_offset", "BIGINT"), ("payload", "BYTEA")]).unwrap();
    let decoded = bytes.decode(&messages(&[Some(&b"\x00\xff"[..]), None, Some(b"")])).unwrap();
    assert_eq!(shown(&decoded), "1000 | 00ff\n1002 | NULL\n1004 |\n");
}

#[test]
fn text_is_utf8() {
    for text in ["TEXT", "VIEW"] {
        let text = open("raw", &[], &[("payload", text)]).unwrap();
        let payloads: [&[u8]; 3] = ["ä".as_bytes(), b"\xff", b"b"];
        check(&text, &payloads, "ä\nb\n1: column 'payload': it is not UTF-8");
    }
}

#[test]
fn a_tombstone_where_there_must_be_a_payload() {
    let text = open("raw", &[], &[("payload", "TEXT!")]).unwrap();
    let decoded = text.decode(&messages(&[Some("a"), None])).unwrap();
    assert_eq!(shown(&decoded), "a\n1: column 'payload' is NOT NULL, and is NULL or missing\n");
}

#[test]
fn one_column_and_no_other() {
    let error = |columns| open("raw", &[], columns).map(|_| ()).unwrap_err().to_string();
    assert!(error(&[("a", "TEXT"), ("b", "TEXT")]).ends_with("there are: a, b"));
    assert!(error(&[("_key", "TEXT")]).ends_with("there are: none"));
    assert_eq!(error(&[("n", "INT")]), "column 'n' is INT; with format 'raw' it is BYTEA or text");
}
