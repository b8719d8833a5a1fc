//! Watershed on S3: everything over a real MinIO, which [`server`] starts from the binary that `WATERSHED_MINIO` names.
//!
//! * [`path`]: the way a user goes, by the command line.
//! * [`racing`]: two runners, and many writers, of one thing.
//! * [`listing`]: a folder of more objects than a listing's page holds.
//! * [`faults`]: a store that says `503`, and one that goes away.
//! * [`sinks`]: files of lines, killed.
//! * [`credentials`]: where they come from, and where they never go.

pub(crate) mod server;

mod proxy;

pub(crate) mod cli;

mod path;

mod racing;

mod listing;

mod faults;

mod sinks;

mod credentials;
