//! Late facts that put the past right: after every run the view is what the batch query says over all facts, and nothing is
//! listed as late.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::binary::{all_said, watershed};
use crate::oracle::facts::Dice;

/// 2026-01-01T00:00:00Z, in seconds.
const EPOCH: u64 = 1_767_225_600;

const DAY: u64 = 86_400;

/// Facts as CSV; `at` by the day they are of, and seconds into it.
pub(crate) fn facts(dice: &mut Dice, days: std::ops::Range<u64>, count: u64, number: &mut u64) -> String {
    let mut text = "at,city,km,n\n".to_string();
    for _ in 0..count {
        let at = EPOCH + (days.start + dice.below(days.end - days.start)) * DAY + dice.below(DAY);
        let at = chrono::DateTime::from_timestamp(at as i64, 0).unwrap().to_rfc3339();
        // A key may be NULL, and some cities are rare: their windows come and go.
        let city = match dice.below(12) {
            0 => String::new(),
            c => format!("c{}", if c < 9 { c % 3 } else { c + dice.below(40) }),
        };
        text += &format!("{at},{city},{},{number}\n", dice.below(1000));
        *number += 1;
    }
    text
}

pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        watershed(self.dir.path(), arguments)
    }

    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", all_said(&out));
        all_said(&out)
    }

    pub(crate) fn load(&self, name: &str, csv: &str) {
        let file = self.write(name, csv);
        self.says(&["load", &file, "--into", "facts", "--partition-by", "day(at)", "--mode", "append"]);
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let file = self.dir.path().join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// A file of statements: the source, and a view of this query.
    fn sql(&self, with: &str, query: &str) -> String {
        let text = format!(
            "CREATE SOURCE rides (WATERMARK FOR at AS at - INTERVAL '10 minutes') WITH (lake = 'facts');
             CREATE MATERIALIZED VIEW v WITH (location = 'v'{with}) AS {query};"
        );
        self.write("view.sql", &text)
    }

    /// The lines of a query, as text.
    pub(crate) fn rows(&self, sql: &str) -> BTreeSet<String> {
        let out = self.command(&["query", sql, "--format", "csv"]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", all_said(&out));
        let text = String::from_utf8(out.stdout).unwrap();
        let rows: Vec<String> = text.lines().skip(1).map(str::to_string).collect();
        let set: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(set.len(), rows.len(), "a row is there twice");
        set
    }

    /// The view has what a batch query answers, less the column by which it is partitioned.
    pub(crate) fn is(&self, query: &str, context: &str) {
        let expected = self.rows(query);
        let found = self.rows(&format!(
            "SELECT * EXCEPT ({}) FROM v",
            if query.contains("AS day") { "day_day" } else { "window_start_day" }
        ));
        let missing: Vec<_> = expected.difference(&found).take(5).collect();
        let extra: Vec<_> = found.difference(&expected).take(5).collect();
        assert!(
            !expected.is_empty() && missing.is_empty() && extra.is_empty(),
            "{context} {query}:\n{missing:?}\n{extra:?}"
        );
    }

    /// The view is what the query says over all facts, of windows that end by the watermark of the job.
    fn holds(&self, query: &str, end: &str) {
        let jobs = self.says(&["jobs", "--json"]);
        let jobs: serde_json::Value = serde_json::from_str(jobs.lines().next().unwrap()).unwrap();
        let watermark = jobs["watermark"].as_str().map(str::to_string);
        let watermark = watermark.unwrap_or_else(|| panic!("{jobs}"));
        self.is(&format!("SELECT * FROM ({query}) WHERE {end} <= TIMESTAMP '{watermark}'"), "");
        assert_eq!(self.rows("SELECT count(*) FROM v_late WHERE _reason = 'late'"), BTreeSet::from(["0".to_string()]));
        self.says(&["verify", "v"]);
    }
}

const AGGREGATES: &str =
    "count(*) AS rides, sum(km) AS km, min(n) AS first, max(n) AS last, count(DISTINCT km) AS kinds";

/// Queries, and where a window of theirs ends.
pub(crate) fn queries() -> Vec<(String, &'static str)> {
    let grouped = "GROUP BY window_start, window_end, city";
    vec![
        (
            format!(
                "SELECT window_start, window_end, city, {AGGREGATES} FROM TUMBLE(rides, at, INTERVAL '1 hour') {grouped}"
            ),
            "window_end",
        ),
        (
            format!(
                "SELECT window_start, window_end, city, {AGGREGATES} FROM HOP(rides, at, INTERVAL '2 hours', INTERVAL '8 hours') {grouped}"
            ),
            "window_end",
        ),
        (
            format!(
                "SELECT window_start, window_end, city, {AGGREGATES} FROM CUMULATE(rides, at, INTERVAL '3 hours', INTERVAL '12 hours') {grouped}"
            ),
            "window_end",
        ),
        // A row that is no more: what comes late makes the window fail.
        (
            format!(
                "SELECT window_start, window_end, city, {AGGREGATES} FROM TUMBLE(rides, at, INTERVAL '6 hours') {grouped} HAVING count(*) < 9"
            ),
            "window_end",
        ),
        (
            format!(
                "SELECT date_trunc('day', at) AS day, {AGGREGATES} FROM rides WHERE km > 100 GROUP BY date_trunc('day', at)"
            ),
            "day + INTERVAL '1 day'",
        ),
    ]
}

#[test]
fn late_facts_put_their_windows_right() {
    for (i, (query, end)) in queries().into_iter().enumerate() {
        let seed = 70 + i as u64;
        println!("seed {seed}: {query}");
        let (mut dice, mut number) = (Dice::new(seed), 0);
        let world = World::new();
        let sql = world.sql(", late = 'repair'", &query);
        world.load("0.csv", &facts(&mut dice, 0..6, 4_000, &mut number));
        world.says(&["run", &sql]);
        world.holds(&query, end);
        for round in 1..4 {
            // Mostly new days; and some that come days late.
            let new = facts(&mut dice, 3 + 3 * round..6 + 3 * round, 1_500, &mut number);
            world.load(&format!("{round}.csv"), &new);
            world.load(&format!("{round}-late.csv"), &facts(&mut dice, 0..2 + 3 * round, 1 + 20 * round, &mut number));
            let said = world.says(&["run", &sql]);
            assert!(said.contains("late rows whose windows are computed anew"), "{said}");
            world.holds(&query, end);
        }
        let said = world.says(&["run", &sql]);
        assert!(said.contains("nothing new"), "{said}");
    }
}

#[test]
fn a_kill_while_the_past_is_put_right_loses_nothing() {
    let seed = 7_701;
    println!("seed {seed}");
    let (mut dice, mut number) = (Dice::new(seed), 0);
    let world = World::new();
    let (query, end) = &queries()[1];
    let sql = world.sql(", late = 'repair'", query);
    world.load("0.csv", &facts(&mut dice, 0..6, 3_000, &mut number));
    world.says(&["run", &sql]);
    for round in 1..7 {
        world.load(&format!("{round}.csv"), &facts(&mut dice, 3 + 3 * round..6 + 3 * round, 1_000, &mut number));
        world.load(&format!("{round}-late.csv"), &facts(&mut dice, 0..2 + 3 * round, 60, &mut number));
        for _ in 0..4 {
            let mut run = world.command(&["run", &sql, "--commit-interval", "10 ms", "--slice", "3 hours"]);
            let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(30 + dice.below(700)));
            run.kill().unwrap();
            run.wait().unwrap();
        }
    }
    world.says(&["run", &sql]);
    world.holds(query, end);
}

