//! Log entries as plain data: what one commit did, and the two actions that make a table what it is.
//!
//! Only what Watershed judges by is kept. Unknown actions are passed over here, as the protocol allows: what a reader
//! or writer must understand is said by the protocol action, and judged in [`super::features`].

use std::collections::BTreeMap;

use deltalake::kernel::{Add, AddCDCFile, Remove, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCommit {
    pub(crate) version: u64,
    pub(crate) info: Map<String, Value>,
    pub(crate) adds: Vec<Add>,
    pub(crate) removes: Vec<Remove>,
    /// Files of the change data feed.
    pub(crate) changes: Vec<AddCDCFile>,
    pub(crate) transactions: Vec<Transaction>,
    /// Of a V2 checkpoint: the files that hold its adds and removes.
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) metadata: Option<LogMetadata>,
    pub(crate) protocol: Option<LogProtocol>,
}

/// The `sidecar` action.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Sidecar {
    /// The file's name in `_sidecars`.
    pub(crate) path: String,
}

/// The `metaData` action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogMetadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    #[serde(default)]
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
}

/// The format of data files; always Parquet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Format { provider: "parquet".to_string(), options: BTreeMap::new() }
    }
}

/// The `protocol` action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogProtocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer_features: Option<Vec<String>>,
}

impl LogCommit {
    /// Parses an entry: one action a line.
    pub(crate) fn parse(version: u64, bytes: &[u8]) -> Result<LogCommit, serde_json::Error> {
        let mut commit = LogCommit { version, ..Default::default() };
        for action in serde_json::Deserializer::from_slice(bytes).into_iter::<Map<String, Value>>() {
            for (name, body) in action? {
                match name.as_str() {
                    "commitInfo" => commit.info = serde_json::from_value(body)?,
                    "add" => commit.adds.push(serde_json::from_value(body)?),
                    "cdc" => commit.changes.push(serde_json::from_value(body)?),
                    "remove" => commit.removes.push(serde_json::from_value(body)?),
                    "sidecar" => commit.sidecars.push(serde_json::from_value(body)?),
                    "txn" => commit.transactions.push(serde_json::from_value(body)?),
                    "metaData" => commit.metadata = Some(serde_json::from_value(body)?),
                    "protocol" => commit.protocol = Some(serde_json::from_value(body)?),
                    _ => {}
                }
            }
        }
        Ok(commit)
    }
}
