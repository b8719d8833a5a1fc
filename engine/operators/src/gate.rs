//! The gate of an inspected scan: keeps rows aside that must not be used, and lists every one of them.
//!
//! It stands directly above the scan, which yields the file's path and the row's number beside the columns of the source. A
//! row without event time, or with one beyond the limit, is bad; one whose window was emitted before is late. Such rows go
//! to [`watershed_core::scan::Rejects`]; the rest passes with the extra columns dropped, so that nothing above knows of it.
//!
//! Windows are ordered, so a row's windows end at or before the watermark exactly when the row is earlier than a time that
//! follows from the watermark: one comparison a row, whatever the form of the window. Where windows overlap a row may have
//! missed some of its windows only: it is listed with those, and passes for the others.
//!
//! Invariant: a row passes or is handed over, and only a row that has missed some of its windows does both; a batch without
//! rejected rows is not copied.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::array::{TimestampMicrosecondArray, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;
use watershed_core::EventTime;
use watershed_core::scan::{Inspect, MESSAGE_COLUMNS, REJECTED_COLUMNS, Reason};
use watershed_core::time::Interval;

use crate::window_form::WindowForm;

/// Which columns of an inspected scan are what; settled once a source and job.
#[derive(Debug)]
pub struct GateColumns {
    /// The source's name, written to `_source`.
    pub source: String,
    /// Columns that pass, by their index in the scan's output, in order.
    pub passed: Vec<usize>,
    /// The event time, a timestamp of any unit.
    pub time: usize,
    /// The file's path, text.
    pub file: usize,
    /// The values of the file's partition, text.
    pub partition: usize,
    /// The row's number in its file, from 0.
    pub row: usize,
    /// The table of rejected rows: [`REJECTED_COLUMNS`], then columns of sources.
    pub rejected: SchemaRef,
    /// For each column of `rejected` after the first ones, where the scan has it; another source's is NULL.
    pub kept: Vec<Option<usize>>,
}

/// By which times rows are judged in one step.
#[derive(Clone, Debug)]
pub struct GateLimits {
    pub inspect: Inspect,
    /// The windows that rows can be late for. `None`: no row is late.
    pub windows: Option<WindowForm>,
    /// Rows before this are none of the view's and pass: the fragment's filter drops them.
    pub from: Option<EventTime>,
}

/// The first columns of a table of rejected rows, typed.
pub fn rejected_fields() -> Vec<Field> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let types = [
        DataType::Utf8,
        DataType::Utf8,
        DataType::Int64,
        time.clone(),
        time.clone(),
        DataType::Utf8,
        time.clone(),
        time,
        DataType::Utf8,
    ];
    REJECTED_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true)).collect()
}

