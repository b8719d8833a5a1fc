//! A table whose writer recorded no offsets, and its log: the two are joined by event time, and what both have is known by a key.

use std::fs;
use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::world::{Hours, Ride, World, hours, rides};
use crate::binary::all_said;
use crate::campaign::seed;
use crate::oracle::facts::Dice;

const JOINED: &str = "
CREATE SOURCE joined (WATERMARK FOR at AS at - INTERVAL '10 minutes')
WITH (lake = '${DIR}/foreign', tail = '${TOPIC}', format = 'json', key = 'n');
";

const VIEW: &str = "
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(joined, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

const EVERY: &str = "
CREATE TABLE every (at TIMESTAMP, city VARCHAR, km BIGINT, n BIGINT);
INSERT INTO every SELECT at, city, km, n FROM joined;
";

/// A world whose table has the rides up to the last of these, and of its last forty minutes only some.
fn world<'a>(broker: &'a Broker, topic: &str, dice: &mut Dice, all: &[Ride]) -> World<'a> {
    let world = World::new(broker, topic, 2);
    let newest = all[all.len() - 1].at;
    let has = |ride: &&Ride| ride.at < newest - 2400 || (ride.at <= newest && dice.chance(500));
    let line = |ride: &Ride| {
        let at = chrono::DateTime::from_timestamp(ride.at, 0).unwrap().format("%Y-%m-%dT%H:%M:%S");
        format!("{at},c{},{},{}\n", ride.city, ride.km, ride.n)
    };
    let lines: String = all.iter().filter(has).map(line).collect();
    fs::write(world.dir.path().join("rides.csv"), format!("at,city,km,n\n{lines}")).unwrap();
    let load = ["load", "rides.csv", "--into", "foreign", "--time-column", "at", "--partition-by", "day"];
    let out = world.command(&load).output().unwrap();
    assert!(out.status.success(), "{}", all_said(&out));
    world
}

/// Messages that were written a little after the rides.
fn log(world: &World<'_>, rides: &[Ride]) {
    let message = |ride: &Ride| {
        let (part, key, payload, _) = ride.message(2);
        (part, key, payload, Some(ride.at * 1000 + (ride.n % 7) as i64 * 100))
    };
    world.broker.produce(&world.topic, rides.iter().map(message));
}

fn every(world: &World<'_>) -> Vec<String> {
    world.query("SELECT count(*), count(DISTINCT n) FROM every")
}

#[test]
fn facts_of_both_are_told_by_their_keys() {
    let Some(broker) = Broker::shared() else { return };
    let seed = seed(61);
    for case in 0..2 {
        println!("seed {seed}, case {case}");
        let mut dice = Dice::new(seed + case);
        let all = rides(seed + case, 0..3_000, 30);
        let world = world(broker, &format!("by_time_{case}"), &mut dice, &all[..1_500]);
        // The log has forgotten some hours, and is written on while jobs go from the one to the other: while it has less than the
        // table, just as much, and more.
        let forgotten = 120 * dice.below(8) as usize;
        let mut sent = 1_300 + dice.below(150) as usize;
        log(&world, &all[forgotten..sent]);
        while sent < all.len() {
            let mut job = world.start(&[JOINED, VIEW], &["--commit-interval", "20 ms"]);
            thread::sleep(Duration::from_millis(dice.below(800)));
            for _ in 0..dice.below(20) {
                let next = (sent + 1 + dice.below(20) as usize).min(all.len());
                log(&world, &all[sent..next]);
                sent = next;
                thread::sleep(Duration::from_millis(dice.below(60)));
            }
            assert!(job.try_wait().unwrap().is_none(), "seed {seed}, case {case}: it ended by itself");
            job.kill().unwrap();
            job.wait().unwrap();
        }
        world.run(&[JOINED, VIEW], &["--final"]);
        let found: Hours = world.hourly();
        assert_eq!(found, hours(&all), "seed {seed}, case {case}");
        assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0, "seed {seed}, case {case}");
        // Without windows there is nothing that would tell a fact which comes twice.
        world.run(&[JOINED, EVERY], &["--commit-interval", "0 s"]);
        assert_eq!(every(&world), ["3000,3000"], "seed {seed}, case {case}");
    }
}

#[test]
fn a_log_that_does_not_reach_back_into_the_table_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let all = rides(63, 0..1_000, 30);
    let world = world(broker, "by_time_refused", &mut Dice::new(63), &all[..600]);
    log(&world, &all);
    let said = world.run(&[JOINED, "EXPLAIN HANDOVER joined;"], &[]);
    assert!(said.contains("joined by event time") && said.contains("known by n. This is weaker"), "{said}");
    let said = world.run(&[JOINED, "EXPLAIN", VIEW], &[]);
    assert!(
        said.contains("by event time and the key n, which is weaker") && said.contains("late facts: kept"),
        "{said}"
    );
    for (part, (_, end)) in broker.ends("by_time_refused").into_iter().enumerate() {
        broker.delete_records("by_time_refused", part as i32, end - 10);
    }
    let said = world.refused(&[JOINED, VIEW], &[]);
    assert!(said.contains("nothing shows that no fact is missing between the two"), "{said}");
    let other = JOINED.replace("CREATE", "CREATE OR REPLACE").replace("key = 'n'", "key = 'm'");
    let said = world.refused(&[&other, VIEW], &[]);
    assert!(said.contains("there is no column m, but at, city, km, n"), "{said}");
}
