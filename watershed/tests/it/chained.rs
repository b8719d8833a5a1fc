//! Jobs over the changes of a table that others write: a copy of it, a trail of all that happened, and windows over that, by the
//! real binary. They are killed while the table is written, and in the end fit it.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::binary::{all_said, watershed};
use crate::campaign::{chaos, seed};
use crate::oracle::facts::Dice;

struct World {
    dir: TempDir,
}

impl World {
    fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    fn said(&self, arguments: &[&str]) -> Result<String, String> {
        let out = watershed(self.dir.path(), arguments).output().unwrap();
        if out.status.success() { Ok(all_said(&out)) } else { Err(all_said(&out)) }
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.path().join(name), text).unwrap();
        name.to_string()
    }

    fn run(&self, sql: &str, more: &[&str]) -> Result<String, String> {
        let file = self.file("run.sql", sql);
        self.said(&[&["run", &file], more].concat())
    }

    /// Starts a run that stays.
    fn start(&self, sql: &str, more: &[&str]) -> Child {
        let file = self.file("run.sql", sql);
        let mut command = watershed(self.dir.path(), &[&["run", &file], more].concat());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rows of a query as lines of CSV, sorted.
    fn query(&self, sql: &str) -> Vec<String> {
        let out = watershed(self.dir.path(), &["query", sql, "--format", "csv"]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines: Vec<String> = text.lines().skip(1).map(str::to_string).collect();
        lines.sort();
        lines
    }

    /// Loads rows of id, value, number and what they do into a keyed table.
    fn load(&self, rows: &str) {
        let file = self.file("rows.csv", &format!("id,v,n,op\n{rows}"));
        let keyed = ["--mode", "upsert", "--key", "id", "--sequence-by", "n", "--operation", "op"];
        self.said(&[&["load", &file, "--into", "origin"], &keyed[..]].concat()).unwrap();
    }
}

/// Rows of drawn keys, of which some are deleted.
fn drawn(dice: &mut Dice, rows: u64, keys: u64, number: &mut u64) -> String {
    let mut text = String::new();
    for _ in 0..rows {
        *number += 1;
        let op = if dice.chance(200) { "delete" } else { "upsert" };
        writeln!(text, "{},{},{number},{op}", dice.below(keys), dice.below(1_000)).unwrap();
    }
    text
}

const JOBS: &str = "
CREATE EXTERNAL TABLE origin STORED AS DELTA LOCATION '${DIR}/origin';
CREATE SOURCE held WITH (lake = '${DIR}/origin', tail = 'changes');
CREATE TABLE copy (id BIGINT, v BIGINT, n BIGINT, version BIGINT, PRIMARY KEY (id))
WITH (location = '${DIR}/copy', sequence_by = 'version');
INSERT INTO copy WITH (operation = '_change_type') SELECT id, v, n, _commit_version, _change_type FROM held;

CREATE SOURCE happened (WATERMARK FOR _commit_timestamp AS _commit_timestamp - INTERVAL '1 second')
WITH (lake = '${DIR}/origin', tail = 'changes', start = 'earliest');
CREATE TABLE trail (id BIGINT, v BIGINT, n BIGINT, what VARCHAR, version BIGINT) WITH (location = '${DIR}/trail');
INSERT INTO trail SELECT id, v, n, _change_type, _commit_version FROM happened;
CREATE MATERIALIZED VIEW busy WITH (location = '${DIR}/busy') AS
SELECT window_start, _change_type AS what, count(*) AS changes, sum(v) AS v
FROM TUMBLE(happened, _commit_timestamp, INTERVAL '1 second') GROUP BY window_start, _change_type;
";

#[test]
fn killed_anywhere_a_copy_ends_as_its_table() {
    let seed = seed(61);
    let chaos = chaos();
    let world = World::new();
    let (mut dice, mut writing, mut number) = (Dice::new(seed), Dice::new(seed + 1), 0);
    // Rows enough in one version to be killed in the middle of it.
    world.load(&drawn(&mut writing, 40_000, 60_000, &mut number));
    world.load(&drawn(&mut writing, 500, 3_000, &mut number));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (world, over, number) = (&world, &over, &mut number);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match writing.chance(150) {
                    true => drop(world.said(&["compact", "./origin", "--dead-rows", "1"]).unwrap()),
                    false => {
                        let (rows, keys) =
                            if writing.chance(100) { (8_000, 60_000) } else { (1 + writing.below(300), 3_000) };
                        world.load(&drawn(&mut writing, rows, keys, number));
                    }
                }
                thread::sleep(Duration::from_millis(writing.below(150)));
            }
        });
        let over = Over(over);
        for round in 0..(chaos / 10).max(3) {
            let mut job = world.start(JOBS, &["--commit-interval", "20 ms", "--throttle-rows", "100000"]);
            thread::sleep(Duration::from_millis(150 + dice.below(1_500)));
            // Who ended by itself complained of something.
            if job.try_wait().unwrap().is_some() {
                panic!("seed {seed}, round {round}: {}", all_said(&job.wait_with_output().unwrap()));
            }
            job.kill().unwrap();
            job.wait().unwrap();
        }
        drop(over);
    });
    world.run(JOBS, &["--until", "caught-up"]).unwrap();
    let said = world.run(JOBS, &["--until", "caught-up"]).unwrap();
    assert!(said.contains("nothing new"), "{said}");
    world.run(JOBS, &["--until", "caught-up", "--final"]).unwrap();
    let equal = |ours: &str, theirs: &str| {
        let (ours, theirs) = (world.query(ours), world.query(theirs));
        assert!(theirs.len() > 10, "{} rows show nothing", theirs.len());
        assert!(ours == theirs, "seed {seed}: {} rows and {}", ours.len(), theirs.len());
        theirs.len()
    };
    let copied = equal("SELECT id, v, n FROM copy", "SELECT id, v, n FROM origin");
    let told = equal(
        "SELECT id, v, n, what, version FROM trail",
        "SELECT id, v, n, _change_type, _commit_version FROM CHANGES(origin, 0)",
    );
    let second = |column: &str| format!("CAST(extract(epoch FROM {column}) AS BIGINT)");
    let windows = equal(
        &format!("SELECT {}, what, changes, v FROM busy", second("window_start")),
        &format!(
            "SELECT {} AS at, _change_type, count(*), sum(v) FROM CHANGES(origin, 0) GROUP BY at, _change_type",
            second("date_trunc('second', _commit_timestamp)")
        ),
    );
    println!("{copied} rows copied, {told} changes of {number} told, {windows} windows");
}

