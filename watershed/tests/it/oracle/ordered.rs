//! Aggregates with ORDER BY inside, over facts with many ties. A view breaks them by the whole row; the oracle, which knows
//! nothing of that, is told the rest of the row in words: `ORDER BY ts + REST` in a case stands for both.

use watershed_core::time::Grain;

use super::check::{Case, check};
use super::facts::{Facts, Shape};

fn untidy(seed: u64) -> Facts {
    Facts::draw(Shape { leaks: 60, timeless: 15, holes: 3, partitions: 5, keys: 3, ..Shape::default() }, seed)
}

fn hourly(seed: u64) -> Facts {
    Facts::draw(Shape { grain: Grain::Hour, partitions: 30, rows: 25, leaks: 40, ..Shape::default() }, seed)
}

/// `calls` over a window of `size` by `keys`. In a call, ` +` and ` -` after its order mark where the rest of the row
/// decides, in the direction of the order's last expression.
async fn holds(facts: Facts, size: &str, keys: &str, calls: &str) {
    let named = keys.rsplit(" AS ").next().unwrap().trim_start_matches(", ");
    let group = if keys.is_empty() { String::new() } else { format!(", {named}") };
    let sql = format!(
        "SELECT window_start, window_end{keys}, {calls} FROM TUMBLE(a, ts, INTERVAL '{size}') \
         GROUP BY window_start, window_end{group}"
    );
    let mut case = Case::over([("a", facts)], &sql.replace(" +)", ")").replace(" -)", ")"));
    case.oracle = Some(completed(&sql));
    check(&case).await.unwrap_or_else(|e| panic!("{e}"));
}

/// The query with every marked order written out, each column once.
fn completed(sql: &str) -> String {
    let Some(at) = [" +)", " -)"].iter().filter_map(|mark| sql.find(mark)).min() else { return sql.to_string() };
    let (before, after) = sql.split_at(at);
    let order = before.rsplit("ORDER BY ").next().unwrap();
    let named: Vec<&str> =
        order.split(", ").map(|e| e.split(" NULLS").next().unwrap().trim_end_matches(" DESC")).collect();
    let direction = if after.starts_with(" -") { " DESC" } else { "" };
    let rest = ["ts", "k", "s", "v", "n"].into_iter().filter(|c| !named.contains(c));
    let rest: String = rest.map(|c| format!(", {c}{direction}")).collect();
    format!("{before}{rest}){}", completed(&after[" +)".len()..]))
}

#[test]
fn orders_are_completed() {
    let sql = "a(x ORDER BY n DESC -), b(y ORDER BY abs(n), ts NULLS FIRST, v +) c(z ORDER BY k)";
    let completed = completed(sql);
    assert_eq!(
        completed,
        "a(x ORDER BY n DESC, ts DESC, k DESC, s DESC, v DESC), b(y ORDER BY abs(n), ts NULLS FIRST, v, k, s, n) c(z ORDER BY k)"
    );
}

macro_rules! cases {
    ($($name:ident: $facts:expr, $size:expr, $keys:expr, $calls:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            holds($facts, $size, $keys, $calls).await;
        }
    )*};
}

cases! {
    first_and_last: untidy(201), "6 hours", ", k",
        "first_value(v ORDER BY n +) AS first, last_value(v ORDER BY n +) AS last, count(*) AS c";
    first_and_last_descending: untidy(202), "1 day", ", k",
        "first_value(s ORDER BY n DESC -) AS first, last_value(s ORDER BY n DESC -) AS last";
    first_and_last_of_one_row: untidy(203), "1 day", "",
        "first_value(ts ORDER BY n +) AS t, first_value(k ORDER BY n +) AS k, first_value(s ORDER BY n +) AS s, \
         first_value(v ORDER BY n +) AS v";
    ignoring_nulls: untidy(204), "3 hours", ", k",
        "first_value(v ORDER BY ts +) IGNORE NULLS AS first, last_value(s ORDER BY ts +) IGNORE NULLS AS last";
    filtered: untidy(205), "1 day", ", k",
        "first_value(v ORDER BY ts +) FILTER (WHERE n > 10) AS first, \
         array_agg(n ORDER BY ts +) FILTER (WHERE v > 0) AS ns, string_agg(s, '-' ORDER BY ts +) FILTER (WHERE n % 2 = 0) AS texts";
    lists: untidy(206), "12 hours", ", k",
        "array_agg(v ORDER BY ts +) AS vs, array_agg(s ORDER BY v DESC -) AS texts, array_agg(k ORDER BY s NULLS FIRST, n +) AS ks";
    lists_without_keys: hourly(207), "5 hours", "", "array_agg(n ORDER BY s, v DESC -) AS ns, sum(v) AS total";
    lists_of_few_rows: hourly(208), "10 minutes", ", s", "array_agg(v ORDER BY n +) AS vs, max(n) AS high";
    lists_without_nulls: untidy(209), "12 hours", ", k", "array_agg(v ORDER BY n +) IGNORE NULLS AS vs";
    texts: untidy(210), "1 day", ", k",
        "string_agg(s, ', ' ORDER BY n +) AS texts, string_agg(upper(s), '' ORDER BY n +) AS upper";
    distinct_lists: untidy(211), "1 day", ", k",
        "array_agg(DISTINCT n ORDER BY n) AS up, array_agg(DISTINCT s ORDER BY s DESC NULLS LAST) AS down, \
         string_agg(DISTINCT s, ',' ORDER BY s) AS texts";
    the_second_and_the_last_but_one: untidy(212), "6 hours", ", k",
        "nth_value(v, 2 ORDER BY n +) AS second, nth_value(v, -2 ORDER BY n +) AS last_but_one, nth_value(s, 40 ORDER BY n +) AS none";
    an_order_and_its_reverse: untidy(213), "6 hours", ", k",
        "nth_value(v, 2 ORDER BY n +) AS second, nth_value(v, 2 ORDER BY n DESC -) AS last_but_one";
    over_expressions: untidy(214), "1 day", ", k % 2 AS parity",
        "array_agg(v * 2 ORDER BY abs(n) +) AS doubles, first_value(upper(s) ORDER BY v - n DESC -) AS text";
    within_a_group: untidy(215), "1 day", ", k",
        "percentile_cont(0.25) WITHIN GROUP (ORDER BY v) AS quarter, percentile_cont(0.5) WITHIN GROUP (ORDER BY n DESC) AS middle";
}

/// An expression over an ordered aggregate, and one in HAVING.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn around_it() {
    let sql = "SELECT window_start, window_end, array_length(array_agg(v ORDER BY ts, k, s, v, n)) AS length, \
               last_value(v ORDER BY ts, k, s, v, n) - first_value(v ORDER BY ts, k, s, v, n) AS change \
               FROM TUMBLE(a, ts, INTERVAL '4 hours') GROUP BY window_start, window_end \
               HAVING first_value(n ORDER BY ts, k, s, v, n) > 5";
    check(&Case::over([("a", untidy(216))], sql)).await.unwrap_or_else(|e| panic!("{e}"));
}
