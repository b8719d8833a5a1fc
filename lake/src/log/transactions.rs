//! Which version each application has committed, replayed for all applications at once.
//!
//! delta-rs answers this for one application a replay; `watershed load` asks for one a file. So the newest checkpoint's
//! `txn` column and the commits after it are read here. Later commits override earlier ones, as the protocol says.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use watershed_core::{Error, Result};

use super::checkpoints::newest_checkpoint;
use super::{LogCommit, list_log, read_commit};
use crate::parquet_object::ObjectReader;
use crate::stores::Place;

/// The version of each application at a table version.
pub(crate) async fn transactions(place: &Place, version: u64) -> Result<BTreeMap<String, i64>> {
    let files = list_log(place, None).await?;
    let (base, checkpoint) = newest_checkpoint(&files, version);
    let mut found = BTreeMap::new();
    for meta in checkpoint {
        read_checkpoint(place, meta, &mut found).await?;
    }
    for next in base.map_or(0, |v| v + 1)..=version {
        let commit = read_commit(place, next).await?.ok_or_else(|| {
            Error::stopped(format!(
                "log entry {next} of table {} is gone, so what was committed to it is not known",
                place.url
            ))
        })?;
        found.extend(commit.transactions.into_iter().map(|t| (t.app_id, t.version)));
    }
    Ok(found)
}

async fn read_checkpoint(place: &Place, meta: &ObjectMeta, found: &mut BTreeMap<String, i64>) -> Result<()> {
    let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::storage(format!("cannot read checkpoint {} of table", meta.location), place.url.as_str(), e)
    };
    if meta.location.as_ref().ends_with(".json") {
        let bytes = place.store.get(&meta.location).await.map_err(|e| fail(e.into()))?;
        let bytes = bytes.bytes().await.map_err(|e| fail(e.into()))?;
        let entry = LogCommit::parse(0, &bytes).map_err(|e| fail(e.into()))?;
        found.extend(entry.transactions.into_iter().map(|t| (t.app_id, t.version)));
        return Ok(());
    }
    let reader = ObjectReader::new(place.store.clone(), meta.location.clone(), meta.size);
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| fail(e.into()))?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn"]);
    let mut batches = builder.with_projection(mask).build().map_err(|e| fail(e.into()))?;
    while let Some(batch) = batches.try_next().await.map_err(|e| fail(e.into()))? {
        let Some(txn) = batch.column_by_name("txn").and_then(|c| c.as_struct_opt()) else { continue };
        let (Some(apps), Some(versions)) = (txn.column_by_name("appId"), txn.column_by_name("version")) else {
            continue;
        };
        let apps = arrow::compute::cast(apps, &DataType::Utf8).map_err(|e| fail(e.into()))?;
        let (apps, versions) = (apps.as_string::<i32>(), versions.as_primitive_opt::<Int64Type>());
        let versions = versions.ok_or_else(|| fail("its txn.version is no bigint".into()))?;
        for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && apps.is_valid(*row)) {
            found.insert(apps.value(row).to_string(), versions.value(row));
        }
    }
    Ok(())
}
