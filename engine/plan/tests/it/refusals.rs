//! What cannot be made incremental: each with its place, its reason, and what to write instead.

use super::fixture::fixture;

#[tokio::test]
async fn what_cannot_be_incremental_is_refused() {
    let windowed = "FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY window_start";
    let cases: &[(&str, &[&str])] = &[
        ("SELECT * FROM flights\nORDER BY date", &["line 2, column 10", "ORDER BY (Sort)", "when you read the view"]),
        ("SELECT * FROM flights LIMIT 3", &["line 1, column ", "LIMIT (Limit)"]),
        (
            "SELECT DISTINCT origin FROM flights",
            &[
                "line 1, column 1: SELECT DISTINCT (Distinct)",
                "put a window among the columns",
                "TUMBLE(flights, date,",
            ],
        ),
        ("SELECT DISTINCT ON (origin) origin FROM flights", &["line 1, column 1: SELECT DISTINCT ON", "first_value"]),
        (
            "SELECT *\nFROM flights f JOIN arrivals a ON f.date = a.date",
            &["line 2, column ", "Join: both sides are streams"],
        ),
        ("SELECT * FROM flights, arrivals", &["line 1, column 24", "Join: both sides are streams"]),
        ("SELECT row_number() OVER (ORDER BY date) FROM flights", &["line 1, column 8", "OVER (WindowAggr)", "TUMBLE"]),
        (
            "SELECT count(*)\nFROM flights",
            &["line 1, column 1: Aggregate: an aggregate over everything", "TUMBLE(flights, date,"],
        ),
        (
            "SELECT origin, count(*) FROM flights\nGROUP BY origin",
            &["line 2, column 10: Aggregate: GROUP BY without a window", "date_trunc('hour', date)"],
        ),
        (
            "SELECT window_start, count(*)\n FROM TUMBLE(flights, arrival, INTERVAL '1 hour') GROUP BY window_start",
            &["line 2, column 7", "over arrival", "watermark of flights is over date", "WATERMARK FOR arrival"],
        ),
        (
            "SELECT date_trunc('hour', arrival), count(*) FROM flights GROUP BY 1",
            &["over arrival, but the watermark of flights is over date"],
        ),
        (
            &format!("SELECT max(n) FROM (SELECT window_start, count(*) n {windowed})"),
            &["Aggregate over Aggregate", "never final"],
        ),
        (
            &format!("SELECT count(*) {windowed} UNION ALL SELECT count(*) {windowed}"),
            &["Aggregate below Union", "UNION ALL into FROM"],
        ),
        (
            "SELECT origin FROM flights\nUNION SELECT origin FROM flights",
            &["line 2, column 7", "UNION (Distinct)", "UNION ALL is supported"],
        ),
        ("SELECT origin FROM flights EXCEPT SELECT origin FROM arrivals", &["EXCEPT (Distinct)"]),
        ("SELECT * FROM flights WHERE delay > (SELECT 1)", &["line 1, column ", "subquery"]),
        ("SELECT * FROM flights WHERE origin IN (SELECT origin FROM arrivals)", &["joins of two streams"]),
        ("SELECT random() FROM flights", &["line 1, column 8: random()", "could not be repeated"]),
        ("SELECT uuid(), delay FROM flights", &["uuid()"]),
        (
            &format!("SELECT window_start, first_value(delay) {windowed}"),
            &["line 1, column 22: first_value", "add ORDER BY inside: first_value(x ORDER BY …)"],
        ),
        (&format!("SELECT window_start, array_agg(DISTINCT delay) {windowed}"), &["array_agg(x ORDER BY …)"]),
        (&format!("SELECT window_start, string_agg(origin, ',') {windowed}"), &["string_agg(x ORDER BY …)"]),
        (&format!("SELECT window_start, any_value(origin) {windowed}"), &["first_value(x ORDER BY …), or min(x)"]),
        (
            &format!("SELECT window_start, nth_value(delay, 0 ORDER BY date) {windowed}"),
            &["line 1, column 1: nth_value", "from the first (1, 2, …) or the last (-1, -2, …)"],
        ),
        (
            &format!(
                "SELECT window_start, string_agg(origin, ',' ORDER BY date), string_agg(origin, ',' ORDER BY delay) {windowed}"
            ),
            &["must have the same ORDER BY, or its reverse", "array_to_string(array_agg(x ORDER BY …), ',')"],
        ),
        (
            "SELECT * FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '90 minutes')",
            &["line 1, column 62", "HOP's size is a multiple of its slide; 90 min is none of 1 h"],
        ),
        ("SELECT * FROM HOP(flights, date, INTERVAL '1 hour')", &["HOP takes a table, its time column, a slide and a size"]),
        (
            "SELECT * FROM CUMULATE(flights, date, INTERVAL '1 hour', INTERVAL '1 month')",
            &["CUMULATE's size has a fixed length"],
        ),
        (
            "SELECT window_start, count(*) FROM CUMULATE(flights, date, INTERVAL '1 hour', INTERVAL '1 day')
             GROUP BY window_start",
            &["CUMULATE", "add window_end to GROUP BY"],
        ),
        (
            "SELECT window_start, count(*) FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '1 day')
             WHERE window_start > TIMESTAMP '2024-01-01' GROUP BY window_start",
            &["windows that overlap", "HAVING"],
        ),
        (
            "SELECT window_start, max(window_end - date) FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '1 day')
             GROUP BY window_start",
            &["windows that overlap"],
        ),
        (
            "SELECT date_trunc('day', window_start), count(*) FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '1 day')
             GROUP BY 1",
            &["windows that overlap", "group by window_start"],
        ),
        (
            &format!("SELECT n, count(*) FROM (SELECT window_start, count(*) n {windowed}) GROUP BY n"),
            &["Aggregate over Aggregate", "never final", "date_trunc('day', window_start)"],
        ),
        ("SELECT * FROM SESSION(flights, date, INTERVAL '1 hour')", &["SESSION: not supported yet"]),
        (
            "SELECT * FROM TUMBLE(flights, date, INTERVAL '1 month')",
            &["line 1, column 46", "date_trunc('month', date)"],
        ),
        ("SELECT * FROM TUMBLE(flights, date, INTERVAL '0 s')", &["longer than nothing"]),
        ("SELECT * FROM TUMBLE(flights, date)", &["TUMBLE takes a table, its time column and a width"]),
        ("SELECT * FROM TUMBLE(flights, 1 + 1, INTERVAL '1 h')", &["second argument is the time column"]),
        ("SELECT * FROM TUMBLE(flights, date, 5)", &["width is an interval literal"]),
        ("SELECT count(*) FROM flights GROUP BY date_bin(INTERVAL '1 month', date)", &["fixed, positive length"]),
        ("SELECT count(*) FROM flights GROUP BY ROLLUP (date)", &["ROLLUP"]),
        (
            "SELECT window_start, count(*) FROM TUMBLE(flights, origin, INTERVAL '1 hour') GROUP BY window_start",
            &["line 1, column 36", "the window is over origin, but the watermark of flights is over date"],
        ),
        (
            "SELECT CAST(date_trunc('day', date) AS DATE), count(*) FROM flights GROUP BY 1",
            &["GROUP BY without a window"],
        ),
        (
            "SELECT origin, count(*) FROM TUMBLE(flights, date, INTERVAL '1 hour') GROUP BY origin",
            &["line 1, column 80", "add window_start to GROUP BY"],
        ),
        ("SELECT day, count(*) FROM flights GROUP BY day", &["GROUP BY without a window"]),
        ("SELECT count(*) FROM flights GROUP BY date_trunc('century', date)", &["date_trunc"]),
        ("SELECT 1", &["reads no source"]),
        ("SELECT * FROM fligths", &["line 1, column 15", "no source, view or table fligths; did you mean flights?"]),
        ("SELECT * FROM TUMBLE(fligths, date, INTERVAL '1 hour')", &["line 1, column 22", "did you mean flights?"]),
        ("SELECT date,\n dely FROM flights", &["line 2, column 2", "dely"]),
        ("SELECT frob(date) FROM flights", &["frob"]),
        ("SELECT * FROM (VALUES (1)) AS v(x)", &["VALUES"]),
    ];
    let f = fixture();
    let mut wrong = vec![];
    for (sql, parts) in cases {
        let error = match f.lower(sql).await {
            Err(error) => error,
            Ok(lowered) => panic!("not refused: {sql}\n{lowered:?}"),
        };
        let message = error.to_string();
        let lacks: Vec<_> = parts.iter().filter(|part| !message.contains(**part)).collect();
        if !lacks.is_empty() || error.exit_code() != 2 {
            wrong.push(format!("{sql}\n  message: {message}\n  lacks: {lacks:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_union_needs_the_watermark_column_of_each_source() {
    let f = fixture();
    let sql = |column: &str| {
        format!(
            "SELECT date_trunc('hour', t), count(*) FROM (SELECT date AS t FROM flights UNION ALL SELECT {column} FROM arrivals)
             GROUP BY 1"
        )
    };
    f.lower(&sql("arrival")).await.unwrap();
    let message = f.lower(&sql("date")).await.unwrap_err().to_string();
    assert!(message.contains("over date, but the watermark of arrivals is over arrival"), "{message}");
}
