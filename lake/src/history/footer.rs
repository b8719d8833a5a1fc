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
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use watershed_core::history::{DataFile, LONG, Times};
use watershed_core::time::{EventTime, Span};
use watershed_core::{Error, Result};

use crate::parquet_object::ObjectReader;
use crate::stores::Place;

/// Bytes that a piece of a file has at least, but for the last.
const PIECE: u64 = LONG / 2;

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
    fill_from(&*read(place, &file.path, file.size).await?, time_column, file);
    Ok(())
}

fn fill_from(metadata: &ParquetMetaData, time_column: Option<&str>, file: &mut DataFile) {
    file.rows = u64::try_from(metadata.file_metadata().num_rows()).ok();
    if let (Times::Unknown, Some(column)) = (file.times, time_column) {
        file.times = times(metadata, column).unwrap_or(Times::Unknown);
    }
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

/// Cuts long files where their row groups allow; all others are looked at.
pub(crate) async fn pieces(place: &Place, time_column: Option<&str>, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
    let cut = |file: DataFile| {
        async move {
            if file.range.is_some() || file.size < LONG {
                let mut file = file;
                look(place, time_column, &mut [&mut file]).await?;
                return Ok(vec![file]);
            }
            let mut whole = file;
            let metadata = read(place, &whole.path, whole.size).await?;
            fill_from(&metadata, time_column, &mut whole);
            let pieces = time_column.and_then(|column| pieces_of(&metadata, column, &whole));
            Ok(pieces.unwrap_or_else(|| vec![whole]))
        }
        .boxed()
    };
    let cut: Vec<BoxFuture<'_, Result<Vec<DataFile>>>> = files.into_iter().map(cut).collect();
    let cut: Vec<Vec<DataFile>> = futures::stream::iter(cut).buffered(CONCURRENT).try_collect().await?;
    Ok(cut.into_iter().flatten().collect())
}

/// A file as runs of row groups, in the file's order, each of at least [`PIECE`] bytes; `None` when its statistics or
/// offsets do not allow it. Depends on nothing but the file, for checkpoints are understood by it.
fn pieces_of(metadata: &ParquetMetaData, column: &str, file: &DataFile) -> Option<Vec<DataFile>> {
    let groups = metadata.row_groups();
    let each = times_of_groups(metadata, column)?;
    let first_byte = |group: &RowGroupMetaData| {
        let column = group.columns().first()?;
        u64::try_from(column.dictionary_page_offset().unwrap_or(column.data_page_offset())).ok()
    };
    let starts: Vec<u64> = groups.iter().map(first_byte).collect::<Option<_>>()?;
    if starts.is_empty() || !starts.is_sorted_by(|a, b| a < b) || starts.last() >= Some(&file.size) {
        return None;
    }
    let mut pieces: Vec<DataFile> = vec![];
    for (i, group) in groups.iter().enumerate() {
        let range = (starts[i], starts.get(i + 1).copied().unwrap_or(file.size));
        let rows = u64::try_from(group.num_rows()).ok()?;
        match pieces.last_mut() {
            Some(last) if last.bytes() < PIECE => {
                last.range = last.range.map(|(from, _)| (from, range.1));
                last.rows = last.rows.map(|known| known + rows);
                last.times = union(last.times, each[i]);
            }
            _ => {
                let piece = DataFile { range: Some(range), rows: Some(rows), times: each[i], ..file.clone() };
                pieces.push(piece);
            }
        }
    }
    Some(pieces)
}

fn union(a: Times, b: Times) -> Times {
    match (a, b) {
        (Times::Known { min, max, nulls }, Times::Known { min: low, max: high, nulls: more }) => {
            Times::Known { min: min.min(low), max: max.max(high), nulls: nulls + more }
        }
        _ => Times::Unknown,
    }
}

/// The event times of a file; `None` when its statistics cannot tell.
fn times(metadata: &ParquetMetaData, column: &str) -> Option<Times> {
    let nothing = Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: 0 };
    Some(times_of_groups(metadata, column)?.into_iter().fold(nothing, union))
}

/// The event times of each row group; `None` when the statistics of one cannot tell.
fn times_of_groups(metadata: &ParquetMetaData, column: &str) -> Option<Vec<Times>> {
    let file = metadata.file_metadata();
    let groups = metadata.row_groups();
    let rows: Vec<u64> = groups.iter().map(|g| u64::try_from(g.num_rows()).ok()).collect::<Option<_>>()?;
    let without = |rows: u64| Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: rows };
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata()).ok()?;
    if schema.field_with_name(column).is_err() {
        return Some(rows.into_iter().map(without).collect());
    }
    let converter = StatisticsConverter::try_new(column, &schema, file.schema_descr()).ok()?;
    let leaf = converter.parquet_column_index()?;
    if file.schema_descr().column(leaf).physical_type() == Type::INT96 {
        return None;
    }
    let converter = converter.with_missing_null_counts_as_zero(false);
    let nulls = converter.row_group_null_counts(groups).ok()?;
    let mins = micros(&converter.row_group_mins(groups).ok()?, false)?;
    let maxes = micros(&converter.row_group_maxes(groups).ok()?, true)?;
    let times = |(i, rows): (usize, u64)| {
        if nulls.is_null(i) {
            return None;
        }
        if rows == nulls.value(i) {
            return Some(without(rows));
        }
        Some(Times::Known { min: EventTime(mins[i]?), max: EventTime(maxes[i]?), nulls: nulls.value(i) })
    };
    rows.into_iter().enumerate().map(times).collect()
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
