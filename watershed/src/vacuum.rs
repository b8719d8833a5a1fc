//! `watershed vacuum`: files that nobody needs removed from tables, by name or by location; and what the home's jobs need.
//!
//! A checkpoint names the version of each table that its job reads, by the table's id, so it is no matter where or by what name the
//! job reads it. Every checkpoint that is kept counts: where the newest is lost, a job goes back to the one before. A live run may
//! be ahead of its checkpoints, and is heeded by when it began.

use std::collections::BTreeSet;

use watershed_core::epoch::{Manifest, Position};
use watershed_core::history::Version;
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};
use watershed_lake::upkeep::{self, Pin, Pins, VacuumOptions, Vacuumed};
use watershed_runtime::checkpoint::{Checkpoints, Newest};
use watershed_runtime::{RunRecord, RunState, last_run};

use crate::catalog::{Entry, Kind};
use crate::engine::{Engine, relation, shown};
use crate::jobs::LATE;
use crate::late;
use crate::relations::{query_of, reached};
use crate::tables;

/// A run pins tables while it is planned, before it says that it has begun; and one that was not heard of for so long is gone.
const SLACK: Span = Span::HOUR;

/// Vacuums a table or view of the catalog, or the Delta table at a location.
pub(crate) async fn vacuum(engine: &Engine, name: &str, options: VacuumOptions) -> Result<Vacuumed> {
    let now = engine.clock().now();
    let entries = engine.catalog().list().await?;
    let location = tables::own_table(engine, &entries, name, "vacuum")?;
    let pins = pins(engine, &entries, &location, now).await?;
    upkeep::vacuum(engine.stores(), &location, options, &pins, engine.clock().as_ref()).await
}

/// What the jobs need of tables, and of the one at a location.
async fn pins(engine: &Engine, entries: &[Entry], location: &str, now: EventTime) -> Result<Pins> {
    let place = shown(&engine.stores().open(location)?);
    let (store, home) = engine.home();
    let (mut versions, mut since) = (BTreeSet::new(), now);
    let (mut pending, mut prepared, mut logs) = (vec![], vec![], vec![]);
    for job in entries.iter().filter(|entry| entry.kind.is_job()) {
        let is_about_it = locations(engine, entries, job)?.contains(&place);
        for manifest in kept(engine, job, is_about_it).await? {
            for position in manifest.positions.into_values() {
                if let Some(Version::Delta { version, table_id }) = stands(job, &position) {
                    versions.insert(Pin { job: job.name.clone(), table_id, version });
                }
                pending.extend(position.pending);
                logs.extend(position.tail.map(|tail| (job.name.clone(), tail)));
            }
            prepared.extend(manifest.sinks.into_values().map(|sink| sink.prepared));
        }
        let run = last_run(store.as_ref(), home, &job.name, job.incarnation).await;
        if let Some(run) = run.filter(|run| is_about_it && is_live(run, now)) {
            since = since.min(run.began.minus(SLACK));
        }
    }
    Ok(Pins { versions: versions.into_iter().collect(), pending, prepared, logs, since })
}

/// The version of a history that a job goes on from. One that has come to the log does not look at it again, but to see what
/// facts others have brought or changed since, or which it has as well.
fn stands(job: &Entry, position: &Position) -> Option<Version> {
    let looks = job.fixed.contains_key(LATE) || position.tail.as_ref().is_none_or(|tail| tail.overlap.is_some());
    position.version.clone().filter(|_| looks)
}

/// The checkpoints of a job that are kept and can be read. The newest must be, where the job has to do with the table.
async fn kept(engine: &Engine, job: &Entry, is_about_it: bool) -> Result<Vec<Manifest>> {
    let (store, home) = engine.home();
    let checkpoints = Checkpoints::new(store.clone(), home, &job.name, job.incarnation);
    let newest = match checkpoints.newest().await? {
        Newest::None => return Ok(vec![]),
        Newest::Manifest(manifest) => Some(*manifest),
        Newest::Unreadable { why, .. } if is_about_it => {
            return Err(Error::stopped(format!(
                "{why}; so what job {} needs of the table is not known, and nothing was removed: run the job once more, which \
                 repeats what was lost, or drop it",
                job.name
            )));
        }
        Newest::Unreadable { .. } => None,
    };
    let before = newest.as_ref().map_or(u64::MAX, |newest| newest.epoch);
    let mut kept: Vec<Manifest> = newest.into_iter().collect();
    for epoch in checkpoints.epochs().await?.into_iter().filter(|epoch| *epoch < before) {
        match checkpoints.read(epoch).await {
            // Cleaned up meanwhile, or of no use to the job either.
            Ok(None) | Err(Error::Input(_)) => {}
            Ok(Some(manifest)) => kept.push(manifest),
            Err(e) => return Err(e),
        }
    }
    Ok(kept)
}

/// Where the tables lie that a job reads and writes.
fn locations(engine: &Engine, entries: &[Entry], job: &Entry) -> Result<BTreeSet<String>> {
    let reads = reached(entries, &query_of(job)?)?;
    let mut found: BTreeSet<String> =
        reads.into_iter().filter(|entry| entry.kind != Kind::View).map(|entry| engine.location(entry)).collect();
    found.insert(late::of(engine, job));
    match job.kind {
        Kind::Insert => {
            found.extend(relation(entries, &tables::insert_of(job)?.table).map(|table| engine.location(table)));
        }
        Kind::Sink => {}
        _ => {
            found.insert(engine.location(job));
        }
    }
    Ok(found)
}

fn is_live(run: &RunRecord, now: EventTime) -> bool {
    run.state == RunState::Running && run.heard.plus(SLACK) >= now
}
