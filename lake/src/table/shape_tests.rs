//! Rows in, table partitions out.

use arrow::array::{Int64Array, StringArray, TimestampNanosecondArray, UInt64Array};
use arrow::compute::concat_batches;
use proptest::prelude::*;

use super::*;

const DAY: i64 = Span::DAY.0;

fn spec(schema: SchemaRef, partition_by: &str) -> TableSpec {
    let partition_by = if partition_by.is_empty() { vec![] } else { PartitionBy::parse(partition_by).unwrap() };
    TableSpec { schema, partition_by, properties: BTreeMap::new(), owner: None, key: None }
}

fn rows(times: Vec<Option<i64>>, names: Vec<Option<&str>>) -> RecordBatch {
    let count = i64::try_from(times.len()).unwrap();
    RecordBatch::try_from_iter_with_nullable([
        ("ts", Arc::new(TimestampMicrosecondArray::from(times)) as ArrayRef, true),
        ("name", Arc::new(StringArray::from(names)) as ArrayRef, true),
        ("n", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef, true),
    ])
    .unwrap()
}

fn keys(parts: &[(Key, RecordBatch)]) -> Vec<(Vec<&str>, usize)> {
    parts
        .iter()
        .map(|(key, rows)| (key.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect(), rows.num_rows()))
        .collect()
}

#[test]
fn derives_days_and_hours() {
    let batch = rows(vec![Some(0), Some(DAY - 1), Some(-1), None], vec![None; 4]);
    let shape = Shape::of_new("t", &spec(batch.schema(), "day(ts)")).unwrap();
    assert_eq!(shape.partition_columns, ["ts_day"]);
    assert_eq!(
        shape.table_schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
        ["ts", "name", "n", "ts_day"]
    );
    assert_eq!(shape.table_schema.field(0).data_type(), &utc());
    let parts = shape.cut(&batch.slice(0, 2)).unwrap();
    assert_eq!(keys(&parts), [(vec!["1970-01-01"], 2)]);
    assert_eq!(parts[0].1.schema(), shape.file_schema);
    let shape = Shape::of_new("t", &spec(batch.schema(), "hour(ts), name")).unwrap();
    let found = shape.cut(&batch.slice(2, 2)).unwrap();
    let mut found = keys(&found);
    found.sort();
    assert_eq!(found, [(vec!["1969-12-31T23:00:00.000000Z", "NULL"], 1), (vec!["NULL", "NULL"], 1)]);
    // A partition column is not stored in files.
    assert_eq!(shape.file_schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["ts", "n"]);
}

