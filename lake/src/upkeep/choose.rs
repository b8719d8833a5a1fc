//! Which files of a table are worth rewriting, and which of them together. Pure.

use std::collections::BTreeMap;

use crate::table::shape::Key;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) partition: Key,
    pub(crate) bytes: u64,
    /// Marked ones included; `None` if the log does not say.
    pub(crate) rows: Option<u64>,
    pub(crate) marked: u64,
    /// How its rows were put in order, if it says so.
    pub(crate) order: Option<String>,
}

impl Candidate {
    /// The part of its rows that are marked.
    fn dead(&self) -> f64 {
        self.rows.filter(|rows| *rows > 0).map_or(0.0, |rows| self.marked as f64 / rows as f64)
    }

    /// Bytes that its unmarked rows will take, about.
    fn live_bytes(&self) -> u64 {
        (self.bytes as f64 * (1.0 - self.dead())) as u64
    }
}

/// When a file is rewritten.
#[derive(Clone, Debug)]
pub(crate) struct Worth {
    /// Bytes that a file shall have.
    pub(crate) target: u64,
    /// Part of marked rows from which on a file is rewritten whatever its size.
    pub(crate) dead: f64,
    /// Files with nothing but marked rows stay: they tell how old deletions are.
    pub(crate) keep_dead: bool,
    /// How rows shall be put in order: then all files of a partition are rewritten, unless all are in this order.
    pub(crate) order: Option<String>,
}

impl Worth {
    fn small(&self, file: &Candidate) -> bool {
        file.bytes < self.target / 2
    }
}

