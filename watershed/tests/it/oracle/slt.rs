//! Queries as data: every view of `watershed/tests/slt/*.slt` goes through the full check, and some are held against DuckDB.
//!
//! The files look like sqllogictest's: records are separated by blank lines, and `#` opens a comment.
//!
//! ```text
//! facts a days=6 rows=60 seed=2 leaks=60 timeless=15 holes=3
//! watermark - INTERVAL '1 hour'
//! with max_leak = '1 day'
//! column day = CAST(ts AS DATE)
//!
//! table names csv
//! SELECT * FROM (VALUES (1, 'one'), (2, 'two')) AS t(id, name)
//!
//! statement
//! CREATE VIEW high AS SELECT * FROM a WHERE v > 0
//!
//! view end=day + INTERVAL '1 day'
//! SELECT date_trunc('day', ts) AS day, count(*) AS n FROM high GROUP BY date_trunc('day', ts)
//!
//! duckdb
//! SELECT date_trunc('day', ts)::TIMESTAMP, count(*) FROM a WHERE v > 0 GROUP BY ALL
//!
//! error not supported yet
//! SELECT …
//! ```
//!
//! * `facts` draws a source ([`Shape`]); `time=` names the type of its event time: `utc`, `nanos`, `utc-nanos`; `layout=`
//!   that of its folders: `months`, `new-york`, `pattern`, `flat`; `wide=1` adds columns of every type. `table` is one to join: `csv`, `parquet` or `delta`. Facts, tables and statements hold for the records
//!   below; a view has those that it names.
//! * `view` is a query that must pass [`check`]. `end=` is the end of a row's window over the view's columns: `window_end` where the
//!   query names it, else, and by `end=none`, the view is taken to be stateless. `late` before it wants facts that are late.
//! * `cut` is one more way to cut the next view's job: `slice='36 hours' stops=1,3 parallelism=2,1`, where the first run is stopped
//!   after one step and has two workers, the second after three and has one, the third after one again. Without `slice` every
//!   partition is one.
//! * `oracle` is what DataFusion is asked instead of the view above, where that leaves something to us, such as ties.
//! * `duckdb` gives the view above, column by column, in SQL of DuckDB's.
//! * `error` is a query that must be refused with a message that holds the text.
//!
//! `WATERSHED_SLT=windows.slt:12` runs that one record, `WATERSHED_SLT=windows.slt` one file.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::prelude::SessionContext;
use tokio::runtime::Builder;
use watershed_core::clock::mix;
use watershed_core::time::Grain;
use watershed_lake::Stores;

use super::check::{Case, Variant, World, check_on, once, rejected, variants};
use super::divided::{self, Seen};
use super::duckdb;
use super::facts::{Facts, Layout, Shape};
use super::tables::{Format, Table};
use crate::campaign::number;
use crate::kafka::broker::Broker;
use crate::minio::server::{Server, shared};

/// Of how many records one is also run on MinIO with the other tests.
const SOME: usize = 16;

/// What a record asks for.
#[derive(Clone, Debug)]
struct Record {
    line: usize,
    case: Case,
    wants: Wants,
}

#[derive(Clone, Debug)]
enum Wants {
    Answer { late: bool, duckdb: Option<String> },
    Refusal(String),
}

