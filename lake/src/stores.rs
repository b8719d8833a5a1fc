//! Locations to object stores: a local path, `file://` or `s3://` becomes a [`Place`], a store and a path in it.
//!
//! Invariant: every store is rooted at its scheme and authority (`file:///`, `s3://bucket/`), never at a table, so a
//! file has one path wherever it is named; and every store that is opened has passed through the wrapper, if there is
//! one.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;
use watershed_core::{Error, Result};

type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// Opens locations. Clones share their stores, and so their connections.
#[derive(Clone, Default)]
pub struct Stores {
    options: BTreeMap<String, String>,
    wrapper: Option<Wrapper>,
    opened: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Option values may be secrets.
        f.debug_struct("Stores").field("options", &self.options.keys()).finish_non_exhaustive()
    }
}

/// A location, opened.
#[derive(Clone, Debug)]
pub struct Place {
    /// The location itself, with a trailing slash.
    pub url: Url,
    /// Scheme and authority of the store: `file:///`, `s3://bucket/`.
    pub store_url: Url,
    /// Rooted at `store_url`.
    pub store: Arc<dyn ObjectStore>,
    /// The location within the store.
    pub path: Path,
}

impl Place {
    /// The path of something below the location; `relative` is taken literally, `%` included.
    pub fn at(&self, relative: &str) -> Result<Path> {
        let root = self.path.as_ref();
        let joined = if root.is_empty() { relative.to_string() } else { format!("{root}/{relative}") };
        Path::parse(&joined)
            .map_err(|e| Error::input(format!("{}: `{relative}` is not a path an object store takes: {e}", self.url)))
    }
}

impl Stores {
    /// `options` are object_store's configuration keys for S3, with or without `aws_`: endpoint, region, allow_http,
    /// virtual_hosted_style_request (path style is the default), access_key_id, … What they leave open comes from the
    /// environment (`AWS_…`).
    pub fn new(options: BTreeMap<String, String>) -> Self {
        Stores { options, ..Default::default() }
    }

    /// The same with some options more; those of one source override those of all.
    pub fn with_options(&self, extra: BTreeMap<String, String>) -> Self {
        if extra.is_empty() {
            return self.clone();
        }
        let mut options = self.options.clone();
        options.extend(extra);
        Stores { options, wrapper: self.wrapper.clone(), opened: Arc::default() }
    }

    /// Wraps every store that is opened from now on; tests inject faults here.
    pub fn with_wrapper(self, wrap: Wrapper) -> Self {
        Stores { options: self.options, wrapper: Some(wrap), opened: Arc::default() }
    }

    /// Opens a local path (relative ones from the working directory), `file://` or `s3://`. Nothing is created or
    /// asked.
    pub fn open(&self, location: &str) -> Result<Place> {
        let location = location.trim();
        if location.is_empty() {
            return Err(Error::input("a location is empty: give a local path, file:///path or s3://bucket/path"));
        }
        match location.split_once("://") {
            None => self.open_local(PathBuf::from(location), location),
            Some(("file", _)) => {
                let path = Url::parse(location).ok().and_then(|url| url.to_file_path().ok());
                let path = path.ok_or_else(|| {
                    Error::input(format!("`{location}` is not a file URL: write it as file:///absolute/path"))
                })?;
                self.open_local(path, location)
            }
            Some(("s3" | "s3a", rest)) => self.open_s3(rest, location),
            Some((scheme, _)) => Err(Error::input(format!(
                "`{location}`: {scheme}:// is not supported; give a local path, file:///path or s3://bucket/path"
            ))),
        }
    }

    fn open_local(&self, path: PathBuf, location: &str) -> Result<Place> {
        let bad = |e: &dyn fmt::Display| Error::input(format!("`{location}` is not a path: {e}"));
        let absolute = std::path::absolute(&path).map_err(|e| bad(&e))?;
        let mut plain = PathBuf::new();
        for part in absolute.components() {
            match part {
                Component::ParentDir => {
                    plain.pop();
                }
                Component::CurDir => {}
                other => plain.push(other),
            }
        }
        let url = Url::from_directory_path(&plain).map_err(|()| bad(&"it is not absolute"))?;
        let path = Path::from_url_path(url.path()).map_err(|e| bad(&e))?;
        let store_url = Url::parse("file:///").map_err(|e| bad(&e))?;
        let store = self.cached("file", || Ok(Arc::new(LocalFileSystem::new())))?;
        Ok(Place { url, store_url, store, path })
    }

