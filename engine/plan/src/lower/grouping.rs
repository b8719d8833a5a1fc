//! How an aggregate is grouped: which of its group columns tell the window, and which windows those are.
//!
//! A group expression is traced down to what the aggregate reads. Over a source it is a window if it is one over the column
//! that the source's watermark speaks of. Over another aggregate it is one if it is a window over an edge of that
//! aggregate's windows, or such an edge itself. Of several windows one tells when a group is final, the others are keys.

use datafusion::common::{Column, ExprSchema};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, lit};
use watershed_core::EventTime;
use watershed_core::error::{Error, Result};
use watershed_core::time::Span;
use watershed_operators::{Below as Passed, Edge, WindowEnd, WindowForm, Windows};

use super::output::unique;
use super::{Below, Lowering, marks};
use crate::trace::{Traced, trace};
use crate::window::{Meaning, meaning};

/// How an aggregate is grouped.
pub(super) struct Grouping {
    /// Its windows, as an aggregate above sees them.
    pub(super) form: WindowForm,
    /// The same, as the first of `columns` tells them.
    pub(super) windows: Windows,
    /// For each group expression of the query.
    pub(super) groups: Vec<Group>,
    /// What is really grouped by, with names: the window, then the keys in the query's order.
    pub(super) columns: Vec<(Expr, String)>,
    /// What becomes of the source's watermark below this aggregate.
    pub(super) below: Vec<Passed>,
    /// Windows that begin before this are not emitted.
    pub(super) from: Option<EventTime>,
}

/// A group expression of the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Group {
    /// The column of the operator's output that has it: 0 and 1 are the window's start and end.
    pub(super) output: usize,
    /// Which edge of the window it is, if it is one.
    pub(super) edge: Option<Edge>,
}

/// What a group expression is to its aggregate.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// An edge of a window of this form over a time, which is the source's or an edge of the windows below.
    Window {
        form: WindowForm,
        edge: Edge,
        over: Option<Edge>,
    },
    /// An edge of the windows below, as it is.
    Same(Edge),
    Key,
}

