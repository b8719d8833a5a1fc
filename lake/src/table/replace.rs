//! An epoch's files in the place of rows that the table has: those whose time in a column lies in an interval, or those that
//! have certain texts in certain columns.
//!
//! It is how windows of a view are put right that were emitted before: all their rows go, and the new ones come, in one
//! commit. No key is asked for, so a row that is no more is gone as well, and NULL in a key is a value like any other. And it
//! is how messages that were played back leave the table of rejected rows.
//!
//! ```text
//!  live files ─ bounds of the column ─▶ those that may have such rows ─ read the columns ─▶ marks ─▶ vectors ─▶ actions
//! ```
//!
//! **Invariant:** which rows go is found out on the version right before the commit, and anew whenever another commit came
//! first: nothing of an attempt is kept for the next but the list of the table's files, which the log brings up to date.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMicrosecondType};
use async_trait::async_trait;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use serde_json::json;
use watershed_core::clock::Clock;
use watershed_core::history::Times;
use watershed_core::sink::{Deleted, PreparedCommit, Replaced};
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};

use super::commit::{Actions, Change, Conflict, add, body, conflict};
use super::shape::{Shape, Stored};
use crate::data_file::{DataFile, constant};
use crate::history::statistics_of;
use crate::keyed::live::{LiveFile, LiveFiles};
use crate::keyed::vectors;
use crate::log::{self, Refreshed, TableState, features};
use crate::stores::Place;

/// Files whose columns are read at once.
const CONCURRENT: usize = 4;

/// Commits that are followed; beyond that the list of files is read anew.
const FOLLOWED: u64 = 64;

/// Rows that are read at a time.
const BATCH: usize = 8192;

/// See the module's page.
pub(crate) struct Replace<'a> {
    pub(crate) place: &'a Place,
    pub(crate) prepared: &'a PreparedCommit,
    pub(crate) which: Which<'a>,
    pub(crate) shape: &'a Shape,
    pub(crate) known: &'a mut Known,
    pub(crate) clock: &'a dyn Clock,
}

/// The files of a version, kept from one commit to the next.
#[derive(Debug, Default)]
pub(crate) struct Known(Option<(u64, LiveFiles)>);

impl Known {
    /// Brought to a version: by the commits since, if they are few.
    async fn at(&mut self, place: &Place, version: u64, partition_columns: &[String]) -> Result<&LiveFiles> {
        let known = self.0.take().filter(|(known, _)| *known <= version && version - *known <= FOLLOWED);
        let live = match known {
            Some((known, live)) => follow(place, live, known, version).await?,
            None => None,
        };
        let live = match live {
            Some(live) => live.without_old_ids(),
            None => LiveFiles::load(place, version, partition_columns).await?,
        };
        Ok(&self.0.insert((version, live)).1)
    }
}

/// `None` where an entry of the log in between is gone.
async fn follow(place: &Place, mut live: LiveFiles, from: u64, to: u64) -> Result<Option<LiveFiles>> {
    for version in from + 1..=to {
        match log::read_commit(place, version).await? {
            Some(commit) => live.apply(&commit),
            None => return Ok(None),
        }
    }
    Ok(Some(live))
}

/// The rows that go.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    InTimes(&'a Replaced),
    WithTexts(&'a Deleted),
}

/// What becomes of a file that is live.
struct Marked {
    file: Arc<LiveFile>,
    /// All rows of it that are marked from now on; `None`: none of its rows is left.
    marks: Option<Arc<RoaringTreemap>>,
}

#[async_trait]
impl Change for Replace<'_> {
    async fn follow(&mut self, applications: &[&str], came: &Refreshed) -> Result<Conflict> {
        Ok(match came {
            Refreshed::Commits(winning) => conflict(applications, winning),
            Refreshed::Anew => Conflict::Table,
        })
    }

    async fn actions(&mut self, state: &TableState, now: i64) -> Result<Actions> {
        let table = self.place.url.as_str();
        features::check_replaceable(table, &state.metadata)?;
        if features::feeds_changes(&state.metadata) {
            return Err(Error::stopped(format!(
                "table {table} keeps a change data feed (delta.enableChangeDataFeed), which windows that are put right do not \
                 write; remove the property, or build the view anew with late = 'table'"
            )));
        }
        let which = self.which;
        let live = self.known.at(self.place, state.version, &self.shape.partition_columns).await?;
        let files: Vec<Arc<LiveFile>> = live.iter().filter(|file| may_have(which, file)).cloned().collect();
        let this = &*self;
        let marked = futures::stream::iter(files.into_iter().map(|file| this.mark(file)));
        let marked: Vec<Option<Marked>> = marked.buffered(CONCURRENT).try_collect().await?;
        let (mut actions, mut again, mut marks) = (vec![], vec![], vec![]);
        for Marked { file, marks: of_file } in marked.into_iter().flatten() {
            actions.push(("remove", body(&file.remove_action(now, true))?));
            if let Some(of_file) = of_file {
                let stats = file.add.stats.as_deref().map(vectors::loose);
                again.push(Add { data_change: true, deletion_vector: None, stats, ..file.add.clone() });
                marks.push(of_file);
            }
        }
        for file in &self.prepared.files {
            actions.push(("add", body(&add(file, now)?)?));
        }
        let written = vectors::write(self.place, self.clock.id(), &marks).await?;
        for (add, vector) in again.into_iter().zip(written) {
            actions.push(("add", body(&Add { deletion_vector: Some(vector), ..add })?));
        }
        // The view owns its table, so it may ask of readers what a repair needs.
        if !marks.is_empty()
            && let Some((protocol, metadata)) = features::with_deletion_vectors(table, state, true)?
        {
            actions.push(("protocol", body(&protocol)?));
            actions.push(("metaData", body(&metadata)?));
        }
        Ok(Actions {
            operation: "WRITE",
            // Spark takes text only.
            parameters: json!({
                "mode": "Overwrite",
                "predicate": self.which.predicate(),
                "partitionBy": json!(self.shape.partition_columns).to_string(),
            }),
            blind: false,
            actions,
        })
    }
}