/// Says that it is over, also when what came before failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// MERGE, UPDATE and DELETE of another, who writes files anew; with and without a change data feed of its own.
const FOREIGN: &str = r#"
import sys
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
place, feed, turn = sys.argv[1], sys.argv[2], int(sys.argv[3])
def rows(ids, v): return pa.table({"id": pa.array(ids, pa.int64()), "v": pa.array([v + i for i in ids], pa.int64()), "part": pa.array([i % 3 for i in ids], pa.int64())})
if turn == 0:
    write_deltalake(place, rows(range(0, 300), 0), partition_by=["part"], configuration={"delta.enableChangeDataFeed": feed})
else:
    table = DeltaTable(place)
    table.delete(f"id % 17 = {turn}")
    table.update(updates={"v": "v + 1000"}, predicate=f"id % 11 = {turn}")
    merge = table.merge(rows(range(turn * 100, turn * 100 + 350), turn * 7), "s.id = t.id", source_alias="s", target_alias="t")
    merge.when_matched_update_all().when_not_matched_insert_all().execute()
"#;

#[test]
fn a_copy_follows_a_table_of_another() {
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with deltalake (make test sets it up)");
        return;
    };
    for feed in ["false", "true"] {
        let world = World::new();
        let turn = |turn: usize| {
            let mut command = Command::new(&python);
            let out = command.current_dir(world.dir.path()).args(["-c", FOREIGN, "origin", feed, &turn.to_string()]);
            let out = out.output().unwrap();
            assert!(out.status.success(), "{}", all_said(&out));
        };
        let jobs = "
            CREATE EXTERNAL TABLE origin STORED AS DELTA LOCATION '${DIR}/origin';
            CREATE SOURCE changed WITH (lake = '${DIR}/origin', tail = 'changes', primary_key = 'id');
            CREATE TABLE copy (id BIGINT, v BIGINT, part BIGINT, version BIGINT, PRIMARY KEY (id))
            WITH (location = '${DIR}/copy', sequence_by = 'version');
            INSERT INTO copy WITH (operation = '_change_type')
            SELECT id, v, part, _commit_version, _change_type FROM changed;";
        turn(0);
        world.run(jobs, &["--until", "caught-up"]).unwrap();
        for n in 1..4 {
            turn(n);
            world.run(jobs, &["--until", "caught-up"]).unwrap();
            let (ours, theirs) = ("SELECT id, v, part FROM copy", "SELECT id, v, part FROM origin");
            assert_eq!(world.query(ours), world.query(theirs), "turn {n}, with a feed: {feed}");
        }
    }
}

