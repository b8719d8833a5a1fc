//! A view held against the batch answer over the very facts that it was made from.
//!
//! ```text
//!  newest checkpoint ─▶ versions, positions ─▶ files read ─ less late and bad rows ─▶ batch query ─┐
//!                    └▶ watermark ─▶ which windows are final                                        ├─▶ differences
//!  result table ────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A windowed view is compared stretch by stretch of its windows, so that memory depends on a stretch's rows and not on the
//! history's length. A view without windows is compared by counts and sums of hashes first, and only what differs is looked
//! at.
//!
//! * [`facts`]: which rows the view was made from.
//! * [`stretches`]: which windows are compared together.
//! * [`compare`]: rows with a window, by key; [`bags`]: rows without.
//!
//! **Invariant:** nothing of what the job computed is used to compute the answer again, but which rows were late.

mod bags;

mod compare;

pub(crate) mod facts;

pub(crate) mod stretches;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, cast, lit};
use datafusion::prelude::SessionContext;
use serde::Serialize;
use watershed_core::epoch::Manifest;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};
use watershed_lake::loaded;
use watershed_plan::{LowerOptions, Statement, files_table};
use watershed_runtime::checkpoint::{Checkpoints, Newest};

use crate::batch::in_query;
use crate::catalog::{Entry, Kind};
use crate::engine::{Engine, RunOptions, parallelism, relation, unknown};
use crate::execute::Session;
use crate::relations::{self, files, open_table, query_of};
use facts::Facts;
use stretches::{Axis, Stretch};

/// What is verified, and how much of what differs is told.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Windows that begin (of CUMULATE: end) before this are left out.
    pub from: Option<EventTime>,
    /// And those from this on.
    pub to: Option<EventTime>,
    /// How many differing rows are shown.
    pub show: usize,
    /// How many windows' time is compared at once; `None`: by the bytes of the facts.
    pub stretch: Option<Span>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        VerifyOptions { from: None, to: None, show: 20, stretch: None }
    }
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verification {
    pub view: String,
    /// Up to which the view was verified.
    pub watermark: Option<EventTime>,
    pub epoch: u64,
    /// Rows of the batch answer, and of the table.
    pub expected: u64,
    pub found: u64,
    /// Rows of the answer that the table does not have; rows of the table that the answer does not; rows of the same key with
    /// other values. Without a key all that differs is missing or extra.
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// The first of them.
    pub shown: Vec<Difference>,
    /// What limits the verdict.
    pub notes: Vec<String>,
}

/// A row that differs, its values as text by column.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    Missing { expected: Vec<(String, String)> },
    Extra { found: Vec<(String, String)> },
    Different { key: Vec<(String, String)>, expected: Vec<(String, String)>, found: Vec<(String, String)> },
}

impl Verification {
    /// Whether the table holds what it should.
    pub fn holds(&self) -> bool {
        self.missing + self.extra + self.different == 0
    }
}

