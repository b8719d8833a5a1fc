//! A model of a table that grows and is compacted between runs that stop anywhere: every row is read once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::cut;
use crate::history::{LONG, Rewritten, TimePartition, Times, Version};
use crate::slice::{Rules, Standing as Stand, next_slice, wanted, watermark_after};
use crate::time::Span;

const DAY: i64 = 100;

/// Rows are (id, time); a file is row groups of them, and lies in the partition of a day where there are partitions.
#[derive(Clone, Debug)]
struct File {
    day: i64,
    long: bool,
    blind: bool,
    groups: Vec<Vec<(u32, i64)>>,
}

#[derive(Clone, Debug, Default)]
struct Commit {
    added: Vec<String>,
    removed: Vec<String>,
    rewrite: bool,
}

#[derive(Debug, Default)]
struct Table {
    by_statistics: bool,
    /// The log tells the times of files also where partitions place them.
    logged: bool,
    files: BTreeMap<String, File>,
    log: Vec<Commit>,
    rows: u32,
}

fn times<'a>(rows: impl Iterator<Item = &'a (u32, i64)>) -> Times {
    let nothing = (i64::MAX, i64::MIN);
    let (min, max) = rows.fold(nothing, |(low, high), (_, t)| (low.min(*t), high.max(*t)));
    Times::Known { min: EventTime(min), max: EventTime(max), nulls: 0 }
}

impl Table {
    fn data_file(&self, path: &str) -> DataFile {
        let file = &self.files[path];
        let size = if file.long { LONG } else { 10 };
        let known = self.by_statistics || (self.logged && !file.blind);
        let times = if known { times(file.groups.iter().flatten()) } else { Times::Unknown };
        DataFile { times, ..DataFile::new(path, size) }
    }

    fn pieces(&self, file: DataFile) -> Vec<DataFile> {
        let known = &self.files[&file.path];
        if known.blind || file.range.is_some() {
            return vec![file];
        }
        if !known.long {
            return vec![DataFile { times: times(known.groups.iter().flatten()), ..file }];
        }
        let piece = |(i, rows): (usize, &Vec<(u32, i64)>)| DataFile {
            range: Some((i as u64, i as u64 + 1)),
            times: times(rows.iter()),
            ..file.clone()
        };
        known.groups.iter().enumerate().map(piece).collect()
    }

    fn look(&self, files: Vec<&mut DataFile>) {
        for file in files {
            if !self.files[&file.path].blind {
                file.times = times(self.files[&file.path].groups.iter().flatten());
            }
        }
    }

    fn interval(&self, file: &DataFile) -> Option<Interval> {
        let day = self.files[&file.path].day * DAY;
        match file.times {
            Times::Known { min, max, .. } if self.by_statistics => {
                Some(Interval { start: min, end: EventTime(max.0 + 1) })
            }
            _ => Some(Interval { start: EventTime(day), end: EventTime(day + DAY) }),
        }
    }

    fn live(&self, version: usize) -> BTreeSet<String> {
        let mut live = BTreeSet::new();
        for commit in &self.log[..version] {
            commit.removed.iter().for_each(|path| {
                live.remove(path);
            });
            live.extend(commit.added.iter().cloned());
        }
        live
    }

    fn snapshot(&self, version: usize) -> Snapshot {
        let files: Vec<DataFile> = self.live(version).iter().map(|path| self.data_file(path)).collect();
        let partitions = if self.by_statistics {
            cut::clusters(files)
        } else {
            let mut days: BTreeMap<Interval, Vec<DataFile>> = BTreeMap::new();
            for file in files {
                days.entry(self.interval(&file).unwrap()).or_default().push(file);
            }
            days.into_iter().map(|(interval, files)| TimePartition { interval, files }).collect()
        };
        let version = Version::Delta { version: version as u64, table_id: "t".into() };
        Snapshot { version, partitions, timeless: vec![], by_statistics: self.by_statistics, keepsake: None }
    }

