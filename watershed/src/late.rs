//! Tables of late and bad rows, by name: that of job `j` is `j_late`, unless something else has the name.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_operators::rejected_fields;
use watershed_plan::files_table;

use crate::catalog::{Entry, Kind};
use crate::engine::{Engine, relation};
use crate::relations::{files, open_table};
use crate::tables;
use crate::tails;

/// What the name of a job is followed by.
const SUFFIX: &str = "_late";

/// Where the table of late rows lies that a name stands for; `None` when it stands for none.
pub(crate) fn location(engine: &Engine, entries: &[Entry], name: &str) -> Option<String> {
    if relation(entries, name).is_some() {
        return None;
    }
    let job = name.strip_suffix(SUFFIX)?;
    let entry = entries.iter().find(|e| e.kind.is_job() && e.name == job)?;
    Some(of(engine, entry))
}

/// Where a job keeps its late and bad rows.
pub(crate) fn of(engine: &Engine, entry: &Entry) -> String {
    match entry.kind {
        Kind::Insert | Kind::Sink => tables::late_location_of_job(engine, entry),
        _ => tables::late_location(&engine.location(entry)),
    }
}

/// The table, at its newest version; one without rows while there is none.
pub(crate) async fn open(engine: &Engine, settings: &Settings, location: &str) -> Result<Arc<dyn TableProvider>> {
    if tables::info(engine, location).await?.is_none() {
        // Which columns of its sources it will have is not known, and no matter where there are no rows.
        let schema = tails::rejected_schema(&Arc::new(Schema::new(rejected_fields())), true);
        let none = MemTable::try_new(schema, vec![vec![]]);
        return Ok(Arc::new(none.map_err(|e| Error::bug(format!("an empty table: {e}")))?));
    }
    engine.place(engine.stores(), location, engine.runtime(settings)?.as_ref())?;
    let history = open_table(engine, location).await?;
    let files = files(history.as_ref(), history.pin(None).await?).await?;
    Ok(files_table(history.layout().clone(), files))
}
