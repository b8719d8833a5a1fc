//! The facts that a view was made from: the files that its checkpoint says were read, less the rows that are listed as late or
//! bad. Such a row is left out the way a deleted one is, by its number in its file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::lit;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use watershed_core::epoch::Manifest;
use watershed_core::history::{DataFile, DeletedRows, History, Layout, Snapshot, Times};
use watershed_core::scan::ScanFile;
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};
use watershed_operators::{WindowForm, Windows};
use watershed_plan::{Lowered, files_table};
use watershed_runtime::checkpoint::Checkpoints;
use watershed_runtime::{Input, read_so_far};

use super::column;
use super::stretches::Needs;
use crate::batch::in_query;
use crate::catalog::Entry;
use crate::engine::Engine;
use crate::execute::Session;
use crate::late;
use crate::relations::Known;

pub(super) struct Facts {
    sources: Vec<Source>,
    /// The view begins here.
    pub(super) from: Option<EventTime>,
    pub(super) notes: Vec<String>,
}

struct Source {
    name: String,
    layout: Layout,
    time_column: String,
    files: Vec<Read>,
}

struct Read {
    file: DataFile,
    deleted: Option<Arc<DeletedRows>>,
    /// Rows in the whole file, where any is left out.
    rows: u64,
    /// Rows that were used nowhere.
    late: Vec<u64>,
    /// Rows that missed the windows which end by a time.
    partly: Vec<(u64, EventTime)>,
}

/// A listed row: its number, and the end of the last window it missed where it was used in others.
type Listed = BTreeMap<(String, String), Vec<(u64, Option<EventTime>)>>;

impl Facts {
    pub(super) async fn of(
        engine: &Engine,
        session: &Session<'_>,
        entry: &Entry,
        known: &Known,
        manifest: &Manifest,
        checkpoints: &Checkpoints,
        lowered: &Lowered,
    ) -> Result<Facts> {
        let mut listed = listed(engine, session, entry, lowered).await?;
        if lowered.stages.len() > 1 && listed.values().flatten().any(|(_, until)| until.is_some()) {
            return Err(Error::input(format!(
                "view {}: rows were late for some of their windows and used in others, below another aggregate; which of its \
                 windows that touches cannot be told, so it cannot be verified",
                entry.name
            )));
        }
        let (mut sources, mut notes) = (vec![], vec![]);
        for (name, source) in &known.sources {
            let Some(position) = manifest.positions.get(name) else { continue };
            if position.tail.is_some() {
                return Err(Error::input(format!(
                    "view {}: {name} has come to its log, whose messages cannot be read again as they were; it can be verified \
                     over its history alone",
                    entry.name
                )));
            }
            let input = source.input();
            let mut files = read_so_far(&input, position, checkpoints).await?;
            source.history.look(&mut files.iter_mut().collect::<Vec<_>>()).await?;
            let deleted = source.history.deleted(&files).await?;
            let mut read = vec![];
            for (file, deleted) in files.into_iter().zip(deleted) {
                let rows = listed.get(&(name.clone(), file.path.clone())).cloned().unwrap_or_default();
                let mut of_file = Read { rows: 0, late: vec![], partly: vec![], file, deleted };
                if !rows.is_empty() {
                    of_file.rows = rows_of(&input, &of_file).await?;
                }
                for (row, until) in rows {
                    match until {
                        None => of_file.late.push(row),
                        Some(until) => of_file.partly.push((row, until)),
                    }
                }
                read.push(of_file);
            }
            for file in &read {
                listed.remove(&(name.clone(), file.file.path.clone()));
            }
            let gone: usize = listed.iter().filter(|((of, _), _)| of == name).map(|(_, rows)| rows.len()).sum();
            if gone > 0 {
                notes.push(format!(
                    "{gone} late or bad rows of {name} lie in files that were rewritten since, where they cannot be told from \
                     others: the answer may count them"
                ));
            }
            let (layout, time_column) = (source.layout().clone(), source.time_column.clone());
            sources.push(Source { name: name.clone(), layout, time_column, files: read });
        }
        Ok(Facts { sources, from: None, notes })
    }

