//! What became of the rows that a bound fragment read, by what its nodes counted.
//!
//! ```text
//! row groups opened (by the bytes fetched) ─┬─ pages that statistics ruled out ───────────┐
//!                                           └─ rows of the scan ─┬─ late, bad             ├─ filtered
//!                                                                └─ passed the gate ─┬─ filters
//!                                                                                    └─ used
//! ```
//!
//! Each arrow's two ends are counted by different nodes, so the account can fail to balance: then rows were lost or doubled
//! within a plan, and that is told instead of written. Above the first node that is not row by row (an aggregate, a join) a
//! row is used.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;
use watershed_core::account::Account;
use watershed_core::{Error, Result};
use watershed_operators::{BAD, GateExec, LATE, PARTLY_LATE};

use crate::counted::CountedExec;
use crate::scan::{DELETED, MALFORMED, OPENED, RECORDS};
use crate::watched::Opened;

/// The account of a fragment whose streams have ended.
pub(crate) fn account(plan: &Arc<dyn ExecutionPlan>) -> Result<Account> {
    let mut account = Account::default();
    let left = walk(plan, &mut account)?;
    account.used += left.unwrap_or(0);
    account.balance().map_err(|e| Error::bug(format!("the account of a step does not balance: {e}")))?;
    Ok(account)
}

/// Adds what is below to the account; the rows that leave the node, if each is a source's row, not yet counted as used.
fn walk(plan: &Arc<dyn ExecutionPlan>, account: &mut Account) -> Result<Option<u64>> {
    if let Some(scan) = plan.downcast_ref::<CountedExec>() {
        *account += of_scan(scan)?;
        return Ok(Some(scan.passed()));
    }
    let mut below = vec![];
    for child in plan.children() {
        below.push(walk(child, account)?);
    }
    let sources: Vec<u64> = below.into_iter().flatten().collect();
    if sources.is_empty() {
        return Ok(None);
    }
    let entered: u64 = sources.iter().sum();
    if plan.is::<FilterExec>() {
        let left = left(plan).unwrap_or(entered);
        account.filtered += entered.saturating_sub(left);
        return Ok(Some(left));
    }
    let row_by_row = plan.is::<ProjectionExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<UnionExec>();
    if row_by_row {
        return Ok(Some(left(plan).unwrap_or(entered)));
    }
    account.used += entered;
    Ok(None)
}

/// The rows that a node says it put out.
fn left(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    plan.metrics()?.output_rows().map(|rows| rows as u64)
}

/// A scan's part: all but what becomes of the rows that pass.
fn of_scan(scan: &CountedExec) -> Result<Account> {
    let mut account = Account { pruned_files: scan.pruned_files, ..Account::default() };
    let mut reader = Arc::clone(scan.input());
    if reader.is::<GateExec>() {
        let gate = reader.metrics().unwrap_or_default();
        let count = |name| gate.sum_by_name(name).map_or(0, |v| v.as_usize() as u64);
        (account.late, account.bad, account.partly_late) = (count(LATE), count(BAD), count(PARTLY_LATE));
    }
    while let Some(below) = reader.children().first().map(|below| Arc::clone(below)) {
        reader = below;
    }
    let metrics = reader.metrics().unwrap_or_default();
    let rejected = account.late + account.bad;
    if let Some(rows) = scan.of_log {
        // Nobody wanted the rest, where it was not read to its end.
        account.opened = if scan.whole() { rows } else { scan.passed() + rejected };
        return match account.opened == scan.passed() + rejected {
            true => Ok(account),
            false => Err(Error::bug(format!(
                "a log's {rows} rows came to {} that passed and {rejected} that were kept aside",
                scan.passed()
            ))),
        };
    }
    if let Some(records) = count(&metrics, RECORDS) {
        return of_text(scan, account, records, &metrics);
    }
    let pruned = Pruned::of(&metrics);
    let opened = scan.watched.opened(|path| pruned.files.contains(path));
    account.files = opened.files;
    account.pruned_files += opened.unopened_files;
    account.row_groups = opened.groups;
    account.pruned_row_groups = opened.unopened_groups;
    account.pruned_rows = opened.unopened_rows;
    account.deleted = opened.deleted;
    if !scan.whole() {
        // Nobody wanted the rest; what was opened and not asked for is in nobody's account.
        account.opened = scan.passed() + rejected;
        return Ok(account);
    }
    let scanned = metrics.output_rows().unwrap_or(0) as u64;
    account.opened = opened.rows;
    account.filtered = skipped(&opened, scanned, pruned.page_rows)?;
    if scanned != scan.passed() + rejected {
        return Err(Error::bug(format!(
            "a scan yielded {scanned} rows, of which {} passed and {rejected} were kept aside",
            scan.passed()
        )));
    }
    Ok(account)
}