/// Where a record's facts are.
#[derive(Clone, Copy)]
enum On {
    Disk,
    Bucket(&'static Server),
    /// Divided between tables and logs as this seed draws.
    Logs(&'static Broker, u64),
}

#[test]
fn every_record_holds() {
    let on = match std::env::var("WATERSHED_ON").unwrap_or_default().as_str() {
        "" => On::Disk,
        "minio" => On::Bucket(shared().expect("WATERSHED_ON=minio needs WATERSHED_MINIO")),
        other => panic!("WATERSHED_ON is minio, not {other:?}"),
    };
    records_hold(1, on);
}

/// Every record whose facts can be messages, divided between history and log as `WATERSHED_SEED` draws; `WATERSHED_DIVISIONS`
/// says how often.
#[test]
fn kafka_every_record_holds_divided() {
    let Some(broker) = Broker::shared() else { return };
    let (first, times) = (number("WATERSHED_SEED").unwrap_or(1), number("WATERSHED_DIVISIONS").unwrap_or(1));
    for seed in first..first + times {
        println!("WATERSHED_SEED={seed}");
        let seen = records_hold(1, On::Logs(broker, seed));
        println!("{seen:?}");
        let all = std::env::var("WATERSHED_SLT").is_err();
        assert!(!all || (seen.late > 0 && seen.broken > 0 && seen.forgotten > 0 && seen.dropped > 0), "{seen:?}");
    }
}

/// Some of every file; `make test-s3` runs them all.
#[test]
fn minio_some_records_hold() {
    if std::env::var("WATERSHED_ON").is_err()
        && let Some(server) = shared()
    {
        records_hold(SOME, On::Bucket(server));
    }
}

/// Runs every `nth` record that can be there.
fn records_hold(nth: usize, on: On) -> Seen {
    let only = std::env::var("WATERSHED_SLT").unwrap_or_default();
    let mut queue = VecDeque::new();
    for path in files() {
        let file = path.file_name().unwrap().to_string_lossy().to_string();
        for record in parse(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{file}:{e}")) {
            let place = format!("{file}:{}", record.line);
            let fits = match (on, &record.wants) {
                (On::Logs(..), Wants::Answer { .. }) => divided::fits(&record.case),
                (On::Logs(..), Wants::Refusal(_)) => false,
                (On::Disk | On::Bucket(_), _) => true,
            };
            if fits && (only.is_empty() || only == file || only == place) {
                queue.push_back((place, record));
            }
        }
    }
    let queue: VecDeque<_> = queue.into_iter().step_by(nth).collect();
    let all = queue.len();
    assert!(all > 0, "no record is called {only:?}");
    let (queue, failed, seen) = (Mutex::new(queue), Mutex::new(vec![]), Mutex::new(Seen::default()));
    // As many records at once as there are cores.
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some((place, record)) = next else { break };
                    let held = alone(record, on);
                    let ended = if held.is_ok() { "" } else { " FAILED" };
                    println!("{place}{ended}");
                    match held {
                        Ok(saw) => *seen.lock().unwrap() += saw,
                        Err(e) => failed.lock().unwrap().push(format!("{place}: {e}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {all} records failed\n\n{}\n", failed.len(), failed.join("\n\n"));
    seen.into_inner().unwrap()
}

/// Every record of a text, one after the other.
pub(crate) fn all_hold(text: &str) -> Result<(), String> {
    parse(text)?.into_iter().try_for_each(|record| alone(record, On::Disk).map(drop))
}

/// A record in a thread of its own, so that a panic is its failure and no other's.
fn alone(record: Record, on: On) -> Result<Seen, String> {
    let run = move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            match on {
                On::Disk => hold(&record, None).await.map(|()| Seen::default()),
                On::Bucket(server) => hold(&record, Some(server)).await.map(|()| Seen::default()),
                On::Logs(broker, seed) => {
                    // Records have divisions of their own.
                    let seed = mix(seed ^ mix(record.line as u64));
                    divided::check(&record.case, broker, seed).await.map_err(|e| format!("{e}\n{}", record.case.sql))
                }
            }
        })
    };
    thread::spawn(run).join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "slt"));
    files.sort();
    files
}

async fn hold(record: &Record, server: Option<&Server>) -> Result<(), String> {
    match &record.wants {
        Wants::Answer { late, duckdb } => {
            let variants: Vec<Variant> = variants().into_iter().chain(record.case.cut.clone()).collect();
            let world = check_on(&record.case, &variants, server).await?;
            if *late && rejected(&world).await.is_empty() {
                return Err("no fact was late".into());
            }
            match duckdb {
                Some(sql) => duckdb::agrees(&world, &record.case, sql).await,
                None => Ok(()),
            }
        }
        Wants::Refusal(text) => {
            let world = World::new(&record.case);
            let engine = world.engine(&variants()[0], 0, Stores::default());
            match once(&engine, &world.text(&record.case), false, false).await {
                Err(message) if message.contains(text) => Ok(()),
                Err(message) => Err(format!("refused, but not with {text:?}: {message}")),
                Ok(_) => Err(format!("not refused: {}", record.case.sql)),
            }
        }
    }
}

