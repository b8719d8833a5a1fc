//! Binding: a fragment is planned once and run over what each step gives it; inspected scans list what they reject.

use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use watershed_core::scan::{Inspect, REJECTED_COLUMNS, Reason, Rejects, ScanFile, ScanInput};
use watershed_core::time::{EventTime, Span};

use super::fixture::{ROWS_A_DAY, fixture, fixture_with, lines, midnight, rows};

const HOURLY: &str = "SELECT window_start, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '2 hours') WHERE delay > 0 GROUP BY window_start";

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<(Reason, RecordBatch)>>);

impl Rejects for Kept {
    fn take(&self, reason: Reason, rows: RecordBatch) -> watershed_core::Result<()> {
        self.0.lock().unwrap().push((reason, rows));
        Ok(())
    }
}

fn input(files: &[ScanFile]) -> ScanInput {
    ScanInput { files: files.to_vec(), log: vec![], inspect: None, rejects: None }
}

#[tokio::test]
async fn each_step_reads_its_own_files() {
    let f = fixture();
    let lowered = f.lower("SELECT date FROM flights").await.unwrap();
    for files in [&f.files[..1], &f.files[1..], &f.files[..0], &f.files[..1]] {
        let parts = f.run(lowered.fragment.bind(&[input(files)]).unwrap()).await;
        assert_eq!(rows(&parts), files.len() * ROWS_A_DAY as usize);
    }
    assert!(lowered.fragment.bind(&[]).is_err());
}

#[tokio::test]
async fn a_file_in_ranges_is_read_once() {
    let f = fixture();
    let lowered = f.lower("SELECT date FROM flights").await.unwrap();
    let size = f.files[0].file.size;
    let cuts = [0, size / 3, size / 2, size];
    let ranges = cuts.windows(2).map(|w| ScanFile { range: Some((w[0], w[1])), ..f.files[0].clone() });
    let parts = f.run(lowered.fragment.bind(&[input(&ranges.collect::<Vec<_>>())]).unwrap()).await;
    let mut times: Vec<i64> = vec![];
    for batch in parts.iter().flatten() {
        times.extend(batch.column(0).as_primitive::<TimestampMicrosecondType>().values());
    }
    times.sort();
    let expected: Vec<_> = (0..ROWS_A_DAY).map(|h| midnight(0).0 + h * Span::HOUR.0).collect();
    assert_eq!(times, expected);
}

#[tokio::test]
async fn partition_values_are_columns_and_prune_files() {
    let f = fixture();
    let lowered =
        f.lower("SELECT day, count(*) AS n, date_trunc('day', date) AS d FROM flights GROUP BY day, d").await.unwrap();
    let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
    assert!(rows(&parts) >= 3);

    let lowered = f.lower("SELECT delay FROM flights WHERE day = DATE '2024-01-02' AND delay > 100").await.unwrap();
    // A file that is not there would be an error, were it read.
    let mut files = f.files.clone();
    files[0].file.path = "gone.parquet".into();
    let parts = f.run(lowered.fragment.bind(&[input(&files)]).unwrap()).await;
    assert_eq!(rows(&parts), 0);
    files[1].file.values = vec![Some("tuesday".into())];
    let message = lowered.fragment.bind(&[input(&files)]).unwrap_err().to_string();
    assert!(message.contains("day=1.parquet") && message.contains("tuesday is not of type Date32"), "{message}");
}

#[tokio::test]
async fn an_inspected_scan_lists_what_it_rejects() {
    let f = fixture();
    let lowered = f.lower(HOURLY).await.unwrap();
    let names: Vec<_> = lowered.rejected.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names[..9], REJECTED_COLUMNS);
    assert_eq!(names[9..], ["date", "delay"]);

    let kept = Arc::new(Kept::default());
    let rejects: Arc<dyn Rejects> = Arc::clone(&kept) as _;
    // Within the window of 02:00 to 04:00 of the second day.
    let watermark = EventTime(midnight(1).0 + 3 * Span::HOUR.0);
    let ahead = EventTime(midnight(2).0 + 20 * Span::HOUR.0);
    let inspect = Some(Inspect { watermark, ahead, rejects });
    let inputs = [ScanInput { files: f.files.clone(), log: vec![], inspect, rejects: None }];
    let parts = f.run(lowered.fragment.bind(&inputs).unwrap()).await;
    for batch in parts.iter().flatten() {
        assert_eq!(batch.schema(), lowered.fragment.schema());
    }

    let kept = kept.0.lock().unwrap();
    let count = |reason| kept.iter().filter(|(r, _)| *r == reason).map(|(_, rows)| rows.num_rows()).sum::<usize>();
    // Row groups of five hours; the first of each day has a delay above zero at 04:00, so none is pruned.
    assert_eq!(count(Reason::Late), 24 + 2);
    assert_eq!(count(Reason::Ahead), 3);
    assert_eq!(count(Reason::NoTime), 0);
    for (reason, rows) in kept.iter() {
        assert_eq!(rows.schema(), lowered.rejected);
        let (files, numbers) = (rows.column(1).as_string::<i32>(), rows.column(2).as_primitive::<Int64Type>());
        let times = rows.column(3).as_primitive::<TimestampMicrosecondType>();
        for i in 0..rows.num_rows() {
            let day = (times.value(i) - midnight(0).0) / Span::DAY.0;
            assert!(files.value(i).ends_with(&format!("day={day}.parquet")), "{reason:?} {}", files.value(i));
            assert_eq!(midnight(day).0 + numbers.value(i) * Span::HOUR.0, times.value(i));
        }
    }
}

