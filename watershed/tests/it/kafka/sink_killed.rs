//! `kill -9` of a job that writes to topics, while its source grows: what is there at the end, by delivery; and two runners of
//! one job.

use std::collections::BTreeMap;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use watershed_core::clock::mix;

use super::broker::Broker;
use super::sink::{HOURS, RIDES, by, sent, windows};
use super::world::{DECLARED, Hours, Ride, World, hours, rides};

/// Rides that come while a job runs.
const EVERY: Duration = Duration::from_millis(10);

/// Hour and city, rides and kilometres.
type Window = ((i64, String), (i64, i64));

struct Killed<'a> {
    world: World<'a>,
    sql: Vec<String>,
    all: Vec<Ride>,
    produced: usize,
}

impl<'a> Killed<'a> {
    fn new(broker: &'a Broker, topic: &str, delivery: &str, seed: u64) -> Self {
        let world = World::new(broker, topic, 2);
        broker.create(&format!("{topic}_hours"), 3, &[]);
        broker.create(&format!("{topic}_rides"), 3, &[]);
        let sql = vec![DECLARED.to_string(), by(delivery, RIDES), by(delivery, HOURS)];
        Killed { world, sql, all: rides(seed, 0..20_000, 30), produced: 0 }
    }

    fn start(&self) -> Child {
        let sql: Vec<&str> = self.sql.iter().map(String::as_str).collect();
        self.world.start(&sql, &["--commit-interval", "30 ms"])
    }

    fn produce(&mut self) {
        let next = (self.produced + 40).min(self.all.len());
        self.world.produce(&self.all[self.produced..next]);
        self.produced = next;
        sleep(EVERY);
    }

    /// Starts and kills so often.
    fn kill(&mut self, times: u64, seed: u64) {
        for n in 0..times {
            let mut job = self.start();
            let until = 8 + mix(seed ^ mix(n)) % 30;
            (0..until).for_each(|_| self.produce());
            job.kill().unwrap();
            let out = job.wait_with_output().unwrap();
            assert_eq!(out.status.code(), None, "{}", String::from_utf8_lossy(&out.stderr));
        }
    }

    /// Lets it come to the end; the windows and the rides that are there then.
    fn end(&self) -> (Vec<Window>, Vec<(u64, String)>) {
        let sql: Vec<&str> = self.sql.iter().map(String::as_str).collect();
        self.world.run(&sql, &["--final"]);
        let topic = &self.world.topic;
        let broker = self.world.broker;
        (windows(broker, &format!("{topic}_hours"), 3), sent(broker, &format!("{topic}_rides"), 3))
    }

    fn expected(&self) -> (Hours, Vec<(u64, String)>) {
        let all = &self.all[..self.produced];
        let farther = all.iter().filter(|ride| ride.km >= 500).map(|ride| (ride.n, ride.json())).collect();
        (hours(all), farther)
    }
}

#[test]
fn exactly_once_is_that_however_often_it_is_killed() {
    let Some(broker) = Broker::shared() else { return };
    let mut killed = Killed::new(broker, "once", "exactly once", 41);
    killed.kill(12, 41);
    let (windows, rides) = killed.end();
    let (hours, expected) = killed.expected();
    assert_eq!(windows.len(), hours.len(), "every window once");
    assert_eq!(windows.into_iter().collect::<Hours>(), hours);
    assert_eq!(rides, expected);
    let written: i64 = ["once_hours", "once_rides"].iter().flat_map(|t| broker.ends(t)).map(|(_, end)| end).sum();
    println!("{written} offsets for {} messages", hours.len() + expected.len());
}

#[test]
fn at_least_once_loses_nothing_however_often_it_is_killed() {
    let Some(broker) = Broker::shared() else { return };
    let mut killed = Killed::new(broker, "least", "at least once", 42);
    killed.kill(6, 42);
    let (windows, mut rides) = killed.end();
    let (hours, expected) = killed.expected();
    println!("{} windows came twice, {} rides", windows.len() - hours.len(), rides.len() - expected.len());
    // In the order of the log: the last of each key counts.
    assert_eq!(windows.into_iter().collect::<BTreeMap<_, _>>(), hours);
    rides.dedup();
    assert_eq!(rides, expected);
}

#[test]
fn of_two_runners_one_is_fenced() {
    two_runners("two_runners", true);
}

#[test]
fn of_two_that_make_a_job_at_the_same_moment_one_is_told() {
    two_runners("two_makers", false);
}

/// Two runners of a job, that is there before or is made by them.
fn two_runners(topic: &str, is_there: bool) {
    let Some(broker) = Broker::shared() else { return };
    let mut killed = Killed::new(broker, topic, "exactly once", 43);
    // One job: of two, each runner could have one.
    killed.sql.pop();
    // Enough for a slow machine: who has nothing to commit notices nothing.
    killed.all = rides(43, 0..200_000, 30);
    if is_there {
        killed.produce();
        let sql: Vec<&str> = killed.sql.iter().map(String::as_str).collect();
        killed.world.run(&sql, &[]);
    }
    let mut runners = [killed.start(), killed.start()];
    let mut tries = 0;
    while runners.iter_mut().all(|runner| runner.try_wait().unwrap().is_none()) {
        killed.produce();
        tries += 1;
        assert!(tries < 5_000, "neither noticed the other");
    }
    let mut fenced = 0;
    for mut runner in runners {
        let _ = runner.kill();
        let out = runner.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        match out.status.code() {
            Some(5) => {
                fenced += 1;
                assert!(said.contains("another runner took over job"), "{said}");
            }
            None => {}
            code => panic!("{code:?}: {said}"),
        }
    }
    assert!(fenced > 0);
    (0..20).for_each(|_| killed.produce());
    let (_, rides) = killed.end();
    assert_eq!(rides, killed.expected().1);
}
