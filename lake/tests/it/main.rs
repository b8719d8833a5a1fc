//! The lake crate against real files: tables are written by its own sink and read back by its own history, by
//! delta-rs's log replay and by plain Parquet readers.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod fixtures;

mod beside;

mod changes;

mod commits;

mod deltas;

mod evolving;

mod folders;

mod keyed;

mod mapping;

mod marks;

mod racing;

mod replacing;

mod vacuum;

mod writing;
