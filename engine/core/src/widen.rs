//! Which type holds the values of another: the rules by which columns of differing files become one. Pure.
//!
//! Types widen where every value keeps its meaning: integers, floats, decimals, dates to timestamps, finer and zoned
//! timestamps, structs field by field. There is no parsing, no rounding and no overflow.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

/// The narrowest type that holds the values of both.
pub fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    if let Some(wide) = integers(a, b) {
        return Some(wide);
    }
    match (a, b) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Dictionary(_, a), b) | (b, Dictionary(_, a)) => widen(a, b),
        (Float16, Float32) | (Float32, Float16) => Some(Float32),
        (Float16 | Float32, Float64) | (Float64, Float16 | Float32) => Some(Float64),
        // A float of 64 bits holds integers of 32.
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Float64)
        | (Float64, Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32) => Some(Float64),
        (Decimal128(..), Decimal128(..)) => decimal(a, b),
        (Decimal128(..), other) | (other, Decimal128(..)) => {
            decimal(&Decimal128(digits(other)?, 0), &if_decimal(a, b)?)
        }
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => Some(LargeUtf8),
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => Some(LargeBinary),
        (Date32, Date64) | (Date64, Date32) => Some(Date64),
        (Date32 | Date64, Timestamp(..)) => Some(b.clone()),
        (Timestamp(..), Date32 | Date64) => Some(a.clone()),
        // Zone-less times are taken as UTC; two zones are two ways to show the same instants.
        (Timestamp(unit, zone), Timestamp(other, with)) => {
            Some(Timestamp(finer(*unit, *other), zone.clone().or_else(|| with.clone())))
        }
        (Struct(a), Struct(b)) => fields(a, b).map(Struct),
        (List(a), List(b)) => element(a, b).map(List),
        (LargeList(a), LargeList(b)) => element(a, b).map(LargeList),
        _ => None,
    }
}

/// Whether a column of type `table` may be read from a file in which it is of type `file`.
pub fn holds(table: &DataType, file: &DataType) -> bool {
    match (table, file) {
        (DataType::Dictionary(_, table), file) => holds(table, file),
        (table, DataType::Dictionary(_, file)) => holds(table, file),
        // Fields that either side lacks are NULL, or not read.
        (DataType::Struct(table), DataType::Struct(file)) => table.iter().all(|field| {
            let stored = file.iter().find(|f| f.name() == field.name());
            stored.is_none_or(|f| holds(field.data_type(), f.data_type()))
        }),
        (DataType::List(table), DataType::List(file)) | (DataType::LargeList(table), DataType::LargeList(file)) => {
            holds(table.data_type(), file.data_type())
        }
        (DataType::Map(table, _), DataType::Map(file, _)) => holds_entries(table, file),
        _ => widen(table, file).is_some_and(|wide| wide == *table) || strings(table, file),
    }
}

/// The entries of maps, whose two fields are called otherwise by every writer.
fn holds_entries(table: &Field, file: &Field) -> bool {
    let (DataType::Struct(table), DataType::Struct(file)) = (table.data_type(), file.data_type()) else { return false };
    table.len() == file.len() && table.iter().zip(file).all(|(t, f)| holds(t.data_type(), f.data_type()))
}

/// Types of the same values that differ in their layout.
fn strings(a: &DataType, b: &DataType) -> bool {
    use DataType::*;
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |t: &DataType| matches!(t, Binary | LargeBinary | BinaryView);
    text(a) && text(b) || bytes(a) && bytes(b)
}

fn integers(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    let bits = |t: &DataType| match t {
        Int8 => Some((true, 8)),
        Int16 => Some((true, 16)),
        Int32 => Some((true, 32)),
        Int64 => Some((true, 64)),
        UInt8 => Some((false, 8)),
        UInt16 => Some((false, 16)),
        UInt32 => Some((false, 32)),
        UInt64 => Some((false, 64)),
        _ => None,
    };
    let ((a_signed, a_bits), (b_signed, b_bits)) = (bits(a)?, bits(b)?);
    if a_signed == b_signed {
        return Some(if a_bits >= b_bits { a.clone() } else { b.clone() });
    }
    let unsigned = if a_signed { b_bits } else { a_bits };
    let signed = if a_signed { a_bits } else { b_bits };
    match signed.max(2 * unsigned) {
        16 => Some(Int16),
        32 => Some(Int32),
        64 => Some(Int64),
        _ => None,
    }
}

/// Decimal digits that an integer type may need.
fn digits(integer: &DataType) -> Option<u8> {
    Some(match integer {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        DataType::UInt64 => 20,
        _ => return None,
    })
}

fn if_decimal(a: &DataType, b: &DataType) -> Option<DataType> {
    [a, b].into_iter().find(|t| matches!(t, DataType::Decimal128(..))).cloned()
}

fn decimal(a: &DataType, b: &DataType) -> Option<DataType> {
    let (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) = (a, b) else { return None };
    let scale = (*s).max(*t);
    let whole = (i16::from(*p) - i16::from(*s)).max(i16::from(*q) - i16::from(*t));
    let precision = u8::try_from(whole + i16::from(scale)).ok().filter(|p| *p <= 38)?;
    Some(DataType::Decimal128(precision, scale))
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let order = [TimeUnit::Nanosecond, TimeUnit::Microsecond, TimeUnit::Millisecond];
    order.into_iter().find(|unit| *unit == a || *unit == b).unwrap_or(TimeUnit::Second)
}

fn fields(a: &Fields, b: &Fields) -> Option<Fields> {
    let mut all: Vec<FieldRef> = vec![];
    for field in a {
        let other = b.iter().find(|f| f.name() == field.name());
        let wide =
            other.map_or_else(|| Some(field.data_type().clone()), |f| widen(field.data_type(), f.data_type()))?;
        all.push(Field::new(field.name(), wide, true).into());
    }
    let more = b.iter().filter(|f| a.iter().all(|known| known.name() != f.name()));
    all.extend(more.map(|f| Field::new(f.name(), f.data_type().clone(), true).into()));
    Some(all.into())
}

fn element(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    Some(Field::new(a.name(), widen(a.data_type(), b.data_type())?, true).into())
}

#[cfg(test)]
#[path = "widen_tests.rs"]
mod tests;
