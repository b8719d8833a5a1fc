//! Plain views, expanded where they are named, and names that nothing has, with the nearest that something has.
//!
//! A name that a `WITH` clause defines hides a view or source of the same name, within that query.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, Query, TableAlias, TableFactor, VisitMut, VisitorMut};
use watershed_core::error::{Error, Result};

use super::parse::normal;
use super::place::place;

/// Replaces every view by its query, and returns the names of those that were; `known` are the names of sources or tables.
pub(crate) fn expand(query: &mut Query, views: &BTreeMap<String, Query>, known: &[String]) -> Result<Vec<String>> {
    let mut expand = Expand { views, known, scopes: vec![], used: vec![] };
    match query.visit(&mut expand) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(expand.used),
    }
}

struct Expand<'a> {
    views: &'a BTreeMap<String, Query>,
    known: &'a [String],
    /// Names that the WITH clauses around the current query define.
    scopes: Vec<Vec<String>>,
    used: Vec<String>,
}

impl VisitorMut for Expand<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let names = query.with.iter().flat_map(|w| &w.cte_tables).map(|cte| normal(&cte.alias.name));
        self.scopes.push(names.collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    // After the children: an expanded view is not visited again.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, args: None, alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let [part] = &name.0[..] else {
            let message = format!("{name}: names have one part here; leave out what stands before the last dot");
            return ControlFlow::Break(Error::sql_at(message, place(name)));
        };
        let Some(ident) = part.as_ident() else { return ControlFlow::Continue(()) };
        let wanted = normal(ident);
        if self.scopes.iter().flatten().any(|cte| *cte == wanted) {
            return ControlFlow::Continue(());
        }
        if let Some(view) = self.views.get(&wanted) {
            self.used.push(wanted);
            let alias = alias.take().or_else(|| Some(named(ident)));
            let subquery = Box::new(view.clone());
            *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
            return ControlFlow::Continue(());
        }
        if self.known.contains(&wanted) {
            return ControlFlow::Continue(());
        }
        let names: Vec<&str> = self.known.iter().chain(self.views.keys()).map(String::as_str).collect();
        let hint = match (nearest(&wanted, &names), names.is_empty()) {
            (Some(name), _) => format!("; did you mean {name}?"),
            (None, true) => "; `watershed tables` lists what there is, and CREATE SOURCE makes one".to_string(),
            (None, false) => format!("; there are {}", names.join(", ")),
        };
        let message = format!("there is no source, view or table {wanted}{hint}");
        ControlFlow::Break(Error::sql_at(message, place(name)))
    }
}

fn named(name: &Ident) -> TableAlias {
    TableAlias { explicit: true, name: name.clone(), columns: vec![], at: None }
}

/// The known name that is most like `wanted`, if any is much like it.
fn nearest<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|name| (strsim::jaro_winkler(wanted, name), *name));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}
