//! Text as the types of columns.
//!
//! What a payload has as a number or as text is read as text first ([`read_as`]) where arrow's reader would lose something
//! in silence: the fraction of a number in an integer column, digits of large numbers, the unit of a time. It then becomes
//! what the column is ([`typed`]), the same way for all formats of text:
//!
//! | column | text |
//! |---|---|
//! | integers | a number without fraction: `2`, `2.0`, `2e3`; beyond the type's range is refused |
//! | DECIMAL | a number; digits beyond the scale are rounded, halves away from zero, as SQL casts |
//! | TIMESTAMP | [`Times`]: ISO text by default, in UTC or the column's zone where it names none |
//! | DATE | ISO text `2026-01-31`, or the date of a time |
//! | REAL, DOUBLE | a number, `NaN`, `Infinity`; beyond the range is infinite |
//! | BOOLEAN | `true` or `false` |
//! | text, BYTEA | itself |
//!
//! Invariant: a value is held exactly, rounded as the table says, or refused by name.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, BooleanArray, MapArray, PrimitiveArray, StringArray, StructArray};
use arrow::array::{AsArray, GenericListArray, OffsetSizeTrait, PrimitiveBuilder};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;

use crate::number::Number;

/// How times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// `2026-01-31T12:00:00.5+01:00`, or as much of it as a date.
    Iso {
        /// The option by which it would be otherwise.
        option: &'static str,
    },
    /// A number of units since 1970-01-01 in UTC, perhaps with a fraction.
    Epoch(TimeUnit),
}

impl Times {
    /// By the value of an option.
    pub(crate) fn of(option: &'static str, value: Option<&str>) -> Result<Self, String> {
        Ok(match value {
            None | Some("iso") => Times::Iso { option },
            Some("s") => Times::Epoch(TimeUnit::Second),
            Some("ms") => Times::Epoch(TimeUnit::Millisecond),
            Some("us") => Times::Epoch(TimeUnit::Microsecond),
            Some("ns") => Times::Epoch(TimeUnit::Nanosecond),
            Some(other) => {
                return Err(format!(
                    "option {option} = '{other}': give 'iso', or for numbers since 1970 's', 'ms', 'us' or 'ns'"
                ));
            }
        })
    }
}

/// As what a column is read; `None` for types that messages cannot have.
pub(crate) fn read_as(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match data_type {
        Boolean | Float32 | Float64 | Time32(_) | Time64(_) => data_type.clone(),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => data_type.clone(),
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Utf8,
        Decimal128(..) | Date32 | Date64 | Timestamp(..) => Utf8,
        List(item) => List(field(item)?),
        LargeList(item) => LargeList(field(item)?),
        Struct(fields) => Struct(fields.iter().map(field).collect::<Option<_>>()?),
        Map(entries, sorted) => Map(field(entries)?, *sorted),
        _ => return None,
    })
}

fn field(field: &FieldRef) -> Option<FieldRef> {
    Some(Arc::new(field.as_ref().clone().with_data_type(read_as(field.data_type())?)))
}

/// What was read, as the column's type.
pub(crate) fn typed(array: &ArrayRef, to: &DataType, times: Times) -> Result<ArrayRef, String> {
    use DataType::*;
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), to) {
        (Utf8, _) => from_text(array.as_string(), to, times),
        (List(_), List(item)) => list(array.as_list::<i32>(), item, times),
        (LargeList(_), LargeList(item)) => list(array.as_list::<i64>(), item, times),
        (Struct(_), Struct(fields)) => structs(array.as_struct(), fields, times).map(|s| Arc::new(s) as ArrayRef),
        (Map(..), Map(entries, sorted)) => {
            let Struct(fields) = entries.data_type() else { return Err(format!("{to} has no entries")) };
            let map = array.as_map();
            let typed = structs(map.entries(), fields, times)?;
            let nulls = map.nulls().cloned();
            let map = MapArray::try_new(Arc::clone(entries), map.offsets().clone(), typed, nulls, *sorted);
            Ok(Arc::new(map.map_err(plain)?))
        }
        (from, _) => Err(format!("{from} is not read as {to}")),
    }
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>, item: &FieldRef, times: Times) -> Result<ArrayRef, String> {
    let values = typed(list.values(), item.data_type(), times)?;
    let typed = GenericListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned());
    Ok(Arc::new(typed.map_err(plain)?))
}

fn structs(array: &StructArray, fields: &Fields, times: Times) -> Result<StructArray, String> {
    let columns = array.columns().iter().zip(fields);
    let columns = columns.map(|(column, field)| {
        typed(column, field.data_type(), times).map_err(|reason| format!("field '{}': {reason}", field.name()))
    });
    let columns = columns.collect::<Result<_, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len()).map_err(plain)
}

