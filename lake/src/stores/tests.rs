//! How locations and options become stores: what is taken, what is refused and with which words. No server is asked.
//!
//! Invariant held here: no error and no debug text shows the value of a secret option.

use super::*;

fn with(options: &[(&str, &str)]) -> Stores {
    Stores::new(options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
}

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

#[cfg(feature = "aws")]
#[test]
fn opens_buckets() {
    let stores = with(&[("endpoint", "http://127.0.0.1:9000"), ("AWS_ALLOW_HTTP", "true"), ("region", "us-east-1")]);
    let place = stores.open("s3://warehouse/a/b/").unwrap();
    assert_eq!((place.url.as_str(), place.path.as_ref()), ("s3://warehouse/a/b/", "a/b"));
    assert_eq!(place.store_url.as_str(), "s3://warehouse/");
    assert_eq!(stores.open("s3a://warehouse").unwrap().url.as_str(), "s3://warehouse/");
    assert!(place.store.to_string().contains("warehouse"), "{}", place.store);
}

#[cfg(all(feature = "aws", feature = "azure", feature = "gcp"))]
#[test]
fn a_location_is_written_as_it_was_read() {
    let stores = with(&[("account_name", "acc"), ("account_key", "c2VjcmV0")]);
    for location in [
        "/data/a table/b%20c",
        "s3://warehouse",
        "s3://warehouse/late ones/x=1%3A/ü",
        "gs://warehouse/a b",
        "abfss://one@acc.dfs.core.windows.net/a b",
    ] {
        let place = stores.open(location).unwrap();
        assert_eq!(place.location(), location);
        assert_eq!(stores.open(&format!("{}/", place.location())).unwrap().path, place.path);
    }
}

#[cfg(feature = "gcp")]
#[test]
fn opens_buckets_of_google() {
    // A key as Google's console gives it, but for the key itself, which is not looked at before a request is signed.
    let stores = with(&[("google_skip_signature", "true"), ("endpoint", "http://not.for.google")]);
    let place = stores.open("gs://warehouse/a b/c").unwrap();
    assert_eq!((place.url.as_str(), place.path.as_ref()), ("gs://warehouse/a%20b/c/", "a b/c"));
    assert_eq!(place.store_url.as_str(), "gs://warehouse/");
    let error = with(&[("service_account", "/nowhere/key.json")]).open("gs://b/x").unwrap_err().to_string();
    assert!(error.contains("`gs://b/x`") && error.contains("/nowhere/key.json"), "{error}");
}

#[cfg(feature = "azure")]
#[test]
fn opens_containers_of_azure() {
    // Base64, as account keys are.
    let key = "c2VjcmV0LWtleQ==";
    let stores = with(&[("account_name", "acc"), ("azure_storage_account_key", key)]);
    for scheme in ["az", "abfs", "abfss", "azure", "adl"] {
        let place = stores.open(&format!("{scheme}://lake/t/")).unwrap();
        assert_eq!(place.url.as_str(), format!("{scheme}://lake/t/"));
        assert_eq!((place.store_url.as_str(), place.path.as_ref()), (format!("{scheme}://lake/").as_str(), "t"));
        assert!(place.store.to_string().contains("account: acc, container: lake"), "{}", place.store);
    }
    // Of two containers of one account, each is a store of its own, also for DataFusion.
    let stores = with(&[("account_key", key)]);
    let places = ["one", "two"].map(|c| stores.open(&format!("abfss://{c}@acc.dfs.core.windows.net/t")).unwrap());
    assert_eq!(places[0].url.as_str(), "abfss://one@acc.dfs.core.windows.net/t/");
    assert_ne!(places[0].store_url.host_str(), places[1].store_url.host_str());
    assert!(places[1].store.to_string().contains("account: acc, container: two"), "{}", places[1].store);
    let error = Stores::default().open("az://lake/t").unwrap_err().to_string();
    assert!(error.contains("names no storage account") && error.contains("account_name"), "{error}");
    let error = stores.open("abfss://one@acc.example.com/t").unwrap_err().to_string();
    assert!(error.contains("abfss://one@acc.example.com"), "{error}");
    let error = with(&[("account_name", "acc"), ("account_key", "not base64!")]).open("az://lake/t").unwrap_err();
    assert!(!error.to_string().contains("not base64!"), "{error}");
}

#[test]
fn says_what_it_takes() {
    let stores = Stores::default();
    for (location, words) in [
        ("", "empty"),
        (
            "hdfs://b/x",
            "hdfs:// is not supported; give a local path, file:///path, s3://bucket/path, gs://bucket/path or az://",
        ),
        ("s3:///x", "names no bucket"),
        ("gs://", "names no bucket; write it as gs://bucket/path"),
        ("file://host/x", "not a file URL"),
    ] {
        let error = stores.open(location).unwrap_err().to_string();
        assert!(error.contains(words), "{location}: {error}");
    }
    for (name, value, words) in [
        ("endpiont", "x", "unknown store option `endpiont`"),
        ("max_retries", "many", "max_retries = 'many': give a number from 0 to 1000"),
        ("retry_timeout", "soon", "retry_timeout = 'soon': give a duration such as '30 s'"),
        ("retry_timeout", "6 minutes", "5 minutes at most"),
        ("endpoint", "http://127.0.0.1:9000", "has no TLS: give the store option allow_http=true"),
        ("secret_access_key", "${LAKE_SECRET}", "${LAKE_SECRET} is not set"),
    ] {
        let error = with(&[(name, value)]).open("s3://b/x").unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
}

#[test]
fn a_store_that_was_left_out_names_its_feature() {
    for (kind, words) in [
        (Kind::S3, "does not open S3: build it with the feature `aws`"),
        (Kind::Gcs, "does not open Google Cloud Storage: build it with the feature `gcp`"),
        (Kind::Azure, "does not open Azure Blob Storage: build it with the feature `azure`"),
    ] {
        let error = kind.absent().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[cfg(feature = "aws")]
#[test]
fn options_that_are_variables_are_looked_up() {
    let options = [("endpoint", "${WHERE}"), ("allow_http", "true"), ("max_retries", "3"), ("retry_timeout", "PT20S")];
    let stores = with(&options).with_variables(BTreeMap::from([("WHERE".to_string(), "http://h:1".to_string())]));
    stores.open("s3://b/x").unwrap();
    let options = Options::new(&stores.options, &stores.variables).unwrap();
    let retry = options.retry().unwrap();
    assert_eq!((retry.max_retries, retry.retry_timeout.as_secs()), (3, 20));
}

#[test]
fn no_credentials_in_locations_nor_in_what_is_shown() {
    let stores = with(&[("secret_access_key", "hush-hush")]);
    for location in [
        "s3://AKIA:hush-hush@bucket/x",
        "gs://me@bucket/x",
        "az://me:hush-hush@account.dfs.core.windows.net/x",
        "az://c/x?sv=2022&sig=hush-hush",
    ] {
        let error = stores.open(location).unwrap_err().to_string();
        assert!(error.contains("would be written to the catalog") && error.contains("see to the cred"), "{error}");
        assert!(!error.contains("hush-hush"), "{error}");
    }
    assert!(!format!("{stores:?}").contains("hush-hush"));
    assert!(!format!("{:?}", Options::new(&stores.options, &stores.variables).unwrap()).contains("hush-hush"));
}

#[tokio::test]
async fn errors_say_what_to_do_and_keep_secrets() {
    use object_store::ObjectStoreExt;
    const TEXT: &str = "Error performing GET, after 2 retries, max_retries: 2, hush-hush";
    let broken = Broken(|| object_store::Error::Generic { store: "S3", source: TEXT.into() });
    let store = Advised::new(Arc::new(broken), vec!["hush-hush".to_string(), String::new()], "look there");
    let error = store.get(&Path::from("x")).await.unwrap_err().to_string();
    assert!(error.contains("give it longer with these store options") && error.contains("retry_timeout"), "{error}");
    assert!(error.contains("***") && !error.contains("hush-hush"), "{error}");
    let broken = Broken(|| object_store::Error::PermissionDenied { path: "x".into(), source: "403".into() });
    let store = Advised::new(Arc::new(broken), vec![], "look there");
    let error = store.get(&Path::from("x")).await.unwrap_err();
    assert!(matches!(&error, object_store::Error::PermissionDenied { .. }) && error.to_string().contains("look there"));
    let broken = Broken(|| object_store::Error::NotFound { path: "x".into(), source: "404".into() });
    let store = Advised::new(Arc::new(broken), vec![], "look there");
    assert!(matches!(store.get(&Path::from("x")).await, Err(object_store::Error::NotFound { .. })));
}

/// Fails every read.
#[derive(Debug)]
struct Broken(fn() -> object_store::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broken")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Broken {
    async fn put_opts(
        &self,
        _: &Path,
        _: object_store::PutPayload,
        _: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        Err((self.0)())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        Err((self.0)())
    }

    async fn get_opts(&self, _: &Path, _: object_store::GetOptions) -> object_store::Result<object_store::GetResult> {
        Err((self.0)())
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        locations
    }

    fn list(
        &self,
        _: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        Box::pin(futures::stream::empty())
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<object_store::ListResult> {
        Err((self.0)())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: object_store::CopyOptions) -> object_store::Result<()> {
        Err((self.0)())
    }
}
