//! The gate over small batches: who passes, who is listed, and how.

use std::sync::Mutex;

use arrow::array::TimestampNanosecondArray;
use arrow::datatypes::Schema;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::collect;
use watershed_core::scan::Rejects;
use watershed_core::time::Span;

use super::*;

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(Reason, RecordBatch)>>);

impl Rejects for Kept {
    fn take(&self, reason: Reason, rows: RecordBatch) -> watershed_core::Result<()> {
        self.0.lock().unwrap().push((reason, rows));
        Ok(())
    }
}

fn scan_batch(times: ArrayRef) -> RecordBatch {
    let n = times.len() as i64;
    RecordBatch::try_from_iter([
        ("v", Arc::new(Int64Array::from_iter_values(0..n)) as ArrayRef),
        ("ts", times),
        ("__file", Arc::new(StringArray::from_iter_values((0..n).map(|_| "a.parquet")))),
        ("__partition", Arc::new(StringArray::from_iter_values((0..n).map(|_| "day=1")))),
        ("__row", Arc::new(Int64Array::from_iter_values(100..100 + n))),
    ])
    .unwrap()
}

const TWENTIES: WindowForm = WindowForm::Fixed { width: Span(20), origin: EventTime(0) };

/// Runs one batch through a gate whose watermark is 50, with windows of 20 from 0, and which takes no time beyond 90.
async fn run(times: ArrayRef, limits: impl Fn(&mut GateLimits)) -> (Vec<i64>, Vec<(Reason, RecordBatch)>) {
    let batch = scan_batch(times);
    let mut rejected = rejected_fields();
    rejected.push(Field::new("other", DataType::Utf8, true));
    rejected.push(Field::new("v", DataType::Int64, true));
    let columns = GateColumns {
        source: "s".into(),
        passed: vec![0, 1],
        time: 1,
        file: 2,
        partition: 3,
        row: 4,
        rejected: Arc::new(Schema::new(rejected)),
        kept: vec![None, Some(0)],
    };
    let kept = Arc::new(Kept::default());
    let rejects: Arc<dyn Rejects> = Arc::clone(&kept) as _;
    let inspect = Inspect { watermark: EventTime(50), ahead: EventTime(90), rejects };
    let mut gate_limits = GateLimits { inspect, windows: Some(TWENTIES), from: None };
    limits(&mut gate_limits);
    let input = MemorySourceConfig::try_new_exec(&[vec![batch.clone()]], batch.schema(), None).unwrap();
    let gate = GateExec::try_new(input, Arc::new(columns), gate_limits).unwrap();
    let passed = collect(Arc::new(gate), Arc::new(TaskContext::default())).await.unwrap();
    let mut values = vec![];
    for batch in &passed {
        assert_eq!(batch.num_columns(), 2);
        values.extend(batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().iter().copied());
    }
    (values, std::mem::take(&mut *kept.0.lock().unwrap()))
}

fn times() -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![Some(39), Some(40), None, Some(90), Some(91), Some(-1)]))
}

#[tokio::test]
async fn rows_pass_or_are_listed_with_their_reason() {
    let (passed, rejected) = run(times(), |_| {}).await;
    assert_eq!(passed, vec![1, 3]);
    let listed: Vec<_> = rejected.iter().map(|(reason, rows)| (*reason, rows.num_rows())).collect();
    assert_eq!(listed, vec![(Reason::NoTime, 1), (Reason::Ahead, 1), (Reason::Late, 2)]);
    let shown: Vec<usize> = (0..rejected[2].1.num_columns()).filter(|i| ![6, 7].contains(i)).collect();
    let late = rejected[2].1.project(&shown).unwrap();
    let printed = arrow::util::pretty::pretty_format_batches(&[late]).unwrap().to_string();
    let expected = "\
+---------+-----------+------+-----------------------------+-----------------------------+---------+------------+-------+---+
| _source | _file     | _row | _event_time                 | _watermark                  | _reason | _partition | other | v |
+---------+-----------+------+-----------------------------+-----------------------------+---------+------------+-------+---+
| s       | a.parquet | 100  | 1970-01-01T00:00:00.000039Z | 1970-01-01T00:00:00.000050Z | late    | day=1      |       | 0 |
| s       | a.parquet | 105  | 1969-12-31T23:59:59.999999Z | 1970-01-01T00:00:00.000050Z | late    | day=1      |       | 5 |
+---------+-----------+------+-----------------------------+-----------------------------+---------+------------+-------+---+";
    assert_eq!(printed, expected);
}

#[tokio::test]
async fn a_stateless_job_has_no_late_rows() {
    let (passed, rejected) = run(times(), |limits| limits.windows = None).await;
    assert_eq!(passed, vec![0, 1, 3, 5]);
    assert_eq!(rejected.len(), 2);
}

#[tokio::test]
async fn rows_before_the_view_begins_are_not_late() {
    let (passed, rejected) = run(times(), |limits| limits.from = Some(EventTime(39))).await;
    assert_eq!(passed, vec![1, 3, 5]);
    assert_eq!(rejected.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 3);
}

#[tokio::test]
async fn nanoseconds_are_rounded_down() {
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![39_999, 40_000, 90_999, 91_000, -1]));
    let (passed, rejected) = run(times, |_| {}).await;
    assert_eq!(passed, vec![1, 2]);
    let reasons: Vec<_> = rejected.iter().map(|(reason, rows)| (*reason, rows.num_rows())).collect();
    assert_eq!(reasons, vec![(Reason::Ahead, 1), (Reason::Late, 2)]);
}

#[tokio::test]
async fn nothing_passes_when_all_is_late() {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]));
    let (passed, rejected) = run(times, |_| {}).await;
    assert!(passed.is_empty());
    assert_eq!(rejected[0].1.num_rows(), 3);
}

#[tokio::test]
async fn before_the_first_watermark_none_is_written() {
    let (_, rejected) = run(times(), |limits| limits.inspect.watermark = EventTime::MIN).await;
    assert_eq!(rejected[0].1.column(4).null_count(), 1);
}

fn times_of(batch: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    batch.column(column).as_primitive::<TimestampMicrosecondType>().iter().collect()
}

/// Of windows of 60, one every 20, and a watermark of 50: a row at 39 has missed [-40, 20) and [-20, 40) and is used in [0, 60).
#[tokio::test]
async fn a_row_that_missed_some_of_its_windows_is_listed_and_passes() {
    let hop = WindowForm::Hop { slide: Span(20), size: Span(60), origin: EventTime(0) };
    let (passed, rejected) = run(times(), |limits| limits.windows = Some(hop)).await;
    assert_eq!(passed, vec![0, 1, 3]);
    let late = &rejected[2].1;
    assert_eq!(times_of(late, 3), [Some(39), Some(-1)]);
    assert_eq!(times_of(late, 6), [Some(-20), Some(-60)], "from the start of the first window missed");
    assert_eq!(times_of(late, 7), [Some(40), Some(40)], "to the end of the last");
    assert!(times_of(&rejected[0].1, 6).iter().all(Option::is_none), "a bad row has no windows");
}
