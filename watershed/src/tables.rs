//! The tables behind names: made for `CREATE TABLE`, and what becomes of tables, checkpoints and jobs when a name is dropped.
//!
//! A view that is replaced is built in the same place: the old table goes first, and until the new one has caught up, readers see
//! it grow. (Putting a finished one in place in a single commit needs tables that can be rewritten.)
//!
//! Invariant: files are removed only of a table whose own property names the incarnation that is being dropped. A table that
//! was there before, or that somebody has put in its place, is left alone and said so.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use watershed_core::{Error, Result};
use watershed_lake::{
    Create, DeltaSink, KeySpec, Merge, PartitionBy, SinkOptions, TableInfo, TableSpec, WriteMode, delta_schema,
    table_info,
};
use watershed_plan::{CreateTable, Insert, Parsed, Statement};
use watershed_runtime::checkpoint::{Checkpoints, Newest};

use crate::catalog::{Draft, Entry, Kind};
use crate::declare::canonical;
use crate::engine::{Engine, relation, shown};
use crate::layers::{Layers, Scope, With};
use crate::relations::statement_of;

/// Options of `CREATE TABLE … WITH` besides settings and those of the object store.
const OWN: [&str; 6] = ["location", "partition_by", "sequence_by", "merge", "write_mode", "change_data_feed"];

/// The property that names who a table belongs to.
pub(crate) const INCARNATION: &str = "watershed.incarnation";

/// Delta's property by which change files are written for Spark's and other readers.
const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";

/// What checkpoints call a job's result table.
pub(crate) const RESULT: &str = "result";

/// The catalog entry of a `CREATE TABLE`.
pub(crate) fn draft(engine: &Engine, layers: &Layers, table: &CreateTable, parsed: &Parsed) -> Result<Draft> {
    let with = with(layers, table)?;
    let location = match with.own("location") {
        Some(location) => Some(shown(&engine.stores().open(location)?)),
        None => None,
    };
    delta_schema(&table.columns).map_err(|e| of_table(&table.name, e))?;
    let shown_location = location.clone().unwrap_or_else(|| engine.default_location(&table.name));
    spec(layers, table)?.check(&shown_location).map_err(|e| of_table(&table.name, e))?;
    Ok(Draft {
        kind: Kind::Table,
        name: table.name.clone(),
        statement: canonical(&parsed.statement).0,
        location,
        incarnation: engine.clock().id(),
        or_replace: canonical(&parsed.statement).1.or_replace,
        fixed: BTreeMap::new(),
        views: BTreeMap::new(),
        created: engine.clock().now(),
    })
}

/// Makes the table itself, if it is not there; `jobs` are those that fill it.
pub(crate) async fn make(
    engine: &Engine,
    layers: &Layers,
    table: &CreateTable,
    entry: &Entry,
    jobs: &[Entry],
) -> Result<()> {
    let mut options = SinkOptions::default();
    for job in jobs {
        if create_for(engine, job).await? == Create::AtFirstRows {
            options.create = Create::AtFirstRows;
        }
    }
    let mut spec = spec(layers, table)?;
    spec.properties.insert(INCARNATION.to_string(), entry.incarnation.to_string());
    let location = engine.location(entry);
    DeltaSink::open(engine.stores(), RESULT, &location, spec, options, engine.clock().clone())
        .await
        .map(|_| ())
        .map_err(|e| of_table(&table.name, e))
}

/// The table that a `CREATE TABLE` describes.
fn spec(layers: &Layers, table: &CreateTable) -> Result<TableSpec> {
    let with = with(layers, table)?;
    let (partition_by, key) = (partition_by(&with)?, key_of(table, &with)?);
    let mut properties = BTreeMap::new();
    match with.own("change_data_feed") {
        None | Some("false") => {}
        Some("true") => {
            properties.insert(CHANGE_DATA_FEED.to_string(), "true".to_string());
        }
        Some(other) => {
            return Err(Error::input(format!(
                "table {}: change_data_feed = '{other}': give true or false",
                table.name
            )));
        }
    }
    Ok(TableSpec { schema: table.columns.clone(), partition_by, properties, owner: None, key })
}

/// The key of the table that a `CREATE TABLE` makes, if it has one.
pub(crate) fn key(layers: &Layers, table: &CreateTable) -> Result<Option<KeySpec>> {
    key_of(table, &with(layers, table)?)
}

