//! Queries, facts and cuts drawn from a grammar, each by the full check and one more cut of its own.
//!
//! A [`Draft`] is what is drawn: small parts, each of which can be left out or made simpler, so that proptest finds the
//! smallest that still fails. Its text is a `.slt` record ([`super::slt`]), and that text is what runs: a failure prints it, ready to be
//! put into `watershed/tests/slt`.
//!
//! `WATERSHED_QUERIES=n` draws n queries (`make random`), `WATERSHED_SEED=n` the one that a failure names, and
//! with both n queries from that seed on.

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::slt;
use crate::campaign::number;

/// Queries that CI draws.
const QUERIES: u64 = 60;

/// How often HOP and CUMULATE are drawn, against 4 for TUMBLE.
const HOPS: u32 = 3;

/// How likely a roll-up is.
const ROLLUPS: f64 = 0.3;

/// How likely an offset is.
const OFFSETS: f64 = 0.3;

/// Predicates over facts: of WHERE and FILTER.
const FILTERS: &[&str] = &[
    "v > 0",
    "k = 1",
    "s IS NOT NULL",
    "n % 3 <> 0 OR v IS NULL",
    "s LIKE '%a%'",
    "k IN (0, 2, 3)",
    "ts >= TIMESTAMP '2026-01-02 06:00:00'",
    "NOT (v BETWEEN -50 AND 100)",
    "coalesce(k, n) > 2",
    "v > 100000",
];

/// Group columns besides the window. To DataFusion `CAST(x AS …)` has the name of `x`, and it refuses to have both: so casts are
/// calls.
const KEYS: &[&str] = &[
    "k",
    "s",
    "n",
    "v",
    "k % 2",
    "v > 0",
    "upper(s)",
    "coalesce(s, 'none')",
    "arrow_cast(v, 'Decimal128(12, 1)')",
    "arrow_cast(n, 'Int16')",
    "to_date(ts)",
    "date_part('hour', ts)",
    "arrow_cast(s, 'Binary')",
    "k || ''",
    "CASE WHEN n > 10 THEN 'high' WHEN n > 0 THEN 'low' END",
    "named_struct('odd', n % 2, 's', s)",
    "make_array(k, n % 3)",
];

const AGGREGATES: &[&str] = &[
    "count(*)",
    "count(v)",
    "sum(n)",
    "sum(v)",
    "avg(v)",
    "min(v)",
    "max(s)",
    "min(ts)",
    "max(n)",
    "count(DISTINCT s)",
    "count(DISTINCT v)",
    "sum(DISTINCT n)",
    "median(v)",
    "stddev_pop(n)",
    "var_samp(v)",
    "bool_or(v > 50)",
    "bool_and(n > 0)",
    "bit_xor(n)",
    "bit_and(n)",
    "covar_pop(v, n)",
    "sum(arrow_cast(v, 'Decimal128(12, 3)'))",
    "max(arrow_cast(s, 'Binary'))",
    "sum(v * n)",
    "max(CASE WHEN k = 1 THEN v END)",
];

const HAVING: &[&str] = &[
    "count(*) > 2",
    "max(n) > 20",
    "sum(n) % 2 = 0",
    "count(DISTINCT k) > 1",
    "min(v) IS NOT NULL",
    "count(*) > 100000",
];

/// Aggregates of a roll-up, over the count and the sum of each window.
const OVER_WINDOWS: &[&str] = &[
    "sum(c)",
    "max(t)",
    "min(t)",
    "count(*)",
    "avg(c)",
    "count(DISTINCT c)",
    "max(c) - min(c)",
    "median(t)",
    "sum(t)",
];

