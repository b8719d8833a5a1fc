//! Which files of a table are worth rewriting, and which of them together. Pure.

use std::collections::BTreeMap;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) partition: Vec<Option<String>>,
    pub(crate) bytes: u64,
    /// Marked ones included; `None` if the log does not say.
    pub(crate) rows: Option<u64>,
    pub(crate) marked: u64,
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worth {
    /// Bytes that a file shall have.
    pub(crate) target: u64,
    /// Part of marked rows from which on a file is rewritten whatever its size.
    pub(crate) dead: f64,
    /// Files with nothing but marked rows stay: they tell how old deletions are.
    pub(crate) keep_dead: bool,
}

/// The files to be rewritten, those of a bin into about one; of one partition, in the order of their paths.
pub(crate) fn choose(files: Vec<Candidate>, worth: Worth) -> Vec<Vec<Candidate>> {
    let mut by_partition: BTreeMap<Vec<Option<String>>, Vec<Candidate>> = BTreeMap::new();
    for file in files {
        let gone = file.rows == Some(file.marked) && file.marked > 0;
        let small = file.bytes < worth.target / 2;
        if (small || file.dead() >= worth.dead) && !(gone && worth.keep_dead) {
            by_partition.entry(file.partition.clone()).or_default().push(file);
        }
    }
    let mut bins = vec![];
    for mut files in by_partition.into_values() {
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
    bins.retain(|bin| bin.len() > 1 || bin.iter().any(|file| file.dead() >= worth.dead));
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, day: &str, bytes: u64, marked: u64) -> Candidate {
        let partition = vec![Some(day.to_string())];
        Candidate { path: path.to_string(), partition, bytes, rows: Some(100), marked }
    }

    fn chosen(files: &[Candidate], keep_dead: bool) -> Vec<Vec<String>> {
        let worth = Worth { target: 100, dead: 0.2, keep_dead };
        let bins = choose(files.to_vec(), worth);
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
    fn deletions_are_remembered_where_they_must_be() {
        let files = [file("a", "1", 10, 100), file("b", "1", 10, 0)];
        assert_eq!(chosen(&files, false), [["a", "b"]]);
        assert_eq!(chosen(&files, true), Vec::<Vec<String>>::new());
    }
}
