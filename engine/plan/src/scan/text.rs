//! Files of text in the place of Parquet files: fetched in order, read by their format, and cast to what was planned.
//!
//! A file is one piece: of the ranges that a step cuts it into, the one with its first byte stands for all of it, as that of a
//! Parquet file does for a row group. So one worker reads a file, and a row's number is the line that it begins on. The
//! streams share one queue of files.
//!
//! Records that are no facts go to the table of rejected rows, are counted only, or are an error, as the source says. Where
//! nobody takes them, as in a query that runs once, they are left out.
//!
//! Invariant: what is a fact does not depend on the columns that are read, for all are decoded. Memory is that of a piece of a
//! file and a batch, for each stream.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatchOptions;
use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, Statistics, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::source::{DataSource, DataSourceExec, OpenArgs};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use object_store::{ObjectStore, ObjectStoreExt};
use watershed_core::history::DeletedRows;
use watershed_core::scan::{Reason, Rejects, ScanFile};
use watershed_core::settings::OnError;
use watershed_core::text::{MalformedRecord, TextFiles, TextReader, TextRows};
use watershed_core::{Error, Result as OurResult};

use super::{Bound, Inspection, Scan};
use crate::watched::Marks;

/// Names of the scan's metrics: files, records in them, and those that are no facts or are marked as deleted.
pub(crate) const OPENED: &str = "text_files";
pub(crate) const RECORDS: &str = "text_records";
pub(crate) const MALFORMED: &str = "text_malformed";
pub(crate) const DELETED: &str = "text_deleted";

/// Bytes that are fetched at a time.
const PIECE: u64 = 4 << 20;

/// Where malformed records go.
#[derive(Clone, Debug)]
pub(crate) struct MalformedTo {
    pub(crate) rejects: Arc<dyn Rejects>,
    /// The source's name, written to `_source`.
    pub(crate) source: String,
    /// The table of rejected rows.
    pub(crate) schema: SchemaRef,
}

impl Scan {
    pub(super) fn bind_text(
        &self,
        text: &TextFiles,
        files: &[ScanFile],
        inspection: Option<&Inspection>,
        partitions: usize,
        runtime: &RuntimeEnv,
        malformed: Option<MalformedTo>,
    ) -> Result<Bound> {
        let mut bound = vec![];
        for scan in files.iter().filter(|scan| scan.range.is_none_or(|(first, _)| first == 0)) {
            let mut file = self.file(scan, true)?;
            if let Some(deleted) = &scan.deleted {
                file.extensions.insert(Marks(Arc::clone(deleted)));
            }
            bound.push(file);
        }
        let before = bound.len();
        self.prune(&mut bound)?;
        let pruned_files = (before - bound.len()) as u64;
        let of_file = self.table.file_schema().fields().len();
        let own = self.partitions.len();
        let output = |column: &usize| match column.checked_sub(of_file) {
            None => Output::File(*column),
            Some(value) => Output::Partition(value),
        };
        let columns = inspection.map_or(&self.projection, |inspection| &inspection.columns);
        let mut outputs: Vec<Output> = columns.iter().map(output).collect();
        if inspection.is_some() {
            outputs.extend([Output::Partition(own), Output::Partition(own + 1), Output::Line]);
        }
        let source = TextSource(Arc::new(Planned {
            schema: self.read_schema(inspection),
            outputs,
            files: bound,
            partitions: partitions.max(1),
            store: runtime.object_store(&self.store)?,
            text: text.clone(),
            path_at: own,
            malformed,
            pool: Arc::clone(&runtime.memory_pool),
            metrics: ExecutionPlanMetricsSet::new(),
        }));
        Ok(Bound {
            plan: DataSourceExec::from_data_source(source),
            watched: Arc::default(),
            pruned_files,
            of_log: None,
        })
    }
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug)]
enum Output {
    /// The format's columns.
    File(usize),
    /// The values that ride on a file: those of its partition, then its path and its partition as text.
    Partition(usize),
    /// The line of the record.
    Line,
}

#[derive(Clone, Debug)]
struct TextSource(Arc<Planned>);

#[derive(Debug)]
struct Planned {
    schema: SchemaRef,
    outputs: Vec<Output>,
    files: Vec<PartitionedFile>,
    partitions: usize,
    store: Arc<dyn ObjectStore>,
    text: TextFiles,
    /// Where a file's path stands among the values that ride on it.
    path_at: usize,
    malformed: Option<MalformedTo>,
    pool: Arc<dyn MemoryPool>,
    metrics: ExecutionPlanMetricsSet,
}

/// Files that no stream has taken yet.
type Queue = Mutex<VecDeque<PartitionedFile>>;

