//! Upkeep: a table's files brought back into shape, beside whoever writes to it.
//!
//! ```text
//!  live files ─ choose ─▶ bins ─ rewrite ─▶ new files ─ compact: marks made meanwhile carried over ─▶ one commit
//! ```
//!
//! * `choose`: which files are worth rewriting together. Pure.
//! * `rewrite`: the unmarked rows of some files into new ones, in order.
//! * `compact`: the two, and the commit that puts the new files in the old ones' place.
//!
//! **Invariant:** upkeep changes no row: its commits say so (`dataChange = false`), and a file that another removed or
//! rewrote meanwhile is left to the other.

mod choose;

mod rewrite;

mod compact;

pub use compact::{CompactOptions, Compacted, compact};