/// A version is larger than what is read at once, and has its rows in no order of time.
#[test]
fn no_row_is_late_for_another_of_its_version() {
    let (world, mut dice) = (World::new(), Dice::new(62));
    for version in 0..2 {
        let mut rows = "at,id\n".to_string();
        for id in 0..60_000 {
            let minute = dice.below(10 * 1440);
            let (day, hour) = (1 + version * 10 + minute / 1440, minute / 60 % 24);
            writeln!(rows, "2026-01-{day:02}T{hour:02}:{:02}:00,{id}", minute % 60).unwrap();
        }
        world.file("facts.csv", &rows);
        world.said(&["load", "facts.csv", "--into", "facts"]).unwrap();
    }
    let jobs = "CREATE SOURCE came (WATERMARK FOR at AS at)
        WITH (lake = '${DIR}/facts', tail = 'changes', start = 'earliest');
        CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
        SELECT window_start, count(*) AS facts FROM TUMBLE(came, at, INTERVAL '1 hour') GROUP BY window_start;";
    let said = world.run(jobs, &["--until", "caught-up", "--final"]).unwrap();
    let hours = world.query("SELECT window_start, facts FROM hourly");
    assert_eq!(hours.len(), 480, "{said}");
    let batch = "SELECT date_trunc('hour', at) AS hour, count(*) FROM CHANGES('${DIR}/facts', 0) GROUP BY hour";
    assert_eq!(hours, world.query(&batch.replace("${DIR}", &world.dir.path().display().to_string())), "{said}");
}

#[test]
fn what_cannot_be_is_said() {
    let world = World::new();
    world.load("1,1,1,upsert\n2,2,2,upsert\n");
    let source = |with: &str| format!("CREATE OR REPLACE SOURCE s WITH ({with}); SELECT * FROM s;");
    let table = "lake = '${DIR}/origin', tail = 'changes'";
    for (with, words) in [
        ("tail = 'changes'".to_string(), "tail = 'changes' are those of a table: say which (lake"),
        (format!("{table}, format = 'json'"), "`format` speaks of a log"),
        (format!("{table}, start = 'soon'"), "give 'snapshot', 'earliest', 'latest'"),
        (format!("{table}, bounded = true"), "this one goes on"),
        (format!("{table}, primary_key = 'x'"), "has no column `x`"),
        ("lake = '${DIR}/origin', primary_key = 'id'".to_string(), "`primary_key` is for tail = 'changes'"),
        (table.to_string(), "ask for those that there are: FROM CHANGES("),
    ] {
        let said = world.run(&source(&with), &[]).unwrap_err();
        assert!(said.contains(words), "{with}: {said}");
    }
    let jobs = "CREATE SOURCE changed WITH (lake = '${DIR}/origin', tail = 'changes', start = '0:1');
        CREATE TABLE trail (id BIGINT, what VARCHAR) WITH (location = '${DIR}/trail');
        INSERT INTO trail SELECT id, _change_type FROM changed;";
    world.run(jobs, &["--until", "caught-up"]).unwrap();
    assert_eq!(world.query("SELECT id, what FROM trail"), ["1,insert", "2,insert"]);
    // Two versions more, whose files are taken.
    world.load("1,9,3,upsert\n");
    world.load("2,9,4,delete\n");
    let left = world.said(&["jobs"]).unwrap();
    assert!(left.contains("2 messages"), "{left}");
    for file in fs::read_dir(world.dir.path().join("origin")).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|of| of == "parquet") {
            fs::remove_file(file).unwrap();
        }
    }
    let said = world.run(jobs, &["--until", "caught-up"]).unwrap_err();
    assert!(said.contains("what version 2 of table") && said.contains("a vacuum has removed it"), "{said}");
    // Made anew.
    fs::remove_dir_all(world.dir.path().join("origin")).unwrap();
    world.load("1,1,1,upsert\n");
    let said = world.run(jobs, &["--until", "caught-up"]).unwrap_err();
    assert!(said.contains("made anew"), "{said}");
}
