//! Parquet folders as histories.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use watershed_core::Error;
use watershed_core::history::{History, Times};
use watershed_core::time::{EventTime, Grain};
use watershed_lake::{HistoryOptions, open_history};

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
async fn a_flat_folder_is_placed_by_statistics() {
    let lake = Lake::new();
    write(&lake, "f/a.parquet", &rows(&[(9, 1), (20, 1)]));
    write(&lake, "f/b.parquet", &rows(&[(4, 1), (9, 1)]));
    write(&lake, "f/c.parquet", &rows(&[(30, 1), (50, 1)]));
    write(&lake, "f/d.parquet", &rows(&[(40, 1)]));
    let snapshot = open(&lake, "f").await.pin(None).await.unwrap();
    assert!(snapshot.by_statistics);
    let found: Vec<_> =
        snapshot.partitions.iter().map(|p| (p.interval.start.0, p.interval.end.0, p.files.len())).collect();
    assert_eq!(
        found,
        [(4, 9, 1), (9, 21, 1), (30, 51, 2)],
        "files that touch are apart, and those that overlap together"
    );
}

/// Row groups of a long file are its pieces, none of them small; a short file is one.
#[tokio::test]
async fn long_files_come_in_pieces() {
    let lake = Lake::new();
    let facts: Vec<(i64, i64)> =
        (0..600_000).map(|i: i64| (i, i.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 8)).collect();
    let path = lake.folder.path().join("f/long.parquet");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(20_000)).build();
    let batch = rows(&facts);
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    write(&lake, "f/short.parquet", &rows(&[(9_000_000, 1)]));
    let history = open(&lake, "f").await;
    let snapshot = history.pin(None).await.unwrap();
    let pieces = history.pieces(files(&snapshot)).await.unwrap();
    let (long, short): (Vec<_>, Vec<_>) = pieces.iter().partition(|f| f.path.ends_with("long.parquet"));
    assert_eq!((short.len(), short[0].range), (1, None));
    assert!(long.len() > 2, "{long:?}");
    assert_eq!(long.iter().map(|f| f.rows.unwrap()).sum::<u64>(), 600_000);
    let mut end = 0;
    for (i, piece) in long.iter().enumerate() {
        let (from, to) = piece.range.unwrap();
        assert!(i == 0 || from == end, "{long:?}");
        assert!(to - from >= 2 << 20 || i + 1 == long.len(), "{piece:?}");
        let Times::Known { min, max, nulls: 0 } = piece.times else { panic!("{piece:?}") };
        assert_eq!((max.0 - min.0 + 1) as u64, piece.rows.unwrap());
        end = to;
    }
    assert_eq!(history.pieces(pieces.clone()).await.unwrap(), pieces, "pieces are not cut again");
}

async fn placed(lake: &Lake, name: &str, hint: Option<&str>, zone: Option<&str>) -> Result<Vec<String>, String> {
    let options = HistoryOptions {
        time_partition: hint.map(str::to_string),
        time_zone: zone.map(|z| z.parse().unwrap()),
        ..by_time()
    };
    let history = open_history(&lake.stores, &lake.at(name), &options).await.map_err(|e| e.to_string())?;
    let snapshot = history.pin(None).await.map_err(|e| e.to_string())?;
    Ok(snapshot.partitions.iter().map(|p| format!("{} x{}", p.interval, p.files.len())).collect())
}

