//! Headers of messages: read as they were written, archived and read back, kept with what cannot be read and played back.

use super::broker::Broker;
use super::broker::topics::Header;
use super::world::World;
use crate::binary::all_said;

const SOURCE: &str = "
CREATE OR REPLACE SOURCE log (
    at TIMESTAMP, n INT, _headers ARRAY<STRUCT<key VARCHAR, value BYTEA>>, WATERMARK FOR at AS at - INTERVAL '10 minutes'
) WITH (tail = '${TOPIC}', format = 'json');
";

const ARCHIVE: &str = "
CREATE TABLE archived (at TIMESTAMP, n BIGINT, _headers ARRAY<STRUCT<key VARCHAR, value BYTEA>>)
WITH (location = '${DIR}/archived', partition_by = 'day(at)');
INSERT INTO archived SELECT at, CAST(n AS BIGINT), _headers FROM log;
";

const VIEWS: &str = "
CREATE MATERIALIZED VIEW traces WITH (location = '${DIR}/traces') AS
SELECT CAST(n AS BIGINT) AS n, TRY_CAST(header(_headers, 'trace') AS VARCHAR) AS trace, cardinality(_headers) AS headers FROM log;
CREATE MATERIALIZED VIEW by_tenant WITH (location = '${DIR}/by_tenant') AS
SELECT window_start, TRY_CAST(header(_headers, 'tenant') AS VARCHAR) AS tenant, count(*) AS messages
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, TRY_CAST(header(_headers, 'tenant') AS VARCHAR);
";

/// All headers of a table, one a line, with their places.
const ALL: &str = "SELECT n, i, _headers[i]['key'], encode(_headers[i]['value'], 'hex') FROM (
    SELECT n, _headers, unnest(range(1, CAST(cardinality(_headers) AS BIGINT) + 1)) AS i FROM archived
) ORDER BY n, i";

fn payload(n: i64) -> String {
    format!(r#"{{"at":"2026-01-01T00:00:{n:02}Z","n":{n}}}"#)
}

#[test]
fn headers_are_a_column_that_is_archived_and_read_back() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "with_headers", 1);
    let tenant: Header<'_> = ("tenant", Some(b"a"));
    let texts: Vec<String> = (0..8).map(payload).collect();
    let odd: [&[Header<'_>]; 5] = [
        &[tenant, ("trace", Some("größe".as_bytes()))],
        &[],
        &[tenant, ("trace", Some(b"first")), ("trace", Some(b"second")), tenant],
        &[("trace", None), ("", Some(b"")), ("tenant", Some(b"b"))],
        &[("trace", Some(b"\xff\xfe\x00")), ("größe", Some(b"x"))],
    ];
    let messages: Vec<_> = texts.iter().map(String::as_str).zip(odd).collect();
    broker.produce_with_headers("with_headers", 0, &messages);
    world.run(&[SOURCE, ARCHIVE, VIEWS], &[]);
    // Another run goes on with the same column.
    broker.produce_with_headers("with_headers", 0, &[(&texts[5], &[tenant]), (&texts[6], &[])]);
    world.run(&[SOURCE, ARCHIVE, VIEWS], &["--final"]);

    let expected = [
        "0,1,tenant,61",
        "0,2,trace,6772c3b6c39f65",
        "2,1,tenant,61",
        "2,2,trace,6669727374",
        "2,3,trace,7365636f6e64",
        "2,4,tenant,61",
        "3,1,trace,",
        "3,2,,",
        "3,3,tenant,62",
        "4,1,trace,fffe00",
        "4,2,größe,78",
        "5,1,tenant,61",
    ];
    assert_eq!(world.query(ALL), expected);
    let nulls = "SELECT count(*) FILTER (WHERE _headers IS NULL), count(*) FILTER (WHERE cardinality(_headers) = 0),
                 count(*) FILTER (WHERE n = 3 AND _headers[1]['value'] IS NULL AND _headers[2]['value'] IS NOT NULL) FROM archived";
    assert_eq!(world.query(nulls), ["0,2,1"]);
    let traces = ["0,größe,2", "1,,0", "2,second,4", "3,,3", "4,,2", "5,,1", "6,,0"];
    assert_eq!(world.query("SELECT n, trace, headers FROM traces ORDER BY n"), traces);
    assert_eq!(
        world.query("SELECT tenant, messages FROM by_tenant ORDER BY tenant"),
        ["a,3", "b,1", ",3"],
        "a group of a header's value"
    );
    // The function reads what was archived, and the table's column is that of the log behind it.
    let again = "SELECT n, encode(header(_headers, 'trace'), 'hex') FROM archived WHERE header(_headers, 'trace') IS NOT NULL ORDER BY n";
    assert_eq!(world.query(again), ["0,6772c3b6c39f65", "2,7365636f6e64", "4,fffe00"]);
    let both = "
        CREATE SOURCE both WITH (lake = '${DIR}/archived', tail = '${TOPIC}', format = 'json');
        CREATE MATERIALIZED VIEW tenants WITH (location = '${DIR}/tenants') AS
        SELECT n, TRY_CAST(header(_headers, 'tenant') AS VARCHAR) AS tenant FROM both;
    ";
    broker.produce_with_headers("with_headers", 0, &[(&texts[7], &[("tenant", Some(b"of the log"))])]);
    world.run(&[both], &[]);
    let tenants = world.query("SELECT n, tenant FROM tenants WHERE tenant IS NOT NULL ORDER BY n");
    assert_eq!(tenants, ["0,a", "2,a", "3,b", "5,a", "7,of the log"]);
}

