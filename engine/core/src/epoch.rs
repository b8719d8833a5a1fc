//! Epochs: the manifest that a checkpoint is, and the pure decisions of recovery.
//!
//! A manifest is created once, with put-if-absent, and says everything a runner needs to go on: where each source stands,
//! the watermark, which state files make up the state, and the commits that may still have to be made visible. Manifest
//! N+1 is only created after every sink has N; so at most one epoch is ever in doubt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Account;
use crate::history::{DataFile, Version};
use crate::repair::Repairs;
use crate::sink::PreparedCommit;
use crate::tail::TailPosition;
use crate::time::EventTime;

/// The format of manifests that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Where one source stands in its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The pinned version; `None` before the first step.
    pub version: Option<Version>,
    /// Every partition that starts before this has been read, in that version; in a table that is placed by statistics,
    /// every piece of a file.
    pub boundary: EventTime,
    /// The partition that the boundary lies in has been cut there: of its pieces only those are read that begin before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Files of the version that lie before the boundary and are still to be read: what an increment brought to partitions
    /// that had been read before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<DataFile>,
    /// Name of the kept listing of [`Version::Listing`], in the job's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepsake: Option<String>,
    /// The files without a time partition have been read.
    #[serde(default)]
    pub timeless_read: bool,
    /// The wall time against which partitions were judged closed, as the last run saw it.
    pub judged_at: EventTime,
    /// Where it stands in its log; `None` while it still reads its history, or has no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailPosition>,
    /// Under which name the log's archive is on record in the history, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

impl Default for Position {
    fn default() -> Self {
        Position {
            version: None,
            boundary: EventTime::MIN,
            cut: false,
            pending: vec![],
            keepsake: None,
            timeless_read: false,
            judged_at: EventTime::MIN,
            tail: None,
            archive: None,
        }
    }
}

/// A frozen chunk of operator state: a record batch in an Arrow IPC file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    /// File name in the job's state folder; carries the attempt's UUID.
    pub file: String,
    /// Which record batch of it.
    pub batch: usize,
    /// The shard that froze it, of [`Manifest::shards`].
    pub shard: usize,
    /// The stage whose state it is, from the lowest up.
    #[serde(default)]
    pub stage: usize,
}

/// What a sink contributes to an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkEpoch {
    pub prepared: PreparedCommit,
    /// The last epoch that this sink had committed when the manifest was made. An epoch without rows commits nothing.
    pub committed: Option<u64>,
}

/// What was counted since the job began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that left the scans.
    pub rows: u64,
    pub bytes: u64,
    /// Rows listed as late, also those that were late for some of their windows only.
    pub late: u64,
    /// Late rows for which the windows they missed are computed anew instead.
    #[serde(default)]
    pub repaired: u64,
    pub bad: u64,
    /// Rows handed to the result table.
    pub written: u64,
    pub slices: u64,
    /// What became of each row.
    #[serde(default)]
    pub account: Account,
}

impl std::ops::Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            late: self.late + other.late,
            repaired: self.repaired + other.repaired,
            bad: self.bad + other.bad,
            written: self.written + other.written,
            slices: self.slices + other.slices,
            account: self.account + other.account,
        }
    }
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub job: String,
    /// The job's incarnation: a fresh id each time its view is built anew.
    pub incarnation: Uuid,
    /// The run that wrote this.
    pub attempt: Uuid,
    pub epoch: u64,
    pub watermark: EventTime,
    pub positions: BTreeMap<String, Position>,
    pub shards: usize,
    pub state: Vec<ChunkRef>,
    pub sinks: BTreeMap<String, SinkEpoch>,
    pub counts: Counts,
    /// Bytes to which the run joined small partitions: steps are repeated exactly only by the same.
    #[serde(default)]
    pub join: u64,
    /// The job was ended by `--final`: it refuses to go on.
    #[serde(default)]
    pub ended: bool,
    /// The result may have early rows, of windows that were not final at this watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<EventTime>,
    /// Windows that wait to be computed anew.
    #[serde(default, skip_serializing_if = "Repairs::is_empty")]
    pub repairs: Repairs,
}

/// What reading back told about a manifest that we tried to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Nothing is there.
    Absent,
    /// A manifest is there, written by this attempt.
    Attempt(Uuid),
}

/// What to do after a put-if-absent that did not clearly succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterPut {
    /// It is ours: go on.
    Ours,
    /// Another runner's: stop.
    Fenced,
    /// It never arrived: try again.
    Retry,
}

