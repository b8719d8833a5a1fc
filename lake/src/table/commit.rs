//! A commit: refresh, decide, put if absent, and read back whatever is not known.
//!
//! ```text
//!        ┌──────────────────────────────────────────────────────────────┐
//!        ▼                                                              │ exists, or unknown
//!  refresh ──▶ conflict? ──▶ decide on that very version ──▶ put entry version + 1 ──▶ done
//!                 │                  │
//!        judge the table anew   done before, or stop
//! ```
//!
//! delta-rs's own retries are not used: its checker fails a plain append on another's delete, and does not know that
//! our epoch may have been committed by an attempt whose answer was lost (design §6, §7).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use deltalake::DeltaTable;
use deltalake::kernel::{Add, Transaction};
use object_store::{PutMode, PutOptions};
use serde_json::{Value, json};
use uuid::Uuid;
use watershed_core::clock::Clock;
use watershed_core::epoch::CommitDecision;
use watershed_core::sink::{Committed, PreparedCommit, WrittenFile};
use watershed_core::{Error, Result};

use crate::log::{self, LogCommit, LogMetadata, Refreshed, TableState, commit_path};
use crate::stores::Place;

/// Named in every commit.
pub(crate) const ENGINE: &str = concat!("watershed/", env!("CARGO_PKG_VERSION"));

/// The key of `commitInfo` that holds what is ours.
const OURS: &str = "watershed";

/// Attempts that another's commit may win before we give up.
const RACES: u32 = 100;
/// Attempts that the store may fail; it has its own retries below.
const FAILURES: u32 = 6;
/// Log entries searched for the one that carried a transaction.
const SEARCH: u64 = 1000;
/// Bytes of log entries after which a log checkpoint pays whatever the number of commits: what is replayed within a tenth of a
/// second, about.
const UNSUMMED: u64 = 8 << 20;
/// As delta-rs, unless the table says otherwise.
const CHECKPOINT_INTERVAL: u64 = 100;

/// What a commit is known by, and what it records.
pub(crate) struct Identified<'a> {
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) info: &'a BTreeMap<String, Value>,
}

/// What is to be made visible.
#[async_trait]
pub(crate) trait Change: Send {
    /// Learns of what came since it was last told, and what that means to it.
    async fn follow(&mut self, applications: &[&str], came: &Refreshed) -> Result<Conflict>;

    /// The log's actions that make it visible on this very version.
    async fn actions(&mut self, state: &TableState, now: i64) -> Result<Actions>;
}

/// A log entry without what identifies it.
pub(crate) struct Actions {
    pub(crate) operation: &'static str,
    pub(crate) parameters: Value,
    /// Nothing but added files, without a look at what is there.
    pub(crate) blind: bool,
    /// Name and body.
    pub(crate) actions: Vec<(&'static str, Value)>,
}

/// Files that are added.
pub(crate) struct Append<'a> {
    pub(crate) prepared: &'a PreparedCommit,
    pub(crate) partition_columns: &'a [String],
}

/// What commits that won mean to one that lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Nothing: for an append, other appends, deletes and compactions do not touch what it adds.
    None,
    /// Work it out anew on the version that is there now.
    Rebase,
    /// One of our applications got further: decide anew.
    Transaction,
    /// Metadata or protocol changed: judge the table anew.
    Table,
}

/// Judges the winning commits, for an append. Pure.
pub(crate) fn conflict(applications: &[&str], winning: &[LogCommit]) -> Conflict {
    let ours = |t: &Transaction| applications.contains(&t.app_id.as_str());
    if winning.iter().any(|c| c.metadata.is_some() || c.protocol.is_some()) {
        Conflict::Table
    } else if winning.iter().any(|c| c.transactions.iter().any(ours)) {
        Conflict::Transaction
    } else {
        Conflict::None
    }
}

/// Commits, once. `judge` errors when the table is not what we may write to; `decide` says what the state means for us.
pub(crate) async fn commit(
    place: &Place,
    state: &mut TableState,
    identified: &Identified<'_>,
    change: &mut dyn Change,
    clock: &dyn Clock,
    rules: Rules<'_>,
) -> Result<Committed> {
    let id = clock.id();
    let (mut races, mut failures, mut tried) = (0, 0, false);
    loop {
        let failure = match attempt(place, state, identified, change, clock, id, &rules).await? {
            Attempt::Committed(version) => {
                checkpoint(place, state, version).await;
                return Ok(Committed::Now { version });
            }
            // That it is done is known; whose it is only makes the answer finer.
            Attempt::Before if tried => {
                return Ok(whose(place, state, identified, id).await.unwrap_or(Committed::Before));
            }
            Attempt::Before => return Ok(Committed::Before),
            Attempt::Lost => {
                tried = true;
                races += 1;
                if races < RACES {
                    continue;
                }
                Error::storage("too many other writers at", place.url.as_str(), format!("lost {races} races in a row"))
            }
            Attempt::Failed { put, failure } => {
                tried = tried || put;
                failure
            }
        };
        failures += 1;
        if failures >= FAILURES {
            return Err(failure);
        }
        tracing::warn!(table = %place.url, failures, "commit not clear, reading back: {failure}");
        tokio::time::sleep(Duration::from_millis(5 << failures)).await;
    }
}

