//! Places: from the parser's and the planner's spans to line and column.

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::tokenizer::Span;
use watershed_core::error::{Error, Place};

/// Where something begins; `None` when the parser did not keep it.
pub(crate) fn place(of: &impl Spanned) -> Option<Place> {
    span_place(of.span())
}

pub(crate) fn span_place(span: Span) -> Option<Place> {
    (span.start.line > 0).then_some(Place { line: span.start.line, column: span.start.column })
}

/// The planner's error as an error in the user's SQL, at the planner's place if it has one.
pub(crate) fn planning_error(error: &DataFusionError, statement: Option<Place>) -> Error {
    let diagnostic = error.diagnostic();
    let at = diagnostic.and_then(|d| d.span).map(|s| Place { line: s.start.line, column: s.start.column });
    let mut message = match error.find_root() {
        DataFusionError::Plan(message) => message.clone(),
        DataFusionError::Diagnostic(_, source) => source.strip_backtrace(),
        DataFusionError::NotImplemented(message) => format!("not supported: {message}"),
        other => other.strip_backtrace(),
    };
    for prefix in ["Error during planning: ", "Schema error: "] {
        if let Some(rest) = message.strip_prefix(prefix) {
            message = rest.to_string();
        }
    }
    if message.contains("Conflicting ordering requirements") {
        message = "all nth_value and string_agg of one query must have the same ORDER BY, or its reverse; array_agg need not: \
                   array_to_string(array_agg(x ORDER BY …), ',')"
            .to_string();
    }
    for help in diagnostic.into_iter().flat_map(|d| &d.helps) {
        message = format!("{message} ({})", help.message);
    }
    Error::sql_at(message, at.or(statement))
}
