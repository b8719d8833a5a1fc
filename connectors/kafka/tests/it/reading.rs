//! Every message once, in order; ends; transactions and compaction; parts held and added.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use watershed_core::tail::{Fetched, Part, Tail};

use crate::topic::{Read, Topic, done, from_start, next, note, read_until, send, silent};

fn at_ends(parts: usize) -> impl Fn(&BTreeMap<Part, Read>) -> bool {
    move |read| read.len() == parts && read.values().all(|part| part.at_end)
}

#[tokio::test]
async fn all_of_three_parts_comes_once_and_in_order() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    topic.write_numbers(0..200_000, 3);
    let tail = topic.tail(&[]);
    let from = BTreeMap::from([(0, 0), (1, 10), (2, 66_666)]);
    let mut reader = tail.read(&from).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(3)).await.unwrap();
    let ends = tail.look().await.unwrap().parts;
    for (part, first) in from {
        let count = ends[&part].end;
        let of = &read[&part];
        assert_eq!(of.offsets, (first..count).collect::<Vec<_>>());
        let payload = |offset: i64| Some((offset * 3 + i64::from(part)).to_string());
        assert_eq!(of.payloads, (first..count).map(payload).collect::<Vec<_>>());
        assert_eq!(of.next, count);
    }
    assert!(silent(&mut reader).await);

    // What comes later comes soon, and with the next end.
    topic.write_numbers(200_000..200_003, 3);
    let mut more = BTreeMap::new();
    read_until(&mut reader, &mut more, at_ends(3)).await.unwrap();
    let mut numbers: Vec<_> = more.values().flat_map(|part| part.payloads.iter().flatten().cloned()).collect();
    numbers.sort();
    assert_eq!(numbers, ["200000", "200001", "200002"]);
}

#[tokio::test]
async fn keys_and_payloads_may_be_missing_or_empty() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write([(0, None, Some("a")), (0, Some("k"), None), (0, Some(""), Some("")), (0, None, None)]);
    let mut reader = topic.tail(&[]).read(&from_start(1)).await.unwrap();
    let mut rows = vec![];
    while rows.len() < 4 {
        for batch in next(&mut reader).await.unwrap() {
            let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
            rows.extend(batch.keys.iter().zip(batch.payloads.iter()).map(|(k, p)| (text(k), text(p))));
            assert!(batch.timestamps.iter().all(|time| time.is_some_and(|time| time > 1_700_000_000_000)));
        }
    }
    let some = |text: &str| Some(text.to_string());
    assert_eq!(rows, [(None, some("a")), (some("k"), None), (some(""), some("")), (None, None)]);
}

#[tokio::test]
async fn every_compression_is_read() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    // Long enough, and alike enough, for the broker to be given it compressed.
    let payloads = codecs.map(|codec| codec.repeat(2000));
    for (codec, payload) in codecs.iter().zip(&payloads) {
        let producer = topic.producer(&[("compression.type", codec)]);
        send(&producer, &topic.name, 0, None, Some(payload), None);
        done(&producer);
    }
    let mut reader = topic.tail(&[]).read(&from_start(1)).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
    assert!(read[&0].payloads.iter().flatten().eq(&payloads), "{:?}", read[&0].offsets);
}

#[tokio::test]
async fn an_empty_part_is_at_its_end_at_once() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    topic.write_numbers(0..10, 2);
    let mut reader = topic.tail(&[]).read(&BTreeMap::from([(0, 5), (1, 5)])).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(2)).await.unwrap();
    assert!(read.values().all(|part| part.offsets.is_empty() && part.next == 5), "{read:?}");
}

#[tokio::test]
async fn transactions_leave_gaps_and_ends_behind_them() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write([(0, None, Some("plain"))]);
    topic.begin(0, &["a", "b"]).commit();
    topic.begin(0, &["lost"]).abort();
    let tail = topic.tail(&[]);
    let end = tail.look().await.unwrap().parts[&0].end;
    assert_eq!(end, 6, "three messages, a marker, one given up, a marker");
    let mut reader = tail.read(&from_start(1)).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
    assert_eq!(read[&0].offsets, [0, 1, 2]);
    assert_eq!(read[&0].next, end);

    // Open ones hold the end back, where nothing says so; their end brings both.
    let open = topic.begin(0, &["c"]);
    topic.write([(0, None, Some("behind"))]);
    assert!(silent(&mut reader).await);
    open.commit();
    read_until(&mut reader, &mut read, |read| read[&0].at_end && read[&0].next == 9).await.unwrap();
    assert_eq!(read[&0].offsets, [0, 1, 2, 6, 7]);

    // A job may stand on a marker, or behind the last one.
    for (from, offsets) in [(3, vec![6, 7]), (5, vec![6, 7]), (8, vec![]), (9, vec![])] {
        let mut reader = tail.read(&BTreeMap::from([(0, from)])).await.unwrap();
        let mut read = BTreeMap::new();
        read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
        assert_eq!((&read[&0].offsets, read[&0].next), (&offsets, 9), "from {from}");
    }

    let mut reader = topic.tail(&[("isolation.level", "read_uncommitted")]).read(&from_start(1)).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
    assert_eq!(read[&0].offsets, [0, 1, 2, 4, 6, 7]);
}

