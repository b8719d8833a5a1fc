//! What has to be known of a table to tell its changes: where it lies, its columns, and by what its rows are known.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::Snapshot;
use object_store::ObjectStoreExt;
use uuid::Uuid;
use watershed_core::time::EventTime;
use watershed_core::{Error, Result};

use crate::keyed::KeySpec;
use crate::keyed::key::Keyer;
use crate::log::{self, LogCommit, LogMetadata, LogProtocol, columns, features, state};
use crate::stores::{Place, Stores};

/// What a feed has beside the table's columns: text, bigint, timestamp. The first is `insert`, `delete`, `update_preimage` or
/// `update_postimage`.
pub const CHANGE_COLUMNS: [&str; 3] = ["_change_type", "_commit_version", "_commit_timestamp"];

/// A table whose changes are told.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) location: String,
    /// Another table at this place has another.
    pub(super) id: String,
    /// The table's columns and [`CHANGE_COLUMNS`].
    pub(super) schema: SchemaRef,
    pub(super) is_partitioned: bool,
    pub(super) key: Option<Key>,
    /// When it was opened.
    pub(super) newest: u64,
}

/// By what a delete and an insert are known to be of one row.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) keyer: Keyer,
    /// Their places in the table.
    pub(super) columns: Vec<usize>,
}

impl Table {
    /// The table at a location; `key` stands in for one that its properties do not record.
    pub(super) async fn open(stores: &Stores, location: &str, key: Option<&[String]>) -> Result<Table> {
        let place = stores.open(location)?;
        let none = || Error::input(format!("{location} is not a Delta table: it has no _delta_log"));
        let snapshot = log::snapshot(&place, None).await?.ok_or_else(none)?;
        let metadata = metadata(&place, location, &snapshot)?;
        let table = state::arrow_schema(&place, &metadata)?;
        if let Some(taken) = CHANGE_COLUMNS.iter().find(|name| table.index_of(name).is_ok()) {
            return Err(Error::input(format!(
                "table {location} has a column {taken}, which is what its change feed calls a column of its own; rename it"
            )));
        }
        Ok(Table {
            key: key_of(location, &metadata, &table, key)?,
            schema: with_changes(&table),
            is_partitioned: !metadata.partition_columns.is_empty(),
            location: location.to_string(),
            id: metadata.id,
            newest: snapshot.version(),
            place,
        })
    }

    /// Errors unless what a commit made of the table can be told.
    pub(super) fn check(&self, commit: &LogCommit) -> Result<()> {
        if let Some(protocol) = &commit.protocol {
            features::check_readable(&self.location, protocol)?;
        }
        match &commit.metadata {
            Some(metadata) if metadata.id != self.id => Err(self.anew(&metadata.id)),
            Some(metadata) => check_names(&self.location, metadata),
            None => Ok(()),
        }
    }

    /// Errors unless the table is still the one that was opened.
    pub(super) async fn check_same(&self) -> Result<()> {
        let gone = || Error::stopped(format!("table {} is gone: there is no Delta log", self.location));
        let snapshot = log::snapshot(&self.place, None).await?.ok_or_else(gone)?;
        let metadata: LogMetadata = state::plain(&self.place, snapshot.metadata())?;
        if metadata.id == self.id { Ok(()) } else { Err(self.anew(&metadata.id)) }
    }

    pub(super) fn anew(&self, found: &str) -> Error {
        Error::stopped(format!(
            "table {} was deleted and made anew: its id is {found}, and was {}; what it has now does not follow what was read, so \
             build the view anew (CREATE OR REPLACE)",
            self.location, self.id
        ))
    }

    pub(super) fn gone(&self, version: u64) -> Error {
        Error::stopped(format!(
            "log entry {version} of table {} is gone, so what it changed is not known; begin at a later version, and keep log \
             entries longer (delta.logRetentionDuration)",
            self.location
        ))
    }

    /// When a version was committed: by its own word, or when its entry was put.
    pub(super) async fn time(&self, commit: &LogCommit) -> Result<EventTime> {
        let said = ["inCommitTimestamp", "timestamp"].iter().find_map(|name| commit.info.get(*name)?.as_i64());
        if let Some(millis) = said {
            return Ok(EventTime(millis.saturating_mul(1000)));
        }
        let path = log::commit_path(&self.place, commit.version);
        let meta = self.place.store.head(&path).await;
        let meta = meta.map_err(|e| Error::storage("cannot look for", format!("{}{path}", self.place.store_url), e))?;
        Ok(EventTime(meta.last_modified.timestamp_micros()))
    }
}

fn metadata(place: &Place, location: &str, snapshot: &Snapshot) -> Result<LogMetadata> {
    let metadata: LogMetadata = state::plain(place, snapshot.metadata())?;
    let protocol: LogProtocol = state::plain(place, snapshot.protocol())?;
    features::check_readable(location, &protocol)?;
    check_names(location, &metadata)?;
    Ok(metadata)
}

fn check_names(location: &str, metadata: &LogMetadata) -> Result<()> {
    match columns::mapping(metadata) {
        Ok(columns::Mapping::None) => Ok(()),
        _ => Err(Error::input(format!(
            "table {location} maps column names (delta.columnMapping.mode), and changes of such tables cannot be read yet"
        ))),
    }
}

fn with_changes(table: &SchemaRef) -> SchemaRef {
    // Files of versions before a column was there have NULL in it.
    let mut fields: Vec<FieldRef> =
        table.fields().iter().map(|f| Arc::new(Field::new(f.name(), f.data_type().clone(), true))).collect();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (name, data_type) in CHANGE_COLUMNS.into_iter().zip([DataType::Utf8, DataType::Int64, time]) {
        fields.push(Arc::new(Field::new(name, data_type, false)));
    }
    Schema::new(fields).into()
}

fn key_of(location: &str, metadata: &LogMetadata, table: &SchemaRef, given: Option<&[String]>) -> Result<Option<Key>> {
    let recorded = KeySpec::of(&metadata.configuration).map(|spec| spec.columns);
    let columns: Vec<usize> = match (recorded, given) {
        (_, Some(given)) => {
            let find = |name: &String| {
                table
                    .index_of(name)
                    .map_err(|_| Error::input(format!("primary_key: table {location} has no column `{name}`")))
            };
            given.iter().map(find).collect::<Result<_>>()?
        }
        (Some(recorded), None) => {
            // A key whose columns are no more pairs nothing.
            let found: Option<Vec<usize>> = recorded.iter().map(|name| table.index_of(name).ok()).collect();
            let Some(found) = found else { return Ok(None) };
            found
        }
        (None, None) => return Ok(None),
    };
    let types: Vec<DataType> = columns.iter().map(|i| table.field(*i).data_type().clone()).collect();
    // Hashes live no longer than this process, and decide only what an image is called.
    Ok(Some(Key { keyer: Keyer::new(&types, Uuid::nil())?, columns }))
}
