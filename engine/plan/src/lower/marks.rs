//! Marks of windows that overlap ([`crate::sql::window_functions`]): where they may stand, and panes in their place.

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit};
use watershed_operators::WindowForm;

use crate::sql::window_functions::{edge, is_mark, tumble_start};
use crate::trace::trace;

/// The first expression below an aggregate, or of its arguments, that computes with a mark instead of handing it on.
pub(super) fn misused(aggregate: &Aggregate) -> Result<Option<String>, DataFusionError> {
    for expr in &aggregate.aggr_expr {
        if mentions(expr, &[&aggregate.input])? {
            return Ok(Some(expr.to_string()));
        }
    }
    below(&aggregate.input)
}

/// Whether a group expression computes with a mark.
pub(super) fn computes(expr: &Expr, input: &LogicalPlan) -> Result<bool, DataFusionError> {
    Ok(!is_column(expr) && !is_mark(expr) && mentions(expr, &[input])?)
}

/// The plan with the start of its pane in each mark's place.
pub(super) fn to_panes(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let swapped = plan.transform_up(|node| {
        let swapped = node.map_expressions(|expr| {
            expr.transform_up(|e| {
                let Some((form, _, time)) = edge(&e).filter(|(form, _, _)| form.overlaps()) else {
                    return Ok(Transformed::no(e));
                };
                let WindowForm::Fixed { width, origin } = form.panes() else { return Ok(Transformed::no(e)) };
                Ok(Transformed::yes(tumble_start().call(vec![time.clone(), lit(width.0), lit(origin.0)])))
            })
        })?;
        swapped.transform_data(|node| node.recompute_schema().map(Transformed::yes))
    });
    swapped.data()
}

fn below(plan: &LogicalPlan) -> Result<Option<String>, DataFusionError> {
    // Another aggregate has been looked at by itself, and puts out edges of windows that are complete.
    if matches!(plan, LogicalPlan::Aggregate(_)) {
        return Ok(None);
    }
    let inputs = plan.inputs();
    let is_projection = matches!(plan, LogicalPlan::Projection(_));
    for expr in plan.expressions() {
        let bare = expr.clone().unalias_nested().data;
        let hands_on = is_projection && (is_column(&bare) || is_mark(&bare));
        if !hands_on && mentions(&expr, &inputs)? {
            return Ok(Some(expr.to_string()));
        }
    }
    for input in inputs {
        if let Some(found) = below(input)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

/// Whether an expression over some plans' columns is one over marks.
fn mentions(expr: &Expr, inputs: &[&LogicalPlan]) -> Result<bool, DataFusionError> {
    if expr.exists(|e| Ok(is_mark(e)))? {
        return Ok(true);
    }
    for used in expr.column_refs() {
        for input in inputs.iter().filter(|input| input.schema().has_column(used)) {
            for traced in trace(&Expr::Column(used.clone()), input)? {
                if traced.expr.exists(|e| Ok(is_mark(e)))? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
