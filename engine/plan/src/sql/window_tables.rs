//! Window table functions in `FROM` become subqueries that any engine understands:
//!
//! ```sql
//! TUMBLE(t, ts, size)            SELECT *, date_bin(size, ts) AS window_start, date_bin(size, ts) + size AS window_end FROM t
//! HOP(t, ts, slide, size)        SELECT *, window_start + size AS window_end
//!                                FROM (SELECT *, unnest(__hop_starts(ts, …)) AS window_start FROM t)
//! CUMULATE(t, ts, step, size)    SELECT *, __tumble_start(ts, …) AS window_start, unnest(__cumulate_ends(ts, …)) AS window_end FROM t
//! ```
//!
//! Each takes an offset as a last argument. Windows are half-open and start at 1970-01-01T00:00:00Z, plus the offset, and
//! every multiple of their width, slide or size from there; both columns have the type of `ts`.
//!
//! A streaming plan with an aggregate must not copy rows: there HOP and CUMULATE become marks ([`super::window_functions`]),
//! which lowering turns into panes. Invariant: but for that, streaming and batch run the same rewrite, and every node of it
//! has the place of the call.

use std::ops::ControlFlow;

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableAlias, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span as SqlSpan, Tokenizer};
use watershed_core::error::{Error, Place, Result};
use watershed_core::time::Span;

use super::parse::normal;
use super::place::{place, span_place};

/// For which plan a query is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Overlapping windows are marks.
    Panes,
    /// Rows are copied, one for each of their windows.
    Copies,
}

/// What was found on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// The place of the first window table function.
    pub(crate) first: Option<Place>,
    /// Whether there were windows that overlap.
    pub(crate) overlapping: bool,
}

/// Rewrites every window table function of a query.
pub(crate) fn rewrite(query: &mut Query, mode: Mode) -> Result<Found> {
    let mut visitor = Rewrite { mode, found: Found::default() };
    match query.visit(&mut visitor) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(visitor.found),
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
    mode: Mode,
    found: Found,
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
        let form = match function.value.to_uppercase().as_str() {
            "TUMBLE" => Form::Tumble,
            "HOP" => Form::Hop,
            "CUMULATE" => Form::Cumulate,
            "SESSION" => {
                let message = "SESSION: not supported yet; TUMBLE, HOP and CUMULATE are";
                return ControlFlow::Break(Error::sql_at(message, at));
            }
            _ => return ControlFlow::Continue(()),
        };
        self.found.first = self.found.first.or(at);
        self.found.overlapping |= form != Form::Tumble;
        match table(form, self.mode, &function, &args.args, alias.take()) {
            Ok(rewritten) => *factor = rewritten,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tumble,
    Hop,
    Cumulate,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Tumble => "TUMBLE",
            Form::Hop => "HOP",
            Form::Cumulate => "CUMULATE",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Form::Tumble => "a table, its time column and a width, perhaps an offset: TUMBLE(t, ts, INTERVAL '1 hour')",
            Form::Hop => {
                "a table, its time column, a slide and a size, perhaps an offset: \
                 HOP(t, ts, INTERVAL '5 minutes', INTERVAL '1 hour')"
            }
            Form::Cumulate => {
                "a table, its time column, a step and a size, perhaps an offset: \
                 CUMULATE(t, ts, INTERVAL '1 hour', INTERVAL '1 day')"
            }
        }
    }

    /// What its spans are called, in the order of its arguments.
    fn spans(self) -> &'static [&'static str] {
        match self {
            Form::Tumble => &["width"],
            Form::Hop => &["slide", "size"],
            Form::Cumulate => &["step", "size"],
        }
    }

    fn template(self, mode: Mode, offset: bool) -> &'static str {
        match (self, mode) {
            (Form::Tumble, _) if !offset => {
                "SELECT *, date_bin(__width, __time) AS window_start, date_bin(__width, __time) + __width AS window_end \
                 FROM __table"
            }
            (Form::Tumble, _) => {
                "SELECT *, __tumble_start(__time, __width_us, __offset) AS window_start, \
                 __tumble_start(__time, __width_us, __offset) + __width AS window_end FROM __table"
            }
            (Form::Hop, Mode::Panes) => {
                "SELECT *, __hop_start(__time, __slide_us, __size_us, __offset) AS window_start, \
                 __hop_end(__time, __slide_us, __size_us, __offset) AS window_end FROM __table"
            }
            (Form::Hop, Mode::Copies) => {
                "SELECT *, window_start + __size AS window_end FROM (SELECT *, \
                 unnest(__hop_starts(__time, __slide_us, __size_us, __offset)) AS window_start FROM __table)"
            }
            (Form::Cumulate, Mode::Panes) => {
                "SELECT *, __cumulate_start(__time, __step_us, __size_us, __offset) AS window_start, \
                 __cumulate_end(__time, __step_us, __size_us, __offset) AS window_end FROM __table"
            }
            (Form::Cumulate, Mode::Copies) => {
                "SELECT *, __tumble_start(__time, __size_us, __offset) AS window_start, \
                 unnest(__cumulate_ends(__time, __step_us, __size_us, __offset)) AS window_end FROM __table"
            }
        }
    }
}

