//! When a job may run: hours of the day on the clocks of a zone, such as `22:00-06:00 Europe/Berlin`.
//!
//! A schedule is one or several windows of the day, each perhaps on some days of the week only, and a zone (UTC without
//! one). What counts is what the zone's clocks show: an hour that comes twice in autumn is open twice, and one that is
//! leapt over in spring is not open at all. A window that ends at or before its start goes over midnight and belongs to the
//! day it begins on.
//!
//! Invariant: [`Schedule::at`] is a pure function of the instant; whoever waits asks again after waking, so a clock that
//! jumps is followed.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Weekday};
use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Span, Zone};

/// Minutes of a day.
const DAY: u32 = 24 * 60;

/// How far ahead a change is looked for: clocks may leap over a window that is open once a week.
const LOOK_AHEAD: i64 = 15 * DAY as i64;

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

/// When a job may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    windows: Vec<Hours>,
    zone: Zone,
}

/// Hours of the day, on some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hours {
    /// By [`Weekday::num_days_from_monday`]: on which days it begins.
    days: [bool; 7],
    /// Minutes after midnight; the end may be 24:00.
    start: u32,
    end: u32,
}

/// What a schedule says of an instant, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Run; without an end when it never closes.
    Open(Option<EventTime>),
    /// Wait until then.
    Closed(EventTime),
}

impl Schedule {
    /// What holds at an instant of wall time.
    pub fn at(&self, now: EventTime) -> Opening {
        let open = self.is_open(now);
        let minute = Span::MINUTE.0;
        let first = now.0.div_euclid(minute) + 1;
        let change = (first..first + LOOK_AHEAD).map(|m| EventTime(m * minute)).find(|t| self.is_open(*t) != open);
        match (open, change) {
            (true, change) => Opening::Open(change),
            (false, change) => Opening::Closed(change.unwrap_or(EventTime((first + LOOK_AHEAD) * minute))),
        }
    }

    pub fn is_open(&self, now: EventTime) -> bool {
        let Some(utc) = DateTime::from_timestamp_micros(now.0) else { return false };
        let local = self.zone.local(utc.naive_utc());
        self.windows.iter().any(|hours| hours.hold(local))
    }
}

impl Hours {
    fn hold(&self, local: NaiveDateTime) -> bool {
        let minute = local.hour() * 60 + local.minute();
        let on = |date: chrono::NaiveDate| self.days[date.weekday().num_days_from_monday() as usize];
        let today = local.date();
        if self.start < self.end {
            return on(today) && (self.start..self.end).contains(&minute);
        }
        let yesterday = today - TimeDelta::days(1);
        (on(today) && minute >= self.start) || (on(yesterday) && minute < self.end)
    }
}

impl FromStr for Schedule {
    type Err = String;

    /// `[days ]HH:MM-HH:MM`, more of them after commas, and a zone at the end.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // A zone is the last word, if that neither names hours nor stands before any.
        let (windows, zone) = match text.rsplit_once(char::is_whitespace) {
            Some((windows, last)) if !last.contains(':') => (windows.trim_end(), last.parse()?),
            _ => (text, Zone::UTC),
        };
        let windows = windows.split(',').map(|window| window.trim().parse()).collect::<Result<Vec<Hours>, _>>()?;
        Ok(Schedule { windows, zone })
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no window; write it as 22:00-06:00 or Mon-Fri 22:00-06:00");
        let (days, hours) = match text.rsplit_once(char::is_whitespace) {
            Some((days, hours)) => (weekdays(days.trim())?, hours),
            None => ([true; 7], text),
        };
        let (start, end) = hours.split_once('-').ok_or_else(wrong)?;
        let (start, end) = (minutes(start).ok_or_else(wrong)?, minutes(end).ok_or_else(wrong)?);
        if start == end || start == DAY {
            return Err(format!("`{text}` begins when it ends; the whole day is 00:00-24:00"));
        }
        Ok(Hours { days, start, end })
    }
}