    fn changes(&self, from: usize, to: usize) -> Changes {
        let mut changes = Changes::default();
        let placed = |path: &String| {
            let file = self.data_file(path);
            (self.interval(&file), file)
        };
        for commit in &self.log[from..to] {
            let added: Vec<_> = commit.added.iter().map(placed).collect();
            match commit.rewrite {
                true => changes.rewritten.push(Rewritten { removed: commit.removed.clone(), added }),
                false => changes.added.extend(added),
            }
        }
        changes
    }

    fn append(&mut self, day: i64, long: bool, blind: bool, groups: &[Vec<i64>]) {
        let path = format!("{:03}", self.files.len());
        let mut id = || {
            self.rows += 1;
            self.rows
        };
        let base = if self.by_statistics { 0 } else { day * DAY };
        let groups = groups.iter().map(|g| g.iter().map(|t| (id(), base + t)).collect()).collect();
        let blind = blind && !self.by_statistics;
        self.files.insert(path.clone(), File { day, long, blind, groups });
        self.log.push(Commit { added: vec![path], ..Commit::default() });
    }

    /// Puts the rows of some files into one or two others, in order of time or as they come.
    fn compact(&mut self, which: u32, day: i64, long: bool, sorted: bool, halves: bool) {
        let live = self.live(self.log.len());
        let own = |path: &String| self.by_statistics || self.files[path].day == day;
        let removed: Vec<String> = live
            .into_iter()
            .filter(own)
            .enumerate()
            .filter(|(i, _)| which >> (i % 32) & 1 == 1)
            .map(|(_, p)| p)
            .collect();
        let mut rows: Vec<(u32, i64)> =
            removed.iter().flat_map(|p| self.files[p].groups.iter().flatten()).copied().collect();
        if rows.is_empty() {
            return;
        }
        if sorted {
            rows.sort_by_key(|(_, t)| *t);
        }
        let width = if halves { rows.len().div_ceil(2) } else { rows.len() };
        let mut added = vec![];
        for part in rows.chunks(width) {
            let path = format!("{:03}", self.files.len());
            let groups = part.chunks(2).map(<[_]>::to_vec).collect();
            self.files.insert(path.clone(), File { day, long, blind: false, groups });
            added.push(path);
        }
        self.log.push(Commit { added, removed, rewrite: true });
    }
}

/// A job's place in the table, and what it has read.
#[derive(Default)]
struct Reader {
    position: Position,
    version: Option<usize>,
    read: BTreeMap<u32, usize>,
    watermark: Option<EventTime>,
}

