//! Making a table: log entry 0 with its protocol and metadata, put only if absent.
//!
//! Whoever loses the race finds a table there and judges it like any other; nobody ever overwrites one.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Schema, TimeUnit};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde_json::json;
use watershed_core::clock::Clock;
use watershed_core::{Error, Result};

use super::shape::Shape;
use super::{INCARNATION, TableSpec};
use crate::log::{LogMetadata, LogProtocol, commit_path, features};
use crate::stores::Place;

/// Delta's own properties that ask nothing of a writer that only appends, and nothing of readers.
const PROPERTIES: &[&str] = &[
    "delta.appendOnly",
    "delta.checkpointInterval",
    "delta.dataSkippingNumIndexedCols",
    "delta.dataSkippingStatsColumns",
    "delta.deletedFileRetentionDuration",
    features::FEEDS_CHANGES,
    "delta.enableExpiredLogCleanup",
    "delta.logRetentionDuration",
];

/// Errors unless the properties can be kept.
pub(crate) fn check_properties(properties: &BTreeMap<String, String>) -> Result<()> {
    let odd = properties.keys().find(|key| key.starts_with("delta.") && !PROPERTIES.contains(&key.as_str()));
    match odd {
        None => Ok(()),
        Some(key) => Err(Error::input(format!(
            "table property `{key}` is not supported; of Delta's own these are: {}",
            PROPERTIES.join(", ")
        ))),
    }
}

/// Puts entry 0. An error may mean that the table is there all the same: load it before anything else.
pub(crate) async fn create(place: &Place, shape: &Shape, spec: &TableSpec, clock: &dyn Clock) -> Result<()> {
    let schema: StructType = shape
        .table_schema
        .as_ref()
        .try_into_kernel()
        .map_err(|e| Error::input(format!("table {}: its columns do not make a Delta schema: {e}", place.url)))?;
    let mut configuration = spec.properties.clone();
    if let Some(owner) = spec.owner {
        configuration.insert(INCARNATION.to_string(), owner.to_string());
    }
    let now = clock.now().0 / 1000;
    let metadata = LogMetadata {
        id: clock.id().to_string(),
        schema_string: serde_json::to_string(&schema).map_err(|e| Error::bug(format!("a schema as JSON: {e}")))?,
        partition_columns: shape.partition_columns.clone(),
        configuration,
        created_time: Some(now),
        ..Default::default()
    };
    let info = json!({
        "timestamp": now,
        "operation": "CREATE TABLE",
        "operationParameters": {"partitionBy": json!(shape.partition_columns).to_string()},
        "engineInfo": super::commit::ENGINE,
    });
    let entry = [
        json!({"commitInfo": info}),
        json!({"protocol": protocol(&shape.table_schema, features::feeds_changes(&metadata))}),
        json!({"metaData": metadata}),
    ];
    let entry: Vec<String> = entry.iter().map(|action| action.to_string()).collect();
    let options = PutOptions { mode: PutMode::Create, ..Default::default() };
    let put = place.store.put_opts(&commit_path(place, 0), entry.join("\n").into(), options).await;
    match put {
        Ok(_) => Ok(()),
        Err(e) => {
            // Only to tell a refusal that is plain from one that is not.
            let there = place.store.head(&commit_path(place, 0)).await.is_ok();
            let what = if there { "table was made by another at" } else { "cannot make table" };
            Err(Error::storage_unknown(what, place.url.as_str(), e))
        }
    }
}

/// The least that the columns, and a change data feed, ask for.
fn protocol(schema: &Schema, feeds_changes: bool) -> LogProtocol {
    let ntz = schema.fields().iter().any(|f| has_ntz(f.data_type()));
    if !ntz {
        return LogProtocol {
            min_reader_version: 1,
            min_writer_version: if feeds_changes { 4 } else { 2 },
            ..Default::default()
        };
    }
    let own = |features: &[&str]| Some(features.iter().map(|f| f.to_string()).collect());
    LogProtocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: own(&["timestampNtz"]),
        // Earlier writer versions had the others built in; with features they have to be named.
        writer_features: match feeds_changes {
            true => own(&["appendOnly", "changeDataFeed", "invariants", "timestampNtz"]),
            false => own(&["appendOnly", "invariants", "timestampNtz"]),
        },
    }
}

fn has_ntz(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, None) => true,
        DataType::List(item) | DataType::Map(item, _) => has_ntz(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| has_ntz(f.data_type())),
        _ => false,
    }
}

/// The names a spec's properties and an existing table's disagree on, for a warning.
pub(crate) fn differing(spec: &TableSpec, existing: &BTreeMap<String, String>) -> BTreeSet<String> {
    let differs = |(key, value): &(&String, &String)| existing.get(*key) != Some(value);
    spec.properties.iter().filter(differs).map(|(key, _)| key.clone()).collect()
}
