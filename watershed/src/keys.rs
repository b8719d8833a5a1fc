//! The keys of a history's facts, for a log that is joined with it by event time.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::SessionContext;
use watershed_core::history::{History, Snapshot};
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};
use watershed_runtime::Keys;

use crate::batch::in_query;
use crate::verify::column;
use crate::verify::facts::facts_of;

/// The facts of a table by their keys.
pub(crate) struct TableKeys {
    history: Arc<dyn History>,
    time_column: String,
    columns: Vec<String>,
    /// Typed as the log has them.
    typed: Vec<Expr>,
}

impl TableKeys {
    /// `facts` is what the log's facts look like.
    pub(crate) fn new(
        history: &Arc<dyn History>,
        time_column: &str,
        columns: Vec<String>,
        facts: &SchemaRef,
    ) -> Result<Self> {
        let typed = |name: &String| {
            let field = facts.field_with_name(name).map_err(|_| {
                let names: Vec<&str> = facts.fields().iter().map(|field| field.name().as_str()).collect();
                Error::input(format!(
                    "key = '{}': there is no column {name}, but {}",
                    columns.join(", "),
                    names.join(", ")
                ))
            })?;
            Ok(cast(column(name), field.data_type().clone()))
        };
        let typed = columns.iter().map(typed).collect::<Result<_>>()?;
        Ok(TableKeys { history: Arc::clone(history), time_column: time_column.to_string(), columns, typed })
    }
}

#[async_trait]
impl Keys for TableKeys {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    async fn of(&self, facts: &Snapshot, from: EventTime) -> Result<SendableRecordBatchStream> {
        let between = Interval { start: from, end: EventTime::MAX };
        let facts = facts_of(self.history.as_ref(), facts, &self.time_column, between).await?;
        let columns: Vec<Expr> = self.typed.iter().cloned().chain([column(&self.time_column)]).collect();
        let named = columns.into_iter().enumerate().map(|(i, column)| column.alias(format!("c{i}")));
        let frame = SessionContext::new().read_table(facts).and_then(|facts| facts.select(named)).map_err(in_query)?;
        frame.execute_stream().await.map_err(in_query)
    }
}
