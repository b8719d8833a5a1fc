//! The real binary over a folder of text files: rides drawn from a seed, written as JSON or CSV, packed or not, and what
//! DuckDB says of the very files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use chrono::DateTime;
use tempfile::TempDir;
use watershed_core::clock::mix;

use crate::binary::{all_said, watershed};

/// 2026-01-01T00:00:00Z, in seconds.
const EPOCH: i64 = 1_767_225_600;

/// How far rides come out of order, in seconds; the sources wait for more.
const DISORDER: u64 = 8 * 60;

pub(super) const COLUMNS: &str =
    "at TIMESTAMP, city VARCHAR, km BIGINT, note VARCHAR, WATERMARK FOR at AS at - INTERVAL '10 minutes'";

pub(super) const HOURLY: &str = "
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km, min(note) AS note
FROM TUMBLE(rides, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

/// A ride: when, in seconds since 1970, where, how far, and what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Ride {
    at: i64,
    city: u64,
    km: i64,
    note: String,
}

/// Rides number `from` to `to` of a seed, one about every `every` seconds, a little out of order.
pub(super) fn rides(seed: u64, range: std::ops::Range<u64>, every: u64) -> Vec<Ride> {
    const NOTES: [&str; 5] = ["plain", "a, b", "he said \"go\"", "two\nlines", "ümläut; 'x'"];
    let ride = |n: u64| {
        let drawn = mix(seed ^ mix(n));
        Ride {
            at: EPOCH + (n * every) as i64 + (drawn % DISORDER) as i64,
            city: (drawn >> 20) % 7,
            km: ((drawn >> 30) % 1000) as i64,
            note: NOTES[(drawn >> 40) as usize % NOTES.len()].to_string(),
        }
    };
    range.map(ride).collect()
}

impl Ride {
    fn time(&self) -> String {
        DateTime::from_timestamp(self.at, 0).unwrap().format("%Y-%m-%dT%H:%M:%S").to_string()
    }

    pub(super) fn day(&self) -> String {
        self.time()[..10].to_string()
    }

    fn json(&self) -> String {
        let note = serde_json::to_string(&self.note).unwrap();
        format!(
            "{{\"at\":\"{}\",\"city\":\"c{}\",\"more\":[1],\"km\":{},\"note\":{note}}}\n",
            self.time(),
            self.city,
            self.km
        )
    }

    /// With the columns in another order than they are declared in, and one more.
    fn csv(&self) -> String {
        let note = self.note.replace('"', "\"\"");
        format!("\"{note}\",{},x,{},c{}\r\n", self.km, self.time(), self.city)
    }
}

/// The rides as a JSON file.
pub(super) fn json(rides: &[Ride]) -> Vec<u8> {
    rides.iter().map(Ride::json).collect::<String>().into_bytes()
}

