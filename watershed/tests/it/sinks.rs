//! Results as lines, by the real binary: in a pipe, and in files that are whole and there once however often the job is killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::binary::all_said;
use crate::campaign::seed;
use crate::generate::{RIDES, World, kill};
use crate::oracle::facts::Dice;

const ROWS: u64 = 60_000;

/// Nothing but what its source has, and windows over it.
const SINKS: &str = "
CREATE SINK ids WITH (location = '${DIR}/ids') AS SELECT id, city, km, at FROM rides;
CREATE SINK seconds WITH (location = 'file://${DIR}/seconds', format = 'json') AS
SELECT window_start, city, count(*) AS rides, max(id) AS last
FROM TUMBLE(rides, at, INTERVAL '1 second') GROUP BY window_start, city;
";

/// The same windows in a table.
const VIEW: &str = "
CREATE MATERIALIZED VIEW in_a_table AS
SELECT window_start, city, count(*) AS rides, max(id) AS last
FROM TUMBLE(rides, at, INTERVAL '1 second') GROUP BY window_start, city;
";

const PRINTED: &str = "
CREATE SINK printed WITH (location = 'stdout') AS SELECT id, city FROM rides;
";

/// A log that was written long ago.
fn past() -> String {
    RIDES.replace(");\n", ", generate.start = '2026-01-01');\n")
}

/// The lines of a folder's files, of which each must be whole, in the order of their names.
fn lines(folder: &Path) -> Vec<Value> {
    let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "ndjson")).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with("}\n"), "{} is cut off", path.display());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    files.iter().flat_map(read).collect()
}

fn ids(lines: &[Value]) -> Vec<u64> {
    lines.iter().map(|line| line["id"].as_u64().unwrap()).collect()
}

/// As `query` gives it.
fn as_csv(lines: &[Value]) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let row = |line: &Value| ["window_start", "city", "rides", "last"].map(|name| text(&line[name])).join(",");
    lines.iter().map(row).collect()
}

#[test]
fn files_are_whole_and_there_once_however_often_the_job_is_killed() {
    let seed = seed(31);
    let mut dice = Dice::new(seed);
    let world = World::new();
    let (to_ids, to_seconds) = (world.dir.path().join("ids"), world.dir.path().join("seconds"));
    let mut seen = 0;
    for round in 0..8 {
        let run = world.start(&[RIDES, SINKS], &["--commit-interval", "20 ms"]);
        sleep(Duration::from_millis(250 + dice.below(350)));
        kill(run);
        let found = ids(&lines(&to_ids));
        let once: BTreeSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len(), "seed {seed}, round {round}: a row is there twice");
        assert!(found.len() >= seen, "seed {seed}, round {round}: rows went away");
        seen = found.len();
    }
    assert!(seen > 0, "seed {seed}: nothing was written before the last kill");
    sleep(Duration::from_secs(3));
    world.run(&[RIDES, SINKS], &["--final"]);
    let mut found = ids(&lines(&to_ids));
    found.sort_unstable();
    assert_eq!(found, (0..ROWS).collect::<Vec<_>>(), "seed {seed}");

    world.run(&[RIDES, VIEW], &["--final"]);
    let expected = "SELECT to_char(window_start, '%Y-%m-%dT%H:%M:%SZ'), city, rides, last FROM in_a_table";
    let expected: BTreeSet<String> = world.query(expected).into_iter().collect();
    let windows = lines(&to_seconds);
    assert_eq!(windows.len(), expected.len(), "seed {seed}: every window once");
    assert_eq!(as_csv(&windows), expected, "seed {seed}");
    assert!(expected.len() > 60);
}

#[test]
fn standard_output_has_rows_and_nothing_else() {
    for flags in [&["--final"][..], &["--final", "--json"]] {
        let world = World::new();
        let out = world.try_run(&[&past(), PRINTED, VIEW], flags);
        assert!(out.status.success(), "{}", all_said(&out));
        let printed = String::from_utf8(out.stdout).unwrap();
        let printed: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut found = ids(&printed);
        found.sort_unstable();
        assert_eq!(found, (0..ROWS).collect::<Vec<_>>());
        assert!(printed.iter().all(|row| row["city"].as_str().unwrap().starts_with("city_")));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains("printed") && said.contains("in_a_table"), "{said}");
        let said = world.run(&["DROP SINK printed;"], &[]);
        assert_eq!(said.trim(), "dropped sink printed");
    }
}

