//! Drives jobs: steps over history in lockstep, watermarks, epochs, checkpoints, recovery.
//!
//! ```text
//!            sources ── decide the next step (core::slice) ──┐
//!                                                            ▼
//!   step k+1:                       fragment bound to files, already reading ahead
//!   step k:    shard 0 ◀─ hash ─ fragment ─ hash ─▶ shard 1        merge, then on the watermark: emit
//!                 │                                    │
//!                 └──────────▶ epoch writer ◀──────────┘           data files
//!                                   │
//!   epoch:     prepared commit → state files → manifest N → commit of N (while N+1 is being computed)
//! ```
//!
//! Modules in the order in which a run goes through them:
//!
//! * [`job`]: what a run is given.
//! * [`sources`]: pinned histories, logs, and the steps over them.
//! * [`feed`]: a log being read.
//! * [`overlap`]: facts that a history and its log both have, where only event times and keys tell.
//! * [`read`]: which files a position says have been read.
//! * [`preview`]: the steps that a run would do.
//! * [`fragment`]: a step's files, bound and running.
//! * [`shard`]: one shard's part of a step.
//! * [`rejects`]: rows that were not used, kept until the step's end.
//! * [`checkpoint`]: manifests and state files in the home.
//! * [`culprit`]: which file it was, when a step fails.
//! * [`recover`]: from the newest manifest back to a running job.
//! * [`run`]: the loop.
//! * [`stop`], [`control`], [`pace`]: how it ends early, what it is told from outside, and how fast it reads.
//! * [`record`]: what a job's last runner says of itself.
//! * [`progress`]: what a run tells while it goes.
//!
//! **Invariant:** results depend on nothing here but the order of steps: not on parallelism, batch sizes, epochs or restarts.

pub mod job;

pub(crate) mod sources;

pub(crate) mod feed;

pub(crate) mod overlap;

pub mod read;

pub mod preview;

pub(crate) mod fragment;

pub(crate) mod shard;

pub(crate) mod rejects;

pub mod checkpoint;

mod culprit;

pub(crate) mod recover;

pub mod run;

pub mod stop;

pub mod control;

pub(crate) mod pace;

pub mod record;

pub mod progress;

pub use fragment::scanned_bytes;
pub use job::{Context, Early, Finish, Fragment, Goal, Graph, Input, Job, Keys, Recompute, Stage, TailInput};
pub use preview::{PreviewStep, preview};
pub use progress::{GivenUp, NoProgress, Progress, ProgressUpdate, Summary};
pub use read::{brought_to, read_so_far};
pub use record::{RunRecord, RunState, last_run};
pub use run::{Listed, PlayedBack, ReadList, StillMalformed, play_back, run, try_back};
pub use stop::Stop;

use datafusion::common::DataFusionError;
use watershed_core::Error;

/// What a failure inside DataFusion means to the user.
pub(crate) fn in_engine(e: DataFusionError) -> Error {
    // What DataFusion's own operators put aside goes to the same folder as state does; their errors know no kind of it.
    let full = |text: &str| text.contains("No space left on device") || text.contains("exceeded the allowable limit");
    if !matches!(e, DataFusionError::External(_)) && full(&e.to_string()) {
        return Error::Resources(format!(
            "what does not fit the memory limit cannot be put aside on disk: {e}; make room there (spill_dir), or give more \
             disk (disk_limit) or memory (memory_limit)"
        ));
    }
    match e {
        DataFusionError::ResourcesExhausted(m) => Error::Resources(m),
        DataFusionError::Execution(m) | DataFusionError::Plan(m) => Error::input(m),
        DataFusionError::ArrowError(e, _) => Error::input(e.to_string()),
        DataFusionError::ParquetError(e) if of_store(&e) => {
            Error::storage("could not read", "a data file", e.to_string())
        }
        DataFusionError::ParquetError(e) => Error::input(format!("a Parquet file cannot be read: {e}")),
        DataFusionError::ObjectStore(e) => Error::storage("could not read", "a data file", e),
        DataFusionError::Context(context, inner) => match in_engine(*inner) {
            Error::Input(m) => Error::input(format!("{context}: {m}")),
            other => other,
        },
        DataFusionError::Shared(inner) => match inner.as_ref() {
            DataFusionError::ResourcesExhausted(m) => Error::Resources(m.clone()),
            DataFusionError::Internal(m) => Error::bug(m.clone()),
            other => Error::input(other.to_string()),
        },
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::input(other.to_string()),
        },
        other => Error::bug(other.to_string()),
    }
}

/// Whether it is the store that could not be read, not the file. Where a footer is read, only the text tells.
fn of_store(e: &(dyn std::error::Error + 'static)) -> bool {
    let cause = |e: &(dyn std::error::Error + 'static)| e.is::<object_store::Error>();
    cause(e) || e.source().is_some_and(of_store) || e.to_string().contains("Object Store error: ")
}
