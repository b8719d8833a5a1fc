//! Statistics of small files, as other readers will take them.

use std::sync::Arc;

use arrow::array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;

use super::*;

fn of(columns: Vec<(&str, ArrayRef)>, nan: &[bool], always: &[&str]) -> Value {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut bytes = vec![];
    let small = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(small)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(bytes)).unwrap();
    serde_json::from_str(&statistics(&metadata, &batch.schema(), nan, always)).unwrap()
}

#[test]
fn writes_bounds_of_each_type() {
    let found = of(
        vec![
            ("i", Arc::new(Int64Array::from(vec![Some(3), None, Some(-1)]))),
            ("f", Arc::new(Float64Array::from(vec![0.5, -2.0, 1e300]))),
            ("d", Arc::new(Date32Array::from(vec![0, 1, -1]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 978_307_200_123_456]).with_timezone("UTC"))),
            ("z", Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 2]))),
            ("s", Arc::new(StringArray::from(vec!["b", "a", "c"]))),
            ("m", Arc::new(Decimal128Array::from(vec![150, -25, 0]).with_precision_and_scale(9, 2).unwrap())),
            ("b", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("x", Arc::new(BinaryArray::from_vec(vec![b"a", b"b", b"c"]))),
            ("n", Arc::new(Int64Array::from(vec![None, None, None]))),
        ],
        &[],
        &[],
    );
    let expected = json!({
        "numRecords": 3,
        "minValues": {"i": -1, "f": -2.0, "d": "1969-12-31", "t": "1970-01-01T00:00:00.000000Z",
            "z": "1970-01-01T00:00:00.000000", "s": "a", "m": -0.25},
        "maxValues": {"i": 3, "f": 1e300, "d": "1970-01-02", "t": "2001-01-01T00:00:00.123456Z",
            "z": "1970-01-01T00:00:00.000002", "s": "c", "m": 1.5},
        "nullCount": {"i": 1, "f": 0, "d": 0, "t": 0, "z": 0, "s": 0, "m": 0, "b": 0, "x": 0, "n": 3},
    });
    assert_eq!(found, expected);
}

#[test]
fn leaves_out_what_is_no_bound() {
    let wide = i128::from(i64::MAX);
    let found = of(
        vec![
            ("nan", Arc::new(Float64Array::from(vec![1.0, f64::NAN, 2.0]))),
            ("inf", Arc::new(Float64Array::from(vec![1.0, f64::INFINITY, f64::NEG_INFINITY]))),
            ("wide", Arc::new(Decimal128Array::from(vec![wide; 3]).with_precision_and_scale(38, 0).unwrap())),
            ("far", Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, 0, i64::MAX]))),
        ],
        &[true, false, false, false],
        &[],
    );
    assert_eq!((&found["minValues"], &found["maxValues"]), (&json!({}), &json!({})));
    assert_eq!(found["nullCount"], json!({"nan": 0, "inf": 0, "wide": 0, "far": 0}));
}

#[test]
fn keeps_the_first_columns_and_the_times() {
    let column = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let names: Vec<String> = (0..40).map(|i| format!("c{i}")).collect();
    let found = of(names.iter().map(|n| (n.as_str(), column())).collect(), &[], &["c39"]);
    let kept = found["nullCount"].as_object().unwrap();
    assert_eq!((kept.len(), kept.contains_key("c31"), kept.contains_key("c32")), (33, true, false));
    assert!(kept.contains_key("c39"));
}

#[test]
fn cuts_texts_to_bounds() {
    let long = "ü".repeat(40);
    assert_eq!(prefix(&long).chars().count(), 32);
    let upper = above(&long).unwrap();
    let upper = upper.as_str().unwrap();
    assert_eq!(upper.chars().count(), 33);
    assert!(upper > long.as_str());
    assert_eq!(above("short"), Some("short".into()));
    let exact = "x".repeat(32);
    assert_eq!(above(&exact), Some(exact.clone().into()));
    // The next character is as great as a tie-breaker could be: cut behind it.
    let tie = format!("{exact}{}y", char::MAX);
    assert!(above(&tie).unwrap().as_str().unwrap() >= tie.as_str());
    assert_eq!(above(&format!("{exact}{}", char::MAX)), None);
    let found = of(vec![("s", Arc::new(StringArray::from(vec![long.as_str(), "a"])))], &[], &[]);
    let (low, high) = (found["minValues"]["s"].as_str().unwrap(), found["maxValues"]["s"].as_str().unwrap());
    assert!(low <= "a" && high >= long.as_str() && high.chars().count() <= 33, "{low} {high}");
}