/// `Err` is the line and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Record>, String> {
    let mut sources: BTreeMap<String, Facts> = BTreeMap::new();
    let mut tables: Vec<Table> = vec![];
    let mut statements: Vec<String> = vec![];
    let mut records: Vec<Record> = vec![];
    let mut cut = None;
    for (line, block) in blocks(text) {
        let (head, body) = block.split_first().unwrap();
        let sql = body.join("\n");
        let (kind, rest) = head.split_once(' ').unwrap_or((head, ""));
        let over = |sql: String, end: &str| {
            let mut case = case(&sources, &tables, &statements, sql);
            match end {
                "" => {}
                "none" => case.end.clear(),
                end => case.end = end.to_string(),
            }
            case
        };
        match kind {
            "cut" => cut = Some(variant(rest).map_err(|e| format!("{line}: {e}"))?),
            "facts" => {
                let (name, facts) = facts(rest, body).map_err(|e| format!("{line}: {e}"))?;
                sources.insert(name, facts);
            }
            "statement" => statements.push(sql),
            "view" => {
                let (flags, end) = rest.split_once("end=").unwrap_or((rest, ""));
                let late = match flags.trim() {
                    "" => false,
                    "late" => true,
                    other => return Err(format!("{line}: a view is not {other:?}")),
                };
                let case = Case { cut: cut.take(), ..over(sql, end) };
                records.push(Record { line, case, wants: Wants::Answer { late, duckdb: None } });
            }
            "table" => {
                let table = table(rest, sql).map_err(|e| format!("{line}: {e}"))?;
                tables.retain(|old| old.name != table.name);
                tables.push(table);
            }
            "oracle" => match records.last_mut() {
                Some(Record { case, wants: Wants::Answer { .. }, .. }) => case.oracle = Some(sql),
                _ => return Err(format!("{line}: oracle follows a view")),
            },
            "duckdb" => match records.last_mut().map(|r| &mut r.wants) {
                Some(Wants::Answer { duckdb, .. }) => *duckdb = Some(sql),
                _ => return Err(format!("{line}: duckdb follows a view")),
            },
            "error" => records.push(Record { line, case: over(sql, ""), wants: Wants::Refusal(rest.to_string()) }),
            other => return Err(format!("{line}: a record is not called {other:?}")),
        }
    }
    Ok(records)
}

/// `slice='…' stops=1,3 parallelism=2,1`.
fn variant(text: &str) -> Result<Variant, String> {
    let (mut slice, mut rest) = ("0 s", text.to_string());
    if let Some((before, after)) = text.split_once("slice='") {
        let (wide, after) = after.split_once('\'').ok_or("slice='…'")?;
        (slice, rest) = (wide, format!("{before}{after}"));
    }
    let settings = vec![("commit_interval", "0 s".to_string()), ("slice", slice.to_string())];
    let (mut stops, mut parallelism) = (vec![], vec![2]);
    for word in rest.split_whitespace() {
        let numbers =
            |list: &str| list.split(',').map(|n| n.parse::<u64>().map_err(|e| format!("{word}: {e}"))).collect();
        let (key, list) = word.split_once('=').ok_or_else(|| format!("key=value, not {word:?}"))?;
        let list: Result<Vec<u64>, String> = numbers(list);
        match key {
            "stops" => stops = list?,
            "parallelism" => parallelism = list?.into_iter().map(|n| n as usize).collect(),
            _ => return Err(format!("a cut has no {key:?}")),
        }
    }
    Ok(Variant { name: "cut", settings, stops, parallelism })
}

/// Lines between blank ones, without comments, with the number of the first.
fn blocks(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut blocks: Vec<(usize, Vec<&str>)> = vec![];
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            open = false;
        } else if !line.starts_with('#') {
            if !open {
                blocks.push((index + 1, vec![]));
                open = true;
            }
            blocks.last_mut().unwrap().1.push(line);
        }
    }
    blocks
}

/// The view's query with the sources, tables and statements that it names, and those that they name.
fn case(sources: &BTreeMap<String, Facts>, tables: &[Table], statements: &[String], sql: String) -> Case {
    let mut named = words(&sql);
    let mut needed = vec![];
    for statement in statements.iter().rev() {
        // CREATE VIEW name AS …
        let name = statement.split_whitespace().nth(2).unwrap_or_default().to_string();
        if named.contains(&name) {
            named.extend(words(statement));
            needed.insert(0, statement.clone());
        }
    }
    let sources = sources.iter().filter(|(name, _)| named.contains(name));
    let mut case = Case::over([], &sql).joining(tables.iter().filter(|t| named.contains(&t.name)).cloned());
    case.sources = sources.map(|(name, facts)| (name.clone(), facts.clone())).collect();
    case.statements = needed;
    case
}

