//! What columns objects have that nobody described, by looking at some of them.
//!
//! | values of a field | column |
//! |---|---|
//! | `true`, `false` | BOOLEAN |
//! | numbers without point | BIGINT; DECIMAL(20, 0) if one is larger |
//! | numbers | DOUBLE |
//! | texts that all are ISO times, date and time | TIMESTAMP, unless times are numbers |
//! | texts that all are ISO dates | DATE |
//! | other texts, and scalars of several kinds | VARCHAR |
//! | lists; objects | ARRAY; STRUCT of their fields |
//! | `null` alone | VARCHAR, which has room for whatever scalar comes |
//!
//! A field that is a list or an object here and something else there is no column, for there is none that reads both.
//!
//! Invariant: [`super::Json`] reads every object that was looked at as a fact of these columns. Columns stand in the order in which
//! fields were first seen, and depend on nothing but the objects and their order.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::text::{is_date, is_time};

/// What Debezium writes where the database sent no value: it says nothing of the column.
const UNSENT: &str = "__debezium_unavailable_value";

/// What was seen of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// `null`, or nothing at all.
    Nothing,
    Boolean,
    Integer,
    /// Beyond BIGINT.
    Large,
    Number,
    Text(Text),
    List(Box<Seen>),
    Object(Vec<(String, Seen)>),
    /// What no column reads.
    Mixed,
}

/// What all texts of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Time,
    Date,
    Any,
}

/// How columns are made of what was seen.
pub(crate) struct Rules {
    /// ISO text is TIMESTAMP and DATE.
    pub(crate) iso: bool,
    /// What whole numbers beyond BIGINT are.
    pub(crate) large: DataType,
    /// A column that is TIMESTAMP if it has numbers.
    pub(crate) time: Option<String>,
}