    pub(super) fn files(&self) -> Vec<&DataFile> {
        self.sources.iter().flat_map(|s| s.files.iter().map(|f| &f.file)).collect()
    }

    /// The ends of windows up to which rows missed some.
    pub(super) fn missed(&self) -> impl Iterator<Item = EventTime> {
        self.sources.iter().flat_map(|s| s.files.iter().flat_map(|f| f.partly.iter().map(|(_, until)| *until)))
    }

    /// Makes the facts known to a planner: all, or those that some windows are made from.
    pub(super) fn register(&self, known: &mut Known, needs: Option<&Needs>) -> Result<()> {
        for source in &self.sources {
            let wanted = |f: &&Read| match (needs, f.file.times) {
                (Some(needs), Times::Known { min, max, .. }) => min < needs.end && needs.start <= max,
                _ => true,
            };
            let missed = needs.map_or(EventTime::MIN, |needs| needs.missed);
            let files = source.files.iter().filter(wanted).map(|f| f.scan(missed)).collect();
            let start = needs.map_or(EventTime::MIN, |n| n.start).max(self.from.unwrap_or(EventTime::MIN));
            let between = Interval { start, end: needs.map_or(EventTime::MAX, |n| n.end) };
            let facts = facts_between(source.layout.clone(), files, &source.time_column, between)?;
            known.planner.add_table_provider(&source.name, facts)?;
        }
        Ok(())
    }
}

/// The facts of a version of a history whose event times lie in an interval, less the rows that are marked as deleted.
pub(crate) async fn facts_of(
    history: &dyn History,
    snapshot: &Snapshot,
    time_column: &str,
    between: Interval,
) -> Result<Arc<dyn TableProvider>> {
    let wanted = |file: &&DataFile| match file.times {
        Times::Known { min, max, .. } => min < between.end && max >= between.start,
        Times::Unknown => true,
    };
    let all = snapshot.timeless.iter().chain(snapshot.partitions.iter().flat_map(|p| &p.files));
    let files: Vec<DataFile> = all.filter(wanted).cloned().collect();
    let deleted = history.deleted(&files).await?;
    let scan = |(file, deleted): (DataFile, _)| ScanFile { range: file.range, file, deleted };
    let files = files.into_iter().zip(deleted).map(scan).collect();
    facts_between(history.layout().clone(), files, time_column, between)
}

/// The rows of some files whose event times lie in an interval.
fn facts_between(
    layout: Layout,
    files: Vec<ScanFile>,
    time_column: &str,
    between: Interval,
) -> Result<Arc<dyn TableProvider>> {
    let mut frame = SessionContext::new().read_table(files_table(layout, files)).map_err(in_query)?;
    let time_type = frame.schema().field_with_unqualified_name(time_column).map_err(in_query)?.data_type().clone();
    let at = |time: EventTime| {
        let literal = ScalarValue::TimestampMicrosecond(Some(time.0), None);
        let zoned = ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into()));
        lit(if matches!(time_type, DataType::Timestamp(_, Some(_))) { zoned } else { literal })
    };
    if between.start != EventTime::MIN {
        frame = frame.filter(column(time_column).gt_eq(at(between.start))).map_err(in_query)?;
    }
    if between.end != EventTime::MAX {
        frame = frame.filter(column(time_column).lt(at(between.end))).map_err(in_query)?;
    }
    Ok(frame.into_view())
}

impl Read {
    /// The file less its deleted rows and those that were not used in windows that end at or after `missed`.
    fn scan(&self, missed: EventTime) -> ScanFile {
        let partly = self.partly.iter().filter(|(_, until)| *until >= missed).map(|(row, _)| *row);
        let left_out: Vec<u64> = self.late.iter().copied().chain(partly).collect();
        let deleted = match left_out.is_empty() {
            true => self.deleted.clone(),
            false => Some(Arc::new(without(self.deleted.as_deref(), left_out, self.rows))),
        };
        ScanFile { file: self.file.clone(), range: self.file.range, deleted }
    }
}

