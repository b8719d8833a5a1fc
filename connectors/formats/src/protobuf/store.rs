//! The values of a column that is neither list nor STRUCT nor MAP, and that of the row in progress.
//!
//! Invariant: a value that was taken is what the column's type holds: [`Store::finish`] changes its layout only.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int32Array, Int64Array, StringArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};

use super::bad::Bad;
use super::column::nested;
use super::scalar::{Scalar, Value};
use super::shape::{Names, Plan, Reading};
use super::wire::{Reader, Wire};
use crate::typed::{plain, sql_name};

pub(super) enum Store<'a> {
    Integers(Of<i64>),
    /// Numbers that 64 bits do not hold, in units of a DECIMAL's last digit.
    Wide {
        of: Of<i128>,
        unit: i128,
    },
    Doubles(Of<f64>),
    Floats(Of<f32>),
    Flags(Of<bool>),
    Bytes {
        next: &'a [u8],
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    /// Numbers of an enum, and how long their names are together.
    Names {
        of: Of<i32>,
        names: &'a Names,
        bytes: usize,
    },
    /// Seconds and nanoseconds, as a number of units.
    Times {
        seconds: i64,
        nanos: i64,
        values: Vec<i64>,
    },
}

/// Values, and the next.
pub(super) struct Of<T> {
    next: T,
    default: T,
    values: Vec<T>,
}

/// What entries of a map are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key<'a> {
    Number(i128),
    Bytes(&'a [u8]),
}

impl<T: Copy> Of<T> {
    fn new(default: T, rows: usize) -> Self {
        Of { next: default, default, values: Vec::with_capacity(rows) }
    }

    fn end(&mut self) {
        self.values.push(std::mem::replace(&mut self.next, self.default));
    }

    fn rewind(&mut self, to: usize) {
        self.values.truncate(to);
        self.next = self.default;
    }
}

