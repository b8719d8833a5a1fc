//! Files cut into records, however their bytes come.

use std::io::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::*;

/// What a file gave: facts as (line, n, text), and malformed records as (line, payload).
#[derive(Clone, Debug, Default, PartialEq)]
struct Found {
    records: u64,
    facts: Vec<(i64, Option<i64>, Option<String>)>,
    malformed: Vec<(i64, String)>,
    errors: Vec<String>,
}

fn format(name: &str, options: &[(&str, &str)]) -> Arc<dyn TextFormat> {
    let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]);
    files(&FormatOptions { format: name.into(), options }, Arc::new(schema)).unwrap()
}

fn take(reader: &mut dyn TextReader, found: &mut Found) -> Result<()> {
    while let Some(some) = reader.next()? {
        found.records += some.records;
        let (n, text) = (some.rows.column(0).as_primitive::<Int64Type>(), some.rows.column(1).as_string::<i32>());
        for row in 0..some.rows.num_rows() {
            let fact = (
                some.lines.value(row),
                n.is_valid(row).then(|| n.value(row)),
                text.is_valid(row).then(|| text.value(row).to_string()),
            );
            found.facts.push(fact);
        }
        for record in some.malformed {
            found.malformed.push((record.line, String::from_utf8_lossy(&record.payload).into_owned()));
            found.errors.push(record.error);
        }
    }
    Ok(())
}

fn read(format: &dyn TextFormat, path: &str, pieces: &[&[u8]]) -> Result<Found> {
    let mut reader = format.begin(path)?;
    let mut found = Found::default();
    for piece in pieces {
        reader.push(piece);
        take(reader.as_mut(), &mut found)?;
    }
    reader.finish();
    take(reader.as_mut(), &mut found)?;
    assert_eq!(found.records, (found.facts.len() + found.malformed.len()) as u64);
    Ok(found)
}

fn fact(line: i64, n: i64, text: &str) -> (i64, Option<i64>, Option<String>) {
    (line, Some(n), Some(text.to_string()))
}

#[test]
fn lines_of_json() {
    let json = format("json", &[]);
    let file =
        "\u{feff}{\"n\":1,\"text\":\"a\"}\r\n\n  \n{\"n\":2,\"text\":\"b\\nc\"}\nnone\n[1]\n{\"text\":\"d\",\"n\":3}";
    let found = read(json.as_ref(), "a.json", &[file.as_bytes()]).unwrap();
    assert_eq!(found.facts, [fact(0, 1, "a"), fact(3, 2, "b\nc"), fact(6, 3, "d")]);
    assert_eq!(found.malformed, [(4, "none".to_string()), (5, "[1]".to_string())]);
    assert_eq!(read(json.as_ref(), "a.json", &[]).unwrap(), Found::default());
}

#[test]
fn records_of_csv() {
    let csv = format("csv", &[]);
    let file = "more,TEXT, n\nx,\"a\nb\",1\r\n\r\nx,\"say \"\"go\"\"\",2\rx,5\" tall,3\nfew\n,,\nx,\"open,4\nx,5\n";
    let found = read(csv.as_ref(), "a.csv", &[file.as_bytes()]).unwrap();
    assert_eq!(found.facts, [fact(1, 1, "a\nb"), fact(4, 2, "say \"go\""), fact(5, 3, "5\" tall"), (7, None, None)]);
    assert_eq!(found.malformed, [(6, "few".to_string()), (8, "x,\"open,4\nx,5\n".to_string())]);
    // A column that the file lacks is NULL.
    let found = read(csv.as_ref(), "a.csv", &[b"n\n7\n"]).unwrap();
    assert_eq!(found.facts, [(1, Some(7), None)]);
    // No header where one is looked for.
    let found = read(csv.as_ref(), "a.csv", &[b"1,a\n2,b\n"]).unwrap();
    assert_eq!(found.malformed, [(0, "1,a".to_string()), (1, "2,b".to_string())]);
    assert!(found.errors[0].contains("csv.header = 'false'"), "{:?}", found.errors);
    let found = read(format("csv", &[("csv.header", "false")]).as_ref(), "a.csv", &[b"1,a\n2,b\n"]).unwrap();
    assert_eq!(found.facts, [fact(0, 1, "a"), fact(1, 2, "b")]);
}