/// How a writer judges the table that it commits to.
pub(crate) struct Rules<'a> {
    /// Errors when the table is not what we may write to.
    pub(crate) judge: &'a (dyn Fn(&TableState) -> Result<()> + Sync),
    /// What the state means for the commit.
    pub(crate) decide: &'a (dyn Fn(&TableState) -> CommitDecision + Sync),
}

enum Attempt {
    /// Our put went through.
    Committed(u64),
    /// The table has it.
    Before,
    /// An entry of that version was there already; it may be ours, if a put below us was tried twice.
    Lost,
    /// Not known, if `put`; else nothing was tried.
    Failed { put: bool, failure: Error },
}

async fn attempt(
    place: &Place,
    state: &mut TableState,
    identified: &Identified<'_>,
    change: &mut dyn Change,
    clock: &dyn Clock,
    id: Uuid,
    rules: &Rules<'_>,
) -> Result<Attempt> {
    let applications: Vec<&str> = identified.transactions.iter().map(|t| t.app_id.as_str()).collect();
    match state.refresh(place).await {
        Ok(came) => {
            let conflict = change.follow(&applications, &came).await?;
            if matches!(came, Refreshed::Anew) || conflict == Conflict::Table {
                (rules.judge)(state)?;
            }
            // Our own put, whose answer was lost: without a transaction a commit is known by nothing else.
            if let Refreshed::Commits(commits) = &came
                && let Some(done) = commits.iter().find(|commit| is_of(commit, id))
            {
                return Ok(Attempt::Committed(done.version));
            }
        }
        Err(failure @ Error::Storage { .. }) => return Ok(Attempt::Failed { put: false, failure }),
        Err(e) => return Err(e),
    }
    match (rules.decide)(state) {
        CommitDecision::Done => return Ok(Attempt::Before),
        CommitDecision::Stop(why) => {
            return Err(Error::stopped(format!("table {} (version {}): {why}", place.url, state.version)));
        }
        CommitDecision::Commit => {}
    }
    let now = clock.now().0 / 1000;
    let actions = match change.actions(state, now).await {
        Ok(actions) => actions,
        Err(failure @ Error::Storage { .. }) => return Ok(Attempt::Failed { put: false, failure }),
        Err(e) => return Err(e),
    };
    let version = state.version + 1;
    let options = PutOptions { mode: PutMode::Create, ..Default::default() };
    let entry = entry(identified, actions, id, now, state.version)?;
    match place.store.put_opts(&commit_path(place, version), entry.into(), options).await {
        Ok(_) => Ok(Attempt::Committed(version)),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(Attempt::Lost),
        Err(e) => {
            let failure = Error::storage_unknown(format!("cannot commit version {version} of"), place.url.as_str(), e);
            Ok(Attempt::Failed { put: true, failure })
        }
    }
}

/// The log entry, one action a line.
fn entry(identified: &Identified<'_>, of: Actions, id: Uuid, now: i64, read_version: u64) -> Result<String> {
    let mut lines = vec![
        json!({"commitInfo": {
            "timestamp": now,
            "operation": of.operation,
            "operationParameters": of.parameters,
            "readVersion": read_version,
            "isBlindAppend": of.blind,
            "engineInfo": ENGINE,
            OURS: {"commit": id, "info": identified.info},
        }})
        .to_string(),
    ];
    for transaction in &identified.transactions {
        let transaction = Transaction { last_updated: Some(now), ..transaction.clone() };
        lines.push(json!({ "txn": body(&transaction)? }).to_string());
    }
    lines.extend(of.actions.into_iter().map(|(name, body)| json!({ name: body }).to_string()));
    Ok(lines.join("\n"))
}

/// An action as the log has it.
pub(crate) fn body(action: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(action).map_err(|e| Error::bug(format!("an action as JSON: {e}")))
}

/// The action that adds a file.
pub(crate) fn add(file: &WrittenFile, now: i64) -> Result<Add> {
    Ok(Add {
        path: file.path.clone(),
        partition_values: file.values.clone().into_iter().collect::<HashMap<_, _>>(),
        size: i64::try_from(file.size).map_err(|_| Error::bug(format!("{} is too large", file.path)))?,
        modification_time: now,
        data_change: true,
        stats: Some(file.stats.clone()),
        ..Default::default()
    })
}

