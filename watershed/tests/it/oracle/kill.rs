//! `kill -9` in a loop over the real binary: whatever it was doing, the next run goes on, and nothing is lost or twice.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::campaign::chaos;
use watershed_lake::Stores;

use super::check::{Case, World, compare, once, variants};
use super::facts::{Dice, Facts, Shape};

fn kills_wanted() -> u64 {
    let chaos = chaos();
    chaos / 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_of_kill_9() {
    let wanted = kills_wanted();
    let (mut kills, mut seed) = (0, 7_000);
    while kills < wanted {
        kills += one_backfill(seed, wanted - kills).await;
        seed += 1;
    }
    println!("{kills} kills -9 over {} backfills", seed - 7_000);
}

/// Kills a backfill up to `most` times, then lets it end; returns the kills.
async fn one_backfill(seed: u64, most: u64) -> u64 {
    let shape = Shape { leaks: 30, partitions: 20, files: 3, rows: 200, ..Shape::default() };
    let sql = "SELECT window_start, window_end, k, count(*) AS n, sum(v) AS total FROM \
               TUMBLE(a, ts, INTERVAL '7 hours') GROUP BY window_start, window_end, k";
    let case = Case::over([("a", Facts::draw(shape, seed))], sql);
    let world = World::new(&case);
    let file = world.folder.path().join("job.sql");
    fs::write(&file, world.text(&case)).unwrap();
    // About a second for the whole, so that kills fall everywhere in it.
    let throttle = case.sources["a"].rows().max(1).to_string();
    let mut dice = Dice::new(seed);
    let mut kills = 0;
    loop {
        let mut child = Command::new(env!("CARGO_BIN_EXE_watershed"))
            .args(["--home", &world.home().display().to_string(), "run", &file.display().to_string()])
            .args(["--commit-interval", "0 s", "--slice", "0 s", "--throttle-rows", &throttle])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if kills < most {
            tokio::time::sleep(Duration::from_millis(10 + dice.below(400))).await;
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                continue;
            }
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
        break;
    }
    let engine = world.engine(&variants()[1], 0, Stores::default());
    let last = once(&engine, &world.text(&case), false, true).await.unwrap();
    if let Err(e) = compare(&world, &case, &last, true).await {
        panic!("seed {seed}, {kills} kills: {e}");
    }
    kills
}