/// The files to be rewritten, those of a bin into about one; of one partition, in the order of their paths. A partition in which
/// none is for its marks is left alone while it has fewer of them than `least` says.
pub(crate) fn choose(files: Vec<Candidate>, worth: &Worth, least: impl Fn(&Key) -> usize) -> Vec<Vec<Candidate>> {
    let mut by_partition: BTreeMap<Key, Vec<Candidate>> = BTreeMap::new();
    for file in files {
        let gone = file.rows == Some(file.marked) && file.marked > 0;
        let chosen = worth.order.is_some() || worth.small(&file) || file.dead() >= worth.dead;
        if chosen && !(gone && worth.keep_dead) {
            by_partition.entry(file.partition.clone()).or_default().push(file);
        }
    }
    let mut bins = vec![];
    for (partition, mut files) in by_partition {
        let in_order = worth.order.is_some() && files.iter().all(|file| file.order == worth.order);
        let least = least(&partition);
        if in_order {
            continue;
        }
        if least > 0 && files.iter().all(|file| file.dead() < worth.dead) {
            near_in_size(&mut files);
            if files.len() < least {
                continue;
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut bin: Vec<Candidate> = vec![];
        let mut bytes = 0;
        for file in files {
            if !bin.is_empty() && bytes + file.live_bytes() > worth.target {
                bins.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += file.live_bytes();
            bin.push(file);
        }
        bins.push(bin);
    }
    // A file alone is rewritten only to be rid of its marked rows.
    bins.retain(|bin| bin.len() > 1 || worth.order.is_some() || bin.iter().any(|file| file.dead() >= worth.dead));
    bins
}

/// Leaves out files that are much larger than all smaller ones together: they wait until these have come up to them, so that
/// what comes little by little is not written anew each time, but as often as the logarithm of it.
fn near_in_size(files: &mut Vec<Candidate>) {
    files.sort_by_key(|file| file.bytes);
    let mut smaller = 0;
    let large = files.iter().position(|file| {
        let large = smaller > 0 && file.bytes > 2 * smaller;
        smaller += file.bytes;
        large
    });
    files.truncate(large.unwrap_or(files.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, day: &str, bytes: u64, marked: u64) -> Candidate {
        let partition = vec![Some(day.to_string())];
        Candidate { path: path.to_string(), partition, bytes, rows: Some(100), marked, order: None }
    }

    fn chosen(files: &[Candidate], keep_dead: bool) -> Vec<Vec<String>> {
        paths(choose(files.to_vec(), &Worth { target: 100, dead: 0.2, keep_dead, order: None }, |_| 0))
    }

    fn paths(bins: Vec<Vec<Candidate>>) -> Vec<Vec<String>> {
        bins.into_iter().map(|bin| bin.into_iter().map(|f| f.path).collect()).collect()
    }

    #[test]
    fn small_files_of_a_partition_go_together() {
        let files = [file("a", "1", 40, 0), file("b", "1", 40, 0), file("c", "1", 40, 0), file("d", "2", 40, 0)];
        assert_eq!(chosen(&files, false), [["a", "b"]]);
        assert_eq!(chosen(&[file("a", "1", 40, 0), file("b", "2", 40, 0)], false), Vec::<Vec<String>>::new());
        // Large ones are left alone.
        assert_eq!(chosen(&[file("a", "1", 90, 0), file("b", "1", 60, 0)], false), Vec::<Vec<String>>::new());
    }

    #[test]
    fn files_with_many_marked_rows_are_rewritten_alone_too() {
        assert_eq!(chosen(&[file("a", "1", 500, 19), file("b", "1", 500, 20)], false), [["b"]]);
        // A bin holds what is left of its files.
        let files = [file("a", "1", 100, 60), file("b", "1", 100, 60), file("c", "1", 100, 60)];
        assert_eq!(chosen(&files, false), [vec!["a", "b"], vec!["c"]]);
    }

    #[test]
    fn an_order_takes_whole_partitions_once() {
        let worth = Worth { target: 100, dead: 0.2, keep_dead: false, order: Some("sorted(a)".into()) };
        let ordered = |path: &str, day: &str| Candidate { order: worth.order.clone(), ..file(path, day, 90, 0) };
        let files =
            [ordered("a", "1"), ordered("b", "1"), ordered("c", "2"), file("d", "2", 10, 0), file("e", "3", 90, 0)];
        assert_eq!(paths(choose(files.to_vec(), &worth, |_| 0)), [vec!["c", "d"], vec!["e"]]);
    }

    #[test]
    fn partitions_with_few_files_may_be_left_alone() {
        let files: Vec<Candidate> = (0..3).map(|i| file(&i.to_string(), "1", 10, 0)).collect();
        let worth = Worth { target: 100, dead: 0.2, keep_dead: false, order: None };
        assert_eq!(paths(choose(files.clone(), &worth, |_| 3)), [["0", "1", "2"]]);
        assert!(choose(files.clone(), &worth, |_| 4).is_empty());
        // A large one waits for as much again, or for its marks.
        let large = [files.clone(), vec![file("large", "1", 49, 0)]].concat();
        let worth_200 = Worth { target: 200, ..worth.clone() };
        assert_eq!(paths(choose(large.clone(), &worth_200, |_| 3)), [["0", "1", "2", "large"]]);
        let larger = [files.clone(), vec![file("large", "1", 61, 0)]].concat();
        assert_eq!(paths(choose(larger.clone(), &worth_200, |_| 3)), [["0", "1", "2"]]);
        assert_eq!(choose(larger.clone(), &worth_200, |_| 4).len(), 0);
        assert_eq!(paths(choose(larger, &worth_200, |_| 0)), [["0", "1", "2", "large"]]);
        let marked = [files, vec![file("3", "1", 90, 30)]].concat();
        assert_eq!(paths(choose(marked, &worth, |_| 9)), [["0", "1", "2", "3"]]);
    }

    #[test]
    fn deletions_are_remembered_where_they_must_be() {
        let files = [file("a", "1", 10, 100), file("b", "1", 10, 0)];
        assert_eq!(chosen(&files, false), [["a", "b"]]);
        assert_eq!(chosen(&files, true), Vec::<Vec<String>>::new());
    }
}
