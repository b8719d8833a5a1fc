//! What a job's last runner says of itself, for those who list jobs: `{home}/jobs/{job}/{incarnation}/run.json`.
//!
//! It is overwritten when a run begins, every few seconds while it lives, and at its end; so a runner that was killed is told by
//! its silence. Nothing rests on it: what cannot be written is not missed, and a run that was fenced off leaves it to the other.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;
use watershed_core::clock::Clock;
use watershed_core::{Error, EventTime};

/// How often a runner shows that it lives, and after how long a silence it is taken to be gone.
const EVERY: Duration = Duration::from_secs(10);
pub const SILENCE: Duration = Duration::from_secs(45);

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Running,
    /// It came as far as it could.
    Idle,
    /// It was asked to end early.
    Stopped,
    Failed,
}

/// A run as it was last heard of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub attempt: Uuid,
    pub state: RunState,
    /// Wall times.
    pub began: EventTime,
    pub heard: EventTime,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Writes the record of one run.
pub(crate) struct Recorder {
    store: Arc<dyn ObjectStore>,
    path: Path,
    clock: Arc<dyn Clock>,
    record: RunRecord,
    beat: JoinHandle<()>,
}

fn path(home: &Path, job: &str, incarnation: Uuid) -> Path {
    home.clone().join("jobs").join(job).join(incarnation.to_string()).join("run.json")
}

/// The record of a job's last run; `None` where there is none that can be read.
pub async fn last_run(store: &dyn ObjectStore, home: &Path, job: &str, incarnation: Uuid) -> Option<RunRecord> {
    let found = store.get(&path(home, job, incarnation)).await.ok()?;
    serde_json::from_slice(&found.bytes().await.ok()?).ok()
}

impl Recorder {
    /// Says that a run has begun, and goes on saying so.
    pub(crate) async fn begin(
        store: Arc<dyn ObjectStore>,
        home: &Path,
        job: &str,
        incarnation: Uuid,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let now = clock.now();
        let record = RunRecord { attempt: clock.id(), state: RunState::Running, began: now, heard: now, error: None };
        let path = path(home, job, incarnation);
        write(store.as_ref(), &path, &record).await;
        let beat = {
            let (store, path, clock, mut record) =
                (Arc::clone(&store), path.clone(), Arc::clone(&clock), record.clone());
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(EVERY).await;
                    record.heard = clock.now();
                    write(store.as_ref(), &path, &record).await;
                }
            })
        };
        Recorder { store, path, clock, record, beat }
    }

    /// Says how it ended.
    pub(crate) async fn end(mut self, ended: Result<RunState, &Error>) {
        self.beat.abort();
        (self.record.state, self.record.error) = match ended {
            Ok(state) => (state, None),
            // The job is another's now, and so is what is said of it.
            Err(Error::Fenced { .. }) => return,
            Err(e) => (RunState::Failed, Some(e.to_string())),
        };
        self.record.heard = self.clock.now();
        write(self.store.as_ref(), &self.path, &self.record).await;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

async fn write(store: &dyn ObjectStore, path: &Path, record: &RunRecord) {
    let Ok(body) = serde_json::to_vec(record) else { return };
    if let Err(e) = store.put(path, PutPayload::from(body)).await {
        tracing::debug!("the record of a run was not written: {e}");
    }
}
