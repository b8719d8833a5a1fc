//! The engine: a home, and what can be done in it. The command line and embedders both stand on this.
//!
//! Invariant: an [`Engine`] holds no state but what it was built from; everything that lasts is in the home, so two engines
//! over one home see the same, and one that is dropped loses nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use futures::TryStreamExt;
use object_store::path::Path;
use watershed_core::clock::{Clock, SystemClock};
use watershed_core::settings::Settings;
use watershed_core::{Error, Result};
use watershed_lake::upkeep::{CompactOptions, Compacted, VacuumOptions, Vacuumed};
use watershed_lake::{Place, RequestCounts, Stores};
use watershed_runtime::{NoProgress, Progress, Stop, Summary};

use crate::batch::Rows;
use crate::catalog::{Catalog, Entry};
use crate::compact;
use crate::control::{self, Asked};
use crate::estimate::Estimate;
use crate::execute::Session;
use crate::handover::{self, Forgets, Handover};
use crate::jobs;
use crate::layers::{Layers, Values};
use crate::listing::{self, ColumnInfo, RelationInfo};
use crate::load::{self, LoadRequest, Loaded};
use crate::memory::{self, Limits};
use crate::replay::{self, Replayed};
use crate::standing::{self, JobInfo};
use crate::vacuum;
use crate::verify::{self, Verification, VerifyOptions};

/// Watershed over one home.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    home: Place,
    stores: Stores,
    clock: Arc<dyn Clock>,
    layers: Layers,
    variables: BTreeMap<String, String>,
    functions: Vec<ScalarUDF>,
    /// DataFusion's surroundings with the memory pool, and the limit they were made with.
    runtime: Mutex<Option<(Limits, Arc<RuntimeEnv>)>>,
}

/// How a text is run.
#[derive(Clone)]
pub struct RunOptions {
    /// Read open partitions too, close every window, and end the jobs for good.
    pub to_the_end: bool,
    /// End at the newest message of the logs that are read, instead of waiting for more.
    pub until_caught_up: bool,
    /// Go on with jobs that were ended so, from their checkpoint before.
    pub reopen: bool,
    pub progress: Arc<dyn Progress>,
    /// Asks the jobs to end at the next safe point.
    pub stop: Stop,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            to_the_end: false,
            until_caught_up: false,
            reopen: false,
            progress: Arc::new(NoProgress),
            stop: Stop::default(),
        }
    }
}

/// A job's plan, or that of a query, in words; and what a run is expected to cost.
#[derive(Clone, Debug)]
pub struct JobPlan {
    pub text: String,
    pub estimate: Option<Estimate>,
}

/// What a statement came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Something was created, kept or dropped; in words.
    Done(String),
    /// A job went as far as it could.
    Job(Box<Summary>),
    /// A query's answer.
    Rows { schema: SchemaRef, batches: Vec<RecordBatch> },
    /// A plan or a description.
    Text(String),
}

impl Engine {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs a SQL text as `watershed run` does, and gives what each statement came to.
    ///
    /// Statements that create nothing new are harmless to repeat: a job goes on where it ended.
    pub async fn execute(&self, text: &str) -> Result<Vec<Outcome>> {
        let mut outcomes = vec![];
        let mut seen = |outcome| {
            outcomes.push(outcome);
            Ok(())
        };
        self.execute_with(text, &RunOptions::default(), &mut seen).await?;
        Ok(outcomes)
    }

    /// The same, with every outcome handed over as soon as it is there; so those before an error are known too.
    pub async fn execute_with(
        &self,
        text: &str,
        options: &RunOptions,
        seen: &mut (dyn FnMut(Outcome) -> Result<()> + Send),
    ) -> Result<()> {
        Session::new(self, options).await?.run(text, seen).await
    }

    /// Whether a sink of a text writes its rows to standard output, where nothing else should be then.
    pub fn prints_rows(&self, text: &str) -> bool {
        let parsed = watershed_plan::parse(text, &|name| self.variable(name));
        parsed.is_ok_and(|statements| statements.iter().any(|parsed| jobs::prints_rows(&parsed.statement)))
    }