#[test]
fn keeps_zoneless_times_where_asked() {
    let batch = rows(vec![Some(1)], vec![None]);
    let mut spec = spec(batch.schema(), "hour(ts)");
    spec.properties.insert(TIMESTAMP_TYPE.to_string(), "ntz".to_string());
    let shape = Shape::of_new("t", &spec).unwrap();
    assert_eq!(shape.file_schema.field(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(keys(&shape.cut(&batch).unwrap()), [(vec!["1970-01-01T00:00:00.000000Z"], 1)]);
}

#[test]
fn converts_exactly_or_not_at_all() {
    let batch = |nanos| {
        RecordBatch::try_from_iter([
            ("t", Arc::new(TimestampNanosecondArray::from(vec![nanos])) as ArrayRef),
            ("u", Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef),
        ])
        .unwrap()
    };
    let shape = Shape::of_new("lake/t", &spec(batch(0).schema(), "")).unwrap();
    let (_, rows) = shape.cut(&batch(-5_000)).unwrap().remove(0);
    assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().value(0), -5);
    assert_eq!(rows.column(1).as_primitive::<arrow::datatypes::Decimal128Type>().value(0), i128::from(u64::MAX));
    let error = shape.cut(&batch(1_001)).unwrap_err().to_string();
    assert!(error.contains("lake/t: column `t`") && error.contains("has nanoseconds"), "{error}");
}

#[test]
fn judges_existing_tables() {
    let batch = rows(vec![Some(0)], vec![Some("a")]);
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let table = |fields: Vec<Field>| Arc::new(Schema::new(fields));
    let full = || {
        vec![
            field("n", DataType::Int64),
            field("extra", DataType::Utf8),
            field("ts", utc()),
            field("name", DataType::Utf8),
            field("ts_day", DataType::Date32),
        ]
    };
    let day = vec!["ts_day".to_string()];
    let error = |schema: SchemaRef, columns: &[String], by: &str| {
        Shape::of_existing("t", schema, columns, &spec(batch.schema(), by)).unwrap_err().to_string()
    };

    // Partitioning is taken over, columns go by name, what the rows lack stays NULL.
    let shape = Shape::of_existing("t", table(full()), &day, &spec(batch.schema(), "")).unwrap();
    let parts = shape.cut(&batch).unwrap();
    assert_eq!(keys(&parts), [(vec!["1970-01-01"], 1)]);
    assert_eq!(parts[0].1.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["n", "ts", "name"]);

    assert!(error(table(full()), &day, "hour(ts)").contains("is partitioned by (ts_day), not by (ts_hour)"));
    assert!(error(table(full()[..4].to_vec()), &["extra".to_string()], "").contains("neither this column"));
    assert!(error(table(full()[1..].to_vec()), &day, "").contains("has no column `n`"));
    let mut other = full();
    other[0] = field("n", DataType::Utf8);
    assert!(error(table(other), &day, "").contains("`n` is Utf8, but the rows have Int64"));
    let mut required = full();
    required[1] = Field::new("extra", DataType::Utf8, false);
    assert!(error(table(required), &day, "").contains("`extra` must not be NULL, but the rows do not have it"));
    let mut required = full();
    required[3] = Field::new("name", DataType::Utf8, false);
    let shape = Shape::of_existing("t", table(required), &day, &spec(batch.schema(), "")).unwrap();
    shape.cut(&batch).unwrap();
    assert!(shape.cut(&rows(vec![Some(0)], vec![None])).unwrap_err().to_string().contains("a row has NULL there"));
}

#[test]
fn refuses_bad_partitions() {
    let batch = rows(vec![Some(0)], vec![None]);
    let error = |by: &str| Shape::of_new("t", &spec(batch.schema(), by)).unwrap_err().to_string();
    assert!(error("day(n)").contains("`n` is Int64, not a TIMESTAMP"));
    assert!(error("day(x)").contains("no column `x`; the columns are ts, name, n"));
    let taken = Schema::new(vec![Field::new("ts", utc(), true), Field::new("TS_DAY", DataType::Int64, true)]);
    let error = Shape::of_new("t", &spec(taken.into(), "day(ts)")).unwrap_err().to_string();
    assert!(error.contains("adds a column `ts_day`, but there is one already"), "{error}");
    let only = Schema::new(vec![Field::new("k", DataType::Utf8, true)]);
    assert!(
        Shape::of_new("t", &spec(only.into(), "k"))
            .unwrap_err()
            .to_string()
            .contains("all columns are partition columns")
    );
}

proptest! {
    /// Every row is in the partition of its key, once, and in order.
    #[test]
    fn cuts_any_rows(times in prop::collection::vec(prop::option::of(-3 * DAY..3 * DAY), 0..1200), sorted: bool) {
        let mut times = times;
        if sorted {
            times.sort();
        }
        let names = (0..times.len()).map(|i| [Some("a"), Some("b/ü"), None][i % 3]).collect();
        let batch = rows(times.clone(), names);
        let shape = Shape::of_new("t", &spec(batch.schema(), "day(ts)")).unwrap();
        let parts = shape.cut(&batch).unwrap();
        prop_assert!(parts.len() <= 8 + 2 * (1 + times.len() / RUN));
        let mut seen: BTreeMap<Key, Vec<i64>> = BTreeMap::new();
        for (key, rows) in &parts {
            for (row, n) in rows.column(2).as_primitive::<arrow::datatypes::Int64Type>().values().iter().enumerate() {
                let time = times[usize::try_from(*n).unwrap()];
                let day = time.map(|t| DateTime::from_timestamp_micros(t).unwrap().format("%Y-%m-%d").to_string());
                prop_assert_eq!(&vec![day], key);
                let written = rows.column(0).as_primitive::<TimestampMicrosecondType>();
                prop_assert_eq!(written.is_valid(row).then(|| written.value(row)), time);
                seen.entry(key.clone()).or_default().push(*n);
            }
        }
        prop_assert!(seen.values().all(|numbers| numbers.is_sorted()));
        prop_assert_eq!(seen.values().map(Vec::len).sum::<usize>(), times.len());
        let whole: Vec<RecordBatch> = parts.into_iter().map(|(_, rows)| rows).collect();
        prop_assert_eq!(concat_batches(&shape.file_schema, &whole).unwrap().num_rows(), times.len());
    }
}
