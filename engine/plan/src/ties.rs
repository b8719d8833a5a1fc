//! Ties in the order of an aggregate: `first_value(x ORDER BY t)` over rows with the same `t` has several right answers.
//!
//! So that a query has one meaning, such an order goes on with all columns of the aggregate's input that it does not name
//! yet, in the direction of its last expression: of a tie, the whole row decides, and two aggregates with the same order
//! answer from the same row. This is a rewrite of the logical plan, before anything else sees it, and streaming and batch
//! queries both get it.
//!
//! Structs are compared field by field, lists element by element. Maps, and lists of nested values, are not compared.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, SortExpr};

use crate::sql::window_functions::is_mark;
use crate::trace::trace;

/// Aggregates whose answer depends on the order of their rows.
pub(crate) const ORDERED: [&str; 5] = ["first_value", "last_value", "nth_value", "array_agg", "string_agg"];

/// The plan, with ties broken.
pub(crate) fn broken(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = node else { return Ok(Transformed::no(node)) };
        if !aggregate.aggr_expr.iter().any(|e| ordered(e).is_some()) {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        // What is grouped by is the same all over a group.
        let mut columns = columns(aggregate.input.schema());
        columns.retain(|column| !aggregate.group_expr.contains(column));
        // Nor are the edges of windows that overlap told apart within a group.
        let mut edges = vec![];
        for column in &columns {
            let traced = trace(column, &aggregate.input)?;
            edges.push(traced.iter().any(|t| is_mark(&t.expr)));
        }
        let mut edges = edges.into_iter();
        columns.retain(|_| !edges.next().unwrap_or_default());
        let calls = aggregate.aggr_expr.into_iter().map(|e| tied(e, &columns)).collect::<Result<Vec<_>>>()?;
        let aggregate = Aggregate::try_new(aggregate.input, aggregate.group_expr, calls)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
    });
    rewritten.data()
}

/// The call in an aggregate's expression, if the order of its rows is its own.
fn ordered(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => ordered(&alias.expr),
        Expr::AggregateFunction(call) => {
            let name = call.func.name();
            // DISTINCT: the order may only be by the argument, and ties of it are one and the same value.
            let by_value = call.params.distinct && matches!(name, "array_agg" | "string_agg");
            (ORDERED.contains(&name) && !call.params.order_by.is_empty() && !by_value).then_some(call)
        }
        _ => None,
    }
}

/// The call with its order made complete, under its old name.
fn tied(expr: Expr, columns: &[Expr]) -> Result<Expr> {
    if ordered(&expr).is_none() {
        return Ok(expr);
    }
    let name = expr.schema_name().to_string();
    let rewritten = expr.transform_down(|e| match e {
        Expr::AggregateFunction(mut call) => {
            call.params.order_by = complete(call.params.order_by, columns);
            Ok(Transformed::new(Expr::AggregateFunction(call), true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(rewritten.data()?.unalias().alias(name))
}

fn complete(order: Vec<SortExpr>, columns: &[Expr]) -> Vec<SortExpr> {
    let descending = order.last().is_some_and(|last| !last.asc);
    let mut complete: Vec<SortExpr> = vec![];
    let rest = columns.iter().map(|column| SortExpr::new(column.clone(), !descending, descending));
    for sort in order.into_iter().chain(rest) {
        if !complete.iter().any(|known| known.expr == sort.expr) {
            complete.push(sort);
        }
    }
    complete
}

/// What tells rows apart.
fn columns(schema: &DFSchema) -> Vec<Expr> {
    let column = |i: usize| Expr::Column(Column::from(schema.qualified_field(i)));
    (0..schema.fields().len()).flat_map(|i| comparable(column(i), schema.field(i).data_type())).collect()
}

fn comparable(expr: Expr, kind: &DataType) -> Vec<Expr> {
    match kind {
        DataType::Struct(fields) => {
            let inner = fields.iter().flat_map(|f| comparable(expr.clone().field(f.name().as_str()), f.data_type()));
            std::iter::once(expr.clone().is_null()).chain(inner).collect()
        }
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            if element.data_type().is_nested() { vec![] } else { vec![expr] }
        }
        DataType::Null => vec![],
        nested if nested.is_nested() => vec![],
        _ => vec![expr],
    }
}
