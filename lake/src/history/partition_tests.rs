//! Cases of partition layouts as they are met in lakes.

use arrow::datatypes::TimeUnit;

use super::*;

fn column(name: &str, data_type: DataType, samples: &[&str]) -> Column {
    Column { name: name.to_string(), data_type, samples: samples.iter().map(|s| s.to_string()).collect() }
}

fn found(columns: &[Column], time: Option<&str>, hint: Option<&str>) -> Result<Option<TimeKey>, String> {
    detect("t", columns, time, hint).map_err(|e| e.to_string())
}

fn hour() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[test]
fn detects_the_usual_layouts() {
    let one = |column, grain| Ok(Some(TimeKey::One { column, grain }));
    let region = || column("region", DataType::Utf8, &["eu", "us"]);
    let cases = [
        (vec![column("d", DataType::Date32, &[])], one(0, Grain::Day)),
        (vec![region(), column("d", DataType::Date32, &[])], one(1, Grain::Day)),
        (vec![column("h", hour(), &["2026-01-31 05:00:00"])], one(0, Grain::Hour)),
        (vec![column("h", hour(), &["2026-01-31T00:00:00.000000Z"])], one(0, Grain::Hour)),
        (vec![column("dt", DataType::Utf8, &["2026-01-31"]), region()], one(0, Grain::Day)),
        (vec![column("dt", DataType::Int64, &["20260131", "20260201"])], one(0, Grain::Day)),
        (vec![column("dt", DataType::Utf8, &["2026-01-31-05"])], one(0, Grain::Hour)),
        (vec![column("dt", DataType::Utf8, &["2026-01-31T05"])], one(0, Grain::Hour)),
        (
            vec![column("date", DataType::Date32, &[]), column("hour", DataType::Int64, &["5"])],
            Ok(Some(TimeKey::DateAndHour { date: 0, hour: 1 })),
        ),
        (
            ["year", "month", "day"].map(|n| column(n, DataType::Int64, &["1"])).to_vec(),
            Ok(Some(TimeKey::Parts { year: 0, month: 1, day: 2, hour: None })),
        ),
        (vec![region()], Ok(None)),
        (vec![], Ok(None)),
    ];
    for (columns, expected) in cases {
        assert_eq!(found(&columns, None, None), expected, "{columns:?}");
    }
}

#[test]
fn asks_where_it_cannot_tell() {
    let two = [column("ts_day", DataType::Date32, &[]), column("loaded", DataType::Date32, &[])];
    let error = found(&two, None, None).unwrap_err();
    assert!(error.contains("`ts_day`, `loaded`; say which by time_partition"), "{error}");
    assert_eq!(found(&two, None, Some("loaded")), Ok(Some(TimeKey::One { column: 1, grain: Grain::Day })));
    assert_eq!(found(&two, Some("ts"), None), Ok(Some(TimeKey::One { column: 0, grain: Grain::Day })));
    let error = found(&two, None, Some("nope")).unwrap_err();
    assert!(error.contains("no such partition column; it is partitioned by `ts_day`, `loaded`"), "{error}");

    let midnights = [column("h", hour(), &["2026-01-31 00:00:00", "2026-02-01 00:00:00"])];
    assert!(found(&midnights, None, None).unwrap_err().contains("holds midnights only"));
    assert_eq!(found(&midnights, None, Some("day")), Ok(Some(TimeKey::One { column: 0, grain: Grain::Day })));

    let odd = [column("d", DataType::Utf8, &["2026-01-31", "yesterday"])];
    assert!(found(&odd, None, Some("d")).unwrap_err().contains("the value `yesterday`, which is not a day"));
    let both = [column("d", DataType::Date32, &[]), column("hour", DataType::Int32, &["5"])];
    assert_eq!(found(&both, None, Some("day")), Ok(Some(TimeKey::One { column: 0, grain: Grain::Day })));
}

#[test]
fn places_values_in_time() {
    const DAY: i64 = 1_769_817_600_000_000; // 2026-01-31
    let at = |key: &TimeKey, values: &[Option<&str>]| {
        let values: Vec<_> = values.iter().map(|v| v.map(str::to_string)).collect();
        key.interval(&values).map(|found| found.map(|i| (i.start.0 - DAY, i.end.0 - DAY)))
    };
    let hours = |from: i64, to: i64| Ok(Some((from * 3_600_000_000, to * 3_600_000_000)));
    let day = TimeKey::One { column: 0, grain: Grain::Day };
    let hour = TimeKey::One { column: 0, grain: Grain::Hour };
    let pair = TimeKey::DateAndHour { date: 1, hour: 0 };
    let parts = TimeKey::Parts { year: 0, month: 1, day: 2, hour: Some(3) };
    assert_eq!(at(&day, &[Some("2026-01-31")]), hours(0, 24));
    assert_eq!(at(&day, &[Some("20260131")]), hours(0, 24));
    assert_eq!(at(&hour, &[Some("2026-01-31 05:00:00.000000")]), hours(5, 6));
    assert_eq!(at(&hour, &[Some("2026-01-31T05:00:00+01:00")]), hours(4, 5));
    assert_eq!(at(&hour, &[Some("2026-01-31-23")]), hours(23, 24));
    assert_eq!(at(&pair, &[Some("05"), Some("2026-01-31")]), hours(5, 6));
    assert_eq!(at(&parts, &[Some("2026"), Some("01"), Some("31"), Some("7")]), hours(7, 8));
    assert_eq!(at(&day, &[None]), Ok(None));
    assert_eq!(at(&pair, &[None, Some("2026-01-31")]), Ok(None));
    assert!(at(&hour, &[Some("2026-01-31 05:30:00")]).unwrap_err().contains("not the start of an hour"));
    assert!(at(&day, &[Some("2026-01-31 05:00:00")]).unwrap_err().contains("not the start of a day"));
    assert!(at(&pair, &[Some("25"), Some("2026-01-31")]).unwrap_err().contains("`25` is not an hour"));
    assert!(
        at(&parts, &[Some("2026"), Some("2"), Some("31"), Some("7")]).unwrap_err().contains("2026-2-31 is not a day")
    );
    assert!(at(&day, &[Some("2026-1-31")]).unwrap_err().contains("`2026-1-31` is not a day or an hour"));
}
