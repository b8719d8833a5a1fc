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
//! `TUMBLE` is a `HOP` by its own size, and `CUMULATE` the same the other way round: one start, several ends. Rows leave out the
//! windows that they missed ([`MISSED`]); everything else reads only facts that are not late at all.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableAlias,
    TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use watershed_core::time::Span;

/// Columns of [`windowed`] tables: the windows that a late row missed lie from the one to the other.
pub(crate) const MISSED: [&str; 2] = ["__missed_from", "__missed_until"];

/// Name of the table of all of a source's facts, late ones too, that window forms read; and of what views and CTEs make of it.
pub(crate) fn windowed(source: &str) -> String {
    format!("__all_{source}")
}

/// Rewrites what is said over some sources.
pub(crate) struct Plain {
    /// Names that have a [`windowed`] one beside them.
    streams: BTreeSet<String>,
}

impl Plain {
    pub(crate) fn over(sources: impl IntoIterator<Item = String>) -> Self {
        Plain { streams: sources.into_iter().collect() }
    }

    /// A query, or `CREATE VIEW`; a view over facts becomes two.
    pub(crate) fn rewrite(&mut self, sql: &str) -> Vec<String> {
        let mut statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap_or_else(|e| panic!("{sql}\n{e}"));
        if let [Statement::CreateView(view)] = &statements[..] {
            let mut all = view.clone();
            let name = view.name.to_string();
            if self.carry(&mut all.query) {
                all.name = vec![Ident::new(windowed(&name))].into();
                self.streams.insert(name);
                statements.push(Statement::CreateView(all));
            }
        }
        let _ = statements.visit(self);
        statements.iter().map(Statement::to_string).collect()
    }

    /// Makes a query over facts one over all of them, with the windows that each missed; `false` if it is no such query.
    fn carry(&self, query: &mut Query) -> bool {
        query.with.is_none() && self.carry_set(&mut query.body)
    }

    fn carry_set(&self, body: &mut SetExpr) -> bool {
        match body {
            SetExpr::Query(query) => self.carry(query),
            SetExpr::SetOperation { left, right, .. } => self.carry_set(left) && self.carry_set(right),
            SetExpr::Select(select) => self.carry_select(select),
            _ => false,
        }
    }

    fn carry_select(&self, select: &mut Select) -> bool {
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
        if grouped || select.distinct.is_some() {
            return false;
        }
        let Some(from) = select.from.first_mut() else { return false };
        let alias = match &mut from.relation {
            TableFactor::Table { name, args: None, alias, .. } if self.streams.contains(&name.to_string()) => {
                let own = name.to_string();
                *name = vec![Ident::new(windowed(&own))].into();
                alias.get_or_insert_with(|| named(Ident::new(own))).name.clone()
            }
            TableFactor::Derived { subquery, alias: Some(alias), .. } => {
                if !self.carry(subquery) {
                    return false;
                }
                alias.name.clone()
            }
            _ => return false,
        };
        if !select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
            let column = |name| Expr::CompoundIdentifier(vec![alias.clone(), Ident::new(name)]);
            select.projection.extend(MISSED.map(|name| SelectItem::UnnamedExpr(column(name))));
        }
        true
    }
}

fn named(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: vec![], at: None }
}

impl VisitorMut for Plain {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Some(with) = &mut query.with else { return ControlFlow::Continue(()) };
        let mut ctes = vec![];
        for cte in with.cte_tables.drain(..) {
            let (mut all, name) = (cte.clone(), cte.alias.name.to_string());
            ctes.push(cte);
            if self.carry(&mut all.query) {
                all.alias.name = Ident::new(windowed(&name));
                self.streams.insert(name);
                ctes.push(all);
            }
        }
        with.cte_tables = ctes;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let function = name.to_string().to_uppercase();
        if !["TUMBLE", "HOP", "CUMULATE"].contains(&function.as_str()) {
            return ControlFlow::Continue(());
        }
        let args: Vec<&Expr> = args.args.iter().map(argument).collect();
        let own = match args[0] {
            Expr::Subquery(_) => None,
            table => Some(named(Ident::new(table.to_string()))),
        };
        let (relation, missed) = match args[0] {
            Expr::Subquery(query) => {
                let mut all = query.clone();
                if self.carry(&mut all) { (format!("({all})"), true) } else { (format!("({query})"), false) }
            }
            table if self.streams.contains(&table.to_string()) => (windowed(&table.to_string()), true),
            table => (table.to_string(), false),
        };
        let time = args[1].to_string().rsplit('.').next().unwrap_or_default().to_string();
        let spans: Vec<Span> = args[2..].iter().map(|e| span(e)).collect();
        let rows = Rows { relation, missed, time };
        let sql = match (function.as_str(), &spans[..]) {
            ("TUMBLE", [size, offset @ ..]) => rows.hop(*size, *size, offset.first()),
            ("HOP", [slide, size, offset @ ..]) => rows.hop(*slide, *size, offset.first()),
            ("CUMULATE", [step, size, offset @ ..]) => rows.cumulate(*step, *size, offset.first()),
            _ => panic!("{function} with {} arguments", args.len()),
        };
        let alias = alias.take().or(own);
        *factor = TableFactor::Derived { lateral: false, subquery: query(&sql), alias, sample: None };
        ControlFlow::Continue(())
    }
}