fn table(
    form: Form,
    mode: Mode,
    function: &Ident,
    args: &[FunctionArg],
    alias: Option<TableAlias>,
) -> Result<TableFactor> {
    let at = span_place(function.span);
    let args: Vec<&Expr> = args.iter().map(unnamed).collect::<Option<_>>().unwrap_or_default();
    let spans = form.spans();
    if args.len() != 2 + spans.len() && args.len() != 3 + spans.len() {
        return Err(Error::sql_at(format!("{} takes {}", form.name(), form.usage()), at));
    }
    let (source, time) = (args[0], args[1]);
    let (relation, implied) = relation(source).ok_or_else(|| {
        let message = format!("{}'s first argument is a table, or a query in parentheses", form.name());
        Error::sql_at(message, place(source).or(at))
    })?;
    if !matches!(time, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        let message = format!("{}'s second argument is the time column", form.name());
        return Err(Error::sql_at(message, place(time).or(at)));
    }
    let mut fill = vec![("__time".to_string(), time.clone())];
    let mut lengths = vec![];
    for (name, expr) in spans.iter().zip(&args[2..]) {
        let length = span(form, name, expr, time, at)?;
        lengths.push(length);
        fill.push((format!("__{name}"), (*expr).clone()));
        fill.push((format!("__{name}_us"), number(length)));
    }
    if let [part, size] = lengths[..]
        && size.0 % part.0 != 0
    {
        let (part_name, name) = (spans[0], form.name());
        let message = format!("{name}'s size is a multiple of its {part_name}; {size} is none of {part}");
        return Err(Error::sql_at(message, place(args[3]).or(at)));
    }
    let offset = match args.get(2 + spans.len()) {
        None => None,
        Some(expr) => Some(fixed_interval(expr).ok_or_else(|| {
            let message = format!("{}'s offset is an interval literal of fixed length", form.name());
            Error::sql_at(message, place(*expr).or(at))
        })?),
    };
    // An offset of a whole width is none.
    let offset = offset.map(|offset| Span(offset.0.rem_euclid(lengths.last().map_or(1, |l| l.0))));
    fill.push(("__offset".to_string(), number(offset.unwrap_or_default())));
    let mut query = template(form.template(mode, offset.is_some_and(|o| o.0 != 0)), function.span)?;
    let _ = query.visit(&mut Fill { relation, values: &fill });
    let alias = alias.or(implied.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None }));
    Ok(TableFactor::Derived { lateral: false, subquery: Box::new(query), alias, sample: None })
}

/// A span that a window form is made of.
fn span(form: Form, name: &str, expr: &Expr, time: &Expr, at: Option<Place>) -> Result<Span> {
    let form = form.name();
    let message = match fixed_interval(expr) {
        Some(span) if span.0 > 0 => return Ok(span),
        Some(_) => format!("{form}'s {name} is longer than nothing"),
        None if matches!(expr, Expr::Interval(_)) => format!(
            "{form}'s {name} has a fixed length, {expr} has not; for calendar windows GROUP BY date_trunc('month', {time}), \
             or 'quarter' or 'year'"
        ),
        None => format!("{form}'s {name} is an interval literal, such as INTERVAL '1 hour'"),
    };
    Err(Error::sql_at(message, place(expr).or(at)))
}

fn number(span: Span) -> Expr {
    Expr::Value(Value::Number(span.0.to_string(), false).into())
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
fn template(text: &str, at: SqlSpan) -> Result<Query> {
    let bug = |e: &dyn std::fmt::Display| Error::bug(format!("a window template does not parse: {e}"));
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
    relation: TableFactor,
    values: &'a [(String, Expr)],
}

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, .. } = factor
            && name.to_string() == "__table"
        {
            *factor = self.relation.clone();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr {
            let name = normal(ident);
            if let Some((_, value)) = self.values.iter().find(|(known, _)| *known == name) {
                *expr = value.clone();
            }
        }
        ControlFlow::Continue(())
    }
}
