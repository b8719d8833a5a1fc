//! Messages that cannot be read are played back once their source is mended, each of them once, whatever is killed when.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::broker::Broker;
use super::repaired::both;
use super::world::{FOLLOWED, HOUR, Ride, World, hours, rides};
use crate::binary::all_said;
use crate::campaign::{chaos, seed};
use crate::oracle::facts::Dice;
use watershed_core::clock::{Clock, SystemClock};

/// What no INT has room for.
const FAR: i64 = 3_000_000_000;

/// In which kilometres are too narrow, and where the key is asked for.
const NARROW: &str = "
CREATE OR REPLACE SOURCE log (
    at TIMESTAMP, city VARCHAR, km INT, n BIGINT, _part INT, _offset BIGINT, _key VARCHAR,
    WATERMARK FOR at AS at - INTERVAL '10 minutes'
) WITH (tail = '${TOPIC}', format = 'json');
";

const TABLE: &str = "
CREATE TABLE rides (at TIMESTAMP, city VARCHAR, km BIGINT, n BIGINT, _part INT, _offset BIGINT, k VARCHAR)
WITH (location = '${DIR}/rides', partition_by = 'day(at)');
";

const ARCHIVE: &str = "
INSERT INTO rides SELECT at, city, CAST(km AS BIGINT), n, _part, _offset, _key FROM log WHERE n >= 0;
";

const HOURLY: &str = "
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(CAST(km AS BIGINT)) AS km
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

fn mended() -> String {
    NARROW.replace("km INT", "km BIGINT")
}

/// Rides of which one in so many is a far one.
fn with_far_ones(seed: u64, range: std::ops::Range<u64>, every: u64) -> Vec<Ride> {
    let mut all = rides(seed, range, 30);
    all.iter_mut().filter(|ride| ride.n % every == 3).for_each(|ride| ride.km += FAR);
    all
}

fn far(rides: &[Ride]) -> usize {
    rides.iter().filter(|ride| ride.km >= FAR).count()
}

impl World<'_> {
    fn replay(&self, job: &str, more: &[&str]) -> Result<Value, String> {
        let out = self.command(&[&["replay", job, "--json"], more].concat()).output().unwrap();
        match out.status.success() {
            true => Ok(serde_json::from_slice(&out.stdout).unwrap()),
            false => Err(all_said(&out)),
        }
    }

    /// What was listed, and what of it could be read.
    fn counted(&self, job: &str, more: &[&str]) -> (u64, u64) {
        let said = self.replay(job, more).unwrap();
        (said["listed"].as_u64().unwrap(), said["readable"].as_u64().unwrap())
    }

    /// What `watershed jobs` says of a job.
    fn job(&self, name: &str) -> Value {
        let out = String::from_utf8(self.command(&["jobs", "--json"]).output().unwrap().stdout).unwrap();
        out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(|job| job["job"] == name).unwrap()
    }

    fn listed(&self, job: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {job}_late WHERE _reason = 'malformed'"))
    }

    /// The table has these rides, each as it was sent, and once.
    fn has(&self, rides: &[Ride]) {
        let sum: i64 = rides.iter().map(|ride| ride.km).sum();
        let n = rides.len();
        let sql = "SELECT count(*), count(DISTINCT n), count(DISTINCT _part * 1000000000 + _offset), \
                   count(*) FILTER (WHERE k = city), sum(km) FROM rides";
        assert_eq!(self.query(sql), [format!("{n},{n},{n},{n},{sum}")]);
    }
}