fn key_of(table: &CreateTable, with: &With) -> Result<Option<KeySpec>> {
    let sequence_by = with.own("sequence_by").map(str::to_string);
    let merge = with.own("merge").map(Merge::parse).transpose().map_err(|e| of_table(&table.name, e))?;
    let write_mode = with.own("write_mode").map(WriteMode::parse).transpose().map_err(|e| of_table(&table.name, e))?;
    if !table.primary_key.is_empty() {
        let (merge, write_mode) = (merge.unwrap_or_default(), write_mode.unwrap_or_default());
        let columns = table.primary_key.clone();
        return Ok(Some(KeySpec { columns, sequence_by, merge, write_mode, ..KeySpec::default() }));
    }
    match ["sequence_by", "merge", "write_mode"].into_iter().find_map(|name| Some((name, with.own(name)?))) {
        None => Ok(None),
        Some((name, value)) => Err(Error::input(format!(
            "table {}: {name} = '{value}' is for rows that replace others by their key, and the table has no key: add PRIMARY \
             KEY (…)",
            table.name
        ))),
    }
}

/// When the table of a job that there is already is made, if it is not there. One that the job has committed to is gone: the
/// job's run finds that out and stops, and an empty table in its place would only mislead.
pub(crate) async fn create_for(engine: &Engine, job: &Entry) -> Result<Create> {
    let (home, path) = engine.home();
    let newest = Checkpoints::new(home.clone(), path, &job.name, job.incarnation).newest().await?;
    let untouched = match &newest {
        Newest::None => true,
        Newest::Manifest(manifest) => {
            let result = manifest.sinks.get(RESULT);
            result.is_none_or(|sink| sink.committed.is_none() && sink.prepared.is_empty())
        }
        Newest::Unreadable { .. } => false,
    };
    Ok(if untouched { Create::Now } else { Create::AtFirstRows })
}

