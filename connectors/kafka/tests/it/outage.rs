//! A broker that dies and comes back is no error. Wants commands that do both, `WATERSHED_TEST_KAFKA_KILL` and
//! `WATERSHED_TEST_KAFKA_START`, and disturbs all other tests: `--ignored`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

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

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        let logged = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        logged.lines().filter(|line| line.contains(text)).count()
    }
}

#[tokio::test]
#[ignore = "kills the broker"]
async fn a_broker_that_comes_back_is_read_on() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
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
    assert_eq!((log.count("WARN watershed_kafka"), log.count("is not reached")), (2, 2), "once for each outage");
    assert_eq!(log.count("flow again"), 2);
    for of in read.values() {
        assert_eq!(of.offsets, (0..150).collect::<Vec<_>>());
    }

    // A reader that leaves while nobody answers is no trouble either.
    run("WATERSHED_TEST_KAFKA_KILL");
    drop(reader);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    run("WATERSHED_TEST_KAFKA_START");
}
