//! Footers of small files in each timestamp unit.

use arrow::array::{
    RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::*;

fn footer(column: ArrayRef, properties: WriterProperties) -> ParquetMetaData {
    let batch = RecordBatch::try_from_iter_with_nullable([("t", column, true)]).unwrap();
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(bytes)).unwrap()
}

fn known(min: i64, max: i64, nulls: u64) -> Option<Times> {
    Some(Times::Known { min: EventTime(min), max: EventTime(max), nulls })
}

#[test]
fn every_unit_becomes_microseconds() {
    let small = || WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), Some(1), None, Some(2_001)]);
    let cases: [(ArrayRef, Option<Times>); 4] = [
        (Arc::new(TimestampSecondArray::from(vec![Some(3), None, Some(-1)])), known(-1_000_000, 3_000_000, 1)),
        (Arc::new(TimestampMillisecondArray::from(vec![5, 7, 6])), known(5_000, 7_000, 0)),
        (Arc::new(TimestampMicrosecondArray::from(vec![5, 7]).with_timezone("UTC")), known(5, 7, 0)),
        (Arc::new(nanos), known(-1, 3, 1)),
    ];
    for (column, expected) in cases {
        assert_eq!(times(&footer(column.clone(), small()), "t"), expected, "{column:?}");
    }
}

#[test]
fn says_what_it_does_not_know() {
    let column = || Arc::new(TimestampMicrosecondArray::from(vec![5, 7])) as ArrayRef;
    let none = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None).build();
    assert_eq!(times(&footer(column(), none), "t"), None);
    assert_eq!(times(&footer(column(), WriterProperties::default()), "u"), known(i64::MAX, i64::MIN, 2));
    let numbers = Arc::new(arrow::array::Int64Array::from(vec![1])) as ArrayRef;
    assert_eq!(times(&footer(numbers, WriterProperties::default()), "t"), None);
    let nulls = Arc::new(TimestampMicrosecondArray::from(vec![None, None])) as ArrayRef;
    assert_eq!(times(&footer(nulls, WriterProperties::default()), "t"), known(i64::MAX, i64::MIN, 2));
}
