//! Clusters by hand; what they are for is tested with [`crate::increment`].

use super::*;
use crate::history::Version;

fn file(path: &str, min: i64, max: i64) -> DataFile {
    let times = Times::Known { min: EventTime(min), max: EventTime(max), nulls: 0 };
    DataFile { rows: Some(1), times, ..DataFile::new(path, 10) }
}

fn shown(partitions: &[TimePartition]) -> Vec<(i64, i64, String)> {
    let paths = |p: &TimePartition| p.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>().join("");
    partitions.iter().map(|p| (p.interval.start.0, p.interval.end.0, paths(p))).collect()
}

fn is(found: &[TimePartition], expected: &[(i64, i64, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(a, b, paths)| (*a, *b, paths.to_string())).collect();
    assert_eq!(shown(found), expected);
}

#[test]
fn files_that_overlap_stay_together() {
    let files = vec![file("d", 30, 40), file("b", 10, 19), file("a", 0, 10), file("c", 15, 22)];
    is(&clusters(files), &[(0, 10, "a"), (10, 23, "bc"), (30, 41, "d")]);
    is(&clusters(vec![]), &[]);
    // Touching in one instant, and files that are one instant.
    is(&clusters(vec![file("a", 0, 10), file("b", 10, 10), file("c", 10, 20)]), &[(0, 10, "a"), (10, 21, "bc")]);
    // A long file that touches may have a piece where it does.
    let long = DataFile { size: LONG, ..file("a", 0, 10) };
    is(&clusters(vec![long, file("b", 10, 20)]), &[(0, 21, "ab")]);
}

#[test]
fn a_partition_is_covered_by_its_parts() {
    let day = |files| TimePartition { interval: Interval { start: EventTime(100), end: EventTime(200) }, files };
    let leaked = vec![file("b", 150, 180), file("a", 90, 120), file("c", 190, 250), file("d", 300, 310)];
    is(&cut(day(leaked)), &[(100, 150, "a"), (150, 190, "b"), (190, 200, "cd")]);
    let blind = vec![file("a", 100, 120), DataFile::new("x", 10), file("b", 150, 180)];
    is(&cut(day(blind)), &[(100, 200, "abx")]);
    let nulls = Times::Known { min: EventTime::MAX, max: EventTime::MIN, nulls: 1 };
    let nulls = DataFile { times: nulls, ..file("n", 0, 0) };
    is(
        &cut(day(vec![file("b", 150, 180), nulls, file("a", 110, 120)])),
        &[(100, 110, "n"), (110, 150, "a"), (150, 200, "b")],
    );
    is(&cut(day(vec![])), &[(100, 200, "")]);
}

#[test]
fn a_snapshot_is_settled_to_a_position() {
    let snapshot = |by_statistics, partitions| Snapshot {
        version: Version::Listing { digest: "x".into() },
        partitions,
        timeless: vec![],
        by_statistics,
        keepsake: None,
    };
    let at = |boundary: i64, cut: bool| Position { boundary: EventTime(boundary), cut, ..Position::default() };
    let files = || vec![file("a", 0, 10), file("b", 5, 25), file("c", 20, 30), file("d", 40, 50)];
    let mut loose = snapshot(true, clusters(files()));
    settle(&mut loose, &at(11, false));
    is(&loose.partitions, &[(0, 11, "ab"), (20, 31, "c"), (40, 51, "d")]);
    let day = TimePartition { interval: Interval { start: EventTime(0), end: EventTime(100) }, files: files() };
    let mut whole = snapshot(false, vec![day.clone()]);
    settle(&mut whole, &at(20, false));
    is(&whole.partitions, &[(0, 100, "abcd")]);
    let mut cut = snapshot(false, vec![day]);
    settle(&mut cut, &at(20, true));
    is(&cut.partitions, &[(0, 20, "ab"), (20, 100, "cd")]);
}

#[test]
fn an_overlap_is_told_by_what_it_costs() {
    let cluster = clusters(vec![file("a", 0, 10), file("b", 5, 25)]).remove(0);
    let found = overlap(&cluster, 19).unwrap();
    assert_eq!((found.files, found.rows, found.bytes), (2, 2, 20));
    assert_eq!(overlap(&cluster, 20), None, "it would be one slice anyway");
}