fn from_text(texts: &StringArray, to: &DataType, times: Times) -> Result<ArrayRef, String> {
    use DataType::*;
    match to {
        Int8 => integers::<Int8Type>(texts, to),
        Int16 => integers::<Int16Type>(texts, to),
        Int32 => integers::<Int32Type>(texts, to),
        Int64 => integers::<Int64Type>(texts, to),
        UInt8 => integers::<UInt8Type>(texts, to),
        UInt16 => integers::<UInt16Type>(texts, to),
        UInt32 => integers::<UInt32Type>(texts, to),
        UInt64 => integers::<UInt64Type>(texts, to),
        Float32 => primitives::<Float32Type>(texts, to, "", Float32Type::parse),
        Float64 => primitives::<Float64Type>(texts, to, "", Float64Type::parse),
        Decimal128(precision, scale) => {
            let most = 10i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
            primitives::<Decimal128Type>(texts, to, "", |text| {
                let number = Number::parse(text)?.scaled(i32::from(*scale))?.rounded();
                (-most < number && number < most).then_some(number)
            })
        }
        Date32 => primitives::<Date32Type>(texts, to, "", Date32Type::parse),
        Date64 => primitives::<Date64Type>(texts, to, "", Date64Type::parse),
        Time32(TimeUnit::Second) => primitives::<Time32SecondType>(texts, to, "", Time32SecondType::parse),
        Time32(_) => primitives::<Time32MillisecondType>(texts, to, "", Time32MillisecondType::parse),
        Time64(TimeUnit::Microsecond) => {
            primitives::<Time64MicrosecondType>(texts, to, "", Time64MicrosecondType::parse)
        }
        Time64(_) => primitives::<Time64NanosecondType>(texts, to, "", Time64NanosecondType::parse),
        Timestamp(TimeUnit::Second, zone) => timestamps::<TimestampSecondType>(texts, to, zone.as_deref(), times),
        Timestamp(TimeUnit::Millisecond, zone) => {
            timestamps::<TimestampMillisecondType>(texts, to, zone.as_deref(), times)
        }
        Timestamp(TimeUnit::Microsecond, zone) => {
            timestamps::<TimestampMicrosecondType>(texts, to, zone.as_deref(), times)
        }
        Timestamp(TimeUnit::Nanosecond, zone) => {
            timestamps::<TimestampNanosecondType>(texts, to, zone.as_deref(), times)
        }
        Boolean => {
            let read = |text: &str| match text {
                _ if text.eq_ignore_ascii_case("true") => Ok(true),
                _ if text.eq_ignore_ascii_case("false") => Ok(false),
                _ => Err(refused(text, to, "")),
            };
            let all: BooleanArray = texts.iter().map(|text| text.map(read).transpose()).collect::<Result<_, _>>()?;
            Ok(Arc::new(all))
        }
        _ => {
            let strict = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(texts, to, &strict).map_err(plain)
        }
    }
}

fn integers<T: Parser>(texts: &StringArray, to: &DataType) -> Result<ArrayRef, String>
where
    T::Native: TryFrom<i128>,
{
    primitives::<T>(texts, to, "", |text| {
        let written_otherwise = || T::Native::try_from(Number::parse(text)?.scaled(0)?.exact()?).ok();
        T::parse(text).or_else(written_otherwise)
    })
}

fn timestamps<T: ArrowTimestampType>(
    texts: &StringArray,
    to: &DataType,
    zone: Option<&str>,
    times: Times,
) -> Result<ArrayRef, String> {
    match (times, zone) {
        (Times::Epoch(unit), _) => {
            primitives::<T>(texts, to, "; it should be a number since 1970", |text| since_epoch(text, unit, T::UNIT))
        }
        // The zones of most columns, without a look-up for every value.
        (Times::Iso { option }, None | Some("UTC" | "+00:00" | "Z")) => {
            primitives::<T>(texts, to, &hint(option), |text| instant(&chrono::Utc, text, T::UNIT))
        }
        (Times::Iso { option }, Some(zone)) => {
            let zone: Tz = zone.parse().map_err(plain)?;
            primitives::<T>(texts, to, &hint(option), |text| instant(&zone, text, T::UNIT))
        }
    }
}

fn hint(option: &str) -> String {
    format!("; numbers are times with {option} = 's', 'ms', 'us' or 'ns'")
}

fn instant<Z: chrono::TimeZone>(zone: &Z, text: &str, unit: TimeUnit) -> Option<i64> {
    let instant = string_to_datetime(zone, text).ok()?;
    match unit {
        TimeUnit::Second => Some(instant.timestamp()),
        TimeUnit::Millisecond => Some(instant.timestamp_millis()),
        TimeUnit::Microsecond => Some(instant.timestamp_micros()),
        TimeUnit::Nanosecond => instant.timestamp_nanos_opt(),
    }
}

/// Decimal digits of a second's fraction.
fn digits(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn since_epoch(text: &str, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let number = Number::parse(text)?.scaled(digits(to) - digits(from))?;
    i64::try_from(number.floor()).ok()
}

fn primitives<T: ArrowPrimitiveType>(
    texts: &StringArray,
    to: &DataType,
    hint: &str,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<ArrayRef, String> {
    let mut builder = PrimitiveBuilder::<T>::with_capacity(texts.len()).with_data_type(to.clone());
    for text in texts {
        match text {
            None => builder.append_null(),
            Some(text) => builder.append_value(read(text).ok_or_else(|| refused(text, to, hint))?),
        }
    }
    let array: PrimitiveArray<T> = builder.finish();
    Ok(Arc::new(array))
}

fn refused(text: &str, to: &DataType, hint: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("'{shown}{more}' is no {}{hint}", sql_name(to))
}

/// A type as SQL calls it.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INT".into(),
        Int64 => "BIGINT".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        Date32 | Date64 => "DATE".into(),
        Timestamp(..) => "TIMESTAMP".into(),
        Utf8 | LargeUtf8 | Utf8View => "text".into(),
        Binary | LargeBinary | BinaryView => "BYTEA".into(),
        other => other.to_string(),
    }
}

/// An error of arrow's without the name of its kind.
pub(crate) fn plain(error: impl Display) -> String {
    let text = error.to_string();
    match text.split_once(" error: ") {
        Some((kind, rest)) if kind.len() < 24 => rest.to_string(),
        _ => text,
    }
}
