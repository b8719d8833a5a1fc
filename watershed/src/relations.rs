//! From the names in a query to a planner that knows them: sources are opened, views expanded, tables listed.
//!
//! The same catalog serves both readings of a query. *Streaming*, it reads sources, tables to join them with, and views over
//! both. As *batch*, it may read everything. Either way each history and table is taken at its newest version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watershed_core::history::{DataFile, History, Snapshot, Version};
use watershed_core::scan::ScanFile;
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_lake::{HistoryOptions, open_history};
use watershed_plan::{Planner, Query, Statement, columns_of, parse};

use crate::catalog::{Entry, Kind};
use crate::dimensions;
use crate::engine::{Engine, parallelism, relation};
use crate::inferred;
use crate::late;
use crate::layers::Layers;
use crate::names::names;
use crate::sources::{Declared, OpenSource};
use crate::tails::OpenTail;

/// A planner, and what it was made to know.
pub(crate) struct Known {
    pub(crate) planner: Planner,
    pub(crate) sources: BTreeMap<String, OpenSource>,
    /// The versions at which tables were pinned.
    pub(crate) dimensions: BTreeMap<String, Version>,
    /// Statements of the views that the query goes through.
    pub(crate) views: BTreeMap<String, String>,
}

/// Makes a planner for a query that runs as a job.
pub(crate) async fn streaming(
    engine: &Engine,
    entries: &[Entry],
    layers: &Layers,
    settings: &Settings,
    query: &Query,
) -> Result<Known> {
    let mut known = Known::new(engine, settings)?;
    for entry in reached(entries, query)? {
        match entry.kind {
            Kind::Source => {
                let source = open_source(engine, layers, entry).await?;
                known.planner.add_source(source.table())?;
                known.sources.insert(entry.name.clone(), source);
            }
            Kind::View => known.add_view(entry)?,
            Kind::MaterializedView | Kind::Table | Kind::ExternalTable => {
                let table = dimensions::open(engine, layers, settings, entry).await?;
                known.planner.add_dimension(&entry.name, table.rows)?;
                known.dimensions.insert(entry.name.clone(), table.version);
            }
            Kind::Insert | Kind::Sink => return Err(Error::bug("an INSERT or a sink is no relation")),
        }
    }
    known.register_stores(engine)?;
    Ok(known)
}

/// Makes a planner for a query that runs once.
pub(crate) async fn batch(
    engine: &Engine,
    entries: &[Entry],
    layers: &Layers,
    settings: &Settings,
    query: &Query,
) -> Result<Known> {
    once(engine, entries, layers, settings, query, true).await
}

/// The same with sources that hold nothing yet.
pub(crate) async fn tables_only(
    engine: &Engine,
    entries: &[Entry],
    layers: &Layers,
    settings: &Settings,
    query: &Query,
) -> Result<Known> {
    once(engine, entries, layers, settings, query, false).await
}

async fn once(
    engine: &Engine,
    entries: &[Entry],
    layers: &Layers,
    settings: &Settings,
    query: &Query,
    with_files: bool,
) -> Result<Known> {
    let mut known = Known::new(engine, settings)?;
    for entry in reached(entries, query)? {
        match entry.kind {
            Kind::Source => {
                let source = opened(declared(engine, layers, entry)?.at_once(), entry).await?;
                if source.tail.as_ref().is_some_and(OpenTail::gives_rows) {
                    return Err(Error::input(format!(
                        "{0} is the changes of a table as they come, which a query that runs once cannot read; ask for those \
                         that there are: FROM CHANGES('{1}', 0)",
                        entry.name,
                        source.layout().location
                    )));
                }
                if !source.has_history {
                    return Err(Error::input(format!(
                        "{0} is a log, which a query that runs once cannot read; make a view over it, or an archive (INSERT INTO \
                         a table SELECT … FROM {0})",
                        entry.name
                    )));
                }
                let history = source.history.as_ref();
                let files = if with_files { files(history, history.pin(None).await?).await? } else { vec![] };
                known.planner.add_table(&entry.name, source.layout().clone(), files)?;
                known.sources.insert(entry.name.clone(), source);
            }
            Kind::View => known.add_view(entry)?,
            Kind::MaterializedView | Kind::Table | Kind::ExternalTable => {
                let table = dimensions::open(engine, layers, settings, entry).await?;
                known.planner.add_table_provider(&entry.name, table.rows)?;
            }
            Kind::Insert | Kind::Sink => return Err(Error::bug("an INSERT or a sink is no relation")),
        }
    }
    for name in names_reached(entries, query)? {
        if let Some(location) = late::location(engine, entries, &name) {
            let rows = late::open(engine, settings, &location).await?;
            known.planner.add_table_provider(&name, rows)?;
        }
    }
    known.register_stores(engine)?;
    Ok(known)
}

/// Opens the source of a catalog entry, under the settings in force.
pub(crate) async fn open_source(engine: &Engine, layers: &Layers, entry: &Entry) -> Result<OpenSource> {
    opened(declared(engine, layers, entry)?, entry).await
}