#[async_trait]
impl Change for Append<'_> {
    async fn follow(&mut self, applications: &[&str], came: &Refreshed) -> Result<Conflict> {
        Ok(match came {
            Refreshed::Commits(winning) => conflict(applications, winning),
            Refreshed::Anew => Conflict::Table,
        })
    }

    async fn actions(&mut self, _: &TableState, now: i64) -> Result<Actions> {
        let adds = self.prepared.files.iter().map(|file| Ok(("add", body(&add(file, now)?)?)));
        Ok(Actions {
            operation: "WRITE",
            // Spark takes text only.
            parameters: json!({"mode": "Append", "partitionBy": json!(self.partition_columns).to_string()}),
            blind: true,
            actions: adds.collect::<Result<_>>()?,
        })
    }
}

/// Whether the commit that the table has is this call's, though its answer was lost.
async fn whose(place: &Place, state: &TableState, identified: &Identified<'_>, id: Uuid) -> Result<Committed> {
    let Some(first) = identified.transactions.first() else { return Ok(Committed::Before) };
    let found = find(place, state, &first.app_id, first.version).await?;
    let ours = found.filter(|commit| is_of(commit, id));
    Ok(ours.map_or(Committed::Before, |commit| Committed::Now { version: commit.version }))
}

/// The commit that carried a version of an application, if it is among the newest.
pub(crate) async fn find(
    place: &Place,
    state: &TableState,
    application: &str,
    version: i64,
) -> Result<Option<LogCommit>> {
    for at in (state.version.saturating_sub(SEARCH)..=state.version).rev() {
        let Some(commit) = log::read_commit(place, at).await? else { return Ok(None) };
        if commit.transactions.iter().any(|t| t.app_id == application && t.version == version) {
            return Ok(Some(commit));
        }
    }
    Ok(None)
}

/// What a commit of ours recorded besides its files.
pub(crate) fn info(commit: &LogCommit) -> BTreeMap<String, Value> {
    let recorded = ours(commit, "info").and_then(Value::as_object);
    recorded.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether a commit was made by the call of this id.
fn is_of(commit: &LogCommit, id: Uuid) -> bool {
    ours(commit, "commit").and_then(Value::as_str) == Some(&id.to_string())
}

fn ours<'a>(commit: &'a LogCommit, key: &str) -> Option<&'a Value> {
    commit.info.get(OURS)?.get(key)
}

/// Writes a log checkpoint now and then, so that readers need not replay everything: after some commits, or when there is much
/// to replay. The commit stands without it.
async fn checkpoint(place: &Place, state: &mut TableState, version: u64) {
    if !version.is_multiple_of(interval(&state.metadata)) && state.unsummed < UNSUMMED {
        return;
    }
    state.unsummed = 0;
    if let Err(failure) = write_checkpoint(place, version).await {
        tracing::warn!(table = %place.url, version, "no log checkpoint was written, it is tried again later: {failure}");
    }
}

/// Commits from one log checkpoint to the next.
pub(crate) fn interval(metadata: &LogMetadata) -> u64 {
    let interval = metadata.configuration.get("delta.checkpointInterval").and_then(|text| text.parse().ok());
    interval.filter(|n| *n > 0).unwrap_or(CHECKPOINT_INTERVAL)
}

/// Writes the log checkpoint of a version; `Err` says why it was not.
pub(crate) async fn write_checkpoint(place: &Place, version: u64) -> Result<(), String> {
    let mut table = DeltaTable::new(log::log_store(place));
    // In a task of its own, so that not even a panic there reaches the caller.
    let written = tokio::spawn(async move {
        table.load_version(version).await?;
        deltalake::checkpoints::create_checkpoint(&table, None).await
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogProtocol;

    #[test]
    fn an_append_conflicts_with_little() {
        let with = |change: fn(&mut LogCommit)| {
            let mut commit = LogCommit::default();
            change(&mut commit);
            commit
        };
        let append = with(|c| c.adds.push(Add { data_change: true, ..Default::default() }));
        let delete = with(|c| c.removes.push(Default::default()));
        let other = with(|c| c.transactions.push(Transaction::new("other", 9)));
        let own = with(|c| c.transactions.push(Transaction::new("us", 1)));
        let metadata = with(|c| c.metadata = Some(LogMetadata::default()));
        let protocol = with(|c| c.protocol = Some(LogProtocol::default()));
        assert_eq!(conflict(&["us"], &[]), Conflict::None);
        assert_eq!(conflict(&["us"], &[append.clone(), delete, other]), Conflict::None);
        assert_eq!(conflict(&["us"], &[append, own.clone()]), Conflict::Transaction);
        assert_eq!(conflict(&["us"], &[own.clone(), metadata]), Conflict::Table);
        assert_eq!(conflict(&["us"], &[protocol, own]), Conflict::Table);
    }
}
