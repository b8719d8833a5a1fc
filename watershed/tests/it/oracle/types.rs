//! Columns of every type: put out, grouped by, aggregated, ordered by, unnested; and what a table cannot hold.

use watershed_core::time::Grain;
use watershed_lake::Stores;

use super::check::{Case, World, check, once, variants};
use super::facts::{Facts, Shape};

fn wide(seed: u64) -> Facts {
    let shape = Shape { leaks: 60, timeless: 15, holes: 2, partitions: 4, rows: 90, ..Shape::default() };
    Facts { wide: true, ..Facts::draw(shape, seed) }
}

async fn holds(case: Case) {
    check(&case).await.unwrap_or_else(|e| panic!("{e}"));
}

macro_rules! cases {
    ($($name:ident: $facts:expr, $sql:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            holds(Case::over([("a", $facts)], $sql)).await;
        }
    )*};
}

cases! {
    put_out: wide(301), "SELECT ts, bool, i8, i16, i32, u8, u16, u32, u64, f32, dec, big, date, at_s, at_ms, at_us, at_ns, bin, \
        bview, fixed, large, text, dict, list, pair, map FROM a WHERE n < 30";
    times_as_text: wide(302), "SELECT ts, CAST(time AS VARCHAR) AS time, CAST(ts - TIMESTAMP '2026-01-01' AS VARCHAR) AS span FROM a \
        WHERE CAST(time AS VARCHAR) > '06:00:00'";
    made_here: wide(303), "SELECT ts, named_struct('k', k, 'l', [n, NULL]) AS s, [pair, NULL] AS pairs, \
        map(['n', 'k'], [n, k]) AS m, arrow_cast(n, 'Duration(Second)') > arrow_cast(0, 'Duration(Second)') AS positive, \
        pair['b'] AS b, map['k'] AS mk, list[1] AS first, array_length(list) AS length FROM a";
    numbers_as_keys: wide(304), "SELECT window_start, window_end, bool, u8, i16, f32, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, bool, u8, i16, f32";
    decimals_and_dates_as_keys: wide(305), "SELECT window_start, window_end, dec, big, date, u64, count(*) AS c, sum(dec) AS total \
        FROM TUMBLE(a, ts, INTERVAL '12 hours') GROUP BY window_start, window_end, dec, big, date, u64";
    times_as_keys: wide(306), "SELECT window_start, window_end, at_s, at_us, CAST(time AS VARCHAR) AS time, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end, at_s, at_us, time";
    texts_as_keys: wide(307), "SELECT window_start, window_end, large, dict, bin, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, large, dict, bin";
    binaries_as_keys: wide(308), "SELECT window_start, window_end, text, fixed, bview, max(n) AS high FROM \
        TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end, text, fixed, bview";
    a_dictionary_as_key: wide(309), "SELECT window_start, window_end, dict, count(*) AS c, min(large) AS low FROM \
        TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, dict";
    lists_and_structs_as_keys: wide(310), "SELECT window_start, window_end, list, pair, count(*) AS c FROM \
        TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end, list, pair";
    sums: wide(311), "SELECT window_start, window_end, sum(i8) AS i8, sum(u8) AS u8, sum(u64) AS u64, sum(f32) AS f32, sum(dec) AS dec, \
        avg(dec) AS mean, avg(u16) AS m16, sum(i32) AS i32 FROM TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end";
    extremes: wide(312), "SELECT window_start, window_end, k, min(date) AS d, max(at_us) AS t, min(at_s) AS s, max(bool) AS b, \
        min(large) AS l, max(text) AS x, min(bin) AS n, max(dec) AS m, CAST(max(time) AS VARCHAR) AS late FROM \
        TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end, k";
    counts: wide(313), "SELECT window_start, window_end, count(DISTINCT date) AS d, count(DISTINCT text) AS t, count(DISTINCT dec) AS m, \
        count(DISTINCT u64) AS u, count(list) AS l, count(pair) AS p, count(DISTINCT bool) AS b, count(fixed) AS f \
        FROM TUMBLE(a, ts, INTERVAL '6 hours') GROUP BY window_start, window_end";
    firsts: wide(314), "SELECT window_start, window_end, k, first_value(dec ORDER BY ts, s, v, n) AS dec, \
        first_value(bool ORDER BY ts, s, v, n) AS bool, last_value(list ORDER BY ts, s, v, n) AS list, \
        last_value(dict ORDER BY ts, s, v, n) AS dict, first_value(fixed ORDER BY ts, s, v, n) AS fixed, \
        first_value(pair ORDER BY ts, s, v, n) AS pair, last_value(map ORDER BY ts, s, v, n) AS map FROM \
        TUMBLE(a, ts, INTERVAL '12 hours') GROUP BY window_start, window_end, k";
    lists_of_anything: wide(315), "SELECT window_start, window_end, k, array_agg(dec ORDER BY ts, s, v, n) AS decs, \
        array_agg(pair ORDER BY ts, s, v, n) AS pairs, array_agg(list ORDER BY ts, s, v, n) AS lists, \
        array_agg(bin ORDER BY ts, s, v, n) AS bins, nth_value(text, 2 ORDER BY ts, s, v, n) AS second, \
        array_agg(n ORDER BY list DESC, pair['b'], date, ts, s, v, n) AS ns, array_agg(DISTINCT date ORDER BY date) AS dates \
        FROM TUMBLE(a, ts, INTERVAL '1 day') GROUP BY window_start, window_end, k";
    unnested: wide(316), "SELECT ts, k, unnest(list) AS x FROM a WHERE n > 0";
    several_unnested: wide(317), "SELECT ts, unnest(list) AS x, unnest([n, n + 1]) AS y, unnest(pair) FROM a";
    unnested_below: wide(318), "SELECT window_start, window_end, x, count(*) AS c, sum(v) AS total FROM \
        (SELECT window_start, window_end, v, unnest(list) AS x FROM TUMBLE(a, ts, INTERVAL '6 hours')) AS t \
        WHERE x > 3 GROUP BY window_start, window_end, x";
    unnested_above: wide(319), "SELECT window_start, window_end, k, unnest(array_agg(v ORDER BY ts, s, v, n)) AS v FROM \
        TUMBLE(a, ts, INTERVAL '12 hours') GROUP BY window_start, window_end, k";
    distinct: wide(320), "SELECT DISTINCT window_start, window_end, k, date FROM TUMBLE(a, ts, INTERVAL '6 hours') WHERE n > 0";
}

