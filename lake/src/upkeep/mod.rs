//! Upkeep: a table's files brought back into shape, beside whoever writes to it.
//!
//! ```text
//!  live files ─ choose ─▶ bins ─ rewrite ─▶ new files ─ compact: marks made meanwhile carried over ─▶ one commit
//!  listing, versions, mentions, pins ─ unneeded ─ vacuum ─▶ files removed ─ entries ─▶ the log cleaned up
//! ```
//!
//! * `choose`: which files are worth rewriting together. Pure.
//! * `order`: rows sorted or along a Z-order curve; `rewrite`: the unmarked rows of some files into new ones.
//! * `compact`: the two, and the commit that puts the new files in the old ones' place.
//! * `unneeded`: which files of a table's folder nobody needs. Pure.
//! * `vacuum`: those files removed, but for what jobs need.
//! * `entries`: the log cleaned up.
//!
//! **Invariant:** upkeep changes no row: its commits say so (`dataChange = false`), and a file that another removed or
//! rewrote meanwhile is left to the other.
//!
//! **Invariant:** a vacuum takes no file of the newest version, of a version at which a job stands, or of a commit that one has
//! prepared; and no log entry that is needed to read such a version, or what came after it.

mod choose;

mod order;

mod rewrite;

mod compact;

mod unneeded;

mod vacuum;

mod entries;

pub use compact::{CompactOptions, Compacted, compact};
pub(crate) use compact::{all_cores, compact_where};
pub use entries::CleanedLog;
pub use order::RowOrder;
pub use vacuum::{Pin, Pins, UnneededFile, VacuumOptions, Vacuumed, vacuum};
