//! The real binary over a log that is made up by the clock: killed while rows come, handed over from an archive, and refused
//! what it cannot be.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use watershed_core::clock::mix;

use crate::binary::{all_said, watershed};
use crate::campaign::seed;
use crate::oracle::facts::Dice;

/// Three seconds of rides, in parts, out of order by no more than their source waits for.
const ROWS: u64 = 60_000;
pub(crate) const RIDES: &str = "
CREATE SOURCE rides (
    id BIGINT, city VARCHAR, km DOUBLE, at TIMESTAMP, _part INT, _offset BIGINT,
    WATERMARK FOR at AS at - INTERVAL '5 seconds'
) WITH (tail = 'generate://', generate.rows_per_second = 20000, generate.rows = 60000, generate.parts = 3,
    generate.keys = 20, generate.skew = 0.8, generate.disorder = '5 seconds', generate.sequence = 'id');
";

const ARCHIVE: &str = "
CREATE TABLE archive (id BIGINT, city VARCHAR, km DOUBLE, at TIMESTAMP, _part INT, _offset BIGINT)
WITH (location = '${DIR}/archive', partition_by = 'day(at)');
INSERT INTO archive SELECT id, city, km, at, _part, _offset FROM rides;
";

const SECONDS: &str = "
CREATE MATERIALIZED VIEW seconds AS
SELECT window_start, city, count(*) AS rides, sum(CAST(round(km * 100) AS BIGINT)) AS metres, max(id) AS last
FROM TUMBLE(rides, at, INTERVAL '1 second') GROUP BY window_start, city;
";

/// What the view has to be, by DataFusion over what was archived.
const EXPECTED: &str = "SELECT date_trunc('second', at) AS window_start, city, count(*), \
    sum(CAST(round(km * 100) AS BIGINT)), max(id) FROM archive GROUP BY 1, 2 ORDER BY 1, 2";