/// Whether statistics leave it open that a file has such rows.
fn may_have(which: Which<'_>, file: &LiveFile) -> bool {
    let Which::InTimes(Replaced { column, times }) = which else { return true };
    match statistics_of(file.add.stats.as_deref(), Some(column)).1 {
        Times::Known { min, max, .. } => times.iter().any(|of| min < of.end && max >= of.start),
        Times::Unknown => true,
    }
}

impl Replace<'_> {
    /// The rows of a file that go; `None` if none does.
    async fn mark(&self, file: Arc<LiveFile>) -> Result<Option<Marked>> {
        let size = u64::try_from(file.add.size).unwrap_or_default();
        let opened = DataFile::open(self.place, &file.add.path, size).await?;
        let rows = opened.rows();
        let known = file.marks(self.place).await?;
        let mut marks = match self.which {
            Which::InTimes(replaced) => self.in_times(replaced, &file, opened).await?,
            Which::WithTexts(deleted) => self.with_texts(deleted, opened).await?,
        };
        if marks.is_subset(&known) {
            return Ok(None);
        }
        marks |= known.as_ref();
        let marks = (marks.len() < rows).then(|| Arc::new(marks));
        Ok(Some(Marked { file, marks }))
    }

    async fn in_times(&self, replaced: &Replaced, file: &LiveFile, opened: DataFile) -> Result<RoaringTreemap> {
        let Replaced { column, times } = replaced;
        let mut marks = RoaringTreemap::new();
        let odd = |e| Error::stopped(format!("{}{}: {column} holds no times: {e}", self.place.url, file.add.path));
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let goes = |time: i64| {
            let at = times.partition_point(|of| of.end <= EventTime(time));
            times.get(at).is_some_and(|of| of.start <= EventTime(time))
        };
        match self.shape.find(column).ok_or_else(|| self.missing(column))? {
            Stored::InPartitions(at, field) => {
                let value = file.partition.get(at).and_then(Option::as_deref);
                let value = constant(value, field.data_type(), 1).and_then(|value| cast(&value, &micros));
                let value = value.map_err(odd)?;
                let value = value.as_primitive::<TimestampMicrosecondType>();
                if value.is_valid(0) && goes(value.value(0)) {
                    marks.insert_range(0..opened.rows());
                }
            }
            Stored::InFiles(_, field) => {
                let mut batches = opened.read(&[field], None, BATCH)?;
                let mut row = 0;
                while let Some(batch) = batches.try_next().await? {
                    let of_batch = cast(batch.column(0), &micros).map_err(odd)?;
                    for time in of_batch.as_primitive::<TimestampMicrosecondType>() {
                        if time.is_some_and(goes) {
                            marks.insert(row);
                        }
                        row += 1;
                    }
                }
            }
        }
        Ok(marks)
    }

    async fn with_texts(&self, deleted: &Deleted, opened: DataFile) -> Result<RoaringTreemap> {
        let field = |column: &String| match self.shape.find(column) {
            Some(Stored::InFiles(_, field)) => Ok(field.as_ref().clone().with_data_type(DataType::Utf8).into()),
            _ => Err(self.missing(column)),
        };
        let fields = deleted.texts.keys().map(field).collect::<Result<Vec<FieldRef>>>()?;
        let mut batches = opened.read(&fields, None, BATCH)?;
        let (mut marks, mut before) = (RoaringTreemap::new(), 0);
        while let Some(batch) = batches.try_next().await? {
            let has = |(column, texts): (&ArrayRef, &BTreeSet<String>), row: usize| {
                column.is_valid(row) && texts.contains(column.as_string::<i32>().value(row))
            };
            let goes = |row: &usize| batch.columns().iter().zip(deleted.texts.values()).all(|pair| has(pair, *row));
            marks.extend((0..batch.num_rows()).filter(goes).map(|row| before + row as u64));
            before += batch.num_rows() as u64;
        }
        Ok(marks)
    }

    fn missing(&self, column: &str) -> Error {
        Error::stopped(format!(
            "table {} has no column {column}, by which the rows are told that others stand in for; build the view anew",
            self.place.url
        ))
    }
}

impl<'a> Which<'a> {
    /// Those that a commit names, if it names any.
    pub(crate) fn of(prepared: &'a PreparedCommit) -> Result<Option<Which<'a>>> {
        match (&prepared.replaced, &prepared.deleted) {
            (None, None) => Ok(None),
            (Some(replaced), None) => Ok(Some(Which::InTimes(replaced))),
            (None, Some(deleted)) => Ok(Some(Which::WithTexts(deleted))),
            (Some(_), Some(_)) => Err(Error::bug("a commit names the rows that go in two ways")),
        }
    }

    /// As SQL has it.
    fn predicate(self) -> String {
        match self {
            Which::InTimes(Replaced { column, times }) => {
                let one = |of: &Interval| format!("({column} >= '{}' AND {column} < '{}')", of.start, of.end);
                times.iter().map(one).collect::<Vec<_>>().join(" OR ")
            }
            Which::WithTexts(Deleted { texts }) => {
                let quoted = |text: &String| format!("'{}'", text.replace('\'', "''"));
                let one = |(column, texts): (&String, &BTreeSet<String>)| {
                    format!("{column} IN ({})", texts.iter().map(quoted).collect::<Vec<_>>().join(", "))
                };
                texts.iter().map(one).collect::<Vec<_>>().join(" AND ")
            }
        }
    }
}
