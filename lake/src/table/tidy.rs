//! When a sink looks after its table's files, and in which partitions it waits for more of them: in those that still get rows.
//!
//! Epochs come in the order of time, so a partition that the last ones had no rows for is taken for closed. If rows come to it all the
//! same, that is one more file; nothing is lost.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::shape::Key;

/// Commits after which a partition that got no rows is closed.
const RECENT: usize = 2;

/// What one sink committed lately.
#[derive(Debug, Default)]
pub(crate) struct Tidy(Mutex<Commits>);

#[derive(Debug, Default)]
struct Commits {
    /// Since the table was last looked after.
    since: usize,
    recent: VecDeque<BTreeSet<Key>>,
}

impl Tidy {
    pub(crate) fn committed(&self, partitions: impl Iterator<Item = Key>) {
        let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        commits.since += 1;
        commits.recent.push_back(partitions.collect());
        if commits.recent.len() > RECENT {
            commits.recent.pop_front();
        }
    }

    /// The partitions that are open, once there may be another `every` files in one; `None`: not yet.
    pub(crate) fn due(&self, every: usize) -> Option<BTreeSet<Key>> {
        let mut commits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if every == 0 || commits.since < every {
            return None;
        }
        commits.since = 0;
        Some(commits.recent.iter().flatten().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_the_last_commits_are_open() {
        let tidy = Tidy::default();
        let day = |n: usize| vec![Some(n.to_string())];
        for n in 0..3 {
            tidy.committed([day(n), day(7)].into_iter());
        }
        assert_eq!((tidy.due(4), tidy.due(0)), (None, None));
        tidy.committed([day(3)].into_iter());
        assert_eq!(tidy.due(4), Some(BTreeSet::from([day(2), day(3), day(7)])));
        assert_eq!(tidy.due(4), None);
    }
}
