//! Queries that are lowered: the columns of what comes out, its key, its window.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use watershed_core::time::{EventTime, Span};
use watershed_operators::{WindowEnd, Windows};
use watershed_plan::Lowered;

use super::fixture::{Fixture, fixture, lines, rows};

struct Case {
    sql: &'static str,
    output: &'static str,
    key: &'static str,
    window_start: Option<&'static str>,
    end: Option<WindowEnd>,
    /// Group columns, window start first.
    groups: &'static str,
}

const HOUR: Option<WindowEnd> = Some(WindowEnd::Fixed(Span::HOUR));

const CASES: &[Case] = &[
    Case {
        sql: "SELECT window_start, window_end, origin, count(*) AS flights, avg(delay) AS mean
              FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, window_end, origin",
        output: "window_start window_end origin flights mean",
        key: "window_start origin",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start origin",
    },
    Case {
        sql: "SELECT origin AS o, date_trunc('day', date) AS d, sum(delay) + 1 AS s FROM flights GROUP BY origin, d",
        output: "o d s",
        key: "o d",
        window_start: Some("d"),
        end: Some(WindowEnd::Fixed(Span::DAY)),
        groups: "date_trunc(Utf8(\"day\"),flights.date) origin",
    },
    Case {
        sql: "SELECT date_trunc('quarter', date) AS q, count(*) AS n FROM flights GROUP BY 1",
        output: "q n",
        key: "q",
        window_start: Some("q"),
        end: Some(WindowEnd::Months(3)),
        groups: "date_trunc(Utf8(\"quarter\"),flights.date)",
    },
    Case {
        sql: "SELECT date_bin(INTERVAL '15 minutes', date, TIMESTAMP '2001-01-01') AS b, count(*) AS n FROM flights GROUP BY 1",
        output: "b n",
        key: "b",
        window_start: Some("b"),
        end: Some(WindowEnd::Fixed(Span(15 * 60_000_000))),
        groups: "date_bin",
    },
    // The same key twice is one.
    Case {
        sql: "SELECT window_start, CAST(delay AS SMALLINT) AS a, CAST(delay AS SMALLINT) AS b, count(*) AS n
              FROM TUMBLE(flights, date, INTERVAL '1 hour')
              GROUP BY window_start, CAST(delay AS SMALLINT), CAST(delay AS SMALLINT) HAVING count(*) > 0",
        output: "window_start a b n",
        key: "window_start a",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start",
    },
    // The window's end alone stands for it.
    Case {
        sql: "SELECT window_end, max(delay) AS m FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_end",
        output: "window_end m",
        key: "window_end",
        window_start: None,
        end: HOUR,
        groups: "window_start",
    },
    // A key that is not put out; every kind of aggregate; HAVING.
    Case {
        sql: "SELECT t.window_start AS w, count(DISTINCT t.origin) AS o, count(*) FILTER (WHERE delay > 3) AS late,
                     sum(delay + 1) AS a, avg(delay + 1) AS b, approx_distinct(origin) AS c, median(delay) AS d
              FROM TUMBLE(flights, date, INTERVAL '1 hour') AS t GROUP BY t.window_start, upper(origin)
              HAVING count(*) > 0 AND max(distance) < 1e9",
        output: "w o late a b c d",
        key: "w",
        window_start: Some("w"),
        end: HOUR,
        groups: "window_start upper",
    },
    // Through a CTE, a filter above, and another alias.
    Case {
        sql: "WITH h AS (SELECT date_trunc('hour', date) AS hour, * FROM flights WHERE distance > 100)
              SELECT x.hour, x.n * 2 AS n FROM (SELECT hour, count(*) AS n FROM h GROUP BY hour) AS x WHERE x.n > 0",
        output: "hour n",
        key: "hour",
        window_start: Some("hour"),
        end: HOUR,
        groups: "hour",
    },
    Case {
        sql: "SELECT window_start, count(*) AS n FROM TUMBLE((SELECT date AS t, origin FROM flights
              UNION ALL SELECT arrival, origin FROM arrivals), t, INTERVAL '1' HOUR) GROUP BY window_start",
        output: "window_start n",
        key: "window_start",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start",
    },
    // A coarse time of another column is a key like any other.
    Case {
        sql: "SELECT window_start, date_trunc('hour', arrival) AS a, count(*) AS n
              FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, date_trunc('hour', arrival)",
        output: "window_start a n",
        key: "window_start a",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start date_trunc(Utf8(\"hour\"),flights.arrival)",
    },
    Case {
        sql: "SELECT window_start, 'x' AS k FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, 'x'",
        output: "window_start k",
        key: "window_start k",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start Utf8(\"x\")",
    },
    // The order inside a call is made complete without a trace in the names.
    Case {
        sql: "SELECT window_start, first_value(delay ORDER BY origin) AS f, last_value(arrival ORDER BY delay DESC, day) AS l,
                     last_value(origin ORDER BY distance) FILTER (WHERE delay > 0) AS g
              FROM TUMBLE(flights, date, INTERVAL '1 day') GROUP BY window_start",
        output: "window_start f l g",
        key: "window_start",
        window_start: Some("window_start"),
        end: Some(WindowEnd::Fixed(Span::DAY)),
        groups: "window_start",
    },
    Case {
        sql: "SELECT window_start, percentile_cont(0.3) WITHIN GROUP (ORDER BY delay) AS p,
                     percentile_cont(0.5) WITHIN GROUP (ORDER BY delay) AS q
              FROM TUMBLE(flights, date, INTERVAL '1 day') GROUP BY window_start",
        output: "window_start p q",
        key: "window_start",
        window_start: Some("window_start"),
        end: Some(WindowEnd::Fixed(Span::DAY)),
        groups: "window_start",
    },
    Case {
        sql: "SELECT DISTINCT origin, window_start FROM TUMBLE(flights, date, INTERVAL '1 day')",
        output: "origin window_start",
        key: "origin window_start",
        window_start: Some("window_start"),
        end: Some(WindowEnd::Fixed(Span::DAY)),
        groups: "window_start origin",
    },
    // Unnested below: a key like any other. Above: several rows of one group, so there is no key.
    Case {
        sql: "SELECT window_start, tag, count(*) AS n
              FROM (SELECT window_start, unnest([origin, 'all']) AS tag FROM TUMBLE(flights, date, INTERVAL '1 hour'))
              GROUP BY window_start, tag",
        output: "window_start tag n",
        key: "window_start tag",
        window_start: Some("window_start"),
        end: HOUR,
        groups: "window_start tag",
    },
    Case {
        sql: "SELECT window_start, origin, unnest([min(delay), max(delay)]) AS d
              FROM TUMBLE(flights, date, INTERVAL '1 day') GROUP BY window_start, origin",
        output: "window_start origin d",
        key: "",
        window_start: Some("window_start"),
        end: Some(WindowEnd::Fixed(Span::DAY)),
        groups: "window_start origin",
    },
    Case {
        sql: "SELECT origin, delay * 2 AS d, day FROM flights WHERE delay > 0 AND day > DATE '2024-01-01'",
        output: "origin d day",
        key: "",
        window_start: None,
        end: None,
        groups: "",
    },
    Case {
        sql: "SELECT origin FROM flights UNION ALL SELECT origin FROM arrivals WHERE delay IS NOT NULL",
        output: "origin",
        key: "",
        window_start: None,
        end: None,
        groups: "",
    },
];

#[tokio::test]
async fn good_queries_are_lowered() {
    let f = fixture();
    for case in CASES {
        let lowered = f.lower(case.sql).await.unwrap_or_else(|e| panic!("{}\n{e}", case.sql));
        let names = |schema: &arrow::datatypes::Schema| {
            schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&lowered.output), case.output, "{}", case.sql);
        assert_eq!(lowered.key.join(" "), case.key, "{}", case.sql);
        assert_eq!(lowered.window_start.as_deref(), case.window_start, "{}", case.sql);
        let mut ends = lowered.stages.iter().map(|stage| match stage.spec.windows {
            Windows::Single(end) => end,
            Windows::Paned(form) => form.end(),
        });
        assert_eq!(ends.next_back(), case.end, "{}", case.sql);
        assert_eq!(lowered.fragment.partitions(), 2, "{}", case.sql);

        let bound = lowered.fragment.bind(&f.everything(&lowered)).unwrap();
        assert_eq!(bound.schema(), lowered.fragment.schema());
        let collected = f.run(bound).await;
        match lowered.stages.first() {
            None => assert_eq!(lowered.fragment.schema(), lowered.output, "{}", case.sql),
            Some(stage) => {
                let spec = &stage.spec;
                assert_eq!(lowered.fragment.schema(), spec.partial, "{}", case.sql);
                let groups: Vec<_> = spec.group_fields.iter().map(|f| f.name().as_str()).collect();
                assert!(groups.join(" ").starts_with(case.groups), "{}\n{groups:?}", case.sql);
                let time = DataType::Timestamp(TimeUnit::Microsecond, None);
                assert_eq!(spec.group_fields[0].data_type(), &time, "{}", case.sql);
                let states: usize = spec.aggregates.iter().map(|a| a.state_fields().unwrap().len()).sum();
                assert_eq!(spec.partial.fields().len(), groups.len() + states, "{}", case.sql);
                assert_eq!(spec.output.fields().len(), groups.len() + 1 + spec.aggregates.len(), "{}", case.sql);
                assert!(rows(&collected) > 0, "{}", case.sql);
                assert_eq!(finished(&f, &lowered).await, f.batch(case.sql).await, "{}", case.sql);
            }
        }
        for batch in collected.iter().flatten() {
            assert_eq!(batch.schema(), lowered.fragment.schema(), "{}", case.sql);
        }
        assert!(watershed_plan::explain(&lowered).contains("view: "), "{}", case.sql);
    }
}

/// The view's rows, the operator's part done by DataFusion's final aggregate over the fragment.
async fn finished(f: &Fixture, lowered: &Lowered) -> Vec<String> {
    let stage = lowered.stages.first().unwrap();
    let states = lowered.fragment.bind(&f.everything(lowered)).unwrap();
    let groups = stage.spec.group_fields.iter().enumerate().map(|(i, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), i));
        (column, field.name().clone())
    });
    let groups = PhysicalGroupBy::new_single(groups.collect());
    let (aggregates, schema) = (stage.spec.aggregates.clone(), states.schema());
    let filters = vec![None; aggregates.len()];
    let merged =
        AggregateExec::try_new(AggregateMode::FinalPartitioned, groups, aggregates, filters, states, schema).unwrap();
    let output: Vec<RecordBatch> = f.run(Arc::new(merged)).await.into_iter().flatten().collect();
    let Windows::Single(end) = stage.spec.windows else { panic!("these windows do not overlap") };
    let output = output.into_iter().map(|batch| {
        let starts: &TimestampMicrosecondArray = batch.column(0).as_primitive();
        let ends: TimestampMicrosecondArray = starts.unary(|start| end.of(EventTime(start)).0);
        let mut columns = batch.columns().to_vec();
        columns.insert(1, Arc::new(ends));
        RecordBatch::try_new(Arc::clone(&stage.spec.output), columns).unwrap()
    });
    let plan = stage.finish.bind(vec![output.collect()]).unwrap();
    assert_eq!(plan.schema(), lowered.output);
    lines(&f.run(plan).await.into_iter().flatten().collect::<Vec<_>>())
}

