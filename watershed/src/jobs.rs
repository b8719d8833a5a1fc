//! From a statement to a job that runs: `CREATE MATERIALIZED VIEW` and `INSERT INTO … SELECT`.
//!
//! ```text
//!  statement ─decide─▶ catalog entry or draft ─lower─▶ Planned ─make─▶ (catalog, tables) ─▶ runtime::Job ─run─▶ Summary
//! ```
//!
//! Planning changes nothing and tells every error it can; [`make`] writes the catalog first and then the tables, each of
//! which can be found done by whoever comes after a crash.
//!
//! Invariant: what a job computes is fixed by its catalog entry (statement, the views it goes through, `from`); settings of
//! a later run change how fast, how far and in which pieces, never what.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use watershed_core::error::Place;
use watershed_core::settings::Settings;
use watershed_core::{Error, EventTime, Result};
use watershed_lake::{Create, DeltaSink, PartitionBy, SinkOptions, TableSpec};
use watershed_plan::{LowerOptions, Lowered, Parsed, Query, Statement};
use watershed_runtime::{Context, Goal, Job, Summary};

use crate::bindings;
use crate::catalog::{Draft, Entry, Kind};
use crate::declare::{Decision, canonical, decide, pretty};
use crate::diff::diff;
use crate::engine::{Engine, RunOptions, parallelism, relation, shown};
use crate::execute::{Session, at};
use crate::layers::{Scope, With};
use crate::listing;
use crate::memory;
use crate::relations::{self, Known};
use crate::storable::Storable;
use crate::tables::{self, RESULT, late_location};

/// The table property that names a view's key.
const PRIMARY_KEY: &str = "watershed.primary_key";

const OF_VIEWS: [&str; 3] = ["location", "partition_by", "primary_key"];
const OF_INSERTS: [&str; 1] = ["job"];

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
    table: TableSpec,
    /// The target's columns, for INSERT, which goes by position.
    columns: Option<Vec<String>>,
}

/// What the catalog has to say of it.
enum Standing {
    Resume(Entry),
    New(Draft),
    Replace(Entry, Draft),
}

/// The parts of either statement that make a job.
pub(crate) struct Asked<'a> {
    pub(crate) kind: Kind,
    /// Of the job.
    pub(crate) name: String,
    pub(crate) with: With,
    pub(crate) query: &'a Query,
    /// The table's catalog entry, for INSERT.
    into: Option<&'a Entry>,
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
    let fixed = fix_from(&mut settings, existing.as_ref(), parsed.at)?;
    let created = existing.as_ref().map_or_else(|| engine.clock().now(), |entry| entry.created);
    let (known, lowered) = lower(session, &asked, &settings, created).await?;
    if let Some(entry) = &existing {
        check_views(entry, &known.views, parsed.at)?;
    }
    let location = match (&existing, asked.into) {
        (_, Some(table)) => engine.location(table),
        (Some(entry), None) => engine.location(entry),
        (None, None) => match asked.with.own("location") {
            Some(location) => shown(&engine.stores().open(location)?),
            None => engine.default_location(&asked.name),
        },
    };
    let columns = asked.into.map(|table| insert_columns(table, &lowered, parsed.at)).transpose()?;
    let table = table_spec(&asked, &lowered, columns.as_deref(), parsed.at)?;
    // Before anything is written: what fails after the catalog has the statement would stand in the way of the mended one.
    match (&existing, asked.into) {
        (None, None) => {
            refuse_foreign(engine, &location, &asked, parsed.at).await?;
            table.check(&location).map_err(|e| at(e, parsed.at))?;
        }
        (None, Some(_)) => {
            let options = SinkOptions { create: Create::AtFirstRows, ..SinkOptions::default() };
            let clock = engine.clock().clone();
            let target = DeltaSink::open(engine.stores(), RESULT, &location, table.clone(), options, clock).await;
            target.map_err(|e| at(e, parsed.at))?;
        }
        (Some(_), _) => {}
    }
    let draft = || Draft {
        kind: asked.kind,
        name: asked.name.clone(),
        statement: text.clone(),
        location: asked.with.own("location").map(|_| location.clone()),
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
    let late = match asked.into {
        Some(_) => late_location(&engine.default_location(&asked.name)),
        None => late_location(&location),
    };
    Ok(Next::Job(Box::new(Planned {
        name: asked.name,
        location,
        late,
        standing,
        parallelism: parallelism(&settings),
        settings,
        lowered,
        known,
        table,
        columns,
    })))
}

/// A job's plan in words; of a plain query, DataFusion's.
pub(crate) async fn explain(session: &Session<'_>, parsed: &Parsed) -> Result<String> {
    if let Statement::Query(query) = &parsed.statement {
        let settings = session.layers.settings()?;
        let known = relations::batch(session.engine, &session.entries, &session.layers, &settings, query).await?;
        let plan = known.planner.batch(query).await?.into_optimized_plan().map_err(crate::batch::in_query)?;
        return Ok(format!("batch query\n{}", plan.display_indent()));
    }
    let asked = asked(session, parsed)?;
    let settings = session.layers.resolve(&asked.with.settings)?;
    let (_, lowered) = lower(session, &asked, &settings, session.engine.clock().now()).await?;
    let table = table_spec(&asked, &lowered, None, parsed.at)?;
    let by: Vec<String> = table.partition_by.iter().map(PartitionBy::to_string).collect();
    let by = if by.is_empty() { String::new() } else { format!("table: partitioned by {}\n", by.join(", ")) };
    Ok(format!("{} {}\n{}{by}", asked.kind, asked.name, watershed_plan::explain(&lowered)))
}

