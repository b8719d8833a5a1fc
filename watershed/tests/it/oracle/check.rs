//! The one check: a query as a streaming job, cut in many ways, against the batch answer.
//!
//! Each variant runs the job over the same facts: whole, partition by partition, an epoch a step, stopped after every step
//! and restored by a fresh engine, restored at another parallelism. After every run the result must be what the batch
//! answer is for windows that end by the watermark, over all facts but those listed as late; and at the end, for all windows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;
use watershed::{Engine, Outcome, RunOptions};
use watershed_core::epoch::Manifest;
use watershed_lake::{HistoryOptions, Stores, open_history};
use watershed_runtime::{Progress, ProgressUpdate, Stop, Summary};

use super::compare::{rows, same};
use super::facts::Facts;
use super::tables::Table;

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
    /// The view's query.
    pub(crate) sql: String,
    /// Over the view's columns, the end of a row's window; empty for stateless views.
    pub(crate) end: String,
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
            sql: sql.to_string(),
            end: if sql.contains("window_end") { "window_end" } else { "" }.to_string(),
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
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    /// Stop after every step and go on with a fresh engine.
    pub(crate) restart: bool,
    /// Workers of run after run, over and over.
    pub(crate) parallelism: &'static [usize],
}

/// All in one slice; partition by partition, an epoch a step; stopped after every step; and that with other parallelism.
pub(crate) fn variants() -> [Variant; 4] {
    let cut = || vec![("commit_interval", "0 s"), ("slice", "0 s")];
    [
        Variant { name: "whole", settings: vec![("slice", "10000 days")], restart: false, parallelism: &[2] },
        Variant { name: "sliced", settings: cut(), restart: false, parallelism: &[1] },
        Variant { name: "restarted", settings: cut(), restart: true, parallelism: &[2] },
        Variant { name: "reshaped", settings: cut(), restart: true, parallelism: &[3, 1, 2] },
    ]
}

/// Runs every variant; `Err` says which, when, and what differs.
pub(crate) async fn check(case: &Case) -> Result<(), String> {
    check_by(case, &variants()).await
}

pub(crate) async fn check_by(case: &Case, variants: &[Variant]) -> Result<(), String> {
    for variant in variants {
        let world = World::new(case);
        run(&world, case, variant).await.map_err(|e| format!("{}: {e}\n{}", variant.name, case.sql))?;
    }
    Ok(())
}

/// Folders of a test: facts, a home, and the view's table.
pub(crate) struct World {
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) fn new(case: &Case) -> World {
        let folder = tempfile::tempdir().unwrap();
        for (name, facts) in &case.sources {
            facts.write(&folder.path().join(name));
        }
        case.tables.iter().for_each(|table| table.write(folder.path()));
        World { folder }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub(crate) fn view(&self) -> String {
        self.folder.path().join("view").display().to_string()
    }

    /// The statements that make the sources and the view.
    pub(crate) fn text(&self, case: &Case) -> String {
        let source = |name: &String| {
            let lake = self.folder.path().join(name);
            let (delay, lake, options) = (&case.delay, lake.display(), &case.options);
            format!("CREATE SOURCE {name} (WATERMARK FOR ts AS ts{delay}) WITH (lake = '{lake}'{options});\n")
        };
        let sources: String = case.sources.keys().map(source).collect();
        let tables: String = case.tables.iter().map(|table| table.statement(self.folder.path())).collect();
        sources
            + &tables
            + &format!("CREATE MATERIALIZED VIEW v WITH (location = '{}') AS {};\n", self.view(), case.sql)
    }

    /// A fresh engine, for run number `run`.
    pub(crate) fn engine(&self, variant: &Variant, run: usize, stores: Stores) -> Engine {
        let workers = variant.parallelism[run % variant.parallelism.len()];
        let builder = Engine::builder().home(self.home().display().to_string()).stores(stores);
        let builder = builder.setting("parallelism", workers.to_string());
        variant.settings.iter().fold(builder, |b, (name, value)| b.setting(*name, *value)).build().unwrap()
    }
}

async fn run(world: &World, case: &Case, variant: &Variant) -> Result<(), String> {
    let text = world.text(case);
    let fresh = |run| world.engine(variant, run, Stores::default());
    for number in 0.. {
        let summary = once(&fresh(number), &text, variant.restart, false).await?;
        compare(world, case, &summary, false).await.map_err(|e| format!("after run {number}: {e}"))?;
        if !summary.stopped {
            break;
        }
        assert!(number < 1000, "it never ends");
    }
    let again = once(&fresh(0), &text, false, false).await?;
    if !again.nothing_new {
        return Err(format!("a second run found something new: {again:?}"));
    }
    let last = once(&fresh(1), &text, false, true).await?;
    compare(world, case, &last, true).await.map_err(|e| format!("at the end: {e}"))
}