/// Ties in columns that only the rest of the row decides, of types that take some comparing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ties_of_a_wide_row() {
    let view = "SELECT window_start, window_end, first_value(list ORDER BY n) AS list, last_value(pair ORDER BY n DESC) AS pair, \
                array_agg(text ORDER BY u8) AS texts FROM TUMBLE(a, ts, INTERVAL '12 hours') GROUP BY window_start, window_end";
    let mut case = Case::over([("a", wide(321))], view);
    let oracle = view.replace("BY n)", "BY n, ts, k, s, v)").replace("BY u8)", "BY u8, ts, k, s, v, n)");
    case.oracle = Some(oracle.replace("BY n DESC)", "BY n DESC, ts DESC, k DESC, s DESC, v DESC)"));
    holds(case).await;
}

/// Late rows are kept whatever their columns are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_rows_of_every_type() {
    let shape = Shape { grain: Grain::Hour, leaks: 200, timeless: 50, partitions: 12, ..Shape::default() };
    let facts = Facts { wide: true, ..Facts::draw(shape, 322) };
    let sql = "SELECT window_start, window_end, count(*) AS c, count(time) AS times, count(at_ns) AS ns, count(big) AS bigs, \
               count(map) AS maps, count(u64) AS u FROM TUMBLE(a, ts, INTERVAL '1 hour') GROUP BY window_start, window_end";
    let mut case = Case::over([("a", facts)], sql);
    case.options = ", max_leak = '0 s'".into();
    let world = World::new(&case);
    let engine = world.engine(&variants()[1], 0, Stores::default());
    let summary = once(&engine, &world.text(&case), false, true).await.unwrap();
    assert!(summary.total.late > 0 && summary.total.bad > 0, "{:?}", summary.total);
    holds(case).await;
}

/// What a table cannot hold is refused with what to write instead, and that is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_table_holds() {
    for (column, instead) in [
        ("time", "CAST(x AS VARCHAR)"),
        ("ts - TIMESTAMP '2026-01-01'", "CAST(x AS VARCHAR)"),
        ("NULL", "CAST(x AS VARCHAR)"),
        ("arrow_cast(v, 'Decimal256(50, 3)')", "CAST(x AS DECIMAL(38, 3))"),
    ] {
        let case = Case::over([("a", wide(323))], &format!("SELECT ts, {column} AS x FROM a"));
        let world = World::new(&case);
        let engine = world.engine(&variants()[0], 0, Stores::default());
        let error = once(&engine, &world.text(&case), false, false).await.unwrap_err();
        assert!(error.contains("column `x` is") && error.contains(instead), "{error}");
        let mended =
            Case::over([("a", wide(323))], &format!("SELECT ts, {} AS x FROM a", instead.replace('x', column)));
        once(&engine, &world.text(&mended), false, false).await.unwrap_or_else(|e| panic!("{instead}: {e}"));
    }
}
