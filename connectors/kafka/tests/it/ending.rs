//! What ends the reading: offsets that are gone, topics that are, readers that leave.

use std::collections::BTreeMap;
use std::time::Duration;

use watershed_core::Error;
use watershed_core::tail::Tail;

use crate::topic::{Topic, from_start, last_word, next};

fn stopped(e: &Error, parts: &[&str]) {
    let said = e.to_string();
    assert!(matches!(e, Error::Stopped(_)), "{said}");
    for part in parts {
        assert!(said.contains(part), "{said}, without {part}");
    }
}

#[tokio::test]
async fn an_offset_that_is_gone_is_told_at_the_start() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    topic.write_numbers(0..40, 2);
    topic.delete_before(1, 15);
    let tail = topic.tail(&[]);
    let at = |offset| BTreeMap::from([(0, 3), (1, offset)]);
    for offset in [14, 21] {
        let e = tail.read(&at(offset)).await.err().unwrap();
        stopped(&e, &[&topic.location(), "partition 1", &format!("offset {offset} "), "15 to 20"]);
    }
    for offset in [15, 20] {
        next(&mut tail.read(&at(offset)).await.unwrap()).await.unwrap();
    }
    stopped(&tail.read(&BTreeMap::from([(7, 0)])).await.err().unwrap(), &["no partition 7"]);
}

#[tokio::test]
async fn an_offset_that_goes_while_it_is_read_is_told() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    let filler = "x".repeat(1000);
    let producer = topic.producer(&[("linger.ms", "20")]);
    for n in 0..100_000 {
        crate::topic::send(&producer, &topic.name, n % 2, None, Some(&filler), None);
    }
    crate::topic::done(&producer);
    let mut reader = topic.tail(&[("queued.max.messages.kbytes", "64")]).read(&from_start(2)).await.unwrap();
    next(&mut reader).await.unwrap();
    topic.delete_before(1, 50_000);
    let e = last_word(&mut reader).await;
    stopped(&e, &[&topic.location(), "partition 1", "50000 to 50000"]);
    assert!(reader.next().await.is_err(), "and nothing comes after it");
}

#[tokio::test]
async fn a_topic_that_is_deleted_ends_its_reader() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    topic.write_numbers(0..40, 2);
    let mut reader = topic.tail(&[]).read(&from_start(2)).await.unwrap();
    next(&mut reader).await.unwrap();
    topic.delete();
    let e = last_word(&mut reader).await;
    stopped(&e, &[&topic.location(), "deleted"]);
}

#[tokio::test]
async fn a_topic_that_is_made_anew_is_not_taken_for_the_old_one() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write_numbers(0..10, 1);
    let mut reader = topic.tail(&[]).read(&from_start(1)).await.unwrap();
    let mut seen = vec![];
    while seen.len() < 10 {
        next(&mut reader).await.unwrap().iter().for_each(|batch| seen.extend_from_slice(batch.offsets.values()));
    }
    topic.delete();
    topic.make(1, &[]);
    // As many and more, so that the offset that is next is there again.
    topic.write_numbers(100..200, 1);
    let e = loop {
        match next(&mut reader).await {
            Ok(batches) => assert!(batches.iter().all(|batch| batch.is_empty()), "{batches:?}"),
            Err(e) => break e,
        }
    };
    stopped(&e, &[&topic.location(), "made anew"]);
}

#[tokio::test]
async fn a_reader_that_leaves_takes_its_thread_along() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write_numbers(0..100_000, 1);
    let name = format!("kafka {}", topic.name);
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        // The system keeps fifteen letters of a name.
        names.filter(|task| name.starts_with(task.trim())).count()
    };
    for wait in [0, 1, 500] {
        let mut reader = topic.tail(&[]).read(&from_start(1)).await.unwrap();
        next(&mut reader).await.unwrap();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        assert_eq!(threads(), 1);
        drop(reader);
        let mut waited = 0;
        while threads() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += 10;
            assert!(waited < 1000, "the thread is still there");
        }
        println!("gone after {waited} ms");
    }
}