impl Reader {
    /// One run over the newest version, of so many steps; beside it, perhaps, a source with narrow partitions.
    fn run(&mut self, table: &Table, steps: usize, slice: i64, beside: bool, last: bool) {
        let first = self.version.is_none();
        let mut now = table.snapshot(table.log.len());
        if let Some(version) = self.version.replace(table.log.len()) {
            let mut then = table.snapshot(version);
            by_pieces(table, &mut then, &self.position);
            let mut changes = table.changes(version, table.log.len());
            if then.by_statistics || self.position.cut {
                let pieces = |(interval, file)| table.pieces(file).into_iter().map(move |piece| (interval, piece));
                changes.added = changes.added.into_iter().flat_map(pieces).collect();
            }
            let grown = increment(&then, &now, changes, &self.position);
            assert_eq!(grown.gone, None);
            self.position.pending.extend(grown.pending);
            (self.position.boundary, self.position.cut) = (grown.boundary, grown.cut);
        }
        by_pieces(table, &mut now, &self.position);
        cut::settle(&mut now, &self.position);
        let ticks = ticks(10);
        let mut other = Position { boundary: self.position.boundary, ..Position::default() };
        let mut continued: BTreeSet<EventTime> =
            self.position.cut.then_some(self.position.boundary).into_iter().collect();
        let rules = Rules { slice: Some(Span(slice)), to_the_end: last, ..Rules::default() };
        for _ in 0..steps {
            refine(table, &mut now, self.position.boundary, slice, &mut continued);
            let Some(slice) = next_slice(&sources(&now, &self.position, beside.then_some((&ticks, &other))), &rules)
            else {
                break;
            };
            table.look(wanted(&mut now, self.position.boundary, slice.boundary, Span(10 * DAY)));
            let sources = sources(&now, &self.position, beside.then_some((&ticks, &other)));
            let Some(slice) = next_slice(&sources, &rules) else { break };
            let before = self.watermark.unwrap_or(EventTime::MIN);
            let watermark = watermark_after(&sources, &rules, slice.boundary, before);
            assert!(watermark >= before);
            for file in &slice.reads[0] {
                let known = &table.files[&file.path];
                let (from, to) = file.range.map_or((0, known.groups.len()), |(a, b)| (a as usize, b as usize));
                for (id, time) in known.groups[from..to].iter().flatten() {
                    *self.read.entry(*id).or_default() += 1;
                    assert!(!first || known.blind || EventTime(*time) >= before, "{file:?} is late in the first run");
                }
            }
            self.watermark = Some(watermark);
            cut::pass(&mut self.position, &now, &continued, slice.boundary);
            other.boundary = other.boundary.max(slice.boundary);
        }
    }
}

fn refine(table: &Table, now: &mut Snapshot, boundary: EventTime, slice: i64, continued: &mut BTreeSet<EventTime>) {
    let at = now.partitions.partition_point(|p| p.interval.start < boundary);
    if slice == 0 || now.partitions.get(at).is_none_or(|p| p.interval.end.0 - p.interval.start.0 <= slice) {
        return;
    }
    let mut partition = now.partitions.remove(at);
    partition.files = partition.files.into_iter().flat_map(|f| table.pieces(f)).collect();
    let parts = cut::refined(partition, now.by_statistics);
    if !now.by_statistics {
        continued.extend(parts[1..].iter().map(|p| p.interval.start));
    }
    now.partitions.splice(at..at, parts);
}

fn by_pieces(table: &Table, snapshot: &mut Snapshot, position: &Position) {
    for files in cut::straddling(snapshot, position) {
        *files = std::mem::take(files).into_iter().flat_map(|f| table.pieces(f)).collect();
    }
}

fn stand<'a>(snapshot: &'a Snapshot, position: &'a Position) -> Stand<'a> {
    Stand {
        snapshot,
        position,
        closed: snapshot.partitions.len(),
        bounded: false,
        goes_on: None,
        delay: Span(0),
        max_leak: Span(10 * DAY),
        horizon: EventTime(1_000_000),
    }
}

fn sources<'a>(
    now: &'a Snapshot,
    position: &'a Position,
    beside: Option<(&'a Snapshot, &'a Position)>,
) -> Vec<Stand<'a>> {
    let beside = beside.map(|(snapshot, position)| stand(snapshot, position));
    [stand(now, position)].into_iter().chain(beside).collect()
}

