//! `watershed load`: files into a table, each once, all of a call in one commit.
//!
//! ```text
//!  arguments ─find─▶ files ─identity─▶ new ones ─read─▶ rows ─conform─▶ lanes of the table's writer ─▶ one commit
//! ```
//!
//! A file is its URL, size and SHA-256, and is recorded as application id `watershed/load/{…}` in the very commit that adds
//! its rows: so it is loaded or not, never half, never twice, even if the answer to the commit is lost.
//!
//! Invariant: memory depends on the number of lanes, not on the files.

mod conform;

mod find;

mod read;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use watershed_core::sink::{Committed, EpochWriter, Sink};
use watershed_core::{Error, Result};
use watershed_lake::{DeltaSink, KeySpec, Merge, PartitionBy, SinkOptions, TableSpec, WriteMode, delta_schema, loaded};

use self::find::Found;
use crate::engine::{Engine, parallelism, shown};
use crate::tables;

/// Files whose content is hashed at once.
const HASHED_AT_ONCE: usize = 8;

/// What is to be loaded, and how the table is to look if it is not there.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// Files, folders or patterns, on disk or in an object store: `.parquet`, `.csv` (with a header), `.ndjson`.
    pub files: Vec<String>,
    /// Location of the Delta table.
    pub into: String,
    /// The column that says when a row happened; kept as a timestamp.
    pub time_column: Option<String>,
    /// `day` or `hour` of the time column, or what `partition_by` takes: `day(ts), region`.
    pub partition_by: Option<String>,
    /// Load files again that were loaded before.
    pub again: bool,
    /// How rows go into the table; `None`: upserted if the table has a key, else appended.
    pub mode: Option<LoadMode>,
    /// The columns of the key, of a table that is made now or that has none recorded.
    pub key: Vec<String>,
    /// The column by which the newer of two rows of a key is known.
    pub sequence_by: Option<String>,
    /// The column that says what each row does: upsert or delete.
    pub operation: Option<String>,
    /// A table that another made may be changed to use deletion vectors.
    pub upgrade: bool,
    /// What new rows do to values of old ones; `None`: what the table says.
    pub merge: Option<Merge>,
    /// How replaced rows leave the table; `None`: what the table says.
    pub write_mode: Option<WriteMode>,
}

/// How rows go into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMode {
    Append,
    /// A row replaces the one with the same key.
    Upsert,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub location: String,
    /// The files that were loaded now.
    pub files: Vec<LoadedFile>,
    /// Those that had been loaded before.
    pub skipped: Vec<LoadedFile>,
    pub rows: u64,
    /// The table's version with the rows; `None` when there was nothing new.
    pub version: Option<u64>,
    pub elapsed: Duration,
}

/// A file, by what makes it the same or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedFile {
    pub url: String,
    pub size: u64,
    /// Of its content, in hexadecimal.
    pub sha256: String,
}

impl LoadedFile {
    /// The application id by which the table knows it.
    fn application(&self) -> String {
        let identity = Sha256::digest(format!("{}\n{}\n{}", self.url, self.size, self.sha256));
        format!("watershed/load/{identity:x}")
    }
}

