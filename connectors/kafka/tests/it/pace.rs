//! How fast messages come through; `--ignored`, and to be read, not judged.

use watershed_core::clock::{Clock, SystemClock};
use watershed_core::tail::Tail;

use crate::topic::{Topic, done, from_start, next, send};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn messages_a_second() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    const COUNT: usize = 3_000_000;
    let payload = "x".repeat(200);
    let producer =
        topic.producer(&[("linger.ms", "50"), ("queue.buffering.max.messages", "1000000"), ("batch.size", "1000000")]);
    for n in 0..COUNT {
        send(&producer, &topic.name, (n % 3) as i32, None, Some(&payload), None);
    }
    done(&producer);
    drop(producer);
    for _ in 0..3 {
        let clock = SystemClock::default();
        let mut reader = topic.tail(&[]).read(&from_start(3)).await.unwrap();
        let (mut rows, mut batches, mut calls) = (0, 0, 0);
        let start = clock.elapsed();
        let mut first = None;
        while rows < COUNT {
            for batch in next(&mut reader).await.unwrap() {
                rows += batch.len();
                batches += 1;
            }
            calls += 1;
            first.get_or_insert_with(|| clock.elapsed());
        }
        let took = (clock.elapsed() - start).as_secs_f64();
        println!(
            "{COUNT} messages in {took:.2} s, {:.0} a second; first after {:.0} ms; {batches} batches in {calls} calls",
            COUNT as f64 / took,
            (first.unwrap() - start).as_secs_f64() * 1e3
        );
    }
}

/// From before a message is sent until it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn time_on_the_way() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    let mut reader = topic.tail(&[]).read(&from_start(3)).await.unwrap();
    let producer = topic.producer(&[("linger.ms", "0")]);
    let clock = SystemClock::default();
    let mut took = vec![];
    for n in 0..500 {
        let start = clock.elapsed();
        send(&producer, &topic.name, n % 3, None, Some("x"), None);
        loop {
            let batches = next(&mut reader).await.unwrap();
            if batches.iter().any(|batch| !batch.is_empty()) {
                break;
            }
        }
        took.push((clock.elapsed() - start).as_secs_f64() * 1e3);
        tokio::time::sleep(std::time::Duration::from_millis(7)).await;
    }
    took.sort_by(f64::total_cmp);
    println!("median {:.1} ms, 99 of 100 within {:.1} ms, longest {:.1} ms", took[250], took[495], took[499]);
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    drop(producer);
    let before = ticks();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    println!("idle: {} ms of processor a second", (ticks() - before) * 10 / 5);
}
