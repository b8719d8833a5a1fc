//! Result tables: rows become data files at once, and visible by one idempotent commit an epoch.
//!
//! ```text
//!  rows ─ shape: cast, partition columns ─▶ writer: routes to partitions ─▶ encode: Parquet files ─▶ PreparedCommit
//!  PreparedCommit + identity ─▶ commit: refresh, decide, put-if-absent, read back ─▶ a table version
//! ```
//!
//! * `partition_by`: how a table is partitioned, as users write it.
//! * `types`: Arrow types that Delta has, and what becomes of the others.
//! * `shape`: from the sink's rows to the table's columns.
//! * `statistics`: Delta statistics of a finished file, from its footer.
//! * `parquet_file`, `encode`, `writer`: one file, those of a partition, and the routing of an epoch's rows to many.
//! * `create`, `commit`: the two ways in which a log entry is made.
//! * `tidy`: which partitions still get rows, and when to look after the others.
//! * `archive`: how far a log is in the table.
//! * `replace`: rows in the place of others, for windows that are put right.
//! * `sink`: [`DeltaSink`], which ties them to core's seam.
//! * `info`: what a table is, for people.
//!
//! **Invariant:** a log entry is put only if absent, on the version that was judged, and whatever did not clearly
//! succeed is read back before anything else is tried.

mod partition_by;

mod types;

pub(crate) mod shape;

mod statistics;

mod parquet_file;

pub(crate) mod encode;

pub(crate) mod writer;

mod create;

pub(crate) mod commit;

mod tidy;

pub(crate) mod archive;

mod replace;

mod sink;

mod info;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use uuid::Uuid;

use crate::keyed::{KeySpec, Keyed};

pub use info::{TableInfo, loaded, table_info};
pub use partition_by::PartitionBy;
pub use sink::DeltaSink;
pub use types::delta_schema;

/// The table property that names the incarnation of the view that owns a table.
pub const INCARNATION: &str = "watershed.incarnation";

/// The table property that keeps zone-less timestamps zone-less when its value is `ntz`.
pub const TIMESTAMP_TYPE: &str = "watershed.timestamp_type";

/// What a table is to be.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The rows that will be written, as they come.
    pub schema: SchemaRef,
    pub partition_by: Vec<PartitionBy>,
    /// Table properties, of a table that is made now. Those of an existing table are left as they are.
    pub properties: BTreeMap<String, String>,
    /// The incarnation of the view whose result this is; a table of another's is refused. `None`: whoever's table it
    /// is.
    pub owner: Option<Uuid>,
    /// Rows replace those with the same key.
    pub key: Option<KeySpec>,
}

impl TableSpec {
    /// Errors unless a table at `location` could be made so: column types and names, partitioning, properties.
    pub fn check(&self, location: &str) -> watershed_core::Result<()> {
        create::check_properties(&self.properties)?;
        let (spec, _) = Keyed::rows(self.clone())?;
        let shape = shape::Shape::of_new(location, &spec)?;
        match &self.key {
            None => Ok(()),
            Some(key) => Keyed::columns(location, key, &shape, Uuid::nil()).map(|_| ()),
        }
    }
}

/// When a table that is not there is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    #[default]
    Now,
    /// With the first commit, for tables that often stay empty.
    AtFirstRows,
}

/// How a sink writes.
#[derive(Clone, Copy, Debug)]
pub struct SinkOptions {
    /// Bytes after which a file is closed and another begun.
    pub target_file_size: u64,
    /// The most files of one partition that are written at once.
    pub lanes: usize,
    pub create: Create,
    /// Bytes of unfinished row groups that all files of an epoch may hold together, about.
    pub buffer: usize,
    /// Bytes that the key index of a keyed table may take.
    pub index: usize,
    /// Small files of a partition from which on they are put together once no more rows come to it; 0: never.
    pub compact_files: usize,
}

impl Default for SinkOptions {
    fn default() -> Self {
        SinkOptions {
            target_file_size: 128 << 20,
            lanes: 1,
            create: Create::Now,
            buffer: 256 << 20,
            index: 512 << 20,
            compact_files: 16,
        }
    }
}