pub(crate) async fn load(engine: &Engine, request: &LoadRequest) -> Result<Loaded> {
    let began = engine.clock().elapsed();
    let settings = engine.layers().settings()?;
    let runtime = engine.runtime(&settings)?;
    let place = engine.place(engine.stores(), &request.into, &runtime)?;
    let location = shown(&place);
    let found = find::find(engine.stores(), &request.files).await?;
    let (new, skipped) = identify(engine, &location, found, request.again).await?;
    let mut report = Loaded {
        location: location.clone(),
        files: new.iter().map(|new| new.file.clone()).collect(),
        skipped,
        rows: 0,
        version: None,
        elapsed: Duration::ZERO,
    };
    if !new.is_empty() {
        let lanes = parallelism(&settings);
        let session = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(lanes), runtime);
        let mut inputs = vec![];
        for New { found, .. } in &new {
            session.runtime_env().register_object_store(&found.store_url, found.store.clone());
            inputs.push((found, read::schema(found, &session.state()).await?));
        }
        let (table, partition_by) = table_of(engine, request, &location, &inputs).await?;
        let key = key(engine, request, &location).await?;
        let spec = TableSpec { schema: table.clone(), partition_by, properties: BTreeMap::new(), owner: None, key };
        let compact_files = usize::try_from(settings.compact_files).unwrap_or(usize::MAX);
        let target_file_size = settings.target_file_size;
        let options = SinkOptions { target_file_size, lanes, compact_files, ..SinkOptions::default() };
        let sink = DeltaSink::open(engine.stores(), "load", &location, spec, options, engine.clock().clone()).await?;
        let mut work = vec![];
        for (found, own) in &inputs {
            let plan = read::plan(found, own, &table, lanes, &session.state()).await?;
            let partitions = plan.output_partitioning().partition_count();
            work.extend((0..partitions).map(|partition| Piece {
                plan: plan.clone(),
                partition,
                file: (*found).clone(),
            }));
        }
        let writer = sink.writer()?;
        report.rows = copy(work, &table, lanes, &writer, session.task_ctx()).await?;
        let prepared = writer.finish().await?;
        let applications: Vec<(String, u64)> = new.iter().map(|new| (new.file.application(), new.version)).collect();
        match sink.commit_load(&applications, &prepared, &BTreeMap::new()).await? {
            Committed::Now { version } => report.version = Some(version),
            // Another process loaded the very same files while this one read them.
            Committed::Before => {
                report.skipped.append(&mut report.files);
                report.rows = 0;
            }
        }
        if let Err(e) = sink.keep_in_shape().await {
            tracing::warn!(table = location, "what was loaded is there, but small files were not put together: {e}");
        }
    }
    report.elapsed = engine.clock().elapsed().saturating_sub(began);
    Ok(report)
}

/// The key by which rows are upserted; `None`: they are appended.
async fn key(engine: &Engine, request: &LoadRequest, location: &str) -> Result<Option<KeySpec>> {
    let recorded = tables::info(engine, location).await?.and_then(|info| KeySpec::of(&info.properties));
    let manner = request.sequence_by.is_some() || request.merge.is_some() || request.write_mode.is_some();
    let asked = !request.key.is_empty() || request.operation.is_some() || manner;
    let mode = request.mode.unwrap_or(if recorded.is_some() || asked { LoadMode::Upsert } else { LoadMode::Append });
    match (mode, recorded) {
        (LoadMode::Append, Some(recorded)) => Err(Error::input(format!(
            "table {location} has the key ({}), which appended rows could have twice; load with --mode upsert",
            recorded.columns.join(", ")
        ))),
        (LoadMode::Append, None) if asked => Err(Error::input(
            "--key, --sequence-by, --operation, --merge and --write-mode are for --mode upsert, and not for append",
        )),
        (LoadMode::Append, None) => Ok(None),
        (LoadMode::Upsert, None) if request.key.is_empty() => Err(Error::input(format!(
            "table {location} has no key recorded: name the columns of its key, as in --key id or --key region,id"
        ))),
        (LoadMode::Upsert, recorded) => {
            let known = recorded.unwrap_or_default();
            let columns = if request.key.is_empty() { known.columns } else { request.key.clone() };
            let sequence_by = request.sequence_by.clone().or(known.sequence_by);
            // Files are read in parallel, so their rows come in no order.
            let (operation, upgrade) = (request.operation.clone(), request.upgrade);
            let merge = request.merge.unwrap_or(known.merge);
            let write_mode = request.write_mode.unwrap_or(known.write_mode);
            Ok(Some(KeySpec { columns, sequence_by, operation, fold: false, upgrade, merge, write_mode }))
        }
    }
}

/// A file that is to be loaded.
struct New {
    found: Found,
    file: LoadedFile,
    /// How many times it then has been.
    version: u64,
}

