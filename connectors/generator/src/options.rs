//! What a generated log is to be like, as a user says it.
//!
//! Invariant: an option that would have no effect is an error, and so is a value out of its range.

use std::collections::BTreeMap;

use watershed_core::clock::mix;
use watershed_core::settings::{parse_span, parse_time};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use crate::draw::salt;

const ROWS_PER_SECOND: &str = "rows_per_second";
const ROWS: &str = "rows";
const PARTS: &str = "parts";
const KEYS: &str = "keys";
const SKEW: &str = "skew";
const SEQUENCE: &str = "sequence";
const DISORDER: &str = "disorder";
const LATE: &str = "late";
const START: &str = "start";
const SEED: &str = "seed";

const NAMES: [&str; 10] = [ROWS_PER_SECOND, ROWS, PARTS, KEYS, SKEW, SEQUENCE, DISORDER, LATE, START, SEED];

/// Years before this one have no four digits.
const EARLIEST: EventTime = EventTime(-62_135_596_800_000_000);

/// By how much late rows are earlier at most, beyond the disorder.
pub(crate) const LATE_BY: Span = Span::HOUR;

/// Above the ranges: what they are multiplied by stays within 64 bits.
const MOST_ROWS: u64 = 1 << 60;
const MOST_KEYS: u64 = 1 << 31;
const MOST_PARTS: u64 = 1000;
const MOST_PER_SECOND: u64 = 10_000_000;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Of all parts together.
    pub(crate) rows_per_second: u64,
    /// After so many the log is at its end for good.
    pub(crate) rows: Option<u64>,
    pub(crate) parts: u64,
    /// How many values columns of text and integers have.
    pub(crate) keys: u64,
    /// The share of rows that the first `1 - skew` of the keys have, and so again among these; 0.5 is even.
    pub(crate) skew: f64,
    /// Columns that number the rows.
    pub(crate) sequence: Vec<String>,
    /// By how much a row may be earlier than the time at which it is written.
    pub(crate) disorder: Span,
    /// The share of rows that may be earlier by more than that, by up to [`LATE_BY`].
    pub(crate) late: f64,
    /// When row 0 is written.
    pub(crate) start: EventTime,
    pub(crate) seed: u64,
}

impl Options {
    /// Names are without `generate.`; `made` is when the log begins if nothing else is said.
    pub(crate) fn new(given: &BTreeMap<String, String>, made: Option<EventTime>) -> Result<Options> {
        if let Some(name) = given.keys().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(Error::input(format!("unknown option generate.{name}; {}", nearest(name))));
        }
        let get = |name: &str| given.get(name).map(|text| text.trim());
        let number = |name: &str, or: u64, least: u64, most: u64| match get(name) {
            None => Ok(or),
            Some(text) => text.replace('_', "").parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
                Error::input(format!("generate.{name} = '{text}': give a whole number from {least} to {most}"))
            }),
        };
        let share = |name: &str, or: f64, least: f64, most: f64| match get(name) {
            None => Ok(or),
            Some(text) => text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(|| {
                Error::input(format!("generate.{name} = '{text}': give a share, a number from {least} to {most}"))
            }),
        };
        let rows = match get(ROWS) {
            None => None,
            Some(_) => Some(number(ROWS, 0, 0, MOST_ROWS)?),
        };
        let disorder = match get(DISORDER) {
            None => Span(0),
            Some(text) => parse_span(text).ok_or_else(|| {
                Error::input(format!("generate.{DISORDER} = '{text}': give a span, such as '5 seconds'"))
            })?,
        };
        let start = match (get(START), made) {
            (Some(text), _) => parse_time(text).ok_or_else(|| {
                Error::input(format!("generate.{START} = '{text}': give a time, such as '2026-01-31T12:00:00Z'"))
            })?,
            (None, Some(made)) => made,
            (None, None) => {
                return Err(Error::input(format!(
                    "generate.{START}: say when the log began, and the same as for the source that was archived: the table is \
                     gone on with where that archive ended"
                )));
            }
        };
        if start.minus(disorder).minus(LATE_BY) < EARLIEST {
            return Err(Error::input(format!("generate.{START}: rows would be earlier than the year 1")));
        }
        let sequence = get(SEQUENCE).into_iter().flat_map(|text| text.split(',')).map(|name| name.trim().to_string());
        Ok(Options {
            rows_per_second: number(ROWS_PER_SECOND, 10, 1, MOST_PER_SECOND)?,
            rows,
            parts: number(PARTS, 1, 1, MOST_PARTS)?,
            keys: number(KEYS, 100, 1, MOST_KEYS)?,
            skew: share(SKEW, 0.5, 0.5, 0.99)?,
            sequence: sequence.collect(),
            disorder,
            late: share(LATE, 0.0, 0.0, 1.0)?,
            start,
            seed: number(SEED, 0, 0, u64::MAX)?,
        })
    }

    /// What another log would have another of. A log that only ends elsewhere is the same one.
    pub(crate) fn id(&self) -> String {
        let numbers = [
            self.rows_per_second,
            self.parts,
            self.keys,
            self.skew.to_bits(),
            self.disorder.0.cast_unsigned(),
            self.late.to_bits(),
            self.start.0.cast_unsigned(),
            self.seed,
        ];
        let names = self.sequence.iter().map(|name| salt(name));
        format!("{:016x}", numbers.into_iter().chain(names).fold(0, |id, n| mix(id ^ n)))
    }
}