/// Unknown is not failed: our own UUID means success, another's means fenced, nothing means try again.
pub fn after_put(ours: Uuid, found: &ReadBack) -> AfterPut {
    match found {
        ReadBack::Absent => AfterPut::Retry,
        ReadBack::Attempt(id) if *id == ours => AfterPut::Ours,
        ReadBack::Attempt(_) => AfterPut::Fenced,
    }
}

/// What a sink has to do about an epoch, judged on the very snapshot that would be committed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitDecision {
    /// The table has it.
    Done,
    /// Commit on this snapshot.
    Commit,
    /// Going on could lose or double rows.
    Stop(String),
}

/// Design §6: version ≥ N means done, the last committed epoch means commit, anything else means stop and say why.
///
/// `found` is the application's transaction version in the snapshot; `after` the epoch that our manifest says was last.
pub fn decide_commit(epoch: u64, after: Option<u64>, found: Option<u64>) -> CommitDecision {
    match (found, after) {
        (Some(f), _) if f >= epoch => CommitDecision::Done,
        (None, None) => CommitDecision::Commit,
        (Some(f), Some(a)) if f == a => CommitDecision::Commit,
        (None, Some(a)) => CommitDecision::Stop(format!(
            "its transaction record is gone (epoch {a} was committed before): it was removed, recreated or restored, or expired the record"
        )),
        (Some(f), Some(a)) => {
            CommitDecision::Stop(format!("it stands at epoch {f}, but epoch {a} was committed before"))
        }
        (Some(f), None) => CommitDecision::Stop(format!("it stands at epoch {f}, but this job committed none yet")),
    }
}

/// Where a sink must stand when a run starts from manifest `epoch`: with the epoch, if it has output, done or to be done;
/// and never beyond what the manifest knows of, which would mean that the checkpoints were set back.
pub fn decide_start(epoch: u64, has_output: bool, after: Option<u64>, found: Option<u64>) -> CommitDecision {
    match (has_output, found) {
        (true, Some(f)) if f > epoch => beyond(f, epoch),
        (true, _) => decide_commit(epoch, after, found),
        (false, Some(f)) if Some(f) > after => beyond(f, epoch),
        (false, _) => match decide_commit(epoch, after, found) {
            CommitDecision::Commit => CommitDecision::Done,
            other => other,
        },
    }
}

fn beyond(found: u64, epoch: u64) -> CommitDecision {
    CommitDecision::Stop(format!(
        "it has epoch {found}, of which checkpoint {epoch}, the newest, does not know: the home was set back or copied"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_once() {
        assert_eq!(decide_commit(1, None, None), CommitDecision::Commit);
        assert_eq!(decide_commit(1, None, Some(1)), CommitDecision::Done);
        assert_eq!(decide_commit(5, Some(3), Some(3)), CommitDecision::Commit);
        assert_eq!(decide_commit(5, Some(3), Some(6)), CommitDecision::Done);
        for (after, found) in [(Some(3), None), (Some(3), Some(2)), (Some(3), Some(4)), (None, Some(2))] {
            assert!(matches!(decide_commit(5, after, found), CommitDecision::Stop(_)), "{after:?} {found:?}");
        }
    }

    #[test]
    fn a_start_finds_the_table_where_the_checkpoint_says() {
        assert_eq!(decide_start(5, true, Some(3), Some(3)), CommitDecision::Commit);
        assert_eq!(decide_start(5, true, Some(3), Some(5)), CommitDecision::Done);
        assert_eq!(decide_start(5, false, Some(3), Some(3)), CommitDecision::Done);
        assert_eq!(decide_start(5, false, None, None), CommitDecision::Done);
        for (output, after, found) in
            [(true, Some(3), Some(6)), (true, Some(3), None), (false, Some(3), Some(5)), (false, None, Some(1))]
        {
            assert!(
                matches!(decide_start(5, output, after, found), CommitDecision::Stop(_)),
                "{output} {after:?} {found:?}"
            );
        }
    }

    #[test]
    fn unknown_is_read_back() {
        let (us, them) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(after_put(us, &ReadBack::Absent), AfterPut::Retry);
        assert_eq!(after_put(us, &ReadBack::Attempt(us)), AfterPut::Ours);
        assert_eq!(after_put(us, &ReadBack::Attempt(them)), AfterPut::Fenced);
    }
}
