//! Which partitions there are, and which stretches of time each of them holds.
//!
//! **Invariant:** a stretch's rows depend on its number alone, not on the partition they lie in. So the same hours, laid
//! out by the hour and by the month, are the same rows.

use chrono::{Days, Months, NaiveDate, NaiveTime, TimeDelta};
use clap::{Args, ValueEnum};

use crate::Result;

/// Microseconds in an hour.
const HOUR: i64 = 3_600_000_000;

/// How facts lie in time, and in folders.
#[derive(Args)]
pub(super) struct Layout {
    /// What a partition holds
    #[arg(long, value_enum, default_value_t = Grain::Day)]
    by: Grain,
    /// The first day
    #[arg(long, default_value = "2026-01-01")]
    first: NaiveDate,
    /// How many days, one after the other; by the hour or the month: how many months
    #[arg(long, default_value_t = 180)]
    count: u64,
    /// By the hour or the month: the first so many hours of each month have facts, and the others none
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=28 * 24))]
    hours: u64,
}

/// What a partition holds.
#[derive(Clone, Copy, ValueEnum)]
enum Grain {
    /// `day=2026-01-31`, a whole day
    Day,
    /// `hour=2026-01-31-05`, one hour
    Hour,
    /// `month=2026-01`, all hours of a month that have facts
    Month,
}

/// One partition.
pub(super) struct Partition {
    pub(super) folder: String,
    pub(super) stretches: Vec<Stretch>,
}

/// A time that is filled with rows evenly, in microseconds since 1970.
pub(super) struct Stretch {
    pub(super) number: u64,
    pub(super) start: i64,
    pub(super) length: i64,
}

impl Layout {
    /// How many partitions there are.
    pub(super) fn partitions(&self) -> u64 {
        match self.by {
            Grain::Day | Grain::Month => self.count,
            Grain::Hour => self.count * self.hours,
        }
    }

    /// One of them, counted from zero.
    pub(super) fn partition(&self, place: u64) -> Result<Partition> {
        match self.by {
            Grain::Day => {
                let date =
                    self.first.checked_add_days(Days::new(place)).ok_or("the last day is beyond the calendar")?;
                let start = date.and_time(NaiveTime::MIN).and_utc().timestamp_micros();
                let stretches = vec![Stretch { number: place, start, length: 24 * HOUR }];
                Ok(Partition { folder: format!("day={date}"), stretches })
            }
            Grain::Hour => {
                let (month, hour) = (self.month(place / self.hours)?, place % self.hours);
                let time = month.and_time(NaiveTime::MIN) + TimeDelta::hours(hour.cast_signed());
                let stretches = vec![self.stretch(place / self.hours, month, hour)];
                Ok(Partition { folder: format!("hour={}", time.format("%Y-%m-%d-%H")), stretches })
            }
            Grain::Month => {
                let month = self.month(place)?;
                let stretches = (0..self.hours).map(|hour| self.stretch(place, month, hour)).collect();
                Ok(Partition { folder: format!("month={}", month.format("%Y-%m")), stretches })
            }
        }
    }

    /// The day on which a month's facts begin.
    fn month(&self, place: u64) -> Result<NaiveDate> {
        let month = u32::try_from(place).ok().and_then(|months| self.first.checked_add_months(Months::new(months)));
        Ok(month.ok_or("the last month is beyond the calendar")?)
    }

    fn stretch(&self, place: u64, month: NaiveDate, hour: u64) -> Stretch {
        let start = month.and_time(NaiveTime::MIN).and_utc().timestamp_micros() + hour.cast_signed() * HOUR;
        Stretch { number: place * self.hours + hour, start, length: HOUR }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(by: Grain) -> Layout {
        Layout { by, first: NaiveDate::from_ymd_opt(2018, 1, 1).unwrap(), count: 100, hours: 100 }
    }

    /// Every partition's folder, and the (number, start) of each stretch in order.
    fn all(layout: &Layout) -> (Vec<String>, Vec<(u64, i64)>) {
        let partitions: Vec<Partition> = (0..layout.partitions()).map(|n| layout.partition(n).unwrap()).collect();
        let stretches = partitions.iter().flat_map(|p| p.stretches.iter().map(|s| (s.number, s.start))).collect();
        (partitions.into_iter().map(|p| p.folder).collect(), stretches)
    }

    #[test]
    fn hours_and_months_hold_the_same_stretches() {
        let ((hours, by_hour), (months, by_month)) = (all(&layout(Grain::Hour)), all(&layout(Grain::Month)));
        assert_eq!((hours.len(), months.len()), (10_000, 100));
        assert_eq!(by_hour, by_month);
        assert_eq!((hours[0].as_str(), hours[101].as_str()), ("hour=2018-01-01-00", "hour=2018-02-01-01"));
        assert_eq!((months[0].as_str(), months[99].as_str()), ("month=2018-01", "month=2026-04"));
        assert!(by_hour.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn days_follow_one_another() {
        let (folders, stretches) = all(&layout(Grain::Day));
        assert_eq!((folders[0].as_str(), folders[31].as_str()), ("day=2018-01-01", "day=2018-02-01"));
        assert!(stretches.windows(2).all(|pair| pair[1].1 - pair[0].1 == 24 * HOUR));
    }
}
