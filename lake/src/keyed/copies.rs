//! `write_mode = 'copy-on-write'`: files without the rows that a commit replaces, in the place of those with them.
//!
//! For readers that do not know deletion vectors; a commit costs what the files that it touches hold.

use std::sync::Arc;

use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio::sync::mpsc;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::files::{At, TableFiles};
use crate::table::encode::{Encoding, Part};

/// Batches between reading and writing.
const WAITING: usize = 4;

/// Writes a file anew without some of its rows.
pub(crate) async fn without(
    files: &TableFiles<'_>,
    encoding: &Arc<Encoding>,
    at: At<'_>,
    rows: &RoaringTreemap,
) -> Result<Vec<WrittenFile>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let writing = tokio::spawn(encoding.clone().run(at.partition.clone(), receiver));
    let mut batches = files.others(at, rows).await?;
    while let Some(rows) = batches.try_next().await? {
        if sender.send(Part { rows, keys: None }).await.is_err() {
            return Err(encoding.failure());
        }
    }
    drop(sender);
    let written = writing.await.map_err(|e| Error::bug(format!("a file's encoder died: {e}")))?;
    let written = written.ok_or_else(|| encoding.failure())?;
    Ok(written.into_iter().map(|encoded| encoded.file).collect())
}
