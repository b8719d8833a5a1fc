//! The plan crate as its users see it: SQL in, graphs, schemas and refusals out, and fragments run over small files.

#![allow(clippy::unwrap_used)] // A test that cannot go on panics, and says where.

mod accounts;
mod binding;
mod coded;
mod counting;
mod fixture;
mod joins;
mod refusals;
mod shapes;
mod statements;
mod stored;
mod windows;
