//! Which types hold which.

use super::*;

#[test]
fn types_widen_both_ways_or_not_at_all() {
    use DataType::*;
    let time = |unit, zone: Option<&str>| Timestamp(unit, zone.map(Into::into));
    let of = |fields: Vec<Field>| Struct(fields.into());
    let list = |t: DataType| List(Field::new("item", t, true).into());
    let cases = [
        (Int32, Int64, Some(Int64)),
        (Int8, UInt8, Some(Int16)),
        (UInt32, Int32, Some(Int64)),
        (UInt64, Int64, None),
        (Float32, Float64, Some(Float64)),
        (Int32, Float64, Some(Float64)),
        (Int64, Float64, None),
        (Int32, Float32, None),
        (Decimal128(6, 2), Decimal128(12, 4), Some(Decimal128(12, 4))),
        (Decimal128(10, 0), Decimal128(10, 8), Some(Decimal128(18, 8))),
        (Decimal128(38, 0), Decimal128(38, 8), None),
        (Int32, Decimal128(6, 2), Some(Decimal128(12, 2))),
        (Utf8, LargeUtf8, Some(LargeUtf8)),
        (Utf8, Int64, None),
        (Boolean, Int8, None),
        (Null, Int8, Some(Int8)),
        (Date32, time(TimeUnit::Microsecond, None), Some(time(TimeUnit::Microsecond, None))),
        (
            time(TimeUnit::Millisecond, None),
            time(TimeUnit::Microsecond, Some("UTC")),
            Some(time(TimeUnit::Microsecond, Some("UTC"))),
        ),
        (time(TimeUnit::Second, None), time(TimeUnit::Nanosecond, None), Some(time(TimeUnit::Nanosecond, None))),
        (Dictionary(Box::new(Int8), Box::new(Utf8)), Utf8, Some(Utf8)),
        (list(Int32), list(Int64), Some(list(Int64))),
        (list(Int32), Int32, None),
        (
            of(vec![Field::new("x", Int32, true)]),
            of(vec![Field::new("x", Int64, false)]),
            Some(of(vec![Field::new("x", Int64, true)])),
        ),
        (of(vec![Field::new("x", Int32, true)]), of(vec![Field::new("x", Utf8, true)]), None),
    ];
    for (a, b, expected) in cases {
        assert_eq!(widen(&a, &b), expected, "{a} and {b}");
        assert_eq!(widen(&b, &a), expected, "{b} and {a}");
        // What comes of both holds both, and neither holds what it does not widen to.
        for (one, other) in [(&a, &b), (&b, &a)] {
            assert_eq!(holds(one, other), expected.as_ref().is_some_and(|wide| holds(one, wide)), "{one} from {other}");
            assert!(expected.as_ref().is_none_or(|wide| holds(wide, one)), "{one}");
        }
    }
}