impl Lowering<'_> {
    /// Finds the window among the group expressions, and what remains to group by.
    pub(super) fn grouping(&self, aggregate: &Aggregate, below: Option<&Below<'_>>) -> Result<Grouping> {
        let at = self.window_at.or(self.grouping_at).or(self.at);
        // The same expression twice is one column.
        let mut exprs: Vec<&Expr> = vec![];
        for expr in &aggregate.group_expr {
            if !exprs.contains(&expr) {
                exprs.push(expr);
            }
        }
        let roles = exprs.iter().map(|expr| self.role(expr, aggregate, below)).collect::<Result<Vec<_>>>()?;
        let misused = marks::misused(aggregate).map_err(|e| self.error(&e))?;
        if let Some(expr) = misused {
            return Err(Error::sql_at(
                format!(
                    "{expr} computes with the edges of windows that overlap: a row is in many; use window_start and window_end \
                     in GROUP BY, HAVING and SELECT, and filter rows by their own time"
                ),
                at,
            ));
        }
        let Some(chosen) = self.chosen(&roles, below)? else { return Err(self.no_window(aggregate, below)) };
        let key_of = |i: usize| exprs[i].clone();
        let name = |i: usize| aggregate.schema.field(i).name().clone();

        let edge_of = |role: Role| match (role, roles[chosen]) {
            (Role::Window { form, edge, over }, Role::Window { form: chosen, over: time, .. }) => {
                (form == chosen && over == time).then_some(edge)
            }
            (Role::Same(edge), Role::Same(_)) => Some(edge),
            _ => None,
        };
        // Under an edge of the windows below both edges stand for the window, but only one is computed from the other.
        let is_key = |i: usize| match roles[i] {
            Role::Same(_) => i != chosen,
            role => edge_of(role).is_none(),
        };
        let keys: Vec<usize> = (0..roles.len()).filter(|i| is_key(*i)).collect();
        let groups = (0..roles.len()).map(|i| {
            let key = keys.iter().position(|key| *key == i).map(|n| n + 2);
            let output = match (key, edge_of(roles[i]), roles[i]) {
                (Some(key), _, _) => key,
                (None, Some(Edge::End), Role::Window { .. }) => 1,
                (None, _, _) => 0,
            };
            Group { output, edge: edge_of(roles[i]) }
        });
        let groups: Vec<Group> = groups.collect();

        let (form, windows, first) = match roles[chosen] {
            Role::Window { form, edge, .. } => {
                // The start itself where the query has it, else the end less the width. A mark becomes the pane either way.
                let first = match edge {
                    Edge::End if !form.overlaps() => key_of(chosen) - lit(form.interval()),
                    _ => key_of(chosen),
                };
                let windows = if form.overlaps() { Windows::Paned(form) } else { Windows::Single(form.end()) };
                (form, windows, first)
            }
            Role::Same(edge) => {
                let form = below.map(|b| b.grouping.form).ok_or_else(|| Error::bug("an edge of no window"))?;
                let end = if edge == Edge::Start { form.end() } else { WindowEnd::Fixed(Span(0)) };
                (form, Windows::Single(end), key_of(chosen))
            }
            Role::Key => return Err(Error::bug("a key was taken for a window")),
        };
        let first_name = if groups[chosen].output == 0 { name(chosen) } else { "window_start".to_string() };
        let grouped = std::iter::once(first).chain(keys.iter().map(|i| key_of(*i)));
        let names = unique(std::iter::once(first_name).chain(keys.iter().map(|i| name(*i))));
        let (below, from) = self.time(roles[chosen], form, below);
        Ok(Grouping { form, windows, groups, columns: grouped.zip(names).collect(), below, from })
    }

    /// How the source's watermark and the view's beginning reach an aggregate whose windows are of this role.
    fn time(&self, role: Role, form: WindowForm, below: Option<&Below<'_>>) -> (Vec<Passed>, Option<EventTime>) {
        let Some(below) = below.map(|b| &b.grouping) else {
            return (vec![], self.options.from.map(|from| form.first_from(from)));
        };
        let mut passed = below.below.clone();
        let Role::Window { over: Some(edge), .. } = role else { return (passed, None) };
        passed.push(Passed { form: below.form, edge });
        let from = below.from.map(|from| match edge {
            Edge::Start => form.first_from(from),
            // The first end that is put out.
            Edge::End => form.first_from(below.form.end_after(from)),
        });
        (passed, from)
    }

    /// Which group expression tells when a group is final.
    fn chosen(&self, roles: &[Role], below: Option<&Below<'_>>) -> Result<Option<usize>> {
        let at = self.grouping_at.or(self.window_at).or(self.at);
        let find = |wanted: &dyn Fn(Role) -> bool| roles.iter().position(|role| wanted(*role));
        let overlaps = |role: Role| matches!(role, Role::Window { form, .. } if form.overlaps());
        if let Some(first) = find(&overlaps) {
            let Role::Window { form: one, .. } = roles[first] else { return Ok(None) };
            let other = |role: Role| overlaps(role) && !matches!(role, Role::Window { form, .. } if form == one);
            if find(&other).is_some() {
                let message =
                    "two families of windows that overlap in one GROUP BY: not supported; write a view for each";
                return Err(Error::sql_at(message, at));
            }
            let edge = |wanted: Edge| {
                find(&|role| matches!(role, Role::Window { form, edge, .. } if form == one && edge == wanted))
            };
            if matches!(one, WindowForm::Cumulate { .. }) && edge(Edge::End).is_none() {
                let message = "CUMULATE: several windows have the same start, so a group is told by its end: add window_end \
                               to GROUP BY";
                return Err(Error::sql_at(message, at));
            }
            return Ok(edge(Edge::Start).or(edge(Edge::End)));
        }
        let cumulates = below.is_some_and(|b| matches!(b.grouping.form, WindowForm::Cumulate { .. }));
        let (better, other) = if cumulates { (Edge::End, Edge::Start) } else { (Edge::Start, Edge::End) };
        let same = find(&|role| role == Role::Same(better)).or_else(|| find(&|role| role == Role::Same(other)));
        if same.is_some() {
            return Ok(same);
        }
        // The narrowest is final first, and holds the least; of its edges the start.
        let width = |form: WindowForm| match form.end() {
            WindowEnd::Fixed(span) => span.0,
            WindowEnd::Months(n) => i64::from(n).saturating_mul(31 * Span::DAY.0),
        };
        let ranked = roles.iter().enumerate().filter_map(|(i, role)| match role {
            Role::Window { form, edge, .. } => Some((width(*form), *edge == Edge::End, i)),
            _ => None,
        });
        Ok(ranked.min().map(|(_, _, i)| i))
    }

    /// What a group expression is; in every branch of a union it must be the same. A window counts only over the column
    /// that its source's watermark speaks of: over another one it is a key like any other.
    fn role(&self, expr: &Expr, aggregate: &Aggregate, below: Option<&Below<'_>>) -> Result<Role> {
        let at = self.window_at.or(self.grouping_at).or(self.at);
        let mut branches = vec![];
        let mut stray = None;
        for (source, meaning) in self.meanings(expr, aggregate, below)? {
            let role = match meaning {
                Meant::Not(why) => return Err(Error::sql_at(why, at)),
                Meant::Role(role) => role,
                Meant::Stray(column) => {
                    stray = Some((source.clone(), column));
                    Role::Key
                }
            };
            branches.push((source, role));
        }
        let Some((first, role)) = branches.first().cloned() else { return Ok(Role::Key) };
        match branches.into_iter().find(|(_, other)| *other != role) {
            None if role == Role::Key && marks::computes(expr, &aggregate.input).map_err(|e| self.error(&e))? => {
                let message = format!(
                    "{expr} computes with the edges of windows that overlap: group by window_start or window_end themselves, and \
                     compute from them in SELECT"
                );
                Err(Error::sql_at(message, self.grouping_at.or(at)))
            }
            None => Ok(role),
            Some((other, _)) => {
                let message = match stray {
                    Some((source, column)) => self.stray(&source, &column),
                    None => format!(
                        "the branches of UNION ALL have different windows in one column ({first} and {other}): compute the \
                         window once, over the union"
                    ),
                };
                Err(Error::sql_at(message, at))
            }
        }
    }

    /// What an expression over the aggregate's input is, seen as a window, for each source it comes from, or for the
    /// aggregate below.
    fn meanings(&self, expr: &Expr, aggregate: &Aggregate, below: Option<&Below<'_>>) -> Result<Vec<(String, Meant)>> {
        let traced = trace(expr, &aggregate.input).map_err(|e| self.error(&e))?;
        let meant = traced.into_iter().filter_map(|Traced { expr, leaf }| match (leaf, below) {
            (LogicalPlan::TableScan(scan), _) => {
                let name = scan.table_name.table();
                // Over a table that is joined it is a key, whatever it looks like.
                let Some(source) = self.sources.get(name) else {
                    return Some((name.to_string(), Meant::Role(Role::Key)));
                };
                let type_of =
                    |c: &Column| scan.projected_schema.field_from_column(c).ok().map(|f| f.data_type().clone());
                let is_time = |c: &Column| (c.name == source.time_column).then_some(None);
                Some((source.name.clone(), meant(meaning(&expr, &type_of), is_time)))
            }
            (LogicalPlan::Aggregate(leaf), Some(below)) => {
                let edge_of = |c: &Column| {
                    let index = leaf.schema.maybe_index_of_column(c)?;
                    below.grouping.groups.get(index).and_then(|group| group.edge)
                };
                let name = "the aggregate below".to_string();
                if let Expr::Column(c) = expr.clone().unalias_nested().data
                    && let Some(edge) = edge_of(&c)
                {
                    return Some((name, Meant::Role(Role::Same(edge))));
                }
                let type_of = |c: &Column| leaf.schema.field_from_column(c).ok().map(|f| f.data_type().clone());
                Some((name, meant(meaning(&expr, &type_of), |c| edge_of(c).map(Some))))
            }
            // A branch of its own, and nothing that a watermark speaks of.
            (LogicalPlan::Unnest(unnest), _) => {
                Some((self.names(&unnest.input).into_iter().next()?, Meant::Role(Role::Key)))
            }
            // So it is over both sides of a join.
            (LogicalPlan::Join(_), _) => Some(("a join".to_string(), Meant::Role(Role::Key))),
            _ => None,
        });
        Ok(meant.collect())
    }

    fn stray(&self, source: &str, column: &str) -> String {
        let Some(time) = self.sources.get(source).map(|s| s.time_column.as_str()) else {
            return format!(
                "the window is over {column}, which is no edge of the windows below: make it over their window_start or \
                 window_end"
            );
        };
        format!(
            "the window is over {column}, but the watermark of {source} is over {time}: make the window over {time}, or \
             declare WATERMARK FOR {column} AS {column} in CREATE SOURCE"
        )
    }

    fn no_window(&self, aggregate: &Aggregate, below: Option<&Below<'_>>) -> Error {
        for expr in &aggregate.group_expr {
            for (source, meant) in self.meanings(expr, aggregate, below).unwrap_or_default() {
                if let Meant::Stray(column) = meant {
                    let at = self.window_at.or(self.grouping_at).or(self.at);
                    return Error::sql_at(self.stray(&source, &column), at);
                }
            }
        }
        if below.is_some() {
            let message = "Aggregate over Aggregate: a group without a window is never final; group by window_start of the \
                           inner one, or by a window over it, such as date_trunc('day', window_start)";
            return Error::sql_at(message, self.grouping_at.or(self.at));
        }
        if self.window_at.is_some() {
            let message =
                "Aggregate: the window is not grouped by, so no group is ever final: add window_start to GROUP BY";
            return Error::sql_at(message, self.grouping_at.or(self.at));
        }
        let first = self.names(&aggregate.input).into_iter().next().unwrap_or_default();
        let time = self.sources.get(&first).map_or("ts", |s| s.time_column.as_str());
        if aggregate.aggr_expr.is_empty() {
            let message = format!(
                "SELECT DISTINCT (Distinct): every row there ever was would have to be remembered; put a window among the \
                 columns: SELECT DISTINCT window_start, … FROM TUMBLE({first}, {time}, INTERVAL '1 hour')"
            );
            return Error::sql_at(message, self.grouping_at.or(self.at));
        }
        let what =
            if aggregate.group_expr.is_empty() { "an aggregate over everything" } else { "GROUP BY without a window" };
        let message = format!(
            "Aggregate: {what} is never final, and its state grows without bound; group by a window: \
             FROM TUMBLE({first}, {time}, INTERVAL '1 hour') GROUP BY window_start, or GROUP BY date_trunc('hour', {time})"
        );
        Error::sql_at(message, self.grouping_at.or(self.at))
    }
}

/// What an expression over a leaf is to the aggregate.
enum Meant {
    Role(Role),
    /// A window over a column that no watermark speaks of.
    Stray(String),
    /// Looks like a window but is none, and why.
    Not(String),
}

/// `over` tells of a column whether a watermark speaks of it, and if it is an edge of windows below, which.
fn meant(meaning: Meaning, over: impl Fn(&Column) -> Option<Option<Edge>>) -> Meant {
    let (form, edge, column) = match meaning {
        Meaning::Other => return Meant::Role(Role::Key),
        Meaning::Not(why) => return Meant::Not(why),
        Meaning::Start(form, column) => (form, Edge::Start, column),
        Meaning::End(form, column) => (form, Edge::End, column),
    };
    match over(&column) {
        Some(over) => Meant::Role(Role::Window { form, edge, over }),
        None => Meant::Stray(column.name),
    }
}
