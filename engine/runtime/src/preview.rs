//! The steps that a run would do, without doing them: for those who estimate what it costs.
//!
//! Nothing is written, and no file is opened besides those that the history's list needs: where the list does not tell a file's
//! times, its partition stands for them, so a run's own steps may wait a little longer for rows that leaked.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::memory::InMemory;
use watershed_core::clock::Clock;
use watershed_core::epoch::{Manifest, Position};
use watershed_core::history::{Changes, DataFile, DeletedRows, History, Layout, Snapshot, Version};
use watershed_core::settings::Settings;
use watershed_core::{EventTime, Result};

use crate::checkpoint::Checkpoints;
use crate::job::{Goal, Input};
use crate::sources::{Next, Sources};

/// A step as a run would do it.
#[derive(Clone, Debug)]
pub struct PreviewStep {
    /// Files, input by input.
    pub reads: Vec<Vec<DataFile>>,
    /// The watermark after it; [`EventTime::MAX`] closes every window.
    pub watermark: EventTime,
    /// Every partition that starts before this has been read after the step.
    pub boundary: EventTime,
}

/// The steps of a run that goes on from `manifest`.
pub async fn preview(
    inputs: Vec<Input>,
    manifest: Option<&Manifest>,
    settings: &Settings,
    goal: Goal,
    clock: &Arc<dyn Clock>,
    checkpoints: &Checkpoints,
    workers: usize,
) -> Result<Vec<PreviewStep>> {
    let positions: BTreeMap<String, Position> = manifest.map(|m| m.positions.clone()).unwrap_or_default();
    let aside = checkpoints.aside(Arc::new(InMemory::new()), &positions).await?;
    // What comes of a log is nobody's to foresee.
    let unopened =
        |input: Input| Input { history: Arc::new(Unopened(input.history)), tail: None, follow: false, ..input };
    let mut sources = Sources::open(
        inputs.into_iter().map(unopened).collect(),
        &positions,
        manifest.map_or(EventTime::MIN, |m| m.watermark),
        manifest.is_some_and(|m| !m.state.is_empty()),
        settings,
        goal,
        clock,
        &aside,
        None,
        workers,
    )
    .await?;
    let mut steps = vec![];
    while let Next::Step(step) = sources.next().await? {
        let boundary = step.positions.values().map(|p| p.boundary).min().unwrap_or(EventTime::MAX);
        steps.push(PreviewStep { reads: step.reads, watermark: step.watermark, boundary });
    }
    Ok(steps)
}

/// A history whose files are taken as its list tells them.
struct Unopened(Arc<dyn History>);

#[async_trait]
impl History for Unopened {
    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    async fn pin(&self, at: Option<(&Version, Option<&[u8]>)>) -> Result<Snapshot> {
        self.0.pin(at).await
    }

    async fn changes(&self, from: &Snapshot, to: &Snapshot) -> Result<Changes> {
        self.0.changes(from, to).await
    }

    async fn look(&self, _: &mut [&mut DataFile]) -> Result<()> {
        Ok(())
    }

    async fn deleted(&self, files: &[DataFile]) -> Result<Vec<Option<Arc<DeletedRows>>>> {
        Ok(vec![None; files.len()])
    }

    async fn pieces(&self, files: Vec<DataFile>) -> Result<Vec<DataFile>> {
        self.0.pieces(files).await
    }
}
