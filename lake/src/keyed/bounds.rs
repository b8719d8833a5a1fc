//! Whether a file may hold any of some keys, by the least and greatest values that its log entry tells. Pure.
//!
//! Only bounds that every engine writes exactly are trusted: of whole numbers, dates, and texts, whose bounds may be cut but
//! stay bounds. Timestamps may have been cut to milliseconds, floats know NaN; they rule nothing out.

use std::cmp::Ordering;

use arrow::datatypes::{DataType, FieldRef};
use serde_json::Value;

/// Least and greatest value of each key column; `None` where nothing is known.
pub(crate) type Bounds = Vec<Option<(Value, Value)>>;

/// The bounds that a file's statistics give for columns.
pub(crate) fn bounds<'a>(statistics: Option<&str>, columns: impl Iterator<Item = &'a FieldRef>) -> Bounds {
    let parsed: Option<Value> = statistics.and_then(|text| serde_json::from_str(text).ok());
    let of = |field: &FieldRef| {
        let (name, data_type) = (field.name(), field.data_type());
        let exact = data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Date32);
        let parsed = parsed.as_ref().filter(|_| exact)?;
        // A NULL in the key lies outside of all bounds.
        if parsed["nullCount"][name.as_str()].as_u64() != Some(0) {
            return None;
        }
        let found = |which: &str| {
            parsed[which].get(name.as_str()).filter(|v| v.is_i64() || v.is_u64() || v.is_string()).cloned()
        };
        found("minValues").zip(found("maxValues"))
    };
    columns.map(of).collect()
}

/// The bounds of two sets of keys together.
pub(crate) fn union(a: Bounds, b: Bounds) -> Bounds {
    let of = |pair| match pair {
        (Some((low, high)), Some((least, most))) => {
            let low = if order(&least, &low)? == Ordering::Less { least } else { low };
            let high = if order(&most, &high)? == Ordering::Greater { most } else { high };
            Some((low, high))
        }
        _ => None,
    };
    a.into_iter().zip(b).map(of).collect()
}

/// Whether keys within `a` and keys within `b` may be the same.
pub(crate) fn meet(a: &Bounds, b: &Bounds) -> bool {
    a.iter().zip(b).all(|pair| match pair {
        (Some((low, high)), Some((least, most))) => {
            order(low, most) != Some(Ordering::Greater) && order(least, high) != Some(Ordering::Greater)
        }
        _ => true,
    })
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Number(a), Value::Number(b)) => {
            let whole = |n: &serde_json::Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
            Some(whole(a)?.cmp(&whole(b)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn of(low: Value, high: Value) -> Bounds {
        vec![Some((low, high))]
    }

    #[test]
    fn bounds_rule_out_what_cannot_be() {
        assert!(!meet(&of(1.into(), 5.into()), &of(6.into(), 9.into())));
        assert!(meet(&of(1.into(), 6.into()), &of(6.into(), 9.into())));
        assert!(!meet(&of("b".into(), "c".into()), &of("ca".into(), "d".into())));
        assert!(meet(&of(1.into(), 5.into()), &vec![None]));
        assert!(meet(&of(1.into(), 5.into()), &of("6".into(), "9".into())));
        assert_eq!(union(of(3.into(), 5.into()), of(1.into(), 4.into())), of(1.into(), 5.into()));
        assert_eq!(union(of(3.into(), 5.into()), vec![None]), vec![None]);
    }

    #[test]
    fn only_exact_statistics_count() {
        let statistics = r#"{"numRecords":3,"minValues":{"a":1,"t":"2024-01-01T00:00:00.000Z","n":1},
            "maxValues":{"a":7,"t":"2024-01-02T00:00:00.000Z","n":3},"nullCount":{"a":0,"t":0,"n":1}}"#;
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let columns = [("a", DataType::Int64), ("t", time), ("n", DataType::Int64), ("x", DataType::Utf8)];
        let columns = columns.map(|(name, data_type)| FieldRef::new(Field::new(name, data_type, true)));
        assert_eq!(bounds(Some(statistics), columns.iter()), [Some((1.into(), 7.into())), None, None, None]);
        assert_eq!(bounds(None, columns.iter()), [None, None, None, None]);
    }
}