async fn opened(declared: Declared, entry: &Entry) -> Result<OpenSource> {
    let location = match (&entry.location, &declared.lake) {
        (Some(location), _) | (None, Some(location)) => location,
        (None, None) => return declared.open("").await,
    };
    declared.open(location).await
}

/// Opens a result table, as a table like any other.
pub(crate) async fn open_table(engine: &Engine, location: &str) -> Result<Arc<dyn History>> {
    let options = HistoryOptions { untimed: true, ..HistoryOptions::default() };
    open_history(engine.stores(), location, &options).await
}

/// The query of a catalog entry's statement.
pub(crate) fn query_of(entry: &Entry) -> Result<Query> {
    match statement_of(entry)? {
        Statement::CreateView(view) => Ok(view.query),
        Statement::CreateMaterializedView(view) => Ok(view.query),
        Statement::CreateSink(sink) => Ok(sink.query),
        Statement::Insert(insert) => Ok(insert.query),
        _ => Err(Error::bug(format!("the catalog's statement of {} {} has no query", entry.kind, entry.name))),
    }
}

fn declared(engine: &Engine, layers: &Layers, entry: &Entry) -> Result<Declared> {
    match statement_of(entry)? {
        Statement::CreateSource(mut source) => {
            if let Some(columns) = entry.fixed.get(inferred::FIXED) {
                source.columns = Some(columns_of(columns)?);
            }
            Declared::new(&source, layers, engine, entry.created)
        }
        _ => Err(Error::bug(format!("the catalog's statement of source {} makes no source", entry.name))),
    }
}

/// Reads a catalog entry's statement again. Its variables were replaced when it was created.
pub(crate) fn statement_of(entry: &Entry) -> Result<Statement> {
    let mut parsed = parse(&entry.statement, &|name| Some(format!("${{{name}}}"))).map_err(|e| {
        Error::stopped(format!(
            "the catalog's {} {} cannot be read by this version: {e}; drop it and create it anew",
            entry.kind, entry.name
        ))
    })?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(only), true) => Ok(only.statement),
        _ => Err(Error::bug(format!("the catalog's {} {} is not one statement", entry.kind, entry.name))),
    }
}

/// The names that a query reads, also through views, whether the catalog has them or not.
pub(crate) fn names_reached(entries: &[Entry], query: &Query) -> Result<BTreeSet<String>> {
    let mut found = names(query);
    for entry in reached(entries, query)?.into_iter().filter(|entry| entry.kind == Kind::View) {
        found.extend(names(&query_of(entry)?));
    }
    Ok(found)
}

/// The entries that a query reads, also through views; what a view reads comes before it.
pub(crate) fn reached<'a>(entries: &'a [Entry], query: &Query) -> Result<Vec<&'a Entry>> {
    let (mut seen, mut found) = (BTreeSet::new(), vec![]);
    for name in names(query) {
        reach(entries, name, &mut seen, &mut found)?;
    }
    Ok(found)
}

fn reach<'a>(
    entries: &'a [Entry],
    name: String,
    seen: &mut BTreeSet<String>,
    found: &mut Vec<&'a Entry>,
) -> Result<()> {
    // What the catalog does not have is a name of the query's own, or the planner says that nobody knows it.
    let Some(entry) = relation(entries, &name) else { return Ok(()) };
    if seen.insert(name) {
        if entry.kind == Kind::View {
            for name in names(&query_of(entry)?) {
                reach(entries, name, seen, found)?;
            }
        }
        found.push(entry);
    }
    Ok(())
}

/// The files of a pinned version, less the rows that are marked as deleted in them.
pub(crate) async fn files(history: &dyn History, snapshot: Snapshot) -> Result<Vec<ScanFile>> {
    let placed = snapshot.partitions.into_iter().flat_map(|p| p.files);
    let files: Vec<DataFile> = snapshot.timeless.into_iter().chain(placed).collect();
    let deleted = history.deleted(&files).await?;
    Ok(files.into_iter().zip(deleted).map(|(file, deleted)| ScanFile { file, range: None, deleted }).collect())
}

impl Known {
    fn new(engine: &Engine, settings: &Settings) -> Result<Self> {
        let mut planner = Planner::new(engine.runtime(settings)?, parallelism(settings))?;
        engine.functions().iter().try_for_each(|function| planner.add_function(function.clone()))?;
        Ok(Known { planner, sources: BTreeMap::new(), dimensions: BTreeMap::new(), views: BTreeMap::new() })
    }

    fn add_view(&mut self, entry: &Entry) -> Result<()> {
        self.planner.add_view(&entry.name, query_of(entry)?)?;
        self.views.insert(entry.name.clone(), entry.statement.clone());
        Ok(())
    }

    fn register_stores(&self, engine: &Engine) -> Result<()> {
        for source in self.sources.values().filter(|source| source.has_history) {
            let runtime = self.planner.task_context().runtime_env();
            engine.place(&source.stores, &source.layout().location, &runtime)?;
        }
        Ok(())
    }
}