/// Runs the text once and gives the view's summary.
pub(crate) async fn once(engine: &Engine, text: &str, one_step: bool, to_the_end: bool) -> Result<Summary, String> {
    let stop = Stop::default();
    let progress = Arc::new(StopAfterStep(one_step.then(|| stop.clone())));
    let options = RunOptions { to_the_end, progress, stop, ..RunOptions::default() };
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

/// Asks to stop as soon as a step is done.
struct StopAfterStep(Option<Stop>);

impl Progress for StopAfterStep {
    fn update(&self, _: &str, _: &ProgressUpdate) {
        if let Some(stop) = &self.0 {
            stop.request();
        }
    }
}

/// Holds the view against the batch answer.
pub(crate) async fn compare(world: &World, case: &Case, summary: &Summary, ended: bool) -> Result<(), String> {
    let late = rejected(world).await;
    if late.len() as u64 != summary.total.late + summary.total.bad {
        return Err(format!("{} rows listed as late or bad, {:?} counted", late.len(), summary.total));
    }
    if case.end.is_empty() && summary.stopped {
        // A stateless view holds what was read, and a stop in the middle does not tell by time what that was.
        return Ok(());
    }
    let read = boundaries(world);
    let context = SessionContext::new();
    for (name, facts) in &case.sources {
        let mut kept = vec![];
        for (index, file) in facts.files.iter().enumerate() {
            if !facts.read(index, read[name]) {
                continue;
            }
            let path = facts.short_path(index);
            let used = |row: &usize| !late.contains(&(name.clone(), path.clone(), *row as i64));
            kept.extend((0..file.rows.len()).filter(used).map(|row| &file.rows[row]));
        }
        let kept = facts.batch(kept);
        let table = MemTable::try_new(kept.schema(), vec![vec![kept]]).unwrap();
        context.register_table(name.as_str(), Arc::new(table)).unwrap();
    }
    for table in &case.tables {
        let rows = MemTable::try_new(table.rows.schema(), vec![vec![table.rows.clone()]]).unwrap();
        context.register_table(table.name.as_str(), Arc::new(rows)).unwrap();
    }
    let mut sql = plain(case.oracle.as_ref().unwrap_or(&case.sql));
    if !case.end.is_empty() && !ended {
        let watermark = summary.watermark.map_or(i64::MIN, |w| w.0);
        let end = format!("arrow_cast(arrow_cast({}, 'Timestamp(Microsecond, None)'), 'Int64')", case.end);
        sql = format!("SELECT * FROM ({sql}) WHERE {end} <= {watermark}");
    }
    let expected = context.sql(&sql).await.map_err(|e| format!("the oracle: {e}"))?;
    let columns: Vec<String> = expected.schema().fields().iter().map(|f| format!("\"{}\"", f.name())).collect();
    let expected = rows(&expected.collect().await.map_err(|e| format!("the oracle: {e}"))?);
    let found = table(&world.view(), &columns.join(", ")).await;
    same(expected, rows(&found)).map_err(|e| format!("at watermark {:?}: {e}", summary.watermark))
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

/// Rows that were listed as not used: source, file, row.
pub(crate) async fn rejected(world: &World) -> BTreeSet<(String, String, i64)> {
    let location = format!("{}_late", world.view());
    let mut listed = BTreeSet::new();
    if !Path::new(&location).join("_delta_log").exists() {
        return listed;
    }
    for batch in table(&location, "_source, _file, _row").await {
        let text = |i: usize| cast(batch.column(i), &DataType::Utf8).unwrap();
        let (sources, files) = (text(0), text(1));
        for row in 0..batch.num_rows() {
            let source = sources.as_string::<i32>().value(row).to_string();
            let path: Vec<&str> = files.as_string::<i32>().value(row).rsplit('/').take(2).collect();
            let number = batch.column(2).as_primitive::<Int64Type>().value(row);
            let fresh = listed.insert((source, format!("{}/{}", path[1], path[0]), number));
            assert!(fresh, "a row is listed twice: {path:?} {number}");
        }
    }
    listed
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

/// The same query without our window forms, rewritten by the test's own hand.
fn plain(sql: &str) -> String {
    let Some(at) = sql.find("TUMBLE(") else { return sql.to_string() };
    let inner = &sql[at + "TUMBLE(".len()..];
    let end = inner.find(')').expect("TUMBLE closes");
    let arguments: Vec<&str> = inner[..end].splitn(3, ',').map(str::trim).collect();
    let (table, time, size) = (arguments[0], arguments[1], arguments[2]);
    let bin = format!("date_bin({size}, {time})");
    let derived = format!("(SELECT *, {bin} AS window_start, {bin} + {size} AS window_end FROM {table}) AS {table}");
    format!("{}{derived}{}", &sql[..at], plain(&inner[end + 1..]))
}