fn words(sql: &str) -> Vec<String> {
    sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_lowercase).collect()
}

/// `NAME FORMAT`, and the query that gives its rows.
fn table(head: &str, sql: String) -> Result<Table, String> {
    let (name, format) = match head.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "csv"] => (name, Format::Csv),
        [name, "parquet"] => (name, Format::Parquet),
        [name, "delta"] => (name, Format::Delta),
        _ => return Err(format!("a table has a name, and csv, parquet or delta: {head:?}")),
    };
    let runtime = Builder::new_current_thread().build().unwrap();
    let rows = runtime.block_on(async { SessionContext::new().sql(&sql).await?.collect().await });
    let rows: Vec<RecordBatch> = rows.map_err(|e| format!("{e}\n{sql}"))?;
    let schema = rows.first().ok_or("a table has rows")?.schema();
    let rows = concat_batches(&schema, &rows).map_err(|e| e.to_string())?;
    let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| {
        let text = matches!(column.data_type(), DataType::Utf8View | DataType::LargeUtf8);
        let column = if text { cast(column, &DataType::Utf8).unwrap() } else { Arc::clone(column) };
        (field.name().clone(), column, true)
    });
    Ok(Table::new(name, RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| e.to_string())?, format))
}

/// `NAME key=value …`, and the lines below it.
fn facts(head: &str, body: &[&str]) -> Result<(String, Facts), String> {
    let mut words = head.split_whitespace();
    let name = words.next().ok_or("facts have a name")?;
    let mut shape = Shape { rows: 60, ..Shape::default() };
    let (mut seed, mut wide, mut time) = (1, false, DataType::Timestamp(TimeUnit::Microsecond, None));
    let mut layout = None;
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("key=value, not {word:?}"))?;
        if key == "layout" {
            layout = Some(match value {
                "months" => Layout::Months,
                "new-york" => Layout::NewYork,
                "pattern" => Layout::Pattern,
                "flat" => Layout::Flat,
                _ => return Err(format!("layout=months, new-york, pattern or flat, not {value:?}")),
            });
            continue;
        }
        if key == "time" {
            time = match value {
                "utc" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                "nanos" => DataType::Timestamp(TimeUnit::Nanosecond, None),
                "utc-nanos" => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
                _ => return Err(format!("time=utc, nanos or utc-nanos, not {value:?}")),
            };
            continue;
        }
        let number: u64 = value.parse().map_err(|_| format!("a number, not {value:?}"))?;
        match key {
            "days" => (shape.grain, shape.partitions) = (Grain::Day, number as i64),
            "hours" => (shape.grain, shape.partitions) = (Grain::Hour, number as i64),
            "files" => shape.files = number,
            "rows" => shape.rows = number,
            "keys" => shape.keys = number,
            "leaks" => shape.leaks = number,
            "timeless" => shape.timeless = number,
            "holes" => shape.holes = number,
            "twice" => shape.twice = number,
            "seed" => seed = number,
            "wide" => wide = number > 0,
            _ => return Err(format!("facts have no {key:?}")),
        }
    }
    let layout = layout.unwrap_or(Layout::Hive(shape.grain));
    let mut facts = Facts::laid_out(layout, shape, seed);
    facts.options = layout.options().to_string();
    (facts.time, facts.wide) = (time, wide);
    for line in body {
        match line.split_once(' ') {
            Some(("watermark", delay)) => facts.delay = format!(" {delay}"),
            Some(("with", options)) => facts.options.push_str(&format!(", {options}")),
            Some(("column", column)) => {
                let (name, sql) =
                    column.split_once(" = ").ok_or_else(|| format!("name = expression, not {column:?}"))?;
                facts.computed.push((name.trim().to_string(), sql.to_string()));
            }
            _ => return Err(format!("below facts stand watermark, with and column, not {line:?}")),
        }
    }
    Ok((name.to_string(), facts))
}
