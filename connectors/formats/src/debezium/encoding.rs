//! How values of the database's types are written, and how they become values of columns.
//!
//! Invariant: a value is the one that the database has, or refused and named.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Date32Array, Int64Array, StringArray};
use arrow::compute::kernels::cast_utils::Parser;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Field, TimeUnit};
use base64::prelude::{BASE64_STANDARD, Engine};

use super::decimal;
use crate::number::Number;
use crate::text::{Refused, Times, refused};
use crate::typed::{as_column, plain};

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Encoding {
    /// As the format has values of the column's type, times as said.
    Plain(Times),
    /// Days since 1970.
    Days,
    /// A decimal's digits without its point, as many of them behind it as said: a large integer's bytes.
    Unscaled(i32),
    /// Bytes as text, in base64.
    Bytes,
}

/// What stands for a large value that was not changed: the database does not send those again.
const UNSENT: &str = "__debezium_unavailable_value";
const NOT_SENT: &str = "the database did not send its value, which had not changed; it does with REPLICA IDENTITY FULL";

/// Values as they were read, as a column's. Reasons name the column.
pub(crate) fn decoded(
    read: &ArrayRef,
    column: &Field,
    encoding: Encoding,
    is_text: &dyn Fn(usize) -> Option<bool>,
) -> Result<(ArrayRef, Refused), String> {
    let to = column.data_type();
    let named = |reason: String| format!("column '{}': {reason}", column.name());
    let all_named = |(values, refused): (ArrayRef, Refused)| {
        (values, refused.into_iter().map(|(row, reason)| (row, named(reason))).collect::<Refused>())
    };
    let (values, mut refused) = match (encoding, read.data_type()) {
        (Encoding::Plain(Times::Epoch(unit)), DataType::Int64) => {
            let numbers = read.as_primitive();
            let (values, beyond) = since_epoch(numbers, unit, to).map_err(named)?;
            let reason = |row: usize| refused(&numbers.value(row).to_string(), to, "");
            all_named((values, beyond.into_iter().map(|row| (row, reason(row))).collect()))
        }
        (Encoding::Plain(times), _) => as_column(read, column, times)?,
        (Encoding::Days, DataType::Utf8) => all_named(days(read.as_string(), to).map_err(named)?),
        (Encoding::Days, _) => (cast(read, to).map_err(plain).map_err(named)?, Refused::new()),
        (Encoding::Unscaled(scale), _) => all_named(decimal::unscaled(read.as_string(), scale, to, is_text)),
        (Encoding::Bytes, _) => all_named(bytes(read.as_string(), to).map_err(named)?),
    };
    for row in unsent(&values) {
        refused.entry(row).or_insert_with(|| named(NOT_SENT.into()));
    }
    Ok((values, refused))
}

/// Numbers since 1970 as times, and the rows that are beyond their range.
pub(crate) fn since_epoch(
    numbers: &Int64Array,
    unit: TimeUnit,
    to: &DataType,
) -> Result<(ArrayRef, Vec<usize>), String> {
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let instants = cast(numbers, &DataType::Timestamp(unit, Some("UTC".into()))).map_err(plain)?;
    let times = cast_with_options(&instants, to, &lenient).map_err(plain)?;
    let beyond = (0..times.len()).filter(|row| times.is_null(*row) && numbers.is_valid(*row)).collect();
    Ok((times, beyond))
}

/// Text as dates: days since 1970, or ISO text.
fn days(texts: &StringArray, to: &DataType) -> Result<(ArrayRef, Refused), String> {
    let mut all = Refused::new();
    let day = |(row, text): (usize, Option<&str>)| {
        let text = text?.trim_ascii();
        let number = |text| i32::try_from(Number::parse(text)?.scaled(0)?.exact()?).ok();
        let day = number(text).or_else(|| Date32Type::parse(text));
        if day.is_none() {
            all.insert(row, refused(text, &DataType::Date32, "; it should be days since 1970"));
        }
        day
    };
    let days: Date32Array = texts.iter().enumerate().map(day).collect();
    Ok((cast(&days, to).map_err(plain)?, all))
}

/// Text in base64 as bytes.
fn bytes(texts: &StringArray, to: &DataType) -> Result<(ArrayRef, Refused), String> {
    let mut all = Refused::new();
    let value = |(row, text): (usize, Option<&str>)| {
        let value = BASE64_STANDARD.decode(text?).ok();
        if value.is_none() {
            all.insert(row, refused(text?, to, "; it should be base64"));
        }
        value
    };
    let values: BinaryArray = texts.iter().enumerate().map(value).collect();
    Ok((cast(&values, to).map_err(plain)?, all))
}

/// Rows whose value was not sent.
fn unsent(values: &ArrayRef) -> Vec<usize> {
    fn those<T: AsRef<[u8]>>(values: impl Iterator<Item = Option<T>>) -> Vec<usize> {
        let is_unsent = |value: &Option<T>| value.as_ref().is_some_and(|value| value.as_ref() == UNSENT.as_bytes());
        values.enumerate().filter(|(_, value)| is_unsent(value)).map(|(row, _)| row).collect()
    }
    match values.data_type() {
        DataType::Utf8 => those(values.as_string::<i32>().iter()),
        DataType::LargeUtf8 => those(values.as_string::<i64>().iter()),
        DataType::Utf8View => those(values.as_string_view().iter()),
        DataType::Binary => those(values.as_binary::<i32>().iter()),
        DataType::LargeBinary => those(values.as_binary::<i64>().iter()),
        DataType::BinaryView => those(values.as_binary_view().iter()),
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            let is_unsent = |row: &usize| lists.is_valid(*row) && !unsent(&lists.value(*row)).is_empty();
            match lists.value_type().is_nested() || lists.value_type().is_primitive() {
                true => vec![],
                false => (0..lists.len()).filter(is_unsent).collect(),
            }
        }
        _ => vec![],
    }
}