    /// Answers one query over sources, views and tables, as an ordinary batch query.
    pub async fn query(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.query_stream(sql).await?.try_collect().await
    }

    /// The same as a stream, for answers larger than memory.
    pub async fn query_stream(&self, sql: &str) -> Result<Rows> {
        let options = RunOptions::default();
        Session::new(self, &options).await?.query(sql).await
    }

    /// How the jobs of a text would run; nothing is created and nothing runs.
    pub async fn plan(&self, text: &str) -> Result<String> {
        let options = RunOptions::default();
        let plans = Session::new(self, &options).await?.plan(text, false).await?;
        Ok(plans.into_iter().map(|plan| plan.text).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n"))
    }

    /// The same, with what a run of each job is expected to read, hold and write. A sample of the files is read for it, for
    /// about a second a job.
    pub async fn estimate(&self, text: &str, to_the_end: bool) -> Result<Vec<JobPlan>> {
        let options = RunOptions { to_the_end, ..RunOptions::default() };
        Session::new(self, &options).await?.plan(text, true).await
    }

    /// Puts files into a table, each once.
    pub async fn load(&self, request: &LoadRequest) -> Result<Loaded> {
        load::load(self, request).await
    }

    /// Puts the small files of a table together and is rid of its marked rows; by name, or by location.
    pub async fn compact(&self, table: &str, options: CompactOptions) -> Result<Compacted> {
        compact::compact(self, table, options).await
    }

    /// Removes files that neither a table nor a job of this home needs any more, and cleans up the table's log; by name, or by
    /// location.
    pub async fn vacuum(&self, table: &str, options: VacuumOptions) -> Result<Vacuumed> {
        vacuum::vacuum(self, table, options).await
    }

    /// Holds a materialized view against the batch answer over the facts that it was made from.
    pub async fn verify(&self, view: &str, options: &VerifyOptions) -> Result<Verification> {
        verify::verify(self, view, options).await
    }

    /// The jobs, and where they stand.
    pub async fn jobs(&self) -> Result<Vec<JobInfo>> {
        standing::jobs(self).await
    }

    /// Alters settings of a job, by name and value: `throttle_rows`, `throttle_bytes`, `schedule`; `none` is no limit. A live
    /// run goes by them within a second or two; they stay, above all other settings, until altered to `default`.
    pub async fn alter(&self, job: &str, changes: &[(&str, &str)]) -> Result<Asked> {
        let alter = |control: &mut watershed_core::control::Control| {
            changes.iter().try_for_each(|(name, value)| control.alter(name, value))
        };
        control::ask(self, job, alter).await
    }

    /// Lets a job rest: a live run at its next safe point, with all it has read committed; a later one does nothing.
    pub async fn pause(&self, job: &str) -> Result<Asked> {
        let now = self.clock().now().0;
        let pause = |control: &mut watershed_core::control::Control| {
            control.paused.get_or_insert(now);
            Ok(())
        };
        control::ask(self, job, pause).await
    }

    /// Lets a paused job go on.
    pub async fn resume(&self, job: &str) -> Result<Asked> {
        let resume = |control: &mut watershed_core::control::Control| {
            control.paused = None;
            Ok(())
        };
        control::ask(self, job, resume).await
    }

    /// Ends the live run of a job at its next safe point; later runs go on from there.
    pub async fn stop(&self, job: &str) -> Result<Asked> {
        let id = self.clock().id();
        let stop = |control: &mut watershed_core::control::Control| {
            control.stop = Some(id);
            Ok(())
        };
        control::ask(self, job, stop).await
    }

    /// Plays the messages of logs back that a job could not read, as far as they can be read with its sources as they are
    /// declared now; with `dry_run` only says what that would be. The job must not be running.
    pub async fn replay(&self, job: &str, dry_run: bool) -> Result<Replayed> {
        replay::replay(self, job, dry_run).await
    }

    /// Sources, views and tables.
    pub async fn tables(&self) -> Result<Vec<RelationInfo>> {
        listing::tables(self).await
    }

    /// Where history and log of a source meet, or of each source that a job reads; with `forgets`, also what the log is about
    /// to forget.
    pub async fn handover(&self, name: &str, forgets: Option<Forgets>) -> Result<Vec<Handover>> {
        handover::of(self, name, forgets).await
    }

    /// The columns of a source, view or table.
    pub async fn describe(&self, name: &str) -> Result<Vec<ColumnInfo>> {
        listing::describe(self, name).await
    }

    /// What the stores were asked since the engine was built, home included; local disks count as stores.
    pub fn requests(&self) -> RequestCounts {
        self.inner.stores.requests()
    }

    /// Whether any store but the local disk has been opened.
    pub fn is_remote(&self) -> bool {
        self.inner.stores.is_remote()
    }

    pub fn catalog(&self) -> Catalog {
        let home = &self.inner.home;
        Catalog::new(home.store.clone(), home.path.clone(), shown(home))
    }

    pub(crate) fn home(&self) -> (&Arc<dyn object_store::ObjectStore>, &Path) {
        (&self.inner.home.store, &self.inner.home.path)
    }

    pub(crate) fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.inner.layers
    }