#[tokio::test]
async fn compaction_leaves_gaps() {
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("delete.retention.ms", "0"),
    ];
    let Some(topic) = Topic::new(1, &compacted) else { return };
    let tail = topic.tail(&[]);
    let mut written = 0;
    let mut read = BTreeMap::<Part, Read>::new();
    for _ in 0..60 {
        for _ in 0..20 {
            topic.write([(0, Some("one"), Some("x")), (0, Some("other"), None), (0, Some("third"), Some("y"))]);
            written += 3;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        read.clear();
        let mut reader = tail.read(&from_start(1)).await.unwrap();
        read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
        assert_eq!(read[&0].next, written);
        if read[&0].offsets.len() < written as usize / 2 {
            break;
        }
    }
    let of = &read[&0];
    assert!(of.offsets.len() < written as usize / 2, "{} of {written}: nothing was compacted", of.offsets.len());
    assert_eq!(of.offsets.last(), Some(&(written - 1)));
    // A job may stand in a gap.
    let gap = (0..written).find(|offset| !of.offsets.contains(offset)).unwrap();
    let mut reader = tail.read(&BTreeMap::from([(0, gap)])).await.unwrap();
    let mut from_gap = BTreeMap::new();
    read_until(&mut reader, &mut from_gap, at_ends(1)).await.unwrap();
    let behind: Vec<_> = of.offsets.iter().copied().filter(|offset| *offset >= gap).collect();
    assert!(from_gap[&0].offsets.len() <= behind.len() && from_gap[&0].offsets.iter().all(|o| behind.contains(o)));
    assert_eq!(from_gap[&0].next, written);
}

#[tokio::test]
async fn parts_that_are_held_lose_nothing() {
    let Some(topic) = Topic::new(3, &[]) else { return };
    topic.write_numbers(0..150_000, 3);
    let mut reader = topic.tail(&[]).read(&from_start(3)).await.unwrap();
    let mut read = BTreeMap::new();
    let mut turn = 0;
    while !at_ends(3)(&read) {
        for batch in next(&mut reader).await.unwrap() {
            note(&mut read, &batch);
        }
        turn += 1;
        // All but one that has more to come, in turn.
        let ended = |part: &Part| read.get(part).is_some_and(|part| part.at_end);
        let reads = (0..3).map(|part| (part + turn) % 3).find(|part| !ended(part));
        reader.hold(&(0..3).filter(|part| reads.is_some_and(|reads| reads != *part)).collect()).await.unwrap();
    }
    assert!(turn > 6);
    for (part, of) in &read {
        assert_eq!(of.offsets, (0..50_000).collect::<Vec<_>>(), "part {part}");
    }

    // What is held says nothing, once what was fetched is through.
    reader.hold(&BTreeSet::from([1])).await.unwrap();
    while !silent(&mut reader).await {}
    topic.write_numbers(150_000..150_003, 3);
    let mut more = BTreeMap::new();
    read_until(&mut reader, &mut more, at_ends(2)).await.unwrap();
    assert_eq!(more.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert!(silent(&mut reader).await);
    reader.hold(&BTreeSet::new()).await.unwrap();
    read_until(&mut reader, &mut more, at_ends(3)).await.unwrap();
    assert_eq!(more[&1].payloads, [Some("150001".to_string())]);
}

#[tokio::test]
async fn a_part_that_is_added_is_read_beside_the_others() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write_numbers(0..10, 1);
    let tail = topic.tail(&[]);
    let mut reader = tail.read(&from_start(1)).await.unwrap();
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(1)).await.unwrap();
    topic.add_parts(3);
    topic.write_numbers(10..40, 3);
    assert_eq!(tail.look().await.unwrap().parts.len(), 3);
    reader.add(&BTreeMap::from([(1, 0), (2, 3)])).await.unwrap();
    read_until(&mut reader, &mut read, |read| at_ends(3)(read) && read[&0].next == 20).await.unwrap();
    assert_eq!(read[&1].offsets, (0..10).collect::<Vec<_>>());
    assert_eq!(read[&2].offsets, (3..10).collect::<Vec<_>>());
    assert!(reader.add(&BTreeMap::from([(9, 0)])).await.unwrap_err().to_string().contains("partition 9"));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_holds_the_broker_back_and_loses_nothing() {
    let Some(topic) = Topic::new(2, &[]) else { return };
    let filler = "x".repeat(1000);
    let producer = topic.producer(&[("linger.ms", "20")]);
    for n in 0..60_000 {
        crate::topic::send(&producer, &topic.name, n % 2, None, Some(&filler), None);
    }
    crate::topic::done(&producer);
    let mut reader = topic.tail(&[("queued.max.messages.kbytes", "1024")]).read(&from_start(2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut read = BTreeMap::new();
    read_until(&mut reader, &mut read, at_ends(2)).await.unwrap();
    for of in read.values() {
        assert_eq!(of.offsets, (0..30_000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn giving_up_on_next_loses_nothing() {
    let Some(topic) = Topic::new(1, &[]) else { return };
    topic.write_numbers(0..50_000, 1);
    let mut reader = topic.tail(&[]).read(&from_start(1)).await.unwrap();
    let mut read = BTreeMap::new();
    while !at_ends(1)(&read) {
        let soon = tokio::time::timeout(Duration::from_micros(50), reader.next()).await;
        if let Ok(batches) = soon {
            batches.unwrap().into_iter().filter_map(Fetched::messages).for_each(|batch| note(&mut read, &batch));
        }
    }
    assert_eq!(read[&0].offsets, (0..50_000).collect::<Vec<_>>());
}
