//! What commits that won mean to a keyed commit that was worked out on the version before them. Pure (design §7).
//!
//! delta-rs's own checker is not asked: it lets a compaction win against a mark, which would bring the old row back beside
//! its compacted copy.

use std::collections::{BTreeSet, HashSet};

use super::index::Group;
use super::resolve::group;
use crate::log::LogCommit;
use crate::table::commit::Conflict;
use crate::table::shape::Key;

/// What a keyed commit depends on.
#[derive(Debug, Default)]
pub(crate) struct Footing {
    /// Files that it marks or removes.
    pub(crate) touched: BTreeSet<String>,
    /// Where its keys may lie.
    pub(crate) groups: HashSet<Group>,
    pub(crate) fixes_partition: bool,
}

/// Judges the winning commits.
pub(crate) fn conflict(
    applications: &[&str],
    footing: &Footing,
    partition_columns: &[String],
    winning: &[LogCommit],
) -> Conflict {
    let ours = |app: &str| applications.contains(&app);
    if winning.iter().any(|c| c.metadata.is_some() || c.protocol.is_some()) {
        return Conflict::Table;
    }
    if winning.iter().any(|c| c.transactions.iter().any(|t| ours(&t.app_id))) {
        return Conflict::Transaction;
    }
    for commit in winning {
        // Removed, compacted, or marked by another: our marks speak of a file that is no more what it was.
        if commit.removes.iter().any(|remove| footing.touched.contains(&remove.path)) {
            return Conflict::Rebase;
        }
        let partition = |add: &deltalake::kernel::Add| -> Key {
            let value = |column| add.partition_values.get(column).cloned().flatten().filter(|v: &String| !v.is_empty());
            partition_columns.iter().map(value).collect()
        };
        for add in &commit.adds {
            // New rows where our keys may lie. What only moved rows removed their files, which was looked at above.
            let near = footing.groups.contains(&group(footing.fixes_partition, &partition(add)));
            if footing.touched.contains(&add.path) || (add.data_change && near) {
                return Conflict::Rebase;
            }
        }
    }
    Conflict::None
}

#[cfg(test)]
mod tests {
    use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove, StorageType, Transaction};

    use super::*;
    use crate::log::{LogMetadata, LogProtocol};

    fn add(path: &str, day: &str, data_change: bool) -> Add {
        let partition_values = [("day".to_string(), Some(day.to_string()))].into();
        Add { path: path.into(), partition_values, data_change, ..Add::default() }
    }

    fn remove(path: &str, data_change: bool) -> Remove {
        Remove { path: path.into(), data_change, ..Remove::default() }
    }

    fn judged(commit: LogCommit) -> Conflict {
        let groups = [Some(vec![Some("1".to_string())])].into();
        let footing = Footing { touched: ["f".to_string()].into(), groups, fixes_partition: true };
        conflict(&["us"], &footing, &["day".to_string()], &[LogCommit::default(), commit])
    }

    fn commit(adds: Vec<Add>, removes: Vec<Remove>) -> LogCommit {
        LogCommit { adds, removes, ..LogCommit::default() }
    }

    #[test]
    fn every_kind_of_commit_is_judged() {
        assert_eq!(judged(LogCommit::default()), Conflict::None);
        // Appends: where our keys may lie, and elsewhere.
        assert_eq!(judged(commit(vec![add("n", "1", true)], vec![])), Conflict::Rebase);
        assert_eq!(judged(commit(vec![add("n", "2", true)], vec![])), Conflict::None);
        // Deletes of files that we mark, and of others.
        assert_eq!(judged(commit(vec![], vec![remove("f", true)])), Conflict::Rebase);
        assert_eq!(judged(commit(vec![], vec![remove("g", true)])), Conflict::None);
        // A compaction of a file that we mark: delta-rs would let it pass, and the old row come back.
        assert_eq!(judged(commit(vec![add("n", "1", false)], vec![remove("f", false)])), Conflict::Rebase);
        // A compaction of others only moves rows that are none of ours.
        assert_eq!(judged(commit(vec![add("n", "1", false)], vec![remove("g", false)])), Conflict::None);
        // Another's marks on a file of ours, and on others.
        let vector = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: "v".into(),
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 1,
        };
        let marked = |path| Add { deletion_vector: Some(vector.clone()), ..add(path, "1", true) };
        assert_eq!(judged(commit(vec![marked("f")], vec![remove("f", true)])), Conflict::Rebase);
        // A row that was deleted there is no matter; one that came back would be: it is read again.
        assert_eq!(judged(commit(vec![marked("g")], vec![remove("g", true)])), Conflict::Rebase);
        // Our own application, another's, and the table itself.
        let with = |app: &str| LogCommit { transactions: vec![Transaction::new(app, 1)], ..LogCommit::default() };
        assert_eq!(judged(with("us")), Conflict::Transaction);
        assert_eq!(judged(with("them")), Conflict::None);
        assert_eq!(judged(LogCommit { metadata: Some(LogMetadata::default()), ..Default::default() }), Conflict::Table);
        assert_eq!(judged(LogCommit { protocol: Some(LogProtocol::default()), ..Default::default() }), Conflict::Table);
    }
}
