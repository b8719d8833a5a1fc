//! temporary
use crate::fixtures::*;
use arrow::array::*;
use std::sync::Arc;
use watershed_core::sink::Sink;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn zz_speed() {
    let make = |hour: i64| {
        let n = 1000i64;
        let t = |off: i64| Arc::new(TimestampMicrosecondArray::from_iter_values((0..n).map(|_| (hour + off) * HOUR))) as ArrayRef;
        RecordBatch::try_from_iter_with_nullable([
            ("ts", t(0), true),
            ("te", t(1), true),
            ("k", Arc::new(Int64Array::from_iter_values((0..n).map(|i| (i * 7919) % 1000))) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from_iter_values((0..n).map(|i| 20 + (i * hour) % 7))) as ArrayRef, true),
            ("sum", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i * hour) as f64 * 0.37))) as ArrayRef, true),
            ("avg", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i * hour) as f64 * 0.0137))) as ArrayRef, true),
            ("low", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i + hour) as f64 * 0.0137))) as ArrayRef, true),
            ("high", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i - hour) as f64 * 0.0137))) as ArrayRef, true),
        ]).unwrap()
    };
    let lake = Lake::new();
    let spec = watershed_lake::TableSpec { schema: make(0).schema(), ..spec("day(ts)") };
    let sink = lake.sink_of("t", spec, 1).await.unwrap();
    let batches: Vec<_> = (0..180 * 24).map(make).collect();
    let start = std::time::Instant::now();
    let writer = sink.writer().unwrap();
    for (i, b) in batches.into_iter().enumerate() {
        writer.write(i % 2, b).await.unwrap();
    }
    let a = start.elapsed();
    let p = writer.finish().await.unwrap();
    let b = start.elapsed();
    sink.commit(&identity(1, None), &p, &Default::default()).await.unwrap();
    println!("written {a:?} finished {b:?} committed {:?} files {} bytes {}", start.elapsed(), p.files.len(), p.files.iter().map(|f| f.size).sum::<u64>());
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
    println!("{}", std::fs::read_to_string("/proc/self/stat").unwrap().split(' ').skip(13).take(2).collect::<Vec<_>>().join(" "));
}