#[tokio::test]
async fn row_numbers_are_those_of_the_file_in_ranges_too() {
    let f = fixture();
    let lowered = f.lower("SELECT origin FROM flights").await.unwrap();
    let kept = Arc::new(Kept::default());
    let rejects: Arc<dyn Rejects> = Arc::clone(&kept) as _;
    let inspect = Some(Inspect { watermark: EventTime::MIN, ahead: midnight(0), rejects });
    let size = f.files[0].file.size;
    let ranges = [(0, size / 2), (size / 2, size)];
    let files = ranges.map(|range| ScanFile { range: Some(range), ..f.files[0].clone() }).to_vec();
    let parts =
        f.run(lowered.fragment.bind(&[ScanInput { files, log: vec![], inspect, rejects: None }]).unwrap()).await;
    // Only midnight itself is not ahead; the event time is read though the query does not name it, and does not come out.
    assert_eq!(rows(&parts), 1);
    assert_eq!(parts.iter().flatten().next().unwrap().num_columns(), 1);
    let mut numbers: Vec<i64> = vec![];
    for (_, rows) in kept.0.lock().unwrap().iter() {
        numbers.extend(rows.column(2).as_primitive::<Int64Type>().values());
    }
    numbers.sort();
    assert_eq!(numbers, (1..ROWS_A_DAY).collect::<Vec<_>>());
}

#[tokio::test]
async fn rows_before_the_views_beginning_are_not_late() {
    let f = fixture();
    let lowered = f.lower_from(HOURLY, Some(midnight(1))).await.unwrap();
    let kept = Arc::new(Kept::default());
    let rejects: Arc<dyn Rejects> = Arc::clone(&kept) as _;
    let inspect = Some(Inspect { watermark: midnight(2), ahead: EventTime::MAX, rejects });
    f.run(lowered.fragment.bind(&[ScanInput { files: f.files.clone(), log: vec![], inspect, rejects: None }]).unwrap())
        .await;
    let kept = kept.0.lock().unwrap();
    assert_eq!(kept.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), ROWS_A_DAY as usize);
}

#[tokio::test]
async fn a_source_that_is_read_twice_has_two_holes() {
    let f = fixture_with(1);
    let sql = "SELECT origin, 1 AS k FROM flights UNION ALL SELECT origin, 2 FROM arrivals UNION ALL SELECT origin, 3 FROM flights";
    let lowered = f.lower(sql).await.unwrap();
    assert_eq!(lowered.inputs, ["flights", "arrivals", "flights"]);
    let inputs = [input(&f.files[..1]), input(&[]), input(&f.files[1..])];
    let parts = f.run(lowered.fragment.bind(&inputs).unwrap()).await;
    let all: Vec<_> = parts.into_iter().flatten().collect();
    let count = |k: i64| lines(&all).iter().filter(|l| l.ends_with(&format!("| {k} |"))).count();
    assert_eq!([count(1), count(2), count(3)], [24, 0, 48]);
}

#[tokio::test]
async fn the_fragment_is_one_pipeline_a_partition() {
    let f = fixture();
    let lowered = f.lower(HOURLY).await.unwrap();
    let plan = lowered.fragment.display();
    let nodes: Vec<_> = plan.lines().map(|l| l.trim().split([':', ' ']).next().unwrap_or_default()).collect();
    assert_eq!(
        nodes,
        ["RepartitionExec", "WindowPartialExec", "ProjectionExec", "FilterExec", "SourceScanExec"],
        "{plan}"
    );
    assert!(plan.contains("predicate=delay"), "{plan}");
}
