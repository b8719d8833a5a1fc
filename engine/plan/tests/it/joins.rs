//! Joins with dimension tables: what they come to, held against the batch answer; how often a table is read; what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::scan::ScanInput;

use super::fixture::{Fixture, fixture, lines, rows};

/// A table that counts how often it is scanned and how often that scan is run.
#[derive(Debug)]
struct Counted {
    table: MemTable,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = self.table.scan(state, projection, filters, limit).await?;
        Ok(Arc::new(super::counting::CountingExec::new(scan, Arc::clone(&self.reads))))
    }
}

/// `airports`: a key with one row, with two, with NULL; one that no flight has. `regions`: keys narrower than the flights'.
fn with_tables() -> (Fixture, Arc<AtomicUsize>) {
    let mut f = fixture();
    let reads = Arc::new(AtomicUsize::new(0));
    let airports = batch(vec![
        ("code", Arc::new(StringArray::from(vec![Some("JFK"), Some("SFO"), Some("SFO"), None, Some("HNL")]))),
        (
            "city",
            Arc::new(StringArray::from(vec![
                Some("New York"),
                Some("San Francisco"),
                None,
                Some("?"),
                Some("Honolulu"),
            ])),
        ),
        ("rank", Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5]))),
    ]);
    let regions = batch(vec![
        ("delay", Arc::new(Int32Array::from(vec![Some(1), Some(5), Some(7), None]))),
        ("low", Arc::new(Int64Array::from(vec![0, 3, 10, 20]))),
        ("high", Arc::new(Int64Array::from(vec![3, 10, 20, 25]))),
        ("name", Arc::new(StringArray::from(vec!["a", "b", "c", "d"]))),
    ]);
    for (name, rows) in [("airports", airports), ("regions", regions)] {
        // Two partitions, so that the table's side has to be brought together.
        let parts = vec![vec![rows.slice(0, 2)], vec![rows.slice(2, rows.num_rows() - 2)]];
        let table = || MemTable::try_new(rows.schema(), parts.clone()).unwrap();
        f.planner.add_dimension(name, Arc::new(Counted { table: table(), reads: Arc::clone(&reads) })).unwrap();
        f.planner.add_table_provider(name, Arc::new(table())).unwrap();
    }
    (f, reads)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

/// Queries without an aggregate: day after day they come to what they are over all days.
const STATELESS: [&str; 18] = [
    "SELECT f.date, f.origin, a.city FROM flights f JOIN airports a ON f.origin = a.code",
    "SELECT f.date, a.city, f.delay FROM airports a JOIN flights f ON f.origin = a.code WHERE a.rank < 3 AND f.delay > 0",
    "SELECT f.date, f.origin, a.city, a.rank FROM flights f LEFT JOIN airports a ON f.origin = a.code",
    "SELECT f.date, a.city FROM airports a RIGHT JOIN flights f ON f.origin = a.code AND a.rank > 1",
    "SELECT date, origin FROM flights f LEFT SEMI JOIN airports a ON f.origin = a.code",
    "SELECT date, origin FROM flights f LEFT ANTI JOIN airports a ON f.origin = a.code",
    "SELECT date, origin FROM airports a RIGHT SEMI JOIN flights f ON f.origin = a.code",
    "SELECT date, origin FROM flights WHERE origin IN (SELECT code FROM airports WHERE rank <> 2)",
    "SELECT date FROM flights f WHERE EXISTS (SELECT 1 FROM airports a WHERE a.code = f.origin AND a.rank < f.delay)",
    "SELECT date FROM flights f WHERE NOT EXISTS (SELECT 1 FROM airports a WHERE a.code = f.origin)",
    "SELECT date FROM flights f WHERE delay > 10 OR EXISTS (SELECT 1 FROM airports a WHERE a.code = f.origin)",
    "SELECT date, city, name FROM flights f, airports a, regions r WHERE f.origin = a.code AND r.delay = f.delay",
    "SELECT date, delay, name FROM flights JOIN regions USING (delay)",
    "SELECT date, name FROM flights f JOIN regions r ON f.delay >= r.low AND f.delay < r.high",
    "SELECT date, name FROM flights f LEFT JOIN regions r ON f.delay >= r.low AND f.delay < r.high",
    "SELECT date, name FROM flights CROSS JOIN regions",
    "SELECT date, n FROM flights f JOIN (SELECT code, count(*) AS n FROM airports GROUP BY code ORDER BY n DESC, code LIMIT 3) a \
     ON a.code = f.origin WHERE n > 1",
    "WITH known AS (SELECT DISTINCT code FROM airports), best AS (SELECT DISTINCT code FROM known) \
     SELECT f.date, b.code, x.name FROM flights f JOIN best b ON f.origin = b.code JOIN \
     (SELECT r.delay, a.city AS name FROM regions r FULL JOIN airports a ON r.low = a.rank) x ON x.delay = f.delay",
];

