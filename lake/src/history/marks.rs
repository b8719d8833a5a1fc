//! Deletion vectors, resolved: which rows of a file a table's log marks as deleted.
//!
//! ```text
//! descriptor ──▶ the vector's bytes (a range of its file, or the log's text) ──▶ kernel: roaring bitmap ──▶ runs of rows
//! ```
//!
//! The bytes come through our own stores, the format is read by the kernel crate. Delta protocol, "Deletion Vectors".
//!
//! Invariant: a vector is whole (its checksum, its cardinality, no row beyond the file's end) or it is an error that names
//! the file; there is no reading on without it.

use std::sync::Arc;

use buoyant_kernel::actions::deletion_vector::{
    DeletionVectorDescriptor as Descriptor, DeletionVectorStorageType as Storage,
};
use buoyant_kernel::{DeltaResult, Error as KernelError, FileMeta, FileSlice, StorageHandler};
use bytes::{Bytes, BytesMut};
use deltalake::kernel::DeletionVectorDescriptor;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use roaring::RoaringTreemap;
use url::Url;
use watershed_core::history::{DataFile, DeletedRows, DeletionVector};
use watershed_core::{Error, Result};

use super::footer;
use crate::stores::Place;

/// Vectors fetched at once.
const CONCURRENT: usize = 16;

/// What a vector in a file is preceded by (its size) and followed by (its checksum), in bytes.
const FRAME: u64 = 8;

/// The log's descriptor as plain data.
pub(crate) fn descriptor(of: DeletionVectorDescriptor) -> DeletionVector {
    DeletionVector {
        storage: of.storage_type.as_ref().to_string(),
        path_or_inline: of.path_or_inline_dv,
        offset: of.offset,
        size: of.size_in_bytes,
        cardinality: of.cardinality,
    }
}

/// The deleted rows of files, file by file.
pub(crate) async fn deleted(
    place: &Place,
    location: &str,
    files: &[DataFile],
) -> Result<Vec<Option<Arc<DeletedRows>>>> {
    let mut each: Vec<BoxFuture<'_, Result<Option<Arc<DeletedRows>>>>> = vec![];
    for file in files {
        each.push(match &file.deletion_vector {
            None => std::future::ready(Ok(None)).boxed(),
            Some(vector) => one(place, location, file, vector).map_ok(|rows| Some(Arc::new(rows))).boxed(),
        });
    }
    futures::stream::iter(each).buffered(CONCURRENT).try_collect().await
}

async fn one(place: &Place, location: &str, file: &DataFile, vector: &DeletionVector) -> Result<DeletedRows> {
    let rows = match file.rows {
        Some(rows) if file.range.is_none() => rows,
        // A piece knows of its own rows only, and vectors speak of the file's.
        _ => {
            let metadata = footer::read(place, &file.path, file.size).await?;
            let rows = metadata.file_metadata().num_rows();
            u64::try_from(rows).map_err(|e| damaged(location, &file.path, &e.to_string()))?
        }
    };
    let bitmap = bitmap(place, location, &file.path, vector).await?;
    if let Some(last) = bitmap.max().filter(|last| *last >= rows) {
        return Err(damaged(location, &file.path, &format!("it marks row {last}, and the file has {rows}")));
    }
    let mut deleted = DeletedRows { rows, runs: vec![] };
    for row in bitmap {
        match deleted.runs.last_mut() {
            Some(run) if run.end == row => run.end = row + 1,
            _ => deleted.runs.push(row..row + 1),
        }
    }
    Ok(deleted)
}