/// The last columns of a table of rejected rows that may hold malformed messages or records, typed.
pub fn message_fields() -> Vec<Field> {
    let types = [DataType::Binary, DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))];
    MESSAGE_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true)).collect()
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct GateExec {
    input: Arc<dyn ExecutionPlan>,
    columns: Arc<GateColumns>,
    limits: GateLimits,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GateExec {
    pub fn try_new(input: Arc<dyn ExecutionPlan>, columns: Arc<GateColumns>, limits: GateLimits) -> Result<Self> {
        let schema = Arc::new(input.schema().project(&columns.passed)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(GateExec { input, columns, limits, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for GateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GateExec: source={}, watermark={}", self.columns.source, self.limits.inspect.watermark)
    }
}

impl ExecutionPlan for GateExec {
    fn name(&self) -> &str {
        "GateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(input), None) => {
                Ok(Arc::new(GateExec::try_new(input, Arc::clone(&self.columns), self.limits.clone())?))
            }
            _ => internal_err!("a gate has one input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let schema = self.schema();
        let gate = self.clone();
        let counts = GateCounts::new(&self.metrics, partition);
        let passed = input.filter_map(move |batch| {
            let passed = batch.and_then(|batch| gate.pass(&batch, &counts)).transpose();
            std::future::ready(passed)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, passed)))
    }
}

impl GateExec {
    /// What passes of a batch, if anything does.
    fn pass(&self, batch: &RecordBatch, counts: &GateCounts) -> Result<Option<RecordBatch>> {
        let times = micros(batch.column(self.columns.time))?;
        let verdicts = self.judge(&times);
        if verdicts.iter().all(|verdict| *verdict == Verdict::Passes) {
            return Ok(Some(self.project(batch)?));
        }
        counts.add(&verdicts);
        for reason in [Reason::NoTime, Reason::Ahead, Reason::Late] {
            let mask: BooleanArray = verdicts.iter().map(|v| Some(v.reason() == Some(reason))).collect();
            if mask.true_count() > 0 {
                let rows = filter_record_batch(batch, &mask)?;
                let rows = self.rejected(&rows, reason)?;
                let taken = self.limits.inspect.rejects.take(reason, rows);
                taken.map_err(|e| DataFusionError::External(Box::new(e)))?;
            }
        }
        let mask: BooleanArray = verdicts.iter().map(|v| Some(v.passes())).collect();
        if mask.true_count() == 0 {
            return Ok(None);
        }
        Ok(Some(filter_record_batch(&self.project(batch)?, &mask)?))
    }

    fn judge(&self, times: &Int64Array) -> Vec<Verdict> {
        let GateLimits { inspect, windows, from } = &self.limits;
        let missed = windows.map_or(EventTime::MIN, |form| form.missed_before(inspect.watermark));
        let lost = windows.map_or(EventTime::MIN, |form| form.lost_before(inspect.watermark));
        let judge = |time: Option<i64>| {
            let Some(time) = time.map(EventTime) else { return Verdict::Rejected(Reason::NoTime) };
            if from.is_some_and(|from| time < from) {
                Verdict::Passes
            } else if time > inspect.ahead {
                Verdict::Rejected(Reason::Ahead)
            } else if time >= missed {
                Verdict::Passes
            } else if time < lost {
                Verdict::Rejected(Reason::Late)
            } else if windows.and_then(|form| form.missed(time, inspect.watermark, *from)).is_some() {
                Verdict::LateForSome
            } else {
                Verdict::Passes
            }
        };
        times.iter().map(judge).collect()
    }

    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.passed.iter().map(|i| Arc::clone(batch.column(*i))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema(), columns, &options)?)
    }

    /// Rejected rows in the form in which they are kept.
    fn rejected(&self, rows: &RecordBatch, reason: Reason) -> Result<RecordBatch> {
        let GateColumns { source, time, file, partition, row, rejected, kept, .. } = self.columns.as_ref();
        let n = rows.num_rows();
        let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) };
        let watermark = match self.limits.inspect.watermark {
            EventTime::MIN | EventTime::MAX => None,
            EventTime(at) => Some(at),
        };
        let watermark = TimestampMicrosecondArray::from_iter(std::iter::repeat_n(watermark, n)).with_timezone("UTC");
        let event_times = micros(rows.column(*time))?;
        let (mut missed_from, mut missed_until) = (vec![], vec![]);
        for time in &event_times {
            let missed = time.and_then(|t| self.missed(EventTime(t), reason));
            missed_from.push(missed.map(|m| m.start.0));
            missed_until.push(missed.map(|m| m.end.0));
        }
        let utc = |times: TimestampMicrosecondArray| -> ArrayRef { Arc::new(times.with_timezone("UTC")) };
        let times = TimestampMicrosecondArray::from_iter(event_times.iter()).with_timezone("UTC");
        let mut columns: Vec<ArrayRef> = vec![
            text(source),
            cast(rows.column(*file), &DataType::Utf8)?,
            cast(rows.column(*row), &DataType::Int64)?,
            Arc::new(times),
            Arc::new(watermark),
            text(reason.name()),
            utc(missed_from.into()),
            utc(missed_until.into()),
            cast(rows.column(*partition), &DataType::Utf8)?,
        ];
        for (field, from) in rejected.fields()[REJECTED_COLUMNS.len()..].iter().zip(kept) {
            columns.push(match from {
                // Text may be read as a dictionary.
                Some(i) => cast(rows.column(*i), field.data_type())?,
                None => new_null_array(field.data_type(), n),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(rejected), columns)?)
    }
}

impl GateExec {
    /// From the first window that a late row has missed to the end of the last.
    fn missed(&self, time: EventTime, reason: Reason) -> Option<Interval> {
        let form = self.limits.windows.filter(|_| reason == Reason::Late)?;
        form.missed(time, self.limits.inspect.watermark, self.limits.from)
    }
}

/// Names of the gate's metrics: rows that did not pass, and rows that were listed and passed for their other windows.
pub const LATE: &str = "late_rows";
pub const BAD: &str = "bad_rows";
pub const PARTLY_LATE: &str = "partly_late_rows";

struct GateCounts {
    late: Count,
    bad: Count,
    partly_late: Count,
}

impl GateCounts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name| MetricBuilder::new(metrics).counter(name, partition);
        GateCounts { late: count(LATE), bad: count(BAD), partly_late: count(PARTLY_LATE) }
    }

    fn add(&self, verdicts: &[Verdict]) {
        let of = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|v| wanted(v)).count();
        self.late.add(of(|v| matches!(v, Verdict::Rejected(Reason::Late))));
        self.bad.add(of(|v| matches!(v, Verdict::Rejected(Reason::NoTime | Reason::Ahead))));
        self.partly_late.add(of(|v| matches!(v, Verdict::LateForSome)));
    }
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Passes,
    Rejected(Reason),
    /// It is listed, and passes for its other windows.
    LateForSome,
}

impl Verdict {
    fn passes(self) -> bool {
        !matches!(self, Verdict::Rejected(_))
    }

    fn reason(self) -> Option<Reason> {
        match self {
            Verdict::Passes => None,
            Verdict::Rejected(reason) => Some(reason),
            Verdict::LateForSome => Some(Reason::Late),
        }
    }
}

/// Event times as microseconds, rounded down. Times that do not fit become the nearest that do.
fn micros(times: &ArrayRef) -> Result<Int64Array> {
    let DataType::Timestamp(unit, _) = times.data_type() else {
        return Err(exec_datafusion_err!("an event time is a timestamp, not {}", times.data_type()));
    };
    Ok(match unit {
        TimeUnit::Second => times.as_primitive::<TimestampSecondType>().unary(|t| t.saturating_mul(1_000_000)),
        TimeUnit::Millisecond => times.as_primitive::<TimestampMillisecondType>().unary(|t| t.saturating_mul(1_000)),
        TimeUnit::Microsecond => times.as_primitive::<TimestampMicrosecondType>().unary(|t| t),
        TimeUnit::Nanosecond => times.as_primitive::<TimestampNanosecondType>().unary(|t| t.div_euclid(1_000)),
    })
}

#[cfg(test)]
mod tests;