/// Tells the files that are new from those that the table has.
async fn identify(
    engine: &Engine,
    location: &str,
    found: Vec<Found>,
    again: bool,
) -> Result<(Vec<New>, Vec<LoadedFile>)> {
    let hashed = futures::stream::iter(found).map(|found| async move {
        let sha256 = sha256(&found).await?;
        let file = LoadedFile { url: found.url.clone(), size: found.object.size, sha256 };
        Ok::<_, Error>((found, file))
    });
    let files: Vec<_> = hashed.buffered(HASHED_AT_ONCE).try_collect().await?;
    let applications: Vec<String> = files.iter().map(|(_, file)| file.application()).collect();
    let known = loaded(engine.stores(), location, &applications).await?;
    let (mut new, mut skipped) = (vec![], vec![]);
    for ((found, file), application) in files.into_iter().zip(applications) {
        match known.get(&application) {
            Some(_) if !again => skipped.push(file),
            before => new.push(New { found, file, version: before.map_or(1, |times| times + 1) }),
        }
    }
    Ok((new, skipped))
}

async fn sha256(file: &Found) -> Result<String> {
    let failed = |e| Error::storage("could not read", &file.url, e);
    let mut bytes = file.store.get_opts(&file.object.location, Default::default()).await.map_err(failed)?.into_stream();
    let mut hash = Sha256::new();
    while let Some(chunk) = bytes.try_next().await.map_err(failed)? {
        hash.update(&chunk);
    }
    Ok(format!("{:x}", hash.finalize()))
}

/// The columns of the rows as they are written, those of the table if there is one, and the partitioning that was asked for.
async fn table_of(
    engine: &Engine,
    request: &LoadRequest,
    location: &str,
    inputs: &[(&Found, SchemaRef)],
) -> Result<(SchemaRef, Vec<PartitionBy>)> {
    let partition_by = partition_by(request)?;
    if let Some(info) = tables::info(engine, location).await? {
        // Partition columns that the files do not have are worked out by the writer, which knows how.
        let derived = |f: &FieldRef| {
            info.partition_columns.contains(f.name())
                && inputs.iter().all(|(_, own)| own.field_with_name(f.name()).is_err())
        };
        let mut kept: Vec<FieldRef> = info.schema.fields().iter().filter(|f| !derived(f)).cloned().collect();
        // Read beside the table's columns, and not kept.
        kept.extend(request.operation.iter().map(|name| Arc::new(Field::new(name, DataType::Utf8, true))));
        let table: SchemaRef = Arc::new(Schema::new(kept));
        for (found, own) in inputs {
            conform::check_columns(own, &table, &found.url)?;
        }
        return Ok((table, partition_by));
    }
    let mut merged: Option<Schema> = None;
    for (found, own) in inputs {
        let own = conform::stored_schema(own, &found.url)?;
        merged = Some(match merged {
            None => own.as_ref().clone(),
            Some(known) => conform::widen(&known, &own, found.format.is_text(), &found.url)?,
        });
    }
    let merged = merged.ok_or_else(|| Error::bug("a load without files"))?;
    let merged = match &request.time_column {
        Some(column) => with_time(&merged, column)?,
        None => merged,
    };
    Ok((delta_schema(&merged)?, partition_by))
}

/// What `--partition-by` asks for; with a time column alone, its day.
fn partition_by(request: &LoadRequest) -> Result<Vec<PartitionBy>> {
    let by = request.partition_by.as_deref().map(str::trim);
    match (by, &request.time_column) {
        (None, None) => Ok(vec![]),
        (None | Some("day"), Some(column)) => Ok(vec![PartitionBy::Day(column.clone())]),
        (Some("hour"), Some(column)) => Ok(vec![PartitionBy::Hour(column.clone())]),
        (Some(grain @ ("day" | "hour")), None) => {
            Err(Error::input(format!("a table is partitioned by the {grain} of a column: give --time-column too")))
        }
        (Some(text), _) => PartitionBy::parse(text),
    }
}

