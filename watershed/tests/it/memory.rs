//! Limits of memory and disk, as the operating system would enforce them: a process with many groups and little memory ends
//! with the right answer, or says what it lacks.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

const SQL: &str = "
CREATE SOURCE facts (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');
CREATE MATERIALIZED VIEW weeks AS SELECT window_start, window_end, k, count(*) AS n, sum(x) AS x, max(x) AS most
FROM TUMBLE(facts, at, INTERVAL '7 days') GROUP BY window_start, window_end, k;
";

/// Rows, and groups, of each day.
const ROWS: i64 = 400_000;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Three days of one window, many keys in two of them.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for day in 0..3i64 {
            let folder = dir.path().join(format!("lake/day=2001-01-{:02}", day + 1));
            fs::create_dir_all(&folder).unwrap();
            let start = 978_307_200_000_000 + day * 86_400_000_000;
            let at = TimestampMicrosecondArray::from_iter_values((0..ROWS).map(|i| start + i * 100_000));
            let k = Int64Array::from_iter_values((0..ROWS).map(|i| (i + day * ROWS / 2) * 7919 % (1 << 40)));
            let x = Int64Array::from_iter_values((0..ROWS).map(|i| i % 1000));
            let columns: [(&str, ArrayRef); 3] =
                [("at", Arc::new(at.with_timezone("UTC"))), ("k", Arc::new(k)), ("x", Arc::new(x))];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let file = File::create(folder.join("part-0.parquet")).unwrap();
            let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        }
        fs::write(dir.path().join("job.sql"), SQL).unwrap();
        World { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The binary under a limit of the kernel's on all memory that it writes to, in bytes.
    fn limited(&self, data: Option<u64>, arguments: &[&str]) -> Output {
        let binary = env!("CARGO_BIN_EXE_watershed");
        let mut command = match data {
            Some(bytes) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--data={bytes}")).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.path()).env("LAKE", self.path().join("lake")).args(arguments).output().unwrap()
    }

    fn ok(&self, data: Option<u64>, arguments: &[&str]) -> String {
        let out = self.limited(data, arguments);
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{arguments:?} {:?}\n{said}\n{complained}", out.status);
        said.into_owned()
    }

    fn answer(&self) -> String {
        let sql = "SELECT count(*), sum(k), sum(n), sum(x), sum(most), sum(k % 1009 * x), min(window_start) FROM weeks";
        self.ok(None, &["query", sql, "--format", "csv"])
    }
}

/// The same by a run without limits.
fn unlimited() -> String {
    let world = World::new();
    world.ok(None, &["run", "job.sql", "--final"]);
    world.answer()
}

#[cfg(target_os = "linux")]
#[test]
fn many_groups_and_little_memory() {
    let world = World::new();
    let run =
        ["run", "job.sql", "--final", "--json", "--slice", "0 s", "--commit-interval", "0 s", "--parallelism", "2"];
    let run: Vec<&str> = run.into_iter().chain(["--memory-limit", "24 MB", "--spill-dir", "spilled"]).collect();
    let said = world.ok(Some(400 << 20), &run);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spilled = lines.iter().filter_map(|line| line["state"]["spilled"].as_u64()).max();
    assert!(spilled > Some(10 << 20), "{spilled:?}");
    assert_eq!(world.answer(), unlimited());
    assert_eq!(fs::read_dir(world.path().join("spilled")).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn a_disk_limit_is_told_with_the_way_out_and_nothing_is_lost() {
    let world = World::new();
    let run = ["run", "job.sql", "--final", "--slice", "0 s", "--commit-interval", "0 s", "--parallelism", "2"];
    let short: Vec<&str> = run.into_iter().chain(["--memory-limit", "24 MB", "--disk-limit", "1 MB"]).collect();
    let out = world.limited(None, &short);
    let complained = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(6), "{complained}");
    for words in ["weeks", "disk_limit", "memory_limit"] {
        assert!(complained.contains(words), "{words}: {complained}");
    }
    world.ok(None, &run);
    assert_eq!(world.answer(), unlimited());
}

/// A disk that is really full: a small file system, mounted for the process alone. Without the right to mount one, nothing is
/// tried.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_with_where_and_what_to_do() {
    let world = World::new();
    let on_small = |size: &str, arguments: &[&str]| {
        let script = format!("mount -t tmpfs -o size={size} tmpfs small || exit 99; exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_watershed")]).args(arguments);
        command.current_dir(world.path()).env("LAKE", world.path().join("lake")).output().unwrap()
    };
    fs::create_dir(world.path().join("small")).unwrap();
    let run = ["run", "job.sql", "--final", "--slice", "0 s", "--commit-interval", "0 s", "--parallelism", "2"];
    let spill: Vec<&str> = run.into_iter().chain(["--memory-limit", "24 MB", "--spill-dir", "small/spilled"]).collect();
    let out = on_small("1m", &spill);
    let complained = String::from_utf8_lossy(&out.stderr);
    if !matches!(out.status.code(), Some(6)) && complained.contains("not permitted") {
        println!("skipped: no file system may be mounted here");
        return;
    }
    assert_eq!(out.status.code(), Some(6), "{complained}");
    for words in ["job weeks", "No space left on device", "make room there", "spill_dir"] {
        assert!(complained.contains(words), "{words}: {complained}");
    }
}
