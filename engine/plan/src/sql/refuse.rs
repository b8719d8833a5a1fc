//! What cannot be made incremental and shows in the syntax alone: here the place is exact.
//!
//! Each message names the clause, or the plan node it becomes, says why, and what to write instead. What only the plan
//! shows is refused by [`crate::shape`].

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, ObjectName, Query, Select,
    SetExpr, SetOperator, SetQuantifier, Spanned, Visit, Visitor,
};
use watershed_core::error::{Error, Place, Result};

use super::parse::normal;
use super::place::{place, span_place};
use crate::shape;

/// `dimensions` are tables: a query over them alone is not incremental, and may be what it likes but volatile.
pub(crate) fn check(query: &Query, dimensions: &[String]) -> Result<()> {
    match query.visit(&mut Check { dimensions, scopes: vec![], over_tables: 0 }) {
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

/// The place of the first join.
pub(crate) fn join_place(query: &Query) -> Option<Place> {
    struct Find(Option<Place>);
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            let joined = select.from.iter().flat_map(|f| &f.joins).next().map(place);
            let comma = || select.from.get(1).map(place);
            self.0 = self.0.or_else(|| joined.or_else(comma).flatten());
            ControlFlow::Continue(())
        }
    }
    let mut find = Find(None);
    let _ = query.visit(&mut find);
    find.0
}

struct Check<'a> {
    dimensions: &'a [String],
    /// Names that the WITH clauses around the current query define, and whether each reads tables alone.
    scopes: Vec<Vec<(String, bool)>>,
    /// How many queries deep we are in one that reads tables alone.
    over_tables: usize,
}

impl Check<'_> {
    /// Whether a query reads tables, and nothing else.
    fn reads_tables_alone(&self, query: &Query) -> bool {
        struct Names(Vec<String>);
        impl Visitor for Names {
            type Break = ();
            fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
                self.0.extend(relation.0.iter().filter_map(|part| part.as_ident()).map(normal));
                ControlFlow::Continue(())
            }
        }
        let own = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| normal(&cte.alias.name));
        let own: Vec<String> = own.collect();
        let mut names = Names(vec![]);
        let _ = query.visit(&mut names);
        names.0.retain(|name| !own.contains(name));
        let of_tables = |name: &String| match self.scopes.iter().rev().flatten().find(|(cte, _)| cte == name) {
            Some((_, of_tables)) => *of_tables,
            None => self.dimensions.contains(name),
        };
        !names.0.is_empty() && names.0.iter().all(of_tables)
    }
}

fn refuse(of: &impl Spanned, message: impl Into<String>) -> ControlFlow<Error> {
    refuse_at(place(of), message)
}

fn refuse_at(at: Option<Place>, message: impl Into<String>) -> ControlFlow<Error> {
    ControlFlow::Break(Error::sql_at(message, at))
}

impl Visitor for Check<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let of_tables = self.over_tables > 0 || self.reads_tables_alone(query);
        self.scopes.push(vec![]);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let reads = self.reads_tables_alone(&cte.query);
            let scope = self.scopes.last_mut().into_iter();
            scope.for_each(|scope| scope.push((normal(&cte.alias.name), reads)));
        }
        if of_tables {
            self.over_tables += 1;
            return ControlFlow::Continue(());
        }
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
            return refuse(
                with,
                "WITH RECURSIVE (RecursiveQuery): cannot be kept up incrementally; recurse when you read the view",
            );
        }
        set_operations(&query.body)
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.scopes.pop();
        self.over_tables = self.over_tables.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        if self.over_tables > 0 {
            return ControlFlow::Continue(());
        }
        let at = span_place(select.select_token.0.span);
        if let Some(Distinct::On(_)) = &select.distinct {
            let why = "SELECT DISTINCT ON: not supported yet; write first_value(x ORDER BY …) for each column, and GROUP BY \
                       with a window";
            return refuse_at(at, why);
        }
        if select.top.is_some() || select.qualify.is_some() {
            return refuse_at(at, "TOP and QUALIFY: not supported yet; rank when you read the view");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) if self.over_tables > 0 => volatile(function),
            _ if self.over_tables > 0 => ControlFlow::Continue(()),
            Expr::Subquery(_) => refuse(
                expr,
                "a subquery as a value (Subquery): not supported yet; JOIN the table, or write IN (SELECT …) or EXISTS",
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
        SetExpr::Values(_) => refuse(
            body,
            "VALUES: a view reads a source; load rows with `watershed load`, and declare where they lie (CREATE \
             SOURCE)",
        ),
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
        "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg" | "listagg" if !ordered(function) => {
            refuse(function, shape::unordered(&name))
        }
        "any_value" => refuse(function, shape::ANY_VALUE),
        _ => volatile(function),
    }
}

/// Functions whose value is another one each time.
fn volatile(function: &Function) -> ControlFlow<Error> {
    let name = function.name.to_string().to_lowercase();
    match name.as_str() {
        "random" | "rand" | "uuid" | "gen_random_uuid" => {
            let why = format!(
                "{name}(): its value is another one each time a slice is read, so a result could not be repeated; \
                 compute it when you read the view"
            );
            refuse(function, why)
        }
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
