//! From a statement to a job that runs: `CREATE MATERIALIZED VIEW`, `INSERT INTO … SELECT` and `CREATE SINK`.
//!
//! ```text
//!  statement ─decide─▶ catalog entry or draft ─lower─▶ Planned ─make─▶ (catalog, tables) ─▶ runtime::Job ─run─▶ Summary
//! ```
//!
//! Planning changes nothing and tells every error it can; [`make`] writes the catalog first and then the tables, each of
//! which can be found done by whoever comes after a crash.
//!
//! * [`result`]: the table that a job fills.
//! * [`topic`]: the topic that a sink fills.
//! * [`outlet`]: where the rows of a sink go, into a topic or elsewhere.
//! * [`explain`]: a job in words.
//! * [`made`]: catalog and tables written, the job put together and run.
//! * [`playback`]: messages that could not be read, read once more.
//!
//! Invariant: what a job computes is fixed by its catalog entry (statement, the views it goes through, `from`); settings of
//! a later run change how fast, how far and in which pieces, never what.

mod result;

mod topic;

mod outlet;

mod explain;

mod made;

mod playback;

pub(crate) use explain::explain;
pub(crate) use made::{make, of_job, run};
pub(crate) use outlet::{prints_rows, what_stays};
pub(crate) use playback::{check_playback, play_back};

use std::collections::BTreeMap;

use watershed_core::error::Place;
use watershed_core::settings::{Late, Settings};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};
use watershed_lake::{Create, DeltaSink, SinkOptions, TableSpec};
use watershed_plan::{LowerOptions, Lowered, Parsed, Query, Statement};
use watershed_runtime::Early;

use crate::catalog::{Draft, Entry, Kind};
use crate::declare::{Decision, canonical, decide, pretty};
use crate::diff::diff;
use crate::early;
use crate::engine::{Engine, parallelism, relation, shown};
use crate::execute::{Session, at};
use crate::layers::{Scope, With};
use crate::listing;
use crate::relations::{self, Known};
use crate::repair;
use crate::tables::{RESULT, late_location};
use outlet::Outlet;
use result::{Target, refuse_foreign, table_spec};

const OF_VIEWS: [&str; 3] = ["location", "partition_by", "primary_key"];
const OF_INSERTS: [&str; 3] = ["job", "operation", "archive"];
const OF_SINKS: [&str; 5] = ["topic", "location", "format", "key", "delivery"];

/// What a statement comes to that may be a job.
pub(crate) enum Next {
    Job(Box<Planned>),
    /// Nothing to run, and why.
    Nothing(String),
}

/// A job that could be planned; nothing has been done for it yet.
pub(crate) struct Planned {
    pub(crate) name: String,
    /// Where its result lies.
    pub(crate) location: String,
    late: String,
    standing: Standing,
    settings: Settings,
    parallelism: usize,
    lowered: Lowered,
    known: Known,
    query: Query,
    created: EventTime,
    early: Option<Early>,
    output: Output,
    /// What an INSERT over one log calls the archive that it makes.
    archive: Option<String>,
}

/// What a job fills.
enum Output {
    Table {
        spec: TableSpec,
        /// The target's columns, for INSERT, which goes by position.
        columns: Option<Vec<String>>,
    },
    Outlet(Outlet),
}

/// What the catalog has to say of it.
enum Standing {
    Resume(Entry),
    New(Draft),
    Replace(Entry, Draft),
}

/// The parts of a statement that make a job.
pub(crate) struct Asked<'a> {
    pub(crate) kind: Kind,
    /// Of the job.
    pub(crate) name: String,
    pub(crate) with: With,
    pub(crate) query: &'a Query,
    /// The table's catalog entry, for INSERT.
    into: Option<&'a Entry>,
    /// `EMIT EVERY`
    emit_every: Option<Span>,
}