#[test]
fn what_was_printed_before_a_crash_may_come_again_and_nothing_is_left_out() {
    let seed = seed(32);
    let mut dice = Dice::new(seed);
    let world = World::new();
    let file = world.sql(&[RIDES, PRINTED]);
    let mut found: Vec<u64> = vec![];
    for round in 0..5 {
        let path = world.dir.path().join(format!("printed_{round}"));
        let live = round < 4;
        let until: &[&str] = if live { &["--commit-interval", "40 ms"] } else { &["--until", "caught-up"] };
        if !live {
            sleep(Duration::from_secs(3));
        }
        let mut run = world.command(&[&["run", file.as_str()], until].concat());
        let mut run = run.stdout(File::create(&path).unwrap()).stderr(Stdio::piped()).spawn().unwrap();
        match live {
            true => {
                sleep(Duration::from_millis(300 + dice.below(300)));
                kill(run);
            }
            false => assert!(run.wait().unwrap().success()),
        }
        let text = fs::read_to_string(&path).unwrap();
        // The last line of a run that was killed may be cut off.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        found.extend(whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap()));
    }
    let once: BTreeSet<u64> = found.iter().copied().collect();
    println!("{} rows came again", found.len() - once.len());
    assert_eq!(once, (0..ROWS).collect(), "seed {seed}");
}

#[test]
fn rows_come_out_of_a_pipe_while_the_job_lives_and_a_closed_one_ends_it() {
    let world = World::new();
    let endless = RIDES.replace(" generate.rows = 60000,", "");
    let windows = "CREATE SINK live WITH (location = 'stdout') AS SELECT window_start, count(*) AS rides
        FROM TUMBLE(rides, at, INTERVAL '100 milliseconds') GROUP BY window_start;";
    let file = world.sql(&[&endless.replace("5 seconds", "200 milliseconds"), windows]);
    let mut run = world.command(&["run", &file]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(run.stdout.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let window: Value = serde_json::from_str(&line).unwrap();
        assert!(window["rides"].as_u64().unwrap() > 0, "{line}");
    }
    assert!(run.try_wait().unwrap().is_none(), "windows come while it runs");
    drop(out);
    let out = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("standard output was closed"), "{said}");
}

#[test]
fn a_sink_that_is_built_anew_writes_beside_what_is_there() {
    let world = World::new();
    let folder = world.dir.path().join("ids");
    let sink = "CREATE SINK ids WITH (location = 'ids', target_file_size = '100 kB') AS SELECT id, city FROM rides;";
    let plan = world.run(&[&past(), "EXPLAIN ", sink], &[]);
    assert!(plan.contains("a line a row, exactly once, by names") && !folder.exists(), "{plan}");
    world.run(&[&past(), sink], &[]);
    let files = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "_watershed").collect::<BTreeSet<_>>()
    };
    let before = files(&folder);
    assert!(before.len() > 3 && before.iter().all(|name| name.ends_with(".ndjson")), "{before:?}");
    assert_eq!(lines(&folder).len() as u64, ROWS);
    assert!(world.run(&[&past(), sink], &[]).contains("nothing new"));
    world.run(&[&past(), &sink.replace("CREATE SINK", "CREATE OR REPLACE SINK")], &[]);
    assert_eq!(lines(&folder).len() as u64, 2 * ROWS);
    assert!(files(&folder).is_superset(&before));
    let jobs = all_said(&world.command(&["jobs"]).output().unwrap());
    assert!(jobs.contains("/ids"), "{jobs}");
    let said = world.run(&["DROP SINK ids;"], &[]);
    assert!(
        said.contains("dropped sink ids; its files stay in /") && lines(&folder).len() as u64 == 2 * ROWS,
        "{said}"
    );
}

#[test]
fn what_such_a_sink_cannot_do_is_refused_before_anything_is_made() {
    let world = World::new();
    let table = "CREATE TABLE t (id BIGINT) WITH (location = 'table');";
    for (options, expected) in [
        ("format = 'json'", "say where its rows go"),
        ("location = 'stdout', topic = 'kafka://b:9092/t', format = 'json'", "topic and location are two places"),
        ("location = 'stdout', key = 'id'", "`key` is for messages of a topic"),
        ("location = 'out', kafka.linger.ms = '5'", "`kafka.linger.ms` is for a topic"),
        ("location = 'out', format = 'avro'", "messages are written as 'json'"),
        ("location = 'stdout', delivery = 'exactly once'", "its delivery is 'at least once'"),
        ("location = 'out', delivery = 'at least once'", "'exactly once'; leave the delivery out"),
        ("location = 'ftp://out'", "ftp:// is not supported"),
        ("location = 'table'", "is a Delta table"),
    ] {
        let sink = format!("CREATE SINK s WITH ({options}) AS SELECT id FROM rides;");
        let refused = world.refused(&[&past(), table, &sink]);
        assert!(refused.contains(expected), "{options}: {refused}");
        assert!(!refused.contains("fault in Watershed"), "{refused}");
    }
    let jobs = world.command(&["jobs", "--json"]).output().unwrap();
    assert!(jobs.stdout.is_empty(), "{}", all_said(&jobs));
    assert!(!world.dir.path().join("out").exists());
}
