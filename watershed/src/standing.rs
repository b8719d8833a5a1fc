//! Where the jobs stand, as far as checkpoints, the records of runs and the sources tell.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use serde::Serialize;
use watershed_core::control::Control;
use watershed_core::epoch::Manifest;
use watershed_core::history::{DataFile, Times, Version};
use watershed_core::slice;
use watershed_core::{EventTime, Result, settings::Settings};
use watershed_runtime::checkpoint::{Checkpoints, Newest};
use watershed_runtime::record::SILENCE;
use watershed_runtime::{RunRecord, RunState, last_run};

use crate::catalog::{Entry, Kind};
use crate::control;
use crate::engine::{Engine, RunOptions, relation};
use crate::execute::Session;
use crate::relations::{open_source, query_of, reached};
use crate::tables;

/// A job and where it stands.
#[derive(Clone, Debug)]
pub struct JobInfo {
    pub name: String,
    pub kind: Kind,
    /// Where its result lies.
    pub location: String,
    pub created: EventTime,
    pub state: JobState,
    /// The newest checkpoint; `None` before the first.
    pub checkpoint: Option<Manifest>,
    /// Why the newest checkpoint cannot be read, if it cannot, or why the last run failed.
    pub trouble: Option<String>,
    /// Its last run, where that left a record.
    pub run: Option<RunRecord>,
    /// When the result table was last committed to.
    pub last_commit: Option<EventTime>,
    /// What there is still to read; `None` where a source cannot be asked.
    pub left: Option<Left>,
    /// What is asked of it from outside.
    pub control: Control,
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Never run.
    New,
    /// A runner was heard of within the last three quarters of a minute.
    Running,
    /// It rests until it is resumed.
    Paused,
    /// The last run came as far as it could.
    Idle,
    /// The last run ended early, as it was asked to.
    Stopped,
    /// The last run ended with an error.
    Failed,
    /// The last run said neither that it goes on nor that it ended: it was killed.
    Killed,
    /// `--final` closed its windows for good.
    Ended,
    /// Its newest checkpoint cannot be read.
    Unreadable,
}

/// What there is still to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Files of partitions that no run has read, and of those that a run would read now.
    pub files: u64,
    pub bytes: u64,
    pub closed_files: u64,
    pub closed_bytes: u64,
    /// How far the facts reach that a run would read now.
    pub closed_until: Option<EventTime>,
    /// The latest event time that statistics know of.
    pub newest: Option<EventTime>,
    /// Messages that logs have and that were not read; `None` where no log is read yet.
    pub messages: Option<u64>,
}

impl JobInfo {
    /// How far the watermark is behind the facts that a run would read now, in microseconds.
    pub fn lag(&self) -> Option<i64> {
        let until = self.left?.closed_until?;
        match self.checkpoint.as_ref().map(|c| c.watermark) {
            Some(w) if w != EventTime::MIN => Some(until.0.saturating_sub(w.0).max(0)),
            _ => None,
        }
    }
}

pub(crate) async fn jobs(engine: &Engine) -> Result<Vec<JobInfo>> {
    let options = RunOptions::default();
    let session = Session::new(engine, &options).await?;
    let mut found = vec![];
    for entry in session.entries.iter().filter(|e| e.kind.is_job()) {
        found.push(job(engine, &session, entry).await?);
    }
    Ok(found)
}

async fn job(engine: &Engine, session: &Session<'_>, entry: &Entry) -> Result<JobInfo> {
    let (store, home) = engine.home();
    let newest = Checkpoints::new(store.clone(), home, &entry.name, entry.incarnation).newest().await?;
    let run = last_run(store.as_ref(), home, &entry.name, entry.incarnation).await;
    let (checkpoint, mut trouble) = match newest {
        Newest::None => (None, None),
        Newest::Manifest(manifest) => (Some(*manifest), None),
        Newest::Unreadable { why, .. } => (None, Some(why)),
    };
    let unreadable = trouble.is_some();
    let control = match control::of(engine, entry).await {
        Ok(control) => control,
        Err(e) => {
            trouble = trouble.or(Some(e.to_string()));
            Control::default()
        }
    };
    let paused = control.paused.is_some();
    let state = state(checkpoint.as_ref(), unreadable, paused, run.as_ref(), engine.clock().now());
    if state == JobState::Failed {
        trouble = trouble.or_else(|| run.as_ref().and_then(|run| run.error.clone()));
    }
    let location = match entry.kind {
        Kind::Insert => {
            let into = tables::insert_of(entry)?.table;
            relation(&session.entries, &into).map_or(into, |table| engine.location(table))
        }
        _ => engine.location(entry),
    };
    Ok(JobInfo {
        name: entry.name.clone(),
        kind: entry.kind,
        created: entry.created,
        state,
        trouble,
        run,
        last_commit: match entry.kind {
            Kind::Sink => None,
            _ => last_commit(engine, &location).await,
        },
        left: left(engine, session, entry, checkpoint.as_ref()).await.ok(),
        location,
        checkpoint,
        control,
    })
}