/// Plans the job of a statement.
pub(crate) async fn plan(session: &Session<'_>, parsed: &Parsed) -> Result<Next> {
    let engine = session.engine;
    let asked = asked(session, parsed)?;
    let (text, manners) = canonical(&parsed.statement);
    let taken = taken_by(session, &asked, parsed.at)?;
    let (existing, replaces) = match decide(taken, asked.kind, &asked.name, &text, manners, parsed.at)? {
        Decision::Create => (None, None),
        // A job that was ended cannot go on, and OR REPLACE is what is written to build it anew.
        Decision::Resume(entry) if manners.or_replace && listing::has_ended(engine, &entry).await? => {
            (None, Some(entry))
        }
        Decision::Resume(entry) => (Some(entry), None),
        Decision::Replace(entry) => (None, Some(entry)),
        Decision::Keep(entry) => {
            return Ok(Next::Nothing(format!(
                "{} {} exists with another statement, and is kept",
                entry.kind, entry.name
            )));
        }
    };
    let mut settings = session.layers.resolve(&asked.with.settings)?;
    let fixed = fix(&mut settings, existing.as_ref(), parsed.at)?;
    let created = existing.as_ref().map_or_else(|| engine.clock().now(), |entry| entry.created);
    let (known, lowered) = lower(session, &asked, &settings, created).await?;
    let early = early::early(asked.emit_every, &asked.name, &lowered, parsed.at)?;
    repair::check(&settings, asked.kind, &asked.name, &lowered, &known, parsed.at)?;
    if let Some(entry) = &existing {
        check_views(entry, &known.views, parsed.at)?;
    }
    let outlet = match asked.kind {
        Kind::Sink => Some(Outlet::of(engine, &asked, &lowered).map_err(|e| at(e, parsed.at))?),
        _ => None,
    };
    let location = match (&existing, asked.into) {
        (None, None) if outlet.is_some() => outlet.as_ref().map(Outlet::location).unwrap_or_default(),
        (_, Some(table)) => engine.location(table),
        (Some(entry), None) => engine.location(entry),
        (None, None) => match asked.with.own("location") {
            Some(location) => shown(&engine.stores().open(location)?),
            None => engine.default_location(&asked.name),
        },
    };
    let output = match outlet {
        Some(outlet) => {
            outlet.check(engine, &asked.name).await.map_err(|e| at(e, parsed.at))?;
            Output::Outlet(outlet)
        }
        None => {
            let target = asked.into.map(|table| Target::of(session, table, &asked, &lowered, parsed.at)).transpose()?;
            let spec = table_spec(&asked, &lowered, target.as_ref(), parsed.at)?;
            check_table(engine, &location, &asked, &spec, existing.is_some(), parsed.at).await?;
            Output::Table { spec, columns: target.map(|target| target.columns) }
        }
    };
    let draft = || Draft {
        kind: asked.kind,
        name: asked.name.clone(),
        statement: text.clone(),
        location: asked.with.own("location").or(asked.with.own("topic")).map(|_| location.clone()),
        incarnation: engine.clock().id(),
        or_replace: manners.or_replace,
        fixed: fixed.clone(),
        views: known.views.clone(),
        created,
    };
    let standing = match (existing, replaces) {
        (Some(entry), _) => Standing::Resume(entry),
        (None, Some(old)) => Standing::Replace(old, draft()),
        (None, None) => Standing::New(draft()),
    };
    let late = match asked.kind {
        Kind::Insert | Kind::Sink => late_location(&engine.default_location(&asked.name)),
        _ => late_location(&location),
    };
    let archive = archive(&asked, &lowered, &known, parsed.at)?;
    Ok(Next::Job(Box::new(Planned {
        name: asked.name,
        archive,
        location,
        late,
        standing,
        parallelism: parallelism(&settings),
        settings,
        lowered,
        known,
        query: asked.query.clone(),
        created,
        early,
        output,
    })))
}

