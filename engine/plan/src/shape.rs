//! The shape of a plan: stateless all through, or aggregates one above the other with stateless work between them.
//!
//! ```text
//! [Projection | Filter | SubqueryAlias | Unnest]*               the finish, once a window is final
//!   Aggregate
//!     [Projection | Filter | SubqueryAlias | Unnest]*           between two stages
//!       Aggregate                                               the lowest
//!         [Projection | Filter | SubqueryAlias | Union | Unnest]*  the fragment
//!           TableScan of a source
//! ```
//!
//! Everything else is refused: which node, why, and what to write instead.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Volatility};
use watershed_core::error::{Error, Place, Result};

use crate::ties::ORDERED;

/// Functions that tell the time.
const CLOCKS: [&str; 3] = ["now", "current_date", "current_time"];

pub(crate) const ANY_VALUE: &str = "any_value: which row it takes depends on the order in which rows are read, which history does not have; write \
     first_value(x ORDER BY …), or min(x)";

/// Why an aggregate needs an order of its own.
pub(crate) fn unordered(name: &str) -> String {
    format!(
        "{name}: depends on the order in which rows are read, which history does not have; add ORDER BY inside: \
         {name}(x ORDER BY …)"
    )
}

/// Refuses what no expression of a view may hold, wherever it stands.
pub(crate) fn check_expressions(plan: &LogicalPlan, at: Option<Place>) -> Result<()> {
    expressions(plan, at)?;
    plan.inputs().into_iter().try_for_each(|input| check_expressions(input, at))
}

/// The aggregates of a plan from the highest down, none if it is stateless; an error if the plan has another shape.
pub(crate) fn aggregates(plan: &LogicalPlan, at: Option<Place>) -> Result<Vec<&Aggregate>> {
    let mut found = vec![];
    let mut node = plan;
    loop {
        node = match node {
            LogicalPlan::Projection(p) => &p.input,
            LogicalPlan::Filter(f) => &f.input,
            LogicalPlan::SubqueryAlias(a) => &a.input,
            LogicalPlan::Unnest(u) => &u.input,
            LogicalPlan::Aggregate(aggregate) => {
                found.push(aggregate);
                &aggregate.input
            }
            other => {
                stateless(other, at)?;
                return Ok(found);
            }
        };
    }
}

/// Whether several rows may be made of one group: lists are unnested above the aggregate.
pub(crate) fn multiplies(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) => false,
        LogicalPlan::Unnest(unnest) if !unnest.list_type_columns.is_empty() => true,
        other => other.inputs().into_iter().any(multiplies),
    }
}

/// Every scan below, in order.
pub(crate) fn scans(plan: &LogicalPlan) -> Vec<&LogicalPlan> {
    match plan {
        LogicalPlan::TableScan(_) => vec![plan],
        other => other.inputs().into_iter().flat_map(scans).collect(),
    }
}

fn stateless(plan: &LogicalPlan, at: Option<Place>) -> Result<()> {
    match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::TableScan(_) => plan.inputs().into_iter().try_for_each(|input| stateless(input, at)),
        other => Err(Error::sql_at(reason(other), at)),
    }
}

/// Why a node cannot be made incremental.
fn reason(node: &LogicalPlan) -> String {
    let (name, why) = match node {
        LogicalPlan::Aggregate(_) => (
            "Aggregate below Union",
            "not supported yet; put the UNION ALL into FROM and aggregate once, or write one view a branch",
        ),
        LogicalPlan::Join(_) => ("Join", "not supported yet; UNION ALL of sources is"),
        LogicalPlan::Sort(_) => ("Sort", "a view has no order of its own; order when you read it"),
        LogicalPlan::Limit(_) => {
            ("Limit", "which rows come first changes as facts arrive; limit when you read the view")
        }
        LogicalPlan::Window(_) => {
            ("WindowAggr", "a row's answer depends on rows still to come; group by a time window")
        }
        LogicalPlan::Distinct(_) => (
            "Distinct",
            "every row there ever was would have to be remembered; write GROUP BY with a window, such as TUMBLE",
        ),
        LogicalPlan::Subquery(_) => ("Subquery", "its answer changes as facts arrive; not supported yet"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
            return "the query reads no source: a view needs FROM, with a source in it".to_string();
        }
        LogicalPlan::RecursiveQuery(_) => ("RecursiveQuery", "cannot be kept up incrementally"),
        other => return format!("{}: not supported in a view", other.display()),
    };
    format!("{name}: {why}")
}

/// Refuses what an expression may not hold in a view.
fn expressions(node: &LogicalPlan, at: Option<Place>) -> Result<()> {
    let mut refused = None;
    let visited = node.apply_expressions(|expr| {
        expr.apply(|e| {
            refused = refused.take().or_else(|| refuse(e));
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    visited.map_err(|e| Error::bug(e.strip_backtrace()))?;
    match refused {
        Some(message) => Err(Error::sql_at(message, at)),
        None => Ok(()),
    }
}

fn refuse(expr: &Expr) -> Option<String> {
    match expr {
        Expr::ScalarFunction(call) => match call.func.signature().volatility {
            Volatility::Immutable => None,
            // The time when the view was made, in every run.
            Volatility::Stable if CLOCKS.contains(&call.func.name()) => None,
            Volatility::Stable => Some(format!(
                "{}(): its value may be another one in the next run, so a result could not be repeated; if it depends on \
                 its arguments alone, declare it Volatility::Immutable",
                call.func.name()
            )),
            Volatility::Volatile => Some(format!(
                "{}(): its value is another one each time a slice is read, so a result could not be repeated",
                call.func.name()
            )),
        },
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
            Some("Subquery: its answer changes as facts arrive; not supported yet".to_string())
        }
        Expr::WindowFunction(_) => {
            Some("WindowAggr: a row's answer depends on rows still to come; group by a time window".to_string())
        }
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            if name == "any_value" {
                return Some(ANY_VALUE.to_string());
            }
            (ORDERED.contains(&name) && call.params.order_by.is_empty()).then(|| unordered(name))
        }
        Expr::GroupingSet(_) => {
            Some("GROUPING SETS, ROLLUP and CUBE: not supported yet; write one view for each grouping".to_string())
        }
        Expr::Placeholder(p) => Some(format!("{}: a view has no parameters; use ${{NAME}}", p.id)),
        _ => None,
    }
}
