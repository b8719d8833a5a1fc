//! Windows: TUMBLE is date_bin, the finish computes what stands above the aggregate, and a view begins at its `from`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::physical_plan::collect;
use watershed_core::time::{EventTime, Span};

use super::fixture::{fixture, lines, midnight, query, rows};

#[tokio::test]
async fn tumble_is_date_bin() {
    let f = fixture();
    for (width, origins) in [("1 hour", "origin"), ("90 minutes", "1"), ("1 day", "upper(origin)"), ("7 days", "2")] {
        let tumble = format!(
            "SELECT window_start, window_end, {origins} AS k, count(*) AS n, sum(delay) AS s, avg(distance) AS m
             FROM TUMBLE(flights, date, INTERVAL '{width}') GROUP BY window_start, window_end, {origins}"
        );
        let plain = format!(
            "SELECT date_bin(INTERVAL '{width}', date, TIMESTAMP '1970-01-01') AS a,
                    date_bin(INTERVAL '{width}', date, TIMESTAMP '1970-01-01') + INTERVAL '{width}' AS b,
                    {origins} AS k, count(*) AS n, sum(delay) AS s, avg(distance) AS m
             FROM flights GROUP BY a, b, {origins}"
        );
        let answer = f.batch(&tumble).await;
        assert!(!answer.is_empty());
        assert_eq!(answer, f.batch(&plain).await, "{width}");
    }
    let unaliased =
        "SELECT flights.origin, window_end - window_start AS w FROM TUMBLE(flights, date, INTERVAL '1' DAY)";
    assert_eq!(f.batch(unaliased).await.len(), 72);
}

#[tokio::test]
async fn windows_have_the_type_of_the_event_time() {
    let f = fixture();
    let sql = "SELECT window_start, window_end, date FROM TUMBLE(flights, date, INTERVAL '1 hour')";
    let frame = f.planner.batch(&query(sql).unwrap()).await.unwrap();
    let types: Vec<_> = frame.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types[0], types[2]);
    assert_eq!(types[1], types[2]);
}

#[tokio::test]
async fn the_finish_runs_having_and_projections_over_aggregates() {
    let f = fixture();
    let sql = "SELECT upper(origin) AS o, window_end, n * 10 AS n FROM
               (SELECT window_end, origin, window_start, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '1 hour')
                GROUP BY window_end, origin, window_start HAVING sum(delay) > 5) WHERE origin <> 'bos'";
    let lowered = f.lower(sql).await.unwrap();
    assert_eq!(lowered.key, ["window_end"]);
    let stage = lowered.stages.first().unwrap();
    let names: Vec<_> = stage.spec.output.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names[..3], ["$start", "$end", "origin"]);
    assert_eq!(stage.spec.aggregates.len(), 2);

    // What the operator would emit: groups, then count and sum in the aggregate's order.
    let count_first = stage.spec.aggregates[0].name().starts_with("count");
    let (counts, sums) = (Int64Array::from(vec![1, 2, 3]), Int64Array::from(vec![4, 5, 6]));
    let aggregates: [ArrayRef; 2] =
        if count_first { [Arc::new(counts), Arc::new(sums)] } else { [Arc::new(sums), Arc::new(counts)] };
    let hours = |from: i64| (from..from + 3).map(|h| h * Span::HOUR.0);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(hours(0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(hours(1))),
        Arc::new(StringArray::from(vec!["jfk", "sfo", "lax"])),
    ];
    columns.extend(aggregates);
    let batch = RecordBatch::try_new(Arc::clone(&stage.spec.output), columns).unwrap();
    // Twice: a finish is bound anew for each emission.
    for _ in 0..2 {
        let plan = stage.finish.bind(vec![vec![batch.clone()]]).unwrap();
        assert_eq!(plan.schema(), lowered.output);
        let answer = collect(plan, f.planner.task_context()).await.unwrap();
        assert_eq!(lines(&answer), ["| LAX | 1970-01-01T03:00:00 | 30 |"]);
    }
    let empty = collect(stage.finish.bind(vec![vec![]]).unwrap(), f.planner.task_context()).await.unwrap();
    assert_eq!(rows(&[empty]), 0);
}

#[tokio::test]
async fn equal_groups_meet_in_one_partition() {
    let f = fixture();
    let sql = "SELECT window_start, origin, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '6 hours') GROUP BY 1, 2";
    let lowered = f.lower(sql).await.unwrap();
    let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
    assert_eq!(parts.len(), 2);
    let groups: Vec<Vec<String>> = parts
        .iter()
        .map(|batches| {
            lines(batches)
                .iter()
                .map(|l| l.rsplit_once("| ").map(|_| l.splitn(4, '|').take(3).collect::<Vec<_>>().join("|")).unwrap())
                .collect()
        })
        .collect();
    assert!(groups.iter().all(|g| !g.is_empty()));
    assert!(groups[0].iter().all(|g| !groups[1].contains(g)), "{groups:?}");
}

#[tokio::test]
async fn a_windowed_view_begins_with_the_first_whole_window() {
    let f = fixture();
    let from = EventTime(midnight(1).0 + 30 * Span::MINUTE.0);
    let sql = "SELECT window_start, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '2 hours') GROUP BY window_start";
    let lowered = f.lower_from(sql, Some(from)).await.unwrap();
    let first = EventTime(midnight(1).0 + 2 * Span::HOUR.0);
    assert_eq!(lowered.stages.first().unwrap().spec.from, Some(first));
    let parts = f.run(lowered.fragment.bind(&f.everything(&lowered)).unwrap()).await;
    let starts =
        parts.iter().flatten().flat_map(|b| b.column(0).as_primitive::<TimestampMicrosecondType>().values().to_vec());
    assert_eq!(starts.min(), Some(first.0));

    let stateless = f.lower_from("SELECT date FROM flights", Some(from)).await.unwrap();
    let parts = f.run(stateless.fragment.bind(&f.everything(&stateless)).unwrap()).await;
    assert_eq!(rows(&parts), 23 + 24);
}
