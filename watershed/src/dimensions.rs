//! Tables as queries read them: those that jobs and INSERTs fill, and external ones, whose files are somebody else's.
//!
//! A table is pinned when it is opened: a Delta table at its newest version, files by their listing. A job opens what it
//! joins when it is planned, once a run, and records the versions in its checkpoints.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use watershed_core::history::{History, Version};
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_lake::{HistoryOptions, Stores, open_history};
use watershed_plan::{CreateExternalTable, ExternalFormat, Statement, files_table};

use crate::catalog::{Entry, Kind};
use crate::csv::{self, Dialect};
use crate::engine::{Engine, shown};
use crate::layers::{Layers, Scope, With};
use crate::relations::{files, open_table, statement_of};

/// Options of `CREATE EXTERNAL TABLE … WITH` besides those of the object store.
const OWN: [&str; 2] = ["has_header", "delimiter"];

/// A table at one version.
pub(crate) struct Pinned {
    pub(crate) rows: Arc<dyn TableProvider>,
    pub(crate) version: Version,
}

/// Pins the table of a catalog entry, and makes its store known to DataFusion.
pub(crate) async fn open(engine: &Engine, layers: &Layers, settings: &Settings, entry: &Entry) -> Result<Pinned> {
    let location = engine.location(entry);
    let runtime = engine.runtime(settings)?;
    if entry.kind != Kind::ExternalTable {
        engine.place(engine.stores(), &location, &runtime)?;
        let history = open_table(engine, &location).await.map_err(|e| not_there_yet(entry, e))?;
        return pinned(history).await;
    }
    let table = declared(entry)?;
    let with = with(layers, &table)?;
    let stores = engine.stores().with_options(with.store.clone());
    let place = engine.place(&stores, &location, &runtime)?;
    let opened = match table.format {
        ExternalFormat::Csv => {
            let opened = csv::open(&place, &location, table.columns.as_ref(), dialect(&with)?, &runtime).await;
            opened.map(|(rows, version)| Pinned { rows, version })
        }
        format => lake(&stores, &location, format).await,
    };
    opened.map_err(|e| of_table(&entry.name, e))
}

/// Where a declared table lies; its options are checked on the way, and nothing is read.
pub(crate) fn location(engine: &Engine, layers: &Layers, table: &CreateExternalTable) -> Result<String> {
    let with = with(layers, table)?;
    let dialect = dialect(&with).map_err(|e| of_table(&table.name, e))?;
    if table.format != ExternalFormat::Csv
        && let Some(option) = OWN.iter().find(|option| with.own(option).is_some())
    {
        return Err(Error::sql(format!("external table {}: `{option}` is an option of CSV", table.name)));
    }
    if !dialect.has_header && table.columns.is_none() {
        return Err(Error::sql(format!(
            "external table {0}: without a header line it has no names; say its columns: CREATE EXTERNAL TABLE {0} (id INT, …)",
            table.name
        )));
    }
    let place = engine.stores().with_options(with.store.clone()).open(&table.location)?;
    Ok(shown(&place))
}

async fn lake(stores: &Stores, location: &str, format: ExternalFormat) -> Result<Pinned> {
    let options = HistoryOptions { untimed: true, ..HistoryOptions::default() };
    let table = pinned(open_history(stores, location, &options).await?).await?;
    match (format, &table.version) {
        (ExternalFormat::Delta, Version::Listing { .. }) => Err(Error::input(format!(
            "{location} is no Delta table, for it has no _delta_log; for plain Parquet files write STORED AS PARQUET"
        ))),
        (ExternalFormat::Parquet, Version::Delta { .. }) => Err(Error::input(format!(
            "{location} is a Delta table, some of whose files may be gone from it; write STORED AS DELTA"
        ))),
        _ => Ok(table),
    }
}

async fn pinned(history: Arc<dyn History>) -> Result<Pinned> {
    let snapshot = history.pin(None).await?;
    let version = snapshot.version.clone();
    let files = files(history.as_ref(), snapshot).await?;
    Ok(Pinned { rows: files_table(history.layout().clone(), files), version })
}

fn declared(entry: &Entry) -> Result<CreateExternalTable> {
    match statement_of(entry)? {
        Statement::CreateExternalTable(table) => Ok(table),
        _ => Err(Error::bug(format!("the catalog's statement of external table {} makes none", entry.name))),
    }
}

fn with(layers: &Layers, table: &CreateExternalTable) -> Result<With> {
    let what = format!("external table {}", table.name);
    let with = With::sort(&table.options, &OWN, Scope::Job, &what)?;
    if let Some((name, _)) = with.settings.first() {
        return Err(Error::sql(format!("{what}: `{name}` is a setting of jobs, and has no effect here")));
    }
    layers.resolve(&with.settings)?;
    Ok(with)
}

fn dialect(with: &With) -> Result<Dialect> {
    let has_header = match with.own("has_header") {
        None | Some("true") => true,
        Some("false") => false,
        Some(other) => return Err(Error::sql(format!("has_header is true or false, not `{other}`"))),
    };
    let delimiter = match with.own("delimiter") {
        None => b',',
        Some("\\t") => b'\t',
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() => *byte,
            _ => return Err(Error::sql(format!("delimiter is one character, such as ';' or '\\t', not `{text}`"))),
        },
    };
    Ok(Dialect { has_header, delimiter })
}

fn of_table(name: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("external table {name}: {message}")),
        Error::Sql { message, at } => Error::Sql { message: format!("external table {name}: {message}"), at },
        other => other,
    }
}

fn not_there_yet(entry: &Entry, e: Error) -> Error {
    match e {
        Error::Input(_) if entry.kind == Kind::MaterializedView => {
            Error::input(format!("view {} has no table yet; run the file that creates it to its end", entry.name))
        }
        other => other,
    }
}