/// What windows are put over.
struct Rows {
    relation: String,
    /// Whether it has the columns [`MISSED`].
    missed: bool,
    time: String,
}

impl Rows {
    fn hop(&self, slide: Span, size: Span, offset: Option<&Span>) -> String {
        let panes = (0..(size.0 + slide.0 - 1) / slide.0).map(|i| Span(i * slide.0));
        let start = format!("{} - __by", self.bin(slide, offset));
        self.windows(panes, &start, &format!("{start} + {}", interval(size)))
    }

    fn cumulate(&self, step: Span, size: Span, offset: Option<&Span>) -> String {
        let panes = (1..=size.0 / step.0).map(|i| Span(i * step.0));
        let start = self.bin(size, offset);
        self.windows(panes, &start, &format!("{start} + __by"))
    }

    /// The start of the window of this width that the time lies in.
    fn bin(&self, width: Span, offset: Option<&Span>) -> String {
        let origin = offset.map(|o| format!(", TIMESTAMP '1970-01-01' + {}", interval(*o))).unwrap_or_default();
        format!("date_bin({}, {}{origin})", interval(width), self.time)
    }

    /// Each row once for each value of `__by` whose window it lies in.
    fn windows(&self, by: impl Iterator<Item = Span>, start: &str, end: &str) -> String {
        let panes: Vec<String> = by.map(|by| format!("({})", interval(by))).collect();
        let (Rows { relation, time, .. }, panes) = (self, panes.join(", "));
        let (mut hidden, mut used) = ("__by".to_string(), String::new());
        if self.missed {
            let [from, until] = MISSED;
            let micros = |time: &str| format!("arrow_cast({time}, 'Int64')");
            hidden = format!("__by, {from}, {until}");
            used = format!(" AND NOT coalesce({} >= {from} AND {} <= {until}, false)", micros(start), micros(end));
        }
        format!(
            "SELECT * EXCLUDE ({hidden}), {start} AS window_start, {end} AS window_end FROM {relation} AS __rows \
             CROSS JOIN (VALUES {panes}) AS __panes(__by) WHERE {time} < {end}{used}"
        )
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
    let parsed = parse_interval_month_day_nano(plain.trim()).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(parsed.months, 0, "{text} has no fixed length");
    Span(i64::from(parsed.days) * Span::DAY.0 + parsed.nanoseconds / 1_000)
}

fn interval(span: Span) -> String {
    format!("INTERVAL '{} microseconds'", span.0)
}

fn query(sql: &str) -> Box<Query> {
    Parser::new(&GenericDialect {})
        .try_with_sql(sql)
        .and_then(|mut p| p.parse_query())
        .unwrap_or_else(|e| panic!("{sql}\n{e}"))
}

#[test]
fn windows_of_a_row() {
    let plain = |sql: &str| Plain::over(["a".to_string()]).rewrite(sql).concat();
    let sql = plain("SELECT * FROM HOP(a, ts, INTERVAL '5 minutes', INTERVAL '12 minutes')");
    assert_eq!(sql.matches("), (INTERVAL").count(), 2, "{sql}");
    let sql = plain("SELECT * FROM CUMULATE(a, ts, INTERVAL '6 hours', INTERVAL '1 day')");
    assert_eq!(sql.matches("), (INTERVAL").count(), 3, "{sql}");
    // What a row missed is known through whatever stands between.
    let sql = plain("WITH b AS (SELECT ts FROM a WHERE k > 1) SELECT * FROM TUMBLE(b, ts, INTERVAL '1 hour')");
    assert!(sql.contains("__all_b AS (SELECT ts, a.__missed_from, a.__missed_until FROM __all_a"), "{sql}");
}
