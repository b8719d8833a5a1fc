//! Messages as lines: a folder of files as the result of a job, and standard output.
//!
//! ```text
//!  folder:  messages ──lines──▶ staged file ──(manifest)──▶ its name by the epoch ──▶ record of the epoch
//!  stdout:  messages ──lines──▶ standard output
//! ```
//!
//! Modules in reading order:
//!
//! * `lines`: messages as lines.
//! * `folder`: files that appear whole, with their epoch.
//! * `record`: which epochs a folder has.
//! * `stdout`: lines as they come.
//!
//! The store is handed in, for which stores there are, and how they are opened, is not known here.
//!
//! What was decided here, and why:
//!
//! * A file is staged in the folder itself, so that it becomes visible by a copy within its store, which takes no bytes through
//!   this process. What is not a result lies in `_watershed`, for readers of folders pass over names with a `_`.
//! * The record of an epoch is apart from its files, so that whoever reads them may move or delete them.
//!
//! **Invariant:** a file's name says of which build of which sink and of which epoch it is, and there is one content for it:
//! what the manifest of that epoch staged. So an epoch may be committed again, by whomever.

mod lines;

mod folder;

mod record;

mod stdout;

pub use folder::{Folder, FolderSink};
pub use stdout::StdoutSink;
