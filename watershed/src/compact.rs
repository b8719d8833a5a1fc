//! `watershed compact`: tables' files brought back into shape, by name or by location.

use watershed_core::{Error, Result};
use watershed_lake::upkeep::{self, CompactOptions, Compacted};

use crate::engine::Engine;

/// Compacts a table or view of the catalog, or the Delta table at a location.
pub(crate) async fn compact(engine: &Engine, name: &str, options: CompactOptions) -> Result<Compacted> {
    let entries = engine.catalog().list().await?;
    let known = entries.iter().find(|entry| entry.kind.is_relation() && entry.name == name);
    let location = match known {
        Some(entry) if entry.kind.has_table() => engine.location(entry),
        Some(entry) => {
            return Err(Error::input(format!(
                "{name} is {}, and has no table of its own to compact; give a table, a materialized view or a location",
                entry.kind.one()
            )));
        }
        None => name.to_string(),
    };
    upkeep::compact(engine.stores(), &location, options, engine.clock().as_ref()).await
}
