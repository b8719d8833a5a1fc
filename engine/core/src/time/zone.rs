//! Time zones: which instants a calendar's hours, days, months and years are, where clocks are put forward and back.
//!
//! Invariant: the intervals of consecutive times of the calendar are disjoint and leave no instant out. So the hour that
//! comes twice in autumn is one interval of two hours, and one that never was in spring is empty, which is an error.

use std::fmt;
use std::str::FromStr;

use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Serialize};

use super::{EventTime, Interval};

/// A time zone of the IANA database, such as `America/New_York`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

impl Zone {
    pub const UTC: Zone = Zone(Tz::UTC);

    /// The interval between two times of this zone's calendar; `None` when clocks leapt over all of it.
    pub fn interval(self, start: NaiveDateTime, end: NaiveDateTime) -> Option<Interval> {
        let interval = Interval { start: self.reaches(start), end: self.reaches(end) };
        (interval.start < interval.end).then_some(interval)
    }

    /// What this zone's clocks show at an instant.
    pub fn local(self, instant: NaiveDateTime) -> NaiveDateTime {
        self.0.from_utc_datetime(&instant).naive_local()
    }

    /// The first instant at which the zone's clocks show `local`; if they leapt over it, when they did.
    fn reaches(self, local: NaiveDateTime) -> EventTime {
        let instant = match self.0.from_local_datetime(&local).earliest() {
            Some(found) => found.naive_utc(),
            None => self.leap(local),
        };
        EventTime(instant.and_utc().timestamp_micros())
    }

    /// The instant at which clocks leap over `local`: before it they show less, from it on more.
    fn leap(self, local: NaiveDateTime) -> NaiveDateTime {
        const DAYS: i64 = 2 * 86_400; // No zone is further from UTC than a day, nor leaps further.
        let at = |seconds: i64| local + chrono::TimeDelta::seconds(seconds);
        let (mut before, mut after) = (-DAYS, DAYS);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if self.local(at(middle)) < local { before = middle } else { after = middle }
        }
        at(after)
    }
}

impl FromStr for Zone {
    type Err = String;

    /// A zone by its name, in any case; the error has the name that was probably meant.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(found) = TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(text)) {
            return Ok(Zone(*found));
        }
        let lower = text.to_lowercase();
        let like = |name: &str| {
            let name = name.to_lowercase();
            let city = name.rsplit('/').next().unwrap_or_default();
            strsim::jaro_winkler(&lower, &name).max(strsim::jaro_winkler(&lower.replace(' ', "_"), city))
        };
        let scored = TZ_VARIANTS.iter().map(|zone| (like(zone.name()), zone.name()));
        Err(match scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8) {
            Some((_, name)) => format!("no time zone is called `{text}`; did you mean '{name}'?"),
            None => format!("no time zone is called `{text}`; write one such as 'America/New_York' or 'UTC'"),
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.to_string()
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;
    use proptest::prelude::*;

    use super::super::{Grain, Span};
    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    /// The interval of a partition that starts at a time of the calendar, as text.
    fn of(name: &str, grain: Grain, (y, m, d, h): (i32, u32, u32, u32)) -> Option<String> {
        let start = NaiveDate::from_ymd_opt(y, m, d).unwrap().and_hms_opt(h, 0, 0).unwrap();
        let (start, end) = grain.partition(start).unwrap();
        zone(name).interval(start, end).map(|i| i.to_string())
    }

    fn found(text: &str) -> Option<String> {
        Some(text.to_string())
    }

    #[test]
    fn days_of_23_and_25_hours() {
        let york = "America/New_York";
        let spring = of(york, Grain::Day, (2026, 3, 8, 0));
        assert_eq!(spring, found("[2026-03-08T05:00:00Z, 2026-03-09T04:00:00Z)"));
        let autumn = of(york, Grain::Day, (2026, 11, 1, 0));
        assert_eq!(autumn, found("[2026-11-01T04:00:00Z, 2026-11-02T05:00:00Z)"));
        let month = of(york, Grain::Month, (2026, 11, 1, 0));
        assert_eq!(month, found("[2026-11-01T04:00:00Z, 2026-12-01T05:00:00Z)"));
    }

    #[test]
    fn the_hour_that_comes_twice_and_the_one_that_never_was() {
        let hour = |day: (i32, u32, u32), hour: u32| of("America/New_York", Grain::Hour, (day.0, day.1, day.2, hour));
        let autumn = (2026, 11, 1);
        assert_eq!(hour(autumn, 0), found("[2026-11-01T04:00:00Z, 2026-11-01T05:00:00Z)"));
        assert_eq!(hour(autumn, 1), found("[2026-11-01T05:00:00Z, 2026-11-01T07:00:00Z)"));
        assert_eq!(hour(autumn, 2), found("[2026-11-01T07:00:00Z, 2026-11-01T08:00:00Z)"));
        let spring = (2026, 3, 8);
        assert_eq!(hour(spring, 1), found("[2026-03-08T06:00:00Z, 2026-03-08T07:00:00Z)"));
        assert_eq!(hour(spring, 2), None);
        assert_eq!(hour(spring, 3), found("[2026-03-08T07:00:00Z, 2026-03-08T08:00:00Z)"));
    }

    #[test]
    fn odd_leaps() {
        // Half an hour only; midnight leapt over; a whole day that never was.
        assert_eq!(
            of("Australia/Lord_Howe", Grain::Hour, (2026, 10, 4, 2)),
            found("[2026-10-03T15:30:00Z, 2026-10-03T16:00:00Z)")
        );
        assert_eq!(
            of("Africa/Cairo", Grain::Day, (2026, 4, 24, 0)),
            found("[2026-04-23T22:00:00Z, 2026-04-24T21:00:00Z)")
        );
        assert_eq!(of("Pacific/Apia", Grain::Day, (2011, 12, 30, 0)), None);
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        let error = |text: &str| Zone::from_str(text).unwrap_err();
        assert!(error("America/New York").ends_with("did you mean 'America/New_York'?"));
        assert!(error("Berlim").ends_with("did you mean 'Europe/Berlin'?"), "{}", error("Berlim"));
        assert!(error("+05:00").contains("such as 'America/New_York'"), "{}", error("+05:00"));
        assert_eq!(zone("europe/berlin").to_string(), "Europe/Berlin");
    }

    proptest! {
        /// Consecutive partitions of any grain and zone meet without gap or overlap.
        #[test]
        fn partitions_tile_time(which in 0..TZ_VARIANTS.len(), hour in 0i64..24 * 365 * 30, grain in 0..4usize) {
            let zone = Zone(TZ_VARIANTS[which]);
            let grain = Grain::NAMES[grain].1;
            let from = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap().and_time(chrono::NaiveTime::MIN);
            let mut start = from + chrono::TimeDelta::hours(hour);
            while grain.partition(start).is_none() {
                start -= chrono::TimeDelta::hours(1);
            }
            let (_, middle) = grain.partition(start).unwrap();
            let (_, end) = grain.partition(middle).unwrap();
            let (a, b, c) = (zone.reaches(start), zone.reaches(middle), zone.reaches(end));
            prop_assert!(a <= b && b <= c, "{zone} {grain} {start}: {a} {b} {c}");
            let longest = grain.span().0 + 26 * Span::HOUR.0;
            prop_assert!(b.0 - a.0 <= longest, "{zone} {grain} {start}: {a} {b}");
        }
    }
}
