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

use super::{LogCommit, is_commit, list_log, read_commit};
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

/// The files of the newest whole checkpoint at or before a version.
fn newest_checkpoint(files: &[(u64, ObjectMeta)], version: u64) -> (Option<u64>, Vec<&ObjectMeta>) {
    let mut by_version: BTreeMap<u64, Vec<(&ObjectMeta, Vec<&str>)>> = BTreeMap::new();
    for (v, meta) in files.iter().filter(|(v, meta)| *v <= version && !is_commit(&meta.location)) {
        let parts: Vec<&str> = meta.location.filename().unwrap_or_default().split('.').collect();
        if parts.get(1) == Some(&"checkpoint") {
            by_version.entry(*v).or_default().push((meta, parts));
        }
    }
    for (v, found) in by_version.into_iter().rev() {
        // `v.checkpoint.parquet`, or with a UUID (V2): one file says all that is not about files.
        if let Some((meta, _)) = found.iter().find(|(_, parts)| parts.len() <= 4) {
            return (Some(v), vec![meta]);
        }
        // `v.checkpoint.part.of.parquet`: whole only if all parts are there.
        let whole = found.iter().filter_map(|(_, parts)| parts.get(3)?.parse::<usize>().ok()).max();
        if whole == Some(found.len()) {
            return (Some(v), found.into_iter().map(|(meta, _)| meta).collect());
        }
    }
    (None, vec![])
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

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    fn file(name: &str) -> (u64, ObjectMeta) {
        let version = name[..20].parse().unwrap();
        let location = Path::from(format!("t/_delta_log/{name}"));
        let last_modified = chrono::DateTime::from_timestamp_micros(0).unwrap();
        (version, ObjectMeta { location, last_modified, size: 1, e_tag: None, version: None })
    }

    #[test]
    fn takes_the_newest_whole_checkpoint() {
        let files = [
            file("00000000000000000002.checkpoint.parquet"),
            file("00000000000000000005.checkpoint.0000000001.0000000002.parquet"),
            file("00000000000000000005.checkpoint.0000000002.0000000002.parquet"),
            file("00000000000000000006.json"),
            file("00000000000000000007.checkpoint.0000000001.0000000002.parquet"),
            file("00000000000000000009.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json"),
        ];
        let base = |version| {
            let (base, files) = newest_checkpoint(&files, version);
            (base, files.len())
        };
        assert_eq!(base(1), (None, 0));
        assert_eq!(base(4), (Some(2), 1));
        assert_eq!(base(8), (Some(5), 2));
        assert_eq!(base(9), (Some(9), 1));
    }
}
