//! Delta statistics of a finished file, from the footer that its writer has at hand.
//!
//! Bounds are what the protocol asks for: texts of at most 32 characters, the upper one with a tie-breaker; full
//! microseconds; nothing for columns that hold NaN, which orders differently from engine to engine. A statistic that
//! cannot be written exactly or as a bound is left out, which is always allowed. Delta protocol, "Per-file Statistics".

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema,
    TimeUnit, TimestampMicrosecondType,
};
use chrono::DateTime;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value, json};

/// Columns whose statistics are kept.
const COLUMNS: usize = 32;
/// Characters of a text's bound.
const PREFIX: usize = 32;
/// Digits of a decimal that a JSON number keeps in every reader.
const EXACT_DIGITS: u8 = 15;

/// Statistics as JSON. `nan` says which columns hold a NaN; `always` names columns to keep beyond the first 32.
pub(crate) fn statistics(metadata: &ParquetMetaData, schema: &Schema, nan: &[bool], always: &[&str]) -> String {
    let rows = metadata.file_metadata().num_rows();
    let (mut lows, mut highs, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (i, field) in schema.fields().iter().enumerate() {
        if field.data_type().is_nested() || (i >= COLUMNS && !always.contains(&field.name().as_str())) {
            continue;
        }
        let groups = metadata.row_groups();
        let descriptor = metadata.file_metadata().schema_descr();
        let Ok(converter) = StatisticsConverter::try_new(field.name(), schema, descriptor) else { continue };
        let converter = converter.with_missing_null_counts_as_zero(false);
        let Ok(null_counts) = converter.row_group_null_counts(groups) else { continue };
        if null_counts.null_count() > 0 {
            continue;
        }
        let null_rows: u64 = null_counts.values().iter().sum();
        nulls.insert(field.name().clone(), null_rows.into());
        if nan.get(i) == Some(&true) {
            continue;
        }
        let (Ok(mins), Ok(maxes)) = (converter.row_group_mins(groups), converter.row_group_maxes(groups)) else {
            continue;
        };
        // A group of NULLs only has no bounds, and needs none.
        let unknown = |bounds: &ArrayRef| {
            let of_nulls = |g: usize| u64::try_from(groups[g].num_rows()).ok() == Some(null_counts.value(g));
            (0..bounds.len()).any(|g| bounds.is_null(g) && !of_nulls(g))
        };
        if unknown(&mins) || unknown(&maxes) {
            continue;
        }
        if let (Some(low), Some(high)) = (bound(&mins, false), bound(&maxes, true)) {
            lows.insert(field.name().clone(), low);
            highs.insert(field.name().clone(), high);
        }
    }
    json!({ "numRecords": rows, "minValues": lows, "maxValues": highs, "nullCount": nulls }).to_string()
}

/// The least or greatest of the groups' bounds as JSON.
fn bound(values: &ArrayRef, upper: bool) -> Option<Value> {
    macro_rules! extreme {
        ($t:ty) => {{
            let values = values.as_primitive::<$t>();
            if upper { max(values) } else { min(values) }
        }};
    }
    match values.data_type() {
        DataType::Int8 => extreme!(Int8Type).map(Value::from),
        DataType::Int16 => extreme!(Int16Type).map(Value::from),
        DataType::Int32 => extreme!(Int32Type).map(Value::from),
        DataType::Int64 => extreme!(Int64Type).map(Value::from),
        DataType::Float32 => extreme!(Float32Type).and_then(|v| number(f64::from(v))),
        DataType::Float64 => extreme!(Float64Type).and_then(number),
        DataType::Date32 => extreme!(Date32Type).and_then(|days| {
            let time = DateTime::from_timestamp(i64::from(days) * 86_400, 0)?;
            four_digit_year(&time).then(|| time.format("%Y-%m-%d").to_string().into())
        }),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => extreme!(TimestampMicrosecondType).and_then(|micros| {
            let time = DateTime::from_timestamp_micros(micros)?;
            let format = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%S%.6f" };
            four_digit_year(&time).then(|| time.format(format).to_string().into())
        }),
        DataType::Decimal128(precision, scale) if *precision <= EXACT_DIGITS => {
            let unscaled = extreme!(Decimal128Type)?;
            if *scale == 0 {
                return i64::try_from(unscaled).ok().map(Value::from);
            }
            format!("{unscaled}e-{scale}").parse().ok().and_then(number)
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            if upper { max_string(values).and_then(above) } else { min_string(values).map(|v| prefix(v).into()) }
        }
        _ => None,
    }
}

fn number(value: f64) -> Option<Value> {
    serde_json::Number::from_f64(value).map(Value::Number)
}

/// ISO 8601 with other years is read differently from reader to reader.
fn four_digit_year(time: &DateTime<chrono::Utc>) -> bool {
    (0..=9999).contains(&chrono::Datelike::year(time))
}

fn prefix(text: &str) -> &str {
    text.char_indices().nth(PREFIX).map_or(text, |(end, _)| &text[..end])
}

/// A text that is no less than `text`: itself, or a prefix with a character that is no less than the next.
fn above(text: &str) -> Option<Value> {
    let cut = text.char_indices().skip(PREFIX).find(|(_, next)| *next != char::MAX);
    match cut {
        None if text.chars().count() <= PREFIX => Some(text.into()),
        None => None,
        Some((end, _)) => Some(format!("{}{}", &text[..end], char::MAX).into()),
    }
}

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
