//! What a run is given: a job, ready to go, and the world it runs in.
//!
//! The runtime knows no SQL and no table format. It is handed a graph of DataFusion plans with holes, operators and sinks
//! behind the seams of `core`; whoever assembles a job (the `watershed` crate) knows both sides.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectStore;
use object_store::path::Path;
use uuid::Uuid;
use watershed_core::EventTime;
use watershed_core::Result;
use watershed_core::account::Account;
use watershed_core::clock::Clock;
use watershed_core::history::{History, Snapshot, Version};
use watershed_core::operator::Operator;
use watershed_core::scan::ScanInput;
pub use watershed_core::settings::OnError;
use watershed_core::settings::Settings;
use watershed_core::sink::{Replaced, Sink};
use watershed_core::tail::{Decode, Malformed, Start, Tail};
use watershed_core::time::{Interval, Span};

use crate::progress::Progress;
use crate::stop::Stop;

/// One view being kept up, or one INSERT.
pub struct Job {
    /// Unique in the home; also the folder of its checkpoints.
    pub name: String,
    /// Fresh each time the job is built anew; checkpoints and commits of another are not taken for ours.
    pub incarnation: Uuid,
    pub graph: Graph,
    /// The sources, each once.
    pub inputs: Vec<Input>,
    /// The tables that the graph joins, by name, and the version of each that it was planned over.
    pub dimensions: BTreeMap<String, Version>,
    pub sink: Arc<dyn Sink>,
    /// The result is an archive of its source's log, under this name: each commit records how far.
    pub archive: Option<String>,
    /// What open windows would be is put out early.
    pub early: Option<Early>,
    /// Takes late and bad rows.
    pub rejects: Arc<dyn Sink>,
    /// Late rows are not kept aside: by this the windows that they missed are computed anew.
    pub recompute: Option<Arc<dyn Recompute>>,
    pub settings: Settings,
    pub goal: Goal,
}

/// How far a run goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// Read open partitions too, close every window, and end the job for good.
    pub to_the_end: bool,
    /// End at the newest message of the logs, instead of waiting for more.
    pub until_caught_up: bool,
}

/// A source of the job.
#[derive(Clone)]
pub struct Input {
    pub name: String,
    pub history: Arc<dyn History>,
    /// The declared delay of its watermark.
    pub delay: Span,
    /// When it ends it leaves the watermark's minimum.
    pub bounded: bool,
    /// How far into later partitions its rows may leak and are waited for.
    pub max_leak: Span,
    /// The log that it goes on in.
    pub tail: Option<TailInput>,
    /// It goes on in what is committed to its table.
    pub follow: bool,
}

/// The log of a source.
#[derive(Clone)]
pub struct TailInput {
    pub tail: Arc<dyn Tail>,
    /// `None`: it gives out rows.
    pub decode: Option<Arc<dyn Decode>>,
    /// The event time, by its index in what is decoded.
    pub time: usize,
    /// How the table of rejected rows names the log.
    pub origin: Arc<str>,
    /// Where it begins, where no history says.
    pub start: Start,
    /// The archive of it that its history is, where that is not clear.
    pub archive: Option<String>,
    /// How long a part may be quiet before nobody waits for it.
    pub idle: Span,
    /// How long before its newest fact a history is open, where its writer did not record how far each part got.
    pub grace: Span,
    /// By these the facts are known that the history has too, where its writer did not record any offsets.
    pub keys: Option<Arc<dyn Keys>>,
    pub on_error: OnError,
    /// Messages that no fact could be made of, as rows of the table of rejected rows.
    pub malformed: Arc<ToRows>,
}

/// The columns that tell facts apart, of a source whose history and log are joined by event time.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Their names.
    fn columns(&self) -> &[String];

    /// Those of the facts of a history from a time on, typed as the log's, and behind them the event time.
    async fn of(&self, facts: &Snapshot, from: EventTime) -> Result<SendableRecordBatchStream>;
}

/// Makes rows of the table of rejected rows.
pub type ToRows = dyn Fn(&Malformed) -> Result<RecordBatch> + Send + Sync;

/// What is done with the rows.
pub struct Graph {
    pub fragment: Arc<dyn Fragment>,
    /// For each hole of the fragment, the index of the input that fills it.
    pub holes: Vec<usize>,
    /// From the lowest up; each takes what the one before it emits. None: stateless, the fragment's rows are the result.
    pub stages: Vec<Stage>,
    /// Output partitions of the fragment, and shards of each stage.
    pub parallelism: usize,
}

/// A stateful stage: output partition `i` of what is below it goes to the operator's shard `i`.
pub struct Stage {
    pub operator: Arc<dyn Fn(usize) -> Box<dyn Operator> + Send + Sync>,
    /// What is done with the rows that it emits. Of the last stage, a shard by itself; of others over all shards, with rows
    /// hashed to the shards of the next.
    pub finish: Arc<dyn Finish>,
    /// The columns of state chunks by which rows are hashed to shards; none: one shard has them all.
    pub hashed: Range<usize>,
}

/// A plan made once per job, with a hole for each source.
pub trait Fragment: Send + Sync {
    /// Fills the holes for one step. The plan has [`Graph::parallelism`] output partitions and runs once.
    fn bind(&self, inputs: &[ScanInput]) -> Result<Arc<dyn ExecutionPlan>>;

    /// What became of the rows that a bound plan read, asked once its streams have ended; an error if it does not balance.
    fn account(&self, bound: &Arc<dyn ExecutionPlan>) -> Result<Account>;
}

/// A plan made once per job, over what an operator emits: filters on aggregates, expressions, the result's columns; or
/// partial aggregation for the next stage.
pub trait Finish: Send + Sync {
    /// Fills the hole with the rows of some shards. The plan has as many output partitions and runs once.
    fn bind(&self, rows: Vec<Vec<RecordBatch>>) -> Result<Arc<dyn ExecutionPlan>>;
}

/// How early results are put out.
#[derive(Clone)]
pub struct Early {
    /// How often.
    pub every: Span,
    /// The column of the result by which windows are told apart.
    pub column: String,
    /// From where on in that column windows are that are not final at a watermark.
    pub open_from: Arc<dyn Fn(EventTime) -> EventTime + Send + Sync>,
}

/// Computes windows anew that were emitted before one of their facts came.
#[async_trait]
pub trait Recompute: Send + Sync {
    /// The rows of the result that have the windows within a stretch of time: those that late rows have missed, and perhaps
    /// others that are final.
    fn windows(&self, missed: Interval) -> Replaced;

    /// The windows that facts within an interval can be in: those that are final at a watermark, and the others.
    fn touched(&self, facts: Interval, watermark: EventTime) -> (Option<Interval>, Option<Interval>);

    /// All that the result has to have in their place, over these versions of the sources' histories, as far as it is final at
    /// a watermark.
    async fn rows(
        &self,
        windows: &Replaced,
        facts: &BTreeMap<String, Snapshot>,
        watermark: EventTime,
    ) -> Result<SendableRecordBatchStream>;
}

/// The world a job runs in.
#[derive(Clone)]
pub struct Context {
    pub clock: Arc<dyn Clock>,
    /// Holds checkpoints; the job's folder is made under [`Context::home_path`].
    pub home: Arc<dyn ObjectStore>,
    pub home_path: Path,
    pub tasks: Arc<TaskContext>,
    pub progress: Arc<dyn Progress>,
    pub stop: Stop,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}
