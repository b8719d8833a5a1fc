//! Deletion vectors, written: the marks of all files that a commit touches, in one file beside the data.
//!
//! The format is the kernel crate's; the name carries a fresh UUID, so that no two attempts write the same file. Delta
//! protocol, "Deletion Vector File Storage Format".

use std::sync::Arc;

use buoyant_kernel::actions::deletion_vector_writer::{KernelDeletionVector, StreamingDeletionVectorWriter};
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::{ObjectStore, PutMode, PutOptions};
use roaring::RoaringTreemap;
use uuid::Uuid;
use watershed_core::{Error, Result};

use crate::stores::Place;

/// Writes vectors and returns their descriptors, in order.
pub(crate) async fn write(
    place: &Place,
    id: Uuid,
    vectors: &[Arc<RoaringTreemap>],
) -> Result<Vec<DeletionVectorDescriptor>> {
    if vectors.is_empty() {
        return Ok(vec![]);
    }
    let name = format!("deletion_vector_{id}.bin");
    let failed = |e: buoyant_kernel::Error| Error::bug(format!("deletion vectors as bytes: {e}"));
    let mut bytes = vec![];
    let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
    let mut descriptors = Vec::with_capacity(vectors.len());
    for rows in vectors {
        let mut vector = KernelDeletionVector::new();
        vector.add_deleted_row_indexes(rows.iter());
        let written = writer.write_deletion_vector(vector).map_err(failed)?;
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85::encode(id.as_bytes()),
            offset: Some(written.offset),
            size_in_bytes: written.size_in_bytes,
            cardinality: written.cardinality,
        });
    }
    writer.finalize().map_err(failed)?;
    let options = PutOptions { mode: PutMode::Overwrite, ..Default::default() };
    let put = place.store.put_opts(&place.at(&name)?, bytes.into(), options).await;
    put.map_err(|e| Error::storage("cannot write", format!("{}{name}", place.url), e))?;
    Ok(descriptors)
}