/// Before anything is written: what fails after the catalog has the statement would stand in the way of the mended one.
async fn check_table(
    engine: &Engine,
    location: &str,
    asked: &Asked<'_>,
    table: &TableSpec,
    exists: bool,
    place: Place,
) -> Result<()> {
    match asked.into {
        _ if exists => Ok(()),
        None => {
            refuse_foreign(engine, location, asked, place).await?;
            table.check(location).map_err(|e| at(e, place))
        }
        Some(_) => {
            let options = SinkOptions { create: Create::AtFirstRows, ..SinkOptions::default() };
            let clock = engine.clock().clone();
            let target = DeltaSink::open(engine.stores(), RESULT, location, table.clone(), options, clock).await;
            target.map(|_| ()).map_err(|e| at(e, place))
        }
    }
}

/// An INSERT of a log's messages, row by row, is its archive: each commit says how far.
fn archive(asked: &Asked<'_>, lowered: &Lowered, known: &Known, place: Place) -> Result<Option<String>> {
    let logs = known.sources.values().filter(|source| source.tail.is_some()).count();
    let is_one = asked.into.is_some() && lowered.stages.is_empty() && logs == 1 && known.sources.len() == 1;
    match asked.with.own("archive") {
        Some(_) if !is_one => Err(Error::sql_at(
            "archive: this INSERT is none; an archive is an INSERT without aggregates from one source that has a log",
            Some(place),
        )),
        Some(name) => Ok(Some(name.to_string())),
        None => Ok(is_one.then(|| asked.name.clone())),
    }
}

/// A statement's kind as the catalog has it.
pub(crate) fn kind_of(kind: watershed_plan::Kind) -> Kind {
    match kind {
        watershed_plan::Kind::Source => Kind::Source,
        watershed_plan::Kind::Table => Kind::Table,
        watershed_plan::Kind::ExternalTable => Kind::ExternalTable,
        watershed_plan::Kind::View => Kind::View,
        watershed_plan::Kind::MaterializedView => Kind::MaterializedView,
        watershed_plan::Kind::Sink => Kind::Sink,
    }
}

pub(crate) fn asked<'a>(session: &'a Session<'_>, parsed: &'a Parsed) -> Result<Asked<'a>> {
    match &parsed.statement {
        Statement::CreateMaterializedView(view) => Ok(Asked {
            kind: Kind::MaterializedView,
            name: view.name.clone(),
            with: With::sort(&view.options, &OF_VIEWS, Scope::Job, &format!("view {}", view.name))?,
            query: &view.query,
            into: None,
            emit_every: view.emit_every,
        }),
        Statement::CreateSink(sink) => Ok(Asked {
            kind: Kind::Sink,
            name: sink.name.clone(),
            with: With::sort(&sink.options, &OF_SINKS, Scope::Sink, &format!("sink {}", sink.name))?,
            query: &sink.query,
            into: None,
            emit_every: None,
        }),
        Statement::Insert(insert) => {
            let with = With::sort(&insert.options, &OF_INSERTS, Scope::Job, &format!("INSERT INTO {}", insert.table))?;
            let table = match relation(&session.entries, &insert.table) {
                Some(entry) if entry.kind == Kind::Table => entry,
                Some(other) => {
                    let message = format!(
                        "INSERT INTO {}: that is {}, not a table; rows go into what CREATE TABLE made",
                        insert.table,
                        other.kind.one()
                    );
                    return Err(Error::sql_at(message, Some(parsed.at)));
                }
                None => {
                    let message =
                        format!("INSERT INTO {0}: there is no table {0}; CREATE TABLE {0} (…) first", insert.table);
                    return Err(Error::sql_at(message, Some(parsed.at)));
                }
            };
            let name = with.own("job").unwrap_or(&insert.table).to_string();
            Ok(Asked { kind: Kind::Insert, name, with, query: &insert.query, into: Some(table), emit_every: None })
        }
        _ => Err(Error::bug("a statement that is no job was planned as one")),
    }
}

