//! Late messages put the past right, once the archive of their log has them.

use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::world::{ARCHIVE, BOTH, DECLARED, HOUR, Ride, World, hours, with_late_ones};
use crate::campaign::{chaos, seed};
use crate::oracle::facts::Dice;

pub(super) fn both() -> String {
    BOTH.replace("'${DIR}/hourly')", "'${DIR}/hourly', late = 'repair')")
}

#[test]
fn late_messages_put_the_past_right_once_they_are_archived() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "repaired", 3);
    let all = with_late_ones(21, 0..12_000, 30);
    let both = both();
    world.produce(&all[..5_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &[]);
    world.produce(&all[5_000..9_000]);
    // The log has late ones, and the history does not yet: they are not lost, and the view is what it was.
    let said = world.run(&[DECLARED, &both], &[]);
    assert!(said.contains("wait until the history has all that was read"), "{said}");
    let before = world.hourly();
    assert_ne!(before, hours(&all[..9_000]).into_iter().filter(|(hour, _)| before.contains_key(hour)).collect());
    world.run(&[DECLARED, ARCHIVE], &[]);
    let said = world.run(&[DECLARED, &both], &[]);
    assert!(!said.contains("wait until"), "{said}");
    // All hours that are there are right; the late ones may even have brought rows that were not there.
    let last = before.keys().map(|(hour, _)| *hour).max().unwrap();
    let closed = |(hour, _): &(i64, String)| *hour <= last;
    let expected = hours(&all[..9_000]).into_iter().filter(|(key, _)| closed(key)).collect();
    assert_eq!(world.hourly(), expected);
    world.produce(&all[9_000..]);
    let refused = world.refused(&[DECLARED, &both], &["--final"]);
    assert!(refused.contains("bring the archive of their log up to date"), "{refused}");
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);
    assert_eq!(last % HOUR, 0);
}

#[test]
fn a_log_that_ends_with_what_cannot_be_read_is_archived_to_its_end() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "repaired_at_its_end", 1);
    let all = with_late_ones(23, 0..3_000, 30);
    let both = both();
    world.produce(&all[..2_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &[]);
    world.produce(&all[2_000..]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    broker.produce("repaired_at_its_end", [(0, None, Some(b"{".to_vec()), None)]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    let versions = || std::fs::read_dir(world.dir.path().join("rides/_delta_log")).unwrap().count();
    let before = versions();
    // Once more is nothing more.
    world.run(&[DECLARED, ARCHIVE], &[]);
    assert_eq!(versions(), before);
    world.run(&[DECLARED, &both], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn a_job_that_stays_puts_the_past_right_and_is_killed_at_it() {
    let Some(broker) = Broker::shared() else { return };
    let chaos = chaos();
    let rounds = (chaos / 33).max(1);
    let seed = seed(22);
    let mut dice = Dice::new(seed);
    let world = World::new(broker, "repaired_and_killed", 3);
    let all = with_late_ones(seed, 0..1_000 * (rounds + 1), 30);
    let (both, often, mut loaded) = (both(), ["--commit-interval", "20 ms"], vec![]);
    world.produce(&all[..1_000]);
    world.run(&[DECLARED, ARCHIVE], &often);
    for round in 1..=rounds as usize {
        let mut archive = world.start(&[DECLARED, ARCHIVE], &often);
        let mut view = world.start(&[DECLARED, &both], &often);
        for piece in all[1_000 * round..1_000 * (round + 1)].chunks(250) {
            world.produce(piece);
            thread::sleep(Duration::from_millis(dice.below(200)));
        }
        // Somebody else brings facts of any hour so far, past the log.
        if dice.below(2) == 0 {
            let count = 1 + dice.below(20);
            let facts: Vec<Ride> = (0..count).map(|_| all[dice.below(1_000 * round as u64) as usize]).collect();
            world.load(&facts);
            loaded.extend(facts);
        }
        thread::sleep(Duration::from_millis(dice.below(600)));
        for job in [&mut archive, &mut view] {
            let ended = job.try_wait().unwrap();
            assert!(ended.is_none(), "seed {seed}, round {round}: {ended:?}");
            job.kill().unwrap();
            job.wait().unwrap();
        }
    }
    world.run(&[DECLARED, ARCHIVE], &[]);
    // Once for what is read now, and once for what waited.
    world.run(&[DECLARED, &both], &[]);
    world.run(&[DECLARED, &both], &["--final"]);
    assert_eq!(world.hourly(), hours(all.iter().chain(&loaded)), "seed {seed}");
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0, "seed {seed}");
}
