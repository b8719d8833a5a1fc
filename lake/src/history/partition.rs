//! Which partition columns carry time, and which interval their values stand for. Pure.
//!
//! | columns | grain |
//! |---|---|
//! | one DATE | day |
//! | one TIMESTAMP | hour (day, if `time_partition` says so) |
//! | text or integer `2026-01-31`, `20260131` | day |
//! | text `2026-01-31-05`, `2026-01-31T05`, `2026-01-31 05` | hour |
//! | one of the day forms, and a column `hour` | hour |
//! | integers `year`, `month`, `day` (and `hour`) | day (hour) |
//!
//! Values are UTC. Where several columns qualify the user is asked; nothing is guessed from their order.

use arrow::datatypes::DataType;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use watershed_core::time::{EventTime, Grain, Interval};
use watershed_core::{Error, Result};

/// A partition column as the detection sees it.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    /// Distinct values that are not NULL, perhaps not all.
    pub(crate) samples: Vec<String>,
}

/// How time is read from partition values. Numbers are positions among the partition columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TimeKey {
    One { column: usize, grain: Grain },
    DateAndHour { date: usize, hour: usize },
    Parts { year: usize, month: usize, day: usize, hour: Option<usize> },
}

impl TimeKey {
    /// The column that stands for the key in the layout, and the width of its values.
    pub(crate) fn column(&self) -> (usize, Grain) {
        match *self {
            TimeKey::One { column, grain } => (column, grain),
            TimeKey::DateAndHour { date, .. } => (date, Grain::Hour),
            TimeKey::Parts { day, hour: None, .. } => (day, Grain::Day),
            TimeKey::Parts { hour: Some(hour), .. } => (hour, Grain::Hour),
        }
    }

    /// The interval of a file's partition values; `None` when one of them is NULL.
    pub(crate) fn interval(&self, values: &[Option<String>]) -> Result<Option<Interval>, String> {
        let value = |column: usize| values.get(column).and_then(|v| v.as_deref());
        let number = |column: usize| match value(column) {
            None => Ok(None),
            Some(text) => text.trim().parse::<u32>().map(Some).map_err(|_| format!("`{text}` is not a number")),
        };
        let at_hour = |date: NaiveDate, hour: u32| {
            let time =
                NaiveTime::from_hms_opt(hour, 0, 0).ok_or_else(|| format!("`{hour}` is not an hour of a day"))?;
            Ok::<_, String>(date.and_time(time))
        };
        let (start, grain) = match *self {
            TimeKey::One { column, grain } => {
                let Some(text) = value(column) else { return Ok(None) };
                let start = parse(text).ok_or_else(|| format!("`{text}` is not a day or an hour"))?.0;
                (start, grain)
            }
            TimeKey::DateAndHour { date, hour } => {
                let (Some(text), Some(hour)) = (value(date), number(hour)?) else { return Ok(None) };
                let day = parse(text).ok_or_else(|| format!("`{text}` is not a day"))?.0;
                (at_hour(day.date(), hour)?, Grain::Hour)
            }
            TimeKey::Parts { year, month, day, hour } => {
                let (Some(y), Some(m), Some(d)) = (number(year)?, number(month)?, number(day)?) else {
                    return Ok(None);
                };
                let date = i32::try_from(y).ok().and_then(|y| NaiveDate::from_ymd_opt(y, m, d));
                let date = date.ok_or_else(|| format!("{y}-{m}-{d} is not a day"))?;
                match hour.map(number).transpose()? {
                    None => (at_hour(date, 0)?, Grain::Day),
                    Some(None) => return Ok(None),
                    Some(Some(hour)) => (at_hour(date, hour)?, Grain::Hour),
                }
            }
        };
        let start = EventTime(start.and_utc().timestamp_micros());
        if start.0.rem_euclid(grain.span().0) != 0 {
            return Err(format!(
                "{start} is not the start of a{}",
                if grain == Grain::Day { " day" } else { "n hour" }
            ));
        }
        Ok(Some(Interval { start, end: start.plus(grain.span()) }))
    }
}

