//! Live load for as long as `WATERSHED_SOAK` says in seconds (in CI a few; `make soak`: half an hour): an archive, a view over
//! history and log that late facts put right, and a topic written exactly once, each killed again and again. In the end
//! nothing is lost, nothing is there twice, and memory was no more at the end than in the middle.

use std::process::Child;
use std::time::Duration;

use watershed_core::clock::{Clock, SystemClock};

use super::broker::Broker;
use super::repaired::both;
use super::sink::{RIDES, by, sent};
use super::world::{ARCHIVE, DECLARED, World, hours, with_late_ones};
use crate::campaign::{number, seed};
use crate::oracle::facts::Dice;

/// Messages a second, each of so many seconds of event time after the one before.
const RATE: u64 = 2_000;
const EVERY: u64 = 3;

/// Shorter runs tell nothing of memory.
const LONG: u64 = 300;

fn kilobytes(job: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn under_load_and_kills_nothing_is_lost_and_memory_stays() {
    let Some(broker) = Broker::shared() else { return };
    let (seconds, seed) = (number("WATERSHED_SOAK").unwrap_or(12), seed(31));
    let mut dice = Dice::new(seed);
    let world = World::new(broker, "soaked", 3);
    broker.create("soaked_rides", 3, &[]);
    let all = with_late_ones(seed, 0..RATE * seconds, EVERY);
    let (view, sink) = (both(), by("exactly once", RIDES));
    let jobs: [&[&str]; 3] = [&[DECLARED, ARCHIVE], &[DECLARED, &view], &[DECLARED, &sink]];
    let start = |job: &[&str]| world.start(job, &["--commit-interval", "500 ms"]);
    // History to begin with: a view of it asks for the record of an archive.
    world.produce(&all[..RATE as usize]);
    world.run(jobs[0], &[]);
    let mut running: Vec<Child> = jobs.iter().map(|job| start(job)).collect();
    let clock = SystemClock::default();
    let (began, mut memory, mut kills) = (clock.elapsed(), [vec![], vec![], vec![]], 0);
    for second in 1..seconds {
        for tenth in 0..10 {
            let at = (second * RATE + tenth * RATE / 10) as usize;
            world.produce(&all[at..at + (RATE / 10) as usize]);
            let due = Duration::from_millis((second - 1) * 1000 + (tenth + 1) * 100);
            std::thread::sleep(due.saturating_sub(clock.elapsed() - began));
        }
        for (of, job) in memory.iter_mut().zip(&running) {
            of.extend(kilobytes(job).map(|k| (second, k)));
        }
        // Each job lives for about half a minute, in CI for a few seconds.
        if dice.chance(if seconds >= LONG { 100 } else { 500 }) {
            let n = dice.below(3) as usize;
            let ended = running[n].try_wait().unwrap();
            assert!(ended.is_none(), "seed {seed}, second {second}: job {n} has ended: {ended:?}");
            running[n].kill().unwrap();
            running[n].wait().unwrap();
            running[n] = start(jobs[n]);
            kills += 1;
        }
    }
    for mut job in running {
        job.kill().unwrap();
        job.wait().unwrap();
    }
    println!("{} messages, {kills} kills", all.len());
    world.run(jobs[0], &[]);
    world.archived(all.len() as u64);
    world.run(jobs[1], &[]);
    world.run(jobs[1], &["--final"]);
    assert_eq!(world.hourly(), hours(&all), "seed {seed}");
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0, "seed {seed}");
    world.run(jobs[2], &["--final"]);
    let expected: Vec<_> = all.iter().filter(|ride| ride.km >= 500).map(|ride| (ride.n, ride.json())).collect();
    assert_eq!(sent(broker, "soaked_rides", 3), expected, "seed {seed}");
    for (name, of) in ["archive", "view", "sink"].iter().zip(memory) {
        let most = |from: u64, to: u64| {
            of.iter().filter(|(second, _)| (from..to).contains(second)).map(|(_, k)| *k).max().unwrap_or(0)
        };
        let thirds = [0, 1, 2].map(|n| most(seconds * n / 3, seconds * (n + 1) / 3) / 1024);
        println!("{name}: at most {thirds:?} MB in each third");
        assert!(seconds < LONG || thirds[2] <= thirds[1] * 5 / 4 + 16, "{name}: {thirds:?} MB");
    }
}