#[tokio::test]
async fn joins_come_to_the_batch_answer_step_by_step() {
    for sql in STATELESS {
        let (f, reads) = with_tables();
        let lowered = f.lower(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let mut found = vec![];
        for file in &f.files {
            let input = ScanInput { files: vec![file.clone()], log: vec![], inspect: None, rejects: None };
            found.extend(f.run(lowered.fragment.bind(&[input]).unwrap()).await.into_iter().flatten());
        }
        let expected = f.batch(sql).await;
        assert!(!expected.is_empty(), "{sql}");
        assert_eq!(lines(&found), expected, "{sql}\n{}", lowered.fragment.display());
        // Each table in the query, by the first of three steps alone, both its partitions.
        let tables = sql.matches("airports").count() + sql.matches("regions").count();
        assert_eq!(reads.load(Ordering::SeqCst), 2 * tables, "{sql}");
    }
}

#[tokio::test]
async fn steps_at_once_share_what_was_read_and_the_thousandth_too() {
    let (f, reads) = with_tables();
    let sql = "SELECT f.date, a.city, r.name FROM flights f JOIN airports a ON f.origin = a.code LEFT JOIN regions r \
               ON r.low < f.delay";
    let lowered = f.lower(sql).await.unwrap();
    let expected = f.batch(sql).await;
    let run = async || {
        let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
        lines(&parts.into_iter().flatten().collect::<Vec<_>>())
    };
    let (one, two, three) = futures::join!(run(), run(), run());
    assert_eq!((&one, &two, &three), (&expected, &expected, &expected));
    for _ in 0..600 {
        // Many more steps than a join lives for.
        let nothing = [ScanInput { files: vec![], log: vec![], inspect: None, rejects: None }];
        assert_eq!(rows(&f.run(lowered.fragment.bind(&nothing).unwrap()).await), 0);
    }
    assert_eq!(run().await, expected);
    assert_eq!(reads.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn windows_are_found_below_joins() {
    let (f, _) = with_tables();
    for sql in [
        "SELECT window_start, a.city, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '1 hour') f JOIN airports a \
         ON f.origin = a.code GROUP BY window_start, a.city",
        "SELECT window_start, city, avg(delay) AS d FROM TUMBLE((SELECT f.date, f.delay, a.city FROM flights f JOIN airports \
         a ON f.origin = a.code), date, INTERVAL '2 hours') GROUP BY window_start, city",
        "SELECT date_trunc('hour', f.date) AS h, coalesce(a.city, f.origin) AS place, count(*) AS n FROM airports a RIGHT \
         JOIN flights f ON f.origin = a.code GROUP BY 1, 2",
        "SELECT date_trunc('day', date) AS d, count(*) AS n FROM flights WHERE origin NOT LIKE 'X%' AND EXISTS (SELECT 1 FROM \
         airports a WHERE a.code = flights.origin) GROUP BY 1",
    ] {
        let lowered = f.lower(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        let stage = lowered.stages.first().expect(sql);
        assert!(stage.spec.group_fields.len() <= 2, "{sql}");
        assert_eq!(lowered.inputs, ["flights"], "{sql}");
        let rejected: Vec<_> = lowered.rejected.fields().iter().map(|f| f.name().as_str()).collect();
        assert!(!rejected.contains(&"city") && rejected.contains(&"date"), "{rejected:?}");
    }
}

#[tokio::test]
async fn a_tables_time_is_a_key_like_any_other() {
    let (mut f, _) = with_tables();
    let layout = super::fixture::layout(f.folder.path());
    f.planner.add_dimension("calendar", watershed_plan::files_table(layout, f.files.clone())).unwrap();
    let sql = |by: &str| format!("SELECT count(*) FROM flights f JOIN calendar c ON f.date = c.date GROUP BY {by}");
    let lowered = f.lower(&sql("date_trunc('hour', f.date), date_bin(INTERVAL '1 month', c.arrival)")).await.unwrap();
    assert_eq!(lowered.stages[0].spec.group_fields.len(), 2);
    let message = f.lower(&sql("date_trunc('hour', c.date)")).await.unwrap_err().to_string();
    assert!(message.contains("GROUP BY without a window") || message.contains("watermark"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_joined_is_refused() {
    let cases: &[(&str, &[&str])] = &[
        (
            "SELECT *\nFROM flights f JOIN arrivals a ON f.date = a.date",
            &["line 2, column", "joins of two streams come later"],
        ),
        ("SELECT * FROM flights, arrivals", &["line 1, column", "joins of two streams"]),
        (
            "SELECT f.date FROM flights f WHERE origin IN (SELECT origin FROM arrivals)",
            &["joins of two streams come later"],
        ),
        (
            "SELECT * FROM flights f FULL JOIN airports a ON f.origin = a.code",
            &["line 1, column", "FULL JOIN", "LEFT JOIN"],
        ),
        ("SELECT * FROM airports a LEFT JOIN flights f ON f.origin = a.code", &["LEFT JOIN", "keeps the table's rows"]),
        (
            "SELECT * FROM flights f RIGHT JOIN airports a ON f.origin = a.code",
            &["RIGHT JOIN", "keeps the table's rows"],
        ),
        ("SELECT code FROM airports a WHERE code IN (SELECT origin FROM flights)", &["keeps the table's rows"]),
        ("SELECT date FROM flights WHERE origin NOT IN (SELECT code FROM airports)", &["NOT IN", "write NOT EXISTS"]),
        ("SELECT date FROM flights WHERE NOT (origin IN (SELECT code FROM airports))", &["NOT IN", "write NOT EXISTS"]),
        (
            "SELECT date FROM flights WHERE delay > 1 OR origin IN (SELECT code FROM airports)",
            &["as a part of a condition", "EXISTS"],
        ),
        ("SELECT date, EXISTS (SELECT 1 FROM airports a WHERE a.code = origin) FROM flights", &["stand in WHERE"]),
        (
            "SELECT date FROM flights WHERE delay > (SELECT max(rank) FROM airports)",
            &["line 1, column", "subquery as a value"],
        ),
        ("SELECT * FROM airports", &["reads no source", "airports", "CREATE SOURCE"]),
        ("SELECT a.* FROM airports a JOIN regions r ON a.rank = r.delay", &["reads no source"]),
        (
            "SELECT f.date FROM flights f JOIN (SELECT code, random() AS r FROM airports) a ON a.code = f.origin",
            &["random()"],
        ),
        ("SELECT f.date FROM flights f WHERE EXISTS (SELECT 1 FROM airports WHERE rank > random())", &["random()"]),
        (
            "SELECT t.h, a.city FROM (SELECT date_trunc('hour', date) AS h, origin, count(*) AS n FROM flights GROUP BY 1, 2) t \
             JOIN airports a ON a.code = t.origin",
            &["Join over Aggregate", "join in FROM, below the GROUP BY"],
        ),
        ("SELECT f.date FROM flights f JOIN airprots a ON f.origin = a.code", &["did you mean airports?"]),
    ];
    let (f, _) = with_tables();
    let mut wrong = vec![];
    for (sql, parts) in cases {
        let message = match f.lower(sql).await {
            Err(error) => error.to_string(),
            Ok(lowered) => panic!("not refused: {sql}\n{lowered:?}"),
        };
        if parts.iter().any(|part| !message.contains(part)) {
            wrong.push(format!("{sql}\n  message: {message}\n  parts: {parts:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