#[tokio::test]
async fn equal_names_are_an_error() {
    let f = fixture();
    let sql = "SELECT *, window_end FROM TUMBLE(flights, date, INTERVAL '1 hour')";
    let message = f.lower(sql).await.unwrap_err().to_string();
    assert!(message.contains("unique"), "{message}");
}

#[tokio::test]
async fn a_stateless_fragment_gives_the_batch_answer() {
    let f = fixture();
    for sql in [
        "SELECT origin, delay * 2 AS d, day FROM flights WHERE delay > 0 AND day > DATE '2024-01-01'",
        "SELECT origin FROM flights UNION ALL SELECT origin FROM arrivals WHERE delay IS NOT NULL",
        "SELECT * FROM TUMBLE(flights, date, INTERVAL '1 day') AS t WHERE t.origin = 'JFK'",
        "SELECT date FROM flights WHERE false",
        "SELECT 1 AS one FROM flights",
        "SELECT origin, unnest([delay, 7, NULL]) AS d FROM flights WHERE distance > 105",
        "SELECT unnest(named_struct('o', origin, 'd', delay)), date FROM flights",
        "SELECT date, u * 2 AS u FROM (SELECT date, unnest(range(0, delay)) AS u FROM flights) WHERE u > 1 AND date IS NOT NULL",
        "SELECT map([origin, 'x'], [delay, 1]) AS m, [delay] AS l, {'o': origin, 'n': [1, delay]} AS s FROM flights
         WHERE origin IS NOT NULL",
        "SELECT m['JFK'] AS j, array_length(l) AS n, s['o'] AS o FROM (SELECT map([coalesce(origin, '-')], [delay]) AS m,
         make_array(delay, 1) AS l, struct(origin AS o) AS s FROM flights)",
    ] {
        let lowered = f.lower(sql).await.unwrap();
        let bound = lowered.fragment.bind(&f.everything(&lowered)).unwrap();
        let collected: Vec<_> = f.run(bound).await.into_iter().flatten().collect();
        assert_eq!(lines(&collected), f.batch(sql).await, "{sql}");
    }
}

