//! The one check: a query as a streaming job, cut in many ways, against the batch answer.
//!
//! Each variant runs the job over the same facts: whole, partition by partition, an epoch a step, stopped after every step
//! and restored by a fresh engine, restored at another parallelism. After every run the result must be what the batch
//! answer is for windows that end by the watermark, over all facts but those listed as late; and at the end, for all windows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;
use watershed::{Engine, Outcome, RunOptions, VerifyOptions};
use watershed_core::epoch::Manifest;
use watershed_core::time::Span;
use watershed_lake::{HistoryOptions, Stores, open_history};
use watershed_runtime::{Progress, ProgressUpdate, Stop, Summary};

use super::compare::{rows, same};
use super::facts::Facts;
use super::plain::{MISSED, Plain, windowed};
use super::remote::Remote;
use super::tables::Table;
use crate::minio::server::Server;

/// A query over drawn facts.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Sources by name.
    pub(crate) sources: BTreeMap<String, Facts>,
    /// Tables that the query joins.
    pub(crate) tables: Vec<Table>,
    /// What stands in each `CREATE SOURCE`'s watermark after the column, such as ` - INTERVAL '1 hour'`.
    pub(crate) delay: String,
    /// `WITH` options of sources, after `lake`.
    pub(crate) options: String,
    /// Statements that the view's query builds on, such as `CREATE VIEW`.
    pub(crate) statements: Vec<String>,
    /// The view's query.
    pub(crate) sql: String,
    /// Over the view's columns, the end of a row's window; empty for stateless views.
    pub(crate) end: String,
    /// One more way to cut the job than all cases are cut.
    pub(crate) cut: Option<Variant>,
    /// What the oracle is asked, where that is not the view's query: one that leaves nothing to us, such as ties.
    pub(crate) oracle: Option<String>,
}

impl Case {
    pub(crate) fn over(sources: impl IntoIterator<Item = (&'static str, Facts)>, sql: &str) -> Case {
        Case {
            sources: sources.into_iter().map(|(n, f)| (n.to_string(), f)).collect(),
            tables: vec![],
            delay: String::new(),
            options: String::new(),
            statements: vec![],
            sql: sql.to_string(),
            end: if sql.contains("window_end") { "window_end" } else { "" }.to_string(),
            cut: None,
            oracle: None,
        }
    }

    /// The same over these tables besides.
    pub(crate) fn joining(mut self, tables: impl IntoIterator<Item = Table>) -> Case {
        self.tables.extend(tables);
        self
    }
}

/// How a job is cut.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) settings: Vec<(&'static str, String)>,
    /// After how many steps run after run is stopped, over and over, to go on with a fresh engine; empty is never.
    pub(crate) stops: Vec<u64>,
    /// Workers of run after run, over and over.
    pub(crate) parallelism: Vec<usize>,
}

/// All in one slice; partition by partition, an epoch a step; stopped after every step; and that with other parallelism.
pub(crate) fn variants() -> [Variant; 4] {
    let cut = [("commit_interval", "0 s"), ("slice", "0 s")];
    [
        variant("whole", &[("slice", "10000 days")], false, &[2]),
        variant("sliced", &cut, false, &[1]),
        variant("restarted", &cut, true, &[2]),
        variant("reshaped", &cut, true, &[3, 1, 2]),
    ]
}