impl<'a> Store<'a> {
    pub(super) fn new(plan: &'a Plan, rows: usize) -> Self {
        match (&plan.reading, &plan.to) {
            (Reading::Timestamp | Reading::Duration | Reading::Epoch(..), _) => {
                Store::Times { seconds: 0, nanos: 0, values: Vec::with_capacity(rows) }
            }
            (Reading::Enum(names), _) => Store::Names { of: Of::new(names.default, rows), names, bytes: 0 },
            (_, DataType::UInt64) => Store::Wide { of: Of::new(0, rows), unit: 1 },
            (_, DataType::Decimal128(_, scale)) => {
                let unit = 10i128.checked_pow(u32::from(scale.unsigned_abs())).unwrap_or(1);
                Store::Wide { of: Of::new(0, rows), unit }
            }
            (_, DataType::Float64) => Store::Doubles(Of::new(0.0, rows)),
            (_, DataType::Float32) => Store::Floats(Of::new(0.0, rows)),
            (_, DataType::Boolean) => Store::Flags(Of::new(false, rows)),
            (_, to) if to.is_integer() => Store::Integers(Of::new(0, rows)),
            _ => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Store::Bytes { next: &[], ends, bytes: vec![] }
            }
        }
    }

    /// A field's value into the row in progress.
    #[inline]
    pub(super) fn read(&mut self, plan: &Plan, wire: Wire<'a>) -> Result<(), Bad> {
        match &plan.reading {
            Reading::Scalar(scalar) => self.set(scalar.value(wire)?, plan),
            Reading::Enum(_) => self.set(Scalar::Enum.value(wire)?, plan),
            Reading::Wrapped(scalar) => {
                let mut reader = Reader::new(nested(wire)?);
                while let Some((number, wire)) = reader.field()? {
                    if number == 1 {
                        self.set(scalar.value(wire)?, plan)?;
                    }
                }
                Ok(())
            }
            Reading::Epoch(scalar, unit) => {
                let number = match scalar.value(wire)? {
                    Value::Signed(number) => i128::from(number),
                    Value::Unsigned(number) => i128::from(number),
                    other => return Err(misread(other, plan)),
                };
                let (second, unit) = (i128::from(SECOND), i128::from(nanoseconds(*unit)));
                let nanos = number * unit;
                self.time(Some(nanos.div_euclid(second)), Some(nanos.rem_euclid(second)), plan)
            }
            Reading::Timestamp | Reading::Duration => {
                let mut reader = Reader::new(nested(wire)?);
                while let Some((number, wire)) = reader.field()? {
                    match number {
                        1 => self.time(Some(whole(Scalar::Int64.value(wire)?)), None, plan)?,
                        2 => self.time(None, Some(whole(Scalar::Int32.value(wire)?)), plan)?,
                        _ => {}
                    }
                }
                Ok(())
            }
            Reading::Message(_) | Reading::List(_) | Reading::Map(_) => Err("it is no single value".into()),
        }
    }

    #[inline(always)]
    fn set(&mut self, value: Value<'a>, plan: &Plan) -> Result<(), Bad> {
        match (self, value) {
            (Store::Integers(of), Value::Signed(number)) => of.next = number,
            (Store::Integers(of), Value::Unsigned(number)) => {
                let most = if plan.to == DataType::Int32 { i64::from(i32::MAX) } else { i64::MAX };
                let held = i64::try_from(number).ok().filter(|number| *number <= most);
                of.next = held.ok_or_else(|| format!("{number} is beyond {}", sql_name(&plan.to)))?;
            }
            (Store::Wide { of, unit }, Value::Signed(number)) => of.next = i128::from(number) * *unit,
            (Store::Wide { of, unit }, Value::Unsigned(number)) => of.next = i128::from(number) * *unit,
            // Only those of 32 bits come here: others are not held.
            (Store::Doubles(of), Value::Signed(number)) => of.next = number as f64,
            (Store::Doubles(of), Value::Unsigned(number)) => of.next = number as f64,
            (Store::Doubles(of), Value::Double(number)) => of.next = number,
            (Store::Doubles(of), Value::Float(number)) => of.next = number.into(),
            (Store::Floats(of), Value::Float(number)) => of.next = number,
            (Store::Flags(of), Value::Bool(flag)) => of.next = flag,
            (Store::Bytes { next, .. }, Value::Bytes(bytes)) => *next = bytes,
            (Store::Names { of, .. }, Value::Signed(number)) => {
                of.next = i32::try_from(number).map_err(|_| misread(value, plan))?;
            }
            (_, other) => return Err(misread(other, plan)),
        }
        Ok(())
    }

    fn time(&mut self, whole: Option<i128>, fraction: Option<i128>, plan: &Plan) -> Result<(), Bad> {
        let Store::Times { seconds, nanos, .. } = self else { return Err("it is no time".into()) };
        let number = |number: i128| i64::try_from(number).map_err(|_| beyond(plan));
        *seconds = whole.map(number).transpose()?.unwrap_or(*seconds);
        *nanos = fraction.map(number).transpose()?.unwrap_or(*nanos);
        Ok(())
    }

    /// Of the row in progress.
    pub(super) fn key(&self) -> Key<'a> {
        match self {
            Store::Integers(of) => Key::Number(of.next.into()),
            Store::Wide { of, .. } => Key::Number(of.next),
            Store::Doubles(of) => Key::Number(of.next.to_bits().into()),
            Store::Floats(of) => Key::Number(of.next.to_bits().into()),
            Store::Flags(of) => Key::Number(of.next.into()),
            Store::Bytes { next, .. } => Key::Bytes(next),
            Store::Names { of, .. } => Key::Number(of.next.into()),
            Store::Times { seconds, .. } => Key::Number((*seconds).into()),
        }
    }

    /// Adds the value of the row in progress, or the default.
    pub(super) fn end(&mut self, plan: &Plan) -> Result<(), Bad> {
        match self {
            Store::Integers(of) => of.end(),
            Store::Wide { of, .. } => of.end(),
            Store::Doubles(of) => of.end(),
            Store::Floats(of) => of.end(),
            Store::Flags(of) => of.end(),
            Store::Bytes { next, ends, bytes } => {
                bytes.extend_from_slice(std::mem::take(next));
                let end = i32::try_from(bytes.len());
                ends.push(end.map_err(|_| Bad::too_many("it has more text than a column may have"))?);
            }
            Store::Names { of, names, bytes } => {
                // A number of one byte may have a long name.
                *bytes += names.name(of.next).map_or(11, str::len);
                of.end();
                if i32::try_from(*bytes).is_err() {
                    return Err(Bad::too_many("its enums have more text than a column may have"));
                }
            }
            Store::Times { seconds, nanos, values } => {
                let (seconds, nanos) = (std::mem::take(seconds), std::mem::take(nanos));
                values.push(units(seconds, nanos, plan)?);
            }
        }
        Ok(())
    }

    /// Adds what stands behind NULL.
    pub(super) fn skip(&mut self) {
        match self {
            Store::Integers(of) => of.end(),
            Store::Wide { of, .. } => of.end(),
            Store::Doubles(of) => of.end(),
            Store::Floats(of) => of.end(),
            Store::Flags(of) => of.end(),
            Store::Bytes { ends, .. } => ends.extend(ends.last().copied()),
            Store::Names { of, .. } => of.end(),
            Store::Times { values, .. } => values.push(0),
        }
    }

    pub(super) fn forget(&mut self) {
        self.rewind(usize::MAX);
    }

    /// Back to so many rows, with none in progress.
    pub(super) fn rewind(&mut self, to: usize) {
        match self {
            Store::Integers(of) => of.rewind(to),
            Store::Wide { of, .. } => of.rewind(to),
            Store::Doubles(of) => of.rewind(to),
            Store::Floats(of) => of.rewind(to),
            Store::Flags(of) => of.rewind(to),
            Store::Bytes { next, ends, bytes } => {
                *next = &[];
                ends.truncate(to.saturating_add(1));
                bytes.truncate(ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or_default());
            }
            Store::Names { of, .. } => of.rewind(to),
            Store::Times { seconds, nanos, values } => {
                (*seconds, *nanos) = (0, 0);
                values.truncate(to);
            }
        }
    }

    pub(super) fn finish(self, to: &DataType, nulls: Option<NullBuffer>) -> Result<ArrayRef, String> {
        let array: ArrayRef = match self {
            Store::Integers(of) => Arc::new(Int64Array::new(of.values.into(), nulls)),
            Store::Times { values, .. } => Arc::new(Int64Array::new(values.into(), nulls)),
            Store::Wide { of, .. } => match to {
                DataType::Decimal128(precision, scale) => {
                    let numbers = Decimal128Array::new(of.values.into(), nulls);
                    Arc::new(numbers.with_precision_and_scale(*precision, *scale).map_err(plain)?)
                }
                _ => Arc::new(UInt64Array::new(of.values.into_iter().map(|number| number as u64).collect(), nulls)),
            },
            Store::Doubles(of) => Arc::new(Float64Array::new(of.values.into(), nulls)),
            Store::Floats(of) => Arc::new(Float32Array::new(of.values.into(), nulls)),
            Store::Flags(of) => Arc::new(BooleanArray::new(of.values.into(), nulls)),
            Store::Bytes { ends, bytes, .. } => {
                let ends = OffsetBuffer::new(ends.into());
                match to {
                    DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                        Arc::new(BinaryArray::try_new(ends, bytes.into(), nulls).map_err(plain)?)
                    }
                    _ => Arc::new(StringArray::try_new(ends, bytes.into(), nulls).map_err(plain)?),
                }
            }
            Store::Names { of, names, .. } => {
                let (mut known, mut texts) = (HashMap::new(), vec![]);
                let mut code = |number: &i32| {
                    *known.entry(*number).or_insert_with(|| {
                        texts.push(names.name(*number).map_or_else(|| number.to_string(), str::to_string));
                        texts.len() as i32 - 1
                    })
                };
                let codes: Vec<i32> = of.values.iter().map(&mut code).collect();
                let codes = Int32Array::new(codes.into(), nulls);
                Arc::new(DictionaryArray::try_new(codes, Arc::new(StringArray::from(texts))).map_err(plain)?)
            }
        };
        if array.data_type() == to {
            return Ok(array);
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&array, to, &strict).map_err(plain)
    }
}

