//! What a single partition value says: a time of the calendar, or an instant, and the width that its form speaks of. Pure.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use watershed_core::time::Grain;

/// A partition value that is a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) time: NaiveDateTime,
    /// It names its offset, so `time` is UTC; otherwise it is what the clocks of the table's zone show.
    pub(crate) instant: bool,
    pub(crate) grain: Grain,
}

/// Reads a value; `None` when it is no time. Digits alone may be anything: whether `202601` is one is the caller's to say.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let local = |time: NaiveDateTime, grain: Grain| Value { time, instant: false, grain };
    let midnight = |date: NaiveDate, grain: Grain| local(date.and_time(NaiveTime::MIN), grain);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    match (digits, text.len()) {
        (4, 4) => return NaiveDate::from_ymd_opt(text.parse().ok()?, 1, 1).map(|date| midnight(date, Grain::Year)),
        (6, 6 | 7) => {
            let (year, month) = text.split_at_checked(4)?;
            let month = if text.len() == 7 { month.strip_prefix('-')? } else { month };
            let first = NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, 1)?;
            return Some(midnight(first, Grain::Month));
        }
        (8, 8) => return NaiveDate::parse_from_str(text, "%Y%m%d").ok().map(|date| midnight(date, Grain::Day)),
        (8, 10) => return NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|date| midnight(date, Grain::Day)),
        (10, 10) => {
            let (date, hour) = text.split_at_checked(8)?;
            let date = NaiveDate::parse_from_str(date, "%Y%m%d").ok()?;
            return Some(local(date.and_hms_opt(hour.parse().ok()?, 0, 0)?, Grain::Hour));
        }
        (10, 13) => {
            let (date, hour) = text.split_at_checked(10)?;
            let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
            let hour = hour.strip_prefix(['-', 'T', ' '])?.parse().ok()?;
            return Some(local(date.and_hms_opt(hour, 0, 0)?, Grain::Hour));
        }
        _ => {}
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(Value { time: time.naive_utc(), instant: true, grain: Grain::Hour });
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| local(time, Grain::Hour))
}

/// Whether values of a column of this name are taken for times though nobody said so: digits alone only where the name
/// speaks of months or years.
pub(crate) fn speaks_of_time(name: &str, text: &str) -> bool {
    let name = name.to_lowercase();
    let digits_only = text.bytes().all(|b| b.is_ascii_digit());
    let called = |words: &[&str]| words.iter().any(|word| name == *word || name.ends_with(&format!("_{word}")));
    match parse(text).map(|value| value.grain) {
        Some(Grain::Month) => !digits_only || called(&["month", "ym", "yearmonth", "yyyymm"]),
        Some(Grain::Year) => false, // A column `year` is found by its name.
        Some(Grain::Hour) if digits_only => called(&["hour", "dt", "ts", "date_hour", "yyyymmddhh"]),
        found => found.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let of = |text: &str| parse(text).map(|v| (v.time.to_string(), v.instant, v.grain));
        let local = |time: &str, grain| Some((time.to_string(), false, grain));
        assert_eq!(of("2026"), local("2026-01-01 00:00:00", Grain::Year));
        assert_eq!(of("2026-03"), local("2026-03-01 00:00:00", Grain::Month));
        assert_eq!(of("202603"), local("2026-03-01 00:00:00", Grain::Month));
        assert_eq!(of("20260331"), local("2026-03-31 00:00:00", Grain::Day));
        assert_eq!(of("2026-03-31"), local("2026-03-31 00:00:00", Grain::Day));
        assert_eq!(of("2026033107"), local("2026-03-31 07:00:00", Grain::Hour));
        assert_eq!(of("2026-03-31-07"), local("2026-03-31 07:00:00", Grain::Hour));
        assert_eq!(of("2026-03-31 07:00:00.000"), local("2026-03-31 07:00:00", Grain::Hour));
        let instant = Some(("2026-03-31 05:00:00".to_string(), true, Grain::Hour));
        assert_eq!(of("2026-03-31T07:00:00+02:00"), instant);
        for text in
            ["", "soon", "2026-3", "2026-13", "202613", "20260230", "2026-03-31-25", "1234567", "é2026", "12345é"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn digits_alone_need_a_name() {
        assert!(
            speaks_of_time("x", "2026-03") && speaks_of_time("sale_month", "202603") && speaks_of_time("x", "20260331")
        );
        assert!(!speaks_of_time("plant", "202603") && !speaks_of_time("code", "2026"));
    }
}