#[tokio::test]
async fn paths_tell_time_by_a_pattern() {
    let lake = Lake::new();
    for path in ["p/1970/01/01/a.parquet", "p/1970/01/01/b.parquet", "p/1970/01/03/a.parquet"] {
        write(&lake, path, &rows(&[(1, 1)]));
    }
    let days = placed(&lake, "p", Some("{%Y/%m/%d}"), None).await.unwrap();
    let expected =
        ["[1970-01-01T00:00:00Z, 1970-01-02T00:00:00Z) x2", "[1970-01-03T00:00:00Z, 1970-01-04T00:00:00Z) x1"];
    assert_eq!(days, expected);
    assert_eq!(
        placed(&lake, "p", Some("{%Y/%m}/*"), None).await.unwrap(),
        ["[1970-01-01T00:00:00Z, 1970-02-01T00:00:00Z) x3"]
    );
    write(&lake, "p/1970/x.parquet", &rows(&[(1, 1)]));
    let error = placed(&lake, "p", Some("{%Y/%m/%d}"), None).await.unwrap_err();
    assert!(
        error.contains("p/1970/x.parquet is unclear: its path does not match time_partition = '{%Y/%m/%d}'"),
        "{error}"
    );

    // With hive's names beside it, which stay columns; NULL of hive is no time.
    for path in ["h/logs/1970-01-01/region=eu/a.parquet", "h/logs/1970-01-02/region=us/a.parquet"] {
        write(&lake, path, &rows(&[(1, 1)]));
    }
    assert_eq!(placed(&lake, "h", Some("logs/{%F}/region=*"), None).await.unwrap().len(), 2);
    write(&lake, "n/dt=19700101/hour=03/a.parquet", &rows(&[(1, 1)]));
    write(&lake, "n/dt=19700101/hour=__HIVE_DEFAULT_PARTITION__/a.parquet", &rows(&[(1, 1)]));
    let hour = ["[1970-01-01T03:00:00Z, 1970-01-01T04:00:00Z) x1"];
    assert_eq!(placed(&lake, "n", Some("dt={%Y%m%d}/hour={%H}"), None).await.unwrap(), hour);
    assert_eq!(placed(&lake, "n", None, None).await.unwrap(), hour);
}

#[tokio::test]
async fn several_levels_of_several_types() {
    let lake = Lake::new();
    for path in ["r/region=eu/dt=1970-01-01/v=1/a.parquet", "r/region=us/dt=1970-01-01/v=2/a.parquet"] {
        write(&lake, path, &rows(&[(1, 1)]));
    }
    assert_eq!(placed(&lake, "r", None, None).await.unwrap(), ["[1970-01-01T00:00:00Z, 1970-01-02T00:00:00Z) x2"]);
    write(&lake, "m/year=1970/month=01/a.parquet", &rows(&[(1, 1)]));
    write(&lake, "m/year=1970/month=02/a.parquet", &rows(&[(1, 1)]));
    let february = "[1970-02-01T00:00:00Z, 1970-03-01T00:00:00Z) x1";
    assert_eq!(placed(&lake, "m", None, None).await.unwrap()[1], february);
    assert_eq!(placed(&lake, "m", Some("year/month"), None).await.unwrap()[1], february);
    assert_eq!(
        placed(&lake, "m", Some("year"), None).await.unwrap(),
        ["[1970-01-01T00:00:00Z, 1971-01-01T00:00:00Z) x2"]
    );
}

#[tokio::test]
async fn partitions_of_a_zone() {
    let lake = Lake::new();
    for path in ["z/dt=2026-03-07/a.parquet", "z/dt=2026-03-08/a.parquet", "z/dt=2026-03-09/a.parquet"] {
        write(&lake, path, &rows(&[(1, 1)]));
    }
    let days = placed(&lake, "z", None, Some("America/New_York")).await.unwrap();
    assert_eq!(days[1], "[2026-03-08T05:00:00Z, 2026-03-09T04:00:00Z) x1", "23 hours");
    write(&lake, "g/dt=20260308/hour=02/a.parquet", &rows(&[(1, 1)]));
    let error = placed(&lake, "g", None, Some("America/New_York")).await.unwrap_err();
    assert!(
        error.contains("hour=02/a.parquet is unclear: the hour 2026-03-08T02:00 never was in America/New_York"),
        "{error}"
    );
    assert_eq!(placed(&lake, "g", None, None).await.unwrap().len(), 1);
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
    assert!(late.contains("dt=soon/a.parquet is unclear: `soon` is not a day, such as `2026-01-31`"), "{late}");
    std::fs::create_dir_all(lake.folder.path().join("bad")).unwrap();
    std::fs::write(lake.folder.path().join("bad/a.parquet"), "no parquet").unwrap();
    assert!(error("bad").await.contains("cannot read the Parquet footer of"));
}
