//! A run told from outside what to do, as an operator does it: signals to a real process, and commands of a second one.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use watershed_core::clock::{Clock, SystemClock};

const SQL: &str = "
CREATE SOURCE facts (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');
CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, k, count(*) AS n, sum(x) AS x
FROM TUMBLE(facts, at, INTERVAL '1 hour') GROUP BY window_start, window_end, k;
";

pub(crate) const BATCH: &str = "SELECT window_start, k, count(*) AS n, sum(x) AS x FROM TUMBLE(facts, at, INTERVAL '1 hour') \
                     GROUP BY window_start, k ORDER BY window_start, k";

/// A folder with a lake of days of so many rows each, and the binary to work on it.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn of_days(rows: &[u32]) -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        let mut csv = "at,k,x\n".to_string();
        for (day, rows) in rows.iter().enumerate() {
            for row in 0..*rows {
                let (s, k) = (row % 86_400, row % 7);
                let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
                writeln!(csv, "2001-01-{:02}T{h:02}:{m:02}:{s:02},k{k},{row}", day + 1).unwrap();
            }
        }
        fs::write(world.path().join("facts.csv"), csv).unwrap();
        fs::write(world.path().join("job.sql"), SQL).unwrap();
        world.ok(&["load", "facts.csv", "--into", "lake", "--time-column", "at", "--partition-by", "day"]);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_")) {
            command.env_remove(name);
        }
        command.current_dir(self.path()).env("LAKE", self.path().join("lake")).args(arguments);
        command
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).output().unwrap();
        let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{arguments:?}\n{said}\n{complained}");
        said.into_owned()
    }

    /// Starts a run, partition by partition and an epoch each.
    pub(crate) fn start(&self, more: &[&str]) -> Run {
        let run = ["run", "job.sql", "--json", "--slice", "0 s", "--commit-interval", "0 s", "--parallelism", "2"];
        let mut child = self.command(&run).args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let complained = BufReader::new(child.stderr.take().unwrap()).lines();
        Run { child, said, complained }
    }

    /// A run that has begun takes a checkpoint's number first.
    fn wait_for_its_checkpoint(&self) {
        while !self.path().join(".watershed/jobs/v").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A run to the end gives what the batch query does.
    pub(crate) fn ends_right(&self) {
        self.ok(&["run", "job.sql", "--final"]);
        let expected = self.ok(&["query", BATCH, "--format", "csv"]);
        assert!(expected.lines().count() > 20);
        let found = "SELECT window_start, k, n, x FROM v ORDER BY window_start, k";
        assert_eq!(self.ok(&["query", found, "--format", "csv"]), expected);
    }
}

/// A run that is live.
pub(crate) struct Run {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    complained: Lines<BufReader<ChildStderr>>,
}

