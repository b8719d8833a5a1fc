//! Files that are not quite the table: rows marked as deleted, other names, columns added and widened since.

#![allow(clippy::single_range_in_vec_init)] // Deleted rows are runs, and one run is a usual case.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{
    ArrayRef, AsArray, Date32Array, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::history::{DataFile, DeletedRows, FIELD_ID, Layout};
use watershed_core::scan::{Inspect, Reason, Rejects, ScanFile, ScanInput};
use watershed_core::time::{EventTime, Span};
use watershed_plan::{Planner, SourceTable};

use super::fixture::{Fixture, ROWS_A_DAY, fixture, lines, midnight, rows};

#[derive(Debug, Default)]
struct Numbers(Mutex<Vec<i64>>);

impl Rejects for Numbers {
    fn take(&self, _: Reason, rows: RecordBatch) -> watershed_core::Result<()> {
        self.0.lock().unwrap().extend(rows.column(2).as_primitive::<Int64Type>().values());
        Ok(())
    }
}

fn marked(file: &ScanFile, rows: u64, runs: &[std::ops::Range<u64>]) -> ScanFile {
    ScanFile { deleted: Some(Arc::new(DeletedRows { rows, runs: runs.to_vec() })), ..file.clone() }
}

/// The file in pieces, which share its marks.
fn pieces(file: &ScanFile, cuts: &[u64]) -> Vec<ScanFile> {
    cuts.windows(2).map(|w| ScanFile { range: Some((w[0], w[1])), ..file.clone() }).collect()
}

#[tokio::test]
async fn marked_rows_are_passed_over_and_the_others_keep_their_numbers() {
    let f = fixture();
    let lowered = f.lower("SELECT date FROM flights").await.unwrap();
    let size = f.files[0].file.size;
    // Row groups of five: the first row, three across two groups, a whole group, and the end.
    let runs = [0..1, 4..7, 10..15, 22..24];
    let left: Vec<i64> = (0..ROWS_A_DAY).filter(|row| !runs.iter().any(|r| r.contains(&(*row as u64)))).collect();
    let file = marked(&f.files[0], ROWS_A_DAY as u64, &runs);
    for cuts in [vec![0, size], vec![0, size / 3, size / 2, size]] {
        let mut files = pieces(&file, &cuts);
        files.push(f.files[1].clone());
        let parts = f
            .run(
                lowered
                    .fragment
                    .bind(&[ScanInput { files: files.clone(), log: vec![], inspect: None, rejects: None }])
                    .unwrap(),
            )
            .await;
        let mut times: Vec<i64> = vec![];
        for batch in parts.iter().flatten() {
            times.extend(batch.column(0).as_primitive::<TimestampMicrosecondType>().values());
        }
        times.sort();
        times.truncate(left.len());
        assert_eq!(times, left.iter().map(|h| midnight(0).0 + h * Span::HOUR.0).collect::<Vec<_>>());
        assert_eq!(rows(&parts), left.len() + ROWS_A_DAY as usize);

        files.pop();
        let kept = Arc::new(Numbers::default());
        let inspect = Inspect { watermark: EventTime::MIN, ahead: EventTime(0), rejects: Arc::clone(&kept) as _ };
        let parts = f
            .run(
                lowered
                    .fragment
                    .bind(&[ScanInput { files, log: vec![], inspect: Some(inspect), rejects: None }])
                    .unwrap(),
            )
            .await;
        assert_eq!(rows(&parts), 0);
        let mut numbers = kept.0.lock().unwrap().clone();
        numbers.sort();
        assert_eq!(numbers, left);
    }
}

#[tokio::test]
async fn marks_go_with_predicates_and_with_every_row_gone() {
    let f = fixture();
    // Delays are the hour less three; every fifth is NULL.
    let lowered = f.lower("SELECT delay FROM flights WHERE delay >= 17").await.unwrap();
    let of = |runs: &[std::ops::Range<u64>]| marked(&f.files[0], ROWS_A_DAY as u64, runs);
    for (file, expected) in [(of(&[21..22]), vec!["| 19 |", "| 20 |"]), (of(&[0..24]), vec![])] {
        let input = ScanInput { files: vec![file], log: vec![], inspect: None, rejects: None };
        let parts = f.run(lowered.fragment.bind(&[input]).unwrap()).await;
        assert_eq!(lines(&parts.concat()), expected);
    }
}

#[tokio::test]
async fn marks_of_another_file_are_an_error() {
    let f = fixture();
    let lowered = f.lower("SELECT date FROM flights").await.unwrap();
    let file = marked(&f.files[0], ROWS_A_DAY as u64 - 1, &[2..3]);
    let plan =
        lowered.fragment.bind(&[ScanInput { files: vec![file], log: vec![], inspect: None, rejects: None }]).unwrap();
    let error = datafusion::physical_plan::collect(plan, f.planner.task_context()).await.unwrap_err().to_string();
    assert!(error.contains("24 rows") && error.contains("23 rows"), "{error}");
}

