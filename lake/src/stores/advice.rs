//! A store whose errors say what to do, and hold no secrets.
//!
//! object_store's errors name the request and how often it was tried, but leave out why a connection failed and which
//! setting would have helped. Delta's and DataFusion's code hand errors through as text, so it is here, where they arise,
//! that they are completed.
//!
//! Invariant: kinds of errors are kept as they are; conditional puts are judged by them.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::options::{MAX_RETRIES, RETRY_TIMEOUT};

/// Completes the errors of a store.
#[derive(Debug)]
pub(crate) struct Advised {
    inner: Arc<dyn ObjectStore>,
    advice: Advice,
}

#[derive(Clone)]
struct Advice {
    secrets: Arc<Vec<String>>,
    credentials: &'static str,
}

impl fmt::Debug for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Advice")
    }
}

impl Advised {
    /// `secrets` are kept out of messages; `credentials` says where those of this kind of store are looked for.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, secrets: Vec<String>, credentials: &'static str) -> Self {
        let secrets = Arc::new(secrets.into_iter().filter(|secret| !secret.is_empty()).collect());
        Advised { inner, advice: Advice { secrets, credentials } }
    }
}

impl Advice {
    fn complete(&self, e: Error) -> Error {
        match e {
            Error::Generic { store, source } => {
                let text = chain(source.as_ref());
                let advice = self.of(&text);
                Error::Generic { store, source: self.clean(text + &advice).into() }
            }
            Error::PermissionDenied { path, source } => {
                let text = chain(source.as_ref());
                Error::PermissionDenied { path, source: self.clean(format!("{text}; {}", self.credentials)).into() }
            }
            Error::Unauthenticated { path, source } => {
                let text = chain(source.as_ref());
                Error::Unauthenticated { path, source: self.clean(format!("{text}; {}", self.credentials)).into() }
            }
            other => other,
        }
    }

    /// What object_store has no kind of error for, such as whatever becomes of a listing.
    fn of(&self, text: &str) -> String {
        if text.contains("403 Forbidden") || text.contains("401 Unauthorized") {
            format!("; {}", self.credentials)
        } else if text.contains("NoSuchBucket") {
            "; Watershed makes no buckets: create it, or mend its name".to_string()
        } else if text.contains("max_retries: ") {
            format!(
                "; it was tried until {MAX_RETRIES} or {RETRY_TIMEOUT} was reached: see that the store can be reached, or \
                 give it longer with these store options, and run again"
            )
        } else {
            String::new()
        }
    }

    fn clean(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| text.replace(secret, "***"))
    }

    fn each<T>(&self, stream: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>>
    where
        T: Send + 'static,
    {
        let advice = self.clone();
        stream.map_err(move |e| advice.complete(e)).boxed()
    }
}

/// An error with its causes, as far as it does not tell them itself.
pub(crate) fn chain(e: &(dyn StdError + 'static)) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Advised {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await.map_err(|e| self.advice.complete(e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await.map_err(|e| self.advice.complete(e))?;
        Ok(Box::new(AdvisedUpload { inner, advice: self.advice.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await.map_err(|e| self.advice.complete(e))?;
        found.payload = match found.payload {
            GetResultPayload::Stream(bytes) => GetResultPayload::Stream(self.advice.each(bytes)),
            file => file,
        };
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await.map_err(|e| self.advice.complete(e))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.advice.each(self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.advice.each(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.advice.each(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await.map_err(|e| self.advice.complete(e))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|e| self.advice.complete(e))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await.map_err(|e| self.advice.complete(e))
    }
}

#[derive(Debug)]
struct AdvisedUpload {
    inner: Box<dyn MultipartUpload>,
    advice: Advice,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for AdvisedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let advice = self.advice.clone();
        self.inner.put_part(data).map_err(move |e| advice.complete(e)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await.map_err(|e| self.advice.complete(e))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await.map_err(|e| self.advice.complete(e))
    }
}
