//! What others do to the table of a source that has come to its log.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::repaired::both;
use super::world::{ARCHIVE, DECLARED, HOUR, Hours, Ride, World, hours, rides};
use crate::binary::all_said;
use watershed_core::clock::{Clock, SystemClock};

/// Rides that somebody loads into the table, past the log: one in `every` of these, an hour and a half earlier or not.
fn loaded(of: &[Ride], every: usize, earlier: bool) -> Vec<Ride> {
    let shift = if earlier { 3 * HOUR / 2 } else { 0 };
    of.iter().step_by(every).map(|r| Ride { at: r.at - shift, km: r.km + 1, ..*r }).collect()
}

impl World<'_> {
    /// Loads rides into the table as others do.
    pub(super) fn load(&self, rides: &[Ride]) {
        let file = self.dir.path().join(format!("{}-{}.ndjson", rides[0].n, rides.len()));
        fs::write(&file, rides.iter().map(|ride| ride.json() + "\n").collect::<String>()).unwrap();
        let table = self.dir.path().join("rides");
        let out = self.command(&["load", &file.display().to_string(), "--into", &table.display().to_string()]).output();
        let out = out.unwrap();
        assert!(out.status.success(), "{}", all_said(&out));
    }

    /// Has deltalake do something with the table.
    fn change(&self, python: &str, what: &str) {
        let table = self.dir.path().join("rides").display().to_string();
        let script = format!("from deltalake import DeltaTable\nt = DeltaTable({table:?})\n{what}");
        let out = Command::new(python).args(["-c", &script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}", all_said(&out));
    }

    fn versions_of_result(&self) -> usize {
        let log = fs::read_dir(self.dir.path().join("hourly/_delta_log")).unwrap();
        log.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "json")).count()
    }

    /// The view has all hours that have ended as these rides have them; which is the last of them.
    pub(super) fn holds(&self, all: &[Ride]) -> i64 {
        let found = self.hourly();
        let last = found.keys().map(|(hour, _)| *hour).max().unwrap();
        let expected: Hours = hours(all).into_iter().filter(|((hour, _), _)| *hour <= last).collect();
        assert_eq!(found, expected);
        last
    }
}

#[test]
fn what_others_change_behind_the_seam_is_put_right() {
    let Some(broker) = Broker::shared() else { return };
    let Ok(python) = std::env::var("WATERSHED_PYTHON") else {
        println!("skipped: WATERSHED_PYTHON names no Python with deltalake");
        return;
    };
    let world = World::new(broker, "changed_behind_the_seam", 3);
    let log = rides(31, 0..9_000, 30);
    let both = both();
    world.produce(&log[..5_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &[]);
    world.holds(&log[..5_000]);

    // Loaded into hours that are closed, and into those that are not.
    let mut all = log[..5_000].to_vec();
    for facts in [loaded(&log[200..3_000], 40, true), loaded(&log[4_900..5_000], 5, false)] {
        world.load(&facts);
        all.extend(facts);
    }
    world.run(&[DECLARED, &both], &[]);
    let last = world.holds(&all);
    world.produce(&log[5_000..7_000]);
    all.extend(&log[5_000..7_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &[]);
    assert!(world.holds(&all) > last);
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);

    // What changes no fact changes nothing.
    let versions = world.versions_of_result();
    world.change(&python, "print(t.optimize.compact())");
    world.run(&[DECLARED, &both], &[]);
    assert_eq!(world.versions_of_result(), versions);

    // Facts that go stop the job, unless it is to put them right.
    world.change(&python, "print(t.delete(\"city = 'c3' AND km < 300\"))");
    all.retain(|ride| ride.city != 3 || ride.km >= 300);
    let refused = world.refused(&[DECLARED, &both], &[]);
    assert!(refused.contains("facts that were read are gone") && refused.contains("on_change"), "{refused}");
    world.run(&[DECLARED, &both], &["--on-change", "repair"]);
    world.holds(&all);
    world.change(&python, "print(t.update(updates={'km': 'km + 7'}, predicate=\"city = 'c5'\"))");
    all.iter_mut().filter(|ride| ride.city == 5).for_each(|ride| ride.km += 7);
    world.run(&[DECLARED, &both], &["--on-change", "repair"]);
    world.holds(&all);

    // And what was open then is right when it has ended.
    world.produce(&log[7_000..]);
    all.extend(&log[7_000..]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    world.run(&[DECLARED, &both], &["--final", "--on-change", "repair"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.number("SELECT count(*) FROM hourly_late"), 0);
}

#[test]
fn a_job_that_stays_sees_what_others_load() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "loaded_behind_the_seam", 2);
    let (log, both, often) = (rides(32, 0..2_000, 30), both(), ["--commit-interval", "50 ms"]);
    world.produce(&log);
    world.run(&[DECLARED, ARCHIVE], &[]);
    let mut view = world.start(&[DECLARED, &both], &often);
    let mut all = log.clone();
    for piece in 0..3 {
        let facts = loaded(&log[400 * piece..400 * (piece + 1)], 20, false);
        world.load(&facts);
        all.extend(facts);
        let clock = SystemClock::default();
        loop {
            let found = if world.dir.path().join("hourly/_delta_log").exists() { world.hourly() } else { Hours::new() };
            let last = found.keys().map(|(hour, _)| *hour).max().unwrap_or(0);
            let expected: Hours = hours(&all).into_iter().filter(|((hour, _), _)| *hour <= last).collect();
            if !found.is_empty() && found == expected {
                break;
            }
            assert_eq!(view.try_wait().unwrap(), None);
            assert!(clock.elapsed() < Duration::from_secs(60), "what was loaded is not in the view");
            thread::sleep(Duration::from_millis(100));
        }
    }
    view.kill().unwrap();
    view.wait().unwrap();
    world.run(&[DECLARED, &both], &["--final"]);
    assert_eq!(world.hourly(), hours(&all));
}
