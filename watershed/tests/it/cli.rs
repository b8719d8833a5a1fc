//! The command line, as a user meets it: the real binary over a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SQL: &str = "
CREATE SOURCE flights (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');

CREATE MATERIALIZED VIEW delays AS
SELECT window_start, window_end, origin, count(*) AS flights, sum(delay) AS delay
FROM TUMBLE(flights, at, INTERVAL '1 hour')
GROUP BY window_start, window_end, origin;

CREATE MATERIALIZED VIEW late_ones AS SELECT at, origin, delay FROM flights WHERE delay > 20;
";

const CSV: &str = "at,origin,delay
2001-01-01T08:10:00,OSL,5
2001-01-01T08:40:00,OSL,25
2001-01-01T08:50:00,ROM,1
2001-01-02T09:00:00,OSL,30
2001-01-03T10:00:00,ROM,2
";

/// A folder with a home in it, and the binary to work on it.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    /// With the flights loaded by day and the SQL file written.
    fn loaded() -> Self {
        let world = World::new();
        world.write("flights.csv", CSV);
        world.write("flights.sql", SQL);
        let said = world.ok(&["load", "flights.csv", "--into", "lake", "--time-column", "at", "--partition-by", "day"]);
        assert!(said.contains("loaded 5 rows from 1 file "), "{said}");
        world
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("LAKE", self.dir.path().join("lake")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a run that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{arguments:?}\n{said}\n{complained}");
        said.into_owned()
    }

    /// The error of a run that must end with this code.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        let complained = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{arguments:?}\n{complained}");
        complained
    }

    fn csv(&self, sql: &str) -> Vec<String> {
        self.ok(&["query", sql, "--format", "csv"]).lines().skip(1).map(str::to_string).collect()
    }
}

#[test]
fn from_files_to_an_answer_and_nothing_new_after() {
    let world = World::loaded();
    let said = world.ok(&["run", "flights.sql", "--slice", "0 s"]);
    assert!(said.contains("created source flights"), "{said}");
    assert!(said.contains("delays: 5 rows in 3 slices") && said.contains("4 rows written"), "{said}");
    let delays = world.csv("SELECT origin, flights, delay FROM delays ORDER BY window_start, origin");
    assert_eq!(delays, ["OSL,2,30", "ROM,1,1", "OSL,1,30", "ROM,1,2"]);

    let said = world.ok(&["run", "flights.sql"]);
    assert_eq!(said.lines().filter(|line| line.contains("nothing new")).count(), 2, "{said}");
    assert!(!said.contains("created"), "{said}");

    world.write("more.csv", "at,origin,delay\n2001-01-04T00:30:00,OSL,8\n");
    world.ok(&["load", "more.csv", "--into", "lake"]);
    world.ok(&["run", "flights.sql", "--final"]);
    assert_eq!(world.csv("SELECT sum(flights) FROM delays"), ["6"]);
    let after = world.fails(4, &["run", "flights.sql"]);
    assert!(after.contains("was ended by --final"), "{after}");
    assert!(world.fails(2, &["run", "flights.sql", "--reopen"]).contains("build it anew"));

    // OR REPLACE, as the error says, builds anew what was ended.
    world.write("anew.sql", &SQL.replace("CREATE MATERIALIZED", "CREATE OR REPLACE MATERIALIZED"));
    world.ok(&["run", "anew.sql", "--final"]);
    let said = world.ok(&["run", "anew.sql"]);
    assert!(said.contains("delays: 6 rows in 1 slices"), "{said}");
    assert_eq!(world.csv("SELECT sum(flights) FROM delays"), ["6"]);
}

#[test]
fn what_comes_later_is_taken_up_where_the_last_run_ended() {
    let world = World::loaded();
    world.ok(&["run", "flights.sql"]);
    world.write("more.csv", "at,origin,delay\n2001-01-03T11:00:00,OSL,7\n2001-01-04T00:30:00,OSL,8\n");
    world.ok(&["load", "more.csv", "--into", "lake"]);
    let said = world.ok(&["run", "flights.sql"]);
    // The third of January had been closed: what comes to its windows now is late, and listed.
    assert!(said.contains("delays: ") && said.contains("kept aside 1 late and 0 bad rows"), "{said}");
    let delays = world.csv("SELECT origin, flights FROM delays ORDER BY window_start, origin");
    assert_eq!(delays, ["OSL,2", "ROM,1", "OSL,1", "ROM,1", "OSL,1"]);
    let late = world
        .write("late.sql", "CREATE SOURCE late (WATERMARK FOR at AS at) WITH (lake = '.watershed/tables/delays_late')");
    world.ok(&["run", late.to_str().unwrap()]);
    assert_eq!(world.csv("SELECT _source, _reason, origin FROM late"), ["flights,late,OSL"]);
}

