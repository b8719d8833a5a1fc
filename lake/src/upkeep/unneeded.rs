//! Which files of a table's folder nobody needs any more. Pure.
//!
//! ```text
//!  listed, and older than the cut-off
//!     │ is_data: no log, nothing hidden, no other table's
//!     ▼
//!  needed by the newest version, prepared, or spoken of since the cut-off? ── stays
//!  named by a version that a job stands at? ────────────────────────────── held
//!  else ────────────────────────────────────────────────────────────────── goes
//! ```
//!
//! **Invariant:** two names are taken for one when they are the same percent-decoded, however often: a log that encodes a name
//! once more or less than the store has it makes a file stay, never go. [`folded`] is what is compared.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;
use watershed_core::EventTime;

/// A file in the table's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// From the table's root, as the store has it.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) written: EventTime,
}

/// What is known of files, all by their folded names.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Of the newest version, and of commits that are prepared.
    pub(crate) needed: HashSet<String>,
    /// Of versions at which jobs stand.
    pub(crate) pinned: HashSet<String>,
    /// When the log last spoke of a file that was removed, or came recently.
    pub(crate) mentioned: HashMap<String, EventTime>,
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    /// It would go, but a job may need it.
    Held,
    Goes,
}

impl Known {
    /// The fate of a file that [`is_data`], or may be for its name.
    pub(crate) fn fate(&self, file: &Found, cutoff: EventTime) -> Fate {
        let name = plain(&folded(&file.path));
        let mentioned = self.mentioned.get(&name);
        if file.written >= cutoff || mentioned.is_some_and(|at| *at >= cutoff) || self.needed.contains(&name) {
            return Fate::Stays;
        }
        // What the log never spoke of is ours only if it looks so.
        if mentioned.is_none() && !looks_written(&file.path) {
            return Fate::Stays;
        }
        if self.pinned.contains(&name) { Fate::Held } else { Fate::Goes }
    }
}

/// Whether a file lies where a table keeps what a vacuum is about: not in the log, and in no hidden folder but that of changes and
/// those of partition columns whose names begin so.
pub(crate) fn is_data(path: &str, partition_columns: &[String], tables: &BTreeSet<String>) -> bool {
    let hidden = |name: &str| name.starts_with('_') || name.starts_with('.');
    let of_partition = |folder: &str| {
        let column = folded(folder);
        column.split_once('=').is_some_and(|(column, _)| partition_columns.iter().any(|c| folded(c) == column))
    };
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut upto = String::new();
    for (depth, folder) in folders.split('/').enumerate().filter(|(_, folder)| !folder.is_empty()) {
        let changes = depth == 0 && folder == "_change_data";
        upto = upto + folder + "/";
        if hidden(folder) && !changes && !of_partition(folder) || tables.contains(&upto) {
            return false;
        }
    }
    !name.is_empty() && !hidden(name)
}

/// The folder, with a slash at its end, of another table that a file of its log betrays.
pub(crate) fn table_around(path: &str) -> Option<&str> {
    let at = path.find("/_delta_log/")?;
    Some(&path[..=at])
}

/// Parquet, or a file of deletion vectors.
fn looks_written(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let vectors = name.strip_prefix("deletion_vector_").and_then(|rest| rest.strip_suffix(".bin"));
    name.ends_with(".parquet") || vectors.is_some_and(|id| Uuid::try_parse(id).is_ok())
}

/// A name percent-decoded until nothing is left to decode.
pub(crate) fn folded(name: &str) -> String {
    let mut name = name.to_string();
    while let Some(next) = decoded(&name) {
        name = next;
    }
    name
}

fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    let mut changed = false;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        (changed, rest) = (changed || byte.is_some(), if byte.is_some() { &tail[2..] } else { tail });
        bytes.push(byte.unwrap_or(*first));
    }
    changed.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// The folded names by which a path of the log may be known in the table's folder; `root` is where the table lies in its store.
/// A path that is not relative may still lie in the folder, however its store is written.
pub(crate) fn names_of(path: &str, root: &str) -> Vec<String> {
    let path = folded(path);
    let mut names = vec![plain(&path)];
    if is_absolute(&path) {
        let root = folded(root);
        let root = if root.is_empty() { "/".to_string() } else { format!("/{root}/") };
        names.extend(path.match_indices(&root).map(|(at, found)| plain(&path[at + found.len()..])));
    }
    names
}

/// Without steps that lead nowhere.
fn plain(path: &str) -> String {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty() && *step != ".").collect();
    steps.join("/")
}

fn is_absolute(path: &str) -> bool {
    let scheme = path.split_once(":/").map(|(scheme, _)| scheme);
    let is_one = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    path.starts_with('/') || scheme.is_some_and(is_one)
}

