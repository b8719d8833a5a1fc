//! The lag in bytes: estimated of a log by what its messages held lately, shown where a job stands and exported.

use std::fs;

use serde_json::Value;
use watershed::Metrics;
use watershed::runtime::{Progress, ProgressUpdate};

use super::broker::Broker;
use super::world::{ARCHIVE, DECLARED, Ride, World, rides};

/// Keys and payloads.
fn bytes(rides: &[Ride]) -> f64 {
    rides.iter().map(|ride| ride.json().len() + format!("c{}", ride.city).len()).sum::<usize>() as f64
}

fn about(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= expected * 0.05
}

#[test]
fn the_lag_in_bytes_is_about_what_the_messages_hold() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "lagging", 2);
    let all = rides(45, 0..4_000, 30);
    world.produce(&all[..1_000]);
    world.run(&[DECLARED, ARCHIVE], &[]);
    let job = || {
        let out = world.command(&["jobs", "--json"]).output().unwrap();
        serde_json::from_slice::<Value>(out.stdout.split(|b| *b == b'\n').next().unwrap()).unwrap()
    };
    let still = job();
    assert_eq!((&still["left"]["messages"], &still["lag_bytes"]), (&0.into(), &0.into()), "{still}");
    world.produce(&all[1_000..]);
    let behind = job();
    assert_eq!(behind["left"]["messages"], 3_000, "{behind}");
    let (found, expected) = (behind["lag_bytes"].as_f64().unwrap(), bytes(&all[1_000..]));
    assert!(about(found, expected), "{found} are not about {expected}");
    let said = String::from_utf8(world.command(&["jobs"]).output().unwrap().stdout).unwrap();
    assert!(said.contains("3,000 messages, about ") && said.contains("kB"), "{said}");

    let run = world.run(&[DECLARED, ARCHIVE], &["--metrics-file", "metrics.prom", "--json"]);
    assert!(run.contains("\"lag_bytes\":"), "{run}");
    let text = fs::read_to_string(world.dir.path().join("metrics.prom")).unwrap();
    assert!(text.contains("watershed_lag_bytes{job=\"rides\"} 0\n"), "{text}");
}

#[test]
fn the_lag_is_exported() {
    let metrics = Metrics::default();
    let update = ProgressUpdate { lag_messages: Some(3), lag_bytes: Some(240), ..ProgressUpdate::nothing_yet() };
    metrics.update("rides", &update);
    let text = metrics.text().unwrap();
    for line in ["watershed_lag_messages{job=\"rides\"} 3\n", "watershed_lag_bytes{job=\"rides\"} 240\n"] {
        assert!(text.contains(line), "{text}");
    }
}