    /// The functions that were given to the builder.
    pub(crate) fn functions(&self) -> &[ScalarUDF] {
        &self.inner.functions
    }

    pub(crate) fn variables(&self) -> &BTreeMap<String, String> {
        &self.inner.variables
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.inner.variables.get(name).cloned()
    }

    /// Where a table lies that was not given a location.
    pub(crate) fn default_location(&self, name: &str) -> String {
        format!("{}/tables/{name}", shown(&self.inner.home))
    }

    /// Where an entry's table lies, or a sink's topic.
    pub(crate) fn location(&self, entry: &Entry) -> String {
        entry.location.clone().unwrap_or_else(|| self.default_location(&entry.name))
    }

    /// DataFusion's surroundings with one memory pool for all that the engine does at a time, as large as the settings say.
    pub(crate) fn runtime(&self, settings: &Settings) -> Result<Arc<RuntimeEnv>> {
        let limits = Limits::of(settings);
        let mut runtime = self.inner.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        match &*runtime {
            Some((made_with, env)) if *made_with == limits => Ok(env.clone()),
            _ => {
                let env = memory::runtime_env(&limits)?;
                *runtime = Some((limits, env.clone()));
                Ok(env)
            }
        }
    }

    /// Opens a location and makes its store known to DataFusion.
    pub(crate) fn place(&self, stores: &Stores, location: &str, runtime: &RuntimeEnv) -> Result<Place> {
        let place = stores.open(location)?;
        runtime.register_object_store(&place.store_url, place.store.clone());
        Ok(place)
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("home", &self.inner.home.url.as_str()).finish_non_exhaustive()
    }
}

/// Workers of a job whose settings name no number.
pub(crate) fn parallelism(settings: &Settings) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
    settings.parallelism.unwrap_or_else(cores).max(1)
}

/// A place as people write it.
pub(crate) fn shown(place: &Place) -> String {
    place.location()
}

/// The relation of a name, of whatever kind.
pub(crate) fn relation<'a>(entries: impl IntoIterator<Item = &'a Entry>, name: &str) -> Option<&'a Entry> {
    entries.into_iter().find(|e| e.kind.is_relation() && e.name == name)
}

/// The job of a name.
pub(crate) fn job_named<'a>(entries: &'a [Entry], name: &str) -> Result<&'a Entry> {
    let jobs = || entries.iter().filter(|e| e.kind.is_job());
    jobs().find(|e| e.name == name).ok_or_else(|| {
        let names: Vec<&str> = jobs().map(|e| e.name.as_str()).collect();
        let known =
            if names.is_empty() { "there is none yet".to_string() } else { format!("there are {}", names.join(", ")) };
        Error::input(format!("there is no job {name}; {known}"))
    })
}

