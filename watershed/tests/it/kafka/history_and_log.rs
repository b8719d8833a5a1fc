//! A log archived into a table, and both read as one stream: where one ends and the other begins is nobody's to say.

use super::broker::Broker;
use super::world::{ARCHIVE, BOTH, DECLARED, FOLLOWED, HOUR, Hours, LOG_ALONE, World, hours, rides, with_late_ones};
use crate::campaign::seed;
use crate::oracle::facts::Dice;

#[test]
fn an_archive_has_every_message_once() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "archived", 3);
    let all = rides(1, 0..9_000, 40);
    let mut sent = 0;
    for part in all.chunks(2_500) {
        world.produce(part);
        sent += part.len() as u64;
        world.run(&[DECLARED, ARCHIVE], &["--commit-interval", "50 ms"]);
        world.archived(sent);
    }
    let said = world.run(&[DECLARED, ARCHIVE], &[]);
    assert!(said.contains("nothing new"), "{said}");
    // Whoever makes the same archive anew goes on with it, and stops where it would be set back.
    world.produce(&rides(1, 9_000..9_500, 40));
    std::fs::remove_dir_all(world.dir.path().join("home")).unwrap();
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.archived(9_500);
    std::fs::remove_dir_all(world.dir.path().join("home")).unwrap();
    let other = ARCHIVE.replace("INTO rides", "INTO rides WITH (archive = 'other')");
    world.run(&[DECLARED, &other], &[]);
    assert_eq!(world.number("SELECT count(*) FROM rides"), 19_000);
    let unclear = world.refused(&[BOTH], &[]);
    assert!(unclear.contains("more than one archive") && unclear.contains("other, rides"), "{unclear}");
    // What a query sees of it is what was sent.
    let days = world.query("SELECT DISTINCT at_day FROM rides ORDER BY 1");
    assert_eq!(days.first().map(String::as_str), Some("2026-01-01"));
    assert_eq!(days.len(), 5, "{days:?}");
    let km: i64 = all.iter().map(|ride| ride.km).sum();
    let km = km + rides(1, 9_000..9_500, 40).iter().map(|ride| ride.km).sum::<i64>();
    assert_eq!(world.number("SELECT sum(km) FROM rides"), 2 * km);
}

#[test]
fn a_log_alone_is_a_history_too() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "replayed", 4);
    let all = rides(2, 0..8_000, 30);
    world.produce(&all);
    world.run(&[DECLARED, LOG_ALONE], &["--idle-timeout", "1 hour"]);
    // Of each part the newest ride, less ten minutes: what ends before is there.
    let until = (0..4).map(|part| all.iter().filter(|r| r.message(4).0 == part).map(|r| r.at).max().unwrap()).min();
    let until = until.unwrap() - 600;
    let expected = hours(&all).into_iter().filter(|((hour, _), _)| hour + HOUR <= until).collect();
    assert_eq!(world.hourly(), expected);
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);
    world.run(&[DECLARED, LOG_ALONE], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}