#[test]
fn drawn_queries_hold() {
    let seed = number("WATERSHED_SEED");
    let queries = number("WATERSHED_QUERIES").unwrap_or(if seed.is_some() { 1 } else { QUERIES });
    let first = seed.unwrap_or(1);
    let (next, failures) = (AtomicU64::new(first), Mutex::new(vec![]));
    println!("{queries} queries from WATERSHED_SEED={first} on");
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + queries || !failures.lock().unwrap().is_empty() {
                        break;
                    }
                    failures.lock().unwrap().extend(draw(seed).err());
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Draws the query of a seed, checks it, and makes it small if it fails.
fn draw(seed: u64) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { max_shrink_iters: 150, max_shrink_time: 240_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let tree = draft().new_tree(&mut runner).map_err(|e| format!("WATERSHED_SEED={seed}: {e}"))?;
    // A wrong answer does not become an error on the way to a smaller query, nor the other way round.
    let kind: Cell<Option<Kind>> = Cell::new(None);
    let run = runner.run_one(tree, |draft| {
        let Err(error) = slt::all_hold(&draft.to_string()) else { return Ok(()) };
        let of = Kind::of(&error);
        if kind.get().is_none() {
            println!("WATERSHED_SEED={seed} fails, and is made smaller: {error}\n{draft}");
        }
        if *kind.get().get_or_insert(of) != of {
            return Ok(());
        }
        kind.set(Some(of));
        Err(TestCaseError::fail(error))
    });
    match run {
        Ok(_) => Ok(()),
        Err(TestError::Fail(reason, draft)) => Err(format!("WATERSHED_SEED={seed}\n\n{draft}\n{reason}")),
        Err(TestError::Abort(reason)) => Err(format!("WATERSHED_SEED={seed}: {reason}")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Answer,
    Panic,
    Error,
}

impl Kind {
    fn of(error: &str) -> Kind {
        if error.contains("a panic") {
            Kind::Panic
        } else if error.contains("expected") {
            Kind::Answer
        } else {
            Kind::Error
        }
    }
}

/// A query with its facts and its cut.
#[derive(Clone, Debug)]
struct Draft {
    facts: Drawn,
    window: Window,
    keys: Vec<&'static str>,
    aggregates: Vec<(&'static str, Option<&'static str>)>,
    filter: Option<&'static str>,
    having: Option<&'static str>,
    rollup: Option<Rollup>,
    shape: Shape,
    cut: Cut,
}

/// What `facts` says.
#[derive(Clone, Debug)]
struct Drawn {
    hourly: bool,
    partitions: u64,
    files: u64,
    rows: u64,
    keys: u64,
    leaks: u64,
    timeless: u64,
    holes: u64,
    twice: u64,
    seed: u64,
    time: Option<&'static str>,
    delay: Option<&'static str>,
    max_leak: Option<&'static str>,
}

/// Which windows, and which of their columns are grouped by.
#[derive(Clone, Debug)]
enum Window {
    Tumble {
        size: &'static str,
        offset: Option<&'static str>,
        edges: Edges,
    },
    Hop {
        slide: &'static str,
        size: &'static str,
        offset: Option<&'static str>,
        edges: Edges,
    },
    Cumulate {
        step: &'static str,
        size: &'static str,
        offset: Option<&'static str>,
    },
    Bin {
        width: &'static str,
        origin: Option<&'static str>,
    },
    Trunc(&'static str),
    /// No windows: a query without state.
    None,
}

#[derive(Clone, Copy, Debug)]
enum Edges {
    Both,
    Start,
    End,
}

/// What stands between the source and the window.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Plain,
    Subquery,
    Cte,
    View,
    /// The source twice.
    Twice,
    /// Two sources, of different grain.
    Two,
}

/// An aggregate over the windows' rows.
#[derive(Clone, Debug)]
struct Rollup {
    /// The wider windows; `None` is the same window, over its keys.
    window: Option<Wider>,
    by_key: bool,
    aggregates: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Wider {
    Trunc(&'static str),
    Tumble(&'static str),
}

/// A cut besides those that every check makes.
#[derive(Clone, Debug)]
struct Cut {
    slice: Option<&'static str>,
    stops: Vec<u64>,
    parallelism: Vec<u64>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let some = |p: f64, from: &'static [&'static str]| weighted(p, select(from));
    let aggregate = (select(AGGREGATES), some(0.2, FILTERS));
    let parts = (
        drawn(),
        window(),
        vec(select(KEYS), 0..4),
        vec(aggregate, 0..5),
        some(0.4, FILTERS),
        some(0.25, HAVING),
        weighted(ROLLUPS, rollup()),
        shape(),
        cut(),
    );
    parts.prop_map(|(facts, window, mut keys, aggregates, filter, having, rollup, shape, cut)| {
        let mut seen = vec![];
        keys.retain(|key| {
            !seen.contains(key) && {
                seen.push(*key);
                true
            }
        });
        Draft { facts, window, keys, aggregates, filter, having, rollup, shape, cut }
    })
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let one = |p: f64, from: &'static [&'static str]| weighted(p, select(from));
    let size = (any::<bool>(), 1..8_u64, 1..4_u64, 5..80_u64);
    let kind = (select(&[1, 3, 5, 200][..]), select(&[0, 40, 200][..]), select(&[0, 20][..]), select(&[0, 2, 5][..]));
    let rest = (
        select(&[0, 100][..]),
        any::<u16>(),
        one(0.2, &["utc", "nanos", "utc-nanos"]),
        one(0.2, &["10 minutes", "7 hours", "2 days"]),
        one(0.3, &["1 hour", "5 hours", "3 days"]),
    );
    (size, kind, rest).prop_map(|((hourly, partitions, files, rows), (keys, leaks, timeless, holes), rest)| {
        let (twice, seed, time, delay, max_leak) = rest;
        let partitions = if hourly { partitions * 4 } else { partitions };
        let rows = if hourly { rows / 2 + 2 } else { rows };
        let seed = seed.into();
        Drawn { hourly, partitions, files, rows, keys, leaks, timeless, holes, twice, seed, time, delay, max_leak }
    })
}

fn window() -> impl Strategy<Value = Window> {
    let sizes = &["1 hour", "1 day", "90 minutes", "5 hours", "7 minutes", "2 days", "12 hours", "1 week"][..];
    let edges = || select(&[Edges::Both, Edges::Start, Edges::End][..]);
    let offset = || weighted(OFFSETS, select(&["30 minutes", "1 hour", "-2 hours", "26 hours"][..]));
    let hops = &[
        ("1 hour", "2 hours"),
        ("5 minutes", "1 hour"),
        ("1 hour", "1 day"),
        ("30 minutes", "6 hours"),
        ("8 hours", "1 day"),
        ("45 minutes", "90 minutes"),
        ("6 hours", "6 hours"),
        ("1 day", "3 days"),
        ("10 hours", "30 hours"),
    ][..];
    let steps = &[
        ("1 hour", "1 day"),
        ("6 hours", "1 day"),
        ("15 minutes", "1 hour"),
        ("1 day", "1 day"),
        ("12 hours", "3 days"),
    ][..];
    let origins = &["2026-01-01", "2026-01-01 02:30:00", "2031-07-04 05:06:07", "1969-12-31 23:59:59.5"][..];
    let units = &["hour", "day", "week", "month", "minute", "quarter", "year"][..];
    prop_oneof![
        4 => (select(sizes), offset(), edges()).prop_map(|(size, offset, edges)| Window::Tumble { size, offset, edges }),
        HOPS => (select(hops), offset(), edges())
            .prop_map(|((slide, size), offset, edges)| Window::Hop { slide, size, offset, edges }),
        HOPS => (select(steps), offset()).prop_map(|((step, size), offset)| Window::Cumulate { step, size, offset }),
        1 => (select(sizes), of(select(origins))).prop_map(|(width, origin)| Window::Bin { width, origin }),
        1 => select(units).prop_map(Window::Trunc),
        1 => Just(Window::None),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        6 => Just(Shape::Plain),
        1 => Just(Shape::Subquery),
        1 => Just(Shape::Cte),
        1 => Just(Shape::View),
        1 => Just(Shape::Twice),
        2 => Just(Shape::Two),
    ]
}

fn cut() -> impl Strategy<Value = Cut> {
    let slices = weighted(0.5, select(&["1 hour", "5 hours", "36 hours", "3 days"][..]));
    (slices, vec(1..4_u64, 1..4), vec(1..5_u64, 1..4)).prop_map(|(slice, stops, parallelism)| Cut {
        slice,
        stops,
        parallelism,
    })
}

fn rollup() -> impl Strategy<Value = Rollup> {
    let trunc = select(&["day", "hour", "week", "month", "year"][..]).prop_map(Wider::Trunc);
    let tumble = select(&["1 day", "2 days", "7 hours", "1 week"][..]).prop_map(Wider::Tumble);
    let window = prop_oneof![1 => Just(None), 2 => trunc.prop_map(Some), 1 => tumble.prop_map(Some)];
    (window, any::<bool>(), vec(select(OVER_WINDOWS), 0..4)).prop_map(|(window, by_key, aggregates)| Rollup {
        window,
        by_key,
        aggregates,
    })
}

impl Window {
    /// Expressions by which rows are grouped, their names, and the end of the window in those names.
    fn columns(&self) -> (Vec<(String, &'static str)>, String) {
        let edges = |edges: Edges, size: &str| {
            let column = |name: &'static str| (name.to_string(), name);
            match edges {
                Edges::Both => (vec![column("window_start"), column("window_end")], "window_end".to_string()),
                Edges::Start => (vec![column("window_start")], format!("window_start + INTERVAL '{size}'")),
                Edges::End => (vec![column("window_end")], "window_end".to_string()),
            }
        };
        match self {
            Window::Tumble { size, edges: of, .. } | Window::Hop { size, edges: of, .. } => edges(*of, size),
            Window::Cumulate { size, .. } => edges(Edges::Both, size),
            Window::Bin { width, origin } => {
                let origin = origin.map(|o| format!(", TIMESTAMP '{o}'")).unwrap_or_default();
                (vec![(format!("date_bin(INTERVAL '{width}', ts{origin})"), "at")], format!("at + INTERVAL '{width}'"))
            }
            Window::Trunc(unit) => {
                let width = if *unit == "quarter" { "3 months".to_string() } else { format!("1 {unit}") };
                (vec![(format!("date_trunc('{unit}', ts)"), "at")], format!("at + INTERVAL '{width}'"))
            }
            Window::None => (vec![], String::new()),
        }
    }

    /// What stands in FROM, of a relation that is a name or a query in parentheses.
    fn from(&self, relation: &str) -> String {
        let spans = |spans: &[&str], offset: Option<&str>| -> String {
            spans.iter().copied().chain(offset).map(|s| format!(", INTERVAL '{s}'")).collect()
        };
        let (form, spans) = match self {
            Window::Tumble { size, offset, .. } => ("TUMBLE", spans(&[size], *offset)),
            Window::Hop { slide, size, offset, .. } => ("HOP", spans(&[slide, size], *offset)),
            Window::Cumulate { step, size, offset } => ("CUMULATE", spans(&[step, size], *offset)),
            Window::Bin { .. } | Window::Trunc(_) | Window::None => return format!("{relation} AS u"),
        };
        format!("{form}({relation}, ts{spans}) AS u")
    }

    /// When a row of windows that begin before `end` can still come: the last of them ends then.
    fn last_end(&self, end: &str) -> String {
        let (slide, size, offset) = match self {
            Window::Tumble { size, offset, .. } => (size, size, offset),
            Window::Hop { slide, size, offset, .. } => (slide, size, offset),
            Window::Cumulate { size, offset, .. } => (size, size, offset),
            Window::Bin { .. } | Window::Trunc(_) | Window::None => return end.to_string(),
        };
        let origin = offset.map(|o| format!(", TIMESTAMP '1970-01-01' + INTERVAL '{o}'")).unwrap_or_default();
        format!("date_bin(INTERVAL '{slide}', {end} - INTERVAL '1 microsecond'{origin}) + INTERVAL '{size}'")
    }
}

impl Draft {
    /// The relation that windows are put over, and the `WITH` before the query.
    fn relation(&self) -> (String, String) {
        let all = "SELECT ts, k, s, v, n FROM a";
        let query = match self.shape {
            Shape::Plain => return ("a".into(), String::new()),
            Shape::View => return ("seen".into(), String::new()),
            Shape::Cte => return ("few".into(), format!("WITH few AS ({all} WHERE n <> 7)\n")),
            Shape::Subquery => format!("{all} WHERE n <> 7"),
            Shape::Twice => format!("{all} WHERE n > 5 UNION ALL SELECT ts, k + 100 AS k, s, v, n FROM a WHERE v > 0"),
            // Queries without state do not wait for each other's sources.
            Shape::Two if matches!(self.window, Window::None) => format!("{all} WHERE n <> 7"),
            Shape::Two => format!("{all} UNION ALL SELECT ts, k + 100 AS k, s, v, n FROM b"),
        };
        (format!("({query})"), String::new())
    }

    /// The query, and the end of its windows.
    fn query(&self) -> (String, String) {
        let (relation, with) = self.relation();
        let from = self.window.from(&relation);
        let filter = self.filter.map(|f| format!("\nWHERE {f}")).unwrap_or_default();
        let keys: Vec<String> = self.keys.iter().enumerate().map(|(i, key)| format!("{key} AS g{i}")).collect();
        let (windows, end) = self.window.columns();
        if windows.is_empty() {
            let columns: Vec<String> = ["ts".to_string()].into_iter().chain(keys).collect();
            return (format!("{with}SELECT {}\nFROM {from}{filter}", columns.join(", ")), String::new());
        }
        let rollup = self.rollup.as_ref().filter(|_| windows.iter().any(|(_, name)| *name == "window_start"));
        let aggregates = match rollup {
            Some(_) => vec!["count(*) AS c".to_string(), "sum(n) AS t".to_string()],
            None => self.aggregates.iter().enumerate().map(aggregate).collect(),
        };
        let names = windows.iter().map(|(e, name)| if e == name { e.clone() } else { format!("{e} AS {name}") });
        let columns: Vec<String> = names.chain(keys).chain(aggregates).collect();
        let groups: Vec<&str> = windows.iter().map(|(e, _)| e.as_str()).chain(self.keys.iter().copied()).collect();
        let having = self.having.map(|h| format!("\nHAVING {h}")).unwrap_or_default();
        let (columns, groups) = (columns.join(", "), groups.join(", "));
        let query = format!("SELECT {columns}\nFROM {from}{filter}\nGROUP BY {groups}{having}");
        match rollup {
            None => (format!("{with}{query}"), end),
            Some(rollup) => {
                let (query, end) = self.rolled_up(rollup, &query, &windows, &end);
                (format!("{with}{query}"), end)
            }
        }
    }

    fn rolled_up(&self, rollup: &Rollup, query: &str, windows: &[(String, &str)], end: &str) -> (String, String) {
        let (mut columns, mut groups, mut from) = (vec![], vec![], format!("(\n{query}) AS w"));
        let end = match rollup.window {
            None => {
                groups.extend(windows.iter().map(|(_, name)| name.to_string()));
                columns.clone_from(&groups);
                end.to_string()
            }
            Some(Wider::Trunc(unit)) => {
                groups.push(format!("date_trunc('{unit}', window_start)"));
                columns.push(format!("date_trunc('{unit}', window_start) AS wide"));
                self.window.last_end(&format!("(wide + INTERVAL '1 {unit}')"))
            }
            Some(Wider::Tumble(size)) => {
                let key = if rollup.by_key && !self.keys.is_empty() { ", g0" } else { "" };
                let inner = format!("SELECT window_start AS at, c, t{key} FROM (\n{query}) AS w");
                from = format!("TUMBLE(({inner}), at, INTERVAL '{size}') AS wider");
                groups.push("window_start".into());
                columns.push("window_start".into());
                self.window.last_end(&format!("(window_start + INTERVAL '{size}')"))
            }
        };
        if rollup.by_key && !self.keys.is_empty() {
            groups.push("g0".into());
            columns.push("g0".into());
        }
        columns.extend(rollup.aggregates.iter().enumerate().map(|(i, a)| format!("{a} AS r{i}")));
        (format!("SELECT {}\nFROM {from}\nGROUP BY {}", columns.join(", "), groups.join(", ")), end)
    }
}

fn aggregate((i, (call, filter)): (usize, &(&'static str, Option<&'static str>))) -> String {
    let filter = filter.map(|f| format!(" FILTER (WHERE {f})")).unwrap_or_default();
    format!("{call}{filter} AS a{i}")
}

/// As `.slt` records.
impl Display for Draft {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.facts.write(f, "a", self.facts.hourly, self.facts.seed)?;
        if matches!(self.shape, Shape::Two) {
            self.facts.write(f, "b", !self.facts.hourly, self.facts.seed + 1)?;
        }
        if matches!(self.shape, Shape::View) {
            writeln!(f, "statement\nCREATE VIEW seen AS SELECT * FROM a WHERE n <> 7\n")?;
        }
        write!(f, "cut")?;
        if let Some(slice) = self.cut.slice {
            write!(f, " slice='{slice}'")?;
        }
        let list = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        writeln!(f, " stops={} parallelism={}\n", list(&self.cut.stops), list(&self.cut.parallelism))?;
        let (query, end) = self.query();
        let end = if end.is_empty() { String::new() } else { format!(" end={end}") };
        writeln!(f, "view{end}\n{query}")
    }
}

impl Drawn {
    fn write(&self, f: &mut Formatter<'_>, name: &str, hourly: bool, seed: u64) -> fmt::Result {
        let Drawn { partitions, files, rows, keys, leaks, timeless, holes, twice, .. } = self;
        let grain = if hourly { "hours" } else { "days" };
        let partitions = if hourly == self.hourly { *partitions } else { 3 };
        write!(f, "facts {name} {grain}={partitions} files={files} rows={rows} keys={keys} seed={seed}")?;
        for (key, value) in [("leaks", leaks), ("timeless", timeless), ("holes", holes), ("twice", twice)] {
            if *value > 0 {
                write!(f, " {key}={value}")?;
            }
        }
        writeln!(f, "{}", self.time.map(|t| format!(" time={t}")).unwrap_or_default())?;
        if let Some(delay) = self.delay {
            writeln!(f, "watermark - INTERVAL '{delay}'")?;
        }
        if let Some(max_leak) = self.max_leak {
            writeln!(f, "with max_leak = '{max_leak}'")?;
        }
        writeln!(f)
    }
}