#[tokio::test]
async fn a_view_is_expanded_where_it_is_named() {
    let mut f = fixture();
    let add = |f: &mut Fixture, name: &str, sql: &str| f.planner.add_view(name, super::fixture::query(sql).unwrap());
    add(&mut f, "late_ones", "SELECT date, origin FROM flights WHERE delay > 10").unwrap();
    add(&mut f, "late_jfk", "SELECT * FROM late_ones l WHERE l.origin = 'JFK'").unwrap();
    assert!(add(&mut f, "no", "SELECT * FROM nothing").is_err());
    let sql = "SELECT window_start, count(*) AS n FROM TUMBLE(late_jfk, date, INTERVAL '1 hour') GROUP BY window_start";
    let lowered = f.lower(sql).await.unwrap();
    assert_eq!(lowered.inputs, ["flights"]);
    let plain = "SELECT date_trunc('hour', date) AS window_start, count(*) AS n FROM flights
                 WHERE delay > 10 AND origin = 'JFK' GROUP BY 1";
    assert_eq!(f.batch(sql).await, f.batch(plain).await);
    assert_eq!(f.batch(sql).await.len(), 3);
    // A name that WITH defines hides the view.
    let hidden = "WITH late_jfk AS (SELECT 1 AS one) SELECT * FROM late_jfk";
    assert_eq!(f.batch(hidden).await, ["| 1 |"]);
}