/// `Mon`, `Mon-Fri`, `Sat-Mon`.
fn weekdays(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let found = WEEKDAYS.iter().find(|(short, _)| name.trim().eq_ignore_ascii_case(short));
        let found =
            found.ok_or_else(|| format!("`{name}` is no day of the week; write Mon, Tue, Wed, Thu, Fri, Sat or Sun"));
        found.map(|(_, day)| day.num_days_from_monday() as usize)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (day(first)?, day(last)?),
        None => (day(text)?, day(text)?),
    };
    let mut days = [false; 7];
    for i in 0..=(last + 7 - first) % 7 {
        days[(first + i) % 7] = true;
    }
    Ok(days)
}

/// `HH:MM` as minutes after midnight, up to 24:00.
fn minutes(text: &str) -> Option<u32> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |t: &str| (t.len() <= 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u32>().ok())?;
    let (hour, minute) = (number(hour)?, number(minute).filter(|m| *m < 60)?);
    Some(hour * 60 + minute).filter(|m| *m <= DAY)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, hours) in self.windows.iter().enumerate() {
            write!(f, "{}{hours}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, " {}", self.zone)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |i: usize| {
            let (name, _) = WEEKDAYS[i % 7];
            name[..1].to_uppercase() + &name[1..]
        };
        if self.days != [true; 7] {
            // The days are one stretch; it begins after a day that is not in it.
            let first = (0..7).find(|i| self.days[*i] && !self.days[(i + 6) % 7]).unwrap_or(0);
            let count = self.days.iter().filter(|on| **on).count();
            write!(f, "{}", name(first))?;
            if count > 1 {
                write!(f, "-{}", name(first + count - 1))?;
            }
            f.write_str(" ")?;
        }
        let time = |m: u32| format!("{:02}:{:02}", m / 60, m % 60);
        write!(f, "{}-{}", time(self.start), time(self.end))
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;

    fn instant(text: &str) -> EventTime {
        EventTime(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    fn at(schedule: &str, now: &str) -> String {
        match schedule.parse::<Schedule>().unwrap().at(instant(now)) {
            Opening::Open(Some(until)) => format!("open until {until}"),
            Opening::Open(None) => "open".to_string(),
            Opening::Closed(until) => format!("closed until {until}"),
        }
    }

    #[test]
    fn nights_go_over_midnight() {
        assert_eq!(at("22:00-06:00", "2026-05-05T21:59:59.999999Z"), "closed until 2026-05-05T22:00:00Z");
        assert_eq!(at("22:00-06:00", "2026-05-05T22:00:00Z"), "open until 2026-05-06T06:00:00Z");
        assert_eq!(at("22:00-06:00", "2026-05-06T05:59:59Z"), "open until 2026-05-06T06:00:00Z");
        assert_eq!(at("22:00-06:00", "2026-05-06T06:00:00Z"), "closed until 2026-05-06T22:00:00Z");
        assert_eq!(at("22:00-24:00, 00:00-06:00", "2026-05-05T23:00:00Z"), "open until 2026-05-06T06:00:00Z");
        assert_eq!(at("00:00-24:00", "2026-05-05T23:00:00Z"), "open");
    }

    #[test]
    fn days_of_the_week_are_those_a_window_begins_on() {
        // 2026-05-08 is a Friday.
        let weekend = "Fri-Sat 22:00-06:00";
        assert_eq!(at(weekend, "2026-05-08T21:00:00Z"), "closed until 2026-05-08T22:00:00Z");
        assert_eq!(at(weekend, "2026-05-10T03:00:00Z"), "open until 2026-05-10T06:00:00Z");
        assert_eq!(at(weekend, "2026-05-10T23:00:00Z"), "closed until 2026-05-15T22:00:00Z");
        assert_eq!(
            at("Sun 00:00-24:00, Mon-Fri 12:00-13:00", "2026-05-10T23:30:00Z"),
            "open until 2026-05-11T00:00:00Z"
        );
        assert_eq!(at("Sat-Mon 01:00-02:00", "2026-05-12T00:00:00Z"), "closed until 2026-05-16T01:00:00Z");
    }

    #[test]
    fn clocks_of_a_zone_that_are_put_forward_and_back() {
        // Spring: at 01:00 UTC clocks leap from 02:00 to 03:00. Autumn: at 01:00 UTC they go back from 03:00 to 02:00.
        let berlin = "02:30-04:00 Europe/Berlin";
        assert_eq!(at(berlin, "2026-03-29T00:30:00Z"), "closed until 2026-03-29T01:00:00Z");
        assert_eq!(at(berlin, "2026-10-25T00:00:00Z"), "closed until 2026-10-25T00:30:00Z");
        assert_eq!(at(berlin, "2026-10-25T00:30:00Z"), "open until 2026-10-25T01:00:00Z");
        assert_eq!(at(berlin, "2026-10-25T01:15:00Z"), "closed until 2026-10-25T01:30:00Z");
        // A window that is leapt over is not open that day.
        let leapt = at("02:10-02:50 Europe/Berlin", "2026-03-28T23:30:00Z");
        assert_eq!(leapt, "closed until 2026-03-30T00:10:00Z");
        assert_eq!(at("Sun 02:10-02:50 Europe/Berlin", "2026-03-28T23:30:00Z"), "closed until 2026-04-05T00:10:00Z");
    }

    #[test]
    fn what_is_none_is_told() {
        let error = |text: &str| text.parse::<Schedule>().unwrap_err();
        assert!(error("at night").contains("no time zone"), "{}", error("at night"));
        assert!(error("22:00").contains("22:00-06:00"));
        assert!(error("22:00-25:00").contains("is no window"));
        assert!(error("22:00-22:00").contains("00:00-24:00"));
        assert!(error("22:00-06:00 Europe/Berlim").contains("did you mean 'Europe/Berlin'?"));
        assert!(error("Caturday 22:00-06:00").contains("no day of the week"));
        assert!(error("").contains("is no window"));
    }

    #[test]
    fn is_read_back_from_its_text() {
        for text in
            ["22:00-06:00 UTC", "Mon-Fri 22:00-06:00, Sat-Sun 00:00-24:00 Europe/Berlin", "Sun 01:00-02:30 Asia/Tokyo"]
        {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
    }

    proptest! {
        /// Around the days on which clocks change: until the change that is told, nothing changes, and then it does. What is
        /// open is told by an independent reading of the zone's clocks.
        #[test]
        fn holds_until_it_says(
            zone in prop::sample::select(vec![Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::UTC]),
            day in prop::sample::select(vec![(2026, 3, 8), (2026, 3, 29), (2026, 4, 5), (2026, 10, 4), (2026, 10, 25), (2026, 11, 1)]),
            offset in 0i64..72 * 3600,
            (start, end) in (0u32..48, 0u32..=48).prop_filter("not empty", |(s, e)| s != e),
            probes in prop::collection::vec(0.0f64..1.0, 20),
        ) {
            let time = |half: u32| format!("{:02}:{:02}", half / 2, half % 2 * 30);
            let schedule: Schedule = format!("{}-{} {zone}", time(start), time(end)).parse().unwrap();
            let shown = |t: EventTime| {
                let local = zone.from_utc_datetime(&DateTime::from_timestamp_micros(t.0).unwrap().naive_utc());
                let text = local.format("%H:%M").to_string();
                if start < end { time(start) <= text && text < time(end) } else { time(start) <= text || text < time(end) }
            };
            let (y, m, d) = day;
            let midnight = chrono::NaiveDate::from_ymd_opt(y, m, d).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
            let now = EventTime(midnight.timestamp_micros() + (offset - 24 * 3600) * 1_000_000);
            let open = shown(now);
            prop_assert_eq!(schedule.is_open(now), open);
            let until = match schedule.at(now) {
                Opening::Open(until) => { prop_assert!(open); until }
                Opening::Closed(until) => { prop_assert!(!open); Some(until) }
            };
            let Some(until) = until else { return Ok(()) };
            prop_assert!(until > now);
            prop_assert_eq!(shown(until), !open);
            for probe in probes {
                let between = EventTime(now.0 + ((until.0 - now.0) as f64 * probe) as i64);
                prop_assert_eq!(shown(between), open, "{} is not as {} until {}", between, now, until);
            }
        }
    }
}
