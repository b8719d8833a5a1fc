//! Folders whose files differ in columns and types.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::ArrowWriter;
use watershed_core::history::Times;
use watershed_core::time::EventTime;
use watershed_lake::open_history;

use crate::fixtures::*;

fn write(lake: &Lake, path: &str, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let path = lake.folder.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn times(day: i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![day * DAY + 1]))
}

#[tokio::test]
async fn a_folder_has_the_columns_of_all_its_files() {
    let lake = Lake::new();
    let narrow = || Arc::new(Int32Array::from(vec![1])) as ArrayRef;
    // An event time that was a date once.
    let date = Arc::new(Date32Array::from(vec![0])) as ArrayRef;
    write(&lake, "f/d=1970-01-01/a.parquet", vec![("ts", date), ("n", narrow()), ("gone", narrow())]);
    let wide = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    write(&lake, "f/d=1970-01-02/a.parquet", vec![("ts", times(1)), ("n", wide)]);
    let text = Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
    write(&lake, "f/d=1970-01-03/a.parquet", vec![("new", text), ("ts", times(2)), ("n", narrow()), ("d", narrow())]);
    let history = open_history(&lake.stores, &lake.at("f"), &by_time()).await.unwrap();
    let layout = history.layout();
    let columns: Vec<_> =
        layout.file_schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(columns, [("new", DataType::Utf8), ("ts", time), ("n", DataType::Int64), ("gone", DataType::Int32)]);
    assert!(layout.inferred);
    // Statistics that are dates are understood.
    let mut files = files(&history.pin(None).await.unwrap());
    history.look(&mut files.iter_mut().collect::<Vec<_>>()).await.unwrap();
    let at = |time| Times::Known { min: EventTime(time), max: EventTime(time), nulls: 0 };
    assert_eq!(files.iter().map(|f| f.times).collect::<Vec<_>>(), [at(0), at(DAY + 1), at(2 * DAY + 1)]);
}

#[tokio::test]
async fn types_that_do_not_fit_are_named_with_their_file() {
    let lake = Lake::new();
    let number = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let text = Arc::new(StringArray::from(vec!["x"])) as ArrayRef;
    write(&lake, "f/d=1970-01-01/a.parquet", vec![("ts", times(0)), ("k", text)]);
    write(&lake, "f/d=1970-01-02/b.parquet", vec![("ts", times(1)), ("k", number)]);
    let error = open_history(&lake.stores, &lake.at("f"), &by_time()).await.err().unwrap().to_string();
    assert!(error.contains("column `k` is Utf8 in file") && error.contains("d=1970-01-01/a.parquet"), "{error}");
    assert!(error.contains("but Int64 in") && error.contains("d=1970-01-02/b.parquet"), "{error}");
}