#[tokio::test]
async fn an_event_time_is_a_timestamp() {
    let f = fixture();
    let mut planner = f.planner;
    let source = |time: &str| watershed_plan::SourceTable {
        name: "s".into(),
        layout: super::fixture::layout(f.folder.path()),
        time_column: time.into(),
        delay: Span(0),
    };
    let message = planner.add_source(source("day")).unwrap_err().to_string();
    assert!(message.contains("day is of type Date32"), "{message}");
    let message = planner.add_source(source("nope")).unwrap_err().to_string();
    assert!(message.contains("no column nope") && message.contains("date, arrival"), "{message}");
}

#[tokio::test]
async fn now_is_when_the_view_was_made() {
    let f = fixture();
    let sql =
        "SELECT now() AS made, current_date AS today, origin FROM flights WHERE date < now() - INTERVAL '399 days'";
    let lowered = f.lower(sql).await.unwrap();
    let bound = lowered.fragment.bind(&f.everything(&lowered)).unwrap();
    let collected: Vec<_> = f.run(bound).await.into_iter().flatten().collect();
    let found = lines(&collected);
    // The fixture's views are made on the 400th day after its first; 24 rows are of the first day.
    assert_eq!(found.len(), 24);
    for line in found {
        assert!(line.starts_with("| 2025-02-04T00:00:00") && line.contains(" | 2025-02-04 | "), "{line}");
    }
}

#[tokio::test]
async fn functions_of_ones_own() {
    let mut f = fixture();
    let one = |name: &str, volatility| {
        let one = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(1))));
        create_udf(name, vec![DataType::Int64], DataType::Int64, volatility, Arc::new(one))
    };
    for (name, volatility) in
        [("sure", Volatility::Immutable), ("daily", Volatility::Stable), ("dice", Volatility::Volatile)]
    {
        f.planner.add_function(one(name, volatility)).unwrap();
    }
    let sql = "SELECT window_start, sure(delay) AS k, sum(sure(delay)) AS s
               FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start, sure(delay)";
    let lowered = f.lower(sql).await.unwrap();
    assert_eq!(finished(&f, &lowered).await, f.batch(sql).await);
    for (name, part) in [("daily", "declare it Volatility::Immutable"), ("dice", "could not be repeated")] {
        let message = f.lower(&format!("SELECT {name}(delay) FROM flights")).await.unwrap_err().to_string();
        assert!(message.contains(&format!("{name}(): its value")) && message.contains(part), "{message}");
        assert_eq!(f.batch(&format!("SELECT {name}(delay) FROM flights")).await.len(), 72);
    }
    for taken in ["upper", "count", "sure"] {
        let message = f.planner.add_function(one(taken, Volatility::Immutable)).unwrap_err().to_string();
        assert!(message.contains(&format!("function {taken}: there is one of this name already")), "{message}");
    }
}
