//! Where a column comes from: an expression is followed down through projections, filters, aliases, unions and unnests
//! until it speaks of the columns of a leaf. What is unnested is followed no further.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Unnest};

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
        LogicalPlan::Unnest(unnest) => match unnested(expr, unnest)? {
            true => Ok(vec![Traced { expr: expr.clone(), leaf: plan }]),
            false => {
                let below = replace(expr, plan, |i| column(&unnest.input, unnest.dependency_indices[i]))?;
                trace(&below, &unnest.input)
            }
        },
        leaf => Ok(vec![Traced { expr: expr.clone(), leaf }]),
    }
}

/// Whether an expression over an unnest's output has to do with what is unnested.
fn unnested(expr: &Expr, unnest: &Unnest) -> Result<bool> {
    for column in expr.column_refs() {
        let from = unnest.dependency_indices[unnest.schema.index_of_column(column)?];
        let list = unnest.list_type_columns.iter().any(|(index, _)| *index == from);
        if list || unnest.struct_type_columns.contains(&from) {
            return Ok(true);
        }
    }
    Ok(false)
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
