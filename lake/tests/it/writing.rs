//! What the writer puts into files, and how many.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use watershed_core::clock::ManualClock;
use watershed_core::sink::Sink;
use watershed_core::time::EventTime;
use watershed_lake::{DeltaSink, SinkOptions, open_history, table_info};

use crate::fixtures::*;

#[tokio::test]
async fn small_partitions_give_one_file() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    let writer = sink.writer().unwrap();
    for lane in 0..4 {
        for day in 0..5 {
            writer.write(lane, rows(&[(day * DAY + 1, day), (day * DAY + 2, day)])).await.unwrap();
        }
    }
    let prepared = writer.finish().await.unwrap();
    assert_eq!((prepared.files.len(), prepared.rows()), (5, 40));
    for (day, file) in prepared.files.iter().enumerate() {
        assert!(file.path.starts_with(&format!("ts_day=1970-01-0{}/part-", day + 1)), "{}", file.path);
        assert_eq!(file.values["ts_day"].as_deref(), Some(format!("1970-01-0{}", day + 1).as_str()));
        let batch = read(&format!("{}/{}", lake.at("t"), file.path));
        assert_eq!(batch.num_rows(), 8);
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.data_type().to_string(), "Timestamp(µs, \"UTC\")");
    }
    sink.verify(&prepared).await.unwrap();
    // Nothing is visible before the commit.
    assert_eq!(table_info(&lake.stores, &lake.at("t")).await.unwrap().files, 0);
    assert!(sink.writer().unwrap().finish().await.unwrap().files.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolls_at_the_target_size_and_keeps_the_order_of_lanes() {
    let lake = Lake::new();
    let options = SinkOptions { target_file_size: 100_000, lanes: 2, ..Default::default() };
    let clock = std::sync::Arc::new(ManualClock::new(EventTime(0), 3));
    let sink = DeltaSink::open(&lake.stores, "view", &lake.at("t"), spec(""), options, clock).await.unwrap();
    let writer = sink.writer().unwrap();
    let mut n = 0i64;
    for _ in 0..60 {
        let facts: Vec<(i64, i64)> = (n..n + 2_000).map(|i| (i, i.wrapping_mul(0x9e37_79b9) ^ (i << 20))).collect();
        n += 2_000;
        writer.write(0, rows(&facts)).await.unwrap();
    }
    let prepared = writer.finish().await.unwrap();
    assert!(prepared.files.len() > 5, "{}", prepared.files.len());
    assert!(prepared.files.iter().all(|f| f.size < 250_000));
    sink.verify(&prepared).await.unwrap();
    let mut seen: Vec<i64> = vec![];
    for file in &prepared.files {
        let batch = read(&format!("{}/{}", lake.at("t"), file.path));
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert!(times.values().is_sorted());
        seen.extend(times.values());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..n).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_partitions_get_more_files() {
    let lake = Lake::new();
    let sink = lake.sink("t", "").await;
    let writer = sink.writer().unwrap();
    let facts: Vec<(i64, i64)> = (0..100_000).map(|i| (i, i)).collect();
    let batch = rows(&facts);
    for i in 0..24 {
        writer.write(i, batch.clone()).await.unwrap();
    }
    let prepared = writer.finish().await.unwrap();
    assert_eq!((prepared.files.len(), prepared.rows()), (2, 2_400_000));
}

/// A partition that nothing comes for is closed while others go on, so a long epoch holds few files open.
#[tokio::test]
async fn idle_partitions_are_closed() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    let writer = sink.writer().unwrap();
    for day in 0..300 {
        writer.write(0, rows(&[(day * DAY, day)])).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let early = std::fs::read_dir(lake.at("t")).unwrap().count();
    assert!(early > 100, "{early} folders before the end");
    let prepared = writer.finish().await.unwrap();
    assert_eq!((prepared.files.len(), prepared.rows()), (300, 300));
    sink.commit(&identity(1, None), &prepared, &Default::default()).await.unwrap();
    let history = open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap();
    assert_eq!(history.pin(None).await.unwrap().partitions.len(), 300);
}

/// Rows that come for many partitions in turn do not make a file each time.
#[tokio::test]
async fn rows_in_no_order_make_few_files() {
    let lake = Lake::new();
    let sink = lake.sink("t", "day(ts)").await;
    let writer = sink.writer().unwrap();
    for round in 0..40 {
        for day in 0..150 {
            writer.write(0, rows(&[(day * DAY + round, day)])).await.unwrap();
        }
    }
    let prepared = writer.finish().await.unwrap();
    assert_eq!(prepared.rows(), 6_000);
    assert!(prepared.files.len() <= 3 * 150, "{} files", prepared.files.len());
}

#[tokio::test]
async fn a_bad_row_fails_the_write() {
    use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
    let lake = Lake::new();
    let times = |nanos| std::sync::Arc::new(TimestampNanosecondArray::from(vec![nanos])) as ArrayRef;
    let batch = |nanos| RecordBatch::try_from_iter([("ts", times(nanos))]).unwrap();
    let spec = watershed_lake::TableSpec { schema: batch(0).schema(), ..spec("day(ts)") };
    let sink = lake.sink_of("t", spec, 1).await.unwrap();
    let writer = sink.writer().unwrap();
    writer.write(0, batch(1_000)).await.unwrap();
    let error = writer.write(0, batch(1)).await.unwrap_err().to_string();
    assert!(error.contains("`ts`") && error.contains("nanoseconds"), "{error}");
}