/// Deleted rows and others, as one.
fn without(deleted: Option<&DeletedRows>, rows: Vec<u64>, total: u64) -> DeletedRows {
    let mut all: Vec<Range<u64>> = deleted.map(|d| d.runs.clone()).unwrap_or_default();
    all.extend(rows.into_iter().map(|row| row..row + 1));
    all.sort_by_key(|run| run.start);
    let mut runs: Vec<Range<u64>> = vec![];
    for run in all {
        match runs.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => runs.push(run),
        }
    }
    DeletedRows { rows: total, runs }
}

/// How many rows the whole file has.
async fn rows_of(input: &Input, read: &Read) -> Result<u64> {
    if let Some(deleted) = &read.deleted {
        return Ok(deleted.rows);
    }
    if let (None, Some(rows)) = (read.file.range, read.file.rows) {
        return Ok(rows);
    }
    if input.history.layout().text.is_some() {
        // Rows of text are known by their lines, and nobody has counted those.
        return Ok(u64::MAX);
    }
    let mut whole = DataFile { range: None, rows: None, times: Times::Unknown, ..read.file.clone() };
    input.history.look(&mut [&mut whole]).await?;
    whole.rows.ok_or_else(|| {
        Error::input(format!("source {}: how many rows file {} has cannot be told", input.name, read.file.path))
    })
}

/// The rows that are listed as late or bad, by source and file.
async fn listed(engine: &Engine, session: &Session<'_>, entry: &Entry, lowered: &Lowered) -> Result<Listed> {
    let form = match lowered.stages.first().map(|stage| stage.spec.windows) {
        Some(Windows::Paned(form)) => Some(form),
        _ => None,
    };
    let table = late::open(engine, &session.layers.settings()?, &late::of(engine, entry)).await?;
    let context = SessionContext::new_with_config_rt(Default::default(), engine.runtime(&session.layers.settings()?)?);
    let columns = ["_source", "_file", "_row", "_event_time", "_watermark", "_missed_until"].map(column);
    let frame = context.read_table(table).and_then(|frame| frame.select(columns)).map_err(in_query)?;
    let mut batches = frame.execute_stream().await.map_err(in_query)?;
    let mut listed = Listed::new();
    while let Some(batch) = batches.try_next().await.map_err(in_query)? {
        let odd = |e: arrow::error::ArrowError| Error::input(format!("the table of late rows of {}: {e}", entry.name));
        let text = |i: usize| cast(batch.column(i), &DataType::Utf8).map_err(odd);
        let micros = |i: usize| {
            let time = cast(batch.column(i), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
            time.and_then(|time| cast(&time, &DataType::Int64)).map_err(odd)
        };
        let numbers = cast(batch.column(2), &DataType::Int64).map_err(odd)?;
        let (sources, paths, times, watermarks, until) = (text(0)?, text(1)?, micros(3)?, micros(4)?, micros(5)?);
        let numbers = numbers.as_primitive::<Int64Type>();
        let at = |column: &arrow::array::ArrayRef, row: usize| {
            let column = column.as_primitive::<Int64Type>();
            arrow::array::Array::is_valid(column, row).then(|| EventTime(column.value(row)))
        };
        for row in 0..batch.num_rows() {
            let partly = partly(form, at(&times, row), at(&watermarks, row)).then(|| at(&until, row)).flatten();
            let key =
                (sources.as_string::<i32>().value(row).to_string(), paths.as_string::<i32>().value(row).to_string());
            listed.entry(key).or_default().push((u64::try_from(numbers.value(row)).unwrap_or(0), partly));
        }
    }
    Ok(listed)
}

/// Whether a listed row was used in some windows.
fn partly(form: Option<WindowForm>, time: Option<EventTime>, watermark: Option<EventTime>) -> bool {
    match (form, time, watermark) {
        (Some(form), Some(time), Some(watermark)) => time >= form.lost_before(watermark),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_left_out_once() {
        let deleted = DeletedRows { rows: 20, runs: vec![3..5, 10..11] };
        let both = without(Some(&deleted), vec![11, 4, 0, 5], 20);
        assert_eq!(both, DeletedRows { rows: 20, runs: vec![0..1, 3..6, 10..12] });
    }
}