/// A way to cut a job; with `restart` it is stopped after every step.
pub(crate) fn variant(
    name: &'static str,
    settings: &[(&'static str, &str)],
    restart: bool,
    parallelism: &[usize],
) -> Variant {
    let settings = settings.iter().map(|(name, value)| (*name, value.to_string())).collect();
    Variant { name, settings, stops: if restart { vec![1] } else { vec![] }, parallelism: parallelism.to_vec() }
}

/// Runs every variant; `Err` says which, when, and what differs. Returns the last one's folders.
pub(crate) async fn check(case: &Case) -> Result<World, String> {
    let variants: Vec<Variant> = variants().into_iter().chain(case.cut.clone()).collect();
    check_by(case, &variants).await
}

pub(crate) async fn check_by(case: &Case, variants: &[Variant]) -> Result<World, String> {
    check_on(case, variants, None).await
}

/// The same, where facts, home and results are in a bucket.
pub(crate) async fn check_on(case: &Case, variants: &[Variant], server: Option<&Server>) -> Result<World, String> {
    let mut last = None;
    for variant in variants {
        let mut world = World::new(case);
        if let Some(server) = server {
            world.move_to(server).await;
        }
        run(&world, case, variant).await.map_err(|e| format!("{}: {e}\n{}", variant.name, case.sql))?;
        last = Some(world);
    }
    last.ok_or_else(|| "no variant".to_string())
}

/// Folders of a test: facts, a home, and the view's table.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    /// Where they are for jobs, if not there; the folder then has copies.
    remote: Option<Remote>,
}

impl World {
    pub(crate) fn new(case: &Case) -> World {
        let folder = tempfile::tempdir().unwrap();
        for (name, facts) in &case.sources {
            facts.write(&folder.path().join(name));
        }
        case.tables.iter().for_each(|table| table.write(folder.path()));
        World { folder, remote: None }
    }

    /// Moves the facts and all that is to come into a bucket.
    async fn move_to(&mut self, server: &Server) {
        self.remote = Some(Remote::new(server, self.folder.path()).await);
    }

    /// Where jobs find it all.
    fn root(&self) -> String {
        self.remote.as_ref().map_or_else(|| self.folder.path().display().to_string(), |remote| remote.root.clone())
    }

    fn stores(&self) -> Stores {
        self.remote.as_ref().map_or_else(Stores::default, |remote| remote.stores.clone())
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn view(&self) -> String {
        self.folder.path().join("view").display().to_string()
    }

    /// The statements that make the sources and the view.
    pub(crate) fn text(&self, case: &Case) -> String {
        let source = |(name, facts): (&String, &Facts)| {
            let lake = format!("{}/{name}", self.root());
            let delay = format!("{}{}", case.delay, facts.delay);
            let options = format!("lake = '{lake}'{}{}", case.options, facts.options);
            format!("CREATE SOURCE {name} (WATERMARK FOR ts AS ts{delay}) WITH ({options});\n")
        };
        case.sources.iter().map(source).collect::<String>() + &self.view_text(case)
    }

    /// The statements that make the view and what it reads besides sources.
    pub(crate) fn view_text(&self, case: &Case) -> String {
        let tables: String = case.tables.iter().map(|table| table.statement(&self.root())).collect();
        let statements: String = case.statements.iter().map(|s| format!("{s};\n")).collect();
        let view = format!("CREATE MATERIALIZED VIEW v WITH (location = '{}/view') AS {};\n", self.root(), case.sql);
        tables + &statements + &view
    }

    /// A fresh engine, for run number `run`.
    pub(crate) fn engine(&self, variant: &Variant, run: usize, stores: Stores) -> Engine {
        let workers = variant.parallelism[run % variant.parallelism.len()];
        let builder = Engine::builder().home(format!("{}/home", self.root())).stores(stores);
        let builder = builder.setting("parallelism", workers.to_string());
        variant.settings.iter().fold(builder, |b, (name, value)| b.setting(*name, value)).build().unwrap()
    }
}

async fn run(world: &World, case: &Case, variant: &Variant) -> Result<(), String> {
    let text = world.text(case);
    let fresh = |run| world.engine(variant, run, world.stores());
    // A batch query over everything needs memory that the job does not.
    let settings = variant.settings.iter().filter(|(name, _)| *name != "memory_limit").cloned().collect();
    let roomy = Variant { name: variant.name, settings, stops: vec![], parallelism: variant.parallelism.clone() };
    let verifier = || world.engine(&roomy, 0, world.stores());
    for number in 0.. {
        let stop = variant.stops.get(number % variant.stops.len().max(1)).copied();
        let summary = stopped(&fresh(number), &text, stop, false).await?;
        compare(world, case, &summary, false).await.map_err(|e| format!("after run {number}: {e}"))?;
        if !summary.stopped {
            break;
        }
        assert!(number < 1000, "it never ends");
    }
    verified(&verifier()).await?;
    let again = once(&fresh(0), &text, false, false).await?;
    if !again.nothing_new {
        return Err(format!("a second run found something new: {again:?}"));
    }
    let last = once(&fresh(1), &text, false, true).await?;
    compare(world, case, &last, true).await.map_err(|e| format!("at the end: {e}"))?;
    verified(&verifier()).await.map_err(|e| format!("at the end: {e}"))
}

/// What `watershed verify` says of the view, where it can say anything.
async fn verified(engine: &Engine) -> Result<(), String> {
    // Short stretches, so that there are several.
    let options = VerifyOptions { stretch: Some(Span(3 * Span::DAY.0)), ..VerifyOptions::default() };
    match engine.verify("v", &options).await {
        Ok(verdict) if verdict.holds() => Ok(()),
        Ok(verdict) => Err(format!("verify: {verdict:?}")),
        Err(e) if e.to_string().contains("cannot be verified") => Ok(()),
        Err(e) => Err(format!("verify: {e}")),
    }
}

/// Runs the text once, for one step or all, and gives the view's summary.
pub(crate) async fn once(engine: &Engine, text: &str, one_step: bool, to_the_end: bool) -> Result<Summary, String> {
    stopped(engine, text, one_step.then_some(1), to_the_end).await
}

/// The same, stopped after so many steps, or at the newest message of its logs.
pub(crate) async fn stopped(
    engine: &Engine,
    text: &str,
    steps: Option<u64>,
    to_the_end: bool,
) -> Result<Summary, String> {
    let stop = Stop::default();
    let progress = Arc::new(StopAfter { stop: stop.clone(), steps: steps.map(AtomicU64::new) });
    let options = RunOptions { to_the_end, until_caught_up: true, progress, stop, ..RunOptions::default() };
    let mut summary = None;
    let mut seen = |outcome| {
        if let Outcome::Job(s) = outcome {
            summary = Some(*s);
        }
        Ok(())
    };
    engine.execute_with(text, &options, &mut seen).await.map_err(|e| e.to_string())?;
    summary.ok_or_else(|| "no job ran".to_string())
}

/// Asks to stop as soon as so many steps are done.
struct StopAfter {
    stop: Stop,
    steps: Option<AtomicU64>,
}

impl Progress for StopAfter {
    fn update(&self, _: &str, _: &ProgressUpdate) {
        if self.steps.as_ref().is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) <= 1) {
            self.stop.request();
        }
    }
}

