//! The real binary with its home, history and results in a bucket.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::server::Bucket;

pub(crate) const SQL: &str = "
CREATE SOURCE flights (WATERMARK FOR at AS at) WITH (lake = '${LAKE}');

CREATE MATERIALIZED VIEW delays AS
SELECT window_start, window_end, origin, count(*) AS flights, sum(delay) AS delay
FROM TUMBLE(flights, at, INTERVAL '1 hour')
GROUP BY window_start, window_end, origin;

CREATE MATERIALIZED VIEW late_ones WITH (location = '${LATE}') AS
SELECT at, origin, delay FROM flights WHERE delay > 20;
";

/// A working folder, and a bucket in which everything that lasts is.
pub(super) struct Cli<'a> {
    pub(super) dir: TempDir,
    pub(super) bucket: &'a Bucket<'a>,
}

impl<'a> Cli<'a> {
    pub(super) fn new(bucket: &'a Bucket<'a>) -> Self {
        let cli = Cli { dir: tempfile::tempdir().unwrap(), bucket };
        cli.write("flights.sql", SQL);
        cli
    }

    /// With flights of so many days loaded: two a day, and the second one late at odd days.
    pub(super) fn loaded(bucket: &'a Bucket<'a>, days: u32) -> Self {
        let cli = Cli::new(bucket);
        cli.write("flights.csv", &csv(1..=days));
        cli.ok(&["load", "flights.csv", "--into", &bucket.at("lake"), "--time-column", "at", "--partition-by", "day"]);
        cli
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// The binary with nothing of the tests' environment that it would heed, but for the server.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.envs(self.bucket.server.environment());
        command
    }

    /// The same, knowing no server.
    pub(super) fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATERSHED_") || name.starts_with("AWS_"))
        {
            command.env_remove(name);
        }
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            // There is none, and nobody is to look for it.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("LAKE", self.bucket.at("lake"))
            .env("LATE", self.bucket.at("late ones"))
            .env("WATERSHED_HOME", self.bucket.at("home"))
            .args(arguments);
        command
    }

    /// Standard output of a run that must succeed.
    pub(super) fn ok(&self, arguments: &[&str]) -> String {
        succeeded(self.command(arguments).output().unwrap(), arguments)
    }

    pub(super) fn csv(&self, sql: &str) -> Vec<String> {
        self.ok(&["query", sql, "--format", "csv"]).lines().skip(1).map(str::to_string).collect()
    }
}

pub(crate) fn succeeded(out: Output, what: &[&str]) -> String {
    let (said, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{what:?}\n{said}\n{complained}");
    said.into_owned()
}

/// Standard error of a run that must end with this code.
pub(super) fn failed(out: Output, code: i32) -> String {
    let complained = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{}\n{complained}", String::from_utf8_lossy(&out.stdout));
    complained
}

/// Flights of days of January 2001, and then of whatever follows.
pub(crate) fn csv(days: impl Iterator<Item = u32>) -> String {
    let mut text = "at,origin,delay\n".to_string();
    for day in days {
        let (month, of_month) = (1 + (day - 1) / 28, 1 + (day - 1) % 28);
        let date = format!("2001-{month:02}-{of_month:02}");
        text.push_str(&format!("{date}T08:10:00,OSL,5\n{date}T08:40:00,OSL,{}\n", 20 + day % 2));
    }
    text
}