/// An error for a name that the catalog does not have.
pub(crate) fn unknown<'a>(entries: impl IntoIterator<Item = &'a Entry>, name: &str) -> Error {
    let names: Vec<&str> = entries.into_iter().filter(|e| e.kind.is_relation()).map(|e| e.name.as_str()).collect();
    let known =
        if names.is_empty() { "there is none yet".to_string() } else { format!("there are {}", names.join(", ")) };
    Error::input(format!("there is no source, view or table {name}; {known}"))
}

/// Puts an [`Engine`] together.
pub struct Builder {
    home: String,
    stores: Stores,
    clock: Arc<dyn Clock>,
    environment: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    functions: Vec<ScalarUDF>,
    settings: Values,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            home: ".watershed".into(),
            stores: Stores::default(),
            clock: Arc::new(SystemClock::default()),
            environment: BTreeMap::new(),
            variables: BTreeMap::new(),
            functions: vec![],
            settings: vec![],
        }
    }
}

impl Builder {
    /// Where catalog, checkpoints and tables are kept: a folder or an object store URL. `.watershed` without it.
    pub fn home(mut self, location: impl Into<String>) -> Self {
        self.home = location.into();
        self
    }

    /// How object stores are opened.
    pub fn stores(mut self, stores: Stores) -> Self {
        self.stores = stores;
        self
    }

    /// The only door to wall time and randomness; tests put their own here.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets a setting above whatever a text says, as a flag of the command line does.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Values for `${NAME}`.
    pub fn variables<N: Into<String>, V: Into<String>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.variables.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// A scalar function for views and queries, by its name in lower case; it may not have the name of another one.
    ///
    /// Views take functions that are declared [`Immutable`](datafusion::logical_expr::Volatility::Immutable): the same
    /// arguments, the same value, in every run and every version of the program, since a view goes on for years and never
    /// computes a closed window again. Whoever runs the job must bring the function. It runs on many threads at a time, and
    /// rows come in no order.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use watershed::Engine;
    /// use watershed::arrow::array::AsArray;
    /// use watershed::arrow::datatypes::{DataType, Int64Type};
    /// use watershed::datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    ///
    /// # async fn example() -> watershed::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary folder");
    /// let squared = create_udf(
    ///     "squared",
    ///     vec![DataType::Int64],
    ///     DataType::Int64,
    ///     Volatility::Immutable,
    ///     Arc::new(|args: &[ColumnarValue]| {
    ///         let args = ColumnarValue::values_to_arrays(args)?;
    ///         let squares = args[0].as_primitive::<Int64Type>().unary::<_, Int64Type>(|x| x.wrapping_mul(x));
    ///         Ok(ColumnarValue::Array(Arc::new(squares)))
    ///     }),
    /// );
    /// let engine = Engine::builder().home(dir.path().display().to_string()).udf(squared).build()?;
    /// let rows = engine.query("SELECT squared(12) AS x").await?;
    /// assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 144);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().expect("a runtime").block_on(example()).expect("the example runs");
    /// ```
    pub fn udf(mut self, function: ScalarUDF) -> Self {
        self.functions.push(function);
        self
    }

    /// Environment variables: `WATERSHED_…` below all other settings, and any of them for `${NAME}` that
    /// [`variables`](Self::variables) leaves open. An engine heeds no environment but what is given here.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    pub fn build(self) -> Result<Engine> {
        let layers = Layers::new(self.environment.clone(), self.settings)?;
        let mut variables = self.environment;
        variables.extend(self.variables);
        let stores = self.stores.with_variables(variables.clone());
        let home = stores.open(&self.home)?;
        let inner = Inner {
            home,
            stores,
            clock: self.clock,
            layers,
            variables,
            functions: self.functions,
            runtime: Mutex::default(),
        };
        Ok(Engine { inner: Arc::new(inner) })
    }
}