/// What to say of a name that is none: the one that was probably meant, or all.
fn nearest(name: &str) -> String {
    let scored = NAMES.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8) {
        Some((_, known)) => format!("did you mean generate.{known}?"),
        None => format!("there are {}", NAMES.map(|name| format!("generate.{name}")).join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> Result<Options> {
        let given = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Options::new(&given, Some(EventTime(7)))
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let none = options(&[]).unwrap();
        assert_eq!((none.rows_per_second, none.rows, none.parts, none.start), (10, None, 1, EventTime(7)));
        let some = options(&[("rows", "0"), ("start", "1970-01-01"), ("sequence", "id, n"), ("disorder", "1 min")]);
        let some = some.unwrap();
        assert_eq!((some.rows, some.start, some.disorder), (Some(0), EventTime(0), Span::MINUTE));
        assert_eq!(some.sequence, ["id", "n"]);
        assert!(Options::new(&BTreeMap::new(), None).unwrap_err().to_string().contains("say when the log began"));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_its_name() {
        for (name, value, expected) in [
            ("rows_per_secnd", "5", "did you mean generate.rows_per_second?"),
            ("x", "5", "there are generate.rows_per_second, generate.rows,"),
            ("rows_per_second", "0", "from 1 to 10000000"),
            ("parts", "1001", "from 1 to 1000"),
            ("rows", "-1", "whole number"),
            ("skew", "0.2", "from 0.5 to 0.99"),
            ("late", "NaN", "a share"),
            ("disorder", "soon", "a span"),
            ("disorder", "1000000 days", "the year 1"),
            ("start", "soon", "a time"),
            ("start", "0000-01-01", "the year 1"),
        ] {
            let said = options(&[(name, value)]).unwrap_err().to_string();
            assert!(said.contains(expected) && said.contains("generate."), "{name}: {said}");
        }
    }

    #[test]
    fn a_log_of_other_options_has_another_id_and_one_that_ends_elsewhere_does_not() {
        let id = |given: &[(&str, &str)]| options(given).unwrap().id();
        let ids = [
            id(&[]),
            id(&[("rows_per_second", "11")]),
            id(&[("parts", "2")]),
            id(&[("keys", "2")]),
            id(&[("skew", "0.8")]),
            id(&[("sequence", "a")]),
            id(&[("sequence", "b")]),
            id(&[("disorder", "1 s")]),
            id(&[("late", "0.1")]),
            id(&[("start", "2026-01-01")]),
            id(&[("seed", "1")]),
        ];
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert_eq!(id(&[("rows", "5")]), ids[0]);
    }
}
