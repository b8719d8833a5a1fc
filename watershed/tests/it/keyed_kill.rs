//! `kill -9` over what writes to keyed tables: loads and jobs that are killed anywhere and run again, two at a time, while
//! compactions of the same tables begin and are killed as well. In the end a table holds the newest row of each key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use watershed::Engine;
use watershed_core::clock::mix;

use crate::campaign::chaos;
use crate::oracle::facts::Dice;

fn kills_wanted() -> u64 {
    let chaos = chaos();
    chaos / 10
}

/// A change: when, of what key, with which value and sequence, and whether it deletes.
#[derive(Clone, Copy)]
struct Change {
    minute: u64,
    id: u64,
    v: u64,
    n: u64,
    delete: bool,
}

/// Changes of a few thousand keys over ten days; no two have the same sequence, which follows no order.
fn changes(seed: u64, rows: u64, keys: u64) -> Vec<Change> {
    let change = |i: u64| {
        let drawn = mix(seed ^ mix(i));
        let (id, v, delete) = (drawn % keys, (drawn >> 16) % 1_000_000, (drawn >> 40).is_multiple_of(5));
        Change { minute: i * 10 * 24 * 60 / rows, id, v, n: (i + seed) * 7_919 % 1_000_003, delete }
    };
    (0..rows).map(change).collect()
}

fn csv(changes: &[Change]) -> String {
    let mut text = "at,id,v,n,op\n".to_string();
    for Change { minute, id, v, n, delete } in changes {
        let (day, hour) = (1 + minute / 1440, minute / 60 % 24);
        let op = if *delete { "delete" } else { "upsert" };
        writeln!(text, "2001-01-{day:02}T{hour:02}:{:02}:00,{id},{v},{n},{op}", minute % 60).unwrap();
    }
    text
}

/// The newest row of each key that was not deleted: value and sequence.
fn newest<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeMap<i64, [i64; 2]> {
    let mut newest: BTreeMap<u64, Change> = BTreeMap::new();
    for change in changes {
        let known = newest.entry(change.id).or_insert(*change);
        if known.n < change.n {
            *known = *change;
        }
    }
    let left = newest.into_values().filter(|change| !change.delete);
    left.map(|change| (change.id as i64, [change.v as i64, change.n as i64])).collect()
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a command, and kills it after so long if it still runs then; `false`: it was killed.
    fn run(&self, arguments: &[&str], kill_after: Option<Duration>) -> bool {
        let mut child = self.command(arguments).spawn().unwrap();
        if let Some(after) = kill_after {
            thread::sleep(after);
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                return false;
            }
        }
        let out = child.wait_with_output().unwrap();
        let complained = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {} {complained}", out.status);
        true
    }

    /// Compacts tables again and again, and kills every third compaction, until told that it is over.
    fn compact_until(&self, over: &AtomicBool, tables: &[&str], seed: u64) -> u64 {
        let mut dice = Dice::new(seed);
        let mut compactions = 0;
        while !over.load(Ordering::Relaxed) {
            for table in tables.iter().filter(|table| self.dir.path().join(table).join("_delta_log").exists()) {
                let made = fs::read_dir(self.path(table)).unwrap().count() > 1;
                if made {
                    let after = dice.chance(333).then(|| Duration::from_millis(dice.below(300)));
                    self.run(&["compact", table, "--dead-rows", "1"], after);
                    compactions += 1;
                }
            }
            thread::sleep(Duration::from_millis(dice.below(200)));
        }
        compactions
    }

    /// The rows of a query over a table: an identifier and two numbers. A key that is there twice is a failure.
    async fn rows(&self, table: &str, select: &str) -> BTreeMap<i64, [i64; 2]> {
        let engine = Engine::builder().home(self.path("another_home")).build().unwrap();
        let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS DELTA LOCATION '{}'", self.path(table));
        engine.execute(&sql).await.unwrap();
        let mut rows = BTreeMap::new();
        for batch in engine.query(&format!("SELECT {select} FROM {table}")).await.unwrap() {
            let number = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            for row in 0..batch.num_rows() {
                let before = rows.insert(number(0, row), [number(1, row), number(2, row)]);
                assert_eq!(before, None, "key {} of {table} is there twice", number(0, row));
            }
        }
        rows
    }
}

