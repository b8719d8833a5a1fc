//! Where a column comes from: an expression is followed down through projections, filters, aliases and unions until it
//! speaks of the columns of a leaf.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// An expression over the columns of one leaf: a scan, or whatever is not looked through, such as an aggregate.
#[derive(Debug)]
pub(crate) struct Traced<'a> {
    pub(crate) expr: Expr,
    pub(crate) leaf: &'a LogicalPlan,
}

/// An expression over a plan's output, as expressions over its leaves: one for each branch of a union.
pub(crate) fn trace<'a>(expr: &Expr, plan: &'a LogicalPlan) -> Result<Vec<Traced<'a>>> {
    match plan {
        LogicalPlan::Projection(p) => {
            let below = replace(expr, plan, |i| p.expr[i].clone().unalias_nested().data)?;
            trace(&below, &p.input)
        }
        LogicalPlan::SubqueryAlias(a) => {
            let below = replace(expr, plan, |i| column(&a.input, i))?;
            trace(&below, &a.input)
        }
        LogicalPlan::Filter(f) => trace(expr, &f.input),
        LogicalPlan::Union(union) => {
            let mut branches = vec![];
            for input in &union.inputs {
                let below = replace(expr, plan, |i| column(input, i))?;
                branches.extend(trace(&below, input)?);
            }
            Ok(branches)
        }
        leaf => Ok(vec![Traced { expr: expr.clone(), leaf }]),
    }
}

/// The `i`th column of a plan's output, by name.
pub(crate) fn column(plan: &LogicalPlan, i: usize) -> Expr {
    Expr::Column(Column::from(plan.schema().qualified_field(i)))
}

/// Replaces each column of `plan`'s output by what `with` says of its index.
fn replace(expr: &Expr, plan: &LogicalPlan, with: impl Fn(usize) -> Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|e| match &e {
        Expr::Column(c) => Ok(Transformed::yes(with(plan.schema().index_of_column(c)?))),
        _ => Ok(Transformed::no(e)),
    });
    replaced.data()
}