/// The names under which a deletion vector's file may be known in the table's folder, by the log's `storageType` and
/// `pathOrInlineDv`; `Err` says why they cannot be told. Delta protocol, "Deletion Vectors".
pub(crate) fn names_of_vector(storage: &str, text: &str, root: &str) -> Result<Vec<String>, String> {
    match storage {
        "i" => Ok(vec![]),
        "p" => Ok(names_of(text, root)),
        "u" => {
            let unclear = || format!("`{text}` names no file of deletion vectors");
            let (prefix, id) =
                text.len().checked_sub(20).and_then(|at| text.split_at_checked(at)).ok_or_else(unclear)?;
            let id = z85::decode(id).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(unclear)?;
            let name = format!("deletion_vector_{id}.bin");
            Ok(vec![if prefix.is_empty() { name } else { folded(&format!("{prefix}/{name}")) }])
        }
        other => Err(format!("a deletion vector is stored in a way that is not known ('{other}')")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: EventTime = EventTime(1);
    const CUTOFF: EventTime = EventTime(10);

    fn fate(path: &str, known: &Known) -> Fate {
        known.fate(&Found { path: path.to_string(), bytes: 1, written: OLD }, CUTOFF)
    }

    #[test]
    fn what_nobody_names_goes_when_it_is_old() {
        let mut known = Known::default();
        known.needed.insert("live.parquet".into());
        known.pinned.insert("pinned.parquet".into());
        known.mentioned.extend([("removed".into(), EventTime(9)), ("just-removed.parquet".into(), CUTOFF)]);
        let vectors = "ab/deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin";
        let fates = [
            ("live.parquet", Fate::Stays),
            ("pinned.parquet", Fate::Held),
            // The log spoke of it, so its name need not tell.
            ("removed", Fate::Goes),
            ("just-removed.parquet", Fate::Stays),
            ("orphan.parquet", Fate::Goes),
            ("_change_data/cdc-1.parquet", Fate::Goes),
            (vectors, Fate::Goes),
            ("deletion_vector_notes.bin", Fate::Stays),
            ("readme.txt", Fate::Stays),
        ];
        for (path, expected) in fates {
            assert_eq!(fate(path, &known), expected, "{path}");
        }
        let young = Found { path: "orphan.parquet".into(), bytes: 1, written: CUTOFF };
        assert_eq!(known.fate(&young, CUTOFF), Fate::Stays);
    }

    #[test]
    fn names_are_one_however_often_they_are_encoded() {
        let once = "name=a%20b%252F%C3%BC/x.parquet";
        assert_eq!(folded(once), "name=a b/ü/x.parquet");
        assert_eq!(folded("100%/%zz/%2"), "100%/%zz/%2");
        let mut known = Known::default();
        known.needed.extend(names_of(once, "t"));
        for path in [once, "name=a b%2Fü/x.parquet", "name=a%2520b%25252F%25C3%25BC/x.parquet"] {
            assert_eq!(fate(path, &known), Fate::Stays, "{path}");
        }
        assert_eq!(fate("name=a/x.parquet", &known), Fate::Goes);
    }

    #[test]
    fn only_the_tables_own_folders_are_looked_at() {
        let (columns, tables) = (vec!["_x".to_string(), "a b".to_string()], ["sub/other/".to_string()].into());
        for path in ["x.parquet", "_x=1/x.parquet", "day=_1/x.parquet", "_change_data/_x=1/c.parquet", "Ab/x.parquet"] {
            assert!(is_data(path, &columns, &tables), "{path}");
        }
        for path in [
            "_delta_log/00000000000000000001.json",
            "_delta_log/_sidecars/x.parquet",
            "_symlink/x.parquet",
            "_y=1/x.parquet",
            ".x.parquet.crc",
            "day=1/_SUCCESS",
            "day=1/.tmp/x.parquet",
            "day=1/_change_data/x.parquet",
            "_x=1",
            "sub/other/x.parquet",
        ] {
            assert!(!is_data(path, &columns, &tables), "{path}");
        }
        assert_eq!(table_around("sub/other/_delta_log/00000000000000000000.json"), Some("sub/other/"));
        assert_eq!(table_around("_delta_log/00000000000000000000.json"), None);
    }

    #[test]
    fn absolute_paths_count_where_they_lie_within() {
        let root = "lake/my t";
        assert_eq!(names_of("s3a://b/lake/my%20t/day=1/x.parquet", root)[1..], ["day=1/x.parquet"]);
        assert_eq!(names_of("file:/lake/my t/x.parquet", root)[1..], ["x.parquet"]);
        assert_eq!(names_of("/elsewhere/x.parquet", root), ["elsewhere/x.parquet"]);
        assert_eq!(names_of("./day=1//x.parquet", root), ["day=1/x.parquet"]);
        assert_eq!(names_of("at=2020-01-01 10:00:00/x.parquet", root), ["at=2020-01-01 10:00:00/x.parquet"]);
        // In the root of a bucket what follows any slash may be meant.
        assert!(names_of("s3://b/day=1/x.parquet", "").contains(&"day=1/x.parquet".to_string()));
    }

    #[test]
    fn vectors_are_found_by_their_ids() {
        let of = |storage, text| names_of_vector(storage, text, "t");
        let name = "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin";
        assert_eq!(of("u", "ab^-aqEH.-t@S}K{vb[*k^"), Ok(vec![format!("ab/{name}")]));
        assert_eq!(of("u", "^-aqEH.-t@S}K{vb[*k^"), Ok(vec![name.to_string()]));
        let absolute = format!("s3://b/t/{name}");
        assert_eq!(of("p", &absolute).unwrap()[1], name);
        assert_eq!(of("i", "anything"), Ok(vec![]));
        assert!(of("u", "short").is_err() && of("u", "üüüüüüüüüüüüüüü").is_err() && of("z", "x").is_err());
    }
}
