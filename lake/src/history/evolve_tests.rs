//! What becomes of columns that come, go and grow.

use arrow::datatypes::{DataType, Field};

use super::*;

fn schema(columns: &[(&str, DataType)]) -> Arc<Schema> {
    Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>()).into()
}

#[test]
fn columns_of_all_files_in_the_order_of_the_last() {
    use DataType::*;
    let files = [
        ("old", schema(&[("gone", Utf8), ("a", Int32), ("b", Float32)])),
        ("mid", schema(&[("b", Float64), ("a", Int64)])),
        ("new", schema(&[("a", Int16), ("new", Boolean)])),
    ];
    let found = union("l", &files).unwrap();
    let found: Vec<_> = found.iter().map(|f| (f.name().as_str(), f.data_type().clone(), f.is_nullable())).collect();
    assert_eq!(found, [("a", Int64, true), ("new", Boolean, true), ("b", Float64, true), ("gone", Utf8, true)]);
}

#[test]
fn a_clash_names_file_column_and_both_types() {
    use DataType::*;
    let files =
        [("first", schema(&[("a", Utf8)])), ("second", schema(&[("a", Int64)])), ("third", schema(&[("a", Int32)]))];
    let error = union("l", &files).unwrap_err().to_string();
    assert!(error.contains("l: column `a` is Utf8 in file first, but Int64 in second"), "{error}");
}

#[test]
fn a_sample_is_spread_from_end_to_end() {
    assert_eq!(sample(0), [] as [usize; 0]);
    assert_eq!(sample(3), [0, 1, 2]);
    for n in [SAMPLE, SAMPLE + 1, 1000, 12_345] {
        let found = sample(n);
        assert_eq!((found.len(), found[0], found[SAMPLE - 1]), (SAMPLE, 0, n - 1));
        assert!(found.is_sorted_by(|a, b| a < b), "{n}");
    }
}
