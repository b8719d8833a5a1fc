//! Where the plan meets the runtime: neither crate knows the other, so what one makes and the other takes is joined here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit};
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::account::Account;
use watershed_core::scan::ScanInput;
use watershed_core::sink::{CommitIdentity, Committed, EpochWriter, LastCommit, PreparedCommit, Sink};
use watershed_core::tail::Part;
use watershed_core::{Error, Result};
use watershed_operators::{Spill, StateAccount, window_operator};
use watershed_plan as plan;
use watershed_plan::Lowered;
use watershed_runtime as runtime;
use watershed_runtime::{Graph, Input, Stage};

use crate::relations::Known;

/// A lowered fragment, as the runtime binds it.
pub(crate) struct Fragment(pub(crate) plan::Fragment);

impl runtime::Fragment for Fragment {
    fn bind(&self, inputs: &[ScanInput]) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.bind(inputs)
    }

    fn account(&self, bound: &Arc<dyn ExecutionPlan>) -> Result<Account> {
        self.0.account(bound)
    }
}

/// What is done with a window once it is final, as the runtime binds it.
pub(crate) struct Finish(pub(crate) plan::Finish);

impl runtime::Finish for Finish {
    fn bind(&self, rows: Vec<Vec<RecordBatch>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.bind(rows)
    }
}

/// What is done to rows on their way into a table.
type Change = dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync;

/// A sink that rows reach changed: under a table's own names for INSERT, whose columns go by position.
pub(crate) struct Changed {
    sink: Arc<dyn Sink>,
    change: Arc<Change>,
}

impl Changed {
    pub(crate) fn new(
        sink: Arc<dyn Sink>,
        change: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Self {
        Changed { sink, change: Arc::new(change) }
    }
}

#[async_trait]
impl Sink for Changed {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn location(&self) -> &str {
        self.sink.location()
    }

    fn writer(&self) -> Result<Arc<dyn EpochWriter>> {
        Ok(Arc::new(ChangedWriter { writer: self.sink.writer()?, change: Arc::clone(&self.change) }))
    }

    async fn commit(
        &self,
        identity: &CommitIdentity,
        prepared: &PreparedCommit,
        info: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed> {
        self.sink.commit(identity, prepared, info).await
    }

    async fn last_committed(&self, application: &str) -> Result<Option<LastCommit>> {
        self.sink.last_committed(application).await
    }

    async fn verify(&self, prepared: &PreparedCommit) -> Result<()> {
        self.sink.verify(prepared).await
    }

    async fn archived(&self, archive: &str) -> Result<BTreeMap<Part, i64>> {
        self.sink.archived(archive).await
    }

    async fn tidy(&self) -> Result<()> {
        self.sink.tidy().await
    }
}

struct ChangedWriter {
    writer: Arc<dyn EpochWriter>,
    change: Arc<Change>,
}

#[async_trait]
impl EpochWriter for ChangedWriter {
    async fn write(&self, lane: usize, rows: RecordBatch) -> Result<()> {
        self.writer.write(lane, (self.change)(rows)?).await
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        self.writer.finish().await
    }
}

/// The rows under other column names.
pub(crate) fn renamed(rows: RecordBatch, columns: &[String]) -> Result<RecordBatch> {
    let schema = Arc::new(renamed_schema(&rows.schema(), columns));
    let renamed = RecordBatch::try_new(schema, rows.columns().to_vec());
    renamed.map_err(|e| Error::bug(format!("renaming columns: {e}")))
}

/// The columns under other names, position by position.
pub(crate) fn renamed_schema(schema: &Schema, columns: &[String]) -> Schema {
    let fields = schema.fields().iter().zip(columns);
    let named = |(field, name): (&Arc<Field>, &String)| field.as_ref().clone().with_name(name);
    Schema::new(fields.map(named).collect::<Vec<_>>())
}

/// The sources, each once, and for each hole of the fragment the one that fills it.
pub(crate) fn inputs(lowered: &Lowered, known: &Known, rejected: &SchemaRef) -> Result<(Vec<Input>, Vec<usize>)> {
    let mut names: Vec<&String> = vec![];
    let mut holes = vec![];
    for name in &lowered.inputs {
        let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        holes.push(at);
    }
    let input = |name: &String| {
        let source =
            known.sources.get(name).ok_or_else(|| Error::bug(format!("the plan reads {name}, which is not open")))?;
        let tail = source.tail.as_ref().map(|tail| tail.input(name, rejected));
        Ok(Input { tail, follow: source.follow, ..source.input() })
    };
    let inputs: Vec<Input> = names.into_iter().map(input).collect::<Result<_>>()?;
    let goes_on = |input: &&Input| input.tail.is_some() || input.follow;
    let logs = inputs.iter().find(goes_on);
    if let (Some(log), Some(ends)) = (logs, inputs.iter().find(|input| !goes_on(input) && !input.bounded)) {
        return Err(Error::input(format!(
            "{} goes on and {} has a history only: once that is read, all windows would be held open for what may still \
             come to it. If nothing will, say so (bounded = true in its CREATE SOURCE … WITH); else let it go on as well (tail = '…')",
            log.name, ends.name
        )));
    }
    Ok((inputs, holes))
}

/// All shards of all jobs together may hold one part in so many of the memory whatever else is in it: what it takes to work.
const LEAST: usize = 8;

/// `jobs` run side by side.
pub(crate) fn graph(
    job: &str,
    lowered: Lowered,
    holes: Vec<usize>,
    parallelism: usize,
    jobs: usize,
    tasks: &TaskContext,
) -> Graph {
    let limit = match tasks.memory_pool().memory_limit() {
        MemoryLimit::Finite(limit) => limit,
        _ => usize::MAX,
    };
    let least = limit / (LEAST * jobs.max(1) * parallelism.max(1) * lowered.stages.len().max(1));
    let spill = Spill { disk: Arc::clone(&tasks.runtime_env().disk_manager), least };
    let stages = lowered.stages.into_iter().enumerate().map(|(number, stage)| {
        let spill = spill.clone();
        let (spec, pool, name) = (Arc::clone(&stage.spec), Arc::clone(tasks.memory_pool()), job.to_string());
        let hashed = spec.hashed();
        let operator = move |shard| {
            let consumer =
                MemoryConsumer::new(format!("{name}, aggregate {number}, shard {shard}")).with_can_spill(true);
            let account = StateAccount { reservation: consumer.register(&pool), spill: Some(spill.clone()) };
            window_operator(Arc::clone(&spec), account)
        };
        Stage { operator: Arc::new(operator), finish: Arc::new(Finish(stage.finish)), hashed }
    });
    let stages = stages.collect();
    Graph { fragment: Arc::new(Fragment(lowered.fragment)), holes, stages, parallelism }
}
