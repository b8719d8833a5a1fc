//! The end of an epoch: state frozen, files closed, the manifest written, and the commit sent on its way.
//!
//! **Invariant:** manifest N+1 is created only after every sink has epoch N, and a commit of N begins only after manifest N.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use watershed_core::epoch::{ChunkRef, FORMAT, Manifest, Position, SinkEpoch};
use watershed_core::sink::{Archived, ArchivedPart, PreparedCommit, Replaced};
use watershed_core::{Error, Result};

use super::rest::Kept;
use super::{CLEAN_EVERY, Runner, Tails, Writers, joined};
use crate::checkpoint::Checkpoints;
use crate::job::Job;
use crate::recover::{self, Held};

/// Bytes of state that was put aside, in a file of its own.
const STATE_FILE: usize = 32 << 20;

impl Runner {
    /// Freezes the state, closes the files, writes the manifest, and sends the commit on its way.
    pub(super) async fn end_epoch(&mut self, ended: bool) -> Result<()> {
        let writers = std::mem::replace(&mut self.writers, Writers::start(&self.job)?);
        self.freeze().await?;
        let early = self.show(&writers, ended).await?;
        let replaced = together(self.replaced.take(), early);
        let result = PreparedCommit { replaced, ..writers.main.finish().await? };
        // How far the log was read is on record whatever it brought: who reads it behind the archive begins there.
        let archived = self.job.archive.as_ref().and_then(|archive| archived(archive, &self.positions));
        let archived = archived.filter(|archived| !result.is_empty() || self.recorded.as_ref() != Some(archived));
        self.recorded = archived.clone().or(self.recorded.take());
        let result = PreparedCommit { archived, ..result };
        let rejected = PreparedCommit { deleted: self.relisted.take(), ..writers.rejects.finish().await? };
        let prepared = BTreeMap::from([
            (self.job.sink.name().to_string(), result),
            (self.job.rejects.name().to_string(), rejected),
        ]);
        self.settle().await?;
        let manifest = self.manifest(prepared, ended);
        self.checkpoints.create(&manifest).await?;
        self.epoch = manifest.epoch;
        self.kept = Kept { watermark: self.watermark, run: self.run };
        self.commits += u64::from(manifest.sinks.values().any(|s| !s.prepared.is_empty()));
        tracing::info!(
            job = self.job.name,
            epoch = manifest.epoch,
            watermark = %manifest.watermark,
            rows = manifest.counts.account.opened,
            written = manifest.counts.written,
            "checkpoint"
        );
        for (sink, epoch) in &manifest.sinks {
            if !epoch.prepared.is_empty() {
                self.committed.insert(sink.clone(), Some(manifest.epoch));
            }
        }
        self.look_after();
        let clean = manifest.epoch.is_multiple_of(CLEAN_EVERY).then(|| self.checkpoints.clone());
        self.committing = Some(SpawnedTask::spawn(commit(Arc::clone(&self.job), manifest, self.tails.clone(), clean)));
        self.steps_in_epoch = 0;
        self.epoch_began = self.context.clock.elapsed();
        Ok(())
    }

    /// Lets the sinks look after their tables, beside what comes next.
    pub(super) fn look_after(&mut self) {
        while self.tidying.try_join_next().is_some() {}
        self.tidying.spawn(tidy(Arc::clone(&self.job)));
    }

    /// Waits until every sink has the last epoch.
    pub(super) async fn settle(&mut self) -> Result<()> {
        match self.committing.take() {
            Some(commit) => joined(commit.join().await)?,
            None => Ok(()),
        }
    }

