//! A store whose requests are counted, by kind: what a run costs where requests are paid for.
//!
//! Counted is what is asked of a store, as near to it as we are: ranges of one file that are so close that they are fetched as
//! one are one request, a listing is one for each page. What the store's client tries again by itself is not seen.
//!
//! Invariant: nothing but counting; every answer is handed on as it is.

use std::fmt;
use std::ops::{Range, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use serde::Serialize;

/// Entries of a listing that stores give at a time.
const PAGE: usize = 1000;

/// Requests to stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// Files, or parts of them, that were fetched.
    pub get: u64,
    /// Looks at whether an object is there, and how large.
    pub head: u64,
    /// Pages of listings.
    pub list: u64,
    /// Objects that were put, parts of them, and copies.
    pub put: u64,
    /// Objects that were deleted.
    pub delete: u64,
}

impl RequestCounts {
    /// Each with its name.
    pub fn by_kind(&self) -> [(&'static str, u64); 5] {
        let RequestCounts { get, head, list, put, delete } = *self;
        [("get", get), ("head", head), ("list", list), ("put", put), ("delete", delete)]
    }

    /// Those that change nothing.
    pub fn reads(&self) -> u64 {
        self.get + self.head + self.list
    }

    /// Those that change something.
    pub fn writes(&self) -> u64 {
        self.put + self.delete
    }
}

/// What came after an earlier count.
impl Sub for RequestCounts {
    type Output = RequestCounts;

    fn sub(self, before: RequestCounts) -> RequestCounts {
        RequestCounts {
            get: self.get - before.get,
            head: self.head - before.head,
            list: self.list - before.list,
            put: self.put - before.put,
            delete: self.delete - before.delete,
        }
    }
}

/// Counts what several stores are asked.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
    remote: AtomicBool,
}

impl Meter {
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Meter { get, head, list, put, delete, .. } = self;
        RequestCounts { get: read(get), head: read(head), list: read(list), put: read(put), delete: read(delete) }
    }
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts the requests to a store.
#[derive(Debug)]
pub(crate) struct Metered {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

impl Metered {
    /// `remote`: it is more than a local disk.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, remote: bool, meter: Arc<Meter>) -> Self {
        meter.remote.fetch_or(remote, Ordering::Relaxed);
        Metered { inner, meter }
    }

    /// A page is counted with its first entry, and the first page in any case.
    fn pages(&self, entries: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        one(&self.meter.list);
        let meter = Arc::clone(&self.meter);
        let mut seen = 0;
        let count = move |entry: &Result<ObjectMeta>| {
            if entry.is_ok() {
                if seen > 0 && seen % PAGE == 0 {
                    one(&meter.list);
                }
                seen += 1;
            }
        };
        entries.inspect(count).boxed()
    }
}

/// How many requests ranges of one file are, those together that object_store fetches together.
fn fetches(ranges: &[Range<u64>]) -> u64 {
    let mut ranges: Vec<&Range<u64>> = ranges.iter().collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let (mut fetches, mut end) = (0, None);
    for range in ranges {
        if end.is_none_or(|end| range.start > end + OBJECT_STORE_COALESCE_DEFAULT) {
            fetches += 1;
        }
        end = end.max(Some(range.end));
    }
    fetches
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Metered {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        one(&self.meter.put);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        one(&self.meter.put);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(MeteredUpload { inner, meter: Arc::clone(&self.meter) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        one(if options.head { &self.meter.head } else { &self.meter.get });
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.meter.get.fetch_add(fetches(ranges), Ordering::Relaxed);
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let meter = Arc::clone(&self.meter);
        let counted = locations.inspect(move |location| {
            if location.is_ok() {
                one(&meter.delete);
            }
        });
        self.inner.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.pages(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await;
        let entries = listed.as_ref().map_or(0, |l| l.objects.len() + l.common_prefixes.len());
        self.meter.list.fetch_add(entries.div_ceil(PAGE).max(1) as u64, Ordering::Relaxed);
        listed
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        one(&self.meter.put);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        one(&self.meter.put);
        one(&self.meter.delete);
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    meter: Arc<Meter>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        one(&self.meter.put);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        one(&self.meter.put);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        one(&self.meter.delete);
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn each_request_is_counted_once() {
        let meter = Arc::new(Meter::default());
        let store = Metered::new(Arc::new(InMemory::new()), true, Arc::clone(&meter));
        for i in 0..PAGE + 1 {
            store.put(&Path::from(format!("a/{i:05}")), "twelve bytes".into()).await.unwrap();
        }
        let path = Path::from("a/00000");
        store.get(&path).await.unwrap();
        store.head(&path).await.unwrap();
        store.get_ranges(&path, &[4..6, 0..2]).await.unwrap();
        store.delete(&path).await.unwrap();
        let full: Vec<_> = store.list(Some(&Path::from("a"))).try_collect().await.unwrap();
        assert_eq!(full.len(), PAGE);
        assert!(store.get(&path).await.is_err());
        let expected = RequestCounts { get: 3, head: 1, list: 1, put: PAGE as u64 + 1, delete: 1 };
        assert_eq!(meter.counts(), expected);
        store.put(&path, "twelve bytes".into()).await.unwrap();
        let more: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(
            (more.len(), meter.counts() - expected),
            (PAGE + 1, RequestCounts { list: 2, put: 1, ..Default::default() })
        );
    }

    #[test]
    fn ranges_that_are_close_are_one_request() {
        let mib = 1 << 20;
        assert_eq!(fetches(&[]), 0);
        assert_eq!(fetches(&[0..10, mib..mib + 1]), 1);
        assert_eq!(fetches(&[0..10, 2 * mib..3 * mib]), 2);
        assert_eq!(fetches(&[4 * mib..5 * mib, 0..10, 2 * mib..3 * mib]), 2);
        assert_eq!(fetches(&[0..9 * mib, 1..2, 9 * mib..10 * mib]), 1);
    }
}
