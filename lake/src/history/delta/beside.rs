//! What others than the archive of a log committed to a table.
//!
//! Whose a commit is, its `txn` actions say: an archive records in each how far its log is in the table. All else that changes
//! rows is somebody's who loads, updates or deletes facts. When those happened is asked of the files: of one that came, of what
//! the log says of it, and of one that went, of the version right before.

use std::collections::{BTreeMap, BTreeSet};

use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use watershed_core::Result;
use watershed_core::history::{Archives, Beside, DataFile, History, Removed, Version};
use watershed_core::time::Interval;

use super::{DeltaHistory, gone};
use crate::keyed::live::identity;
use crate::log::{self, LogCommit};

/// Log entries that are fetched at once: a job that stood still for a week has thousands of its archive to pass over.
const AT_ONCE: usize = 16;

impl DeltaHistory {
    /// From a version of this table, exclusive, to the newest.
    pub(super) async fn others(&self, since: u64, archives: &Archives) -> Result<Beside> {
        let entries = log::list_log(&self.place, Some(since)).await?;
        let newest =
            entries.iter().filter(|(_, meta)| log::is_commit(&meta.location)).map(|(version, _)| *version).max();
        let newest = newest.unwrap_or(since);
        let version = Version::Delta { version: newest, table_id: self.table_id.clone() };
        let mut beside = Beside { version, came: vec![], gone: vec![] };
        let read = |version| async move { Ok((version, log::read_commit(&self.place, version).await?)) };
        let mut commits = futures::stream::iter(since + 1..=newest).map(read).buffered(AT_ONCE);
        while let Some((version, commit)) = commits.try_next().await? {
            let commit: LogCommit = commit.ok_or_else(|| gone(&self.layout.location, version, since))?;
            if let Some(metadata) = commit.metadata.as_ref().filter(|m| m.id != self.table_id) {
                return Err(self.anew(&metadata.id, &self.table_id));
            }
            if !commit.transactions.iter().any(|t| archives(&t.app_id)) {
                self.note(commit, &mut beside).await?;
            }
        }
        Ok(beside)
    }

    /// What one commit changed.
    async fn note(&self, commit: LogCommit, beside: &mut Beside) -> Result<()> {
        let removes = commit.removes.into_iter().filter(|remove| remove.data_change);
        let mut removed: BTreeMap<String, _> = removes.map(|r| (r.path, identity(&r.deletion_vector))).collect();
        let mut went: BTreeSet<String> = BTreeSet::new();
        for add in commit.adds.into_iter().filter(|add| add.data_change) {
            match removed.remove(&add.path) {
                None => beside.came.push(self.times(add).await?),
                Some(before) if before == identity(&add.deletion_vector) => {}
                Some(_) => _ = went.insert(add.path),
            }
        }
        went.extend(removed.into_keys());
        if went.is_empty() {
            return Ok(());
        }
        for (path, happened) in self.known(commit.version.saturating_sub(1), &went).await? {
            let removed = Removed { version: commit.version.to_string(), path, interval: None };
            beside.gone.push((removed, happened));
        }
        Ok(())
    }

    /// When the facts of a file happened that a commit brought.
    async fn times(&self, add: Add) -> Result<Interval> {
        let (partition, mut file) = self.placed(add).await?;
        History::look(self, &mut [&mut file]).await?;
        Ok(file.happened(partition))
    }

    /// Of each of these files, the path in its store and when its facts happened, as a version knows it.
    async fn known(&self, version: u64, paths: &BTreeSet<String>) -> Result<Vec<(String, Interval)>> {
        let paths = paths.iter().map(|path| Ok(self.place.at(path)?.to_string())).collect::<Result<BTreeSet<_>>>()?;
        let mut known = BTreeMap::new();
        if let Some(snapshot) = log::snapshot(&self.place, Some(version)).await? {
            for file in self.files(&snapshot).await?.into_iter().filter(|file| paths.contains(&file.path)) {
                let (partition, file) = self.place_in_time(self.key.as_ref(), file).await?;
                known.insert(file.path.clone(), file.happened(partition));
            }
        }
        let always = DataFile::new("", 0).happened(None);
        Ok(paths.into_iter().map(|path| (path.clone(), known.get(&path).copied().unwrap_or(always))).collect())
    }
}