    fn open_s3(&self, rest: &str, location: &str) -> Result<Place> {
        let bad = |e: &dyn fmt::Display| Error::input(format!("`{location}`: {e}; write it as s3://bucket/path"));
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad(&"it names no bucket"));
        }
        let path = Path::parse(key.trim_end_matches('/')).map_err(|e| bad(&e))?;
        let store_url = Url::parse(&format!("s3://{bucket}/")).map_err(|e| bad(&e))?;
        let mut url = store_url.clone();
        if !path.as_ref().is_empty() {
            let mut segments = url.path_segments_mut().map_err(|()| bad(&"it has no path"))?;
            segments.clear().extend(path.as_ref().split('/')).push("");
        }
        let store = self.cached(bucket, || self.build_s3(bucket))?;
        Ok(Place { url, store_url, store, path })
    }

    fn build_s3(&self, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
        let mut builder =
            AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
        for (key, value) in &self.options {
            let known: AmazonS3ConfigKey = key.to_ascii_lowercase().parse().map_err(|_| {
                Error::input(format!(
                    "unknown store option `{key}`; those for s3 are endpoint, region, access_key_id, \
                     secret_access_key, session_token, allow_http, virtual_hosted_style_request and \
                     object_store's other configuration keys"
                ))
            })?;
            builder = builder.with_config(known, value);
        }
        let store = builder.build().map_err(|e| Error::input(format!("cannot open bucket `{bucket}`: {e}")))?;
        Ok(Arc::new(store))
    }

    fn cached(&self, key: &str, build: impl FnOnce() -> Result<Arc<dyn ObjectStore>>) -> Result<Arc<dyn ObjectStore>> {
        let mut opened = self.opened.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(store) = opened.get(key) {
            return Ok(store.clone());
        }
        let mut store = build()?;
        if let Some(wrap) = &self.wrapper {
            store = wrap(store);
        }
        opened.insert(key.to_string(), store.clone());
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_local_paths() {
        let stores = Stores::default();
        let place = stores.open("/data/a table/../b%20c").unwrap();
        assert_eq!(place.url.as_str(), "file:///data/b%2520c/");
        assert_eq!(place.path.as_ref(), "data/b%20c");
        assert_eq!(place.store_url.as_str(), "file:///");
        assert_eq!(stores.open("file:///data/b%2520c").unwrap().path, place.path);
        assert!(stores.open("here").unwrap().path.as_ref().ends_with("/here"));
        assert_eq!(place.at("x=1%3A/f").unwrap().as_ref(), "data/b%20c/x=1%3A/f");
    }

    #[test]
    fn opens_buckets() {
        let stores = Stores::new(BTreeMap::from([
            ("endpoint".to_string(), "http://127.0.0.1:9000".to_string()),
            ("allow_http".to_string(), "true".to_string()),
            ("region".to_string(), "us-east-1".to_string()),
        ]));
        let place = stores.open("s3://warehouse/a/b/").unwrap();
        assert_eq!((place.url.as_str(), place.path.as_ref()), ("s3://warehouse/a/b/", "a/b"));
        assert_eq!(place.store_url.as_str(), "s3://warehouse/");
        assert_eq!(stores.open("s3://warehouse").unwrap().url.as_str(), "s3://warehouse/");
    }

    #[test]
    fn says_what_it_takes() {
        let stores = Stores::default();
        for (location, words) in [
            ("", "empty"),
            ("gs://b/x", "gs:// is not supported; give a local path, file:///path or s3://bucket/path"),
            ("s3:///x", "names no bucket"),
            ("file://host/x", "not a file URL"),
        ] {
            let error = stores.open(location).unwrap_err().to_string();
            assert!(error.contains(words), "{location}: {error}");
        }
        let odd = stores.with_options(BTreeMap::from([("endpiont".to_string(), "x".to_string())]));
        let error = odd.open("s3://b/x").unwrap_err().to_string();
        assert!(error.contains("unknown store option `endpiont`"), "{error}");
    }
}
