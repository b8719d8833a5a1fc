//! How far a log is in a table: a `txn` action a part, in the very commit that brings the rows, and the latest event time of
//! each part in the commit's info (design §5). kafka-delta-ingest writes the same actions, so its tables are read alike.
//!
//! Invariant: an archive's record never goes back; a commit that would set it back stops, for two writers share its name.

use std::collections::BTreeMap;

use deltalake::kernel::Transaction;
use serde_json::Value;
use watershed_core::epoch::CommitDecision;
use watershed_core::history::Records;
use watershed_core::sink::Archived;
use watershed_core::{Error, EventTime, Result};

use super::commit;
use crate::log;
use crate::stores::Place;

/// The key in a commit's info: application id to latest event time, in microseconds.
pub(super) const ARCHIVED: &str = "watershed.archived";

/// How far back a commit is looked for that has it: upkeep and other writers may have been there since.
const NEAR: u64 = 64;

pub(super) fn transactions(archived: &Archived) -> impl Iterator<Item = Transaction> {
    archived.parts.iter().map(|(part, at)| Transaction::new(Archived::application(&archived.archive, *part), at.last))
}

pub(super) fn recorded(archived: &Archived) -> Result<Value> {
    let newest = |(part, at): (&i32, &watershed_core::sink::ArchivedPart)| {
        Some((Archived::application(&archived.archive, *part), at.newest?.0))
    };
    let newest: BTreeMap<String, i64> = archived.parts.iter().filter_map(newest).collect();
    serde_json::to_value(newest).map_err(|e| Error::bug(e.to_string()))
}

/// Whether the record may be brought to where a commit has it.
pub(super) fn decide(archived: &Archived, transactions: &BTreeMap<String, i64>) -> CommitDecision {
    for (part, at) in &archived.parts {
        let application = Archived::application(&archived.archive, *part);
        if let Some(found) = transactions.get(&application).filter(|found| **found > at.last) {
            return CommitDecision::Stop(format!(
                "{application} stands at offset {found}, beyond {}, which this job has come to: another job archives a log \
                 here under the same name; give one of them another (archive = '…'), or stop it",
                at.last
            ));
        }
    }
    CommitDecision::Commit
}

/// What a version has on record.
pub(crate) async fn records(place: &Place, version: u64) -> Result<Records> {
    let transactions = log::transactions(place, version).await?;
    let mut records = Records { transactions, newest: BTreeMap::new() };
    for at in (version.saturating_sub(NEAR)..=version).rev() {
        // Older entries may have been cleaned up: then the times are not known, and whoever asks goes by the grace.
        let Some(entry) = log::read_commit(place, at).await? else { break };
        if let Some(Value::Object(newest)) = commit::info(&entry).remove(ARCHIVED) {
            let times = newest.into_iter().filter_map(|(id, time)| Some((id, EventTime(time.as_i64()?))));
            records.newest = times.collect();
            break;
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use watershed_core::sink::ArchivedPart;

    use super::*;

    #[test]
    fn a_record_never_goes_back() {
        let part = |last| ArchivedPart { last, newest: Some(EventTime(7)) };
        let archived = Archived { archive: "a".into(), parts: [(0, part(5)), (1, part(9))].into() };
        let has = |parts: &[(&str, i64)]| parts.iter().map(|(id, v)| (id.to_string(), *v)).collect();
        for fine in [has(&[]), has(&[("a-0", 5), ("a-1", 2)]), has(&[("b-0", 50)])] {
            assert_eq!(decide(&archived, &fine), CommitDecision::Commit);
        }
        assert!(matches!(decide(&archived, &has(&[("a-1", 10)])), CommitDecision::Stop(_)));
        assert_eq!(recorded(&archived).unwrap(), serde_json::json!({"a-0": 7, "a-1": 7}));
    }
}
