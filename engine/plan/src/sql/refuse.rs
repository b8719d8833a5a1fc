//! What cannot be made incremental and shows in the syntax alone: here the place is exact.
//!
//! Each message names the clause, or the plan node it becomes, says why, and what to write instead. What only the plan
//! shows is refused by [`crate::shape`].

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, Query, Select, SetExpr,
    SetOperator, SetQuantifier, Spanned, Visit, Visitor,
};
use watershed_core::error::{Error, Place, Result};

use super::place::{place, span_place};
use crate::shape;

pub(crate) fn check(query: &Query) -> Result<()> {
    match query.visit(&mut Check) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The place of the first GROUP BY, or of the first SELECT.
pub(crate) fn grouping_place(query: &Query) -> Option<Place> {
    struct Find(Option<Place>, Option<Place>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            self.1 = self.1.or(span_place(select.select_token.0.span));
            if let GroupByExpr::Expressions(exprs, _) = &select.group_by
                && let Some(first) = exprs.first()
            {
                self.0 = self.0.or(place(first));
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(None, None);
    let _ = query.visit(&mut find);
    find.0.or(find.1)
}

struct Check;

fn refuse(of: &impl Spanned, message: impl Into<String>) -> ControlFlow<Error> {
    refuse_at(place(of), message)
}

fn refuse_at(at: Option<Place>, message: impl Into<String>) -> ControlFlow<Error> {
    ControlFlow::Break(Error::sql_at(message, at))
}

impl Visitor for Check {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        if let Some(order_by) = &query.order_by {
            let why = "ORDER BY (Sort): a view grows without end, so it has no order of its own; leave it out, and order \
                       when you read the view";
            return refuse(order_by, why);
        }
        let limit = query.limit_clause.as_ref().map(place).or(query.fetch.as_ref().map(place));
        if let Some(at) = limit {
            let why = "LIMIT (Limit): which rows come first changes as facts arrive; leave it out, and limit when you \
                       read the view";
            return refuse_at(at.or(place(query)), why);
        }
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            return refuse(with, "WITH RECURSIVE (RecursiveQuery): cannot be kept up incrementally");
        }
        set_operations(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let at = span_place(select.select_token.0.span);
        if let Some(Distinct::On(_)) = &select.distinct {
            let why = "SELECT DISTINCT ON: not supported yet; write first_value(x ORDER BY …) for each column, and GROUP BY \
                       with a window";
            return refuse_at(at, why);
        }
        if select.top.is_some() || select.qualify.is_some() {
            return refuse_at(at, "TOP and QUALIFY: not supported yet; rank when you read the view");
        }
        let from = &select.from;
        let joined = from.iter().flat_map(|f| &f.joins).next().map(|join| place(join).or(at));
        let comma = from.get(1).map(|second| place(second).or(at));
        if let Some(at) = joined.or(comma) {
            return refuse_at(at, "JOIN (Join): not supported yet; UNION ALL of sources is, and joins come next");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => refuse(
                expr,
                "a subquery in an expression (Subquery): its answer changes as facts arrive; not supported yet",
            ),
            Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_) => {
                let why = "GROUPING SETS, ROLLUP and CUBE: not supported yet; write one view for each grouping";
                refuse(expr, why)
            }
            Expr::Function(function) => call(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn set_operations(body: &SetExpr) -> ControlFlow<Error> {
    match body {
        SetExpr::SetOperation { left, op, set_quantifier, right } => {
            let all = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            if *op != SetOperator::Union || !all {
                let why = format!(
                    "{op} (Distinct): every row there ever was would have to be remembered; UNION ALL is supported"
                );
                return refuse(right.as_ref(), why);
            }
            set_operations(left)?;
            set_operations(right)
        }
        SetExpr::Values(_) => refuse(body, "VALUES: a view reads a source"),
        _ => ControlFlow::Continue(()),
    }
}

fn call(function: &Function) -> ControlFlow<Error> {
    let name = function.name.to_string().to_lowercase();
    if function.over.is_some() {
        let why = format!(
            "{name}(…) OVER (WindowAggr): a row's answer depends on rows still to come; group by a time window instead: \
             FROM TUMBLE(t, ts, INTERVAL '…')"
        );
        return refuse(function, why);
    }
    match name.as_str() {
        "random" | "rand" | "uuid" | "gen_random_uuid" => {
            let why = format!(
                "{name}(): its value is another one each time a slice is read, so a result could not be repeated"
            );
            refuse(function, why)
        }
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" | "listagg" if !ordered(function) => {
            refuse(function, shape::unordered(&name))
        }
        "any_value" => refuse(function, shape::ANY_VALUE),
        _ => ControlFlow::Continue(()),
    }
}

/// Whether there is an ORDER BY inside a call.
fn ordered(function: &Function) -> bool {
    let clauses = match &function.args {
        FunctionArguments::List(list) => &list.clauses[..],
        _ => &[],
    };
    let inside = clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_)));
    inside || !function.within_group.is_empty()
}