#[test]
fn messages_are_played_back_once_their_source_is_mended() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "played_back", 2);
    let all = with_far_ones(41, 0..3_000, 10);
    world.produce(&all[..2_000]);
    let hopeless: [&[u8]; 3] = [b"{\"at\":", b"\xff\xfe", b"[1]"];
    broker
        .produce("played_back", hopeless.iter().map(|text| (1, Some(b"k".to_vec()), Some(text.to_vec()), Some(1_000))));
    let followed = FOLLOWED.replace("'${DIR}/hourly')", "'${DIR}/hourly', late = 'repair')");
    world.run(&[NARROW, TABLE, ARCHIVE], &[]);
    world.run(&[&followed], &[]);
    let bad = far(&all[..2_000]) as u64;
    assert_eq!(world.listed("rides") as u64, bad + 3);

    // Nothing is better yet, and nothing changes.
    assert_eq!(world.counted("rides", &["--dry-run"]), (bad + 3, 0));
    assert_eq!(world.counted("rides", &[]), (bad + 3, 0));
    world.run(&[&mended()], &[]);
    let tried = world.replay("rides", &["--dry-run"]).unwrap();
    assert_eq!((&tried["listed"], &tried["readable"]), (&(bad + 3).into(), &bad.into()), "{tried}");
    assert_eq!(tried["malformed"].as_array().unwrap().len(), 3, "{tried}");
    assert_eq!(
        (world.number("SELECT count(*) FROM rides"), world.listed("rides") as u64),
        (2_000 - bad as i64, bad + 3)
    );

    let before = world.job("rides");
    let said = all_said(&world.command(&["replay", "rides"]).output().unwrap());
    assert!(
        said.contains(&format!("of {} messages that could not be read, {bad} were played back", bad + 3)),
        "{said}"
    );
    assert!(said.contains("3 still cannot be read") && said.contains("log, part 1, offset"), "{said}");
    world.has(&all[..2_000]);
    let left = world.query(
        "SELECT _partition, _source, length(encode(_payload, 'hex')) / 2, length(_error) > 5, _written_at, _key FROM rides_late",
    );
    let lengths = hopeless.map(|text| format!("1,log,{},true,1970-01-01T00:00:01Z,k", text.len()));
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(left), sorted(lengths.to_vec()));

    // What is counted as bad is what is listed; where the job stands in the log has not moved.
    let after = world.job("rides");
    assert_eq!((&after["counts"]["bad"], &after["counts"]["written"]), (&3.into(), &2_000.into()), "{after}");
    assert_eq!(after["counts"]["account"]["bad"], 3, "{after}");
    assert_eq!((&before["watermark"], &before["left"]), (&after["watermark"], &after["left"]));

    // Once more is nothing more, and the job goes on.
    assert_eq!(world.counted("rides", &[]), (3, 0));
    world.produce(&all[2_000..]);
    world.run(&[&mended(), TABLE, ARCHIVE], &[]);
    world.has(&all);
    assert_eq!(world.listed("rides"), 3);
    // For who follows the archive they are facts that were appended.
    world.run(&[&followed], &[]);
    world.run(&[&followed], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn what_is_played_back_into_the_archive_comes_to_views_behind_the_seam() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "replayed_behind_the_seam", 2);
    let all = with_far_ones(45, 0..2_000, 10);
    world.produce(&all);
    world.run(&[NARROW, TABLE, ARCHIVE], &[]);
    world.run(&[&both()], &[]);
    let read: Vec<Ride> = all.iter().copied().filter(|ride| ride.km < FAR).collect();
    world.holds(&read);
    world.run(&[&mended()], &[]);
    world.replay("rides", &[]).unwrap();
    world.run(&[&both()], &[]);
    world.holds(&all);
    world.run(&[&both()], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn what_is_played_back_is_not_read_again_behind_the_seam() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "replayed_before_the_seam", 2);
    let mut all = rides(46, 0..900, 30);
    all[700..].iter_mut().for_each(|ride| ride.km += FAR);
    world.produce(&all[..700]);
    world.run(&[NARROW, TABLE, ARCHIVE], &[]);
    // All that comes then cannot be read, and is archived nevertheless.
    world.produce(&all[700..]);
    world.run(&[NARROW, TABLE, ARCHIVE], &[]);
    assert_eq!(world.listed("rides"), 200);
    world.run(&[&mended()], &[]);
    world.replay("rides", &[]).unwrap();
    world.run(&[&both()], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn killed_in_the_middle_of_a_replay_each_message_is_there_once() {
    let Some(broker) = Broker::shared() else { return };
    let chaos = chaos();
    let rounds = (chaos / 20).max(2);
    let seed = seed(42);
    let mut dice = Dice::new(seed);
    let world = World::new(broker, "replayed_and_killed", 3);
    let all = with_far_ones(seed, 0..600 * rounds, 3);
    let mut longest = Duration::from_millis(400);
    let (mut cut_short, clock) = (0, SystemClock::default());
    for round in 0..rounds as usize {
        world.produce(&all[600 * round..600 * (round + 1)]);
        world.run(&[NARROW, TABLE, ARCHIVE], &[]);
        let sent = &all[..600 * (round + 1)];
        world.run(&[&mended()], &[]);
        for _ in 0..1 + dice.below(2) {
            let mut replay = world.command(&["replay", "rides"]).stdout(Stdio::null()).spawn().unwrap();
            thread::sleep(longest.mul_f64(dice.below(1_000) as f64 / 1_000.0));
            cut_short += u32::from(replay.try_wait().unwrap().is_none());
            replay.kill().unwrap();
            replay.wait().unwrap();
            if dice.chance(500) {
                // Who comes next finds out what is left of it.
                world.run(&[TABLE, ARCHIVE], &[]);
            }
        }
        if dice.chance(500) {
            let began = clock.elapsed();
            world.replay("rides", &[]).unwrap();
            assert_eq!(world.listed("rides"), 0, "seed {seed}, round {round}");
            world.has(sent);
            // Where a killed one was before, it is first asked whether it lives.
            let took = clock.elapsed().saturating_sub(began);
            longest = if took < Duration::from_secs(3) { took } else { longest };
        }
    }
    world.replay("rides", &[]).unwrap();
    world.run(&[TABLE, ARCHIVE], &[]);
    world.has(&all);
    assert_eq!(world.listed("rides"), 0, "seed {seed}");
    assert!(cut_short > 0, "seed {seed}: no replay was killed");
}

#[test]
fn windows_that_are_open_take_messages_back_and_others_refuse_them() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "replayed_windows", 1);
    // A ride every thirty seconds: half an hour of them, in one window that is open.
    let all = with_far_ones(43, 0..1_000, 10);
    world.produce(&all[..60]);
    world.run(&[NARROW, HOURLY], &[]);
    world.run(&[&mended()], &[]);
    assert_eq!(world.counted("hourly", &[]), (far(&all[..60]) as u64, far(&all[..60]) as u64));
    world.run(&[NARROW], &[]);
    world.produce(&all[60..]);
    world.run(&[NARROW, HOURLY], &[]);
    let listed = world.listed("hourly");
    assert_eq!(listed, far(&all[60..]) as i64);
    world.run(&[&mended()], &[]);
    let refused = world.replay("hourly", &[]).unwrap_err();
    assert!(refused.contains("windows that were emitted before") && refused.contains("CREATE OR REPLACE"), "{refused}");
    assert_eq!(world.listed("hourly"), listed);
    // What was open then has them all.
    let first = all.iter().map(|ride| ride.at.div_euclid(HOUR) * HOUR).min().unwrap();
    let of_first = |hours: super::world::Hours| -> super::world::Hours {
        hours.into_iter().filter(|((hour, _), _)| *hour == first).collect()
    };
    let read = all.iter().enumerate().filter(|(at, ride)| *at < 60 || ride.km < FAR).map(|(_, ride)| ride);
    assert_eq!(of_first(world.hourly()), of_first(hours(read)));
    // Built anew, it has all.
    let anew = HOURLY.replace("CREATE MATERIALIZED", "CREATE OR REPLACE MATERIALIZED");
    world.run(&[&anew], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn a_replay_that_would_come_out_wrong_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "replayed_not", 1);
    world.produce(&with_far_ones(44, 0..100, 10));
    let mut job = world.start(&[NARROW, TABLE, ARCHIVE], &["--commit-interval", "100 ms"]);
    let is_up = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(100));
        world.dir.path().join("home/tables/rides_late/_delta_log").exists()
    });
    assert!(is_up);
    let refused = world.replay("rides", &[]).unwrap_err();
    assert!(refused.contains("is being run") && refused.contains("watershed stop rides"), "{refused}");
    assert_eq!(world.counted("rides", &["--dry-run"]), (10, 0));
    assert!(job.try_wait().unwrap().is_none());
    job.kill().unwrap();
    job.wait().unwrap();

    world.run(
        &["CREATE TABLE latest (n BIGINT, km BIGINT, PRIMARY KEY (n));
           INSERT INTO latest SELECT n, CAST(km AS BIGINT) FROM log;"],
        &[],
    );
    let refused = world.replay("latest", &[]).unwrap_err();
    assert!(refused.contains("no sequence_by"), "{refused}");
    let refused = world.replay("first", &[]).unwrap_err();
    assert!(refused.contains("there is no job first; there are"), "{refused}");
}