fn write(folder: &Path, name: &str, columns: Vec<(Field, ArrayRef)>) -> ScanFile {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let path = folder.join(name);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let path = object_store::path::Path::from_filesystem_path(&path).unwrap();
    let file = DataFile { values: vec![Some("p".into())], ..DataFile::new(path, size) };
    ScanFile { file, range: None, deleted: None }
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn field(name: &str, data_type: DataType, id: Option<i32>) -> Field {
    let metadata: HashMap<_, _> = id.map(|id| (FIELD_ID.to_string(), id.to_string())).into_iter().collect();
    Field::new(name, data_type, true).with_metadata(metadata)
}

/// Four rows, a minute apart; numbers from `first`.
fn times() -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values((0..4).map(|i| i * Span::MINUTE.0)))
}

fn numbers(first: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(first..first + 4))
}

fn table(folder: tempfile::TempDir, layout: Layout, files: Vec<ScanFile>) -> Fixture {
    let mut planner = Planner::new(Arc::new(RuntimeEnv::default()), 1).unwrap();
    let source =
        SourceTable { name: "t".into(), layout: layout.clone(), time_column: "ts".into(), delay: Span::MINUTE };
    planner.add_source(source).unwrap();
    planner.add_table("t", layout, files.clone()).unwrap();
    Fixture { planner, files, folder }
}

fn layout(folder: &Path, columns: Vec<Field>, stored: Option<Vec<Field>>) -> Layout {
    Layout {
        location: folder.display().to_string(),
        store: "file:///".into(),
        file_schema: Arc::new(Schema::new(columns)),
        partition_columns: vec![Arc::new(Field::new("b", DataType::Utf8, true))],
        time_partition: None,
        stored: stored.map(|fields| Arc::new(Schema::new(fields)) as SchemaRef),
        inferred: false,
        text: None,
    }
}

/// The rows of a query, streamed and as batch, and how many rows the scan let through.
async fn both(f: &Fixture, sql: &str) -> (Vec<String>, usize) {
    let lowered = f.lower(sql).await.unwrap();
    let plan = lowered.fragment.bind(&f.everything(&lowered)).unwrap();
    let found = lines(&f.run(Arc::clone(&plan)).await.concat());
    assert_eq!(found, f.batch(sql).await, "{sql}");
    (found, scanned(&plan))
}

fn scanned(plan: &Arc<dyn ExecutionPlan>) -> usize {
    match plan.children().first() {
        Some(child) => scanned(child),
        None => plan.metrics().unwrap().output_rows().unwrap(),
    }
}

#[tokio::test]
async fn columns_are_read_by_their_stored_names() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| DataType::Struct(Fields::from(vec![Field::new(name, DataType::Utf8, true)]));
    let DataType::Struct(inner) = place("col-5") else { unreachable!() };
    let towns: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
    let towns: ArrayRef = Arc::new(StructArray::new(inner, vec![towns], None));
    // `a` and `b` are stored under each other's names, `b` as a partition column.
    let columns = vec![
        (field("col-1", time(), None), times()),
        (field("b", DataType::Int64, None), numbers(10)),
        (field("col-4", place("col-5"), None), towns),
    ];
    let files = vec![write(folder.path(), "x.parquet", columns)];
    let columns = ["ts", "a", "place"].into_iter().zip([time(), DataType::Int64, place("town")]);
    let comment: HashMap<_, _> = [("comment".to_string(), "what it means".to_string())].into();
    let columns =
        columns.map(|(name, data_type)| field(name, data_type, None).with_metadata(comment.clone())).collect();
    let stored = [("col-1", time()), ("b", DataType::Int64), ("col-4", place("col-5")), ("a", DataType::Utf8)];
    let stored = stored.into_iter().map(|(name, data_type)| field(name, data_type, None)).collect();
    let layout = layout(folder.path(), columns, Some(stored));
    let f = table(folder, layout, files);
    assert_eq!(
        both(&f, "SELECT a, b, place['town'] AS town FROM t WHERE b = 'p' AND place['town'] <> 'a'").await.0,
        ["| 11 | p | b |", "| 12 | p | c |", "| 13 | p | d |"]
    );
    let place = both(&f, "SELECT place FROM t WHERE a = 10").await.0;
    assert_eq!(place, ["| {town: a} |"]);
    // Row groups of two: the predicate prunes one of them.
    assert_eq!(both(&f, "SELECT a FROM t WHERE a >= 12").await, (vec!["| 12 |".into(), "| 13 |".into()], 2));
    assert_eq!(both(&f, "SELECT a FROM t WHERE b = 'q'").await, (vec![], 0));
}

