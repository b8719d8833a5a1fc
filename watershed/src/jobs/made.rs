//! From a planned job to one that runs: the catalog is written first and then the tables, and the runtime is handed both.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use watershed_core::sink::Sink;
use watershed_core::{Error, Result};
use watershed_lake::{Create, DeltaSink, SinkOptions, TableSpec};
use watershed_runtime::{Context, Goal, Job, Summary};

use super::{Output, Planned, Standing};
use crate::bindings;
use crate::catalog::Kind;
use crate::engine::{Engine, RunOptions};
use crate::execute::Session;
use crate::memory;
use crate::repair::Windows;
use crate::storable::Storable;
use crate::tables::{self, RESULT};
use crate::tails;

/// A job with the surroundings of its plans.
pub(crate) struct Made {
    pub(super) job: Job,
    /// Its statement would resume if it were said again.
    or_replace: bool,
    pub(super) tasks: Arc<TaskContext>,
    /// The memory of files being written, while the job runs.
    pub(super) writing: MemoryReservation,
}

/// Writes the catalog and the tables, and puts the job together, which is one of so many.
pub(crate) async fn make(session: &mut Session<'_>, planned: Planned, jobs: usize) -> Result<Made> {
    let engine = session.engine;
    let Planned {
        name,
        location,
        late,
        standing,
        settings,
        parallelism,
        lowered,
        known,
        query,
        created,
        early,
        output,
        archive,
    } = planned;
    let (entry, create) = match standing {
        Standing::Resume(entry) => {
            let create = match entry.kind {
                Kind::Sink => Create::AtFirstRows,
                _ => tables::create_for(engine, &entry).await?,
            };
            (entry, create)
        }
        Standing::New(draft) => (engine.catalog().put(draft, None).await?, Create::Now),
        Standing::Replace(old, draft) => {
            let entry = engine.catalog().put(draft, Some(&old)).await?;
            tables::forget_checkpoints(engine, &old).await?;
            (entry, Create::Now)
        }
    };
    session.remember(entry.clone());
    if entry.kind == Kind::MaterializedView {
        tables::clear_for(engine, &location, &entry).await?;
    }
    tables::clear_for(engine, &late, &entry).await?;
    let tasks = known.planner.task_context();
    let writing = memory::for_files(&name, jobs, tasks.memory_pool());
    let options = SinkOptions {
        target_file_size: settings.target_file_size,
        lanes: parallelism,
        create,
        buffer: writing.size(),
        compact_files: usize::try_from(settings.compact_files).unwrap_or(usize::MAX),
        ..SinkOptions::default()
    };
    let clock = engine.clock();
    let sink: Arc<dyn Sink> = match output {
        Output::Outlet(outlet) => outlet.open(engine, &entry, settings.target_file_size).await?,
        Output::Table { mut spec, columns } => {
            spec.owner = (entry.kind == Kind::MaterializedView).then_some(entry.incarnation);
            let table = DeltaSink::open(engine.stores(), RESULT, &location, spec, options, clock.clone()).await?;
            match columns {
                Some(columns) => {
                    Arc::new(bindings::Changed::new(Arc::new(table), move |rows| bindings::renamed(rows, &columns)))
                }
                None => Arc::new(table),
            }
        }
    };
    let reads_log = known.sources.values().any(|source| source.tail.is_some());
    let rejected_rows = tails::rejected_schema(&lowered.rejected, reads_log);
    let mut storable = Storable::of(&rejected_rows);
    if let Some(table) = tables::info(engine, &late).await? {
        storable = storable.fitted_to(&table.schema)?;
    }
    let rejected = TableSpec {
        schema: storable.schema().clone(),
        partition_by: vec![],
        properties: BTreeMap::new(),
        owner: Some(entry.incarnation),
        key: None,
    };
    let options = SinkOptions { lanes: 1, create: Create::AtFirstRows, buffer: options.buffer / 8, ..options };
    let late = DeltaSink::open(engine.stores(), "late", &late, rejected, options, clock.clone()).await?;
    let recompute = Windows::of(session, &settings, &query, created, &lowered, &known).await?;
    let (inputs, holes) = bindings::inputs(&lowered, &known, &rejected_rows)?;
    let job = Job {
        graph: bindings::graph(&name, lowered, holes, parallelism, jobs, &tasks),
        name,
        incarnation: entry.incarnation,
        inputs,
        dimensions: known.dimensions,
        sink,
        rejects: Arc::new(bindings::Changed::new(Arc::new(late), move |rows| {
            storable.rows(&tails::widened(rows, &rejected_rows)?)
        })),
        recompute,
        early,
        archive,
        settings,
        goal: Goal { to_the_end: session.options.to_the_end, until_caught_up: session.options.until_caught_up },
    };
    Ok(Made { job, or_replace: entry.or_replace, tasks, writing })
}

/// Runs a job as far as it goes.
pub(crate) async fn run(engine: &Engine, options: &RunOptions, made: Made) -> (String, Result<Summary>) {
    let name = made.job.name.clone();
    let or_replace = made.or_replace;
    let _writing = made.writing;
    let ended = watershed_runtime::run(made.job, &context(engine, options, made.tasks)).await;
    let ended = ended.map_err(|e| match e {
        Error::Stopped(message) if or_replace && message.contains("CREATE OR REPLACE") => Error::Stopped(format!(
            "{message} (this one was made by CREATE OR REPLACE, which goes on when said again: drop it first)"
        )),
        other => other,
    });
    (name, ended)
}

pub(super) fn context(engine: &Engine, options: &RunOptions, tasks: Arc<TaskContext>) -> Context {
    let (home, path) = engine.home();
    Context {
        clock: engine.clock().clone(),
        home: home.clone(),
        home_path: path.clone(),
        tasks,
        progress: options.progress.clone(),
        stop: options.stop.clone(),
    }
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
