//! The runtime's checkpoints over real object stores.

mod checkpoints;