#[test]
fn headers_of_a_message_that_cannot_be_read_are_kept_and_played_back() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "headers_played_back", 1);
    let far = payload(7).replace(r#""n":7"#, r#""n":5000000000"#);
    let trace: &[Header<'_>] = &[("trace", Some(b"far")), ("trace", None), ("trace", Some(b"\xff"))];
    broker.produce_with_headers("headers_played_back", 0, &[(&payload(1), &[]), (&far, trace), ("{", &[("a", None)])]);
    world.run(&[SOURCE, ARCHIVE, VIEWS], &[]);
    let kept = "SELECT _row, cardinality(_headers), encode(_headers[3]['value'], 'hex') FROM archived_late \
                WHERE _reason = 'malformed' ORDER BY _row";
    assert_eq!(world.query(kept), ["1,3,ff", "2,1,"]);

    world.run(&[&SOURCE.replace("n INT", "n BIGINT")], &[]);
    for job in ["archived", "traces"] {
        let out = world.command(&["replay", job]).output().unwrap();
        assert!(all_said(&out).contains("1 were played back, 1 rows written"), "{}", all_said(&out));
    }
    assert_eq!(world.query(ALL), ["5000000000,1,trace,666172", "5000000000,2,trace,", "5000000000,3,trace,ff"]);
    assert_eq!(world.query(kept), ["2,1,"], "what still cannot be read keeps its headers");
    let traces = world.query("SELECT n, trace, headers FROM traces ORDER BY n");
    assert_eq!(traces, ["1,,0", "5000000000,,3"]);
    // The headers of this one are in no table, for no query reads them: they are no more empty than they are known.
    let out = world.command(&["replay", "by_tenant", "--dry-run"]).output().unwrap();
    assert!(all_said(&out).contains("1 can be read now"), "{}", all_said(&out));
}

#[test]
fn what_has_no_headers_says_so() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "without_headers", 1);
    let declared = SOURCE.replace("ARRAY<STRUCT<key VARCHAR, value BYTEA>>", "MAP(VARCHAR, BYTEA)");
    let refused = world.refused(&[&declared, "CREATE MATERIALIZED VIEW v AS SELECT n FROM log;"], &[]);
    assert!(
        refused.contains("_headers is the message's own, so it is ARRAY<STRUCT<key VARCHAR, value BYTEA>>"),
        "{refused}"
    );
    let files = SOURCE.replace("tail = '${TOPIC}'", "lake = '${DIR}/landing'");
    let refused = world.refused(&[&files, "CREATE MATERIALIZED VIEW v AS SELECT n FROM log;"], &[]);
    assert!(
        refused.contains("column _headers is of messages of a log, and files have none: leave it out"),
        "{refused}"
    );
    let refused = world.refused(&[SOURCE, "CREATE MATERIALIZED VIEW v AS SELECT header(n, 'a') AS a FROM log;"], &[]);
    assert!(refused.contains("header(headers, name) takes ARRAY<STRUCT<key VARCHAR, value BYTEA>>"), "{refused}");
    let generated = SOURCE.replace("tail = '${TOPIC}', format = 'json'", "tail = 'generate://', generate.rows = 3");
    let generated = generated.replace("SOURCE log", "SOURCE made");
    world.run(&[&generated, "CREATE MATERIALIZED VIEW v AS SELECT n, _headers IS NULL AS without FROM made;"], &[]);
    assert_eq!(
        world.query("SELECT DISTINCT without FROM v"),
        ["true"],
        "generated rows have none, as they have no key"
    );
}
