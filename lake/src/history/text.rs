//! What text files hold, for folders that no partition places in time: their rows and event times, learnt by reading them.
//!
//! Text has no statistics, so a file is read once to be placed and once to be used. Where folders tell the time, no file is
//! read here, and a partition's start stands for what it holds.
//!
//! Invariant: only records that are facts count, so that a malformed one moves no watermark.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::task::JoinSet;
use watershed_core::history::{DataFile, Times};
use watershed_core::text::{TextFormat, TextReader};
use watershed_core::{Error, EventTime, Result};

use crate::stores::Place;

/// Files read at once.
const CONCURRENT: usize = 4;

/// Fills in rows and times of the files that lack either.
pub(super) async fn look(
    place: &Place,
    format: &Arc<dyn TextFormat>,
    time_column: Option<&str>,
    files: &mut [&mut DataFile],
) -> Result<()> {
    let lacks = |file: &DataFile| file.rows.is_none() || file.times == Times::Unknown;
    let mut pending = (0..).zip(files.iter()).filter(|(_, file)| lacks(file)).map(|(i, _)| i).collect::<Vec<usize>>();
    pending.reverse();
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < CONCURRENT
            && let Some(i) = pending.pop()
        {
            let (store, format) = (Arc::clone(&place.store), Arc::clone(format));
            let (path, size) = (files[i].path.clone(), files[i].size);
            let column = time_column.map(str::to_string);
            reading.spawn(async move {
                let seen = seen(store.as_ref(), format.as_ref(), column.as_deref(), &path, size).await;
                (i, seen.map_err(|e| of_file(&path, e)))
            });
        }
        let Some(read) = reading.join_next().await else { return Ok(()) };
        let (i, seen) = read.map_err(|e| Error::bug(format!("a file was not read: {e}")))?;
        let (rows, times) = seen?;
        files[i].rows = Some(rows);
        files[i].times = times;
    }
}

/// Says of which file an error is.
fn of_file(path: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("file {path}: {message}")),
        other => other,
    }
}

/// Reads a file for its facts and their times.
async fn seen(
    store: &dyn ObjectStore,
    format: &dyn TextFormat,
    time_column: Option<&str>,
    path: &str,
    size: u64,
) -> Result<(u64, Times)> {
    let unreadable = |e: object_store::Error| Error::storage("cannot read", path, e);
    let location = Path::parse(path).map_err(|e| Error::storage("cannot read", path, e))?;
    let found = store.get(&location).await.map_err(unreadable)?;
    if found.meta.size != size {
        return Err(Error::input(format!(
            "it has {} bytes and had {size} when it was listed: it is being written; put files in place whole, by renaming \
             them, and run again",
            found.meta.size
        )));
    }
    let column = time_column.and_then(|name| format.schema().index_of(name).ok());
    let mut sum = Sum { column, rows: 0, nulls: 0, min: i64::MAX, max: i64::MIN };
    let mut reader = format.begin(path)?;
    let mut bytes = found.into_stream();
    while let Some(some) = bytes.next().await {
        reader.push(&some.map_err(unreadable)?);
        sum.add_all(reader.as_mut())?;
    }
    reader.finish();
    sum.add_all(reader.as_mut())?;
    Ok((sum.rows, sum.times()))
}

struct Sum {
    column: Option<usize>,
    rows: u64,
    nulls: u64,
    min: i64,
    max: i64,
}

impl Sum {
    fn add_all(&mut self, reader: &mut dyn TextReader) -> Result<()> {
        while let Some(some) = reader.next()? {
            self.rows += some.rows.num_rows() as u64;
            let Some(column) = self.column else { continue };
            let micros = cast(some.rows.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None));
            let micros = micros.map_err(|e| Error::input(format!("its event times are no times: {e}")))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            self.nulls += micros.null_count() as u64;
            self.min = min(micros).unwrap_or(i64::MAX).min(self.min);
            self.max = max(micros).unwrap_or(i64::MIN).max(self.max);
        }
        Ok(())
    }

    fn times(&self) -> Times {
        match self.column {
            None => Times::Unknown,
            Some(_) => Times::Known { min: EventTime(self.min), max: EventTime(self.max), nulls: self.nulls },
        }
    }
}
