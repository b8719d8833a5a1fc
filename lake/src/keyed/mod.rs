//! Keyed tables: rows replace and delete those with the same key, at a cost that follows the changes (design §7).
//!
//! New rows go to new files. The rows that they replace are marked in deletion vectors of the files that hold them, in the
//! very commit that adds the new ones, so every reader of Delta with deletion vectors sees one row a key at any moment. What
//! was replaced is found at commit time, on the snapshot that is committed on, and looked for anew when another commit wins.
//!
//! ```text
//!  rows ─ writer: operation, key, fold ─▶ files, PreparedCommit            while an epoch runs
//!  PreparedCommit ─ table: index, scan, resolve ─▶ marks ─ vectors ─▶ log  when it is committed
//! ```
//!
//! Modules in reading order:
//!
//! * [`spec`]: what makes a table keyed.
//! * `key`: keys as hashes; `sieve`: which rows need not be hashed; `operation`: upserts and deletes; `fold`: several changes of a key in one commit. Pure.
//! * `writer`: an epoch's rows.
//! * `scan`: the keys of a file; `bounds`: which files cannot hold some; `index`: where keys lie, within memory.
//! * `live`: the files of a version; `resolve`: from changes to marks; `vectors`: marks as files.
//! * `files`: rows by file and number, and files that a commit writes besides its epoch's; `partial`: NULL keeps the old value;
//!   `images`: the change data feed; `copies`: copy on write.
//! * `conflict`: what winning commits mean. Pure.
//! * `table`: what a writer knows between commits, and the commit itself.
//!
//! **Invariant:** what a commit replaces is decided on the version right before it, or on an earlier one that differs from it
//! only in what is no matter.

pub(crate) mod spec;

pub(crate) mod key;

mod sieve;

mod operation;

pub(crate) mod fold;

mod scan;

mod bounds;

mod index;

pub(crate) mod live;

pub(crate) mod vectors;

mod resolve;

mod files;

mod partial;

mod images;

mod copies;

mod conflict;

mod writer;

mod table;

mod open;

pub(crate) use open::Keyed;
pub use spec::{KeySpec, Merge, PRIMARY_KEY, SEQUENCE_BY, WriteMode, names};
pub(crate) use table::KeyedChange;
