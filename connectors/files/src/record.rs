//! Which epochs a folder has, apart from their files, for these may be taken away by whoever reads them.
//!
//! ```text
//! {folder}/_watershed/{stem}/epochs/{epoch:020}.json      the epoch's end positions and watermark
//! ```
//!
//! Invariant: the highest number counts, and a record is there only after all files of its epoch. So a record that comes late,
//! of a runner that was overtaken, says nothing new.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::Value;
use watershed_core::sink::LastCommit;
use watershed_core::{Error, Result};

/// How often what may pass is tried, and the first pause between two.
pub(crate) const TRIES: u32 = 5;
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

const SUFFIX: &str = ".json";

pub(crate) struct Records {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Records { store, folder }
    }

    /// The last epoch that the folder has.
    pub(crate) async fn last(&self) -> Result<Option<u64>> {
        Ok(self.all().await?.into_iter().max())
    }

    /// The same with what was recorded of it.
    pub(crate) async fn read(&self) -> Result<Option<LastCommit>> {
        let Some(epoch) = self.last().await? else { return Ok(None) };
        let path = self.at(epoch);
        let failed = |e| Error::storage("cannot read", path.as_ref(), e);
        let bytes = self.store.get(&path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        // The number is in the name; without the rest nothing can be repeated, which whoever asks for it says.
        let info = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Some(LastCommit { epoch, info }))
    }

    /// Records an epoch, and removes the records before it.
    pub(crate) async fn write(&self, epoch: u64, info: &BTreeMap<String, Value>) -> Result<()> {
        let text = serde_json::to_vec(info).map_err(|e| Error::bug(format!("the record of an epoch: {e}")))?;
        let path = self.at(epoch);
        let mut tries = 0;
        // Written twice it is the same.
        while let Err(e) = self.store.put(&path, PutPayload::from(text.clone())).await {
            tries += 1;
            if tries == TRIES {
                return Err(Error::storage_unknown("could not write", path.as_ref(), e));
            }
            tracing::warn!(file = path.as_ref(), "writing is tried again: {e}");
            tokio::time::sleep(PAUSE * tries).await;
        }
        match self.all().await {
            Ok(all) => {
                for before in all.into_iter().filter(|other| *other < epoch) {
                    delete(self.store.as_ref(), &self.at(before)).await;
                }
            }
            Err(e) => tracing::debug!("records of earlier epochs are left: {e}"),
        }
        Ok(())
    }

    async fn all(&self) -> Result<Vec<u64>> {
        let found: Vec<_> = self
            .store
            .list(Some(&self.folder))
            .try_collect()
            .await
            .map_err(|e| Error::storage("cannot list", self.folder.as_ref(), e))?;
        let number = |path: &Path| path.filename()?.strip_suffix(SUFFIX)?.parse().ok();
        Ok(found.into_iter().filter_map(|file| number(&file.location)).collect())
    }

    fn at(&self, epoch: u64) -> Path {
        self.folder.clone().join(format!("{epoch:020}{SUFFIX}"))
    }
}

/// What is not removed now is only in the way of nobody.
pub(crate) async fn delete(store: &dyn ObjectStore, path: &Path) {
    match store.delete(path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(e) => tracing::warn!(file = path.as_ref(), "a file was not removed: {e}"),
    }
}
