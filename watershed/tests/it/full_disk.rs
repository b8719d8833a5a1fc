//! A disk that is really full, under the home or under the result table: the run stops and says what, where and what to do,
//! and once there is room the next run ends with the right rows.
//!
//! The disk is a small file system in memory, mounted where only this test's processes see it.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use watershed_core::clock::mix;

const SQL: &str = "
CREATE SOURCE facts (WATERMARK FOR at AS at) WITH (lake = '${HERE}/lake');
CREATE MATERIALIZED VIEW v WITH (location = '${HERE}/table/v') AS
SELECT window_start, window_end, k, count(*) AS n, sum(x) AS x
FROM TUMBLE(facts, at, INTERVAL '${DAYS} days') GROUP BY window_start, window_end, k;
";

const FOUND: &str = "SELECT count(*), sum(k), sum(n), sum(x), sum(k % 1009 * x), min(window_start) FROM v";

/// The first run, with room for it to begin at most, and a second one once there is more.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs -o size="$SIZE" tmpfs "$DISK"
run() { "$WATERSHED" --home home run job.sql --slice '0 s' --commit-interval '0 s' "$@"; }
code=0
run >said 2>complained || code=$?
echo "$code" >code
mount -o remount,size=256m "$DISK"
run --final >>said
"$WATERSHED" --home home query "$FOUND" --format csv >found
"$WATERSHED" --home home query "$EXPECTED" --format csv >expected
"#;

/// An upsert into a table that has some of the keys already, with too little room and then with enough.
const UPSERT: &str = r#"
set -eu
mount -t tmpfs -o size=500k tmpfs table
load() { "$WATERSHED" load "$1" --into table/t --mode upsert --key k; }
count() { "$WATERSHED" --home home query 'SELECT count(*), sum(x) FROM t' --format csv; }
load some.csv
"$WATERSHED" --home home run t.sql
count >before
code=0
load facts.csv >said 2>complained || code=$?
echo "$code" >code
count >still
mount -o remount,size=256m table
load facts.csv
count >found
"#;

/// Rows, and groups, of a day.
const ROWS: u64 = 8_000;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Ten days of rows that do not compress.
    fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let mut csv = "at,k,x\n".to_string();
        for i in 0..10 * ROWS {
            let (day, row) = (i / ROWS, i % ROWS);
            let (h, m, s) = (row / 3600 % 24, row / 60 % 60, row % 60);
            let (k, x) = (mix(i) >> 24, mix(i + 1_000_000) >> 40);
            writeln!(csv, "2001-01-{:02}T{h:02}:{m:02}:{s:02},{k},{x}", day + 1).unwrap();
        }
        fs::write(world.path("facts.csv"), csv).unwrap();
        fs::write(world.path("job.sql"), SQL).unwrap();
        let load = ["load", "facts.csv", "--into", "lake", "--time-column", "at", "--partition-by", "day"];
        let out = world.clean(env!("CARGO_BIN_EXE_watershed")).args(load).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        world
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A command in this world's folder, without settings from outside.
    fn clean(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path());
        command
    }

    /// Runs with a disk of this size under a folder, windows of so many days; the error of the first run.
    fn run(&self, disk: &str, size: &str, days: u32) -> String {
        ["home", "table"].iter().for_each(|folder| fs::create_dir_all(self.path(folder)).unwrap());
        let expected = format!(
            "SELECT count(*), sum(k), sum(n), sum(x), sum(k % 1009 * x), min(window_start) FROM (SELECT window_start, k, \
             count(*) AS n, sum(x) AS x FROM TUMBLE(facts, at, INTERVAL '{days} days') GROUP BY window_start, k)"
        );
        let mut command = self.clean("unshare");
        command.args(own_mounts().unwrap()).args(["bash", "-c", SCRIPT]);
        command.env("HERE", self.path("")).env("DAYS", days.to_string()).env("DISK", self.path(disk)).env("SIZE", size);
        command.env("WATERSHED", env!("CARGO_BIN_EXE_watershed")).env("FOUND", FOUND).env("EXPECTED", expected);
        let out = command.output().unwrap();
        let complained = self.text("complained");
        assert!(out.status.success(), "{}\n{complained}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(self.text("code").trim(), "3", "{complained}");
        assert_eq!(self.text("found").lines().nth(1), self.text("expected").lines().nth(1));
        assert_eq!(self.text("found").lines().count(), 2);
        complained
    }
}

/// The flags with which `unshare` lets a process mount what nobody else sees, as any user or as root.
fn own_mounts() -> Option<&'static [&'static str]> {
    let kinds: [&[&str]; 2] = [&["--map-root-user", "--mount"], &["--mount"]];
    let mount = ["mount", "-t", "tmpfs", "tmpfs", "/tmp"];
    kinds.into_iter().find(|flags| {
        let tried = Command::new("unshare").args(*flags).args(mount).output();
        tried.is_ok_and(|out| out.status.success())
    })
}

fn check(disk: &str, size: &str, days: u32, words: &[&str]) {
    if own_mounts().is_none() {
        println!(
            "skipped: a full disk wants a mount, and neither a user's nor root's `unshare --mount` is permitted here"
        );
        return;
    }
    let world = World::new();
    let complained = world.run(disk, size, days);
    let disk = world.path(disk);
    let said = words.iter().chain(&["No space left on device", "the disk is full: make room and run again"]);
    for words in said.copied().chain([disk.trim_start_matches('/')]) {
        assert!(complained.contains(words), "`{words}` is not said: {complained}");
    }
}

#[test]
fn under_the_home_before_anything_is_there() {
    check("home", "8k", 7, &[]);
}

#[test]
fn under_the_home_when_state_is_kept() {
    check("home", "500k", 7, &["state"]);
}

#[test]
fn under_the_result_table() {
    check("table", "500k", 1, &["table/v"]);
}

#[test]
fn under_a_keyed_table() {
    let Some(flags) = own_mounts() else {
        println!("skipped: a full disk wants a mount, which is not permitted here");
        return;
    };
    let world = World::new();
    fs::create_dir_all(world.path("table")).unwrap();
    let facts = world.text("facts.csv");
    let (mut some, mut rows, mut sum) = ("at,k,x\n".to_string(), 0, 0);
    for (i, line) in facts.lines().skip(1).enumerate() {
        let (key, x) = line.rsplit_once(',').unwrap();
        (rows, sum) = (rows + 1, sum + x.parse::<u64>().unwrap());
        if i % 1000 == 0 {
            writeln!(some, "{key},7").unwrap();
        }
    }
    fs::write(world.path("some.csv"), some).unwrap();
    let table = format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", world.path("table/t"));
    fs::write(world.path("t.sql"), table).unwrap();
    let mut command = world.clean("unshare");
    command.args(flags).args(["bash", "-c", UPSERT]).env("WATERSHED", env!("CARGO_BIN_EXE_watershed"));
    let out = command.output().unwrap();
    let complained = world.text("complained");
    assert!(out.status.success(), "{}\n{complained}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(world.text("code").trim(), "3", "{complained}");
    for words in ["No space left on device", "the disk is full: make room and run again", "table/t"] {
        assert!(complained.contains(words), "`{words}` is not said: {complained}");
    }
    assert_eq!(world.text("before").lines().nth(1), Some("80,560"));
    assert_eq!(world.text("still"), world.text("before"), "nothing half done");
    assert_eq!(world.text("found").lines().nth(1), Some(format!("{rows},{sum}").as_str()));
}
