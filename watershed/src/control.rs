//! Jobs told from outside what to do: other limits, pause, resume, stop.
//!
//! What is asked is written beside the job's checkpoints, where a live run of it reads it every second and answers
//! ([`watershed_runtime::control`]). Whether a run is live shows in the answer, or in that none comes.

use std::time::Duration;

use watershed_core::Result;
use watershed_core::control::{Control, FORMAT};
use watershed_runtime::control::ControlFile;

use crate::catalog::Entry;
use crate::engine::{Engine, job_named};

/// How often, and how many times, it is looked for the answer of a live run.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: u32 = 16;

/// What became of something that was asked of a job.
#[derive(Clone, Debug)]
pub struct Asked {
    /// All that is asked of it now.
    pub control: Control,
    /// A live run has read it and does it. Without an answer within a few seconds none is taken to be live.
    pub heeded: bool,
}

/// What is asked of a job now.
pub(crate) async fn of(engine: &Engine, entry: &Entry) -> Result<Control> {
    file(engine, entry).read().await
}

fn file(engine: &Engine, entry: &Entry) -> ControlFile {
    let (store, home) = engine.home();
    ControlFile::new(store.clone(), home, &entry.name, entry.incarnation)
}

/// Asks something of a job, and waits a little for the answer of a live run.
pub(crate) async fn ask(engine: &Engine, job: &str, change: impl FnOnce(&mut Control) -> Result<()>) -> Result<Asked> {
    let entries = engine.catalog().list().await?;
    let file = file(engine, job_named(&entries, job)?);
    let mut control = file.read().await?;
    change(&mut control)?;
    (control.format, control.id, control.asked) = (FORMAT, engine.clock().id(), engine.clock().now().0);
    file.write(&control).await?;
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        if file.seen().await?.is_some_and(|seen| seen.id == control.id) {
            return Ok(Asked { control, heeded: true });
        }
    }
    Ok(Asked { control, heeded: false })
}