impl DataSource for TextSource {
    fn open(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mine = self.0.files.iter().skip(partition).step_by(self.0.partitions).cloned();
        Ok(self.stream(partition, Arc::new(Mutex::new(mine.collect()))))
    }

    fn create_sibling_state(&self, _: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        let queue: Queue = Mutex::new(self.0.files.iter().cloned().collect());
        Some(Arc::new(queue))
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        match args.sibling_state.and_then(|state| state.downcast::<Queue>().ok()) {
            Some(queue) => Ok(self.stream(args.partition, queue)),
            None => self.open(args.partition, args.context),
        }
    }

    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text: {} files, {:?}", self.0.files.len(), self.0.text.format)
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.0.partitions)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.0.schema))
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.0.schema)))
    }

    fn with_fetch(&self, _: Option<usize>) -> Option<Arc<dyn DataSource>> {
        None
    }

    fn fetch(&self) -> Option<usize> {
        None
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.0.metrics.clone()
    }

    fn try_swapping_with_projection(&self, _: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}

impl TextSource {
    fn stream(&self, partition: usize, queue: Arc<Queue>) -> SendableRecordBatchStream {
        let counts = Counts::new(&self.0.metrics, partition);
        let held = MemoryConsumer::new("text reader").register(&self.0.pool);
        let worker = Worker { planned: Arc::clone(&self.0), queue, counts, current: None, held };
        let batches = stream::try_unfold(worker, |mut worker| async move {
            let batch = worker.next().await.map_err(|e| DataFusionError::External(Box::new(e)))?;
            Ok(batch.map(|batch| (batch, worker)))
        });
        let stream = RecordBatchStreamAdapter::new(Arc::clone(&self.0.schema), Box::pin(batches));
        Box::pin(cooperative(stream))
    }
}

struct Counts {
    rows: Count,
    bytes: Count,
    files: Count,
    records: Count,
    malformed: Count,
    deleted: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Counts {
            rows: MetricBuilder::new(metrics).output_rows(partition),
            bytes: count("bytes_scanned"),
            files: count(OPENED),
            records: count(RECORDS),
            malformed: count(MALFORMED),
            deleted: count(DELETED),
        }
    }
}

/// One stream: takes a file, reads it to its end, takes the next.
struct Worker {
    planned: Arc<Planned>,
    queue: Arc<Queue>,
    counts: Counts,
    current: Option<Open>,
    /// What was fetched counts until more is fetched; as for Parquet it is counted and never refused.
    held: MemoryReservation,
}

/// A file being read.
struct Open {
    file: PartitionedFile,
    reader: Box<dyn TextReader>,
    /// Bytes that were fetched.
    at: u64,
}

impl Worker {
    async fn next(&mut self) -> OurResult<Option<RecordBatch>> {
        loop {
            let Some(open) = &mut self.current else {
                let next = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                self.held.resize(0);
                let Some(file) = next else { return Ok(None) };
                let path = file.path().to_string();
                self.current = Some(self.planned.begin(file).await.map_err(|e| of_file(&path, e))?);
                self.counts.files.add(1);
                continue;
            };
            let path = open.file.path().to_string();
            if let Some(rows) = open.reader.next().map_err(|e| of_file(&path, e))? {
                let batch = self.planned.batch(&open.file, rows, &self.counts)?;
                if batch.num_rows() > 0 {
                    return Ok(Some(batch));
                }
                continue;
            }
            let size = open.file.object_meta.size;
            if open.at == size {
                self.current = None;
                continue;
            }
            let piece = open.at..size.min(open.at + PIECE);
            let bytes = self.planned.store.get_range(open.file.path(), piece.clone()).await;
            let bytes = bytes.map_err(|e| Error::storage("cannot read", path, e))?;
            self.counts.bytes.add(bytes.len());
            // As it came, and as records.
            self.held.resize(2 * bytes.len());
            open.reader.push(&bytes);
            open.at = piece.end;
            if open.at == size {
                open.reader.finish();
            }
        }
    }
}

/// Says of which file an error is.
fn of_file(path: &str, e: Error) -> Error {
    match e {
        Error::Input(message) => Error::Input(format!("file {path}: {message}")),
        other => other,
    }
}

impl Planned {
    async fn begin(&self, file: PartitionedFile) -> OurResult<Open> {
        let path = file.path();
        let found = self.store.head(path).await.map_err(|e| Error::storage("cannot read", path.to_string(), e))?;
        let size = file.object_meta.size;
        if found.size != size {
            return Err(Error::input(format!(
                "it has {} bytes and had {size} when it was listed: it is being written; put files in place whole, by \
                 renaming them, and run again",
                found.size
            )));
        }
        let reader = self.text.format.begin(path.as_ref())?;
        Ok(Open { file, reader, at: 0 })
    }

