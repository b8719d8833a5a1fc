//! The shape of a plan: stateless all through, or aggregates one above the other with stateless work between them.
//!
//! ```text
//! [Projection | Filter | SubqueryAlias | Unnest]*               the finish, once a window is final
//!   Aggregate
//!     [Projection | Filter | SubqueryAlias | Unnest]*           between two stages
//!       Aggregate                                               the lowest
//!         [Projection | Filter | SubqueryAlias | Union | Unnest]*  the fragment
//!           Join with a plan over tables                        any number, see [`crate::joins`]
//!             TableScan of a source
//! ```
//!
//! Everything else is refused: which node, why, and what to write instead.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Volatility};
use watershed_core::error::{Error, Place, Result};

use crate::joins::{self, IsSource};
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

/// Where the query is, and where its first join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) query: Option<Place>,
    pub(crate) join: Option<Place>,
}

/// Refuses what no expression of a view may hold, wherever it stands. Over tables alone anything goes whose value is the
/// same each time.
pub(crate) fn check_expressions(plan: &LogicalPlan, is_source: IsSource<'_>, at: Option<Place>) -> Result<()> {
    expressions(plan, is_source, at)?;
    plan.inputs().into_iter().try_for_each(|input| check_expressions(input, is_source, at))
}

/// Refuses subqueries in expressions that did not become joins.
pub(crate) fn check_subqueries(plan: &LogicalPlan, is_source: IsSource<'_>, at: Option<Place>) -> Result<()> {
    if !joins::reads_source(plan, is_source) {
        return Ok(());
    }
    let mut found = false;
    let visited = plan.apply_expressions(|expr| {
        found |= expr.exists(|e| Ok(matches!(e, Expr::InSubquery(_) | Expr::Exists(_))))?;
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|e| Error::bug(e.strip_backtrace()))?;
    if found {
        let message =
            "Subquery: IN (SELECT …) and EXISTS (SELECT …) stand in WHERE and compare columns there; write a JOIN";
        return Err(Error::sql_at(message, at));
    }
    plan.inputs().into_iter().try_for_each(|input| check_subqueries(input, is_source, at))
}

/// The aggregates of a plan from the highest down, none if it is stateless; an error if the plan has another shape.
pub(crate) fn aggregates<'a>(plan: &'a LogicalPlan, is_source: IsSource<'_>, at: Places) -> Result<Vec<&'a Aggregate>> {
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
                stateless(other, is_source, at)?;
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

fn stateless(plan: &LogicalPlan, is_source: IsSource<'_>, at: Places) -> Result<()> {
    match plan {
        LogicalPlan::TableScan(scan) if !is_source(scan.table_name.table()) => {
            let name = scan.table_name.table();
            let message = format!(
                "the query reads no source: {name} is a table, and a job follows a source; join a source with it, or read it as \
                 one: CREATE SOURCE … WITH (lake = 'where {name} lies')"
            );
            Err(Error::sql_at(message, at.query))
        }
        LogicalPlan::Join(join) => {
            let stream = joins::stream_side(join, is_source).map_err(|why| Error::sql_at(why, at.join.or(at.query)))?;
            if aggregate_in(stream, is_source) {
                let message = "Join over Aggregate: not supported yet; join in FROM, below the GROUP BY, or make the \
                               aggregate a materialized view and read its table as a source";
                return Err(Error::sql_at(message, at.join.or(at.query)));
            }
            stateless(stream, is_source, at)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::TableScan(_) => plan.inputs().into_iter().try_for_each(|input| stateless(input, is_source, at)),
        other => Err(Error::sql_at(reason(other), at.query)),
    }
}

/// Whether the stream is aggregated, on whose way tables may be that are aggregates themselves.
fn aggregate_in(plan: &LogicalPlan, is_source: IsSource<'_>) -> bool {
    let on_the_way = |input: &&LogicalPlan| joins::reads_source(input, is_source);
    let inputs = plan.inputs();
    matches!(plan, LogicalPlan::Aggregate(_))
        || inputs.into_iter().filter(on_the_way).any(|input| aggregate_in(input, is_source))
}

/// Why a node cannot be made incremental.
fn reason(node: &LogicalPlan) -> String {
    let (name, why) = match node {
        LogicalPlan::Aggregate(_) => (
            "Aggregate below Union",
            "not supported yet; put the UNION ALL into FROM and aggregate once, or write one view a branch",
        ),
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
fn expressions(node: &LogicalPlan, is_source: IsSource<'_>, at: Option<Place>) -> Result<()> {
    let of_stream = joins::reads_source(node, is_source);
    let mut refused = None;
    let visited = node.apply_expressions(|expr| {
        refused = refused.take().or_else(|| joins::embedded_in(expr, node).filter(|_| of_stream));
        expr.apply(|e| {
            if let Expr::InSubquery(InSubquery { subquery, .. }) | Expr::Exists(Exists { subquery, .. }) = e
                && let Err(error) = check_expressions(&subquery.subquery, is_source, at)
            {
                refused = refused.take().or(Some(text(error)));
            }
            refused = refused.take().or_else(|| volatile(e)).or_else(|| refuse(e).filter(|_| of_stream));
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    });
    visited.map_err(|e| Error::bug(e.strip_backtrace()))?;
    match refused {
        Some(message) => Err(Error::sql_at(message, at)),
        None => Ok(()),
    }
}

fn text(error: Error) -> String {
    match error {
        Error::Sql { message, .. } => message,
        other => other.to_string(),
    }
}

/// What has another value each time.
fn volatile(expr: &Expr) -> Option<String> {
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
                "{}(): its value is another one each time a slice is read, so a result could not be repeated; compute \
                 it when you read the view",
                call.func.name()
            )),
        },
        _ => None,
    }
}

fn refuse(expr: &Expr) -> Option<String> {
    match expr {
        Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
            Some("Subquery as a value: not supported yet; JOIN the table, or write IN (SELECT …) or EXISTS".to_string())
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
