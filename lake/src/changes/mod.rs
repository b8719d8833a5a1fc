//! A table's change feed: what each version inserted, updated and deleted, row by row.
//!
//! ```text
//!  log entry ─ plan ─▶ parts: files and which of their rows ─ pair: by key, within a version ─▶ rows with what became of them
//!                                                                                               │
//!                          feed: of a stretch of versions (CHANGES) ◀───────────────────────────┴──▶ tail: as they come
//! ```
//!
//! A version that wrote change files (Delta's change data feed) is read from these. Any other says it by its actions: an
//! added file inserts its unmarked rows, a removed one deletes them, and one that came again with other marks deletes the
//! newly marked. Where the table has a key, a delete and an insert of one key in one version are the two images of an update.
//!
//! * `table`: what has to be known of a table.
//! * `plan`: from a log entry to parts. Pure.
//! * `pair`: which keys were both deleted and inserted.
//! * `part`: a part as rows.
//! * `rows`: a version as batches.
//! * `feed`: versions that are there.
//! * `offset`: where a reader stands, as one number. Pure.
//! * `reader`, `tail`: versions as they come, as the log of a source.
//!
//! **Invariant:** a version that cannot be told any more, because its log entry or a file is gone, is an error that names it;
//! nothing is passed over.

mod table;

mod plan;

mod pair;

mod part;

mod rows;

mod feed;

mod offset;

mod reader;

mod tail;

pub(crate) use offset::{Needs, needs};

pub use feed::{ChangeFeed, Since, changes};
pub use table::CHANGE_COLUMNS;
pub use tail::ChangeTail;