/// The time column becomes a timestamp: dates count from midnight UTC, and text must say a time.
fn with_time(schema: &Schema, column: &str) -> Result<Schema> {
    let names = || schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let at = schema.index_of(column).map_err(|_| {
        Error::input(format!("there is no column {column} to be the time column; the files have {}", names()))
    })?;
    let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    match fields[at].data_type() {
        DataType::Timestamp(..) => {}
        DataType::Date32 | DataType::Utf8 => fields[at] = Arc::new(Field::new(column, time, true)),
        other => {
            return Err(Error::input(format!(
                "column {column} is {other} and cannot be the time column, which is a timestamp, a date, or text that holds one"
            )));
        }
    }
    Ok(Schema::new(fields))
}

/// One partition of one file's plan.
struct Piece {
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    file: Found,
}

/// Reads all pieces and writes their rows, each lane taking the next piece when it is through with one. Returns the rows.
async fn copy(
    work: Vec<Piece>,
    table: &SchemaRef,
    lanes: usize,
    writer: &Arc<dyn EpochWriter>,
    tasks: Arc<TaskContext>,
) -> Result<u64> {
    let queue = Arc::new(Mutex::new(work.into_iter()));
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        let (queue, table, writer, tasks) = (queue.clone(), table.clone(), writer.clone(), tasks.clone());
        running.spawn(async move {
            let mut rows = 0;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(piece) = next else { return Ok(rows) };
                rows += copy_piece(&piece, lane, &table, &writer, tasks.clone()).await?;
            }
        });
    }
    let mut rows = 0;
    while let Some(lane) = running.join_next().await {
        rows += lane.map_err(|e| Error::bug(format!("a lane of the load: {e}")))??;
    }
    Ok(rows)
}

async fn copy_piece(
    piece: &Piece,
    lane: usize,
    table: &SchemaRef,
    writer: &Arc<dyn EpochWriter>,
    tasks: Arc<TaskContext>,
) -> Result<u64> {
    let failed = |e| read::unreadable(&piece.file, e);
    let mut batches = piece.plan.execute(piece.partition, tasks).map_err(failed)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        let batch = conform::conform(&batch, table, &piece.file.url)?;
        rows += batch.num_rows() as u64;
        writer.write(lane, batch).await?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_url_size_and_content() {
        let file = LoadedFile { url: "file:///a".into(), size: 3, sha256: "00".into() };
        let same = file.clone();
        assert_eq!(file.application(), same.application());
        assert!(file.application().starts_with("watershed/load/"));
        for other in [
            LoadedFile { url: "file:///b".into(), ..file.clone() },
            LoadedFile { size: 4, ..file.clone() },
            LoadedFile { sha256: "01".into(), ..file.clone() },
        ] {
            assert_ne!(other.application(), file.application());
        }
    }

    #[test]
    fn partitioning_as_asked() {
        let request = |time: Option<&str>, by: Option<&str>| LoadRequest {
            time_column: time.map(Into::into),
            partition_by: by.map(Into::into),
            ..LoadRequest::default()
        };
        let text =
            |r: LoadRequest| partition_by(&r).map(|p| p.iter().map(|p| p.to_string()).collect::<Vec<_>>().join(","));
        assert_eq!(text(request(None, None)).unwrap(), "");
        assert_eq!(text(request(Some("ts"), None)).unwrap(), "day(ts)");
        assert_eq!(text(request(Some("ts"), Some("hour"))).unwrap(), "hour(ts)");
        assert_eq!(text(request(Some("ts"), Some("day(ts), region"))).unwrap(), "day(ts),region");
        assert!(text(request(None, Some("day"))).unwrap_err().to_string().contains("--time-column"));
    }

    #[test]
    fn the_time_column_is_a_timestamp() {
        let schema =
            Schema::new(vec![Field::new("d", DataType::Date32, true), Field::new("n", DataType::Boolean, true)]);
        assert!(matches!(with_time(&schema, "d").unwrap().field(0).data_type(), DataType::Timestamp(..)));
        assert!(with_time(&schema, "n").unwrap_err().to_string().contains("column n is Boolean"));
        assert!(with_time(&schema, "x").unwrap_err().to_string().contains("the files have d, n"));
    }
}
