//! The runtime's checkpoints over real object stores.

#![allow(clippy::unwrap_used)] // A test that cannot go on panics, and says where.

mod checkpoints;
