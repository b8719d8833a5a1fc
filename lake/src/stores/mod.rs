//! Locations to object stores: a local path, `file://`, `s3://`, `gs://`, `az://` and their kin become a [`Place`], a store
//! and a path in it.
//!
//! ```text
//!  location ──▶ kind ──▶ s3 · gcs · azure (a feature each) ──▶ advice (errors say what to do) ──▶ metered ──▶ wrapper ──▶ Place
//!                              ▲
//!   options (WITH, --store-option), then the environment, then profiles
//! ```
//!
//! Invariant: every store is rooted at its scheme and authority (`file:///`, `s3://bucket/`), never at a table, so a
//! file has one path wherever it is named; and every store that is opened counts its requests, and has passed through the
//! wrapper, if there is one. Opening asks nobody over the network.

mod options;

#[cfg(feature = "aws")]
mod s3;

#[cfg(feature = "aws")]
mod profiles;

#[cfg(feature = "gcp")]
mod gcs;

#[cfg(feature = "azure")]
mod azure;

mod advice;

mod metered;

pub use metered::RequestCounts;
pub use options::is_option;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Component, PathBuf};
use std::sync::{Arc, Mutex};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;
use watershed_core::{Error, Result};

use advice::Advised;
use metered::{Meter, Metered};
use options::Options;

type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;

/// Opens locations. Clones share their stores, and so their connections.
#[derive(Clone, Default)]
pub struct Stores {
    options: BTreeMap<String, String>,
    /// What `${NAME}` as an option's value stands for.
    variables: Arc<BTreeMap<String, String>>,
    wrapper: Option<Wrapper>,
    /// Of all clones, whatever their options.
    meter: Arc<Meter>,
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
    /// The location as people write it, and as [`Stores::open`] takes it again: a path on disk, else a URL in which nothing
    /// is percent-encoded; without a slash at its end.
    pub fn location(&self) -> String {
        if self.url.scheme() == "file" {
            let path =
                self.url.to_file_path().map_or_else(|()| self.url.to_string(), |path| path.display().to_string());
            return path.trim_end_matches('/').to_string();
        }
        let root = &self.url[..url::Position::BeforePath];
        format!("{root}/{}", self.path).trim_end_matches('/').to_string()
    }

    /// The path of something below the location; `relative` is taken literally, `%` included.
    pub fn at(&self, relative: &str) -> Result<Path> {
        let root = self.path.as_ref();
        let joined = if root.is_empty() { relative.to_string() } else { format!("{root}/{relative}") };
        Path::parse(&joined)
            .map_err(|e| Error::input(format!("{}: `{relative}` is not a path an object store takes: {e}", self.url)))
    }
}

impl Stores {
    /// `options` are object_store's configuration keys with or without their prefix (`endpoint`, `aws_endpoint`), and
    /// `max_retries`, `retry_timeout`, `profile`. What they leave open comes from the environment (`AWS_…`, `GOOGLE_…`,
    /// `AZURE_…`), and for S3 then from the profiles in `~/.aws` and from the roles of containers and instances.
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
        Stores { options, opened: Arc::default(), ..self.clone() }
    }

    /// Looks values that are `${NAME}` up here when a store is opened.
    pub fn with_variables(self, variables: BTreeMap<String, String>) -> Self {
        Stores { variables: Arc::new(variables), opened: Arc::default(), ..self }
    }

    /// Wraps every store that is opened from now on; tests inject faults here.
    pub fn with_wrapper(self, wrap: Wrapper) -> Self {
        Stores { wrapper: Some(wrap), opened: Arc::default(), ..self }
    }

    /// What the stores were asked so far, those of all clones together.
    pub fn requests(&self) -> RequestCounts {
        self.meter.counts()
    }

    /// Whether any of them is more than a local disk.
    pub fn is_remote(&self) -> bool {
        self.meter.is_remote()
    }

    /// Opens a local path (relative ones from the working directory) or a URL. Nothing is created or asked.
    pub fn open(&self, location: &str) -> Result<Place> {
        let location = location.trim();
        if location.is_empty() {
            return Err(Error::input(format!("a location is empty: give {FORMS}")));
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
            Some(("s3" | "s3a", rest)) => self.open_bucket(Kind::S3, "s3", rest, location),
            Some(("gs", rest)) => self.open_bucket(Kind::Gcs, "gs", rest, location),
            Some((scheme @ ("az" | "azure" | "adl" | "abfs" | "abfss"), rest)) => {
                self.open_bucket(Kind::Azure, scheme, rest, location)
            }
            Some((scheme, _)) => Err(Error::input(format!("`{location}`: {scheme}:// is not supported; give {FORMS}"))),
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
        let store = self.cached(LOCAL, || Ok(Arc::new(LocalFileSystem::new())))?;
        Ok(Place { url, store_url, store, path })
    }

    fn open_bucket(&self, kind: Kind, scheme: &str, rest: &str, location: &str) -> Result<Place> {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(why) = secret_in(kind, bucket, rest) {
            // The location is not shown, for it holds a secret.
            return Err(Error::input(format!("a location of {scheme}:// {why}; {}", kind.credentials())));
        }
        let bad = |e: &dyn fmt::Display| Error::input(format!("`{location}`: {e}; write it as {}", kind.form()));
        if bucket.is_empty() {
            return Err(bad(&"it names no bucket"));
        }
        let path = Path::parse(key.trim_end_matches('/')).map_err(|e| bad(&e))?;
        let root = Url::parse(&format!("{scheme}://{bucket}/")).map_err(|e| bad(&e))?;
        let mut url = root.clone();
        if !path.as_ref().is_empty() {
            let mut segments = url.path_segments_mut().map_err(|()| bad(&"it has no path"))?;
            segments.clear().extend(path.as_ref().split('/')).push("");
        }
        // DataFusion knows stores by scheme and host alone, and a host of Azure has many containers.
        let store_url = match bucket.split_once('@') {
            Some((container, host)) => Url::parse(&format!("{scheme}://{container}.{host}/")).map_err(|e| bad(&e))?,
            None => root.clone(),
        };
        let store = self.cached(root.as_str(), || {
            let options = Options::new(&self.options, &self.variables)?;
            let store = kind.build(&root, bucket, &options).map_err(|e| in_location(location, e))?;
            Ok(Arc::new(Advised::new(store, options.secrets(), kind.credentials())))
        })?;
        Ok(Place { url, store_url, store, path })
    }

    fn cached(&self, key: &str, build: impl FnOnce() -> Result<Arc<dyn ObjectStore>>) -> Result<Arc<dyn ObjectStore>> {
        let mut opened = self.opened.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(store) = opened.get(key) {
            return Ok(store.clone());
        }
        let metered = Metered::new(build()?, key != LOCAL, Arc::clone(&self.meter));
        let mut store: Arc<dyn ObjectStore> = Arc::new(metered);
        if let Some(wrap) = &self.wrapper {
            store = wrap(store);
        }
        opened.insert(key.to_string(), store.clone());
        Ok(store)
    }
}