/// Says that it is over, also when what came before failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_keyed_loads() {
    const FILES: u64 = 3;
    let wanted = kills_wanted();
    let (mut kills, mut seed) = (0, 11_000);
    while kills < wanted {
        println!("seed {seed}");
        let world = World::new();
        let all: Vec<Change> = changes(seed, 2 * FILES * 4000, 3000);
        for (file, part) in all.chunks(4000).enumerate() {
            fs::write(world.path(&format!("{file}.csv")), csv(part)).unwrap();
        }
        let over = AtomicBool::new(false);
        let most = (wanted - kills).div_ceil(2);
        let (killed, compactions) = thread::scope(|scope| {
            let upkeep = scope.spawn(|| world.compact_until(&over, &["t"], seed));
            let over = Over(&over);
            let (world, mut loaders) = (&world, vec![]);
            for loader in 0..2 {
                loaders.push(scope.spawn(move || {
                    let mut dice = Dice::new(seed * 2 + loader);
                    let mut kills = 0;
                    for file in (0..FILES).map(|file| format!("{}.csv", file * 2 + loader)) {
                        let load = ["load", &file, "--into", "t", "--mode", "upsert", "--key", "id"];
                        let load = [&load[..], &["--sequence-by", "n", "--operation", "op"]].concat();
                        loop {
                            let after = (kills < most).then(|| Duration::from_millis(5 + dice.below(120)));
                            if world.run(&load, after) {
                                break;
                            }
                            kills += 1;
                        }
                    }
                    kills
                }));
            }
            let killed: u64 = loaders.into_iter().map(|loader| loader.join().unwrap()).sum();
            drop(over);
            (killed, upkeep.join().unwrap())
        });
        assert!(world.rows("t", "id, v, n").await == newest(&all), "seed {seed}, {killed} kills: other rows");
        println!("{killed} kills -9 and {compactions} compactions");
        (kills, seed) = (kills + killed.max(1), seed + 1);
    }
}

const JOBS: &str = "
CREATE SOURCE changes (WATERMARK FOR at AS at) WITH (lake = 'lake');
CREATE TABLE latest (id BIGINT, v BIGINT, n BIGINT, PRIMARY KEY (id)) WITH (location = 'latest', sequence_by = 'n');
INSERT INTO latest WITH (operation = 'op') SELECT id, v, n, op FROM changes WHERE n % 2 = 0;
INSERT INTO latest WITH (operation = 'op', job = 'odd') SELECT id, v, n, op FROM changes WHERE n % 2 = 1;
CREATE TABLE busy (id BIGINT, times BIGINT, at TIMESTAMP, PRIMARY KEY (id)) WITH (location = 'busy', sequence_by = 'at');
INSERT INTO busy SELECT id, count(*), window_start FROM TUMBLE(changes, at, INTERVAL '7 hours')
GROUP BY window_start, window_end, id;
";

/// Of each key the last window that has it: its changes there, and when it begins, in minutes.
fn busy(changes: &[Change]) -> BTreeMap<i64, [i64; 2]> {
    // Windows lie on a grid from 1970 on.
    let day = 11_323 * 1440;
    let window = |change: &Change| (day + change.minute as i64).div_euclid(420) * 420 - day;
    let mut last: BTreeMap<i64, [i64; 2]> = BTreeMap::new();
    for change in changes {
        let known = last.entry(change.id as i64).or_insert([0, i64::MIN]);
        if known[1] < window(change) {
            *known = [0, window(change)];
        }
        known[0] += 1;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_keyed_jobs() {
    const ROWS: u64 = 6000;
    let wanted = kills_wanted();
    let (mut kills, mut seed) = (0, 12_000);
    while kills < wanted {
        println!("seed {seed}");
        let world = World::new();
        let all = changes(seed, ROWS, 900);
        fs::write(world.path("changes.csv"), csv(&all)).unwrap();
        fs::write(world.path("jobs.sql"), JOBS).unwrap();
        world.run(&["load", "changes.csv", "--into", "lake", "--time-column", "at"], None);
        let over = AtomicBool::new(false);
        let most = wanted - kills;
        let (killed, compactions) = thread::scope(|scope| {
            let upkeep = scope.spawn(|| world.compact_until(&over, &["latest", "busy"], seed));
            let over = Over(&over);
            let mut dice = Dice::new(seed);
            let (mut killed, throttle) = (0, (ROWS / 2).to_string());
            let run = ["--home", "home", "run", "jobs.sql", "--commit-interval", "0 s", "--slice", "0 s"];
            let run = [&run[..], &["--throttle-rows", &throttle]].concat();
            // A few seconds for the whole, so that kills fall everywhere in it.
            while !world.run(&run, (killed < most).then(|| Duration::from_millis(50 + dice.below(900)))) {
                killed += 1;
            }
            world.run(&[&run[..], &["--final"]].concat(), None);
            drop(over);
            (killed, upkeep.join().unwrap())
        });
        let said = format!("seed {seed}, {killed} kills");
        assert!(world.rows("latest", "id, v, n").await == newest(&all), "{said}: other rows in latest");
        let since =
            "id, times, CAST(date_part('epoch', at) - date_part('epoch', TIMESTAMP '2001-01-01') AS BIGINT) / 60";
        assert!(world.rows("busy", since).await == busy(&all), "{said}: other rows in busy");
        println!("{killed} kills -9 and {compactions} compactions");
        (kills, seed) = (kills + killed.max(1), seed + 1);
    }
}
