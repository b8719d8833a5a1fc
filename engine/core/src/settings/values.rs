//! Values as people write them: durations, sizes, times.
//!
//! All are exact: what does not come out as whole microseconds or bytes is refused, and so is what could mean two things,
//! such as a month as a duration.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use crate::time::{EventTime, Span};

/// A duration that is not negative: words (`1 hour 30 minutes`, `10 s`), or ISO 8601 (`P1D`, `PT1H30M`).
pub fn parse_span(text: &str) -> Option<Span> {
    let text = text.trim();
    match text.strip_prefix(['P', 'p']) {
        Some(iso) => iso_span(iso),
        None => words_span(text),
    }
}

/// A number of bytes above zero: `128 MB` (millions), `1GiB` (two to the thirtieth), `4096`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = number_and_rest(text)?;
    let unit = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    u64::try_from(times(number, unit)?).ok().filter(|bytes| *bytes > 0)
}

/// A time: RFC 3339, the same without zone (then UTC), or a date (its midnight, UTC).
pub fn parse_time(text: &str) -> Option<EventTime> {
    let text = text.trim();
    let zoned = ["%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f%:z"];
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let rfc = DateTime::parse_from_rfc3339(text).ok();
    let zoned = rfc.or_else(|| zoned.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()));
    let time = zoned
        .map(|time| time.naive_utc())
        .or_else(|| local.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()))
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))?;
    Some(EventTime(time.and_utc().timestamp_micros()))
}

fn words_span(text: &str) -> Option<Span> {
    let mut rest = text;
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = number_and_rest(rest)?;
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let unit = match after[..end].to_lowercase().as_str() {
            "us" | "µs" | "microsecond" | "microseconds" => 1,
            "ms" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => Span::SECOND.0,
            "min" | "mins" | "minute" | "minutes" => Span::MINUTE.0,
            "h" | "hr" | "hour" | "hours" => Span::HOUR.0,
            "d" | "day" | "days" => Span::DAY.0,
            "w" | "week" | "weeks" => 7 * Span::DAY.0,
            _ => return None,
        };
        total = total.checked_add(i64::try_from(times(number, unit)?).ok()?)?;
        rest = after[end..].trim_start_matches([' ', ',']);
    }
    Some(Span(total))
}

fn iso_span(text: &str) -> Option<Span> {
    let (days, clock) = match text.split_once(['T', 't']) {
        Some((days, clock)) if !clock.is_empty() => (days, clock),
        Some(_) => return None,
        None => (text, ""),
    };
    if days.is_empty() && clock.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    for (part, units) in [(days, [('W', 7 * Span::DAY.0), ('D', Span::DAY.0)].as_slice()), (clock, &ISO_CLOCK)] {
        let (mut rest, mut units) = (part, units);
        while !rest.is_empty() {
            let (number, after) = number_and_rest(rest)?;
            let designator = after.chars().next()?.to_ascii_uppercase();
            // In order, each at most once.
            let at = units.iter().position(|(unit, _)| *unit == designator)?;
            total = total.checked_add(i64::try_from(times(number, units[at].1)?).ok()?)?;
            units = &units[at + 1..];
            rest = &after[designator.len_utf8()..];
        }
    }
    Some(Span(total))
}

const ISO_CLOCK: [(char, i64); 3] = [('H', Span::HOUR.0), ('M', Span::MINUTE.0), ('S', Span::SECOND.0)];

/// Splits `1.5 h` into whole part and fraction digits, and the rest.
fn number_and_rest(text: &str) -> Option<((&str, &str), &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let well_formed = !whole.is_empty() && !fraction.contains('.') && !(number.ends_with('.'));
    well_formed.then_some(((whole, fraction), rest))
}

/// A decimal number times a unit, if that is whole.
fn times((whole, fraction): (&str, &str), unit: i64) -> Option<i128> {
    let whole: i128 = whole.parse::<u64>().ok()?.into();
    let total = whole * i128::from(unit);
    if fraction.is_empty() {
        return Some(total);
    }
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok().filter(|n| *n <= 15)?)?;
    let part = i128::from(fraction.parse::<u64>().ok()?) * i128::from(unit);
    (part % scale == 0).then_some(total + part / scale)
}