#[tokio::test]
async fn files_are_matched_by_number_where_they_have_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, names: [&str; 3], ids: [Option<i32>; 3]| {
        let columns = vec![
            (field(names[0], time(), ids[0]), times()),
            (field(names[1], DataType::Int64, ids[1]), numbers(10)),
            (field(names[2], DataType::Int64, ids[2]), numbers(20)),
        ];
        write(folder.path(), name, columns)
    };
    let numbered = [Some(1), Some(2), Some(3)];
    let files = vec![
        of("own.parquet", ["col-1", "col-2", "col-3"], numbered),
        of("swapped.parquet", ["x", "col-3", "col-2"], numbered),
        of("plain.parquet", ["col-1", "col-2", "col-3"], [None; 3]),
        of("without.parquet", ["col-1", "col-2", "col-3"], [Some(1), Some(7), Some(3)]),
    ];
    let columns = vec![field("ts", time(), None), field("a", DataType::Int64, None), field("c", DataType::Int64, None)];
    let stored = ["col-1", "col-2", "col-3", "col-4"].into_iter().zip([
        time(),
        DataType::Int64,
        DataType::Int64,
        DataType::Utf8,
    ]);
    let stored = stored.enumerate().map(|(i, (name, data_type))| field(name, data_type, Some(i as i32 + 1))).collect();
    let layout = layout(folder.path(), columns, Some(stored));
    let f = table(folder, layout, files);
    let three = ["| 13 | 23 |"; 3];
    let lowered = f.lower("SELECT a FROM t").await.unwrap();
    let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
    assert!(parts.iter().flatten().all(|batch| batch.schema() == lowered.fragment.schema()));
    // Of three files a row group each, and the fourth whole: nothing tells what a column holds that it does not have.
    assert_eq!(both(&f, "SELECT a, c FROM t WHERE a >= 13").await, (three.iter().map(|s| s.to_string()).collect(), 10));
    let (found, _) = both(&f, "SELECT a, c FROM t WHERE c >= 23 AND ts IS NOT NULL").await;
    assert_eq!(found, ["| 13 | 23 |", "| 13 | 23 |", "| 13 | 23 |", "| | 23 |"]);
}

#[tokio::test]
async fn columns_may_have_been_added_and_widened_since() {
    let folder = tempfile::tempdir().unwrap();
    let old = vec![
        (field("ts", DataType::Date32, None), Arc::new(Date32Array::from(vec![0, 1, 2, 3])) as ArrayRef),
        (field("n", DataType::Int32, None), Arc::new(Int32Array::from(vec![1, 2, 3, 4])) as ArrayRef),
        (field("f", DataType::Float32, None), Arc::new(Float32Array::from(vec![0.5; 4])) as ArrayRef),
    ];
    let new = vec![
        (field("n", DataType::Int64, None), numbers(5_000_000_000)),
        (field("added", DataType::Int64, None), numbers(1)),
        (field("ts", time(), None), times()),
    ];
    let files = vec![write(folder.path(), "old.parquet", old), write(folder.path(), "new.parquet", new)];
    let columns = [("ts", time()), ("n", DataType::Int64), ("f", DataType::Float64), ("added", DataType::Int64)];
    let columns = columns.into_iter().map(|(name, data_type)| field(name, data_type, None)).collect();
    let layout = layout(folder.path(), columns, None);
    let f = table(folder, layout, files);
    assert_eq!(
        both(&f, "SELECT ts, n, f, added FROM t WHERE n IN (4, 5000000003)").await.0,
        ["| 1970-01-01T00:03:00 | 5000000003 | | 4 |", "| 1970-01-04T00:00:00 | 4 | 0.5 | |"]
    );
    // Both bounds are understood: a row group of each file is left.
    assert_eq!(both(&f, "SELECT n FROM t WHERE n IN (4, 5000000003)").await.1, 4);
    assert_eq!(both(&f, "SELECT n FROM t WHERE ts >= TIMESTAMP '1970-01-03 00:00:00'").await.1, 2);
}

#[tokio::test]
async fn a_file_of_other_types_is_an_error_where_nobody_declared_them() {
    let folder = tempfile::tempdir().unwrap();
    let fractions = Arc::new(Float32Array::from(vec![1.5; 4])) as ArrayRef;
    let narrow = Arc::new(Int32Array::from(vec![7; 4])) as ArrayRef;
    let files = vec![
        write(
            folder.path(),
            "narrow.parquet",
            vec![(field("ts", time(), None), times()), (field("n", DataType::Int32, None), narrow)],
        ),
        write(
            folder.path(),
            "odd.parquet",
            vec![(field("ts", time(), None), times()), (field("n", DataType::Float32, None), fractions)],
        ),
    ];
    let columns = vec![field("ts", time(), None), field("n", DataType::Int64, None)];
    let layout = Layout { inferred: true, ..layout(folder.path(), columns, None) };
    let f = table(folder, layout, files);
    let lowered = f.lower("SELECT n FROM t").await.unwrap();
    let bind = |file: usize| {
        lowered
            .fragment
            .bind(&[ScanInput { files: vec![f.files[file].clone()], log: vec![], inspect: None, rejects: None }])
            .unwrap()
    };
    assert_eq!(rows(&f.run(bind(0)).await), 4);
    let error = datafusion::physical_plan::collect(bind(1), f.planner.task_context()).await.unwrap_err();
    let text = error.find_root().to_string();
    assert!(text.contains("odd.parquet has column `n` as Float32") && text.contains("have it as Int64"), "{text}");
}