const SECOND: i64 = 1_000_000_000;

fn nanoseconds(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    }
}

/// A time in the units of its column; a duration in microseconds.
fn units(seconds: i64, nanos: i64, plan: &Plan) -> Result<i64, Bad> {
    let all = i128::from(seconds) * i128::from(SECOND) + i128::from(nanos);
    let units = match (&plan.to, nanos) {
        (DataType::Timestamp(unit, _), 0..SECOND) => all.div_euclid(nanoseconds(*unit).into()),
        (DataType::Timestamp(..), _) => return Err(format!("its nanos are {nanos}, not 0 to 999999999").into()),
        _ if nanos.abs() < SECOND && seconds.signum() * nanos.signum() >= 0 => all / 1000,
        _ => return Err(format!("its seconds are {seconds}, and its nanos {nanos}").into()),
    };
    i64::try_from(units).map_err(|_| beyond(plan))
}

fn whole(value: Value<'_>) -> i128 {
    match value {
        Value::Signed(number) => number.into(),
        _ => 0,
    }
}

fn beyond(plan: &Plan) -> Bad {
    format!("it is beyond {}", sql_name(&plan.to)).into()
}

/// No message brings this about: columns are held against fields when they are planned.
fn misread(value: Value<'_>, plan: &Plan) -> Bad {
    format!("{value:?} is not read as {}", sql_name(&plan.to)).into()
}