#[test]
fn history_and_log_are_one_stream() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "one_stream", 3);
    let all = rides(3, 0..12_000, 30);
    world.produce(&all[..5_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.produce(&all[5_000..8_000]);
    // Rows that are in the log and not yet in the lake; and the job goes on where it stood in the log.
    world.run(&[DECLARED, BOTH], &[]);
    world.produce(&all[8_000..10_000]);
    world.run(&[DECLARED, BOTH], &[]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.produce(&all[10_000..]);
    world.run(&[DECLARED, BOTH], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);
}

#[test]
fn a_log_that_has_forgotten_is_waited_for_or_refused() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "forgetful", 2);
    let all = rides(4, 0..6_000, 30);
    world.produce(&all[..3_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.produce(&all[3_000..5_000]);
    let ends = broker.ends("forgetful");
    broker.delete_records("forgetful", 0, ends[0].1 - 10);
    // Neither the lake nor the log has them.
    let archived = world.number("SELECT max(_offset) FROM rides WHERE _part = 0");
    let refused = world.refused(&[DECLARED, BOTH], &[]);
    let gap = format!("has forgotten offsets {} to {} of part 0", archived + 1, ends[0].1 - 11);
    assert!(refused.contains(&gap), "{gap}: {refused}");
    let refused = world.refused(&[DECLARED, ARCHIVE], &[]);
    assert!(refused.contains("has forgotten messages that were not read"), "{refused}");
}

#[test]
fn an_archive_that_went_on_closes_the_gap() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "closing", 2);
    let all = rides(5, 0..6_000, 30);
    world.produce(&all[..3_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    // The job reads the first version, slowly; meanwhile the archive goes on and the log forgets what it has.
    let job = world.start(&[DECLARED, BOTH], &["--throttle-rows", "1000", "--until", "caught-up"]);
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    world.produce(&all[3_000..5_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    for (part, (_, end)) in broker.ends("closing").into_iter().enumerate() {
        broker.delete_records("closing", part as i32, end);
    }
    world.produce(&all[5_000..]);
    let out = job.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    world.run(&[DECLARED, BOTH], &["--final"]);
    assert_eq!(world.hourly(), hours(&all), "{said}");
}

#[test]
fn the_handover_is_shown_before_and_what_may_be_forgotten_is_said() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "handed_over", 2);
    let all = rides(13, 0..2_000, 30);
    let at = |ride: &super::world::Ride| {
        let (part, key, payload, _) = ride.message(2);
        (part, key, payload, Some(1_700_000_000_000))
    };
    broker.produce("handed_over", all[..1_000].iter().map(at));
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[BOTH], &[]);
    broker.produce("handed_over", all[1_000..].iter().map(at));
    let archived = world.query("SELECT max(_offset) FROM rides GROUP BY _part ORDER BY _part");
    let ends: Vec<i64> = broker.ends("handed_over").into_iter().map(|(_, end)| end).collect();

    let said = world.run(&["EXPLAIN HANDOVER rides_and_log;"], &[]);
    assert!(said.contains("offsets are recorded as rides-PART"), "{said}");
    for part in 0..2 {
        let next = archived[part].parse::<i64>().unwrap() + 1;
        let line = format!("read from {next} on, {} messages behind the newest", ends[part] - next);
        assert!(said.contains(&line), "{line}: {said}");
    }

    let retention = |more: &[&str]| {
        let out = world.command(&[&["retention", "rides_and_log"], more].concat()).output().unwrap();
        (out.status.code(), crate::binary::all_said(&out))
    };
    let (code, said) = retention(&[]);
    assert!(code == Some(0) && said.contains(&format!("offsets up to {} are in the table", archived[0])), "{said}");
    // All messages are years old: a log that keeps them for a day is about to forget what is not archived.
    let (code, said) = retention(&["--keeps", "1 day"]);
    assert!(code == Some(4) && said.contains("ABOUT TO BE LOST"), "{code:?} {said}");
    world.run(&[DECLARED, ARCHIVE], &[]);
    let (code, said) = retention(&["--keeps", "1 day", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let told: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!(told["parts"]["1"]["archived"].as_i64(), Some(ends[1] - 1), "{told}");
    // Who forgets too much is told how much.
    broker.produce("handed_over", all[..100].iter().map(at));
    for (part, (_, end)) in broker.ends("handed_over").into_iter().enumerate() {
        broker.delete_records("handed_over", part as i32, end);
    }
    let (code, said) = retention(&[]);
    assert!(code == Some(4) && said.contains(&format!("LOST: {} to", ends[0])), "{said}");
}

#[test]
fn a_table_is_followed_commit_by_commit() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "followed", 2);
    let all = rides(14, 0..6_000, 30);
    world.produce(&all[..2_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    let mut job = world.start(&[DECLARED, FOLLOWED], &["--commit-interval", "100 ms"]);
    let mut sent = 2_000;
    for _ in 0..4 {
        // What is committed shows in the view while the job runs, up to the newest ride less ten minutes.
        let until = all[..sent].iter().map(|ride| ride.at).max().unwrap() - 600;
        let complete =
            || -> Hours { hours(&all[..sent]).into_iter().filter(|((hour, _), _)| hour + HOUR <= until).collect() };
        let patience = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            world.dir.path().join("hourly/_delta_log").exists() && world.hourly() == complete()
        });
        assert!(patience, "{sent}: {:?} are not {:?}", world.hourly().len(), complete().len());
        let more = (sent + 1_000).min(all.len());
        world.produce(&all[sent..more]);
        world.run(&[DECLARED, ARCHIVE], &[]);
        sent = more;
    }
    assert!(job.try_wait().unwrap().is_none());
    job.kill().unwrap();
    job.wait().unwrap();
    world.run(&[DECLARED, FOLLOWED], &["--final"]);
    assert_eq!(world.hourly(), hours(&all[..sent]));
}

/// However facts are divided between history and log, and wherever runs end: the view has all of them, less those that it
/// lists as late.
#[test]
fn divided_at_random_facts_are_counted_or_listed() {
    let Some(broker) = Broker::shared() else { return };
    let seed = seed(15);
    let mut late = 0;
    for case in 0..4 {
        let mut dice = Dice::new(seed.wrapping_mul(1_000) + case);
        let partitions = 1 + dice.below(4) as i32;
        println!("seed {seed}, case {case}, {partitions} partitions");
        let world = World::new(broker, &format!("divided_{case}"), partitions);
        let all = with_late_ones(seed + case, 0..3_000, 60);
        let mut sent = 0;
        while sent < all.len() {
            let next = (sent + 1 + dice.below(1_500) as usize).min(all.len());
            world.produce(&all[sent..next]);
            sent = next;
            let mut flags = vec![];
            if dice.chance(500) {
                flags.extend(["--parallelism", ["1", "2", "3"][dice.below(3) as usize]]);
            }
            if dice.chance(600) || sent <= 1_500 {
                world.run(&[DECLARED, ARCHIVE], &[]);
            }
            if dice.chance(600) {
                world.run(&[DECLARED, ARCHIVE, BOTH], &flags);
            }
        }
        world.run(&[DECLARED, ARCHIVE], &[]);
        world.archived(all.len() as u64);
        world.run(&[BOTH], &["--final"]);
        let listed = world.late();
        late += listed.len();
        let mut expected = hours(&all);
        for (hour, (rides, km)) in hours(&listed) {
            let whole = expected.get_mut(&hour).unwrap();
            *whole = (whole.0 - rides, whole.1 - km);
        }
        expected.retain(|_, (rides, _)| *rides > 0);
        assert_eq!(world.hourly(), expected, "seed {seed}, case {case}");
    }
    assert!(late > 0, "seed {seed}: nothing was late");
}
