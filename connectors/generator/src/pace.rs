//! Rows, parts, offsets and times: row `n` of the log is written at `start + n / rate`, and is offset `n / parts` of part
//! `n % parts`.
//!
//! Invariant: what was written stays: the later the time, the more rows, and a row's place never changes.

use std::collections::BTreeMap;

use watershed_core::EventTime;
use watershed_core::tail::Part;

use crate::options::Options;

const MICROS: i128 = 1_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Pace {
    start: EventTime,
    rate: i128,
    parts: i64,
    rows: i64,
}

impl Pace {
    pub(crate) fn new(options: &Options) -> Pace {
        Pace {
            start: options.start,
            rate: options.rows_per_second.into(),
            parts: options.parts.cast_signed(),
            rows: options.rows.map_or(i64::MAX, u64::cast_signed),
        }
    }

    /// When a row is written.
    pub(crate) fn written(&self, row: i64) -> EventTime {
        EventTime(clamped(i128::from(self.start.0) + i128::from(row) * MICROS / self.rate))
    }

    /// How many rows are written before a time.
    pub(crate) fn rows_before(&self, time: EventTime) -> i64 {
        let since = (i128::from(time.0) - i128::from(self.start.0)).max(0);
        // The first row that is not before it is the first whose number over the rate is not below.
        clamped((since * self.rate + MICROS - 1) / MICROS).min(self.rows)
    }

    /// How many rows are written at a time.
    pub(crate) fn rows_at(&self, now: EventTime) -> i64 {
        self.rows_before(EventTime(now.0.saturating_add(1)))
    }

    /// Whether so many rows are all there will ever be.
    pub(crate) fn is_over(&self, rows: i64) -> bool {
        rows >= self.rows
    }

    /// For each part the offset of the next message, when the log has so many rows.
    pub(crate) fn ends(&self, rows: i64) -> BTreeMap<Part, i64> {
        // There are at most a thousand parts.
        (0..self.parts).filter_map(|part| Some((Part::try_from(part).ok()?, self.end(part, rows)))).collect()
    }

    fn end(&self, part: i64, rows: i64) -> i64 {
        let (whole, rest) = (rows / self.parts, rows % self.parts);
        whole + i64::from(part < rest)
    }

    /// The row that a message is.
    pub(crate) fn row(&self, part: Part, offset: i64) -> i64 {
        offset.saturating_mul(self.parts).saturating_add(part.into())
    }
}

fn clamped(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: &str, parts: &str, rows: &str) -> Pace {
        let given = [("rows_per_second", rate), ("parts", parts), ("rows", rows)];
        let given = given.map(|(name, value)| (name.to_string(), value.to_string()));
        Pace::new(&Options::new(&given.into(), Some(EventTime(1_000))).unwrap())
    }

    #[test]
    fn a_row_is_there_from_the_moment_on_in_which_it_is_written() {
        for rate in [1, 3, 7, 1_000, 999_999, 1_000_000, 9_999_991] {
            let pace = pace(&rate.to_string(), "1", "1_000_000_000");
            assert_eq!((pace.rows_at(EventTime(999)), pace.rows_at(EventTime(1_000)) >= 1), (0, true));
            for row in [0, 1, 2, 3, 10, 1_000_003, 77_777_777] {
                let at = pace.written(row);
                assert!(pace.rows_at(at) > row, "{rate}: row {row} is written at {at}");
                assert!(pace.rows_before(at) <= row, "{rate}: row {row} is not written before {at}");
            }
        }
        // A second later there are as many rows more as were asked for.
        let pace = pace("250", "1", "100000");
        assert_eq!(pace.rows_before(EventTime(2_001_000)), 500);
    }

    #[test]
    fn every_row_has_one_place() {
        let pace = pace("10", "3", "1000");
        for rows in [0, 1, 2, 3, 4, 10, 999] {
            let ends = pace.ends(rows);
            let mut found: Vec<i64> =
                ends.iter().flat_map(|(part, end)| (0..*end).map(|offset| pace.row(*part, offset))).collect();
            found.sort_unstable();
            assert_eq!(found, (0..rows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_log_that_ends_stays_at_its_end() {
        let pace = pace("10", "3", "25");
        assert_eq!((pace.rows_at(EventTime::MAX), pace.is_over(25), pace.is_over(24)), (25, true, false));
        assert_eq!(pace.rows_at(EventTime::MIN), 0);
    }
}
