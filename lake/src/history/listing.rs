//! The listing of a folder: which files are its own, the version that they are, and the keepsake that brings it back.
//!
//! Segments that begin with `_` or `.` are passed over, as everywhere. A listing also keeps what was seen in its files, so that
//! none is opened twice to learn that; this is no part of the version.
//!
//! Invariant: two listings have the same digest if they have the same files: path, size, and ETag or modification time.

use std::fmt::Write;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use watershed_core::history::{DataFile, Times};
use watershed_core::text::TextFiles;
use watershed_core::{Error, Result};

use crate::stores::Place;

/// What a folder's files are.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Parquet,
    Text(TextFiles),
}

/// One line of a listing. `tag` is the ETag, or the modification time where there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) tag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<Seen>,
}

/// What was seen in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The column that the times are of.
    column: Option<String>,
    rows: Option<u64>,
    times: Times,
}

impl Kind {
    /// What the names of its files end with.
    pub(super) fn endings(&self) -> Vec<String> {
        match self {
            Kind::Parquet => vec![".parquet".to_string()],
            Kind::Text(text) => text.format.endings(),
        }
    }
}

impl Entry {
    /// Whether the two are one file, unchanged.
    pub(super) fn is(&self, other: &Entry) -> bool {
        (&self.path, self.size, &self.tag) == (&other.path, other.size, &other.tag)
    }

    /// Keeps what is known of the file.
    pub(super) fn keep(&mut self, file: &DataFile, column: Option<&str>) {
        let known = file.rows.is_some() || file.times != Times::Unknown;
        let column = column.map(str::to_string);
        self.seen = known.then_some(Seen { column, rows: file.rows, times: file.times });
    }

    /// Forgets what was seen of another column.
    pub(super) fn only_of(&mut self, column: Option<&str>) {
        self.seen.take_if(|seen| seen.column.as_deref() != column);
    }

    /// The file, with what was seen in it.
    pub(super) fn file(&self, values: Vec<Option<String>>) -> DataFile {
        let file = DataFile { values, ..DataFile::new(&self.path, self.size) };
        match self.seen {
            Some(Seen { rows, times, .. }) => DataFile { rows, times, ..file },
            None => file,
        }
    }
}

/// The files of a kind below a place, by path.
pub(super) async fn list(place: &Place, kind: &Kind) -> Result<Vec<Entry>> {
    let endings = kind.endings();
    let is_one = |path: &str| endings.iter().any(|ending| path.ends_with(ending.as_str()));
    let mut listed = place.store.list(Some(&place.path));
    let mut entries = vec![];
    loop {
        match listed.try_next().await {
            Ok(Some(meta)) => {
                let relative = relative(place, meta.location.as_ref());
                let hidden = relative.split('/').any(|s| s.starts_with(['_', '.']) && !s.contains('='));
                if hidden || !is_one(relative) {
                    continue;
                }
                match (kind, meta.size) {
                    (Kind::Parquet, 0) => return Err(empty(place, &meta)),
                    // No line of it was written yet: it comes when it has some.
                    (Kind::Text(_), 0) => {}
                    _ => entries.push(entry(&meta)),
                }
            }
            Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
            Err(e) => return Err(Error::storage("cannot list", place.url.as_str(), e)),
        }
    }
    // A location may be one file.
    if entries.is_empty()
        && is_one(place.path.as_ref())
        && let Ok(meta) = place.store.head(&place.path).await
    {
        entries.push(entry(&meta));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// To pass over it would lose what is still to be written to it.
fn empty(place: &Place, meta: &ObjectMeta) -> Error {
    Error::input(format!(
        "{}: {} has no bytes, and so is no Parquet file: it is still being written, or its writer died; wait for it, write it \
         anew, or take it away",
        place.url, meta.location
    ))
}

fn entry(meta: &ObjectMeta) -> Entry {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    Entry { path: meta.location.to_string(), size: meta.size, tag, seen: None }
}

/// A file's path below the place.
pub(super) fn relative<'a>(place: &Place, path: &'a str) -> &'a str {
    path.strip_prefix(place.path.as_ref()).unwrap_or(path).trim_start_matches('/')
}

pub(super) fn digest(entries: &[Entry]) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        hash.update(format!("{}\t{}\t{}\n", entry.path, entry.size, entry.tag));
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn parse_keepsake(location: &str, bytes: &[u8]) -> Result<Vec<Entry>> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::stopped(format!("the kept listing of {location} cannot be understood: {e}")))
}