/// What a job is doing, from what it left behind.
fn state(
    checkpoint: Option<&Manifest>,
    unreadable: bool,
    paused: bool,
    run: Option<&RunRecord>,
    now: EventTime,
) -> JobState {
    let silent = |run: &RunRecord| now.0.saturating_sub(run.heard.0) > SILENCE.as_micros() as i64;
    match run {
        _ if unreadable => JobState::Unreadable,
        _ if checkpoint.is_some_and(|c| c.ended) => JobState::Ended,
        _ if paused => JobState::Paused,
        Some(run) if run.state == RunState::Running && !silent(run) => JobState::Running,
        Some(run) => match run.state {
            RunState::Running => JobState::Killed,
            RunState::Idle => JobState::Idle,
            RunState::Stopped => JobState::Stopped,
            RunState::Failed => JobState::Failed,
        },
        None if checkpoint.is_some() => JobState::Idle,
        None => JobState::New,
    }
}

/// When the newest entry of a table's log was written, as its store has it.
async fn last_commit(engine: &Engine, location: &str) -> Option<EventTime> {
    let info = tables::info(engine, location).await.ok()??;
    let place = engine.stores().open(location).ok()?;
    let entry = place.path.clone().join("_delta_log").join(format!("{:020}.json", info.version));
    let written = place.store.head(&entry).await.ok()?.last_modified;
    Some(EventTime(written.timestamp_micros()))
}

/// What the sources have beyond a checkpoint. Files that came to partitions which were read before are not looked for.
async fn left(engine: &Engine, session: &Session<'_>, entry: &Entry, checkpoint: Option<&Manifest>) -> Result<Left> {
    let Settings { grace, max_ahead, .. } = session.layers.settings()?;
    let now = engine.clock().now();
    let mut left = Left::default();
    let mut until: BTreeMap<&str, EventTime> = BTreeMap::new();
    for source in reached(&session.entries, &query_of(entry)?)?.into_iter().filter(|e| e.kind == Kind::Source) {
        let opened = open_source(engine, &session.layers, source).await?;
        let position = checkpoint.and_then(|c| c.positions.get(&source.name)).cloned().unwrap_or_default();
        if let (Some(stands), Some(tail)) = (&position.tail, &opened.tail) {
            let has = tail.log().look().await?;
            let unread = has.unread(|part| stands.parts.get(&part).map(|at| at.next));
            left.messages = Some(left.messages.unwrap_or(0) + unread);
            continue;
        }
        let snapshot = opened.history.pin(None).await?;
        let closed = match opened.bounded {
            true => snapshot.partitions.len(),
            false => slice::closed(&snapshot, position.boundary, now, grace, max_ahead),
        };
        let same = matches!((&position.version, &snapshot.version),
            (Some(Version::Delta { table_id: a, .. }), Version::Delta { table_id: b, .. }) if a != b);
        if same {
            continue;
        }
        let unread = |i: usize| snapshot.partitions[i].interval.start >= position.boundary;
        let count = |files: &mut dyn Iterator<Item = &DataFile>| {
            files.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.bytes()))
        };
        let all = (0..snapshot.partitions.len()).filter(|i| unread(*i)).flat_map(|i| &snapshot.partitions[i].files);
        let ready = (0..closed).filter(|i| unread(*i)).flat_map(|i| &snapshot.partitions[i].files);
        let (files, bytes) = count(&mut all.chain(&position.pending));
        let (closed_files, closed_bytes) = count(&mut ready.chain(&position.pending));
        left.files += files;
        left.bytes += bytes;
        left.closed_files += closed_files;
        left.closed_bytes += closed_bytes;
        if let Some(last) = closed.checked_sub(1).and_then(|i| snapshot.partitions.get(i)) {
            until.insert(&source.name, last.interval.end.minus(opened.delay));
        }
        let times = snapshot.partitions.iter().flat_map(|p| &p.files).filter_map(|f| match f.times {
            Times::Known { min, max, .. } if min <= max && max <= now.plus(max_ahead) => Some(max),
            _ => None,
        });
        left.newest = left.newest.max(times.max());
    }
    // A run stops where the first of its sources has no more.
    left.closed_until = until.into_values().min();
    Ok(left)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn silence_after_a_beginning_is_a_kill() {
        let run = |state, heard| RunRecord {
            attempt: Uuid::from_u128(1),
            state,
            began: EventTime(0),
            heard: EventTime(heard),
            error: None,
        };
        let at = |run: Option<RunRecord>| state(None, false, false, run.as_ref(), EventTime(100_000_000));
        assert_eq!(at(None), JobState::New);
        assert_eq!(at(Some(run(RunState::Running, 90_000_000))), JobState::Running);
        assert_eq!(at(Some(run(RunState::Running, 10_000_000))), JobState::Killed);
        assert_eq!(at(Some(run(RunState::Failed, 0))), JobState::Failed);
        assert_eq!(at(Some(run(RunState::Stopped, 0))), JobState::Stopped);
    }
}
