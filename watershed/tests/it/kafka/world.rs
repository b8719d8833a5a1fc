//! The real binary over a topic of the real broker: rides drawn from a seed, what is expected of them, and what came.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Output, Stdio};

use chrono::{DateTime, SecondsFormat};
use tempfile::TempDir;
use watershed_core::clock::mix;

use super::broker::Broker;
use crate::binary::{all_said, watershed};

/// 2026-01-01T00:00:00Z, in seconds.
const EPOCH: i64 = 1_767_225_600;

/// How far rides come out of order, in seconds; the sources wait for more.
const DISORDER: u64 = 8 * 60;

pub(super) const HOUR: i64 = 3600;

/// What is declared of the topic `${TOPIC}`, the table `rides` that archives it, and both as one source.
pub(super) const DECLARED: &str = "
CREATE SOURCE log (
    at TIMESTAMP, city VARCHAR, km BIGINT, n BIGINT, _part INT, _offset BIGINT,
    WATERMARK FOR at AS at - INTERVAL '10 minutes'
) WITH (tail = '${TOPIC}', format = 'json');
CREATE TABLE rides (at TIMESTAMP, city VARCHAR, km BIGINT, n BIGINT, _part INT, _offset BIGINT)
WITH (location = '${DIR}/rides', partition_by = 'day(at)');
";

pub(super) const ARCHIVE: &str = "INSERT INTO rides SELECT at, city, km, n, _part, _offset FROM log;";

pub(super) const BOTH: &str = "
CREATE SOURCE rides_and_log (WATERMARK FOR at AS at - INTERVAL '10 minutes')
WITH (lake = '${DIR}/rides', tail = '${TOPIC}', format = 'json');
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(rides_and_log, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

pub(super) const FOLLOWED: &str = "
CREATE SOURCE rides_followed (WATERMARK FOR at AS at - INTERVAL '10 minutes')
WITH (lake = '${DIR}/rides', tail = 'commits');
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(rides_followed, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

pub(super) const LOG_ALONE: &str = "
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

/// A ride: when, in seconds since 1970, where, and how far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ride {
    pub(super) at: i64,
    pub(super) city: u64,
    pub(super) km: i64,
    pub(super) n: u64,
}

/// A message to be written, as the broker takes it: partition, key, payload, time.
type Message = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>);

/// Rides number `from` to `to` of a seed, one about every `every` seconds, a little out of order.
pub(super) fn rides(seed: u64, range: std::ops::Range<u64>, every: u64) -> Vec<Ride> {
    let ride = |n: u64| {
        let drawn = mix(seed ^ mix(n));
        let at = EPOCH + (n * every) as i64 + (drawn % DISORDER) as i64;
        Ride { at, city: (drawn >> 20) % 7, km: ((drawn >> 30) % 1000) as i64, n }
    };
    range.map(ride).collect()
}

impl Ride {
    pub(super) fn json(&self) -> String {
        let at = DateTime::from_timestamp(self.at, 0).unwrap().to_rfc3339_opts(SecondsFormat::Secs, true);
        format!(r#"{{"at":"{at}","city":"c{}","km":{},"n":{}}}"#, self.city, self.km, self.n)
    }

    /// As a message of one of so many partitions.
    pub(super) fn message(&self, partitions: i32) -> Message {
        let partition = (mix(self.n) % partitions as u64) as i32;
        (partition, Some(format!("c{}", self.city).into_bytes()), Some(self.json().into_bytes()), None)
    }
}

/// The same, but that one in twenty comes up to five hours late.
pub(super) fn with_late_ones(seed: u64, range: std::ops::Range<u64>, every: u64) -> Vec<Ride> {
    let mut all = rides(seed, range, every);
    for ride in &mut all {
        let drawn = mix(seed ^ mix(ride.n) ^ 0x1a7e);
        if drawn.is_multiple_of(20) {
            ride.at = (ride.at - (drawn >> 8) as i64 % (5 * HOUR)).max(EPOCH);
        }
    }
    all
}

/// Rides and kilometres by hour and city.
pub(super) type Hours = BTreeMap<(i64, String), (i64, i64)>;

pub(super) fn hours<'a>(rides: impl IntoIterator<Item = &'a Ride>) -> Hours {
    let mut hours = Hours::new();
    for ride in rides {
        let hour = hours.entry((ride.at.div_euclid(HOUR) * HOUR, format!("c{}", ride.city))).or_default();
        *hour = (hour.0 + 1, hour.1 + ride.km);
    }
    hours
}