/// Holds the view against the batch answer.
pub(crate) async fn compare(world: &World, case: &Case, summary: &Summary, ended: bool) -> Result<(), String> {
    if let Some(remote) = &world.remote {
        remote.copy_to(world.folder.path()).await;
    }
    let late = rejected(world).await;
    if late.len() as u64 != summary.total.late + summary.total.bad {
        return Err(format!("{} rows listed as late or bad, {:?} counted", late.len(), summary.total));
    }
    accounted(world, case, summary)?;
    if case.end.is_empty() && summary.stopped {
        // A stateless view holds what was read, and a stop in the middle does not tell by time what that was.
        return Ok(());
    }
    answers(world, case, summary, ended, used(world, case, &late)).await
}

/// Of each source, facts in two tables: what window forms read, and what everything else does.
pub(crate) type Used = BTreeMap<String, (RecordBatch, RecordBatch)>;

/// Holds the view against the batch answer over these facts.
pub(crate) async fn answers(
    world: &World,
    case: &Case,
    summary: &Summary,
    ended: bool,
    used: Used,
) -> Result<(), String> {
    let mut context = SessionContext::new();
    datafusion_functions_json::register_all(&mut context).unwrap();
    for (name, (read, kept)) in used {
        for (name, rows) in [(windowed(&name), read), (name, kept)] {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
            context.register_table(name.as_str(), Arc::new(table)).unwrap();
        }
    }
    for table in &case.tables {
        let rows = MemTable::try_new(table.rows.schema(), vec![vec![table.rows.clone()]]).unwrap();
        context.register_table(table.name.as_str(), Arc::new(rows)).unwrap();
    }
    let oracle = |e: DataFusionError| format!("the oracle: {e}");
    let mut plain = Plain::over(case.sources.keys().cloned());
    for statement in case.statements.iter().flat_map(|s| plain.rewrite(s)) {
        context.sql(&statement).await.map_err(oracle)?;
    }
    let mut sql = plain.rewrite(case.oracle.as_ref().unwrap_or(&case.sql)).concat();
    if !case.end.is_empty() && !ended {
        let watermark = summary.watermark.map_or(i64::MIN, |w| w.0);
        let end = format!("arrow_cast(arrow_cast({}, 'Timestamp(Microsecond, None)'), 'Int64')", case.end);
        sql = format!("SELECT * FROM ({sql}) WHERE {end} <= {watermark}");
    }
    let expected = context.sql(&sql).await.map_err(oracle)?;
    let columns: Vec<String> = expected.schema().fields().iter().map(|f| format!("\"{}\"", f.name())).collect();
    let expected = rows(&expected.collect().await.map_err(oracle)?);
    let found = table(&world.view(), &columns.join(", ")).await;
    same(expected, rows(&found)).map_err(|e| format!("at watermark {:?}: {e}", summary.watermark))
}

