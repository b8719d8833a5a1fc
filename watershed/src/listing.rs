//! What there is: names and what is behind them, columns.

use futures::{StreamExt, TryStreamExt};
use watershed_core::{Error, Result};
use watershed_runtime::checkpoint::{Checkpoints, Newest};

use crate::catalog::{Entry, Kind};
use crate::dimensions;
use crate::engine::{Engine, RunOptions, relation, unknown};
use crate::execute::Session;
use crate::late;
use crate::relations::{self, query_of};
use crate::tables;

/// How many tables are asked at once.
const ASKED_AT_ONCE: usize = 8;

/// A source, view or table.
#[derive(Clone, Debug)]
pub struct RelationInfo {
    pub name: String,
    pub kind: Kind,
    /// `None` for plain views.
    pub location: Option<String>,
    /// `None` where there is no Delta table (yet).
    pub version: Option<u64>,
    pub files: Option<u64>,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    /// Rows that deletion vectors mark, and files that are small beside others of their partition.
    pub marked: Option<u64>,
    pub small_files: Option<u64>,
}

/// A column of a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    pub name: String,
    pub data_type: String,
    /// What else is to be known of it: the event time, a partition column.
    pub note: String,
}

/// Whether a job was ended for good.
pub(crate) async fn has_ended(engine: &Engine, entry: &Entry) -> Result<bool> {
    Ok(matches!(newest(engine, entry).await?, Newest::Manifest(manifest) if manifest.ended))
}

async fn newest(engine: &Engine, entry: &Entry) -> Result<Newest> {
    let (store, home) = engine.home();
    Checkpoints::new(store.clone(), home, &entry.name, entry.incarnation).newest().await
}

pub(crate) async fn tables(engine: &Engine) -> Result<Vec<RelationInfo>> {
    let entries = engine.catalog().list().await?;
    let relations = entries.into_iter().filter(|e| e.kind.is_relation());
    let asked = futures::stream::iter(relations).map(|entry| async move { relation_info(engine, &entry).await });
    asked.buffered(ASKED_AT_ONCE).try_collect().await
}

async fn relation_info(engine: &Engine, entry: &Entry) -> Result<RelationInfo> {
    let location = (entry.kind != Kind::View).then(|| engine.location(entry));
    let info = match &location {
        Some(location) => tables::info(engine, location).await?,
        None => None,
    };
    Ok(RelationInfo {
        name: entry.name.clone(),
        kind: entry.kind,
        location,
        version: info.as_ref().map(|i| i.version),
        files: info.as_ref().map(|i| i.files),
        rows: info.as_ref().and_then(|i| i.rows),
        bytes: info.as_ref().map(|i| i.bytes),
        marked: info.as_ref().map(|i| i.marked),
        small_files: info.as_ref().map(|i| i.small_files),
    })
}

pub(crate) async fn describe(engine: &Engine, name: &str) -> Result<Vec<ColumnInfo>> {
    let options = RunOptions::default();
    columns(&Session::new(engine, &options).await?, name).await
}

/// The columns of a relation that a session knows.
pub(crate) async fn columns(session: &Session<'_>, name: &str) -> Result<Vec<ColumnInfo>> {
    let engine = session.engine;
    if let Some(location) = late::location(engine, &session.entries, name) {
        let rows = late::open(engine, &session.layers.settings()?, &location).await?;
        return Ok(rows.schema().fields().iter().map(|f| ColumnInfo::new(f.name(), f.data_type(), "")).collect());
    }
    let entry = relation(&session.entries, name).ok_or_else(|| unknown(&session.entries, name))?;
    let (layout, time) = match entry.kind {
        Kind::View => {
            let (query, settings) = (query_of(entry)?, session.layers.settings()?);
            let known = relations::batch(engine, &session.entries, &session.layers, &settings, &query).await?;
            let frame = known.planner.batch(&query).await?;
            let column = |f: &std::sync::Arc<arrow::datatypes::Field>| ColumnInfo::new(f.name(), f.data_type(), "");
            return Ok(frame.schema().fields().iter().map(column).collect());
        }
        Kind::Source => {
            let source = relations::open_source(engine, &session.layers, entry).await?;
            (source.layout().clone(), Some(source.time_column.clone()))
        }
        Kind::MaterializedView | Kind::Table => {
            let location = engine.location(entry);
            let history = relations::open_table(engine, &location).await?;
            (history.layout().clone(), None)
        }
        Kind::ExternalTable => {
            let settings = session.layers.settings()?;
            let table = dimensions::open(engine, &session.layers, &settings, entry).await?;
            let schema = table.rows.schema();
            return Ok(schema.fields().iter().map(|f| ColumnInfo::new(f.name(), f.data_type(), "")).collect());
        }
        Kind::Insert | Kind::Sink => return Err(Error::bug("an INSERT or a sink is no relation")),
    };
    let files = layout.file_schema.fields().iter().map(|f| {
        let note = if time.as_ref() == Some(f.name()) { "event time" } else { "" };
        ColumnInfo::new(f.name(), f.data_type(), note)
    });
    let partitions = layout.partition_columns.iter().map(|f| {
        let by_time = layout.time_partition.as_ref().is_some_and(|(column, _)| column == f.name());
        ColumnInfo::new(f.name(), f.data_type(), if by_time { "time partition" } else { "partition" })
    });
    Ok(files.chain(partitions).collect())
}

/// Columns as text, one a line.
pub(crate) fn columns_text(columns: &[ColumnInfo]) -> String {
    let width = columns.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let line = |c: &ColumnInfo| {
        let text = format!("{:width$}  {}  {}", c.name, c.data_type, c.note);
        text.trim_end().to_string()
    };
    columns.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl ColumnInfo {
    fn new(name: &str, data_type: &arrow::datatypes::DataType, note: &str) -> Self {
        ColumnInfo { name: name.to_string(), data_type: data_type.to_string(), note: note.to_string() }
    }
}
