//! From the names in a query to a planner that knows them: sources are opened, views expanded, tables listed.
//!
//! The same catalog serves both readings of a query. *Streaming*, it may read sources, and views over them. As *batch*, it
//! may read everything, each history and table at its newest version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use watershed_core::history::{DataFile, History};
use watershed_core::scan::ScanFile;
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_lake::{HistoryOptions, open_history};
use watershed_plan::{Planner, Query, Statement, parse};

use crate::catalog::{Entry, Kind};
use crate::engine::{Engine, parallelism, relation};
use crate::layers::Layers;
use crate::names::names;
use crate::sources::{Declared, OpenSource};

/// A planner, and what it was made to know.
pub(crate) struct Known {
    pub(crate) planner: Planner,
    pub(crate) sources: BTreeMap<String, OpenSource>,
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
            Kind::MaterializedView | Kind::Table | Kind::Insert => {
                return Err(Error::sql(format!(
                    "{0} is a {1}, and a job reads sources; to go on from its rows, write CREATE SOURCE … WITH (lake = '{2}')",
                    entry.name,
                    entry.kind,
                    engine.location(entry)
                )));
            }
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
    let mut known = Known::new(engine, settings)?;
    for entry in reached(entries, query)? {
        match entry.kind {
            Kind::Source => {
                let source = open_source(engine, layers, entry).await?;
                let files = files(source.history.as_ref()).await?;
                known.planner.add_table(&entry.name, source.layout().clone(), files)?;
                known.sources.insert(entry.name.clone(), source);
            }
            Kind::View => known.add_view(entry)?,
            Kind::MaterializedView | Kind::Table | Kind::Insert => {
                let location = engine.location(entry);
                let history = open_table(engine, &location).await.map_err(|e| not_there_yet(entry, e))?;
                let files = files(history.as_ref()).await?;
                let runtime = engine.runtime(settings)?;
                engine.place(engine.stores(), &location, &runtime)?;
                known.planner.add_table(&entry.name, history.layout().clone(), files)?;
            }
        }
    }
    known.register_stores(engine)?;
    Ok(known)
}

/// Opens the source of a catalog entry, under the settings in force.
pub(crate) async fn open_source(engine: &Engine, layers: &Layers, entry: &Entry) -> Result<OpenSource> {
    let declared = declared(engine, layers, entry)?;
    let location = entry.location.as_deref().unwrap_or(&declared.lake);
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
        Statement::Insert(insert) => Ok(insert.query),
        _ => Err(Error::bug(format!("the catalog's statement of {} {} has no query", entry.kind, entry.name))),
    }
}

fn declared(engine: &Engine, layers: &Layers, entry: &Entry) -> Result<Declared> {
    match statement_of(entry)? {
        Statement::CreateSource(source) => Declared::new(&source, layers, engine.stores()),
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

/// The files of the newest version, less the rows that are marked as deleted in them.
async fn files(history: &dyn History) -> Result<Vec<ScanFile>> {
    let snapshot = history.pin(None).await?;
    let placed = snapshot.partitions.into_iter().flat_map(|p| p.files);
    let files: Vec<DataFile> = snapshot.timeless.into_iter().chain(placed).collect();
    let deleted = history.deleted(&files).await?;
    Ok(files.into_iter().zip(deleted).map(|(file, deleted)| ScanFile { file, range: None, deleted }).collect())
}

fn not_there_yet(entry: &Entry, e: Error) -> Error {
    match e {
        Error::Input(_) if entry.kind == Kind::MaterializedView => {
            Error::input(format!("view {} has no table yet; run the file that creates it to its end", entry.name))
        }
        other => other,
    }
}

impl Known {
    fn new(engine: &Engine, settings: &Settings) -> Result<Self> {
        let mut planner = Planner::new(engine.runtime(settings)?, parallelism(settings))?;
        engine.functions().iter().try_for_each(|function| planner.add_function(function.clone()))?;
        Ok(Known { planner, sources: BTreeMap::new(), views: BTreeMap::new() })
    }

    fn add_view(&mut self, entry: &Entry) -> Result<()> {
        self.planner.add_view(&entry.name, query_of(entry)?)?;
        self.views.insert(entry.name.clone(), entry.statement.clone());
        Ok(())
    }

    fn register_stores(&self, engine: &Engine) -> Result<()> {
        for source in self.sources.values() {
            let runtime = self.planner.task_context().runtime_env();
            engine.place(&source.stores, &source.layout().location, &runtime)?;
        }
        Ok(())
    }
}
