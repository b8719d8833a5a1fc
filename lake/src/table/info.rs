//! What a table is, for `watershed tables`, DESCRIBE and `watershed load`.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use watershed_core::history::Times;
use watershed_core::{Error, Result};

use crate::history::statistics_of;
use crate::log::{self, LogMetadata, TableState, state};
use crate::stores::Stores;

/// Bytes below which a file is small: half of what compaction makes of it.
pub(super) const SMALL: u64 = 64 << 20;

/// A Delta table at its newest version.
#[derive(Clone, Debug)]
pub struct TableInfo {
    pub location: String,
    pub version: u64,
    pub id: String,
    /// All columns, partition columns included.
    pub schema: SchemaRef,
    pub partition_columns: Vec<String>,
    pub files: u64,
    /// `None` when a file's statistics do not say.
    pub rows: Option<u64>,
    pub bytes: u64,
    /// Rows that deletion vectors mark.
    pub marked: u64,
    /// Files of less than 64 MB that have others beside them in their partition.
    pub small_files: u64,
    pub properties: BTreeMap<String, String>,
}

/// Describes the Delta table at a location; an input error when there is none.
pub async fn table_info(stores: &Stores, location: &str) -> Result<TableInfo> {
    let place = stores.open(location)?;
    let none = || Error::input(format!("{location} is not a Delta table: it has no _delta_log"));
    let snapshot = log::snapshot(&place, None).await?.ok_or_else(none)?;
    let metadata: LogMetadata = state::plain(&place, snapshot.metadata())?;
    let log_store = log::log_store(&place);
    let mut views = snapshot.file_views(log_store.as_ref(), None);
    let (mut files, mut rows, mut bytes, mut dead) = (0, Some(0), 0, 0);
    // Of each partition: files, and small ones.
    let mut partitions: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    while let Some(view) =
        views.try_next().await.map_err(|e| Error::storage("cannot list the files of", location, e))?
    {
        let marked =
            view.deletion_vector_descriptor().map_or(0, |vector| u64::try_from(vector.cardinality).unwrap_or(0));
        let (count, _): (Option<u64>, Times) = statistics_of(view.stats().as_deref(), None);
        files += 1;
        dead += marked;
        let values: BTreeMap<_, _> = view.partition_values_map().into_iter().collect();
        let of_partition = partitions.entry(format!("{values:?}")).or_default();
        of_partition.0 += 1;
        of_partition.1 += u64::from(u64::try_from(view.size()).unwrap_or_default() < SMALL);
        rows = rows.zip(count).map(|(sum, n)| sum + n.saturating_sub(marked));
        bytes += u64::try_from(view.size()).unwrap_or_default();
    }
    Ok(TableInfo {
        location: location.to_string(),
        version: snapshot.version(),
        schema: state::arrow_schema(&place, &metadata)?,
        id: metadata.id,
        partition_columns: metadata.partition_columns,
        files,
        rows,
        bytes,
        marked: dead,
        small_files: partitions.into_values().filter(|(files, _)| *files > 1).map(|(_, small)| small).sum(),
        properties: metadata.configuration,
    })
}

/// Which of the applications a table has, with their versions; none when there is no table.
pub async fn loaded(stores: &Stores, location: &str, applications: &[String]) -> Result<BTreeMap<String, u64>> {
    let place = stores.open(location)?;
    let Some(state) = TableState::load(&place).await? else { return Ok(BTreeMap::new()) };
    let found = |id: &String| Some((id.clone(), u64::try_from(*state.transactions.get(id)?).ok()?));
    Ok(applications.iter().filter_map(found).collect())
}