/// Finds the time key of a table; `None` when no partition column carries time.
pub(crate) fn detect(
    location: &str,
    columns: &[Column],
    time_column: Option<&str>,
    hint: Option<&str>,
) -> Result<Option<TimeKey>> {
    let named = |name: &str| columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    let (grain, column) = match hint {
        None => (None, None),
        Some(text) => match (columns.iter().position(|c| c.name == text), text.to_ascii_lowercase().as_str()) {
            (Some(column), _) => (None, Some(column)),
            (None, "day") => (Some(Grain::Day), None),
            (None, "hour") => (Some(Grain::Hour), None),
            (None, _) => {
                return Err(Error::input(format!(
                    "time_partition = '{text}': {location} has no such partition column; it is partitioned by {}. \
                     Give one of them, or 'day' or 'hour'",
                    names(columns, 0..columns.len())
                )));
            }
        },
    };
    if column.is_none()
        && let (Some(year), Some(month), Some(day)) = (named("year"), named("month"), named("day"))
    {
        let hour = named("hour").filter(|_| grain != Some(Grain::Day));
        return Ok(Some(TimeKey::Parts { year, month, day, hour }));
    }
    let typed = |c: &Column| matches!(c.data_type, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    let mut candidates: Vec<usize> = match column {
        Some(column) => vec![column],
        None => (0..columns.len()).filter(|i| typed(&columns[*i])).collect(),
    };
    if candidates.is_empty() {
        candidates = (0..columns.len()).filter(|i| looks_like_time(&columns[*i])).collect();
    }
    if candidates.len() > 1
        && let Some(time) = time_column
    {
        // `ts_day` beside `ts`, as PARTITION BY day(ts) names it.
        let derived: Vec<usize> = candidates
            .iter()
            .copied()
            .filter(|i| ["day", "date", "hour"].iter().any(|s| columns[*i].name == format!("{time}_{s}")))
            .collect();
        if derived.len() == 1 {
            candidates = derived;
        }
    }
    let column = match candidates[..] {
        [] => return Ok(None),
        [one] => one,
        _ => {
            return Err(Error::input(format!(
                "{location} has several partition columns that may carry time: {}; say which by time_partition = '…'",
                names(columns, candidates)
            )));
        }
    };
    let found = grain_of(location, &columns[column], grain)?;
    let hour = columns.iter().position(|c| {
        matches!(c.name.to_ascii_lowercase().as_str(), "hour" | "hr" | "hh")
            && c.name != columns[column].name
            && !typed(c)
    });
    match (found, hour) {
        (Grain::Day, Some(hour)) if grain != Some(Grain::Day) => Ok(Some(TimeKey::DateAndHour { date: column, hour })),
        _ => Ok(Some(TimeKey::One { column, grain: found })),
    }
}

/// How wide the values of a column are.
fn grain_of(location: &str, column: &Column, hint: Option<Grain>) -> Result<Grain> {
    let fail = |what: String| Err(Error::input(format!("{location}: partition column `{}` {what}", column.name)));
    if matches!(column.data_type, DataType::Date32 | DataType::Date64) {
        return Ok(Grain::Day);
    }
    let mut parsed = vec![];
    for text in &column.samples {
        match parse(text) {
            Some(found) => parsed.push(found),
            None => return fail(format!("has the value `{text}`, which is not a day or an hour")),
        }
    }
    if let Some(grain) = hint {
        return Ok(grain);
    }
    if !matches!(column.data_type, DataType::Timestamp(..)) {
        return Ok(parsed.first().map_or(Grain::Day, |found| found.1));
    }
    // A day's partitions written as timestamps look like the first hours of days.
    if parsed.len() > 1 && parsed.iter().all(|(time, _)| time.time() == NaiveTime::MIN) {
        return fail(
            "holds midnights only, so its grain cannot be told: say time_partition = 'day' or 'hour'".to_string(),
        );
    }
    Ok(Grain::Hour)
}

fn looks_like_time(column: &Column) -> bool {
    let plain = column.data_type.is_integer() || matches!(column.data_type, DataType::Utf8 | DataType::Utf8View);
    plain && !column.samples.is_empty() && column.samples.iter().all(|text| parse(text).is_some())
}

/// A value's start and the grain its form speaks of.
fn parse(text: &str) -> Option<(NaiveDateTime, Grain)> {
    let midnight = |date: NaiveDate| (date.and_time(NaiveTime::MIN), Grain::Day);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits == 8 && (text.len() == 8 || text.len() == 10) {
        let format = if text.len() == 8 { "%Y%m%d" } else { "%Y-%m-%d" };
        return NaiveDate::parse_from_str(text, format).ok().map(midnight);
    }
    if digits == 10 && text.len() == 13 && text.is_char_boundary(10) {
        let (date, hour) = text.split_at(10);
        let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
        let hour = hour.strip_prefix(['-', 'T', ' '])?.parse().ok()?;
        return Some((date.and_hms_opt(hour, 0, 0)?, Grain::Hour));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some((time.naive_utc(), Grain::Hour));
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| (time, Grain::Hour))
}

fn names(columns: &[Column], which: impl IntoIterator<Item = usize>) -> String {
    let names: Vec<String> = which.into_iter().map(|i| format!("`{}`", columns[i].name)).collect();
    if names.is_empty() { "nothing".to_string() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
