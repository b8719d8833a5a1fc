//! What the whole does, from outside: the crates' edges, the command line, the library.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so best by stopping there.

mod azurite;

mod binary;

mod campaign;

mod chained;

mod cli;

mod control;

mod docs;

mod early;

mod engine;

mod estimates;

mod external;

mod faults;

mod folders;

mod full_disk;

mod generate;

mod kafka;

mod minio;

mod keyed;

mod keyed_kill;

mod memory;

mod oracle;

mod readers;

mod repair;

mod sinks;

mod spark;

mod trust;

mod vacuum;

mod workspace;