/// A job with the surroundings of its plans.
pub(crate) struct Made {
    job: Job,
    /// Its statement would resume if it were said again.
    or_replace: bool,
    tasks: Arc<TaskContext>,
    /// The memory of files being written, while the job runs.
    writing: MemoryReservation,
}

/// Writes the catalog and the tables, and puts the job together, which is one of so many.
pub(crate) async fn make(session: &mut Session<'_>, planned: Planned, jobs: usize) -> Result<Made> {
    let engine = session.engine;
    let Planned { name, location, late, standing, settings, parallelism, lowered, known, mut table, columns } = planned;
    let (entry, create) = match standing {
        Standing::Resume(entry) => {
            let create = tables::create_for(engine, &entry).await?;
            (entry, create)
        }
        Standing::New(draft) => (engine.catalog().put(draft).await?, Create::Now),
        Standing::Replace(old, draft) => {
            let entry = engine.catalog().put(draft).await?;
            tables::forget_checkpoints(engine, &old).await?;
            (entry, Create::Now)
        }
    };
    session.remember(entry.clone());
    if entry.kind == Kind::MaterializedView {
        tables::clear_for(engine, &location, &entry).await?;
        table.owner = Some(entry.incarnation);
    }
    tables::clear_for(engine, &late, &entry).await?;
    let tasks = known.planner.task_context();
    let writing = memory::for_files(&name, jobs, tasks.memory_pool());
    let options =
        SinkOptions { target_file_size: settings.target_file_size, lanes: parallelism, create, buffer: writing.size() };
    let clock = engine.clock();
    let result = DeltaSink::open(engine.stores(), RESULT, &location, table, options, clock.clone()).await?;
    let storable = Storable::of(&lowered.rejected);
    let rejected = TableSpec {
        schema: storable.schema().clone(),
        partition_by: vec![],
        properties: BTreeMap::new(),
        owner: Some(entry.incarnation),
    };
    let options = SinkOptions { lanes: 1, create: Create::AtFirstRows, buffer: options.buffer / 8, ..options };
    let late = DeltaSink::open(engine.stores(), "late", &late, rejected, options, clock.clone()).await?;
    let (inputs, holes) = bindings::inputs(&lowered, &known)?;
    let job = Job {
        graph: bindings::graph(&name, lowered, holes, parallelism, jobs, &tasks),
        name,
        incarnation: entry.incarnation,
        inputs,
        dimensions: known.dimensions,
        sink: match columns {
            Some(columns) => {
                Arc::new(bindings::Changed::new(Arc::new(result), move |rows| bindings::renamed(rows, &columns)))
            }
            None => Arc::new(result),
        },
        rejects: Arc::new(bindings::Changed::new(Arc::new(late), move |rows| storable.rows(&rows))),
        settings,
        goal: Goal { to_the_end: session.options.to_the_end },
    };
    Ok(Made { job, or_replace: entry.or_replace, tasks, writing })
}

/// Runs a job as far as it goes.
pub(crate) async fn run(engine: &Engine, options: &RunOptions, made: Made) -> (String, Result<Summary>) {
    let name = made.job.name.clone();
    let or_replace = made.or_replace;
    let _writing = made.writing;
    let (home, path) = engine.home();
    let context = Context {
        clock: engine.clock().clone(),
        home: home.clone(),
        home_path: path.clone(),
        tasks: made.tasks,
        progress: options.progress.clone(),
        stop: options.stop.clone(),
    };
    let ended = watershed_runtime::run(made.job, &context).await;
    let ended = ended.map_err(|e| match e {
        Error::Stopped(message) if or_replace && message.contains("CREATE OR REPLACE") => Error::Stopped(format!(
            "{message} (this one was made by CREATE OR REPLACE, which goes on when said again: drop it first)"
        )),
        other => other,
    });
    (name, ended)
}

/// Says which job an error is of, where the error does not.
pub(crate) fn of_job(job: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("job {job}: {message}")),
        Error::Stopped(message) => Error::Stopped(format!("job {job}: {message}")),
        Error::Resources(message) => Error::Resources(format!("job {job}: {message}")),
        other => other,
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
            Ok(Asked { kind: Kind::Insert, name, with, query: &insert.query, into: Some(table) })
        }
        _ => Err(Error::bug("a statement that is no job was planned as one")),
    }
}