fn ticks(width: i64) -> Snapshot {
    let partition = |i: i64| TimePartition {
        interval: Interval { start: EventTime(i * width), end: EventTime((i + 1) * width) },
        files: vec![],
    };
    Snapshot {
        version: Version::Listing { digest: "ticks".into() },
        partitions: (0..60).map(partition).collect(),
        timeless: vec![],
        by_statistics: false,
        keepsake: None,
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append { day: i64, long: bool, blind: bool, groups: Vec<Vec<i64>> },
    Compact { which: u32, day: i64, long: bool, sorted: bool, halves: bool },
    Run { steps: usize, slice: i64, beside: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let group =
        (0..DAY, prop::collection::vec(-3..30i64, 1..4)).prop_map(|(at, by)| by.into_iter().map(|b| at + b).collect());
    let groups = prop::collection::vec(group, 1..5);
    prop_oneof![
        4 => (0..3i64, any::<bool>(), prop::bool::weighted(0.1), groups)
            .prop_map(|(day, long, blind, groups)| Op::Append { day, long, blind, groups }),
        1 => (any::<u32>(), 0..3i64, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, day, long, sorted, halves)| Op::Compact { which, day, long, sorted, halves }),
        2 => (0..4usize, prop_oneof![Just(0), Just(5), Just(40), Just(1000)], any::<bool>())
            .prop_map(|(steps, slice, beside)| Op::Run { steps, slice, beside }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_row_is_read_once(by_statistics: bool, logged: bool, ops in prop::collection::vec(op(), 1..16)) {
        let mut table = Table { by_statistics, logged, ..Table::default() };
        let mut reader = Reader::default();
        for op in ops {
            match op {
                Op::Append { day, long, blind, groups } => table.append(day, long, blind, &groups),
                Op::Compact { which, day, long, sorted, halves } => table.compact(which, day, long, sorted, halves),
                Op::Run { steps, slice, beside } => reader.run(&table, steps, slice, beside, false),
            }
        }
        reader.run(&table, 1000, 0, false, true);
        let wrong: Vec<_> = (1..=table.rows).filter(|id| reader.read.get(id) != Some(&1)).collect();
        prop_assert!(wrong.is_empty(), "rows {wrong:?} of {} were not read once: {:?}", table.rows, reader.read);
    }
}

/// A row group at the very end of another, in a partition that is looked at twice before it is read.
#[test]
fn a_partition_that_is_refined_again_keeps_its_end() {
    let mut table = Table { by_statistics: true, ..Table::default() };
    let mut reader = Reader::default();
    table.append(0, true, false, &[vec![28, 57], vec![57]]);
    reader.run(&table, 3, 5, true, false);
    reader.run(&table, 1000, 0, false, true);
    assert_eq!(reader.read, BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
}

/// Two files of a partition that was read in part, of which one is split, with no statistics in the log.
#[test]
fn a_rewritten_file_of_unknown_times_may_stand_on_either_side() {
    let mut table = Table::default();
    table.append(0, true, false, &[vec![16], vec![0]]);
    let mut reader = Reader::default();
    reader.run(&table, 1, 5, false, false);
    assert_eq!(reader.read, BTreeMap::from([(2, 1)]));
    table.append(0, false, false, &[vec![0], vec![16]]);
    table.compact(0b10, 0, false, false, true);
    reader.run(&table, 1000, 0, false, true);
    assert_eq!(reader.read, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1)]));
}

/// A table of two files, of which one was read, compacted into one.
#[test]
fn a_compaction_over_the_boundary_loses_nothing() {
    let mut table = Table { by_statistics: true, ..Table::default() };
    table.append(0, false, false, &[vec![0, 10]]);
    table.append(0, false, false, &[vec![20, 30]]);
    let mut reader = Reader::default();
    reader.run(&table, 1, 0, false, false);
    assert_eq!(reader.read.len(), 2);
    table.compact(u32::MAX, 0, false, true, false);
    reader.run(&table, 1, 0, false, false);
    assert_eq!(reader.read, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1)]));
}

#[test]
fn facts_that_are_gone_are_told_if_they_had_been_read() {
    let mut table = Table { by_statistics: true, ..Table::default() };
    table.append(0, false, false, &[vec![0, 10]]);
    table.append(0, false, false, &[vec![20, 30]]);
    let mut reader = Reader::default();
    reader.run(&table, 1, 0, false, false);
    let then = table.snapshot(2);
    for (path, read) in [("000", true), ("001", false)] {
        let interval = table.interval(&table.data_file(path));
        let removed = vec![Removed { version: "3".into(), path: path.into(), interval }];
        let grown = increment(&then, &then, Changes { removed, ..Changes::default() }, &reader.position);
        assert_eq!(grown.gone.is_some(), read, "{path}");
    }
}
