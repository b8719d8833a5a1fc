//! `TUMBLE(t, ts, INTERVAL '…')` in `FROM` becomes a subquery that any engine understands:
//!
//! ```sql
//! (SELECT *, date_bin(INTERVAL '…', ts) AS window_start, date_bin(INTERVAL '…', ts) + INTERVAL '…' AS window_end FROM t) AS t
//! ```
//!
//! Windows are half-open and start at 1970-01-01T00:00:00Z and every multiple of their width from there; both columns have
//! the type of `ts`. Invariant: streaming and batch run this same rewrite, and every node of it has the place of the call.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, SetExpr, TableAlias, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span as SqlSpan, Tokenizer};
use watershed_core::error::{Error, Place, Result};
use watershed_core::time::Span;

use super::parse::normal;
use super::place::{place, span_place};

/// Rewrites every window table function of a query; returns the place of the first.
pub(crate) fn rewrite(query: &mut Query) -> Result<Option<Place>> {
    let mut visitor = Rewrite { first: None };
    match query.visit(&mut visitor) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(visitor.first),
    }
}

/// An interval literal of fixed length; `None` for months and years, whose length varies, and for what is no literal.
pub(crate) fn fixed_interval(expr: &Expr) -> Option<Span> {
    let Expr::Interval(interval) = expr else { return None };
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let amount = match &value.value {
        Value::SingleQuotedString(text) => text.clone(),
        Value::Number(digits, _) => digits.to_string(),
        _ => return None,
    };
    let text = match &interval.leading_field {
        Some(unit) => format!("{amount} {unit}"),
        None => amount,
    };
    fixed_span(parse_interval_month_day_nano(&text).ok()?)
}

/// The same of a parsed interval; days are 24 hours, as they are in UTC.
pub(crate) fn fixed_span(interval: arrow::datatypes::IntervalMonthDayNano) -> Option<Span> {
    let days = i64::from(interval.days).checked_mul(Span::DAY.0)?;
    let whole = interval.months == 0 && interval.nanoseconds % 1_000 == 0;
    whole.then_some(Span(days.checked_add(interval.nanoseconds / 1_000)?))
}

struct Rewrite {
    first: Option<Place>,
}

impl VisitorMut for Rewrite {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(function) = name.0.last().and_then(|part| part.as_ident()).cloned() else {
            return ControlFlow::Continue(());
        };
        let at = span_place(function.span);
        match function.value.to_uppercase().as_str() {
            "TUMBLE" => {}
            form @ ("HOP" | "CUMULATE" | "SESSION") => {
                let message = format!("{form}: not supported yet; TUMBLE(t, ts, INTERVAL '…') is");
                return ControlFlow::Break(Error::sql_at(message, at));
            }
            _ => return ControlFlow::Continue(()),
        }
        self.first = self.first.or(at);
        match tumble(&function, &args.args, alias.take()) {
            Ok(rewritten) => *factor = rewritten,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

fn tumble(function: &Ident, args: &[FunctionArg], alias: Option<TableAlias>) -> Result<TableFactor> {
    let at = span_place(function.span);
    let args: Option<Vec<&Expr>> = args.iter().map(unnamed).collect();
    let [table, time, width] = args.unwrap_or_default()[..] else {
        let message = "TUMBLE takes a table, its time column and a width: TUMBLE(t, ts, INTERVAL '1 hour')";
        return Err(Error::sql_at(message, at));
    };
    let (relation, implied) = relation(table).ok_or_else(|| {
        Error::sql_at("TUMBLE's first argument is a table, or a query in parentheses", place(table).or(at))
    })?;
    let is_column = matches!(time, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    if !is_column {
        let message = "TUMBLE's second argument is the time column";
        return Err(Error::sql_at(message, place(time).or(at)));
    }
    match fixed_interval(width) {
        Some(width) if width.0 > 0 => {}
        Some(_) => return Err(Error::sql_at("TUMBLE's width is longer than nothing", place(width).or(at))),
        None if matches!(width, Expr::Interval(_)) => {
            let message = format!(
                "TUMBLE's width has a fixed length, {width} has not; for calendar windows GROUP BY date_trunc('month', \
                 {time}), or 'quarter' or 'year'"
            );
            return Err(Error::sql_at(message, place(width).or(at)));
        }
        None => {
            let message = "TUMBLE's width is an interval literal, such as INTERVAL '1 hour'";
            return Err(Error::sql_at(message, place(width).or(at)));
        }
    }
    let mut query = template(function.span)?;
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(from) = select.from.first_mut()
    {
        from.relation = relation;
    }
    let _ = query.visit(&mut Fill { time, width });
    let alias = alias.or(implied.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None }));
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None })
}

fn unnamed(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// A table argument as what stands in FROM, and the name by which its columns can be qualified.
fn relation(table: &Expr) -> Option<(TableFactor, Option<Ident>)> {
    let parts = match table {
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(idents) => idents.clone(),
        Expr::Subquery(query) => {
            let derived = TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
            return Some((derived, None));
        }
        _ => return None,
    };
    let name = parts.last().cloned();
    let table = TableFactor::Table {
        name: ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    Some((table, name))
}

/// The subquery with names to be filled in, every token at the place of the call.
fn template(at: SqlSpan) -> Result<Query> {
    let text = "SELECT *, date_bin(__width, __time) AS window_start, date_bin(__width, __time) + __width AS window_end \
                FROM __table";
    let bug = |e: &dyn std::fmt::Display| Error::bug(format!("the TUMBLE template does not parse: {e}"));
    let dialect = GenericDialect {};
    let mut tokens = Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|e| bug(&e))?;
    for token in &mut tokens {
        token.span = at;
    }
    let query = Parser::new(&dialect).with_tokens_with_locations(tokens).parse_query().map_err(|e| bug(&e))?;
    Ok(*query)
}

/// Puts the arguments where the template names them.
struct Fill<'a> {
    time: &'a Expr,
    width: &'a Expr,
}

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr {
            match normal(ident).as_str() {
                "__time" => *expr = self.time.clone(),
                "__width" => *expr = self.width.clone(),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }
}