/// A topic and a working folder.
pub(super) struct World<'a> {
    pub(super) dir: TempDir,
    pub(super) broker: &'a Broker,
    pub(super) topic: String,
    pub(super) partitions: i32,
}

impl<'a> World<'a> {
    pub(super) fn new(broker: &'a Broker, topic: &str, partitions: i32) -> Self {
        broker.create(topic, partitions, &[]);
        World { dir: tempfile::tempdir().unwrap(), broker, topic: topic.to_string(), partitions }
    }

    pub(super) fn produce(&self, rides: &[Ride]) {
        self.broker.produce(&self.topic, rides.iter().map(|ride| ride.message(self.partitions)));
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = watershed(self.dir.path(), arguments);
        command.env("TOPIC", format!("kafka://{}/{}", self.broker.address(), self.topic));
        command
    }

    pub(super) fn sql(&self, parts: &[&str]) -> String {
        let file = self.dir.path().join(format!("{:x}.sql", mix(parts.concat().len() as u64)));
        fs::write(&file, parts.concat()).unwrap();
        file.display().to_string()
    }

    pub(super) fn try_run(&self, sql: &[&str], more: &[&str]) -> Output {
        let file = self.sql(sql);
        self.command(&[&["run", &file], more].concat()).output().unwrap()
    }

    /// Runs statements as far as the log goes.
    pub(super) fn run(&self, sql: &[&str], more: &[&str]) -> String {
        let out = self.try_run(sql, &[&["--until", "caught-up"], more].concat());
        let said = all_said(&out);
        assert!(out.status.success(), "{said}");
        said
    }

    /// What a run that must fail complains of.
    pub(super) fn refused(&self, sql: &[&str], more: &[&str]) -> String {
        let out = self.try_run(sql, &[&["--until", "caught-up"], more].concat());
        assert!(!out.status.success(), "{}", all_said(&out));
        all_said(&out)
    }

    /// Starts a run that stays.
    pub(super) fn start(&self, sql: &[&str], more: &[&str]) -> Child {
        let file = self.sql(sql);
        self.command(&[&["run", &file], more].concat()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The rows of a query, as text, without the header.
    pub(super) fn query(&self, sql: &str) -> Vec<String> {
        let out = self.command(&["query", sql, "--format", "csv"]).output().unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().lines().skip(1).map(str::to_string).collect()
    }

    pub(super) fn number(&self, sql: &str) -> i64 {
        self.query(sql)[0].parse().unwrap()
    }

    /// What the view has.
    pub(super) fn hourly(&self) -> Hours {
        let sql = "SELECT CAST(extract(epoch FROM window_start) AS BIGINT), city, rides, km FROM hourly";
        let mut hours = Hours::new();
        for line in self.query(sql) {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |i: usize| fields[i].parse::<i64>().unwrap();
            let before = hours.insert((number(0), fields[1].to_string()), (number(2), number(3)));
            assert_eq!(before, None, "{line} is there twice");
        }
        hours
    }

    /// The rides that the view lists as late. Which ones are depends on how they came; that they are listed does not.
    pub(super) fn late(&self) -> Vec<Ride> {
        let sql = "SELECT CAST(extract(epoch FROM at) AS BIGINT), city, km FROM hourly_late WHERE _reason = 'late'";
        let ride = |line: String| {
            let fields: Vec<&str> = line.split(',').collect();
            let city = fields[1].trim_start_matches('c').parse().unwrap();
            Ride { at: fields[0].parse().unwrap(), city, km: fields[2].parse().unwrap(), n: 0 }
        };
        self.query(sql).into_iter().map(ride).collect()
    }

    /// The archive has every message of the topic, once.
    pub(super) fn archived(&self, messages: u64) {
        let sql = "SELECT count(*), count(DISTINCT n), count(DISTINCT _part * 1000000000 + _offset) FROM rides";
        assert_eq!(self.query(sql), [format!("{messages},{messages},{messages}")]);
    }
}
