//! What others than the archive of a log committed to a table.
//!
//! Whose a commit is, its `txn` actions say: an archive records in each how far its log is in the table. All else that changes
//! rows is somebody's who loads, updates or deletes facts; and so are messages that an archive plays back, for whoever reads its
//! log has passed them over. When facts happened is asked of the files: of one that came, of what the log says of it, and of one
//! that went, of the version that was known.
//!
//! A file may be gone again, and its footer with it. Then it is taken to be as wide as its partition: that more is looked at than
//! need be costs time and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use watershed_core::history::{Archives, Beside, DataFile, History, Removed, Times, Version};
use watershed_core::sink::PLAYED_BACK;
use watershed_core::time::Interval;
use watershed_core::{Error, Result};

use super::{DeltaHistory, gone};
use crate::keyed::live::identity;
use crate::log::{self, LogCommit};
use crate::table::commit;

/// Log entries that are fetched at once: a job that stood still for a week has thousands of its archive to pass over.
const AT_ONCE: usize = 16;

/// What has been found.
#[derive(Default)]
struct Found {
    /// Files that came, whoever brought them, as they were last listed.
    adds: BTreeMap<String, Add>,
    /// Those of them that others brought with new facts.
    came: BTreeSet<String>,
    /// Files of which others took facts away, and the first version that did.
    went: BTreeMap<String, u64>,
}

impl DeltaHistory {
    /// From a version of this table, exclusive, to the newest.
    pub(super) async fn others(&self, since: u64, archives: &Archives, times_of_gone: bool) -> Result<Beside> {
        let entries = log::list_log(&self.place, Some(since)).await?;
        let newest =
            entries.iter().filter(|(_, meta)| log::is_commit(&meta.location)).map(|(version, _)| *version).max();
        let newest = newest.unwrap_or(since);
        let read = |version| async move { Ok((version, log::read_commit(&self.place, version).await?)) };
        let mut commits = futures::stream::iter(since + 1..=newest).map(read).buffered(AT_ONCE);
        let mut found = Found::default();
        while let Some((version, commit)) = commits.try_next().await? {
            let commit: LogCommit = commit.ok_or_else(|| gone(&self.layout.location, version, since))?;
            if let Some(metadata) = commit.metadata.as_ref().filter(|m| m.id != self.table_id) {
                return Err(self.anew(&metadata.id, &self.table_id));
            }
            let archived = commit.transactions.iter().any(|t| archives(&t.app_id));
            if !archived || commit::info(&commit).contains_key(PLAYED_BACK) {
                found.note(&commit);
            }
            found.adds.extend(commit.adds.into_iter().map(|add| (add.path.clone(), add)));
        }
        // What came and went in between was never known.
        found.went.retain(|path, _| !found.came.contains(path));
        let first = found.went.iter().min_by_key(|(_, version)| **version);
        let first = first.map(|(path, version)| {
            let path = self.place.at(path)?.to_string();
            Ok::<_, Error>(Removed { version: version.to_string(), path, interval: None })
        });
        let gone = first.transpose()?;
        let mut changed = vec![];
        for path in &found.came {
            changed.extend(self.times(&found.adds, path).await?);
        }
        if times_of_gone {
            changed.extend(self.times_of_gone(since, &found).await?);
        }
        let version = Version::Delta { version: newest, table_id: self.table_id.clone() };
        Ok(Beside { version, changed, gone })
    }

    async fn times_of_gone(&self, since: u64, found: &Found) -> Result<Vec<Interval>> {
        let (mut changed, mut known) = (vec![], BTreeSet::new());
        for path in found.went.keys() {
            match self.times(&found.adds, path).await? {
                Some(times) => changed.push(times),
                None => _ = known.insert(self.place.at(path)?.to_string()),
            }
        }
        if known.is_empty() {
            return Ok(changed);
        }
        match log::snapshot(&self.place, Some(since)).await {
            Ok(Some(snapshot)) => {
                for file in self.files(&snapshot).await? {
                    if known.remove(&file.path) {
                        changed.push(self.happened(file).await?);
                    }
                }
            }
            Ok(None) => {}
            Err(e) => tracing::warn!("table {}: when removed facts happened is not known: {e}", self.layout.location),
        }
        // Of what no version tells of any more, all times.
        changed.extend(known.iter().map(|_| DataFile::new("", 0).happened(None)));
        Ok(changed)
    }

    /// When the facts of one of these files happened; `None` if it is none of them.
    async fn times(&self, adds: &BTreeMap<String, Add>, path: &str) -> Result<Option<Interval>> {
        let Some(add) = adds.get(path) else { return Ok(None) };
        self.happened(self.added(add.clone())?).await.map(Some)
    }

    async fn happened(&self, mut file: DataFile) -> Result<Interval> {
        let partition = match &self.key {
            Some(key) => self.place_in_time(Some(key), file.clone()).await?.0,
            None => None,
        };
        if file.times == Times::Unknown
            && let Err(e) = self.look(&mut [&mut file]).await
        {
            tracing::debug!(file = file.path, "its times are not known any more: {e}");
        }
        Ok(file.happened(partition))
    }
}

impl Found {
    /// What a commit of others changed.
    fn note(&mut self, commit: &LogCommit) {
        let removes = commit.removes.iter().filter(|remove| remove.data_change);
        let mut removed: BTreeMap<&str, _> = removes.map(|r| (r.path.as_str(), identity(&r.deletion_vector))).collect();
        let mut went = |path: &str| _ = self.went.entry(path.to_string()).or_insert(commit.version);
        for add in commit.adds.iter().filter(|add| add.data_change) {
            match removed.remove(add.path.as_str()) {
                None => _ = self.came.insert(add.path.clone()),
                Some(before) if before == identity(&add.deletion_vector) => {}
                Some(_) => went(&add.path),
            }
        }
        removed.into_keys().for_each(went);
    }
}
