//! Which names a query reads from: every name in a FROM, and every one given to a table function there.
//!
//! Names that a `WITH` clause of the query defines come along; whoever asks looks them up in the catalog, where they
//! usually are not, and the planner knows which scope hides which.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableFactor, Visit, Visitor,
};

/// The names, as the catalog has them: lower case unless quoted.
pub(crate) fn names(query: &Query) -> BTreeSet<String> {
    let mut found = Names::default();
    let _ = query.visit(&mut found);
    found.0
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn add(&mut self, ident: &Ident) {
        self.0.insert(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        });
    }
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if let [part] = &relation.0[..]
            && let Some(ident) = part.as_ident()
        {
            self.add(ident);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { args: Some(args), .. } = factor {
            for arg in &args.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident))) = arg {
                    self.add(ident);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use watershed_plan::{Statement, parse};

    use super::*;

    #[test]
    fn finds_names_wherever_rows_come_from() {
        let text = "WITH c AS (SELECT * FROM a) SELECT x FROM TUMBLE(\"B\", ts, INTERVAL '1 hour'), c \
                    WHERE x IN (SELECT y FROM D) UNION ALL SELECT 1 FROM (SELECT * FROM e)";
        let Statement::Query(query) = parse(text, &|_| None).unwrap().remove(0).statement else {
            panic!("not a query")
        };
        let found = names(&query);
        for name in ["a", "B", "c", "d", "e"] {
            assert!(found.contains(name), "{name} in {found:?}");
        }
    }
}