/// The rides as a CSV file.
pub(super) fn csv(rides: &[Ride]) -> Vec<u8> {
    let lines: String = rides.iter().map(Ride::csv).collect();
    format!("note,KM,more,at,city\r\n{lines}").into_bytes()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A folder of files, and a home.
pub(super) struct World {
    pub(super) dir: TempDir,
}

impl World {
    pub(super) fn new() -> Self {
        let world = World { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(world.dir.path().join("in")).unwrap();
        world
    }

    /// Puts a file in place, whole.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join("in").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let aside = path.with_file_name("_aside");
        fs::write(&aside, bytes).unwrap();
        fs::rename(aside, path).unwrap();
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        watershed(self.dir.path(), arguments)
    }

    fn file(&self, sql: &str) -> String {
        let file = self.dir.path().join(format!("{:x}.sql", sql.len()));
        fs::write(&file, sql).unwrap();
        file.display().to_string()
    }

    pub(super) fn try_run(&self, sql: &str, more: &[&str]) -> Output {
        let file = self.file(sql);
        self.command(&[&["run", &file], more].concat()).output().unwrap()
    }

    pub(super) fn run(&self, sql: &str, more: &[&str]) -> String {
        let out = self.try_run(sql, more);
        let said = all_said(&out);
        assert!(out.status.success(), "{said}");
        said
    }

    /// What a run that must fail complains of.
    pub(super) fn refused(&self, sql: &str, more: &[&str]) -> String {
        let out = self.try_run(sql, more);
        assert!(!out.status.success(), "{}", all_said(&out));
        all_said(&out)
    }

    /// Starts a run that stays.
    pub(super) fn start(&self, sql: &str, more: &[&str]) -> Child {
        let file = self.file(sql);
        self.command(&[&["run", &file], more].concat()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rows of a query as lines of CSV, sorted.
    pub(super) fn query(&self, sql: &str) -> Vec<String> {
        let out = self.command(&["query", sql, "--format", "csv"]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        let mut lines: Vec<String> =
            String::from_utf8(out.stdout).unwrap().lines().skip(1).map(str::to_string).collect();
        lines.sort();
        lines
    }

    /// The view, with its notes in hexadecimal, so that a row is a line.
    pub(super) fn hourly(&self) -> Vec<String> {
        self.query(
            "SELECT CAST(extract(epoch FROM window_start) AS BIGINT), city, rides, km, encode(CAST(note AS BYTEA), 'hex') \
             FROM hourly",
        )
    }

    /// The same by DuckDB, of what one of its functions reads.
    pub(super) fn by_duckdb(&self, read: &str) -> Option<Vec<String>> {
        let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
            println!("skipped: WATERSHED_PYTHON names no Python with duckdb (make test sets it up)");
            return None;
        };
        let program = r#"
import duckdb, sys
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'; SET threads = 1")
hours = db.execute(f"""SELECT epoch(date_trunc('hour', "at"))::BIGINT, city, count(*), sum(km)::BIGINT, min(note)
    FROM {sys.argv[1]} GROUP BY ALL""").fetchall()
for hour, city, rides, km, note in hours:
    print(hour, city, rides, km, note.encode().hex(), sep=',')
"#;
        let out = Command::new(python).current_dir(self.dir.path()).args(["-c", program, read]).output().unwrap();
        assert!(out.status.success(), "{read}: {}", String::from_utf8_lossy(&out.stderr));
        let mut lines: Vec<String> = String::from_utf8(out.stdout).unwrap().lines().map(str::to_string).collect();
        lines.sort();
        assert!(lines.len() > 20, "{read}: too few hours to show anything");
        Some(lines)
    }
}

/// What the view has to hold of these rides, as [`World::hourly`] gives it.
pub(super) fn hours<'a>(rides: impl IntoIterator<Item = &'a Ride>) -> Vec<String> {
    let mut hours: BTreeMap<(i64, u64), (u64, i64, String)> = BTreeMap::new();
    for ride in rides {
        let hour = hours.entry((ride.at.div_euclid(3600) * 3600, ride.city)).or_insert((0, 0, ride.note.clone()));
        *hour = (hour.0 + 1, hour.1 + ride.km, hour.2.clone().min(ride.note.clone()));
    }
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |((at, city), (rides, km, note)): ((i64, u64), (u64, i64, String))| {
        format!("{at},c{city},{rides},{km},{}", hex(&note))
    };
    let mut lines: Vec<String> = hours.into_iter().map(line).collect();
    lines.sort();
    lines
}

/// The kilometres of all of them.
pub(super) fn km(rides: &[Ride]) -> i64 {
    rides.iter().map(|ride| ride.km).sum()
}

impl Ride {
    /// A line of CSV without a header, in another dialect.
    pub(super) fn position(&self) -> String {
        format!("{};c{};{};|{}|\n", self.time(), self.city, self.km, self.note.replace('|', "||"))
    }
}

/// The hours that are complete when all of these were read: those that end before the newest, less ten minutes.
pub(super) fn complete(rides: &[Ride]) -> Vec<String> {
    let until = rides.iter().map(|ride| ride.at).max().unwrap() - 600;
    hours(rides.iter().filter(|ride| ride.at.div_euclid(3600) * 3600 + 3600 <= until))
}
