//! Files that appear while a job runs, and while it is killed.

use std::thread;
use std::time::Duration;

use super::source;
use super::world::*;
use crate::binary::all_said;
use crate::campaign::{chaos, seed};
use crate::oracle::facts::Dice;

#[test]
fn files_are_read_as_they_appear() {
    let world = World::new();
    let all = rides(31, 0..4_000, 30);
    let sql = source("format = 'json', tail = 'commits'") + HOURLY;
    // It waits for the first one too.
    let mut job = world.start(&sql, &["--commit-interval", "100 ms"]);
    thread::sleep(Duration::from_millis(500));
    for (i, part) in all.chunks(1_000).enumerate() {
        world.put(&format!("{i}.json"), &[json(part), b"{\n".to_vec()].concat());
        let sent = &all[..(i + 1) * 1_000];
        // What is in place shows in the view, up to the newest ride less ten minutes.
        let complete = complete(sent);
        let patience = (0..150).any(|_| {
            thread::sleep(Duration::from_millis(100));
            world.dir.path().join("hourly/_delta_log").exists() && world.hourly() == complete
        });
        assert!(patience, "{i}: {} are not {}", world.hourly().len(), complete.len());
    }
    assert!(job.try_wait().unwrap().is_none());
    job.kill().unwrap();
    job.wait().unwrap();
    world.run(&sql, &["--until", "caught-up", "--final"]);
    assert_eq!(world.hourly(), hours(&all));
    assert_eq!(world.query("SELECT _row, _reason FROM hourly_late"), vec!["1000,malformed"; 4]);
}

#[test]
fn the_lag_is_the_bytes_of_what_was_not_read() {
    let world = World::new();
    let all = rides(33, 0..3_000, 30);
    let sql = source("format = 'json', tail = 'commits'") + HOURLY;
    let lag = || {
        let out = world.command(&["jobs", "--json"]).output().unwrap();
        let job: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        job["lag_bytes"].as_u64().unwrap()
    };
    world.put("0.json", &json(&all[..2_000]));
    world.run(&sql, &["--until", "caught-up"]);
    assert_eq!(lag(), 0);
    // Of times that were read before, and of later ones.
    let came = [json(&all[..500]), json(&all[2_000..])];
    world.put("1.json", &came[0]);
    world.put("2.json", &came[1]);
    assert_eq!(lag(), came.iter().map(|bytes| bytes.len() as u64).sum::<u64>());
    world.run(&sql, &["--until", "caught-up"]);
    assert_eq!(lag(), 0);
}

#[test]
fn killed_anywhere_no_file_is_lost_and_none_is_twice() {
    let seed = seed(32);
    let chaos = chaos();
    let rounds = (chaos / 25).max(2);
    let mut dice = Dice::new(seed);
    let world = World::new();
    let all = rides(seed, 0..600 * rounds, 30);
    let sql = source("format = 'csv', tail = 'commits'")
        + HOURLY
        + "CREATE TABLE kept (at TIMESTAMP, city VARCHAR, km BIGINT) WITH (location = '${DIR}/kept');
           INSERT INTO kept SELECT at, city, km FROM rides;";
    let often = ["--commit-interval", "20 ms"];
    let mut files = 0;
    for round in 0..rounds as usize {
        let mut job = world.start(&sql, &often);
        for part in all[600 * round..600 * (round + 1)].chunks(150) {
            let bytes = [csv(part), b"broken\r\n".to_vec()].concat();
            match dice.chance(300) {
                true => world.put(&format!("{files}.csv.gz"), &gzip(&bytes)),
                false => world.put(&format!("{files}.csv"), &bytes),
            }
            files += 1;
            thread::sleep(Duration::from_millis(dice.below(500)));
        }
        thread::sleep(Duration::from_millis(dice.below(1_200)));
        // Who ended by itself complained of something.
        let ended = job.try_wait().unwrap();
        if ended.is_some() {
            panic!("seed {seed}, round {round}: {}", all_said(&job.wait_with_output().unwrap()));
        }
        job.kill().unwrap();
        job.wait().unwrap();
    }
    world.run(&sql, &["--until", "caught-up"]);
    assert_eq!(world.query("SELECT count(*), sum(km) FROM kept"), [format!("{},{}", all.len(), km(&all))]);
    let said = world.run(&sql, &["--until", "caught-up"]);
    assert!(said.contains("nothing new"), "{said}");
    world.run(&sql, &["--until", "caught-up", "--final"]);
    assert_eq!(world.hourly(), hours(&all), "seed {seed}");
    for view in ["hourly_late", "kept_late"] {
        let listed =
            world.query(&format!("SELECT count(*), count(DISTINCT _file) FROM {view} WHERE _reason = 'malformed'"));
        assert_eq!(listed, [format!("{files},{files}")], "seed {seed}, {view}");
    }
    assert_eq!(world.query("SELECT count(*) FROM hourly_late WHERE _reason <> 'malformed'"), ["0"], "seed {seed}");
}
