//! Lake tables: read as history, written as results. Everything that knows Delta or Parquet files lives here, and the
//! `deltalake` crate is named nowhere else.
//!
//! ```text
//!  location ──stores──▶ Place ──┬─ log ──▶ history::open_history ──▶ core's History  (what is read)
//!                               └─ log ──▶ table::DeltaSink ──────▶ core's Sink     (what is written)
//! ```
//!
//! Modules in reading order:
//!
//! * [`stores`]: locations to object stores.
//! * `log`: the Delta log as facts: its state, what came since, which features it asks for.
//! * `parquet_object`: Parquet files in object stores, read by range and written in parts.
//! * `data_file`: a Parquet file's rows as the table has its columns.
//! * [`history`]: Delta tables and hive-style Parquet folders as time partitions of files.
//! * [`table`]: result tables: schema, data files, idempotent commits.
//! * [`keyed`]: result tables whose rows replace others.
//! * [`upkeep`]: tables brought back into shape.
//! * [`changes`]: what each version of a table did to its rows.
//! * [`faults`]: an object store that fails, for tests.
//!
//! **Invariant:** nothing here decides what is read next or when an epoch ends; and a table becomes different only
//! through one put-if-absent of a log entry.

pub mod stores;

mod log;

mod parquet_object;

mod data_file;

pub mod history;

pub mod table;

pub mod keyed;

pub mod upkeep;

pub mod changes;

pub mod faults;

pub use faults::{Fault, FaultCounts, FaultPlan, FaultStore};
pub use history::{HistoryOptions, open_history};
pub use keyed::{KeySpec, Merge, PRIMARY_KEY, WriteMode};
pub use stores::{Place, RequestCounts, Stores};
pub use table::{Create, DeltaSink, PartitionBy, SinkOptions, TableInfo, TableSpec, delta_schema, loaded, table_info};
