//! Slices and watermarks over invented histories: hand-made cases, and laws over random ones.

use proptest::prelude::*;

use super::*;
use crate::history::Version;
use crate::time::Interval;

const H: i64 = Span::HOUR.0;

fn file(path: &str, times: Times) -> DataFile {
    DataFile { rows: Some(1), times, ..DataFile::new(path, 1) }
}

/// Partitions as (start hour, end hour, hours of each file's earliest row).
fn snapshot(partitions: &[(i64, i64, &[i64])]) -> Snapshot {
    let partitions = partitions.iter().map(|(start, end, mins)| TimePartition {
        interval: Interval { start: EventTime(start * H), end: EventTime(end * H) },
        files: mins
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let times = Times::Known { min: EventTime(m * H), max: EventTime(end * H - 1), nulls: 0 };
                file(&format!("{start}/{i}"), times)
            })
            .collect(),
    });
    Snapshot {
        version: Version::Listing { digest: "x".into() },
        partitions: partitions.collect(),
        timeless: vec![],
        by_statistics: false,
        keepsake: None,
    }
}

fn standing<'a>(snapshot: &'a Snapshot, position: &'a Position) -> Standing<'a> {
    Standing {
        snapshot,
        position,
        closed: snapshot.partitions.len(),
        bounded: false,
        goes_on: None,
        delay: Span(0),
        max_leak: Span(24 * H),
        horizon: EventTime(100_000 * H),
    }
}

fn at(hours: i64) -> Position {
    Position { boundary: EventTime(hours * H), ..Position::default() }
}

