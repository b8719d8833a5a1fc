//! `watershed compact`: tables' files brought back into shape, by name or by location.

use watershed_core::Result;
use watershed_lake::upkeep::{self, CompactOptions, Compacted};

use crate::engine::Engine;
use crate::tables;

/// Compacts a table or view of the catalog, or the Delta table at a location.
pub(crate) async fn compact(engine: &Engine, name: &str, options: CompactOptions) -> Result<Compacted> {
    let location = tables::own_table(engine, &engine.catalog().list().await?, name, "compact")?;
    upkeep::compact(engine.stores(), &location, options, engine.clock().as_ref()).await
}