/// What has the name already: relations share one space of names, jobs another, and a materialized view is in both.
fn taken_by<'a>(session: &'a Session<'_>, asked: &Asked<'_>, at: Place) -> Result<Option<&'a Entry>> {
    let job = session.entries.iter().find(|e| e.kind.is_job() && e.name == asked.name);
    match (asked.kind, job) {
        (Kind::Insert, Some(view)) if view.kind == Kind::MaterializedView => {
            let message =
                format!("job {0} is that of view {0}; name this one: INSERT INTO … WITH (job = '…')", asked.name);
            Err(Error::sql_at(message, Some(at)))
        }
        (Kind::Insert | Kind::Sink, job) => Ok(job),
        (_, Some(sink)) if sink.kind == Kind::Sink => Ok(Some(sink)),
        (_, Some(insert)) if insert.kind == Kind::Insert => {
            let message = format!("{} is the name of an INSERT job; take another name for the view", asked.name);
            Err(Error::sql_at(message, Some(at)))
        }
        _ => Ok(relation(&session.entries, &asked.name)),
    }
}

/// What is fixed of a job that puts late facts right.
pub(crate) const LATE: &str = "late";

/// What says which rows the result has is fixed when the job is made: where it begins, and what becomes of late facts. Later
/// runs take the catalog's, and are told when they ask for another.
fn fix(settings: &mut Settings, existing: Option<&Entry>, at: Place) -> Result<BTreeMap<String, String>> {
    const FROM: &str = "from";
    if let Some(entry) = existing {
        let mut fixed = Settings::default();
        for name in [FROM, LATE] {
            if let Some(value) = entry.fixed.get(name) {
                fixed.set(name, value)?;
            }
        }
        if settings.late == Late::Repair && fixed.late != Late::Repair {
            let message = format!(
                "{} {} keeps its late facts beside the result, which is fixed when it is made; to have them put right, drop it and \
                 create it anew with late = 'repair'",
                entry.kind, entry.name
            );
            return Err(Error::sql_at(message, Some(at)));
        }
        settings.late = fixed.late;
        if settings.from.is_some() && settings.from != fixed.from {
            let began = fixed.from.map_or("the beginning".to_string(), |from| from.to_string());
            let message = format!(
                "{} {} begins at {began}, which is fixed when it is made; to begin elsewhere, drop it and create it anew",
                entry.kind, entry.name
            );
            return Err(Error::sql_at(message, Some(at)));
        }
        settings.from = fixed.from;
        return Ok(entry.fixed.clone());
    }
    let from = settings.from.map(|from| (FROM.to_string(), from.to_string()));
    let late = (settings.late == Late::Repair).then(|| (LATE.to_string(), "repair".to_string()));
    Ok(from.into_iter().chain(late).collect())
}

async fn lower(
    session: &Session<'_>,
    asked: &Asked<'_>,
    settings: &Settings,
    made: EventTime,
) -> Result<(Known, Lowered)> {
    let known = relations::streaming(session.engine, &session.entries, &session.layers, settings, asked.query).await?;
    let options = LowerOptions { parallelism: parallelism(settings), from: settings.from, made };
    let lowered = known.planner.lower(asked.query, &options).await?;
    if lowered.inputs.is_empty() {
        return Err(Error::sql(format!(
            "{} {} reads from no source; a job needs one (CREATE SOURCE), and constant rows are loaded with `watershed load`",
            asked.kind, asked.name
        )));
    }
    Ok((known, lowered))
}

/// The views that the query goes through are part of what it means.
fn check_views(entry: &Entry, now: &BTreeMap<String, String>, at: Place) -> Result<()> {
    let changed = now.iter().find(|(name, text)| entry.views.get(*name) != Some(text));
    let Some((name, text)) = changed else { return Ok(()) };
    let before = entry.views.get(name).map(|text| pretty(text)).unwrap_or_default();
    Err(Error::sql_at(
        format!(
            "view {name}, which {} {} reads, was changed since (- then, + now):\n{}\nput the old one back, or drop and create \
             {} anew",
            entry.kind,
            entry.name,
            diff(&before, &pretty(text)),
            entry.name
        ),
        Some(at),
    ))
}