/// Runs to the end; returns (boundary, files of each source, watermark) of each step, times in hours.
fn run(
    snapshots: &[Snapshot],
    rules: &Rules,
    adjust: impl Fn(usize, &mut Standing<'_>),
) -> Vec<(i64, Vec<usize>, i64)> {
    let mut positions = vec![Position::default(); snapshots.len()];
    let (mut watermark, mut steps) = (EventTime::MIN, vec![]);
    loop {
        let mut standings: Vec<_> = snapshots.iter().zip(&positions).map(|(s, p)| standing(s, p)).collect();
        standings.iter_mut().enumerate().for_each(|(i, s)| adjust(i, s));
        let Some(slice) = next_slice(&standings, rules) else { return steps };
        watermark = watermark_after(&standings, rules, slice.boundary, watermark);
        steps.push((slice.boundary.0 / H, slice.reads.iter().map(Vec::len).collect(), watermark.0 / H));
        for p in &mut positions {
            p.boundary = slice.boundary.max(p.boundary);
        }
    }
}

#[test]
fn one_source_reads_partition_by_partition() {
    let days = snapshot(&[(0, 24, &[0]), (24, 48, &[25, 26]), (72, 96, &[72])]);
    // The hole between 48 and 72 only moves the boundary; the watermark goes to the next rows' start.
    assert_eq!(run(&[days], &Rules::default(), |_, _| {}), [(24, vec![1], 24), (48, vec![2], 72), (96, vec![1], 96)]);
}

#[test]
fn leaked_rows_hold_the_watermark_but_no_longer_than_max_leak() {
    let leaking = snapshot(&[(0, 24, &[0]), (24, 48, &[24, 22]), (48, 72, &[-9999])]);
    let steps = run(&[leaking], &Rules::default(), |_, s| s.max_leak = Span(10 * H));
    assert_eq!(steps, [(24, vec![1], 22), (48, vec![2], 38), (72, vec![1], 72)]);
}

#[test]
fn unknown_statistics_promise_the_partition_start() {
    let mut days = snapshot(&[(0, 24, &[0]), (24, 48, &[20])]);
    days.partitions[1].files[0].times = Times::Unknown;
    assert_eq!(run(&[days], &Rules::default(), |_, _| {})[0].2, 24);
}

#[test]
fn sources_of_different_grain_go_in_lockstep() {
    let day = snapshot(&[(0, 24, &[0])]);
    let hours = snapshot(&[(0, 1, &[0]), (1, 2, &[1]), (23, 24, &[23])]);
    let steps = run(&[day, hours], &Rules::default(), |_, _| {});
    assert_eq!(steps, [(1, vec![1, 1], 1), (2, vec![0, 1], 23), (24, vec![0, 1], 24)]);
}

#[test]
fn a_shorter_source_stops_the_run_unless_bounded_or_final() {
    let (long, short) = (snapshot(&[(0, 24, &[0]), (24, 48, &[24])]), snapshot(&[(0, 24, &[0])]));
    let both = [long, short];
    assert_eq!(run(&both, &Rules::default(), |_, _| {}), [(24, vec![1, 1], 24)]);
    assert_eq!(run(&both, &Rules::default(), |i, s| s.bounded = i == 1), [(24, vec![1, 1], 24), (48, vec![1, 0], 48)]);
    let last = run(&both, &Rules { to_the_end: true, ..Rules::default() }, |_, _| {});
    assert_eq!(last[1].0, 48);
    assert_eq!(last[1].2, EventTime::MAX.0 / H);
}

/// A bounded source whose last partition is not closed is read whole: the others pass it, and would never come back.
#[test]
fn a_bounded_source_is_read_whole_before_it_is_passed() {
    let (fine, bounded) = (snapshot(&[(0, 1, &[0]), (1, 2, &[1]), (2, 3, &[2])]), snapshot(&[(0, 24, &[0])]));
    let steps = run(&[fine, bounded], &Rules::default(), |i, s| {
        s.bounded = i == 1;
        s.closed = if i == 1 { 0 } else { 3 };
    });
    assert_eq!(steps.iter().map(|s| s.1[1]).sum::<usize>(), 1, "{steps:?}");
}

/// One file dated centuries ahead does not throw the watermark there.
#[test]
fn a_partition_in_the_future_promises_nothing() {
    let days = [snapshot(&[(0, 24, &[0]), (24, 48, &[24]), (90_000, 90_024, &[90_000])])];
    let adjust = |_: usize, s: &mut Standing<'_>| {
        s.horizon = EventTime(100 * H);
        s.closed = closed_partitions(&s.snapshot.partitions, EventTime(76 * H), Span(H), Span(24 * H));
    };
    assert_eq!(run(&days, &Rules::default(), adjust), [(24, vec![1], 24), (48, vec![1], 48)]);
}

#[test]
fn open_partitions_wait_until_closed_or_final() {
    let days = || [snapshot(&[(0, 24, &[0]), (24, 48, &[24])])];
    assert_eq!(run(&days(), &Rules::default(), |_, s| s.closed = 1), [(24, vec![1], 24)]);
    let last = Rules { to_the_end: true, ..Rules::default() };
    assert_eq!(run(&days(), &last, |_, s| s.closed = 1).len(), 2);
}

#[test]
fn closed_is_judged_by_successors_and_grace() {
    let days = snapshot(&[(0, 24, &[0]), (24, 48, &[24]), (1000, 1024, &[1000])]).partitions;
    let closed = |now: i64| closed_partitions(&days, EventTime(now * H), Span(H), Span(24 * H));
    assert_eq!(closed(30), 1, "the second is running, the third lies in the future and closes nothing");
    assert_eq!(closed(48), 1, "the grace has not passed");
    assert_eq!(closed(49), 2);
    assert_eq!(closed(990), 2);
    assert_eq!(closed(1025), 3);
}

#[test]
fn slices_join_small_partitions() {
    let hours: Vec<(i64, i64, &[i64])> = (0..10).map(|h| (h, h + 1, &[] as &[i64])).collect();
    let steps = run(&[snapshot(&hours)], &Rules { slice: Some(Span(4 * H)), ..Rules::default() }, |_, _| {});
    assert_eq!(steps.iter().map(|s| s.0).collect::<Vec<_>>(), [4, 8, 10]);
}