/// Whose store a location is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Gcs,
    Azure,
}

/// By what name the local disk is known among the stores that are open.
const LOCAL: &str = "file";

/// How a location is written.
const FORMS: &str = "a local path, file:///path, s3://bucket/path, gs://bucket/path or az://container/path";

impl Kind {
    fn form(self) -> &'static str {
        match self {
            Kind::S3 => "s3://bucket/path",
            Kind::Gcs => "gs://bucket/path",
            Kind::Azure => "az://container/path or abfss://container@account.dfs.core.windows.net/path",
        }
    }

    /// Where credentials may stand, for messages.
    fn credentials(self) -> &'static str {
        match self {
            Kind::S3 => {
                "see to the credentials: store options access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY in the environment, or a profile in ~/.aws"
            }
            Kind::Gcs => {
                "see to the credentials: store option service_account, or GOOGLE_SERVICE_ACCOUNT or \
                 GOOGLE_APPLICATION_CREDENTIALS in the environment, each a file"
            }
            Kind::Azure => {
                "see to the credentials: store options account_name and account_key, or AZURE_STORAGE_ACCOUNT_NAME and \
                 AZURE_STORAGE_ACCOUNT_KEY in the environment"
            }
        }
    }

    #[allow(unused_variables)] // In a build without the features.
    fn build(self, root: &Url, bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>> {
        match self {
            #[cfg(feature = "aws")]
            Kind::S3 => s3::build(bucket, options),
            #[cfg(feature = "gcp")]
            Kind::Gcs => gcs::build(bucket, options),
            #[cfg(feature = "azure")]
            Kind::Azure => azure::build(root.as_str().trim_end_matches('/'), options),
            #[allow(unreachable_patterns)] // In a build with all of them.
            absent => Err(absent.absent()),
        }
    }

    #[allow(dead_code)] // In a build with all features.
    fn absent(self) -> Error {
        let (what, feature) = self.feature();
        Error::input(format!(
            "this build of Watershed does not open {what}: build it with the feature `{feature}` (cargo build --features \
             {feature})"
        ))
    }

    #[allow(dead_code)] // In a build with all features.
    fn feature(self) -> (&'static str, &'static str) {
        match self {
            Kind::S3 => ("S3", "aws"),
            Kind::Gcs => ("Google Cloud Storage", "gcp"),
            Kind::Azure => ("Azure Blob Storage", "azure"),
        }
    }
}

/// What this build leaves out, for messages.
fn without() -> String {
    let absent: Vec<&str> =
        [(cfg!(feature = "aws"), "aws"), (cfg!(feature = "gcp"), "gcp"), (cfg!(feature = "azure"), "azure")]
            .into_iter()
            .filter_map(|(there, feature)| (!there).then_some(feature))
            .collect();
    match absent.is_empty() {
        true => String::new(),
        false => format!(" (this build is without the features {})", absent.join(", ")),
    }
}

/// Locations are kept and shown, so credentials have no place in them.
fn secret_in(kind: Kind, bucket: &str, rest: &str) -> Option<&'static str> {
    let user = bucket.rsplit_once('@').map(|(user, _)| user);
    let of_user = user.is_some_and(|user| kind != Kind::Azure || user.contains(':'));
    let query = rest.split_once('?').map(|(_, query)| query.to_ascii_lowercase()).unwrap_or_default();
    let signed = ["sig=", "signature=", "x-amz-credential="].iter().any(|part| query.contains(part));
    match (of_user, signed) {
        (true, _) => Some("has credentials before its `@`, and would be written to the catalog"),
        (_, true) => Some("has a signature in it, and would be written to the catalog"),
        _ => None,
    }
}

fn in_location(location: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("`{location}`: {message}")),
        other => other,
    }
}

#[cfg(test)]
mod tests;
