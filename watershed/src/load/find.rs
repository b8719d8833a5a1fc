//! Which files an argument of `load` means: a file, a folder, or a pattern; on disk or in an object store.
//!
//! In a pattern `*` and `?` stand for characters of one path segment and `**` for any number of segments. A file that has
//! the very name of a pattern is that file. Folders are read with all that is below them, but for names that begin with `.`
//! or `_`, which other tools use for what is not data.
//!
//! Invariant: nothing is passed over silently: an argument that means no file, or one of unknown kind, is an error.

use std::fmt;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;
use watershed_core::{Error, Result};
use watershed_lake::{Place, Stores};

/// What a file's name says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    Csv,
    Ndjson,
}

impl Format {
    /// By extension, in any case.
    pub(crate) fn of(name: &str) -> Option<Format> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "parquet" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
            _ => None,
        }
    }
}

/// A file to load.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) url: String,
    /// Scheme and authority of its store.
    pub(crate) store_url: Url,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) object: ObjectMeta,
    pub(crate) format: Format,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {} bytes)", self.url, self.format, self.object.size)
    }
}

/// The files that the arguments mean, in their order, those of one argument by path; named twice is found once.
pub(crate) async fn find(stores: &Stores, arguments: &[String]) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = vec![];
    for argument in arguments {
        for file in find_one(stores, argument).await? {
            if found.iter().all(|known| known.url != file.url) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

async fn find_one(stores: &Stores, argument: &str) -> Result<Vec<Found>> {
    let place = stores.open(argument)?;
    if !argument.ends_with('/')
        && let Some(object) = head(&place, argument).await?
    {
        return Ok(vec![known(&place, object)?]);
    }
    let pattern = place.path.as_ref();
    let (root, wild) = match pattern.find(['*', '?']) {
        Some(at) => (&pattern[..pattern[..at].rfind('/').map_or(0, |slash| slash)], true),
        None => (pattern, false),
    };
    let root = Path::parse(root).map_err(|e| Error::input(format!("`{argument}` is not a path: {e}")))?;
    let mut objects: Vec<ObjectMeta> = list(&place, &root, argument).await?;
    objects.retain(
        |object| if wild { matches(pattern, object.location.as_ref()) } else { is_data(&root, &object.location) },
    );
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    if objects.is_empty() {
        return Err(Error::input(format!("`{argument}`: there is no such file, and no file below it; check the path")));
    }
    if let Some(hive) =
        objects.iter().find(|o| below(&root, &o.location).rsplit_once('/').is_some_and(|(f, _)| f.contains('=')))
    {
        return Err(Error::input(format!(
            "{}: columns in folder names (name=value) are not loaded; read this folder as it is with \
             CREATE SOURCE … WITH (lake = '{argument}')",
            hive.location
        )));
    }
    objects.into_iter().map(|object| known(&place, object)).collect()
}

async fn head(place: &Place, argument: &str) -> Result<Option<ObjectMeta>> {
    match place.store.head(&place.path).await {
        Ok(object) => Ok(Some(object)),
        // A folder on disk has a head of its own kind of error.
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => match place.store.list_with_delimiter(Some(&place.path)).await {
            Ok(_) => Ok(None),
            Err(_) => Err(Error::storage("could not look at", argument, e)),
        },
    }
}

async fn list(place: &Place, root: &Path, argument: &str) -> Result<Vec<ObjectMeta>> {
    let listed = place.store.list(Some(root)).try_collect().await;
    listed.map_err(|e| Error::storage("could not list", argument, e))
}

fn known(place: &Place, object: ObjectMeta) -> Result<Found> {
    let url = file_url(&place.store_url, &object.location);
    let Some(format) = object.location.filename().and_then(Format::of) else {
        return Err(Error::input(format!(
            "{url}: load knows files named .parquet, .csv, .ndjson, .jsonl and .json (a JSON object a line); rename or convert it"
        )));
    };
    Ok(Found { url, store_url: place.store_url.clone(), store: place.store.clone(), object, format })
}

/// The file's URL, with what a URL cannot hold percent-encoded.
fn file_url(store_url: &Url, path: &Path) -> String {
    let mut url = store_url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.as_ref().split('/'));
    }
    url.to_string()
}

fn below<'a>(root: &Path, path: &'a Path) -> &'a str {
    path.as_ref().strip_prefix(root.as_ref()).unwrap_or(path.as_ref()).trim_start_matches('/')
}

fn is_data(root: &Path, path: &Path) -> bool {
    below(root, path).split('/').all(|segment| !segment.starts_with(['.', '_']))
}

/// Whether a path fits a pattern, segment by segment.
fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    segments_match(&pattern, &path)
}

fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|n| segments_match(rest, &path[n..])),
        Some((first, rest)) => path.split_first().is_some_and(|(segment, path)| {
            segment_matches(&first.chars().collect::<Vec<_>>(), &segment.chars().collect::<Vec<_>>())
                && segments_match(rest, path)
        }),
    }
}

/// `*` and `?` within a segment; after a star that did not work out, the match goes on one character further.
fn segment_matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            (p, t, star) = (at + 1, from + 1, Some((at, from + 1)));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, fits) in [
            ("a/*.csv", "a/b.csv", true),
            ("a/*.csv", "a/b/c.csv", false),
            ("a/**/*.csv", "a/b/c.csv", true),
            ("a/**/*.csv", "a/c.csv", true),
            ("a/20?1-*-x", "a/2001-01-x", true),
            ("a/*b*c", "a/xbxbxc", true),
            ("a/*b*c", "a/xbxbx", false),
            ("a/?", "a/", false),
            ("**", "a/b/c", true),
        ] {
            assert_eq!(matches(pattern, path), fits, "{pattern} {path}");
        }
    }

    #[tokio::test]
    async fn files_folders_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.csv", "b.json", "_skipped/x.csv", ".hidden.csv", "deep/er/c.parquet", "odd *.csv"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let stores = Stores::default();
        let names = async |argument: &str| -> Result<Vec<String>> {
            let argument = format!("{}/{argument}", dir.path().display());
            let found = find(&stores, &[argument.clone(), argument]).await?;
            Ok(found.into_iter().map(|f| f.url.rsplit('/').next().unwrap().to_string()).collect())
        };
        assert_eq!(names("a.csv").await.unwrap(), ["a.csv"]);
        assert_eq!(names("").await.unwrap(), ["a.csv", "b.json", "c.parquet", "odd%20*.csv"]);
        assert_eq!(names("deep").await.unwrap(), ["c.parquet"]);
        assert_eq!(names("?.*").await.unwrap(), ["a.csv", "b.json"]);
        assert_eq!(names("odd *.csv").await.unwrap(), ["odd%20*.csv"]);
        assert_eq!(names("**/*.parquet").await.unwrap(), ["c.parquet"]);
        assert!(names("nothing").await.unwrap_err().to_string().contains("no such file"));

        std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
        assert!(names("").await.unwrap_err().to_string().contains("load knows files named"));
        std::fs::create_dir_all(dir.path().join("hive/day=1")).unwrap();
        std::fs::write(dir.path().join("hive/day=1/x.csv"), "x").unwrap();
        assert!(names("hive").await.unwrap_err().to_string().contains("columns in folder names"));
    }
}