#[test]
fn small_partitions_are_joined_by_bytes() {
    let hours: Vec<(i64, i64, &[i64])> = (0..10).map(|h| (h, h + 1, &[0i64, 0] as &[i64])).collect();
    let ends =
        |rules: Rules, sources: &[Snapshot]| run(sources, &rules, |_, _| {}).iter().map(|s| s.0).collect::<Vec<_>>();
    let by = |join: u64| Rules { join, ..Rules::default() };
    let one = [snapshot(&hours)];
    assert_eq!(ends(by(6), &one), [3, 6, 9, 10]);
    assert_eq!(ends(by(7), &one), [3, 6, 9, 10], "never more than it may be");
    assert_eq!(ends(by(1), &one).len(), 10, "a partition is read whole, however long");
    assert_eq!(ends(by(100), &one), [10]);
    let wished = Rules { slice: Some(Span(0)), join: 100, ..Rules::default() };
    assert_eq!(ends(wished, &one).len(), 10, "a wished width counts, and zero is one partition");
    assert_eq!(ends(Rules { to: Some(EventTime(5 * H)), ..by(100) }, &one)[0], 5, "not further than the run goes");
    // All sources count, and no partition twice.
    let two = [snapshot(&hours), snapshot(&[(0, 5, &[0, 0]), (5, 10, &[5])])];
    assert_eq!(
        run(&two, &by(8), |_, _| {}).iter().map(|s| (s.0, s.1.clone())).collect::<Vec<_>>(),
        [(3, vec![6, 2]), (6, vec![6, 1]), (10, vec![8, 0])]
    );
}

/// Nobody promised that a cluster is complete because a later one is there.
#[test]
fn clusters_are_closed_by_the_grace_alone() {
    let mut loose = snapshot(&[(0, 10, &[0]), (20, 30, &[20]), (40, 50, &[40])]);
    loose.by_statistics = true;
    let count =
        |now: i64, boundary: i64| closed(&loose, EventTime(boundary * H), EventTime(now * H), Span(H), Span(24 * H));
    assert_eq!([count(30, -1), count(31, -1), count(51, -1), count(0, 11)], [1, 2, 3, 1]);
    let steps = run(&[loose], &Rules::default(), |_, s| s.closed = 2);
    assert_eq!(steps, [(10, vec![1], 20), (30, vec![1], 30)], "the watermark does not reach for the open one");
}

#[test]
fn null_times_promise_nothing_and_hold_nothing() {
    let mut days = snapshot(&[(0, 24, &[0]), (24, 48, &[30]), (48, 72, &[48])]);
    days.partitions[1].files.push(file("nulls", Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: 1 }));
    days.partitions[2]
        .files
        .push(file("some", Times::Known { min: EventTime(47 * H), max: EventTime(50 * H), nulls: 3 }));
    let steps = run(&[days], &Rules::default(), |_, _| {});
    assert_eq!(steps, [(24, vec![1], 24), (48, vec![2], 47), (72, vec![2], 72)]);
}

#[test]
fn pending_and_timeless_files_are_read_once() {
    let mut days = snapshot(&[(0, 24, &[0]), (24, 48, &[24])]);
    days.timeless.push(file("null", Times::Unknown));
    let mut position = at(24);
    position.pending.push(file("late", Times::Unknown));
    let slice = next_slice(&[standing(&days, &position)], &Rules::default()).unwrap();
    assert_eq!(slice.reads[0].iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["null", "late", "24/0"]);
    let mut only_pending = at(48);
    only_pending.timeless_read = true;
    assert_eq!(next_slice(&[standing(&days, &only_pending)], &Rules::default()), None);
    only_pending.pending.push(file("late", Times::Unknown));
    let slice = next_slice(&[standing(&days, &only_pending)], &Rules::default()).unwrap();
    assert_eq!((slice.boundary, slice.reads[0].len()), (EventTime(48 * H), 1));
}