/// Every row of every file that was read is in the account once, over all runs, killed ones too.
fn accounted(world: &World, case: &Case, summary: &Summary) -> Result<(), String> {
    for counts in [summary.run, summary.total] {
        counts.account.balance()?;
    }
    let account = summary.total.account;
    if account.late + account.partly_late < summary.total.late || account.bad < summary.total.bad {
        return Err(format!("more rows are listed than accounted for: {:?}", summary.total));
    }
    let text = format!("{} {}", case.statements.concat(), case.sql).to_uppercase();
    let once = case.sources.len() == 1 && !text.contains("UNION") && !text.contains("WITH ");
    if !once || account.pruned_files > 0 || !case.tables.is_empty() {
        return Ok(());
    }
    let newest = manifests(&world.home()).pop().expect("a run leaves a checkpoint");
    let manifest: Manifest = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
    if manifest.positions.values().any(|p| p.cut) {
        // Of a partition that was cut only some files have been read.
        return Ok(());
    }
    let boundaries = boundaries(world);
    let mut rows = 0;
    for (name, facts) in &case.sources {
        let boundary = boundaries.get(name).copied().unwrap_or(i64::MIN);
        let read = facts.files.iter().enumerate().filter(|(index, _)| facts.read(*index, boundary));
        rows += read.map(|(_, file)| file.rows.len() as u64).sum::<u64>();
    }
    match account.opened + account.deleted + account.pruned_rows {
        counted if counted == rows => Ok(()),
        counted => {
            Err(format!("{rows} rows lie in the files that were read, and {counted} are accounted for: {account:?}"))
        }
    }
}

/// Of each source, the facts read so far: all of them with the windows they missed, and those that missed none.
pub(crate) fn used(world: &World, case: &Case, late: &Late) -> Used {
    let boundaries = boundaries(world);
    let mut used = BTreeMap::new();
    for (name, facts) in &case.sources {
        // A source that is declared and not read has no position.
        let boundary = boundaries.get(name).copied().unwrap_or(i64::MIN);
        let (mut read, mut missed, mut kept) = (vec![], vec![], vec![]);
        for (index, file) in facts.files.iter().enumerate() {
            if !facts.read(index, boundary) {
                continue;
            }
            let path = facts.short_path(index);
            for (row, fact) in file.rows.iter().enumerate() {
                let windows = late.get(&(name.clone(), path.clone(), row as i64));
                read.push(fact);
                missed.push(windows);
                kept.extend(windows.is_none().then_some(fact));
            }
        }
        let read = with_missed(&facts.batch(read), &missed);
        used.insert(name.clone(), (read, facts.batch(kept)));
    }
    used
}

