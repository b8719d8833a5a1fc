//! What Parquet footers say of a file's rows and event times, for files whose list does not.
//!
//! Bounds are widened to whole microseconds, never narrowed. INT96 has no order that writers agree on, so its
//! statistics are not used; a file without the column holds NULLs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Date32Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::Type;
use parquet::file::metadata::ParquetMetaData;
use watershed_core::history::{DataFile, Times};
use watershed_core::time::{EventTime, Span};
use watershed_core::{Error, Result};

use crate::parquet_object::ObjectReader;
use crate::stores::Place;

/// Footers read at once.
const CONCURRENT: usize = 16;

/// Fills in rows and times of the files that lack either.
pub(crate) async fn look(place: &Place, time_column: Option<&str>, files: &mut [&mut DataFile]) -> Result<()> {
    let mut pending: Vec<BoxFuture<'_, Result<()>>> = vec![];
    for file in files.iter_mut() {
        if file.rows.is_none() || (time_column.is_some() && file.times == Times::Unknown) {
            pending.push(fill(place, time_column, file).boxed());
        }
    }
    futures::stream::iter(pending).buffer_unordered(CONCURRENT).try_collect().await
}

async fn fill(place: &Place, time_column: Option<&str>, file: &mut DataFile) -> Result<()> {
    let metadata = read(place, &file.path, file.size).await?;
    file.rows = u64::try_from(metadata.file_metadata().num_rows()).ok();
    if let (Times::Unknown, Some(column)) = (file.times, time_column) {
        file.times = times(&metadata, column).unwrap_or(Times::Unknown);
    }
    Ok(())
}

/// Reads a footer.
pub(crate) async fn read(place: &Place, path: &str, size: u64) -> Result<Arc<ParquetMetaData>> {
    let location = Path::parse(path).map_err(|e| Error::storage("cannot read", path, e))?;
    let mut reader = ObjectReader::new(place.store.clone(), location, size);
    reader.get_metadata(None).await.map_err(|e| Error::storage("cannot read the Parquet footer of", path, e))
}

/// The Arrow schema a footer declares.
pub(crate) fn schema(metadata: &ParquetMetaData, path: &str) -> Result<SchemaRef> {
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())
        .map_err(|e| Error::storage("cannot understand the Parquet schema of", path, e))?;
    Ok(Arc::new(schema))
}

/// The event times of a file; `None` when its statistics cannot tell.
fn times(metadata: &ParquetMetaData, column: &str) -> Option<Times> {
    let file = metadata.file_metadata();
    let rows = u64::try_from(file.num_rows()).ok()?;
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).ok()?;
    if schema.field_with_name(column).is_err() {
        return Some(Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: rows });
    }
    let converter = StatisticsConverter::try_new(column, &schema, file.schema_descr()).ok()?;
    let leaf = converter.parquet_column_index()?;
    if file.schema_descr().column(leaf).physical_type() == Type::INT96 {
        return None;
    }
    let converter = converter.with_missing_null_counts_as_zero(false);
    let groups = metadata.row_groups();
    let nulls = converter.row_group_null_counts(groups).ok()?;
    let mins = micros(&converter.row_group_mins(groups).ok()?, false)?;
    let maxes = micros(&converter.row_group_maxes(groups).ok()?, true)?;
    let (mut min, mut max, mut null_rows) = (EventTime::MAX, EventTime::MIN, 0);
    for (i, group) in groups.iter().enumerate() {
        if nulls.is_null(i) {
            return None;
        }
        null_rows += nulls.value(i);
        if u64::try_from(group.num_rows()).ok() == Some(nulls.value(i)) {
            continue;
        }
        (min, max) = (min.min(EventTime(mins[i]?)), max.max(EventTime(maxes[i]?)));
    }
    Some(Times::Known { min, max, nulls: null_rows })
}

/// Timestamps of any unit, and dates, as microseconds, rounded down or up.
fn micros(values: &ArrayRef, up: bool) -> Option<Vec<Option<i64>>> {
    fn each<T: ArrowTimestampType>(values: &ArrayRef, f: impl Fn(i64) -> Option<i64>) -> Vec<Option<i64>> {
        let values: &PrimitiveArray<T> = values.as_primitive();
        values.iter().map(|v| v.and_then(&f)).collect()
    }
    let unit = match values.data_type() {
        DataType::Timestamp(unit, _) => unit,
        // The file is older than the column's type: midnights.
        DataType::Date32 => {
            let days: &PrimitiveArray<Date32Type> = values.as_primitive();
            return Some(days.iter().map(|day| Some(i64::from(day?) * Span::DAY.0)).collect());
        }
        _ => return None,
    };
    Some(match unit {
        TimeUnit::Second => each::<TimestampSecondType>(values, |v| v.checked_mul(1_000_000)),
        TimeUnit::Millisecond => each::<TimestampMillisecondType>(values, |v| v.checked_mul(1_000)),
        TimeUnit::Microsecond => each::<TimestampMicrosecondType>(values, Some),
        TimeUnit::Nanosecond => each::<TimestampNanosecondType>(values, |v| {
            Some(v.div_euclid(1_000) + i64::from(up && v.rem_euclid(1_000) != 0))
        }),
    })
}

#[cfg(test)]
#[path = "footer_tests.rs"]
mod tests;
