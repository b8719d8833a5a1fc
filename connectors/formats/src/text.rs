//! Text as values of a type.
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
//! Blanks around what is not text are passed over.
//!
//! Invariant: a value is held exactly, rounded as the table says, or refused. What is refused is NULL, and named.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, BooleanArray, PrimitiveArray, PrimitiveBuilder, StringArray};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::*;

use crate::number::Number;
use crate::typed::{plain, sql_name};

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
    /// The one or the other.
    IsoOrEpoch(TimeUnit),
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

/// Rows whose text is no value, and why.
pub(crate) type Refused = BTreeMap<usize, String>;

/// Text as a type; an error where the type cannot be had of text.
pub(crate) fn from_text(texts: &StringArray, to: &DataType, times: Times) -> Result<(ArrayRef, Refused), String> {
    let mut reading = Reading { texts, to, times, refused: Refused::new() };
    let array = reading.array()?;
    Ok((array, reading.refused))
}

struct Reading<'a> {
    texts: &'a StringArray,
    to: &'a DataType,
    times: Times,
    refused: Refused,
}

impl Reading<'_> {
    fn array(&mut self) -> Result<ArrayRef, String> {
        use DataType::*;
        Ok(match self.to {
            Int8 => self.integers::<Int8Type>(),
            Int16 => self.integers::<Int16Type>(),
            Int32 => self.integers::<Int32Type>(),
            Int64 => self.integers::<Int64Type>(),
            UInt8 => self.integers::<UInt8Type>(),
            UInt16 => self.integers::<UInt16Type>(),
            UInt32 => self.integers::<UInt32Type>(),
            UInt64 => self.integers::<UInt64Type>(),
            Float32 => self.parsed::<Float32Type>(),
            Float64 => self.parsed::<Float64Type>(),
            Decimal128(precision, scale) => self.decimals(*precision, *scale),
            Date32 => self.parsed::<Date32Type>(),
            Date64 => self.parsed::<Date64Type>(),
            Time32(TimeUnit::Second) => self.parsed::<Time32SecondType>(),
            Time32(_) => self.parsed::<Time32MillisecondType>(),
            Time64(TimeUnit::Microsecond) => self.parsed::<Time64MicrosecondType>(),
            Time64(_) => self.parsed::<Time64NanosecondType>(),
            Timestamp(TimeUnit::Second, zone) => self.timestamps::<TimestampSecondType>(zone.as_deref())?,
            Timestamp(TimeUnit::Millisecond, zone) => self.timestamps::<TimestampMillisecondType>(zone.as_deref())?,
            Timestamp(TimeUnit::Microsecond, zone) => self.timestamps::<TimestampMicrosecondType>(zone.as_deref())?,
            Timestamp(TimeUnit::Nanosecond, zone) => self.timestamps::<TimestampNanosecondType>(zone.as_deref())?,
            Boolean => self.booleans(),
            _ => cast(self.texts, self.to).map_err(plain)?,
        })
    }

    fn primitives<T: ArrowPrimitiveType>(&mut self, hint: &str, read: impl Fn(&str) -> Option<T::Native>) -> ArrayRef {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.texts.len()).with_data_type(self.to.clone());
        for (row, text) in self.texts.iter().enumerate() {
            let value = text.and_then(|text| read(text.trim_ascii()));
            if let (Some(text), None) = (text, &value) {
                self.refused.insert(row, refused(text, self.to, hint));
            }
            builder.append_option(value);
        }
        let array: PrimitiveArray<T> = builder.finish();
        Arc::new(array)
    }

    fn parsed<T: Parser>(&mut self) -> ArrayRef {
        self.primitives::<T>("", T::parse)
    }

    fn integers<T: Parser>(&mut self) -> ArrayRef
    where
        T::Native: TryFrom<i128>,
    {
        self.primitives::<T>("", |text| {
            let written_otherwise = || T::Native::try_from(Number::parse(text)?.scaled(0)?.exact()?).ok();
            T::parse(text).or_else(written_otherwise)
        })
    }

    fn decimals(&mut self, precision: u8, scale: i8) -> ArrayRef {
        let most = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
        self.primitives::<Decimal128Type>("", |text| {
            let number = Number::parse(text)?.scaled(i32::from(scale))?.rounded();
            (-most < number && number < most).then_some(number)
        })
    }

    fn booleans(&mut self) -> ArrayRef {
        let mut values = Vec::with_capacity(self.texts.len());
        for (row, text) in self.texts.iter().enumerate() {
            let value = text.and_then(|text| match text.trim_ascii() {
                text if text.eq_ignore_ascii_case("true") => Some(true),
                text if text.eq_ignore_ascii_case("false") => Some(false),
                _ => None,
            });
            if let (Some(text), None) = (text, value) {
                self.refused.insert(row, refused(text, self.to, ""));
            }
            values.push(value);
        }
        Arc::new(BooleanArray::from(values))
    }

    fn timestamps<T: ArrowTimestampType>(&mut self, zone: Option<&str>) -> Result<ArrayRef, String> {
        let (unit, hint) = match self.times {
            Times::Epoch(unit) => {
                let hint = "; it should be a number since 1970";
                return Ok(self.primitives::<T>(hint, |text| since_epoch(text, unit, T::UNIT)));
            }
            Times::Iso { option } => (None, format!("; numbers are times with {option} = 's', 'ms', 'us' or 'ns'")),
            Times::IsoOrEpoch(unit) => (Some(unit), "; it should be ISO text, or a number since 1970".to_string()),
        };
        let number = |text: &str| since_epoch(text, unit?, T::UNIT);
        Ok(match zone {
            // The zones of most columns, without a look-up for every value.
            None | Some("UTC" | "+00:00" | "Z") => {
                self.primitives::<T>(&hint, |text| number(text).or_else(|| instant(&chrono::Utc, text, T::UNIT)))
            }
            Some(zone) => {
                let zone: Tz = zone.parse().map_err(plain)?;
                self.primitives::<T>(&hint, |text| number(text).or_else(|| instant(&zone, text, T::UNIT)))
            }
        })
    }
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

/// Whether a text is an ISO time, of a date and an hour at least.
pub(crate) fn is_time(text: &str) -> bool {
    let separated = text.get(..10).is_some_and(is_date) && matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' '));
    separated && instant(&chrono::Utc, text, TimeUnit::Microsecond).is_some()
}

/// Whether a text is an ISO date, `2026-01-31`.
pub(crate) fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && Date32Type::parse(text).is_some()
}

/// What to say of a text that is no value of a type.
pub(crate) fn refused(text: &str, to: &DataType, hint: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("'{shown}{more}' is no {}{hint}", sql_name(to))
}
