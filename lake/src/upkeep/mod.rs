//! Upkeep: a table's files brought back into shape, beside whoever writes to it.
//!
//! ```text
//!  live files ─ choose ─▶ bins ─ rewrite ─▶ new files ─ compact: marks made meanwhile carried over ─▶ one commit
//! ```
//!
//! * `choose`: which files are worth rewriting together. Pure.
//! * `order`: rows sorted or along a Z-order curve; `rewrite`: the unmarked rows of some files into new ones.
//! * `compact`: the two, and the commit that puts the new files in the old ones' place.
//!
//! **Invariant:** upkeep changes no row: its commits say so (`dataChange = false`), and a file that another removed or
//! rewrote meanwhile is left to the other.

mod choose;

mod order;

mod rewrite;

mod compact;

pub(crate) use compact::compact_where;
pub use compact::{CompactOptions, Compacted, compact};
pub use order::RowOrder;
