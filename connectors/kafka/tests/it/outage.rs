//! A broker that dies and comes back is no error. Wants commands that do both, `WATERSHED_TEST_KAFKA_KILL` and
//! `WATERSHED_TEST_KAFKA_START`, and disturbs all other tests: `--ignored`.

use std::collections::BTreeMap;
use std::process::Command;

use watershed_core::tail::Tail;

use crate::topic::{Topic, from_start, read_until, silent};

fn run(variable: &str) -> bool {
    let Ok(command) = std::env::var(variable) else {
        println!("skipped: {variable} names no command");
        return false;
    };
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    true
}

#[tokio::test]
#[ignore = "kills the broker"]
async fn a_broker_that_comes_back_is_read_on() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    topic.write_numbers(0..100, 2);
    let mut reader = topic.tail(&[]).read(&from_start(2)).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, |read| read.len() == 2 && read.values().all(|part| part.at_end)).await.unwrap();
    for round in 0..2 {
        if !run("WATERSHED_TEST_KAFKA_KILL") {
            return;
        }
        while !silent(&mut reader).await {}
        run("WATERSHED_TEST_KAFKA_START");
        topic.write_numbers(100 * (round + 1)..100 * (round + 2), 2);
        let next = 50 * (round as i64 + 2);
        let there = |read: &BTreeMap<_, crate::topic::Read>| read.values().all(|part| part.next == next && part.at_end);
        read_until(&mut reader, &mut read, there).await.unwrap();
    }
    for of in read.values() {
        assert_eq!(of.offsets, (0..150).collect::<Vec<_>>());
    }

    // A reader that leaves while nobody answers is no trouble either.
    run("WATERSHED_TEST_KAFKA_KILL");
    drop(reader);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    run("WATERSHED_TEST_KAFKA_START");
}