impl Seen {
    /// What one JSON text has, or why it is none.
    pub(crate) fn of(text: &[u8]) -> Result<Seen, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }

    /// What both have.
    pub(crate) fn and(self, other: Seen) -> Seen {
        use Seen::*;
        match (self, other) {
            (Nothing, seen) | (seen, Nothing) => seen,
            (a, b) if a == b => a,
            (Integer | Large, Integer | Large) => Large,
            (Integer | Large | Number, Integer | Large | Number) => Number,
            (List(a), List(b)) => List(Box::new(a.and(*b))),
            (Object(a), Object(b)) => Object(fields(a, b)),
            (List(_) | Object(_) | Mixed, _) | (_, List(_) | Object(_) | Mixed) => Mixed,
            _ => Text(self::Text::Any),
        }
    }

    /// Its fields, if it is an object.
    pub(crate) fn into_fields(self) -> Option<Vec<(String, Seen)>> {
        match self {
            Seen::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// The type of a column that has such values, or why there is none.
    pub(crate) fn column(&self, rules: &Rules) -> Result<DataType, String> {
        Ok(match self {
            Seen::Nothing => DataType::Utf8,
            Seen::Boolean => DataType::Boolean,
            Seen::Integer => DataType::Int64,
            Seen::Large => rules.large.clone(),
            Seen::Number => DataType::Float64,
            Seen::Text(Text::Time) if rules.iso => timestamp(),
            Seen::Text(Text::Date) if rules.iso => DataType::Date32,
            Seen::Text(_) => DataType::Utf8,
            Seen::List(of) => DataType::List(Arc::new(Field::new("element", of.column(rules)?, true))),
            Seen::Object(fields) => {
                let field = |(name, seen): &(String, Seen)| Some(Field::new(name, seen.column(rules).ok()?, true));
                let fields: Vec<Field> = fields.iter().filter_map(field).collect();
                if fields.is_empty() {
                    return Err("it is an object without a field that could be read".into());
                }
                DataType::Struct(fields.into())
            }
            Seen::Mixed => return Err("it is a list or an object in one message and something else in another".into()),
        })
    }

    /// The same of the column of this name.
    pub(crate) fn column_named(&self, name: &str, rules: &Rules) -> Result<DataType, String> {
        let numbers = matches!(self, Seen::Integer | Seen::Number);
        match numbers && rules.time.as_deref() == Some(name) {
            true => Ok(timestamp()),
            false => self.column(rules),
        }
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// The fields of two objects, those of the first one first.
fn fields(mut all: Vec<(String, Seen)>, more: Vec<(String, Seen)>) -> Vec<(String, Seen)> {
    for (at, (name, seen)) in more.into_iter().enumerate() {
        // Objects of one topic look alike.
        let is_there = all.get(at).is_some_and(|(known, _)| *known == name);
        match if is_there { Some(at) } else { all.iter().position(|(known, _)| *known == name) } {
            Some(at) => {
                let known = std::mem::replace(&mut all[at].1, Seen::Nothing);
                all[at].1 = known.and(seen);
            }
            None => all.push((name, seen)),
        }
    }
    all
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Integer)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Seen, E> {
        Ok(if i64::try_from(number).is_ok() { Seen::Integer } else { Seen::Large })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Seen, E> {
        Ok(match text {
            UNSENT => Seen::Nothing,
            text if is_time(text) => Seen::Text(Text::Time),
            text if is_date(text) => Seen::Text(Text::Date),
            _ => Seen::Text(Text::Any),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Seen, A::Error> {
        let mut of = Seen::Nothing;
        while let Some(item) = items.next_element::<Seen>()? {
            of = of.and(item);
        }
        Ok(Seen::List(Box::new(of)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Seen, A::Error> {
        let mut all: Vec<(String, Seen)> = vec![];
        while let Some((name, seen)) = members.next_entry::<String, Seen>()? {
            // Of two of one name the last counts.
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = seen,
                None => all.push((name, seen)),
            }
        }
        Ok(Seen::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], expected: &str) {
        let rules = Rules { iso: true, large: DataType::Decimal128(20, 0), time: None };
        let seen = texts.iter().map(|text| Seen::of(text.as_bytes()).unwrap()).fold(Seen::Nothing, Seen::and);
        let found = seen.column(&rules).map_or_else(|why| why, |found| found.to_string());
        assert_eq!(found, expected, "{texts:?}");
    }

    #[test]
    fn scalars() {
        check(&["null"], "Utf8");
        check(&["true", "null", "false"], "Boolean");
        check(&["1", "-9223372036854775808"], "Int64");
        check(&["1", "18446744073709551615"], "Decimal128(20, 0)");
        check(&["1", "1.5"], "Float64");
        check(&["1", "18446744073709551616"], "Float64");
        check(&["1", "\"1\""], "Utf8");
        check(&["true", "1"], "Utf8");
        for time in ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+01:00", "2026-01-31 12:00:00"] {
            check(&[&format!("\"{time}\""), "null"], "Timestamp(µs)");
        }
        check(&["\"2026-01-31T12:00:00Z\"", "\"2026-01-31T12:00:00\"", "\"soon\""], "Utf8");
        check(&["\"2026-01-31\"", "\"2026-02-28\""], "Date32");
        check(&["\"2026-01-31\"", "\"2026-02-30\""], "Utf8");
        check(&["\"2026-01-31\"", "\"2026-01-31T12:00:00Z\""], "Utf8");
        check(&["\"20260131\"", "\"2026-01\""], "Utf8");
        check(&["\"__debezium_unavailable_value\"", "7"], "Int64");
    }

    #[test]
    fn lists_and_objects() {
        check(&["[]", "[1, null]", "[2.5]"], "List(Float64, field: 'element')");
        check(&["[]"], "List(Utf8, field: 'element')");
        check(
            &["{\"b\": 1, \"a\": null}", "{\"a\": [true], \"c\": \"x\"}"],
            "Struct(\"b\": Int64, \"a\": List(Boolean, field: 'element'), \"c\": Utf8)",
        );
        check(&["{\"a\": 1, \"a\": \"x\"}"], "Struct(\"a\": Utf8)");
        check(&["{\"a\": 1, \"b\": {}}", "{\"a\": {}}", "{\"d\": 1}"], "Struct(\"d\": Int64)");
        check(&["{}", "null"], "it is an object without a field that could be read");
        check(&["{\"a\": 1}", "[1]"], "it is a list or an object in one message and something else in another");
        check(&["[[1], 2]"], "it is a list or an object in one message and something else in another");
    }

    #[test]
    fn times_that_are_numbers() {
        let rules = Rules { iso: false, large: DataType::Utf8, time: Some("at".into()) };
        let seen = |text: &str| Seen::of(text.as_bytes()).unwrap();
        assert_eq!(seen("1").column_named("at", &rules), Ok(timestamp()));
        assert_eq!(seen("1").column_named("n", &rules), Ok(DataType::Int64));
        assert_eq!(seen("\"2026-01-31T12:00:00Z\"").column_named("at", &rules), Ok(DataType::Utf8));
        assert_eq!(seen("18446744073709551615").column_named("n", &rules), Ok(DataType::Utf8));
    }

    #[test]
    fn what_is_no_json() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in ["", "{", "{\"a\":}", "1 2", "\u{feff}{}", "1e999", &deep] {
            assert!(Seen::of(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Seen::of(b"\"\xff\"").is_err());
    }
}
