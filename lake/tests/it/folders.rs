//! Parquet folders as histories.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::ArrowWriter;
use watershed_core::Error;
use watershed_core::history::{History, Times};
use watershed_core::time::{EventTime, Grain};
use watershed_lake::open_history;

use crate::fixtures::*;

fn write(lake: &Lake, path: &str, batch: &RecordBatch) {
    let path = lake.folder.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

async fn open(lake: &Lake, name: &str) -> Arc<dyn History> {
    open_history(&lake.stores, &lake.at(name), &by_time()).await.unwrap()
}

#[tokio::test]
async fn lists_looks_and_pins() {
    let lake = Lake::new();
    write(&lake, "f/d=1970-01-01/region=eu%20w/a.parquet", &rows(&[(1, 1), (5, 2)]));
    write(&lake, "f/d=1970-01-02/region=__HIVE_DEFAULT_PARTITION__/a.parquet", &rows(&[(DAY + 1, 3)]));
    write(&lake, "f/d=__HIVE_DEFAULT_PARTITION__/region=us/a.parquet", &rows(&[(7, 4)]));
    write(&lake, "f/_temporary/d=1970-01-01/region=us/a.parquet", &rows(&[(7, 5)]));
    write(&lake, "f/d=1970-01-01/region=us/.a.parquet", &rows(&[(7, 6)]));
    std::fs::write(lake.folder.path().join("f/_SUCCESS"), "").unwrap();
    let history = open(&lake, "f").await;
    let layout = history.layout();
    assert_eq!(layout.time_partition, Some(("d".to_string(), Grain::Day)));
    let types: Vec<_> = layout.partition_columns.iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
    assert_eq!(types, [("d", DataType::Date32), ("region", DataType::Utf8)]);
    let mut snapshot = history.pin(None).await.unwrap();
    assert_eq!(snapshot.partitions.iter().map(|p| p.interval.start.0).collect::<Vec<_>>(), [0, DAY]);
    assert_eq!(snapshot.timeless.len(), 1);
    assert_eq!(snapshot.partitions[0].files[0].values[1].as_deref(), Some("eu w"));
    assert_eq!(snapshot.partitions[1].files[0].values[1], None);
    assert_eq!(facts(&files(&snapshot)), [(1, 1), (5, 2), (7, 4), (DAY + 1, 3)]);

    assert_eq!(snapshot.partitions[0].files[0].times, Times::Unknown);
    let mut some: Vec<_> = snapshot.partitions.iter_mut().flat_map(|p| &mut p.files).collect();
    history.look(&mut some).await.unwrap();
    let known = |min, max| Times::Known { min: EventTime(min), max: EventTime(max), nulls: 0 };
    assert_eq!(
        some.iter().map(|f| (f.rows, f.times)).collect::<Vec<_>>(),
        [(Some(2), known(1, 5)), (Some(1), known(DAY + 1, DAY + 1)),]
    );
}

#[tokio::test]
async fn a_listing_is_a_version() {
    let lake = Lake::new();
    write(&lake, "f/d=1970-01-01/a.parquet", &rows(&[(1, 1)]));
    write(&lake, "f/d=1970-01-01/b.parquet", &rows(&[(2, 2)]));
    let history = open(&lake, "f").await;
    let old = history.pin(None).await.unwrap();
    assert_eq!(history.pin(None).await.unwrap().version, old.version);
    write(&lake, "f/d=1970-01-02/c.parquet", &rows(&[(DAY, 3)]));
    write(&lake, "f/d=1970-01-01/b.parquet", &rows(&[(2, 2), (3, 4)]));
    std::fs::remove_file(lake.folder.path().join("f/d=1970-01-01/a.parquet")).unwrap();
    let new = history.pin(None).await.unwrap();
    assert_ne!(new.version, old.version);

    let keepsake = old.keepsake.as_deref().unwrap();
    let again = open(&lake, "f").await.pin(Some((&old.version, Some(keepsake)))).await.unwrap();
    assert_eq!((&again.version, &again.partitions), (&old.version, &old.partitions));
    let error = history.pin(Some((&new.version, Some(keepsake)))).await.unwrap_err();
    assert!(matches!(&error, Error::Stopped(why) if why.contains("is not the one the checkpoint names")), "{error}");
    assert!(matches!(history.pin(Some((&old.version, None))).await, Err(Error::Stopped(_))));

    let changes = history.changes(&old, &new).await.unwrap();
    assert_eq!(changes.added.iter().map(|(i, _)| i.unwrap().start.0).collect::<Vec<_>>(), [DAY]);
    let removed: Vec<_> =
        changes.removed.iter().map(|r| (r.path.rsplit('/').next().unwrap(), r.interval.unwrap().start.0)).collect();
    assert_eq!(removed, [("a.parquet", 0), ("b.parquet", 0)]);
}

#[tokio::test]
async fn hours_texts_and_nanoseconds() {
    let lake = Lake::new();
    let nanos = |values: Vec<i64>| {
        let base = rows(&values.iter().map(|n| (*n, 1)).collect::<Vec<_>>());
        let times = Arc::new(TimestampNanosecondArray::from(values)) as ArrayRef;
        RecordBatch::try_from_iter([("ts", times), ("k", base.column(1).clone())]).unwrap()
    };
    write(&lake, "h/dt=19700101/hour=00/a.parquet", &nanos(vec![1, 1_001]));
    write(&lake, "h/dt=19700101/hour=07/a.parquet", &nanos(vec![7 * HOUR * 1000]));
    let history = open(&lake, "h").await;
    assert_eq!(history.layout().time_partition, Some(("dt".to_string(), Grain::Hour)));
    assert_eq!(history.layout().file_schema.field(0).data_type(), &DataType::Timestamp(TimeUnit::Nanosecond, None));
    let mut snapshot = history.pin(None).await.unwrap();
    assert_eq!(snapshot.partitions.iter().map(|p| p.interval.start.0).collect::<Vec<_>>(), [0, 7 * HOUR]);
    history.look(&mut [&mut snapshot.partitions[0].files[0]]).await.unwrap();
    let widened = Times::Known { min: EventTime(0), max: EventTime(2), nulls: 0 };
    assert_eq!(snapshot.partitions[0].files[0].times, widened);
}

#[tokio::test]
async fn a_flat_folder_is_one_partition() {
    let lake = Lake::new();
    write(&lake, "f/a.parquet", &rows(&[(9, 1)]));
    write(&lake, "f/b.parquet", &rows(&[(4, 1)]));
    let snapshot = open(&lake, "f").await.pin(None).await.unwrap();
    assert_eq!(snapshot.partitions.len(), 1);
    assert_eq!((snapshot.partitions[0].interval.start.0, snapshot.partitions[0].interval.end.0), (4, 10));
}

#[tokio::test]
async fn says_what_is_wrong() {
    let lake = Lake::new();
    let error = async |name: &str| match open_history(&lake.stores, &lake.at(name), &by_time()).await {
        Ok(history) => history.pin(None).await.unwrap_err().to_string(),
        Err(e) => e.to_string(),
    };
    assert!(error("nothing").await.contains("holds neither a Delta table (_delta_log) nor Parquet files"));
    write(&lake, "mixed/d=1970-01-01/a.parquet", &rows(&[(1, 1)]));
    write(&lake, "mixed/a.parquet", &rows(&[(1, 1)]));
    assert!(error("mixed").await.contains("is not laid out as the others"));
    write(&lake, "odd/dt=1970-01-01/a.parquet", &rows(&[(1, 1)]));
    let history = open(&lake, "odd").await;
    write(&lake, "odd/dt=soon/a.parquet", &rows(&[(1, 1)]));
    let late = history.pin(None).await.unwrap_err().to_string();
    assert!(late.contains("dt=soon/a.parquet is unclear: `soon` is not a day or an hour"), "{late}");
    std::fs::create_dir_all(lake.folder.path().join("bad")).unwrap();
    std::fs::write(lake.folder.path().join("bad/a.parquet"), "no parquet").unwrap();
    assert!(error("bad").await.contains("cannot read the Parquet footer of"));
}