impl Run {
    /// Waits until it says something like this.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut before = vec![];
        for line in self.said.by_ref() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if wanted(&line) {
                return line;
            }
            before.push(line);
        }
        let complained: Vec<_> = self.complained.by_ref().map(Result::unwrap).collect();
        panic!("it ended without saying so\n{before:#?}\n{complained:#?}");
    }

    pub(crate) fn until_slices(&mut self, slices: u64) {
        self.until(|line| line["event"] == "progress" && line["slices"].as_u64() >= Some(slices));
    }

    fn until_note(&mut self, words: &str) -> String {
        let note = self.until(|line| line["event"] == "note" && line["text"].as_str().unwrap().contains(words));
        note["text"].as_str().unwrap().to_string()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The summary of its job, and its exit code.
    pub(crate) fn end(mut self) -> (Value, i32) {
        let summary = self.until(|line| line["event"] == "summary");
        (summary, self.child.wait().unwrap().code().unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_signal_within_a_long_slice_ends_the_run_and_loses_nothing() {
    let world = World::of_days(&[100, 60_000, 100]);
    // At this pace the second day takes ten minutes.
    let mut run = world.start(&["--throttle-rows", "100"]);
    run.until_slices(1);
    // Between two slices it would end there.
    std::thread::sleep(Duration::from_secs(1));
    run.signal("-TERM");
    let (summary, code) = run.end();
    assert_eq!((code, &summary["stopped"]), (0, &Value::from(true)), "{summary}");
    assert!(summary["given_up"].is_object(), "it waited for the slice: {summary}");
    assert_eq!((&summary["run"]["slices"], &summary["run"]["rows"]), (&Value::from(1), &Value::from(100)), "{summary}");
    assert_eq!(summary["watermark"], "2001-01-02T00:00:00Z", "{summary}");
    // The next run begins with the slice that was given up.
    let mut run = world.start(&[]);
    let all = run.until(|line| line["event"] == "summary");
    assert_eq!((&all["run"]["rows"], &all["total"]["rows"]), (&Value::from(60_100), &Value::from(60_200)), "{all}");
    world.ends_right();
}

#[cfg(unix)]
#[test]
fn a_limit_in_bytes_counts_within_a_slice_too() {
    let world = World::of_days(&[100, 100, 60_000, 100]);
    // At this pace the third day takes minutes. What is read ahead may be fetched first, and hold up what it is read ahead of.
    let mut run = world.start(&["--throttle-bytes", "1 kB"]);
    run.until_slices(1);
    // The second has gone by then, or waits behind the third.
    std::thread::sleep(Duration::from_secs(4));
    run.signal("-TERM");
    let (summary, code) = run.end();
    assert_eq!((code, &summary["stopped"]), (0, &Value::from(true)), "{summary}");
    assert!(summary["given_up"].is_object(), "it waited for the slice: {summary}");
    let (slices, rows) = (summary["run"]["slices"].as_u64().unwrap(), summary["run"]["rows"].as_u64().unwrap());
    assert!((1..=2).contains(&slices) && rows == 100 * slices, "{summary}");
    // What was fetched was paid for: a second for each thousand bytes, and half of that is let go here.
    let (bytes, elapsed) = (summary["run"]["bytes"].as_u64().unwrap(), summary["elapsed_ms"].as_u64().unwrap());
    assert!(bytes > 500 && elapsed > bytes / 2, "{summary}");
    // Lifted while it waits within the slice, the limit no longer holds it up.
    let run = world.start(&["--throttle-bytes", "1 kB"]);
    std::thread::sleep(Duration::from_secs(2));
    let said = world.ok(&["alter", "v", "--throttle-bytes", "none"]);
    assert!(said.contains("throttle_bytes = none") && said.contains("the live run goes by it now"), "{said}");
    let (summary, code) = run.end();
    assert_eq!((code, &summary["run"]["rows"]), (0, &Value::from(60_300 - rows)), "{summary}");
    world.ok(&["alter", "v", "--throttle-bytes", "default"]);
    world.ends_right();
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_it_at_once() {
    // A run that is asked to stop may be done before anybody can read that it was. So the second is another one, for two of a
    // kind in one moment are one; which of them it ends by, as shells count it, is then open.
    for signals in ["-TERM -INT", "-INT -TERM"] {
        let world = World::of_days(&[100, 60_000, 100]);
        let mut run = world.start(&["--throttle-rows", "100"]);
        world.wait_for_its_checkpoint();
        let both = format!("for signal in {signals}; do kill $signal {}; done", run.child.id());
        assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
        let mut told = run.complained.by_ref().map(Result::unwrap);
        assert!(told.any(|line| line.contains("once more to end at once")));
        let code = run.child.wait().unwrap().code();
        assert!(matches!(code, Some(143 | 130)), "{code:?}");
        world.ends_right();
    }
}

#[test]
fn a_limit_altered_while_it_runs_counts_at_once_and_stays() {
    let world = World::of_days(&[100, 30_000, 100]);
    // At this pace it takes eight hours.
    let run = world.start(&["--throttle-rows", "1"]);
    world.wait_for_its_checkpoint();
    let said = world.ok(&["alter", "v", "--throttle-rows", "none", "--throttle-bytes", "1 GB"]);
    assert!(said.contains("throttle_bytes = 1 GB, throttle_rows = none"), "{said}");
    assert!(said.contains("the live run goes by it now"), "{said}");
    let (summary, code) = run.end();
    assert_eq!((code, &summary["run"]["rows"]), (0, &Value::from(30_200)), "{summary}");
    let jobs: Value = serde_json::from_str(&world.ok(&["jobs", "--json"])).unwrap();
    assert_eq!(jobs["altered"]["throttle_bytes"], "1 GB", "{jobs}");
    // It counts for the next run too, above its flag, until it is taken back.
    let mut next = world.start(&["--throttle-rows", "1"]);
    next.until_note("as altered: throttle_bytes = 1 GB, throttle_rows = none");
    next.end();
    let said = world.ok(&["alter", "v", "--throttle-rows", "default", "--throttle-bytes", "default"]);
    assert!(said.contains("nothing is altered any more") && said.contains("no live run answered"), "{said}");
    world.ends_right();
}

#[test]
fn a_paused_run_rests_with_all_committed_and_goes_on_when_resumed() {
    let world = World::of_days(&[50; 28]);
    let mut run = world.start(&["--throttle-rows", "50"]);
    run.until_slices(1);
    let said = world.ok(&["pause", "v"]);
    assert!(said.contains("the live run rests at its next safe point"), "{said}");
    let note = run.until_note("paused since");
    assert!(note.contains("all that was read is committed") && note.contains("watershed resume v"), "{note}");
    assert!(world.ok(&["jobs"]).contains("paused"));
    // Another run finds it paused and does nothing, not even take the job over.
    let second = world.ok(&["run", "job.sql"]);
    assert!(second.contains("v: paused since") && second.contains("`watershed resume v`"), "{second}");
    // It is there for control while it rests.
    assert!(world.ok(&["alter", "v", "--throttle-rows", "none"]).contains("the live run goes by it now"));
    assert!(world.ok(&["resume", "v"]).contains("the live run goes on"));
    run.until_note("goes on");
    let (summary, code) = run.end();
    assert_eq!((code, &summary["run"]["slices"]), (0, &Value::from(28)), "{summary}");
    world.ends_right();
}

#[test]
fn a_stop_is_for_the_run_that_is_live() {
    let world = World::of_days(&[50; 28]);
    let mut run = world.start(&["--throttle-rows", "50"]);
    run.until_slices(1);
    assert!(world.ok(&["stop", "v"]).contains("the live run ends at its next safe point"));
    let (summary, code) = run.end();
    assert_eq!((code, &summary["stopped"]), (0, &Value::from(true)), "{summary}");
    assert!(summary["run"]["slices"].as_u64() < Some(28), "{summary}");
    assert!(world.ok(&["stop", "v"]).contains("there is none to stop"));
    let (summary, _) = world.start(&[]).end();
    assert_eq!(
        (&summary["stopped"], &summary["total"]["slices"]),
        (&Value::from(false), &Value::from(28)),
        "{summary}"
    );
    let refused = world.command(&["stop", "w"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no job w; there are v"));
    world.ends_right();
}

#[test]
fn outside_of_its_hours_a_run_rests() {
    let world = World::of_days(&[50; 10]);
    let hour = SystemClock::default().now().0.div_euclid(3_600_000_000) % 24;
    let closed = format!("{:02}:00-{:02}:00", (hour + 5) % 24, (hour + 6) % 24);
    let mut run = world.start(&["--schedule", &closed]);
    let note = run.until_note("at rest outside of its hours");
    assert!(note.contains(&closed), "{note}");
    let open = format!("{:02}:00-{:02}:00", (hour + 23) % 24, (hour + 3) % 24);
    assert!(world.ok(&["alter", "v", "--schedule", &open]).contains("the live run goes by it now"));
    let (summary, code) = run.end();
    assert_eq!((code, &summary["run"]["slices"]), (0, &Value::from(10)), "{summary}");
    world.ok(&["alter", "v", "--schedule", "default"]);
    world.ends_right();
}
