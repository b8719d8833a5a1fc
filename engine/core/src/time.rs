//! Event time: microseconds since 1970-01-01T00:00:00Z, the one unit in which Watershed compares times.
//!
//! Invariant: arithmetic saturates at [`EventTime::MIN`] and [`EventTime::MAX`], which stand for "before everything" and
//! "after everything"; no date near them is ever computed by accident.

use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Timelike};
use serde::{Deserialize, Serialize};

mod zone;

pub use zone::Zone;

/// A point in event time, in microseconds since the epoch, UTC. A watermark is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventTime(pub i64);

/// A length of event time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span(pub i64);

impl EventTime {
    pub const MIN: EventTime = EventTime(i64::MIN);
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// This time less a span; the two ends absorb.
    pub fn minus(self, span: Span) -> EventTime {
        self.shift(span.0.saturating_neg())
    }

    /// This time plus a span; the two ends absorb.
    pub fn plus(self, span: Span) -> EventTime {
        self.shift(span.0)
    }

    fn shift(self, by: i64) -> EventTime {
        match self {
            EventTime::MIN | EventTime::MAX => self,
            EventTime(t) => EventTime(t.saturating_add(by)),
        }
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EventTime::MIN => f.write_str("the beginning"),
            EventTime::MAX => f.write_str("the end"),
            EventTime(t) => match DateTime::from_timestamp_micros(t) {
                Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
                None => write!(f, "{t} µs"),
            },
        }
    }
}

impl Span {
    pub const MICROSECOND: Span = Span(1);
    pub const SECOND: Span = Span(1_000_000);
    pub const MINUTE: Span = Span(60_000_000);
    pub const HOUR: Span = Span(3_600_000_000);
    pub const DAY: Span = Span(86_400_000_000);
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(Span::DAY, "d"), (Span::HOUR, "h"), (Span::MINUTE, "min"), (Span::SECOND, "s")] {
            if self.0 != 0 && self.0 % unit.0 == 0 {
                return write!(f, "{} {name}", self.0 / unit.0);
            }
        }
        write!(f, "{} µs", self.0)
    }
}

/// A half-open interval of event time, `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Interval {
    pub start: EventTime,
    pub end: EventTime,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// How wide a history's time partitions are, on the calendar of its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    Hour,
    Day,
    Month,
    Year,
}

impl Grain {
    /// The names that people write.
    pub const NAMES: [(&'static str, Grain); 4] =
        [("hour", Grain::Hour), ("day", Grain::Day), ("month", Grain::Month), ("year", Grain::Year)];

    /// A grain by its name, in any case.
    pub fn named(text: &str) -> Option<Grain> {
        Grain::NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, grain)| *grain)
    }

    /// The width of one partition; of months and years, that of the longest.
    pub fn span(self) -> Span {
        match self {
            Grain::Hour => Span::HOUR,
            Grain::Day => Span::DAY,
            Grain::Month => Span(31 * Span::DAY.0),
            Grain::Year => Span(366 * Span::DAY.0),
        }
    }

    /// The partition that begins at a time of the calendar; `None` when none begins there.
    pub fn partition(self, start: NaiveDateTime) -> Option<(NaiveDateTime, NaiveDateTime)> {
        let first = match self {
            Grain::Hour => start.minute() == 0 && start.second() == 0 && start.nanosecond() == 0,
            Grain::Day => start.time() == NaiveTime::MIN,
            Grain::Month => start.time() == NaiveTime::MIN && start.day() == 1,
            Grain::Year => start.time() == NaiveTime::MIN && start.ordinal() == 1,
        };
        let end = match self {
            Grain::Hour => start.checked_add_signed(TimeDelta::hours(1)),
            Grain::Day => start.checked_add_days(Days::new(1)),
            Grain::Month => start.checked_add_months(Months::new(1)),
            Grain::Year => start.checked_add_months(Months::new(12)),
        };
        end.filter(|_| first).map(|end| (start, end))
    }
}

impl fmt::Display for Grain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Grain::NAMES.iter().find(|(_, grain)| grain == self).map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_absorb() {
        assert_eq!(EventTime::MIN.plus(Span::DAY), EventTime::MIN);
        assert_eq!(EventTime::MAX.minus(Span::DAY), EventTime::MAX);
        assert_eq!(EventTime(5).minus(Span(7)), EventTime(-2));
    }

    #[test]
    fn prints_as_people_write_it() {
        assert_eq!(EventTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Span(90 * 60_000_000).to_string(), "90 min");
    }
}
