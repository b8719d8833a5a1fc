//! The files of a keyed table at a version, with their marks: what changes are looked up in.
//!
//! **Invariant:** a file is known by its path together with its deletion vector, as the log does: what removes one with other
//! marks does not remove this one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove};
use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio::sync::OnceCell;
use watershed_core::{Error, Result};

use crate::history::marks;
use crate::log::{self, LogCommit};
use crate::stores::Place;
use crate::table::shape::Key;

/// Names a file within one process.
pub(crate) type FileId = u32;

/// The files of a version.
#[derive(Debug, Default)]
pub(crate) struct LiveFiles {
    partition_columns: Vec<String>,
    by_path: BTreeMap<String, Arc<LiveFile>>,
    paths: Vec<String>,
    ids: HashMap<String, FileId>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct LiveFile {
    pub(crate) id: FileId,
    pub(crate) add: Add,
    pub(crate) partition: Key,
    marks: OnceCell<Arc<RoaringTreemap>>,
}

impl LiveFiles {
    /// The files of the newest version that is not beyond `version`, which has to be there.
    pub(crate) async fn load(place: &Place, version: u64, partition_columns: &[String]) -> Result<LiveFiles> {
        let snapshot = log::snapshot(place, Some(version)).await?;
        let gone = || Error::stopped(format!("version {version} of table {} is gone", place.url));
        let snapshot = snapshot.ok_or_else(gone)?;
        let log_store = log::log_store(place);
        let mut views = snapshot.file_views(log_store.as_ref(), None);
        let mut files = LiveFiles { partition_columns: partition_columns.to_vec(), ..LiveFiles::default() };
        let fail = |e| Error::storage("cannot list the files of", place.url.as_str(), e);
        while let Some(view) = views.try_next().await.map_err(fail)? {
            files.add(Add {
                path: view.path().to_string(),
                partition_values: view.partition_values_map(),
                size: view.size(),
                modification_time: view.modification_time(),
                data_change: false,
                stats: view.stats(),
                deletion_vector: view.deletion_vector_descriptor(),
                ..Add::default()
            });
        }
        Ok(files)
    }

    /// Takes a commit in.
    pub(crate) fn apply(&mut self, commit: &LogCommit) {
        for remove in &commit.removes {
            self.remove(remove);
        }
        for add in &commit.adds {
            self.add(add.clone());
        }
    }

    /// Forgets the ids of files that are gone, once these are the most of them; all ids are other ones then.
    pub(crate) fn without_old_ids(self) -> LiveFiles {
        if self.paths.len() / 2 <= self.by_path.len() {
            return self;
        }
        let mut fewer = LiveFiles { partition_columns: self.partition_columns, ..LiveFiles::default() };
        for (path, file) in self.by_path {
            let id = fewer.id_of(&path);
            let (add, partition) = (file.add.clone(), file.partition.clone());
            fewer.by_path.insert(path, Arc::new(LiveFile { id, add, partition, marks: file.marks.clone() }));
        }
        fewer
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<LiveFile>> {
        self.by_path.values()
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Arc<LiveFile>> {
        self.by_path.get(path)
    }

    /// The file of an id, if it is still there.
    pub(crate) fn by_id(&self, id: FileId) -> Option<&Arc<LiveFile>> {
        self.by_path.get(self.paths.get(id as usize)?)
    }

    /// The id of a path; the same for as long as this process lives.
    pub(crate) fn id_of(&mut self, path: &str) -> FileId {
        if let Some(id) = self.ids.get(path) {
            return *id;
        }
        let id = FileId::try_from(self.paths.len()).unwrap_or(FileId::MAX);
        self.paths.push(path.to_string());
        self.ids.insert(path.to_string(), id);
        id
    }

    fn add(&mut self, add: Add) {
        let id = self.id_of(&add.path);
        // Delta takes an empty value for NULL.
        let value = |column| add.partition_values.get(column).cloned().flatten().filter(|v: &String| !v.is_empty());
        let partition = self.partition_columns.iter().map(value).collect();
        let path = add.path.clone();
        self.by_path.insert(path, Arc::new(LiveFile { id, add, partition, marks: OnceCell::new() }));
    }

    fn remove(&mut self, remove: &Remove) {
        let same = |file: &Arc<LiveFile>| identity(&file.add.deletion_vector) == identity(&remove.deletion_vector);
        if self.by_path.get(&remove.path).is_some_and(same) {
            self.by_path.remove(&remove.path);
        }
    }
}

impl LiveFile {
    /// The rows that are marked as deleted.
    pub(crate) async fn marks(&self, place: &Place) -> Result<Arc<RoaringTreemap>> {
        let load = || async {
            match &self.add.deletion_vector {
                None => Ok(Arc::default()),
                Some(vector) => {
                    let vector = marks::descriptor(vector.clone());
                    marks::bitmap(place, place.url.as_str(), &self.add.path, &vector).await.map(Arc::new)
                }
            }
        };
        self.marks.get_or_try_init(load).await.cloned()
    }

    /// Takes marks that are known already, to save reading them.
    pub(crate) fn know_marks(&self, marks: Arc<RoaringTreemap>) {
        // Already known: the same.
        let _ = self.marks.set(marks);
    }

    /// What removes this file with these very marks from the log.
    pub(crate) fn remove_action(&self, now: i64, data_change: bool) -> Remove {
        Remove {
            path: self.add.path.clone(),
            data_change,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(self.add.partition_values.clone()),
            size: Some(self.add.size),
            tags: self.add.tags.clone(),
            deletion_vector: self.add.deletion_vector.clone(),
            base_row_id: self.add.base_row_id,
            default_row_commit_version: self.add.default_row_commit_version,
        }
    }
}

/// What tells one deletion vector from another. Delta protocol, "Deletion Vectors".
pub(crate) fn identity(vector: &Option<DeletionVectorDescriptor>) -> Option<(String, String, Option<i32>)> {
    let of =
        |v: &DeletionVectorDescriptor| (v.storage_type.as_ref().to_string(), v.path_or_inline_dv.clone(), v.offset);
    vector.as_ref().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_files_that_are_gone_are_forgotten() {
        let add = |n: u32| Add { path: format!("{n}.parquet"), size: i64::from(n), ..Add::default() };
        let mut live = LiveFiles::default();
        for n in 0..1_000 {
            let removes = if n < 3 { vec![] } else { vec![Remove { path: add(n - 3).path, ..Remove::default() }] };
            live.apply(&LogCommit { adds: vec![add(n)], removes, ..LogCommit::default() });
            live = live.without_old_ids();
            assert!(live.paths.len() <= 8 && live.ids.len() == live.paths.len(), "{n}");
        }
        let found: Vec<i64> = live.iter().map(|file| live.by_id(file.id).unwrap().add.size).collect();
        assert_eq!(found, [997, 998, 999]);
    }
}