    /// Takes a snapshot of every shard and writes what is fresh.
    async fn freeze(&mut self) -> Result<()> {
        let (mut state, mut held) = (vec![], Held::new());
        for shard in &mut self.shards {
            let index = shard.index;
            for (stage, (operator, _)) in shard.stages.iter_mut().enumerate() {
                let snapshot = operator.checkpoint()?;
                for id in snapshot.kept {
                    let chunk = self.held.get(&(stage, index, id)).cloned();
                    let chunk = chunk.ok_or_else(|| Error::bug(format!("chunk {id:?} of shard {index} is nowhere")))?;
                    state.push(chunk.clone());
                    held.insert((stage, index, id), chunk);
                }
                // What lies in memory is one file; what was put aside is loaded and written little by little.
                let mut files = vec![];
                if !snapshot.fresh.is_empty() {
                    files.push((format!("{stage}-{index}"), snapshot.fresh));
                }
                let mut aside = snapshot.aside.into_iter().peekable();
                for part in 0.. {
                    let (mut bytes, mut chunks) = (0, vec![]);
                    while let Some((id, chunk)) = aside.next_if(|_| bytes < STATE_FILE) {
                        bytes += chunk.bytes();
                        chunks.push((id, chunk.load()?));
                    }
                    for (name, chunks) in files.drain(..).chain([(format!("{stage}-{index}-{part}"), chunks)]) {
                        if chunks.is_empty() {
                            continue;
                        }
                        let file = format!("{:020}-{}-{name}.arrow", self.epoch + 1, self.attempt);
                        let (ids, chunks): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
                        self.checkpoints.write_state(&file, &operator.state_schema(), &chunks).await?;
                        for (batch, id) in ids.into_iter().enumerate() {
                            let chunk = ChunkRef { file: file.clone(), batch, shard: index, stage };
                            state.push(chunk.clone());
                            held.insert((stage, index, id), chunk);
                        }
                    }
                    if aside.peek().is_none() {
                        break;
                    }
                }
            }
        }
        (self.state, self.held) = (state, held);
        self.state_shards = self.shards.len();
        Ok(())
    }

    /// The manifest of the next number.
    pub(super) fn manifest(&self, mut prepared: BTreeMap<String, PreparedCommit>, ended: bool) -> Manifest {
        let sinks = self.committed.iter().map(|(sink, committed)| {
            let prepared = prepared.remove(sink).unwrap_or_default();
            (sink.clone(), SinkEpoch { prepared, committed: *committed })
        });
        Manifest {
            format: FORMAT,
            job: self.job.name.clone(),
            incarnation: self.job.incarnation,
            attempt: self.attempt,
            epoch: self.epoch + 1,
            watermark: self.watermark,
            positions: self.positions.clone(),
            sinks: sinks.collect(),
            shards: self.state_shards,
            state: self.state.clone(),
            counts: self.before + self.run,
            join: self.join,
            ended,
            early: self.shown.until,
            repairs: self.repairs.clone(),
        }
    }
}

/// What two parts of an epoch stand in for.
fn together(one: Option<Replaced>, other: Option<Replaced>) -> Option<Replaced> {
    match (one, other) {
        (Some(mut one), Some(other)) => {
            one.times.extend(other.times);
            one.times.sort();
            Some(one)
        }
        (one, other) => one.or(other),
    }
}

/// What the result has of the log whose archive it is.
fn archived(archive: &str, positions: &BTreeMap<String, Position>) -> Option<Archived> {
    let tail = positions.values().find_map(|position| position.tail.as_ref())?;
    // Of a part that begins where the log does, nothing is archived yet.
    let parts = tail.parts.iter().filter(|(_, at)| at.next > 0);
    let parts = parts.map(|(part, at)| (*part, ArchivedPart { last: at.next - 1, newest: at.newest })).collect();
    Some(Archived { archive: archive.to_string(), parts }).filter(|archived| !archived.parts.is_empty())
}

/// What is left undone is done another time.
async fn tidy(job: Arc<Job>) {
    for sink in [&job.sink, &job.rejects] {
        if let Err(e) = sink.tidy().await {
            tracing::warn!(job = job.name, table = sink.location(), "small files were not put together: {e}");
        }
    }
}

/// Makes an epoch visible in every sink that has rows in it, one after the other.
async fn commit(job: Arc<Job>, manifest: Manifest, tails: Tails, clean: Option<Checkpoints>) -> Result<()> {
    let info = recover::info(&manifest)?;
    for sink in [&job.sink, &job.rejects] {
        let Some(mine) = manifest.sinks.get(sink.name()) else { continue };
        if !mine.prepared.is_empty() {
            let identity = recover::identity(&job, sink.as_ref(), manifest.epoch, mine.committed);
            sink.commit(&identity, &mine.prepared, &info).await?;
        }
    }
    for (source, tail) in tails {
        let position = manifest.positions.get(&source).and_then(|position| position.tail.as_ref());
        if let Some(position) = position
            && let Err(e) = tail.report(position).await
        {
            tracing::debug!(job = job.name, log = tail.location(), "monitors were not told how far the job is: {e}");
        }
    }
    if let Some(checkpoints) = clean
        && let Err(e) = checkpoints.clean(manifest.epoch).await
    {
        tracing::warn!(job = job.name, "old checkpoints were not removed: {e}");
    }
    Ok(())
}