/// Changes the table of facts as others do: deletes and updates rows by time, whole files or a few of a file.
fn change(world: &World, python: &str, sql: &str) {
    let script = format!(
        "from deltalake import DeltaTable\nt = DeltaTable({:?})\n{sql}",
        world.dir.path().join("facts").display().to_string()
    );
    let out = Command::new(python).args(["-c", &script]).output().unwrap();
    assert!(out.status.success(), "{script}: {}", all_said(&out));
}

#[test]
fn facts_that_are_changed_put_their_windows_right() {
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with deltalake");
        return;
    };
    for (i, (query, end)) in queries().into_iter().enumerate() {
        let seed = 80 + i as u64;
        println!("seed {seed}: {query}");
        let (mut dice, mut number) = (Dice::new(seed), 0);
        let world = World::new();
        let sql = world.sql(", late = 'repair'", &query);
        world.load("0.csv", &facts(&mut dice, 0..6, 3_000, &mut number));
        world.says(&["run", &sql]);
        let out = world.command(&["run", &sql]).output().unwrap();
        assert!(out.status.success(), "{}", all_said(&out));
        for round in 1..4 {
            let day = 1 + dice.below(6);
            match round {
                // Rows of one city in all files; rows of a day; the last day, whose last windows are open.
                1 => change(&world, &python, "t.delete(\"city = 'c1' AND km < 300\")"),
                2 => change(
                    &world,
                    &python,
                    &format!("t.update(updates={{'km': 'km + 7'}}, predicate=\"at_day = '2026-01-0{day}'\")"),
                ),
                _ => change(&world, &python, "t.update(updates={'km': 'km * 2'}, predicate=\"at_day = '2026-01-06'\")"),
            }
            let out = world.command(&["run", &sql]).output().unwrap();
            assert!(!out.status.success() && all_said(&out).contains("are gone"), "{}", all_said(&out));
            world.says(&["run", &sql, "--on-change", "repair"]);
            world.holds(&query, end);
        }
        // What was open is right when it has ended.
        world.load("1.csv", &facts(&mut dice, 6..9, 1_000, &mut number));
        world.says(&["run", &sql, "--on-change", "repair"]);
        world.holds(&query, end);
        let said = world.says(&["run", &sql]);
        assert!(said.contains("nothing new") && !said.contains("wait"), "{said}");
    }
}

#[test]
fn what_cannot_be_put_right_is_refused() {
    let world = World::new();
    world.load("0.csv", &facts(&mut Dice::new(1), 0..3, 100, &mut 0));
    let refused = |with: &str, query: &str| {
        let out = world.command(&["run", &world.sql(with, query)]).output().unwrap();
        assert!(!out.status.success(), "{query}");
        all_said(&out)
    };
    let no_start = "SELECT city, count(*) AS n FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, city";
    let said = refused(", late = 'repair'", no_start);
    assert!(said.contains("late = 'repair'") && said.contains("the start of its windows"), "{said}");
    let twice = "SELECT date_trunc('day', window_start) AS day, max(n) AS n FROM (SELECT window_start, city, count(*) AS n
        FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, city) GROUP BY date_trunc('day', window_start)";
    let said = refused(", late = 'repair'", twice);
    assert!(said.contains("an aggregate over an aggregate"), "{said}");
    let out = world.command(&["run", &world.sql("", &queries()[0].0), "--on-change", "repair"]).output().unwrap();
    assert!(!out.status.success() && all_said(&out).contains("made with late = 'repair'"), "{}", all_said(&out));
    // It is fixed when the view is made.
    let hourly = &queries()[0].0;
    world.says(&["run", &world.sql("", hourly)]);
    let out = world.command(&["run", &world.sql("", hourly), "--late", "repair"]).output().unwrap();
    assert!(!out.status.success() && all_said(&out).contains("fixed when it is made"), "{}", all_said(&out));
}
