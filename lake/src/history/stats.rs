//! What a Delta log's statistics say of a file's rows and event times. Pure.
//!
//! Delta may truncate a timestamp's maximum to milliseconds, so a maximum without microseconds may stand for up to 999
//! µs more; one with microseconds was not truncated. A file may be older than the column's type: where that was widened
//! from DATE, its statistics are dates, which stand for midnights. What is missing or not understood is `Unknown`, never a
//! guess.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde::Deserialize;
use serde_json::{Map, Value};
use watershed_core::history::Times;
use watershed_core::time::EventTime;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_records: Option<u64>,
    min_values: Option<Map<String, Value>>,
    max_values: Option<Map<String, Value>>,
    null_count: Option<Map<String, Value>>,
}

/// Rows and event times of one file, from the statistics of its log entry.
pub(crate) fn read(stats: Option<&str>, time_column: Option<&str>) -> (Option<u64>, Times) {
    let Some(stats) = stats.and_then(|text| serde_json::from_str::<Stats>(text).ok()) else {
        return (None, Times::Unknown);
    };
    let times = time_column.and_then(|column| times(&stats, column)).unwrap_or(Times::Unknown);
    (stats.num_records, times)
}

fn times(stats: &Stats, column: &str) -> Option<Times> {
    let nulls = stats.null_count.as_ref()?.get(column)?.as_u64()?;
    if stats.num_records == Some(nulls) {
        return Some(Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls });
    }
    let bound = |values: &Option<Map<String, Value>>| parse(values.as_ref()?.get(column)?.as_str()?);
    let (min, max) = (bound(&stats.min_values)?, bound(&stats.max_values)?);
    let slack = if max.0 % 1000 == 0 { 999 } else { 0 };
    Some(Times::Known { min, max: EventTime(max.0.saturating_add(slack)), nulls })
}

/// A timestamp as statistics write it: ISO 8601 with a zone, or without one for `timestamp_ntz`; taken as UTC.
fn parse(text: &str) -> Option<EventTime> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(EventTime(time.timestamp_micros()));
    }
    let midnight = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| date.and_time(NaiveTime::MIN));
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(midnight)
        .map(|time| EventTime(time.and_utc().timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(min: &str, max: &str) -> String {
        format!(r#"{{"numRecords":3,"minValues":{{"t":"{min}"}},"maxValues":{{"t":"{max}"}},"nullCount":{{"t":1}}}}"#)
    }

    #[test]
    fn widens_what_may_be_truncated() {
        let known = |min, max| (Some(3), Times::Known { min: EventTime(min), max: EventTime(max), nulls: 1 });
        let cases = [
            ("1970-01-01T00:00:00.001Z", "1970-01-01T00:00:01.000Z", known(1_000, 1_000_999)),
            ("1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000002Z", known(1, 2)),
            ("1969-12-31T16:00:00.000-08:00", "1969-12-31T16:00:01.5-08:00", known(0, 1_500_999)),
            ("1970-01-01T00:00:00", "1970-01-01 00:00:02.25", known(0, 2_250_999)),
            ("1970-01-01", "1970-01-02", known(0, 86_400_000_999)),
        ];
        for (min, max, expected) in cases {
            assert_eq!(read(Some(&stats(min, max)), Some("t")), expected, "{min} {max}");
        }
    }

    #[test]
    fn does_not_guess() {
        assert_eq!(read(None, Some("t")), (None, Times::Unknown));
        assert_eq!(read(Some("{"), Some("t")), (None, Times::Unknown));
        assert_eq!(read(Some(r#"{"numRecords":3}"#), Some("t")), (Some(3), Times::Unknown));
        assert_eq!(read(Some(&stats("x", "y")), Some("t")), (Some(3), Times::Unknown));
        assert_eq!(read(Some(&stats("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z")), Some("u")).1, Times::Unknown);
        let no_nulls =
            r#"{"numRecords":3,"minValues":{"t":"1970-01-01T00:00:00Z"},"maxValues":{"t":"1970-01-01T00:00:00Z"}}"#;
        assert_eq!(read(Some(no_nulls), Some("t")).1, Times::Unknown);
        let all_null = r#"{"numRecords":3,"minValues":{},"maxValues":{},"nullCount":{"t":3}}"#;
        let nothing = Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: 3 };
        assert_eq!(read(Some(all_null), Some("t")), (Some(3), nothing));
    }
}