#[test]
fn the_watermark_ends_at_to_and_delay_is_kept() {
    let days = snapshot(&[(0, 24, &[0]), (24, 48, &[24])]);
    let position = Position::default();
    let mut source = standing(&days, &position);
    source.delay = Span(2 * H);
    let rules = Rules { to: Some(EventTime(10 * H)), ..Rules::default() };
    assert_eq!(watermark_after(&[source], &rules, EventTime(24 * H), EventTime::MIN), EventTime(10 * H));
    assert_eq!(watermark_after(&[source], &Rules::default(), EventTime(24 * H), EventTime::MIN), EventTime(22 * H));
}

proptest! {
    /// Every file is read once, the watermark never falls, and within `max_leak` no row read later is below it.
    #[test]
    fn laws(
        shapes in prop::collection::vec(
            (1..=6i64, prop::collection::vec((0..3i64, prop::collection::vec(-5..5i64, 0..3)), 1..8)), 1..4),
        leak in 0..8i64,
        width in prop::option::of(0..20i64),
        join in 0..6u64,
        blind in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        delay in 0..3i64,
    ) {
        let mut snapshots: Vec<Snapshot> = shapes.iter().map(|(grain, parts)| {
            let mut start = 0;
            let parts: Vec<(i64, i64, Vec<i64>)> = parts.iter().map(|(gap, mins)| {
                start += gap * grain;
                let p = (start, start + grain, mins.iter().map(|m| start + m).collect());
                start += grain;
                p
            }).collect();
            snapshot(&parts.iter().map(|(a, b, m)| (*a, *b, m.as_slice())).collect::<Vec<_>>())
        }).collect();
        let files = |snapshots: &[Snapshot]| snapshots.iter().flat_map(|s| &s.partitions).map(|p| p.files.len()).sum::<usize>();
        let all = files(&snapshots);
        for index in blind.into_iter().filter(|_| all > 0) {
            let partitions = snapshots.iter_mut().flat_map(|s| &mut s.partitions);
            partitions.flat_map(|p| &mut p.files).nth(index.index(all)).unwrap().times = Times::Unknown;
        }
        let rules = Rules { slice: width.map(|w| Span(w * H)), join, to_the_end: true, ..Rules::default() };
        let max_leak = Span(leak * H);
        let mut positions = vec![Position::default(); snapshots.len()];
        let (mut watermark, mut seen) = (EventTime::MIN, std::collections::BTreeSet::new());
        loop {
            let standings: Vec<_> = snapshots.iter().zip(&positions)
                .map(|(s, p)| Standing { max_leak, delay: Span(delay), ..standing(s, p) }).collect();
            let Some(slice) = next_slice(&standings, &rules) else { break };
            for (source, files) in slice.reads.iter().enumerate() {
                for f in files {
                    prop_assert!(seen.insert((source, f.path.clone())), "{} twice", f.path);
                    let start = EventTime(f.path.split('/').next().unwrap().parse::<i64>().unwrap() * H);
                    // Without statistics rows are taken for where the partition starts.
                    let min = if let Times::Known { min, .. } = f.times { min } else { start };
                    prop_assert!(min >= watermark || min < start.minus(max_leak), "{f:?} below {watermark}");
                }
            }
            let next = watermark_after(&standings, &rules, slice.boundary, watermark);
            prop_assert!(next >= watermark);
            let unread = snapshots.iter().flat_map(|s| &s.partitions).filter(|p| p.interval.start >= slice.boundary);
            for p in unread.filter(|p| !p.files.is_empty()) {
                prop_assert!(next <= p.interval.start.minus(Span(delay)), "{next} is beyond {}", p.interval);
            }
            watermark = next;
            for p in &mut positions { p.boundary = slice.boundary.max(p.boundary); }
        }
        prop_assert_eq!(seen.len(), all);
        prop_assert_eq!(watermark, EventTime::MAX);
    }
}