#[test]
fn a_changed_statement_is_refused_with_the_difference_and_replaced_on_purpose() {
    let world = World::loaded();
    world.ok(&["run", "flights.sql"]);
    world.write("changed.sql", &SQL.replace("sum(delay) AS delay", "max(delay) AS delay"));
    let error = world.fails(2, &["run", "changed.sql"]);
    assert!(error.contains("line 4, column 1: materialized view delays was created by another statement"), "{error}");
    assert!(error.lines().any(|l| l.starts_with("- ") && l.contains("sum(delay)")), "{error}");
    assert!(error.lines().any(|l| l.starts_with("+ ") && l.contains("max(delay)")), "{error}");
    assert!(error.contains("CREATE OR REPLACE MATERIALIZED VIEW delays"), "{error}");
    assert_eq!(world.csv("SELECT max(delay) FROM delays"), ["30"]);

    let replaced = SQL.replace("sum(delay) AS delay", "min(delay) AS least");
    let replaced = replaced.replace("CREATE MATERIALIZED VIEW delays", "CREATE OR REPLACE MATERIALIZED VIEW delays");
    world.write("replaced.sql", &replaced);
    world.ok(&["run", "replaced.sql"]);
    assert_eq!(world.csv("SELECT least FROM delays ORDER BY window_start, origin"), ["5", "1", "30", "2"]);
    let again = world.ok(&["run", "replaced.sql"]);
    assert!(again.contains("delays: nothing new"), "{again}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_ends_at_a_safe_point_and_goes_on() {
    let world = World::loaded();
    let mut command = world.command(&["run", "flights.sql", "--slice", "0 s", "--throttle-rows", "1"]);
    let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun once the catalog has its jobs.
    let begun = world.dir.path().join(".watershed/jobs/late_ones");
    while !begun.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let out = running.wait_with_output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && complained.contains("stopping at the next safe point"), "{said}\n{complained}");
    assert!(said.contains("stopped, run again to go on"), "{said}");
    world.ok(&["run", "flights.sql"]);
    let delays = world.csv("SELECT origin, flights, delay FROM delays ORDER BY window_start, origin");
    assert_eq!(delays, ["OSL,2,30", "ROM,1,1", "OSL,1,30", "ROM,1,2"]);
}

#[test]
fn json_is_an_object_a_line() {
    let world = World::loaded();
    let said = world.ok(&["run", "flights.sql", "--json"]);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("summary").len(), 2, "{said}");
    let progress = of("progress");
    assert!(!progress.is_empty(), "{said}");
    for field in
        ["job", "slices", "rows", "bytes", "bytes_total", "watermark", "epoch", "late", "bad", "state", "elapsed_ms"]
    {
        assert!(progress.iter().all(|p| p.get(field).is_some()), "{field}: {said}");
    }
    let delays = of("summary").into_iter().find(|s| s["job"] == "delays").unwrap();
    assert_eq!((&delays["run"]["rows"], &delays["nothing_new"]), (&Value::from(5), &Value::from(false)), "{said}");

    let jobs = world.ok(&["jobs", "--json"]);
    let jobs: Vec<Value> = jobs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|j| j["epoch"].as_u64() > Some(0) && j["watermark"] == "2001-01-04T00:00:00Z"), "{jobs:?}");
}

#[test]
fn a_file_is_loaded_once() {
    let world = World::loaded();
    let said = world.ok(&["load", "flights.csv", "--into", "lake"]);
    assert!(said.contains("skipped file://") && said.contains("nothing new"), "{said}");
    let said = world.ok(&["load", "flights.csv", "--into", "lake", "--again"]);
    assert!(said.contains("loaded 5 rows"), "{said}");
    world.write("flights.csv", "at,origin,delay\n2001-01-03T12:00:00,ROM,9\n");
    world
        .write("more.ndjson", "{\"at\": \"2001-01-03T13:00:00Z\", \"delay\": 1}\n{\"at\": \"2001-01-03T14:00:00Z\"}\n");
    let said = world.ok(&["load", "*.csv", "more.ndjson", "--into", "lake"]);
    assert!(said.contains("loaded 3 rows from 2 files"), "{said}");
    world.write("only.sql", "CREATE SOURCE flights (WATERMARK FOR at AS at) WITH (lake = '${LAKE}')");
    world.ok(&["run", "only.sql"]);
    assert_eq!(world.csv("SELECT count(*), count(origin), sum(delay) FROM flights"), ["13,11,136"]);

    world.write("odd.csv", "at,origin,delay\n2001-01-03T12:00:00,ROM,soon\n");
    let error = world.fails(2, &["load", "odd.csv", "--into", "lake"]);
    assert!(error.contains("odd.csv") && error.contains("soon"), "{error}");
    world.write("more.csv", "at,gate\n2001-01-03T12:00:00,4\n");
    let error = world.fails(2, &["load", "more.csv", "--into", "lake"]);
    assert!(error.contains("column `gate` is not in the table, which has at, origin, delay"), "{error}");
    let error = world.fails(2, &["load", "none.csv", "--into", "lake"]);
    assert!(error.contains("no such file"), "{error}");
}

