//! Joins of a stream with dimension tables: which are allowed, and how they run.
//!
//! One side of a join reads sources, the stream; the other may be any plan over tables. Row by row the stream looks up the
//! other side, so a join is stateless work like a filter: whatever preserves the stream's rows, or drops some, goes. What
//! would preserve the table's rows is refused, for only the end of the stream tells which of them found no match.
//!
//! ```text
//!  HashJoinExec: CollectLeft                  built once a run, probed by every step
//!    DimensionExec                            left, the table's side: read once a run
//!    … ← SourceScanExec                       right, the stream: a hole
//! ```
//!
//! Invariant: the stream is the probe side. A join type that preserves or tests the right side writes nothing into the built
//! table, so steps share it.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result, internal_err};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use crate::dimension::DimensionExec;
use crate::scan::SourceScanExec;

/// Tells sources from tables, by name.
pub(crate) type IsSource<'a> = &'a dyn Fn(&str) -> bool;

/// Whether a plan reads a source.
pub(crate) fn reads_source(plan: &LogicalPlan, is_source: IsSource<'_>) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => is_source(scan.table_name.table()),
        other => other.inputs().into_iter().any(|input| reads_source(input, is_source)),
    }
}

/// The side of a join that is the stream; an error says why the join cannot be kept up.
pub(crate) fn stream_side<'a>(join: &'a Join, is_source: IsSource<'_>) -> Result<&'a LogicalPlan, String> {
    let (left, right) = (reads_source(&join.left, is_source), reads_source(&join.right, is_source));
    if left && right {
        return Err(
            "Join: both sides are streams, and joins of two streams come later; join a stream with tables, which \
                    CREATE TABLE, CREATE EXTERNAL TABLE and materialized views are"
                .to_string(),
        );
    }
    if join.null_aware {
        return Err(
            "NOT IN (SELECT …) holds for no row as soon as one value is NULL; write NOT EXISTS (SELECT 1 FROM t WHERE \
                    t.key = stream.key), which does not trip over NULL"
                .to_string(),
        );
    }
    use JoinType::*;
    match (left, join.join_type) {
        (_, Full) => {
            Err("FULL JOIN: only the end of a stream would tell which rows of the table have no match; use LEFT JOIN"
                .to_string())
        }
        (true, Inner | Left | LeftSemi | LeftAnti | LeftMark) => Ok(&join.left),
        (false, Inner | Right | RightSemi | RightAnti | RightMark) => Ok(&join.right),
        (_, kind) => Err(format!(
            "{} JOIN: it keeps the table's rows, and only the end of a stream would tell which of them have a match; keep the \
             stream's: FROM stream LEFT JOIN table",
            kind.to_string().to_uppercase()
        )),
    }
}

/// Why an `IN (SELECT …)` that is only a part of a condition of WHERE may not stay: as a join it would take NULL for false,
/// which shows under NOT. Where it is a whole condition that makes no difference, and `NOT IN` is looked at as a join.
pub(crate) fn embedded_in(condition: &Expr, node: &LogicalPlan) -> Option<String> {
    let whole = |part: &Expr| match part {
        Expr::Not(inner) => matches!(inner.as_ref(), Expr::InSubquery(_)),
        part => matches!(part, Expr::InSubquery(_)),
    };
    let input = node.inputs().first().map(|input| Arc::clone(input.schema()))?;
    let may_be_null = |e: &Expr| match e {
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            let of_table = subquery.subquery.schema().fields().first().is_none_or(|f| f.is_nullable());
            of_table || expr.nullable(&input).unwrap_or(true)
        }
        _ => false,
    };
    let parts = split_conjunction(condition).into_iter();
    let embedded = parts.filter(|part| !whole(part)).any(|part| part.exists(|e| Ok(may_be_null(e))).unwrap_or(true));
    embedded.then(|| {
        "IN (SELECT …) as a part of a condition, where NULL would matter: not supported yet; write EXISTS (SELECT 1 FROM t \
         WHERE t.key = stream.key), or make it a condition of its own with AND"
            .to_string()
    })
}

/// Turns every join so that the stream is on the right. It stands where DataFusion chooses sides by statistics, which
/// know nothing of streams.
#[derive(Debug)]
pub(crate) struct StreamToTheRight;

impl PhysicalOptimizerRule for StreamToTheRight {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let turned = plan.transform_up(|node| {
            let swapped = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
                has_hole(join.left()).then(|| join.swap_inputs(PartitionMode::CollectLeft))
            } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
                has_hole(join.left()).then(|| join.swap_inputs())
            } else if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
                has_hole(join.left()).then(|| join.swap_inputs())
            } else {
                None
            };
            match swapped {
                Some(swapped) => swapped.map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        });
        turned.data()
    }

    fn name(&self) -> &str {
        "stream_to_the_right"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with the table's side of every join read once a run.
pub(crate) fn sealed(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if !has_hole(&plan) {
        return Ok(plan);
    }
    let mut children: Vec<_> = plan.children().into_iter().cloned().collect();
    if is_join(&plan) {
        if has_hole(&children[0]) {
            return internal_err!("a stream is the build side of {}", plan.name());
        }
        children[0] = Arc::new(DimensionExec::new(Arc::clone(&children[0])));
    }
    let children = children.into_iter().map(sealed).collect::<Result<Vec<_>>>()?;
    if children.is_empty() { Ok(plan) } else { keep(plan, children) }
}

/// The plan with joins that have built nothing yet and counted nothing; what a [`DimensionExec`] has read stays. `None` if
/// there is no hash join, which alone of all nodes keeps anything from step to step.
pub(crate) fn renewed(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut any = false;
    let mut children = vec![];
    for child in plan.children() {
        let fresh = renewed(child)?;
        any |= fresh.is_some();
        children.push(fresh.unwrap_or_else(|| Arc::clone(child)));
    }
    let above = if any { Some(keep(Arc::clone(plan), children)?) } else { None };
    match plan.downcast_ref::<HashJoinExec>() {
        None => Ok(above),
        Some(_) => above.unwrap_or_else(|| Arc::clone(plan)).reset_state().map(Some),
    }
}

fn keep(plan: Arc<dyn ExecutionPlan>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

fn is_join(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<HashJoinExec>() || plan.is::<NestedLoopJoinExec>() || plan.is::<CrossJoinExec>()
}

fn has_hole(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<SourceScanExec>() || plan.children().into_iter().any(has_hole)
}
