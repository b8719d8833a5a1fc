//! Cases of partition layouts as they are met in lakes.

use arrow::datatypes::TimeUnit;

use super::*;

fn column(name: &str, data_type: DataType, samples: &[&str]) -> Column {
    Column { name: name.to_string(), data_type, samples: samples.iter().map(|s| s.to_string()).collect() }
}

fn found(columns: &[Column], time: Option<&str>, hint: Option<&str>) -> Result<Option<TimeKey>, String> {
    let declared = Declared { time_column: time, time_partition: hint, zone: None };
    detect("t", columns, declared).map_err(|e| e.to_string())
}

fn key(form: Form, grain: Grain) -> TimeKey {
    TimeKey { form, grain, zone: Zone::UTC }
}

fn hour() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

#[test]
fn detects_the_usual_layouts() {
    let one = |column, grain| Ok(Some(key(Form::One(column), grain)));
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
            Ok(Some(key(Form::DateAndHour { date: 0, hour: 1 }, Grain::Hour))),
        ),
        (
            ["year", "month", "day"].map(|n| column(n, DataType::Int64, &["1"])).to_vec(),
            Ok(Some(key(Form::Parts(vec![0, 1, 2]), Grain::Day))),
        ),
        (
            ["hour", "day", "month", "year"].map(|n| column(n, DataType::Int64, &["1"])).to_vec(),
            Ok(Some(key(Form::Parts(vec![3, 2, 1, 0]), Grain::Hour))),
        ),
        (
            vec![column("year", DataType::Int64, &["2026"]), column("month", DataType::Int64, &["01"]), region()],
            Ok(Some(key(Form::Parts(vec![0, 1]), Grain::Month))),
        ),
        (vec![column("year", DataType::Int64, &["2026"])], Ok(Some(key(Form::Parts(vec![0]), Grain::Year)))),
        (vec![column("month", DataType::Utf8, &["2026-01"])], one(0, Grain::Month)),
        (vec![column("month", DataType::Int64, &["202601"])], one(0, Grain::Month)),
        (vec![column("plant", DataType::Int64, &["202601"])], Ok(None)),
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
    assert_eq!(found(&two, None, Some("loaded")), Ok(Some(key(Form::One(1), Grain::Day))));
    assert_eq!(found(&two, Some("ts"), None), Ok(Some(key(Form::One(0), Grain::Day))));
    let error = found(&two, None, Some("nope")).unwrap_err();
    assert!(error.contains("no such partition column; it is partitioned by `ts_day`, `loaded`"), "{error}");

    let midnights = [column("h", hour(), &["2026-01-31 00:00:00", "2026-02-01 00:00:00"])];
    assert!(found(&midnights, None, None).unwrap_err().contains("holds midnights only"));
    assert_eq!(found(&midnights, None, Some("day")), Ok(Some(key(Form::One(0), Grain::Day))));

    let odd = [column("d", DataType::Utf8, &["2026-01-31", "yesterday"])];
    assert!(found(&odd, None, Some("d")).unwrap_err().contains("the value `yesterday`, which is not an hour, a day"));
    let both = [column("d", DataType::Date32, &[]), column("hour", DataType::Int32, &["5"])];
    assert_eq!(found(&both, None, Some("day")), Ok(Some(key(Form::One(0), Grain::Day))));
}

#[test]
fn places_values_in_time() {
    const DAY: i64 = 1_769_817_600_000_000; // 2026-01-31
    let at = |key: &TimeKey, values: &[Option<&str>]| {
        let values: Vec<_> = values.iter().map(|v| v.map(str::to_string)).collect();
        key.interval(&values, "").map(|found| found.map(|i| (i.start.0 - DAY, i.end.0 - DAY)))
    };
    let hours = |from: i64, to: i64| Ok(Some((from * 3_600_000_000, to * 3_600_000_000)));
    let day = key(Form::One(0), Grain::Day);
    let hour = key(Form::One(0), Grain::Hour);
    let pair = key(Form::DateAndHour { date: 1, hour: 0 }, Grain::Hour);
    let parts = key(Form::Parts(vec![0, 1, 2, 3]), Grain::Hour);
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
    assert!(at(&day, &[Some("2026-1-31")]).unwrap_err().contains("`2026-1-31` is not a day, such as `2026-01-31`"));
}