/// The rows that a vector marks. Whether the file has them is not known here.
pub(crate) async fn bitmap(
    place: &Place,
    location: &str,
    path: &str,
    vector: &DeletionVector,
) -> Result<RoaringTreemap> {
    let damaged = |why: &str| damaged(location, path, why);
    let storage: Storage = vector.storage.parse().map_err(|e: KernelError| damaged(&e.to_string()))?;
    let text = vector.path_or_inline.clone();
    let described = Descriptor::try_new(storage, text, vector.offset, vector.size, vector.cardinality);
    let mut described = described.map_err(|e| damaged(&e.to_string()))?;
    // A truncated text makes the kernel panic.
    if storage == Storage::Inline && vector.path_or_inline.len() < 5 {
        return Err(damaged(&format!("`{}` is no bitmap", vector.path_or_inline)));
    }
    let mut handler = Fetched(Bytes::new());
    if let Some(url) = described.absolute_path(&place.url).map_err(|e| damaged(&e.to_string()))? {
        handler.0 = fetch(place, &url, vector).await.map_err(|e| match e {
            object_store::Error::NotFound { .. } => damaged(&format!("{url} is gone")),
            e @ object_store::Error::Generic { .. } if out_of_range(&e) => damaged(&format!("{url} is cut short: {e}")),
            e => Error::storage(format!("cannot read {url}, the deletion vector of"), path, e),
        })?;
        described.offset = Some(1);
    }
    let bitmap = described.read(Arc::new(handler), &place.url).map_err(|e| damaged(&e.to_string()))?;
    if i64::try_from(bitmap.len()) != Ok(vector.cardinality) {
        return Err(damaged(&format!("it marks {} rows, and the log says {}", bitmap.len(), vector.cardinality)));
    }
    Ok(bitmap)
}

fn damaged(location: &str, path: &str, why: &str) -> Error {
    Error::stopped(format!(
        "the deletion vector of file {path} in table {location} cannot be used: {why}; nothing was read. Restore the \
         table, or have it rewrite the file (REORG TABLE … APPLY (PURGE)) and build the view anew (CREATE OR REPLACE)"
    ))
}

/// The version byte of a file of vectors and the one vector, as if it were the file's only one.
async fn fetch(place: &Place, url: &Url, vector: &DeletionVector) -> object_store::Result<Bytes> {
    let own = Url::parse(place.store_url.as_str()).ok();
    let outside = || object_store::Error::NotSupported {
        source: format!("{url} is not in the table's store {}", place.store_url).into(),
    };
    let same = own.is_some_and(|own| own.scheme() == url.scheme() && own.host_str() == url.host_str());
    let path = same.then(|| Path::from_url_path(url.path())).ok_or_else(outside)??;
    let start = u64::try_from(vector.offset.unwrap_or(1)).unwrap_or_default();
    let end = start + u64::try_from(vector.size).unwrap_or_default() + FRAME;
    let parts = place.store.get_ranges(&path, &[0..1, start..end]).await?;
    let mut bytes = BytesMut::new();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes.freeze())
}

fn out_of_range(e: &object_store::Error) -> bool {
    // The stores have no kind of their own for it.
    e.to_string().to_ascii_lowercase().contains("range")
}

/// Gives the kernel the bytes that were fetched, and nothing else.
struct Fetched(Bytes);

impl StorageHandler for Fetched {
    fn read_files(&self, _: Vec<FileSlice>) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<Bytes>>>> {
        Ok(Box::new(std::iter::once(Ok(self.0.clone()))))
    }

    fn list_from(&self, _: &Url) -> DeltaResult<Box<dyn Iterator<Item = DeltaResult<FileMeta>>>> {
        Err(unasked())
    }

    fn copy_atomic(&self, _: &Url, _: &Url) -> DeltaResult<()> {
        Err(unasked())
    }

    fn put(&self, _: &Url, _: Bytes, _: bool) -> DeltaResult<()> {
        Err(unasked())
    }

    fn head(&self, _: &Url) -> DeltaResult<FileMeta> {
        Err(unasked())
    }

    fn delete(&self, _: &Url) -> DeltaResult<()> {
        Err(unasked())
    }
}

fn unasked() -> KernelError {
    KernelError::generic("a deletion vector is read, and nothing else is done")
}
