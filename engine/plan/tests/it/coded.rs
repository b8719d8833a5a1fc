//! Text that only groups rows is read as dictionaries, whatever its files hold it as.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, LargeStringArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use watershed_core::history::{DataFile, FIELD_ID, Layout};
use watershed_core::scan::ScanFile;
use watershed_core::time::Span;
use watershed_plan::{Planner, SourceTable};

use super::fixture::{Fixture, fixture, midnight};

const ROWS: usize = 300;

/// What stands in a row: few texts, and many.
fn texts(row: usize) -> (Option<String>, String) {
    let few =
        (!row.is_multiple_of(7)).then(|| ["", "a", "naïve", "a much longer text than twelve"][row % 4].to_string());
    (few, format!("text number {}", row % 250))
}

/// Writes the rows; columns may be called otherwise, and have numbers.
fn write(folder: &Path, name: &str, how: WriterPropertiesBuilder, large: bool, called: [&str; 2]) -> ScanFile {
    let times = (0..ROWS as i64).map(|i| midnight(0).0 + i * Span::MINUTE.0);
    let column = |texts: Vec<Option<String>>| -> ArrayRef {
        if large { Arc::new(LargeStringArray::from(texts)) } else { Arc::new(StringArray::from(texts)) }
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        column((0..ROWS).map(|i| texts(i).0).collect()),
        column((0..ROWS).map(|i| Some(texts(i).1)).collect()),
    ];
    let names = ["ts", called[0], called[1]];
    let field = |(i, (name, column)): (usize, (&str, &ArrayRef))| {
        let field = Field::new(name, column.data_type().clone(), i != 2);
        field.with_metadata([(FIELD_ID.to_string(), (i + 1).to_string())].into())
    };
    let fields: Vec<Field> = names.into_iter().zip(&columns).enumerate().map(field).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let path = folder.join(name);
    let properties = how.set_max_row_group_row_count(Some(120)).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    let path = object_store::path::Path::from_filesystem_path(&path).unwrap();
    ScanFile { file: DataFile::new(path, size), range: None, deleted: None }
}

/// A table of files that hold the same rows in several ways; found by number if `mapped`.
fn table(mapped: bool) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    // The dictionary of many texts is full after some pages.
    let half = WriterProperties::builder()
        .set_dictionary_page_size_limit(1_000)
        .set_data_page_row_count_limit(20)
        .set_write_batch_size(10);
    let names = ["few", "many"];
    let mut files = vec![
        write(folder.path(), "0", WriterProperties::builder(), false, names),
        write(folder.path(), "1", plain(), false, names),
        write(folder.path(), "2", half, false, names),
        write(folder.path(), "3", WriterProperties::builder(), true, names),
        write(folder.path(), "4", plain(), true, names),
    ];
    if mapped {
        files.push(write(folder.path(), "5", WriterProperties::builder(), false, ["many", "few"]));
    }
    let field = |name: &str, kind: DataType| Field::new(name, kind, true);
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let fields = [field("ts", time), field("few", DataType::Utf8), field("many", DataType::LargeUtf8)];
    let numbered = fields.iter().enumerate().map(|(i, f)| {
        f.clone().with_name(format!("col-{i}")).with_metadata([(FIELD_ID.to_string(), (i + 1).to_string())].into())
    });
    let layout = Layout {
        location: folder.path().display().to_string(),
        store: "file:///".into(),
        file_schema: Arc::new(Schema::new(fields.to_vec())),
        partition_columns: vec![],
        time_partition: None,
        stored: mapped.then(|| Arc::new(Schema::new(numbered.collect::<Vec<_>>()))),
        inferred: !mapped,
        text: None,
    };
    let mut planner = Planner::new(Arc::new(RuntimeEnv::default()), 2).unwrap();
    let source = SourceTable { name: "t".into(), layout, time_column: "ts".into(), delay: Span::MINUTE };
    planner.add_source(source).unwrap();
    Fixture { planner, files, folder }
}

#[tokio::test]
async fn a_text_is_one_group_however_files_hold_it() {
    for mapped in [false, true] {
        let f = table(mapped);
        let sql = "SELECT window_start, few, many, count(*) AS n FROM TUMBLE(t, ts, INTERVAL '1 hour')
                   WHERE ts < TIMESTAMP '2024-01-01 04:00:00' GROUP BY window_start, few, many";
        let lowered = f.lower(sql).await.unwrap();
        let plan = lowered.fragment.display();
        let names = if mapped { "col-1, col-2" } else { "few, many" };
        assert!(plan.contains(&format!("as dictionaries=[{names}]")), "{plan}");
        let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
        let mut found: BTreeMap<(Option<String>, Option<String>), i64> = BTreeMap::new();
        for batch in parts.iter().flatten() {
            assert_eq!(batch.schema(), lowered.fragment.schema());
            let (few, many) = (batch.column(1).as_string::<i32>(), batch.column(2).as_string::<i64>());
            for row in 0..batch.num_rows() {
                let few = few.is_valid(row).then(|| few.value(row).to_string());
                let many = many.is_valid(row).then(|| many.value(row).to_string());
                let counts: &Int64Array = batch.column(3).as_primitive::<Int64Type>();
                *found.entry((few, many)).or_default() += counts.value(row);
            }
        }
        let mut wanted = BTreeMap::new();
        for row in 0..240 {
            let (few, many) = texts(row);
            *wanted.entry((few, Some(many))).or_default() += f.files.len() as i64;
        }
        assert_eq!(found, wanted, "mapped: {mapped}");
    }
}

#[tokio::test]
async fn text_that_is_looked_at_stays_text() {
    let f = fixture();
    for (columns, condition, coded) in [
        ("origin, count(*)", "true", true),
        ("origin, sum(delay)", "delay > 3", true),
        ("upper(origin), count(*)", "true", false),
        ("origin, max(origin)", "true", false),
        ("origin, count(*)", "origin <> 'JFK'", false),
        ("delay, count(*)", "true", false),
    ] {
        let key = columns.split(", ").next().unwrap();
        let sql = format!(
            "SELECT window_start, {columns} FROM TUMBLE(flights, date, INTERVAL '1 hour') WHERE {condition} \
             GROUP BY window_start, {key}"
        );
        let plan = f.lower(&sql).await.unwrap().fragment.display();
        assert_eq!(plan.contains("as dictionaries=[origin]"), coded, "{sql}\n{plan}");
    }
}
