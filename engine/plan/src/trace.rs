//! Where a column comes from: an expression is followed down through projections, filters, aliases, unions, unnests and
//! joins until it speaks of the columns of a leaf. What is unnested is followed no further, nor is an expression over both
//! sides of a join.

use std::ops::Range;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, JoinType, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Unnest};

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
        LogicalPlan::Join(join) => match side(expr, plan, join)? {
            Some(input) => trace(expr, input),
            None => Ok(vec![Traced { expr: expr.clone(), leaf: plan }]),
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

/// The side of a join that an expression speaks of, if it is one.
fn side<'a>(expr: &Expr, plan: &LogicalPlan, join: &'a Join) -> Result<Option<&'a LogicalPlan>> {
    use JoinType::*;
    let left = join.left.schema().fields().len();
    let right = join.right.schema().fields().len();
    let (left, right) = match join.join_type {
        Inner | Left | Right | Full => (0..left, left..left + right),
        LeftSemi | LeftAnti | LeftMark => (0..left, 0..0),
        RightSemi | RightAnti | RightMark => (0..0, 0..right),
    };
    let columns = expr.column_refs();
    let columns = columns.iter().map(|c| plan.schema().index_of_column(c)).collect::<Result<Vec<_>>>()?;
    let of = |side: Range<usize>| !columns.is_empty() && columns.iter().all(|i| side.contains(i));
    Ok(if of(left) {
        Some(&join.left)
    } else if of(right) {
        Some(&join.right)
    } else {
        None
    })
}

/// Replaces each column of `plan`'s output by what `with` says of its index.
fn replace(expr: &Expr, plan: &LogicalPlan, with: impl Fn(usize) -> Expr) -> Result<Expr> {
    let replaced = expr.clone().transform_up(|e| match &e {
        Expr::Column(c) => Ok(Transformed::yes(with(plan.schema().index_of_column(c)?))),
        _ => Ok(Transformed::no(e)),
    });
    replaced.data()
}