/// The Delta table at a location; `None` when there is none.
pub(crate) async fn info(engine: &Engine, location: &str) -> Result<Option<TableInfo>> {
    match table_info(engine.stores(), location).await {
        Ok(info) => Ok(Some(info)),
        Err(Error::Input(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where the table lies that is named, or at a location; `what` is to be done with it.
pub(crate) fn own_table(engine: &Engine, entries: &[Entry], name: &str, what: &str) -> Result<String> {
    match relation(entries, name) {
        Some(entry) if entry.kind.has_table() => Ok(engine.location(entry)),
        Some(entry) => Err(Error::input(format!(
            "{name} is {}, and has no table of its own to {what}; give a table, a materialized view or a location",
            entry.kind.one()
        ))),
        None => Ok(name.to_string()),
    }
}

/// Makes room for an entry's table: what an earlier generation of the same name left at the location is removed.
pub(crate) async fn clear_for(engine: &Engine, location: &str, entry: &Entry) -> Result<()> {
    if entry.replaced.is_empty() {
        return Ok(());
    }
    let Some(found) = info(engine, location).await? else { return Ok(()) };
    let owner = found.properties.get(INCARNATION);
    if owner.is_some_and(|owner| entry.replaced.iter().any(|id| id.to_string() == *owner)) {
        let place = engine.stores().open(location)?;
        remove(place.store.as_ref(), &place.path).await?;
    }
    Ok(())
}

/// What `partition_by` says, if anything.
pub(crate) fn partition_by(with: &With) -> Result<Vec<PartitionBy>> {
    with.own("partition_by").map_or(Ok(vec![]), PartitionBy::parse)
}

/// The INSERT jobs that hang on a table.
pub(crate) fn jobs_of(entries: &[Entry], table: &Entry) -> Result<Vec<Entry>> {
    let mut found = vec![];
    for entry in entries.iter().filter(|e| e.kind == Kind::Insert && table.kind == Kind::Table) {
        if insert_of(entry)?.table == table.name {
            found.push(entry.clone());
        }
    }
    Ok(found)
}

pub(crate) fn insert_of(entry: &Entry) -> Result<Insert> {
    match statement_of(entry)? {
        Statement::Insert(insert) => Ok(insert),
        _ => Err(Error::bug(format!("the catalog's statement of job {} is no INSERT", entry.name))),
    }
}

/// Drops a name, and with it what only it had: tables and checkpoints. Returns what there is to say.
pub(crate) async fn drop(engine: &Engine, entry: &Entry, keep_table: bool) -> Result<String> {
    // The tombstone first: what is left of files when this is cut short is garbage, and no name points there.
    engine.catalog().drop(entry, engine.clock().id(), keep_table).await?;
    let (kind, name) = (entry.kind, &entry.name);
    if matches!(kind, Kind::Source | Kind::View | Kind::ExternalTable | Kind::Insert | Kind::Sink) {
        return Ok(format!("dropped {kind} {name}"));
    }
    if kind == Kind::MaterializedView {
        forget_checkpoints(engine, entry).await?;
    }
    let location = engine.location(entry);
    if keep_table {
        return Ok(format!("dropped {kind} {name}; its table stays in {location}"));
    }
    let owned = remove_table(engine, &location, entry).await?;
    remove_table(engine, &late_location(&location), entry).await?;
    match owned {
        true => Ok(format!("dropped {kind} {name} and its table")),
        false => Ok(format!("dropped {kind} {name}; the table in {location} was not made for it and stays")),
    }
}

/// Drops an INSERT job or a sink.
pub(crate) async fn forget_job(engine: &Engine, entry: &Entry) -> Result<()> {
    engine.catalog().drop(entry, engine.clock().id(), false).await?;
    forget_checkpoints(engine, entry).await?;
    let late = late_location_of_job(engine, entry);
    remove_table(engine, &late, entry).await.map(|_| ())
}

/// Where rejected rows of the job whose table is at `location` are kept.
pub(crate) fn late_location(location: &str) -> String {
    format!("{}_late", location.trim_end_matches('/'))
}

/// Several INSERTs may fill one table, and sinks have none: each job keeps its rejected rows by its own name.
pub(crate) fn late_location_of_job(engine: &Engine, entry: &Entry) -> String {
    late_location(&engine.default_location(&entry.name))
}

/// Removes the checkpoints of an incarnation.
pub(crate) async fn forget_checkpoints(engine: &Engine, entry: &Entry) -> Result<()> {
    remove(engine.home().0.as_ref(), &job_folder(engine, entry)).await
}

/// Where a job keeps what is its own in the home.
pub(crate) fn job_folder(engine: &Engine, entry: &Entry) -> Path {
    engine.home().1.clone().join("jobs").join(entry.name.as_str()).join(entry.incarnation.to_string())
}

/// Removes a table's files if it is the entry's own; whether it is.
async fn remove_table(engine: &Engine, location: &str, entry: &Entry) -> Result<bool> {
    let Some(found) = info(engine, location).await? else { return Ok(true) };
    if found.properties.get(INCARNATION) != Some(&entry.incarnation.to_string()) {
        return Ok(false);
    }
    let place = engine.stores().open(location)?;
    remove(place.store.as_ref(), &place.path).await?;
    Ok(true)
}

/// Removes everything in a folder. Of a Delta table the log goes last and from its end, so that a removal that was cut
/// short leaves a table that still says whose it is.
async fn remove(store: &dyn ObjectStore, folder: &Path) -> Result<()> {
    let failed = |e| Error::storage("could not remove", folder.as_ref(), e);
    let listed: Vec<Path> = store.list(Some(folder)).map_ok(|o| o.location).try_collect().await.map_err(failed)?;
    let is_entry = |path: &Path| path.as_ref().contains("/_delta_log/") && path.extension() == Some("json");
    let (mut entries, rest): (Vec<Path>, Vec<Path>) = listed.into_iter().partition(is_entry);
    let mut gone = store.delete_stream(futures::stream::iter(rest.into_iter().map(Ok)).boxed());
    while let Some(done) = gone.next().await {
        removed(done.map(|_| ())).map_err(failed)?;
    }
    entries.sort();
    for entry in entries.iter().rev() {
        removed(store.delete(entry).await).map_err(failed)?;
    }
    Ok(())
}

/// What is not there is as good as removed.
fn removed(done: object_store::Result<()>) -> object_store::Result<()> {
    match done {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

fn with(layers: &Layers, table: &CreateTable) -> Result<With> {
    let with = With::sort(&table.options, &OWN, Scope::Job, &format!("table {}", table.name))?;
    layers.resolve(&with.settings)?;
    Ok(with)
}

fn of_table(name: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("table {name}: {message}")),
        other => other,
    }
}