    /// The facts of some records, as they were planned; others are handed over.
    fn batch(&self, file: &PartitionedFile, text: TextRows, counts: &Counts) -> OurResult<RecordBatch> {
        let TextRows { records, mut rows, mut lines, mut malformed } = text;
        counts.records.add(usize::try_from(records).unwrap_or(usize::MAX));
        if let Some(marks) = file.extensions.get_arc::<Marks>() {
            let before = rows.num_rows() + malformed.len();
            let keep: BooleanArray = lines.values().iter().map(|line| Some(!marked(&marks.0, *line))).collect();
            rows = filter_record_batch(&rows, &keep).map_err(odd)?;
            lines = lines.values().iter().copied().filter(|line| !marked(&marks.0, *line)).collect();
            malformed.retain(|record| !marked(&marks.0, record.line));
            counts.deleted.add(before - rows.num_rows() - malformed.len());
        }
        counts.malformed.add(malformed.len());
        counts.rows.add(rows.num_rows());
        self.hand_over(file, malformed)?;
        let n = rows.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.outputs.len());
        for (output, field) in self.outputs.iter().zip(self.schema.fields()) {
            let column: ArrayRef = match output {
                Output::File(column) => Arc::clone(rows.column(*column)),
                Output::Partition(value) => riding(file, *value)?.to_array_of_size(n).map_err(plain)?,
                Output::Line => Arc::new(lines.clone()),
            };
            columns.push(match column.data_type() == field.data_type() {
                true => column,
                // Text that only groups rows is planned to come as dictionaries.
                false => cast(&column, field.data_type()).map_err(odd)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(odd)
    }

    fn hand_over(&self, file: &PartitionedFile, malformed: Vec<MalformedRecord>) -> OurResult<()> {
        let Some(first) = malformed.first() else { return Ok(()) };
        if self.text.on_error == OnError::Fail {
            return Err(Error::input(format!(
                "file {}, line {}: it cannot be read: {}; to go on without such records, set on_error = 'table' or 'skip' in \
                 the source's CREATE SOURCE … WITH",
                file.path(),
                first.line + 1,
                first.error
            )));
        }
        match (&self.malformed, self.text.on_error) {
            (Some(to), OnError::Table) => to.rejects.take(Reason::Malformed, self.rejected(to, file, &malformed)?),
            (Some(to), _) => {
                to.rejects.count(malformed.len() as u64);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// Malformed records as rows of the table of rejected rows.
    fn rejected(
        &self,
        to: &MalformedTo,
        file: &PartitionedFile,
        records: &[MalformedRecord],
    ) -> OurResult<RecordBatch> {
        let n = records.len();
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) };
        let column = |name: &str| -> OurResult<Option<ArrayRef>> {
            Ok(Some(match name {
                "_source" => text(&to.source),
                "_file" => riding(file, self.path_at)?.to_array_of_size(n).map_err(plain)?,
                "_row" => Arc::new(Int64Array::from_iter_values(records.iter().map(|r| r.line))),
                "_reason" => text(Reason::Malformed.name()),
                "_partition" => riding(file, self.path_at + 1)?.to_array_of_size(n).map_err(plain)?,
                "_payload" => Arc::new(BinaryArray::from_iter_values(records.iter().map(|r| &r.payload))),
                "_error" => Arc::new(StringArray::from_iter_values(records.iter().map(|r| &r.error))),
                _ => return Ok(None),
            }))
        };
        let columns = to.schema.fields().iter().map(|field| {
            let found = column(field.name())?;
            Ok(found.unwrap_or_else(|| new_null_array(field.data_type(), n)))
        });
        RecordBatch::try_new(Arc::clone(&to.schema), columns.collect::<OurResult<_>>()?).map_err(odd)
    }
}

fn riding(file: &PartitionedFile, value: usize) -> OurResult<&ScalarValue> {
    let value = file.partition_values.get(value).ok_or_else(|| internal_datafusion_err!("a file without its values"));
    value.map_err(plain)
}

/// Whether a record is marked as deleted, by its line.
fn marked(deleted: &DeletedRows, line: i64) -> bool {
    let Ok(line) = u64::try_from(line) else { return false };
    let at = deleted.runs.partition_point(|run| run.end <= line);
    deleted.runs.get(at).is_some_and(|run| run.contains(&line))
}

fn odd(e: arrow::error::ArrowError) -> Error {
    Error::bug(format!("rows of a text file: {e}"))
}

fn plain(e: DataFusionError) -> Error {
    Error::bug(format!("rows of a text file: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_marked_or_not() {
        let deleted = DeletedRows { rows: u64::MAX, runs: vec![0..1, 3..5] };
        let found: Vec<i64> = (-1..7).filter(|line| marked(&deleted, *line)).collect();
        assert_eq!(found, [0, 3, 4]);
    }
}
