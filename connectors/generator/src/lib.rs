//! A log that nobody writes: messages made up as time goes on, to try a live job without any service.
//!
//! ```text
//!  generate.… ──options──▶ pace: which row is written when, in which part
//!                            │
//!        core's clock ──▶ reader ──row by row──▶ payload: a JSON object ──▶ core's Messages
//! ```
//!
//! Modules in reading order:
//!
//! * `options`: what the log is to be like, as a user says it.
//! * `pace`: rows, parts, offsets and the times at which they are written.
//! * `draw`: chance, by arithmetic alone.
//! * `payload`: the columns of a row as one JSON object.
//! * `reader`: the log being read, no faster than it is written.
//! * `tail`: all of it, as core sees it.
//!
//! What was decided here, and why:
//!
//! * A row is written at `start` plus its number over the rate, whether anybody reads or not, as in a topic that others write
//!   to. So the log is as long as the clock says and no state is kept anywhere; a job that rested catches up. `start` is given,
//!   or the moment in which the source was created, which the catalog keeps.
//! * Messages are JSON, read by the decoder that reads those of brokers: a trial takes the way that real messages take, their
//!   bytes bound the memory of a job, and `_offset`, `_part` and `_timestamp` are columns as ever.
//! * A column's values depend on its name, not on its place or on other columns. So a source with fewer columns has the same
//!   rows, and an archive of a log fits another source of the same log.
//!
//! **Invariant:** a message is a function of the options, its part and its offset, in integers and in floating-point operations
//! that are exact on every machine. Read again after a crash, it is the same to the byte. What decides of it is in the log's id,
//! so that a log of other options is not taken for this one.

mod options;

mod pace;

mod draw;

mod payload;

mod reader;

mod tail;

#[cfg(test)]
mod tests;

pub use tail::GeneratorTail;
