//! `kill -9` over an archive and a view that follows it, while messages come and the log forgets what is archived: in the
//! end nothing is lost and nothing is there twice. `make chaos` does it more often.

use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::world::{ARCHIVE, BOTH, DECLARED, World, hours, rides};
use crate::binary::all_said;
use crate::campaign::{chaos, seed};
use crate::oracle::facts::Dice;

/// Rounds of killing jobs.
pub(super) fn rounds() -> u64 {
    let chaos = chaos();
    (chaos / 25).max(1)
}

#[test]
fn killed_anywhere_nothing_is_lost_and_nothing_is_twice() {
    let Some(broker) = Broker::shared() else { return };
    let seed = seed(11);
    let mut dice = Dice::new(seed);
    let world = World::new(broker, "killed", 3);
    let all = rides(seed, 0..1_000 * (rounds() + 1), 30);
    let often = ["--commit-interval", "20 ms"];
    world.produce(&all[..1_000]);
    world.run(&[DECLARED, ARCHIVE], &often);
    for round in 1..=rounds() {
        let mut archive = world.start(&[DECLARED, ARCHIVE], &often);
        let mut view = world.start(&[DECLARED, BOTH], &often);
        for piece in all[1_000 * round as usize..1_000 * (round as usize + 1)].chunks(250) {
            world.produce(piece);
            thread::sleep(Duration::from_millis(dice.below(150)));
        }
        thread::sleep(Duration::from_millis(dice.below(300)));
        for job in [&mut archive, &mut view] {
            // Who ended by itself complained of something.
            let ended = job.try_wait().unwrap();
            assert!(ended.is_none(), "seed {seed}, round {round}: {ended:?}");
            job.kill().unwrap();
            job.wait().unwrap();
        }
        if dice.chance(500) {
            // What is archived need not be kept; the view is beyond it, or catches up from the lake.
            world.run(&[DECLARED, ARCHIVE], &often);
            world.run(&[DECLARED, BOTH], &often);
            let part = dice.below(3) as i32;
            let archived = world.number(&format!("SELECT max(_offset) FROM rides WHERE _part = {part}"));
            broker.delete_records("killed", part, archived);
        }
    }
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.archived(all.len() as u64);
    world.run(&[DECLARED, BOTH], &["--final"]);
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0, "seed {seed}");
    assert_eq!(world.hourly(), hours(&all), "seed {seed}");
}

#[test]
fn a_signal_ends_a_live_run_with_everything_committed() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "signalled", 2);
    let all = rides(16, 0..1_000, 30);
    world.produce(&all[..1_000]);
    for signal in ["-INT", "-TERM"] {
        // Commits only when it has to: what is read is committed because of the signal.
        let job = world.start(&[DECLARED, ARCHIVE], &["--commit-interval", "1 hour"]);
        thread::sleep(Duration::from_millis(2_500));
        let id = job.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
        let out = job.wait_with_output().unwrap();
        assert!(out.status.success(), "{signal}: {} {}", out.status, all_said(&out));
        world.archived(1_000);
    }
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.archived(1_000);
}

#[test]
fn a_broker_that_goes_away_is_waited_for() {
    let Some(mut broker) = Broker::start_own(&[]) else { return };
    broker.create("away", 2, &[]);
    let all = rides(12, 0..3_000, 30);
    let topic = "away".to_string();
    let dir = tempfile::tempdir().unwrap();
    let world = World { dir, broker: &broker, topic: topic.clone(), partitions: 2 };
    world.produce(&all[..1_500]);
    let job = world.start(&[DECLARED, ARCHIVE], &["--commit-interval", "50 ms"]);
    let World { dir, .. } = world;
    thread::sleep(Duration::from_millis(1_500));
    broker.kill();
    thread::sleep(Duration::from_millis(1_500));
    broker.start_again();
    let world = World { dir, broker: &broker, topic, partitions: 2 };
    world.produce(&all[1_500..]);
    let mut job = job;
    for _ in 0..300 {
        thread::sleep(Duration::from_millis(100));
        if world.number("SELECT count(*) FROM rides") == 3_000 {
            break;
        }
    }
    assert!(job.try_wait().unwrap().is_none(), "the job has ended");
    job.kill().unwrap();
    job.wait().unwrap();
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.archived(3_000);
}
