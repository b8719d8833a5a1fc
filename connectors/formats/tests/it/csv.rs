//! CSV: fields by position, other dialects, and records that are malformed without touching those beside them.

use crate::{check, open};

#[test]
fn fields_by_position() {
    let columns =
        [("at", "TIMESTAMPTZ"), ("_part", "INT"), ("n", "INT"), ("x", "DOUBLE"), ("ok", "BOOLEAN"), ("t", "TEXT")];
    let csv = open("csv", &[], &columns).unwrap();
    let payloads = [
        "2026-01-31T12:00:00Z,1,2.5,true,plain",
        "2026-01-31,2.0,1e3,FALSE,\"with \"\"quotes\"\", commas and\nlines\"\r\n",
        ",,,,",
        "2026-01-31,1.5,,,",
        "2026-01-31,1,2",
        "2026-01-31,1,2,true,x,more",
        "",
        "\n",
        "2026-01-31,1,2,true,a\n2026-01-31,1,2,true,b",
        "2026-01-31,1,2,true,\"open",
        "2026-01-31,7,,,last\n\n",
    ];
    let expected = "
        2026-01-31T12:00:00Z | 3 | 1 | 2.5 | true | plain
        2026-01-31T00:00:00Z | 3 | 2 | 1000.0 | false | with \"quotes\", commas and
        |  |  |  |  | lines
        NULL | 3 | NULL | NULL | NULL | NULL
        2026-01-31T00:00:00Z | 3 | 7 | NULL | NULL | last
        3: column 'n': '1.5' is no INT
        4: it does not have 5 fields
        5: it does not have 5 fields
        6: it is empty
        7: it is empty
        8: there is more than one CSV record
        9: the CSV record ends within quotes";
    check(&csv, &payloads, expected);
}

#[test]
fn another_dialect() {
    let options = [("csv.delimiter", r"\t"), ("csv.quote", "'"), ("csv.null", r"\N"), ("csv.timestamp", "ms")];
    let csv = open("csv", &options, &[("t", "VIEW"), ("b", "BYTEA"), ("at", "TIMESTAMP")]).unwrap();
    let payloads = ["\tab\t1769860800000", "\\N\t'a\tb'\t\\N", "x\ty\t"];
    let expected = "
        | 6162 | 2026-01-31T12:00:00
        NULL | 610962 | NULL
        2: column 'at': '' is no TIMESTAMP; it should be a number since 1970";
    check(&csv, &payloads, expected);
}

#[test]
fn characters_that_two_fields_would_make() {
    let csv = open("csv", &[], &[("a", "TEXT"), ("b", "TEXT")]).unwrap();
    let payloads: [&[u8]; 3] = [b"a,b", b"\xe2,\x96\x81", b"c,d"];
    check(&csv, &payloads, "a | b\nc | d\n1: it is not UTF-8");
}

#[test]
fn a_single_column() {
    let csv = open("csv", &[], &[("a", "TEXT")]).unwrap();
    let payloads = ["a", "b\n\"c", "\"\"", "\n\nd\n", "e\rf"];
    let expected = "
        a
        NULL
        d
        1: there is more than one CSV record
        4: there is more than one CSV record";
    check(&csv, &payloads, expected);
}

#[test]
fn what_csv_cannot_do() {
    let error = |options: &[(&str, &str)], columns| open("csv", options, columns).map(|_| ()).unwrap_err().to_string();
    let n = [("n", "BIGINT")];
    assert_eq!(error(&[], &[("l", "BIGINT[]")]), "column 'l' is List(Int64), which cannot be read from CSV");
    assert!(error(&[], &[("_key", "TEXT")]).starts_with("format 'csv' has no column to read"));
    assert!(error(&[("csv.delimiter", "||")], &n).starts_with("option csv.delimiter: give one ASCII character"));
    assert!(error(&[("csv.quote", ",")], &n).starts_with("options csv.delimiter and csv.quote"));
}