/// Rows with the windows that each of them missed.
pub(crate) fn with_missed(rows: &RecordBatch, missed: &[Option<&Missed>]) -> RecordBatch {
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    let ends: [fn(&Missed) -> i64; 2] = [|m| m.from, |m| m.until];
    for (name, end) in MISSED.into_iter().zip(ends) {
        fields.push(Arc::new(Field::new(name, DataType::Int64, true)));
        columns.push(Arc::new(Int64Array::from_iter(missed.iter().map(|m| m.map(end)))));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// How far each source has been read, by the newest checkpoint: partitions that start before this.
fn boundaries(world: &World) -> BTreeMap<String, i64> {
    let newest = manifests(&world.home()).pop().expect("a run leaves a checkpoint");
    let manifest: Manifest = serde_json::from_slice(&fs::read(newest).unwrap()).unwrap();
    manifest.positions.into_iter().map(|(name, position)| (name, position.boundary.0)).collect()
}

/// The checkpoints in a home, oldest first.
pub(crate) fn manifests(home: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        entries.flat_map(|e| if e.is_dir() { walk(&e) } else { vec![e] }).collect()
    }
    let mut found: Vec<_> = walk(home).into_iter().filter(|p| p.to_string_lossy().contains("/manifests/")).collect();
    found.sort();
    found
}

/// Rows that were listed as not used, or not in all of their windows: source, file, row.
pub(crate) type Late = BTreeMap<(String, String, i64), Missed>;

/// The windows that a late row missed: those that start at `from` or after, and end by `until`; in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missed {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

pub(crate) async fn rejected(world: &World) -> Late {
    let location = format!("{}_late", world.view());
    let mut listed = Late::new();
    if !Path::new(&location).join("_delta_log").exists() {
        return listed;
    }
    for batch in table(&location, "_source, _file, _row, _missed_from, _missed_until").await {
        let text = |i: usize| cast(batch.column(i), &DataType::Utf8).unwrap();
        let (sources, files, missed) = (text(0), text(1), missed(&batch, 3));
        for (row, missed) in missed.into_iter().enumerate() {
            let source = sources.as_string::<i32>().value(row).to_string();
            let path: Vec<&str> = files.as_string::<i32>().value(row).rsplit('/').take(2).collect();
            let number = batch.column(2).as_primitive::<Int64Type>().value(row);
            let before = listed.insert((source, format!("{}/{}", path[1], path[0]), number), missed);
            assert!(before.is_none(), "a row is listed twice: {path:?} {number}");
        }
    }
    listed
}

/// The windows that rows missed, by two columns from this one on. A row without a time has missed everything.
pub(crate) fn missed(listed: &RecordBatch, from: usize) -> Vec<Missed> {
    let [from, until] = [from, from + 1].map(|i| {
        let times = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times = cast(listed.column(i), &times).unwrap();
        cast(&times, &DataType::Int64).unwrap().as_primitive::<Int64Type>().clone()
    });
    let of = |row: usize| match from.is_valid(row) {
        true => Missed { from: from.value(row), until: until.value(row) },
        false => Missed { from: i64::MIN, until: i64::MAX },
    };
    (0..listed.num_rows()).map(of).collect()
}

/// Reads a Delta table's files through DataFusion's own Parquet reader; only the file list comes from our code.
pub(crate) async fn table(location: &str, columns: &str) -> Vec<RecordBatch> {
    let options = HistoryOptions { untimed: true, ..HistoryOptions::default() };
    let history = open_history(&Stores::default(), location, &options).await.unwrap();
    let snapshot = history.pin(None).await.unwrap();
    let files = snapshot.partitions.iter().flat_map(|p| &p.files).chain(&snapshot.timeless);
    let paths: Vec<String> = files.map(|f| format!("/{}", f.path)).collect();
    if paths.is_empty() {
        return vec![];
    }
    let context = SessionContext::new();
    let frame = context.read_parquet(paths, Default::default()).await.unwrap();
    context.register_table("t", frame.into_view()).unwrap();
    context.sql(&format!("SELECT {columns} FROM t")).await.unwrap().collect().await.unwrap()
}
