//! The same query without our window forms, rewritten by the test's own hand: every window form becomes the windows of each
//! row, one row a window.
//!
//! `HOP(t, ts, slide, size)` is, with one value of `by` for each window a row may lie in,
//!
//! ```sql
//! (SELECT *, date_bin(slide, ts) - by AS window_start, date_bin(slide, ts) - by + size AS window_end
//!  FROM t CROSS JOIN (VALUES (INTERVAL '0 microseconds'), …) AS panes(by)
//!  WHERE ts < date_bin(slide, ts) - by + size) AS t
//! ```
//!
//! `TUMBLE` is a `HOP` by its own size, and `CUMULATE` the same the other way round: one start, several ends. Over a source, rows
//! leave out the windows that they missed ([`MISSED`]).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, Query, Statement, TableAlias, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use watershed_core::time::Span;

/// Columns of [`windowed`] tables: the windows that a late row missed lie from the one to the other.
pub(crate) const MISSED: [&str; 2] = ["__missed_from", "__missed_until"];

/// Name of the table of all of a source's facts, late ones too, that window forms read.
pub(crate) fn windowed(source: &str) -> String {
    format!("__all_{source}")
}

/// A query, or `CREATE VIEW`, over these sources.
pub(crate) fn plain(sql: &str, sources: &BTreeSet<&str>) -> String {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_else(|e| panic!("{sql}\n{e}"));
    let _ = statements.visit(&mut Expand { sources });
    statements.iter().map(Statement::to_string).collect::<Vec<_>>().join(";\n")
}

struct Expand<'a> {
    sources: &'a BTreeSet<&'a str>,
}

impl VisitorMut for Expand<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let function = name.to_string().to_uppercase();
        if !["TUMBLE", "HOP", "CUMULATE"].contains(&function.as_str()) {
            return ControlFlow::Continue(());
        }
        let args: Vec<&Expr> = args.args.iter().map(argument).collect();
        let (relation, own) = match args[0] {
            Expr::Subquery(query) => (format!("({query})"), None),
            named => (named.to_string(), Some(Ident::new(named.to_string()))),
        };
        let source = self.sources.contains(relation.as_str());
        let time = args[1].to_string().rsplit('.').next().unwrap_or_default().to_string();
        let spans: Vec<Span> = args[2..].iter().map(|e| span(e)).collect();
        let sql = match (function.as_str(), &spans[..]) {
            ("TUMBLE", [size, rest @ ..]) => hop(&relation, source, &time, *size, *size, rest.first()),
            ("HOP", [slide, size, rest @ ..]) => hop(&relation, source, &time, *slide, *size, rest.first()),
            ("CUMULATE", [step, size, rest @ ..]) => cumulate(&relation, source, &time, *step, *size, rest.first()),
            _ => panic!("{function} with {} arguments", args.len()),
        };
        let alias = alias.take();
        let own = own.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None });
        *factor = TableFactor::Derived { lateral: false, subquery: query(&sql), alias: alias.or(own), sample: None };
        ControlFlow::Continue(())
    }
}

fn argument(arg: &FunctionArg) -> &Expr {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => expr,
        other => panic!("an argument of a window form: {other}"),
    }
}

fn span(literal: &Expr) -> Span {
    let text = literal.to_string();
    let plain = text.trim_start_matches("INTERVAL").replace('\'', "");
    let parsed = parse_interval_month_day_nano(&plain).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(parsed.months, 0, "{text} has no fixed length");
    Span(i64::from(parsed.days) * Span::DAY.0 + parsed.nanoseconds / 1_000)
}

fn interval(span: Span) -> String {
    format!("INTERVAL '{} microseconds'", span.0)
}

/// The start of the window of this width that the time lies in.
fn bin(time: &str, width: Span, offset: Option<&Span>) -> String {
    let origin = offset.map(|o| format!(", TIMESTAMP '1970-01-01' + {}", interval(*o))).unwrap_or_default();
    format!("date_bin({}, {time}{origin})", interval(width))
}

fn hop(relation: &str, source: bool, time: &str, slide: Span, size: Span, offset: Option<&Span>) -> String {
    let panes = (0..(size.0 + slide.0 - 1) / slide.0).map(|i| Span(i * slide.0));
    let start = format!("{} - __by", bin(time, slide, offset));
    windows(relation, source, time, panes, &start, &format!("{start} + {}", interval(size)))
}

fn cumulate(relation: &str, source: bool, time: &str, step: Span, size: Span, offset: Option<&Span>) -> String {
    let panes = (1..=size.0 / step.0).map(|i| Span(i * step.0));
    let start = bin(time, size, offset);
    windows(relation, source, time, panes, &start, &format!("{start} + __by"))
}

/// Each row of the relation once for each value of `__by` whose window it lies in.
fn windows(
    relation: &str,
    source: bool,
    time: &str,
    by: impl Iterator<Item = Span>,
    start: &str,
    end: &str,
) -> String {
    let panes: Vec<String> = by.map(|by| format!("({})", interval(by))).collect();
    let panes = panes.join(", ");
    let (mut from, mut hidden, mut used) = (relation.to_string(), "__by".to_string(), String::new());
    if source {
        let [missed_from, missed_until] = MISSED;
        let micros = |time: &str| format!("arrow_cast({time}, 'Int64')");
        from = windowed(relation);
        hidden = format!("__by, {missed_from}, {missed_until}");
        used = format!(
            " AND NOT coalesce({} >= {missed_from} AND {} <= {missed_until}, false)",
            micros(start),
            micros(end)
        );
    }
    format!(
        "SELECT * EXCLUDE ({hidden}), {start} AS window_start, {end} AS window_end FROM {from} AS __rows \
         CROSS JOIN (VALUES {panes}) AS __panes(__by) WHERE {time} < {end}{used}"
    )
}

fn query(sql: &str) -> Box<Query> {
    Parser::new(&GenericDialect {}).try_with_sql(sql).and_then(|mut p| p.parse_query()).unwrap_or_else(|e| panic!("{sql}\n{e}"))
}

#[test]
fn windows_of_a_row() {
    let sources = BTreeSet::from(["a"]);
    let sql = plain("SELECT * FROM HOP(a, ts, INTERVAL '5 minutes', INTERVAL '12 minutes')", &sources);
    assert_eq!(sql.matches("(INTERVAL").count(), 3, "{sql}");
    let sql = plain("SELECT * FROM CUMULATE(a, ts, INTERVAL '6 hours', INTERVAL '1 day')", &sources);
    assert_eq!(sql.matches("(INTERVAL").count(), 4, "{sql}");
}