#[test]
fn results_in_every_format() {
    let world = World::loaded();
    world.ok(&["run", "flights.sql"]);
    let sql = "SELECT origin, sum(flights) AS n FROM delays GROUP BY origin ORDER BY origin";
    let table = world.ok(&["query", sql]);
    assert!(table.contains("| OSL    | 3 |"), "{table}");
    assert_eq!(
        world.ok(&["query", sql, "--format", "json"]),
        "{\"origin\":\"OSL\",\"n\":3}\n{\"origin\":\"ROM\",\"n\":2}\n"
    );
    world.write("q.sql", sql);
    world.ok(&["query", "q.sql", "--output", "n.parquet"]);
    assert_eq!(&fs::read(world.dir.path().join("n.parquet")).unwrap()[..4], b"PAR1");
    let empty = world.ok(&["query", "SELECT origin FROM delays WHERE origin = 'x'", "--format", "csv"]);
    assert_eq!(empty, "origin\n");
}

#[test]
fn what_there_is() {
    let world = World::loaded();
    world.ok(&["run", "flights.sql"]);
    let tables = world.ok(&["tables"]);
    for words in ["flights", "source", "delays", "materialized view", "late_ones"] {
        assert!(tables.contains(words), "{words}: {tables}");
    }
    let columns = world.ok(&["describe", "flights"]);
    let lines: Vec<&str> = columns.lines().collect();
    assert!(lines.iter().any(|l| l.starts_with("at ") && l.contains("event time")), "{columns}");
    assert!(lines.iter().any(|l| l.starts_with("at_day ") && l.contains("time partition")), "{columns}");
    let unknown = world.fails(2, &["describe", "flight"]);
    assert!(unknown.contains("no source, view or table flight; there are"), "{unknown}");
    let jobs = world.ok(&["jobs"]);
    assert!(jobs.lines().count() == 3 && jobs.contains("2001-01-04T00:00:00Z"), "{jobs}");
    let plan = world.ok(&["plan", "flights.sql"]);
    assert!(plan.contains("materialized view delays") && plan.contains("window aggregate"), "{plan}");
    assert!(plan.contains("partitioned by day(window_start)") && plan.contains("stateless"), "{plan}");
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let world = World::loaded();
    world.write("set.sql", "SET comit_interval = '1 s';");
    let error = world.fails(2, &["run", "set.sql"]);
    assert!(error.contains("line 1, column 1") && error.contains("did you mean commit_interval?"), "{error}");
    world.write("unset.sql", "CREATE SOURCE x WITH (lake = '${NOWHERE}')");
    let error = world.fails(2, &["run", "unset.sql"]);
    assert!(error.contains("${NOWHERE} is not set"), "{error}");
    let error = world.fails(2, &["run", "flights.sql", "--comit-interval", "1 s"]);
    assert!(error.contains("--commit-interval"), "{error}");
    let error = world.fails(2, &["run", "flights.sql", "--commit-interval", "soon"]);
    assert!(error.contains("commit_interval = 'soon'"), "{error}");
    let error = world.fails(2, &["run", "nowhere.sql"]);
    assert!(error.contains("could not read nowhere.sql"), "{error}");
    let error = world.fails(2, &["query", "DROP SOURCE flights"]);
    assert!(error.contains("watershed run"), "{error}");
    // Nothing of all that was done.
    assert_eq!(world.ok(&["tables"]).lines().count(), 1);
}

#[test]
fn help_has_examples_and_exit_codes() {
    let world = World::new();
    let help = world.ok(&["--help"]);
    assert!(help.contains("Examples:") && help.contains("Exit codes:") && help.contains("another runner"), "{help}");
    let run = world.ok(&["run", "--help"]);
    assert!(run.contains("--final") && run.contains("--target-file-size") && run.contains("--var"), "{run}");
    assert!(!world.dir.path().join(".watershed").exists(), "asking for help makes nothing");
}