/// What has the name already: relations share one space of names, jobs another, and a view is in both.
fn taken_by<'a>(session: &'a Session<'_>, asked: &Asked<'_>, at: Place) -> Result<Option<&'a Entry>> {
    let job = session.entries.iter().find(|e| e.kind.is_job() && e.name == asked.name);
    match (asked.kind, job) {
        (Kind::Insert, Some(view)) if view.kind == Kind::MaterializedView => {
            let message =
                format!("job {0} is that of view {0}; name this one: INSERT INTO … WITH (job = '…')", asked.name);
            Err(Error::sql_at(message, Some(at)))
        }
        (Kind::Insert, insert) => Ok(insert),
        (_, Some(insert)) if insert.kind == Kind::Insert => {
            let message = format!("{} is the name of an INSERT job; take another name for the view", asked.name);
            Err(Error::sql_at(message, Some(at)))
        }
        _ => Ok(relation(&session.entries, &asked.name)),
    }
}

/// `from` is fixed when the job is made: later runs take the catalog's, and are told when they ask for another.
fn fix_from(settings: &mut Settings, existing: Option<&Entry>, at: Place) -> Result<BTreeMap<String, String>> {
    const FROM: &str = "from";
    if let Some(entry) = existing {
        let mut fixed = Settings::default();
        if let Some(value) = entry.fixed.get(FROM) {
            fixed.set(FROM, value)?;
        }
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
    Ok(settings.from.iter().map(|from| (FROM.to_string(), from.to_string())).collect())
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

/// The result table, as its statement and its query say; the owner is known when the catalog has the job.
fn table_spec(asked: &Asked<'_>, lowered: &Lowered, columns: Option<&[String]>, at: Place) -> Result<TableSpec> {
    if let Some(columns) = columns {
        let schema = Arc::new(bindings::renamed_schema(&lowered.output, columns));
        return Ok(TableSpec { schema, partition_by: vec![], properties: BTreeMap::new(), owner: None });
    }
    let partition_by = match (asked.with.own("partition_by"), &lowered.window_start) {
        (Some(text), _) => PartitionBy::parse(text)?,
        (None, Some(start)) => vec![PartitionBy::Day(start.clone())],
        (None, None) => vec![],
    };
    let key = match asked.with.own("primary_key") {
        Some(given) => given_key(given, lowered, asked, at)?,
        None => lowered.key.clone(),
    };
    let properties = match key.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([(PRIMARY_KEY.to_string(), key.join(","))]),
    };
    Ok(TableSpec { schema: lowered.output.clone(), partition_by, properties, owner: None })
}

/// A declared key is one only if the grouping implies it: if it holds all the columns that are grouped by.
fn given_key(given: &str, lowered: &Lowered, asked: &Asked<'_>, at: Place) -> Result<Vec<String>> {
    let given: Vec<String> = given.split(',').map(|column| column.trim().to_string()).collect();
    let refuse = |because: String| {
        let message = format!("view {}: primary_key = '{}': {because}", asked.name, given.join(", "));
        Err(Error::sql_at(message, Some(at)))
    };
    if let Some(stranger) = given.iter().find(|column| lowered.output.field_with_name(column).is_err()) {
        let columns: Vec<&str> = lowered.output.fields().iter().map(|f| f.name().as_str()).collect();
        return refuse(format!("the view has no column {stranger}; it has {}", columns.join(", ")));
    }
    if lowered.key.is_empty() {
        return refuse("rows of a view without GROUP BY have no key; leave it out".to_string());
    }
    match lowered.key.iter().find(|column| !given.contains(column)) {
        None => Ok(given),
        Some(_) => refuse(format!(
            "it is not implied by the grouping, whose key is {}; name all of these, or leave it out",
            lowered.key.join(", ")
        )),
    }
}

/// INSERT goes by position: the table's columns, as many as the query has.
fn insert_columns(table: &Entry, lowered: &Lowered, at: Place) -> Result<Vec<String>> {
    let Statement::CreateTable(statement) = relations::statement_of(table)? else {
        return Err(Error::bug(format!("the catalog's statement of table {} makes no table", table.name)));
    };
    let columns: Vec<String> = statement.columns.fields().iter().map(|f| f.name().clone()).collect();
    let rows = lowered.output.fields();
    if rows.len() != columns.len() {
        let message = format!(
            "INSERT INTO {}: the query has {} columns, the table {} ({}); columns go by position, so SELECT as many",
            table.name,
            rows.len(),
            columns.len(),
            columns.join(", ")
        );
        return Err(Error::sql_at(message, Some(at)));
    }
    Ok(columns)
}

/// A new view does not write into a table that is not its own, or was not that of an earlier view of its name.
async fn refuse_foreign(engine: &Engine, location: &str, asked: &Asked<'_>, at: Place) -> Result<()> {
    let Some(info) = tables::info(engine, location).await? else { return Ok(()) };
    let before = engine.catalog().newest(asked.kind, &asked.name).await?;
    let mine = before.iter().flat_map(|e| e.replaced.iter().chain((!e.dropped).then_some(&e.incarnation)));
    let owner = info.properties.get(tables::INCARNATION);
    if owner.is_some_and(|owner| mine.into_iter().any(|id| id.to_string() == *owner)) {
        return Ok(());
    }
    let message =
        format!("there is a table in {location} that this view did not make; give another location, or remove it");
    Err(Error::sql_at(message, Some(at)))
}