/// A working folder.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        World { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        watershed(self.dir.path(), arguments)
    }

    /// Statements as a file.
    pub(crate) fn sql(&self, parts: &[&str]) -> String {
        let text = parts.concat();
        let file = self.dir.path().join(format!("{:x}.sql", text.bytes().fold(0, |hash, b| mix(hash ^ u64::from(b)))));
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// Runs statements as far as the log goes.
    pub(crate) fn try_run(&self, sql: &[&str], more: &[&str]) -> Output {
        let file = self.sql(sql);
        self.command(&[&["run", &file, "--until", "caught-up"], more].concat()).output().unwrap()
    }

    pub(crate) fn run(&self, sql: &[&str], more: &[&str]) -> String {
        let out = self.try_run(sql, more);
        assert!(out.status.success(), "{}", all_said(&out));
        all_said(&out)
    }

    /// What a run that must fail complains of.
    pub(crate) fn refused(&self, sql: &[&str]) -> String {
        let out = self.try_run(sql, &[]);
        assert!(!out.status.success(), "{}", all_said(&out));
        all_said(&out)
    }

    /// Starts a run that stays.
    pub(crate) fn start(&self, sql: &[&str], more: &[&str]) -> Child {
        let file = self.sql(sql);
        let mut run = self.command(&[&["run", &file], more].concat());
        run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rows of a query, as text, without the header.
    pub(crate) fn query(&self, sql: &str) -> Vec<String> {
        let out = self.command(&["query", sql, "--format", "csv"]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", all_said(&out));
        String::from_utf8(out.stdout).unwrap().lines().skip(1).map(str::to_string).collect()
    }
}

/// Kills a run that lives.
pub(crate) fn kill(mut run: Child) {
    let ended = run.try_wait().unwrap();
    run.kill().unwrap();
    let out = run.wait_with_output().unwrap();
    assert!(ended.is_none(), "it ended by itself: {}", all_said(&out));
}

#[test]
fn killed_while_rows_come_the_view_is_what_the_archive_gives() {
    let seed = seed(21);
    let mut dice = Dice::new(seed);
    let world = World::new();
    let sql = [RIDES, ARCHIVE, SECONDS];
    for _ in 0..6 {
        let run = world.start(&sql, &["--commit-interval", "40 ms"]);
        sleep(Duration::from_millis(350 + dice.below(400)));
        kill(run);
    }
    // All of it is written by now, or in three seconds.
    sleep(Duration::from_secs(3));
    let before = world.query("SELECT count(*) FROM archive")[0].parse::<u64>().unwrap();
    assert!((1..=ROWS).contains(&before), "seed {seed}: {before} rows were archived before the kills");
    world.run(&[RIDES, ARCHIVE], &[]);
    world.run(&[RIDES, SECONDS], &["--final"]);

    let facts =
        "SELECT count(*), count(DISTINCT id), max(id) + 1, count(DISTINCT _part * 1000000 + _offset) FROM archive";
    assert_eq!(world.query(facts), [format!("{ROWS},{ROWS},{ROWS},{ROWS}")], "seed {seed}");
    let expected = world.query(EXPECTED);
    assert!(expected.len() > 60, "{expected:?}");
    let found = world.query("SELECT window_start, city, rides, metres, last FROM seconds ORDER BY 1, 2");
    assert_eq!(found, expected, "seed {seed}");
    assert_eq!(world.query("SELECT count(*) FROM seconds_late"), ["0"], "seed {seed}");
}

#[test]
fn a_view_goes_on_where_the_archive_ends() {
    let world = World::new();
    // Long over, so that all of it is there at once.
    let past = ", generate.start = '2026-01-01');";
    let rides = RIDES.replace(");\n", past);
    let both = format!(
        "CREATE SOURCE all_rides (WATERMARK FOR at AS at - INTERVAL '5 seconds')
         WITH (lake = '${{DIR}}/archive', tail = 'generate://', {}",
        rides.split_once("'generate://', ").unwrap().1
    );
    let seconds = SECONDS.replace("rides,", "all_rides,").replace("AS all_rides,", "AS rides,");
    let half = rides.replace("generate.rows = 60000", "generate.rows = 30000");
    world.run(&[&half, ARCHIVE], &[]);
    assert_eq!(world.query("SELECT count(*), max(id) FROM archive"), ["30000,29999"]);
    let shown = world.run(&[&both, "EXPLAIN HANDOVER all_rides;"], &[]);
    assert!(
        shown.contains("part 2: archived up to 9999") && shown.contains("read from 10000 on, 10000 messages"),
        "{shown}"
    );
    let retention = world.command(&["retention", "all_rides", "--keeps", "6 hours"]).output().unwrap();
    let said = all_said(&retention);
    assert!(said.contains("part 0: offsets up to 9999 are in the table"), "{said}");

    world.run(&[&both, &seconds], &["--final"]);
    // The rest of the very same log; a source of other options is not that.
    let replaced = rides.replace("CREATE SOURCE", "CREATE OR REPLACE SOURCE");
    world.run(&[&replaced, ARCHIVE], &[]);
    assert_eq!(world.query("SELECT count(*), count(DISTINCT id), max(id) FROM archive"), ["60000,60000,59999"]);
    let found = world.query("SELECT window_start, city, rides, metres, last FROM seconds ORDER BY 1, 2");
    assert_eq!(found, world.query(EXPECTED));
    let other = replaced.replace("generate.keys = 20", "generate.keys = 21");
    let refused = world.refused(&[&other, ARCHIVE]);
    assert!(refused.contains("generate:// is not the log that was read before"), "{refused}");
}

#[test]
fn what_a_generated_log_cannot_be_is_refused() {
    let world = World::new();
    for (change, expected) in [
        (("'generate://',", "'generate://rides',"), "write it as generate://"),
        (("'generate://',", "'generate://', format = 'csv',"), "leave the format out"),
        (
            ("'generate://',", "'generate://', json.timestamp = 'ms',"),
            "`json.timestamp` is no option of tail = 'generate://'",
        ),
        (
            ("'generate://',", "'kafka://b:9092/t', format = 'json',"),
            "`generate.disorder` is no option of tail = 'kafka:",
        ),
        (("generate.keys = 20", "generate.key = 20"), "did you mean generate.keys?"),
        (("generate.keys = 20", "generate.keys = 0"), "generate.keys = '0': give a whole number"),
        (("km DOUBLE", "km BYTEA"), "column km is Binary, of which generate:// makes no values"),
        (("tail = ", "lake = '${DIR}/archive', tail = "), "say when the log began"),
    ] {
        let rides = RIDES.replace(change.0, change.1);
        assert_ne!(rides, RIDES, "{change:?}");
        fs::create_dir_all(world.dir.path().join("archive")).unwrap();
        let setup = "CREATE TABLE archive (id BIGINT, city VARCHAR, km DOUBLE, at TIMESTAMP, _part INT, _offset BIGINT)
            WITH (location = '${DIR}/archive');";
        let rides = if change.0 == "tail = " { format!("{setup}{}", without_columns(&rides)) } else { rides };
        let refused = world.refused(&[
            &rides.replace("CREATE SOURCE", "CREATE OR REPLACE SOURCE"),
            "CREATE VIEW v AS SELECT id FROM rides; EXPLAIN CREATE MATERIALIZED VIEW w AS SELECT id FROM v;",
        ]);
        assert!(refused.contains(expected), "{change:?}: {refused}");
        assert!(!refused.contains("fault in Watershed"), "{refused}");
    }
}

/// Columns are the table's where there is one.
fn without_columns(source: &str) -> String {
    let (head, rest) = source.split_once('(').unwrap();
    format!("{head}({}", &rest[rest.find("WATERMARK").unwrap()..])
}