/// Verifies the view of a name.
pub(crate) async fn verify(engine: &Engine, name: &str, options: &VerifyOptions) -> Result<Verification> {
    let run = RunOptions::default();
    let session = Session::new(engine, &run).await?;
    let entry = relation(&session.entries, name).ok_or_else(|| unknown(&session.entries, name))?;
    if entry.kind != Kind::MaterializedView {
        return Err(Error::input(format!(
            "{name} is {}, and only materialized views can be verified",
            entry.kind.one()
        )));
    }
    let (store, home) = engine.home();
    let checkpoints = Checkpoints::new(store.clone(), home, &entry.name, entry.incarnation);
    let manifest = match checkpoints.newest().await? {
        Newest::Manifest(manifest) => *manifest,
        Newest::None => {
            return Err(Error::input(format!("view {name} has not been run yet; there is nothing to verify")));
        }
        Newest::Unreadable { why, .. } => return Err(Error::stopped(why)),
    };
    let location = engine.location(entry);
    committed(engine, entry, &location, &manifest).await?;
    let settings = session.layers.settings()?;
    let query = query_of(entry)?;
    let mut from = watershed_core::settings::Settings::default();
    if let Some(value) = entry.fixed.get("from") {
        from.set("from", value)?;
    }
    let known = relations::streaming(engine, &session.entries, &session.layers, &settings, &query).await?;
    let lower = LowerOptions { parallelism: parallelism(&settings), from: from.from, made: entry.created };
    let lowered = known.planner.lower(&query, &lower).await?;
    let mut told = Verification { view: name.to_string(), epoch: manifest.epoch, ..Verification::default() };
    told.watermark = (manifest.watermark != EventTime::MIN).then_some(manifest.watermark);
    for (dimension, version) in &known.dimensions {
        if manifest.positions.get(dimension).and_then(|p| p.version.as_ref()) != Some(version) {
            told.notes.push(format!(
                "table {dimension} has changed since the view was last run; rows are computed with what it holds now"
            ));
        }
    }
    let mut facts = Facts::of(engine, &session, entry, &known, &manifest, &checkpoints, &lowered).await?;
    facts.from = from.from;
    told.notes.append(&mut facts.notes);
    if !manifest.repairs.is_empty() {
        told.notes.push(format!(
            "{} stretches of windows wait to be put right for late facts, and will be found different until then",
            manifest.repairs.len()
        ));
    }
    // The batch side has a planner of its own, over files instead of holes.
    let mut batch = relations::tables_only(engine, &session.entries, &session.layers, &settings, &query).await?;
    let table = open_table(engine, &location).await?;
    engine.place(engine.stores(), &location, engine.runtime(&settings)?.as_ref())?;
    let found_files = files(table.as_ref(), table.pin(None).await?).await?;
    let found = files_table(table.layout().clone(), found_files);
    let context = SessionContext::new_with_config_rt(Default::default(), engine.runtime(&settings)?);
    let columns: Vec<String> = lowered.output.fields().iter().map(|f| f.name().clone()).collect();
    let pick = |frame: DataFrame| -> Result<DataFrame> {
        frame.select(columns.iter().map(|c| column(c)).collect::<Vec<_>>()).map_err(in_query)
    };
    // It closed every window, whatever the end of the last one.
    let watermark = if manifest.ended { EventTime::MAX } else { manifest.watermark };
    let axis = Axis::of(&lowered, watermark).map_err(|e| match e {
        Error::Input(why) => Error::input(format!("view {name} cannot be verified: {why}")),
        other => other,
    })?;
    let Some(axis) = axis else {
        facts.register(&mut batch, None)?;
        let expected = pick(batch.planner.batch_as_of(&query, entry.created).await?)?;
        let found = pick(context.read_table(found).map_err(in_query)?)?;
        if options.from.is_some() || options.to.is_some() {
            return Err(Error::input(format!(
                "view {name} has no windows: it is verified whole, without --from and --to"
            )));
        }
        bags::compare(expected, found, options.show, &mut told).await?;
        return Ok(told);
    };
    let key = lowered.key.clone();
    for stretch in axis.stretches(&facts, options) {
        facts.register(&mut batch, Some(&axis.facts_of(&stretch)))?;
        let expected = pick(batch.planner.batch_as_of(&query, entry.created).await?)?;
        let expected = within(expected, &axis, &stretch, true)?;
        let found = pick(context.read_table(found.clone()).map_err(in_query)?)?;
        let found = within(found, &axis, &stretch, false)?;
        let found = if emits_early(entry)? { final_only(found, &axis)? } else { found };
        compare::compare(expected, found, &key, options.show, &mut told).await?;
    }
    Ok(told)
}

/// Whether a view puts out what its open windows would be.
fn emits_early(entry: &Entry) -> Result<bool> {
    let statement = relations::statement_of(entry)?;
    Ok(matches!(statement, Statement::CreateMaterializedView(view) if view.emit_every.is_some()))
}

/// The rows of windows that are final.
fn final_only(frame: DataFrame, axis: &Axis) -> Result<DataFrame> {
    within(frame, axis, &Stretch { start: EventTime::MIN, end: axis.until }, false)
}

/// The table must have what the checkpoint says it has, or else it would be found wrong for being late.
async fn committed(engine: &Engine, entry: &Entry, location: &str, manifest: &Manifest) -> Result<()> {
    let late = crate::late::of(engine, entry);
    for (sink, location) in [("result", location), ("late", late.as_str())] {
        let Some(mine) = manifest.sinks.get(sink) else { continue };
        let application = format!("watershed/{}/{sink}", entry.incarnation);
        let wanted = if mine.prepared.is_empty() { mine.committed } else { Some(manifest.epoch) };
        let Some(wanted) = wanted else { continue };
        let has = loaded(engine.stores(), location, std::slice::from_ref(&application)).await?;
        if has.get(&application).is_none_or(|has| *has != wanted) {
            return Err(Error::stopped(format!(
                "table {location} does not stand where checkpoint {} of job {} does: the job is running, or was killed; let it \
                 end, or run it once more, and verify then",
                manifest.epoch, entry.name
            )));
        }
    }
    Ok(())
}

/// The rows whose windows are in a stretch; of the answer, those that are final.
pub(crate) fn within(frame: DataFrame, axis: &Axis, stretch: &Stretch, answer: bool) -> Result<DataFrame> {
    let time = cast(column(&axis.column), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let at = |time: EventTime| lit(ScalarValue::TimestampMicrosecond(Some(time.0), Some("UTC".into())));
    let mut frame = frame;
    let end = if answer { stretch.end.min(axis.until) } else { stretch.end };
    let start = if answer { stretch.start.max(axis.from) } else { stretch.start };
    if start != EventTime::MIN {
        frame = frame.filter(time.clone().gt_eq(at(start))).map_err(in_query)?;
    }
    if let Some((column_of_start, from)) = axis.starts.as_ref().filter(|_| answer) {
        let time = cast(column(column_of_start), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        frame = frame.filter(time.gt_eq(at(*from))).map_err(in_query)?;
    }
    if end != EventTime::MAX {
        frame = frame.filter(time.lt(at(end))).map_err(in_query)?;
    }
    Ok(frame)
}

/// A column by its very name.
pub(crate) fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}