/// A scan of text files: what the cutter counted has come out as facts, or is malformed, or is marked as deleted.
fn of_text(scan: &CountedExec, mut account: Account, records: u64, metrics: &MetricsSet) -> Result<Account> {
    let of = |name| count(metrics, name).unwrap_or(0);
    let scanned = metrics.output_rows().unwrap_or(0) as u64;
    let rejected = account.late + account.bad;
    let malformed = of(MALFORMED);
    account.files = of(OPENED);
    account.deleted = of(DELETED);
    account.bad += malformed;
    if !scan.whole() {
        account.opened = scan.passed() + account.late + account.bad;
        return Ok(account);
    }
    account.opened = records.saturating_sub(account.deleted);
    match records == scanned + malformed + account.deleted && scanned == scan.passed() + rejected {
        true => Ok(account),
        false => Err(Error::bug(format!(
            "text files of {records} records came to {scanned} facts, {malformed} malformed records and {} that are marked; of \
             the facts {} passed and {rejected} were kept aside",
            account.deleted,
            scan.passed()
        ))),
    }
}

fn count(metrics: &MetricsSet, name: &str) -> Option<u64> {
    metrics.sum_by_name(name).map(|value| value.as_usize() as u64)
}

/// Rows of opened row groups that the reader passed over because statistics of pages ruled them out. The reader counts marked
/// rows and whole row groups among them, so what is missing need only lie between two bounds.
fn skipped(opened: &Opened, scanned: u64, page_rows: u64) -> Result<u64> {
    let skipped = opened.rows.checked_sub(scanned);
    let least = page_rows.saturating_sub(opened.unopened_rows + opened.deleted);
    match skipped {
        Some(skipped) if (least..=page_rows).contains(&skipped) => Ok(skipped),
        _ => Err(Error::bug(format!(
            "row groups of {} rows were opened and {scanned} rows came out of them, while statistics of pages ruled out {least} \
             to {page_rows}",
            opened.rows
        ))),
    }
}

/// What the reader says that statistics ruled out.
#[derive(Default)]
struct Pruned {
    /// Files of which anything was.
    files: HashSet<String>,
    page_rows: u64,
}

impl Pruned {
    fn of(metrics: &MetricsSet) -> Self {
        let mut pruned = Pruned::default();
        for metric in metrics.iter() {
            let MetricValue::PruningMetrics { name, pruning_metrics } = metric.value() else { continue };
            let count = pruning_metrics.pruned() as u64;
            if count == 0 {
                continue;
            }
            if name == "page_index_rows_pruned" {
                pruned.page_rows += count;
            }
            let file = metric.labels().iter().find(|label| label.name() == "filename");
            pruned.files.extend(file.map(|label| label.value().to_string()));
        }
        pruned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reader_passes_over_lies_between_bounds() {
        let opened = Opened { rows: 100, unopened_rows: 10, deleted: 5, ..Opened::default() };
        for (scanned, page_rows, expected) in [(100, 0, Some(0)), (70, 30, Some(30)), (70, 40, Some(30))] {
            assert_eq!(skipped(&opened, scanned, page_rows).ok(), expected, "{scanned} {page_rows}");
        }
        for (scanned, page_rows) in [(99, 0), (101, 0), (70, 29), (70, 46), (0, 99)] {
            assert!(skipped(&opened, scanned, page_rows).is_err(), "{scanned} {page_rows}");
        }
    }
}
