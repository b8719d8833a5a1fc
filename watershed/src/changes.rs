//! `CHANGES(table, from [, to])` in the FROM of a batch query: what each version did to a table's rows.
//!
//! The call is replaced by a name before the query is planned, and the name stands for the feed. `table` is a table or view of
//! the home, or a location as text; `from` and `to` are versions, or `from` is a time. Both ends are included.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableAlias, TableFactor, TypedString, Value,
    VisitMut, VisitorMut,
};
use futures::TryStreamExt;
use watershed_core::settings::parse_time;
use watershed_core::{Error, Result};
use watershed_lake::changes::{ChangeFeed, Since, changes};

use crate::catalog::Entry;
use crate::engine::{Engine, relation};

const FORM: &str = "give CHANGES(table, from [, to]), where from is a version or a time as text, and to a version, both \
                    included: CHANGES(orders, 12), CHANGES('s3://lake/orders', '2024-05-01', 40)";

/// A call in a query, and the name that was put in its place.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    table: String,
    since: Since,
    until: Option<u64>,
}

/// Puts names in the place of calls.
pub(crate) fn rewrite(query: &mut Query) -> Result<Vec<Call>> {
    let mut found = Calls { calls: vec![], failure: None };
    let _ = query.visit(&mut found);
    match found.failure {
        Some(e) => Err(e),
        None => Ok(found.calls),
    }
}

struct Calls {
    calls: Vec<Call>,
    failure: Option<Error>,
}

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: args @ Some(_), alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        if !name.to_string().eq_ignore_ascii_case("changes") {
            return ControlFlow::Continue(());
        }
        let given: Vec<&Expr> = args.iter().flat_map(|args| &args.args).filter_map(expression).collect();
        let call = match call(&given, self.calls.len()) {
            Ok(call) => call,
            Err(e) => {
                self.failure = Some(e);
                return ControlFlow::Break(());
            }
        };
        // Columns may be said to be of CHANGES, as of any table.
        alias.get_or_insert_with(|| TableAlias {
            explicit: false,
            name: Ident::new("changes"),
            columns: vec![],
            at: None,
        });
        *name = ObjectName::from(vec![Ident::new(&call.name)]);
        *args = None;
        self.calls.push(call);
        ControlFlow::Continue(())
    }
}

fn expression(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn call(given: &[&Expr], number: usize) -> Result<Call> {
    let wrong = |what: String| Error::sql(format!("CHANGES: {what}; {FORM}"));
    let (table, from, to) = match given {
        [table, from] => (table, from, None),
        [table, from, to] => (table, from, Some(to)),
        _ => return Err(wrong(format!("{} arguments", given.len()))),
    };
    let table = match table {
        Expr::Identifier(ident) if ident.quote_style.is_none() => ident.value.to_lowercase(),
        Expr::Identifier(ident) => ident.value.clone(),
        other => text(other).ok_or_else(|| wrong(format!("{other} names no table")))?,
    };
    let since = match (version(from), text(from)) {
        (Some(version), _) => Since::Version(version),
        (None, Some(time)) => Since::Time(parse_time(&time).ok_or_else(|| wrong(format!("'{time}' is no time")))?),
        (None, None) => return Err(wrong(format!("{from} is neither a version nor a time"))),
    };
    let until = to.map(|to| version(to).ok_or_else(|| wrong(format!("{to} is no version")))).transpose()?;
    Ok(Call { name: format!("_changes_{number}"), table, since, until })
}

fn version(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    let value = match expr {
        Expr::Value(value) => &value.value,
        Expr::TypedString(TypedString { value, .. }) => &value.value,
        _ => return None,
    };
    match value {
        Value::SingleQuotedString(text) => Some(text.clone()),
        _ => None,
    }
}

/// The feed that a call asks for.
pub(crate) async fn open(engine: &Engine, entries: &[Entry], call: &Call) -> Result<Arc<dyn TableProvider>> {
    let location = match relation(entries, &call.table) {
        Some(entry) if entry.kind.has_table() => engine.location(entry),
        Some(entry) => match &entry.location {
            Some(location) => location.clone(),
            None => {
                return Err(Error::sql(format!(
                    "CHANGES({}, …): {} is {}, which has no table of its own; {FORM}",
                    call.table,
                    call.table,
                    entry.kind.one()
                )));
            }
        },
        None => call.table.clone(),
    };
    let feed = changes(engine.stores(), &location, call.since, call.until).await?;
    let partition = Arc::new(Feed { schema: feed.schema(), feed: Arc::new(feed) });
    let table = StreamingTable::try_new(partition.schema.clone(), vec![partition]);
    Ok(Arc::new(table.map_err(|e| Error::bug(format!("a table of changes: {e}")))?))
}

#[derive(Debug)]
struct Feed {
    schema: SchemaRef,
    feed: Arc<ChangeFeed>,
}

impl PartitionStream for Feed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.feed.clone().read().map_err(|e| DataFusionError::External(Box::new(e)));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

#[cfg(test)]
mod tests {
    use watershed_plan::{Statement, parse};

    use super::*;

    fn rewritten(text: &str) -> Result<(String, Vec<Call>)> {
        let Statement::Query(mut query) = parse(text, &|_| None)?.remove(0).statement else { panic!("not a query") };
        let calls = rewrite(&mut query)?;
        Ok((query.to_string(), calls))
    }

    #[test]
    fn calls_are_found_wherever_rows_come_from() {
        let text =
            "SELECT * FROM Changes(Orders, 3) WHERE id IN (SELECT id FROM CHANGES('/lake/t', '2024-05-01', 9) AS c)";
        let (query, calls) = rewritten(text).unwrap();
        assert!(query.contains("_changes_0") && query.contains("_changes_1") && !query.contains("Orders"), "{query}");
        assert_eq!((calls[0].table.as_str(), calls[0].since, calls[0].until), ("orders", Since::Version(3), None));
        assert_eq!((calls[1].table.as_str(), calls[1].until), ("/lake/t", Some(9)));
        assert!(matches!(calls[1].since, Since::Time(_)));
    }

    #[test]
    fn what_is_no_call_says_what_would_be() {
        for (text, words) in [
            ("SELECT * FROM CHANGES(t)", "1 arguments"),
            ("SELECT * FROM CHANGES(t, 'soon')", "'soon' is no time"),
            ("SELECT * FROM CHANGES(t, 1, '2024-05-01')", "is no version"),
            ("SELECT * FROM CHANGES(1, 1)", "1 names no table"),
        ] {
            let error = rewritten(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("give CHANGES(table, from [, to])"), "{error}");
        }
    }
}
