//! What one log entry did to rows: which files, and what of them. Pure.

use std::collections::BTreeMap;

use deltalake::kernel::{Add, AddCDCFile, DeletionVectorDescriptor, Remove};

use crate::keyed::live::identity;
use crate::log::LogCommit;

/// Rows of one file that all had the same done to them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) path: String,
    /// `None` where the log does not say.
    pub(crate) size: Option<i64>,
    /// Of partition columns; `None` where the log does not say.
    pub(crate) values: Option<BTreeMap<String, Option<String>>>,
    pub(crate) what: What,
    /// The rows are those that are marked by the first and not by the second; with no first, all but those of the second.
    pub(crate) marked: Option<DeletionVectorDescriptor>,
    pub(crate) unless: Option<DeletionVectorDescriptor>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Inserted,
    Deleted,
    /// The file's rows say it themselves.
    Told,
}

/// The parts of a version, what was deleted first.
pub(crate) fn plan(commit: &LogCommit) -> Vec<Part> {
    if !commit.changes.is_empty() {
        return commit.changes.iter().map(told).collect();
    }
    let mut removes: BTreeMap<&str, &Remove> = BTreeMap::new();
    for remove in commit.removes.iter().filter(|remove| remove.data_change) {
        removes.insert(&remove.path, remove);
    }
    let (mut deleted, mut inserted) = (vec![], vec![]);
    for add in commit.adds.iter().filter(|add| add.data_change) {
        let Some(before) = removes.remove(add.path.as_str()) else {
            inserted.push(part(add, What::Inserted, None, add.deletion_vector.clone()));
            continue;
        };
        if identity(&before.deletion_vector) == identity(&add.deletion_vector) {
            continue;
        }
        if add.deletion_vector.is_some() {
            let (now, then) = (add.deletion_vector.clone(), before.deletion_vector.clone());
            deleted.push(part(add, What::Deleted, now, then));
        }
        // Rows that are there again: the table was restored.
        if before.deletion_vector.is_some() {
            let (then, now) = (before.deletion_vector.clone(), add.deletion_vector.clone());
            inserted.push(part(add, What::Inserted, then, now));
        }
    }
    for remove in removes.into_values() {
        deleted.push(Part {
            path: remove.path.clone(),
            size: remove.size,
            values: remove.partition_values.clone().map(|values| values.into_iter().collect()),
            what: What::Deleted,
            marked: None,
            unless: remove.deletion_vector.clone(),
        });
    }
    deleted.extend(inserted);
    deleted
}

/// The parts of what a table holds: all rows are new.
pub(crate) fn content<'a>(files: impl Iterator<Item = &'a Add>) -> Vec<Part> {
    files.map(|add| part(add, What::Inserted, None, add.deletion_vector.clone())).collect()
}

fn part(
    add: &Add,
    what: What,
    marked: Option<DeletionVectorDescriptor>,
    unless: Option<DeletionVectorDescriptor>,
) -> Part {
    let values = Some(add.partition_values.clone().into_iter().collect());
    Part { path: add.path.clone(), size: Some(add.size), values, what, marked, unless }
}

fn told(file: &AddCDCFile) -> Part {
    let values = Some(file.partition_values.clone().into_iter().collect());
    let (path, size) = (file.path.clone(), Some(file.size));
    Part { path, size, values, what: What::Told, marked: None, unless: None }
}

#[cfg(test)]
mod tests {
    use deltalake::kernel::StorageType;

    use super::*;

    fn vector(name: &str) -> Option<DeletionVectorDescriptor> {
        Some(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: name.into(),
            offset: Some(1),
            size_in_bytes: 40,
            cardinality: 1,
        })
    }

    fn add(path: &str, vector: Option<DeletionVectorDescriptor>) -> Add {
        Add { path: path.into(), data_change: true, deletion_vector: vector, ..Add::default() }
    }

    fn remove(path: &str, vector: Option<DeletionVectorDescriptor>) -> Remove {
        Remove { path: path.into(), data_change: true, deletion_vector: vector, ..Remove::default() }
    }

    /// Path, what, and the names of the two vectors.
    fn said(commit: LogCommit) -> Vec<(String, What, Option<String>, Option<String>)> {
        let name = |v: Option<DeletionVectorDescriptor>| v.map(|v| v.path_or_inline_dv);
        plan(&commit).into_iter().map(|p| (p.path, p.what, name(p.marked), name(p.unless))).collect()
    }

    #[test]
    fn actions_are_read_as_changes() {
        let some = |text: &str| Some(text.to_string());
        let commit = LogCommit {
            adds: vec![add("new", None), add("born marked", vector("a")), add("marked", vector("c"))],
            removes: vec![remove("gone", vector("x")), remove("marked", vector("b"))],
            ..LogCommit::default()
        };
        let expected = [
            ("marked".to_string(), What::Deleted, some("c"), some("b")),
            ("gone".to_string(), What::Deleted, None, some("x")),
            ("new".to_string(), What::Inserted, None, None),
            ("born marked".to_string(), What::Inserted, None, some("a")),
            ("marked".to_string(), What::Inserted, some("b"), some("c")),
        ];
        assert_eq!(said(commit), expected);
    }

    #[test]
    fn what_changes_no_row_says_nothing() {
        let moved = Add { data_change: false, ..add("compacted", None) };
        let removes = vec![Remove { data_change: false, ..remove("a", None) }, remove("same", vector("v"))];
        let commit = LogCommit { adds: vec![moved, add("same", vector("v"))], removes, ..LogCommit::default() };
        assert_eq!(said(commit), []);
    }

    #[test]
    fn change_files_speak_for_their_version() {
        let file = AddCDCFile { path: "_change_data/c".into(), ..AddCDCFile::default() };
        let commit = LogCommit { changes: vec![file], adds: vec![add("new", None)], ..LogCommit::default() };
        assert_eq!(said(commit), [("_change_data/c".to_string(), What::Told, None, None)]);
    }
}
