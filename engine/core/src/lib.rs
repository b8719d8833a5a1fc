//! The words and seams of Watershed: what a fact's time is, what a slice reads, what an epoch commits, and the traits that
//! sources, operators and sinks fulfil. No I/O happens here, and nothing here knows a file format or a query engine.
//!
//! ```text
//!  History ──pin──▶ Snapshot ──slice::next_step──▶ Step ──▶ (fragment) ──▶ Operator ──▶ Sink ──▶ epoch
//! ```
//!
//! Modules in the order in which a row meets them:
//!
//! * [`time`]: event times, intervals, grains.
//! * [`history`]: a pinned snapshot as time partitions of files, and the [`history::History`] seam.
//! * [`cut`]: files grouped by their statistics, where no partition does it or slices shall be narrower.
//! * [`increment`]: what a history's growth between two runs means for where a job stands in it.
//! * [`slice`]: the pure decision which files the next step reads and where the watermark then stands.
//! * [`tail`]: a live log in parts, and how its messages become facts.
//! * [`log`]: the pure decisions of reading it: what it promises, which part is next, where the seam lies.
//! * [`text`]: files of text as facts.
//! * [`scan`]: what a fragment is bound to for one step, and where rejected rows go.
//! * [`account`]: what became of the rows that were opened.
//! * [`widen`]: which type holds the values of another.
//! * [`change`]: change batches, inserts or weighted.
//! * [`operator`]: the seam of stateful operators.
//! * [`sink`]: the seam of results, tables and logs: files, prepared commits, commits.
//! * [`repair`]: which emitted windows have to be computed anew, and when they can be.
//! * [`epoch`]: manifests, and the pure decisions of recovery.
//! * [`settings`]: every setting a user can give, in one table.
//! * [`secrets`]: which options hold secrets, and how statements speak of them.
//! * [`schedule`]: when a job may run.
//! * [`control`]: what an operator asked of a job from outside.
//! * [`clock`]: the only door to wall time and randomness.
//! * [`error`]: what went wrong, whose turn it is, and whether it may have happened.

pub mod time;

pub mod history;

pub mod cut;

pub mod increment;

pub mod slice;

pub mod tail;

pub mod log;

pub mod text;

pub mod scan;

pub mod account;

pub mod widen;

pub mod change;

pub mod operator;

pub mod sink;

pub mod epoch;

pub mod repair;

pub mod settings;

pub mod secrets;

pub mod schedule;

pub mod control;

pub mod clock;

pub mod error;

pub use error::{Error, Result};
pub use time::EventTime;
