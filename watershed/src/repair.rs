//! Windows of a view computed anew, for facts that came when the windows had been emitted.
//!
//! What such a window has to hold is the batch answer of the view's own query over the facts of its time; so that is what is
//! asked, of the histories alone, with nothing of the operators' state. Its rows take the place of all rows of the window.
//!
//! ```text
//!  windows missed ─ axis ─▶ a stretch of the result ─▶ facts of that time ─▶ batch query ─▶ rows that are final
//! ```
//!
//! Tables that the query joins are those of the run, pinned when it was planned.
//!
//! **Invariant:** the oracle and a repair are one and the same query, over the same facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::cast;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;
use tokio::sync::Mutex;
use watershed_core::error::Place;
use watershed_core::history::{History, Snapshot};
use watershed_core::settings::{Late, OnChange, Settings};
use watershed_core::sink::Replaced;
use watershed_core::time::Interval;
use watershed_core::{Error, EventTime, Result};
use watershed_operators::WindowForm;
use watershed_plan::{Lowered, Query};
use watershed_runtime::Recompute;

use crate::batch::in_query;
use crate::catalog::Kind;
use crate::engine::Engine;
use crate::execute::Session;
use crate::relations::{self, Known};
use crate::verify::facts::facts_of;
use crate::verify::stretches::{Axis, Stretch};
use crate::verify::{column, within};

/// What a view's windows are computed anew with.
pub(crate) struct Windows {
    /// A planner of its own, over files instead of holes; its sources are set for each query.
    batch: Mutex<Known>,
    query: Query,
    /// When the view was made, which is what its query takes for now.
    made: EventTime,
    axis: Axis,
    form: WindowForm,
    output: SchemaRef,
    sources: Vec<Facts>,
}

struct Facts {
    name: String,
    time_column: String,
    history: Arc<dyn History>,
}

/// Errors unless late facts of a job can be put right, if it is to do so.
pub(crate) fn check(
    settings: &Settings,
    kind: Kind,
    name: &str,
    lowered: &Lowered,
    known: &Known,
    at: Place,
) -> Result<()> {
    if settings.on_change == OnChange::Repair && (settings.late != Late::Repair || lowered.stages.is_empty()) {
        let message = format!(
            "{kind} {name}: on_change = 'repair' is for views over windows that are made with late = 'repair'; give 'stop' or \
             'ignore'"
        );
        return Err(Error::sql_at(message, Some(at)));
    }
    // Without windows no row is late.
    if settings.late != Late::Repair || lowered.stages.is_empty() {
        return Ok(());
    }
    let refuse = |because: String| Err(Error::sql_at(format!("{kind} {name}: late = 'repair': {because}"), Some(at)));
    if kind != Kind::MaterializedView {
        return refuse(
            "only a materialized view can take back rows that it has; make one of this query, or set late = 'table'"
                .to_string(),
        );
    }
    if lowered.stages.len() > 1 {
        return refuse(
            "not supported for an aggregate over an aggregate, whose open windows hold what was emitted below; make a view of \
             the lower one, or set late = 'table'"
                .to_string(),
        );
    }
    if let Some(log) = known.sources.values().find(|source| !source.has_history) {
        return refuse(format!(
            "source {} has a log only, from which facts that are past cannot be read again; give it the history that its archive \
             makes (lake = '…'), or set late = 'table'",
            log.name
        ));
    }
    if let Some(log) = known.sources.values().find(|source| source.tail.as_ref().is_some_and(|t| !t.key().is_empty())) {
        return refuse(format!(
            "the history of source {} has no record of how far it is (key = '…'), so when it has a late fact is not known; archive the \
             log with INSERT INTO, or set late = 'table'",
            log.name
        ));
    }
    match Axis::of(lowered, EventTime::MAX) {
        Err(Error::Input(because)) => refuse(because),
        other => other.map(|_| ()),
    }
}

impl Windows {
    /// For a job whose late facts are to be put right; `None` for others.
    pub(crate) async fn of(
        session: &Session<'_>,
        settings: &Settings,
        query: &Query,
        made: EventTime,
        lowered: &Lowered,
        known: &Known,
    ) -> Result<Option<Arc<dyn Recompute>>> {
        if settings.late != Late::Repair {
            return Ok(None);
        }
        let (Some(axis), Some(form)) = (Axis::of(lowered, EventTime::MAX)?, lowered.fragment.windows()) else {
            return Ok(None);
        };
        let engine: &Engine = session.engine;
        let batch = relations::tables_only(engine, &session.entries, &session.layers, settings, query).await?;
        let source = |(name, source): (&String, &crate::sources::OpenSource)| Facts {
            name: name.clone(),
            time_column: source.time_column.clone(),
            history: Arc::clone(&source.history),
        };
        Ok(Some(Arc::new(Windows {
            batch: Mutex::new(batch),
            query: query.clone(),
            made,
            axis,
            form,
            output: Arc::clone(&lowered.output),
            sources: known.sources.iter().map(source).collect(),
        })))
    }
}

#[async_trait]
impl Recompute for Windows {
    fn windows(&self, missed: Interval) -> Replaced {
        let Stretch { start, end } = self.axis.within(missed);
        Replaced { column: self.axis.column.clone(), times: vec![Interval { start, end }] }
    }

    fn touched(&self, facts: Interval, watermark: EventTime) -> (Option<Interval>, Option<Interval>) {
        self.form.touched(facts, watermark)
    }

    async fn rows(
        &self,
        windows: &Replaced,
        facts: &BTreeMap<String, Snapshot>,
        watermark: EventTime,
    ) -> Result<SendableRecordBatchStream> {
        let [Interval { start, end }] = windows.times[..] else {
            return Err(Error::bug("windows are computed anew one stretch at a time"));
        };
        let stretch = Stretch { start, end };
        let needs = self.axis.facts_of(&stretch);
        let between = Interval { start: needs.start, end: needs.end };
        let mut batch = self.batch.lock().await;
        for source in &self.sources {
            let snapshot = facts.get(&source.name);
            let snapshot = snapshot.ok_or_else(|| Error::bug(format!("the facts of {} are not there", source.name)))?;
            let facts = facts_of(source.history.as_ref(), snapshot, &source.time_column, between).await?;
            batch.planner.add_table_provider(&source.name, facts)?;
        }
        let answer = batch.planner.batch_as_of(&self.query, self.made).await?;
        let fields = self.output.fields();
        let typed = fields.iter().map(|f| cast(column(f.name()), f.data_type().clone()).alias(f.name()));
        let answer = answer.select(typed.collect::<Vec<_>>()).map_err(in_query)?;
        let answer = within(answer, &self.axis.clone().at(watermark), &stretch, true)?;
        let rows = answer.execute_stream().await.map_err(in_query)?;
        let output = Arc::clone(&self.output);
        let rows = rows.and_then(move |rows: RecordBatch| {
            let rows = RecordBatch::try_new(Arc::clone(&output), rows.columns().to_vec());
            std::future::ready(rows.map_err(Into::into))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), rows)))
    }
}