#[test]
fn a_record_that_is_too_long_is_passed_over() {
    for (name, header, quote) in [("json", "", ""), ("csv", "n,text\n", "\"")] {
        let good = |n: i64| match name {
            "json" => format!("{{\"n\":{n},\"text\":\"t\"}}\n"),
            _ => format!("{n},t\n"),
        };
        let long = format!("{quote}{}", "x".repeat(LONGEST + 5_000_000));
        let file = format!("{header}{}{long}\n{}{}", good(1), good(2), good(3));
        let begin = i64::from(!header.is_empty());
        let expected = [fact(begin, 1, "t"), fact(begin + 2, 2, "t"), fact(begin + 3, 3, "t")];
        for piece in [4 << 20, usize::MAX] {
            let pieces: Vec<&[u8]> = file.as_bytes().chunks(piece.min(file.len())).collect();
            let found = read(format(name, &[]).as_ref(), "a", &pieces).unwrap();
            assert_eq!(found.facts, expected, "{name} {piece}");
            assert_eq!(found.malformed, [(begin + 1, long[..KEPT].to_string())], "{name} {piece}");
            assert!(found.errors[0].contains("longer than"));
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn packed_files() {
    let json = format("json", &[]);
    let line = |n: i64| format!("{{\"n\":{n},\"text\":\"a\"}}\n");
    let lines: String = (0..200_000).map(line).collect();
    let (first, second) = lines.as_bytes().split_at(1_000_001);
    let plain = read(json.as_ref(), "a.json", &[lines.as_bytes()]).unwrap();
    assert_eq!(plain.facts.len(), 200_000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    // Members and frames one after the other are one file.
    for (path, packed) in
        [("a.json.gz", [gzip(first), gzip(second)].concat()), ("a.json.zst", [zstd(first), zstd(second)].concat())]
    {
        for piece in [1_000, usize::MAX] {
            let pieces: Vec<&[u8]> = packed.chunks(piece.min(packed.len())).collect();
            assert_eq!(read(json.as_ref(), path, &pieces).unwrap(), plain, "{path} {piece}");
        }
        for cut in [packed.len() - 1, packed.len() - 30, packed.len() / 4] {
            let error = read(json.as_ref(), path, &[&packed[..cut]]).unwrap_err().to_string();
            assert!(error.contains("cut off"), "{path} {cut}: {error}");
        }
        assert!(read(json.as_ref(), path, &[lines.as_bytes()]).is_err());
    }
    // Many times as large as it was packed.
    let blank = vec![b' '; 64 << 20];
    for (path, packed) in [("a.json.gz", gzip(&blank)), ("a.json.zst", zstd(&blank))] {
        let found = read(json.as_ref(), path, &[&packed]).unwrap();
        assert_eq!((found.facts.len(), found.malformed.len()), (0, 1), "{path}");
    }
}

#[test]
fn what_files_are_not_read_in_is_said() {
    let refused = |name: &str, column: &str| {
        let schema = Schema::new(vec![Field::new(column, DataType::Int64, true)]);
        let format = FormatOptions { format: name.into(), ..FormatOptions::default() };
        files(&format, Arc::new(schema)).unwrap_err().to_string()
    };
    assert!(refused("raw", "n").contains("'json' and 'csv'"));
    assert!(refused("json", "_part").contains("files have none"));
    assert_eq!(format("csv", &[]).endings(), [".csv", ".csv.gz", ".csv.zst"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// What comes out of a file does not depend on how its bytes came.
    #[test]
    fn pieces_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b'"'), Just(b','), Just(b'1'), Just(b'x'), Just(b' '), Just(b'{'), Just(b'}'),
            Just(0xEF), any::<u8>(),
        ], 0..200),
        cuts in proptest::collection::vec(0..200usize, 0..6),
        header in any::<bool>(),
        csv in any::<bool>(),
    ) {
        let format = match (csv, header) {
            (true, true) => format("csv", &[]),
            (true, false) => format("csv", &[("csv.header", "false")]),
            (false, _) => format("json", &[]),
        };
        let mut bytes = bytes;
        if header && csv {
            bytes.splice(0..0, *b"n,text\n");
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let whole = read(format.as_ref(), "a", &[&bytes]).unwrap();
        prop_assert_eq!(read(format.as_ref(), "a", &pieces).unwrap(), whole);
    }

    /// In CSV what is cut is what arrow's reader takes for one record: none is malformed for being more than one.
    #[test]
    fn cuts_as_arrow_reads(
        bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'"'), Just(b','), Just(b'x')], 0..60),
    ) {
        let found = read(format("csv", &[("csv.header", "false")]).as_ref(), "a", &[&bytes]).unwrap();
        for error in found.errors {
            prop_assert!(!error.contains("more than one") && !error.contains("empty"), "{error}");
        }
    }
}