#[test]
fn takes_what_is_declared() {
    let day = || column("d", DataType::Date32, &["2026-01-01"]);
    let text = |name: &str, value: &str| column(name, DataType::Utf8, &[value]);
    let number = |name: &str| column(name, DataType::Int64, &["1"]);
    let cases = [
        (vec![day()], "month", key(Form::One(0), Grain::Month)),
        (vec![day()], "d:year", key(Form::One(0), Grain::Year)),
        (vec![text("dt", "2026-01"), day()], "dt", key(Form::One(0), Grain::Month)),
        (vec![text("h", "2026-01-31 00:00:00")], "h:hour", key(Form::One(0), Grain::Hour)),
        (vec![number("m"), number("y")], "y/m", key(Form::Parts(vec![1, 0]), Grain::Month)),
        (
            vec![number("y"), number("m"), number("d"), number("h")],
            "y/m/d/h",
            key(Form::Parts(vec![0, 1, 2, 3]), Grain::Hour),
        ),
        (vec![day(), number("h")], "d/h", key(Form::DateAndHour { date: 0, hour: 1 }, Grain::Hour)),
        (vec![number("year"), number("month"), number("day")], "month", key(Form::Parts(vec![0, 1]), Grain::Month)),
    ];
    for (columns, hint, expected) in cases {
        assert_eq!(found(&columns, None, Some(hint)), Ok(Some(expected)), "{hint} {columns:?}");
    }
    assert_eq!(found(&[day()], None, Some("none")), Ok(None));
    let error = found(&[day(), number("h"), number("x")], None, Some("d/h/x")).unwrap_err();
    assert!(error.contains("time_partition names `d`, `h`, `x`; several columns are"), "{error}");
    let error = found(&[day()], None, Some("{%Y")).unwrap_err();
    assert!(error.contains("time_partition = '{%Y': its braces do not pair"), "{error}");
}

#[test]
fn months_years_and_zones() {
    let at = |key: &TimeKey, value: &str| {
        key.interval(&[Some(value.to_string())], "").map(|found| found.map(|i| i.to_string()).unwrap_or_default())
    };
    let span = |start: &str, end: &str| Ok(format!("[{start}Z, {end}Z)"));
    let month = key(Form::One(0), Grain::Month);
    assert_eq!(at(&month, "2026-02"), span("2026-02-01T00:00:00", "2026-03-01T00:00:00"));
    assert_eq!(at(&month, "2026-12-01"), span("2026-12-01T00:00:00", "2027-01-01T00:00:00"));
    assert!(at(&month, "2026-12-02").unwrap_err().contains("not the start of a month"));
    assert!(at(&key(Form::One(0), Grain::Day), "2026-12").unwrap_err().contains("is not a day, such as"));
    let year = key(Form::Parts(vec![0]), Grain::Year);
    assert_eq!(at(&year, "2024"), span("2024-01-01T00:00:00", "2025-01-01T00:00:00"));

    let york = |grain| TimeKey { form: Form::One(0), grain, zone: "America/New_York".parse().unwrap() };
    assert_eq!(at(&york(Grain::Day), "2026-03-08"), span("2026-03-08T05:00:00", "2026-03-09T04:00:00"));
    assert_eq!(at(&york(Grain::Hour), "2026-11-01-01"), span("2026-11-01T05:00:00", "2026-11-01T07:00:00"));
    // Instants say themselves which hour they are; midnights in New York are days.
    assert_eq!(at(&york(Grain::Hour), "2026-11-01T06:00:00Z"), span("2026-11-01T06:00:00", "2026-11-01T07:00:00"));
    assert_eq!(at(&york(Grain::Day), "2026-11-01T04:00:00Z"), span("2026-11-01T04:00:00", "2026-11-02T05:00:00"));
    let error = at(&york(Grain::Hour), "2026-03-08-02").unwrap_err();
    assert!(error.contains("the hour 2026-03-08T02:00 never was in America/New_York"), "{error}");
}

#[test]
fn one_value_that_is_no_time_among_many_that_are_is_a_mistake() {
    let error = found(&[column("dt", DataType::Utf8, &["2026-01-30", "2026-01-31", "2026-13-45"])], None, None);
    let error = error.unwrap_err();
    assert!(error.contains("`dt` has the value `2026-13-45`") && error.contains("time_partition = 'none'"), "{error}");
    let few = [column("dt", DataType::Utf8, &["2026-01-30", "2026-13-45"])];
    assert_eq!(found(&few, None, None), Ok(None), "half and half is anything");
    let numbers = [column("plant", DataType::Int64, &["20260130", "20260131", "20269999"])];
    assert_eq!(found(&numbers, None, None), Ok(None));
    let none = [column("dt", DataType::Utf8, &["2026-01-30", "2026-01-31", "x"])];
    assert_eq!(found(&none, None, Some("none")), Ok(None));
}
