//! Statements: what is read from a text, and that the normalised text reads back as the same.

use watershed_core::error::Place;
use watershed_core::time::Span;
use watershed_plan::{ExternalFormat, Kind, Statement, parse};

const SCRIPT: &str = "-- What ${THIS} says does not matter.
SET parallelism = 4;
create source Flights (watermark for DATE as date - interval '10 minutes')
  with (lake = '${ROOT}/flights', bounded = true, max_leak = interval '2 hours');
CREATE SOURCE \"Odd Name\" WITH (lake='x');
CREATE TABLE t (a INT NOT NULL, b TIMESTAMP, c VARCHAR, d DECIMAL(10, 2), e ARRAY<BIGINT>, f TIMESTAMPTZ, g ARRAY<STRUCT<key VARCHAR, \"Its Value\" BYTEA>>, h MAP(VARCHAR, STRUCT<x DOUBLE>))
  WITH (location = 's3://b/t', partition_by = 'day(b)');
CREATE OR REPLACE VIEW late_ones AS SELECT * FROM flights WHERE delay > 10;
CREATE MATERIALIZED VIEW IF NOT EXISTS hourly WITH (location = 'y') AS
  SELECT window_start, count(*) AS n FROM TUMBLE(flights, date, INTERVAL '1' HOUR) GROUP BY window_start;
INSERT INTO t WITH (job = 'second') SELECT 1, date, origin FROM flights;
INSERT INTO t WITH c AS (SELECT * FROM flights) SELECT * FROM c;
DROP MATERIALIZED VIEW IF EXISTS hourly KEEP TABLE; DROP SOURCE flights;
EXPLAIN SELECT 1;
DESCRIBE flights;;
SELECT 'a;b' AS x;
CREATE EXTERNAL TABLE IF NOT EXISTS airports (iata VARCHAR NOT NULL, lat DOUBLE) STORED AS CSV LOCATION '${ROOT}/airports.csv'
  WITH (delimiter = ';');
create or replace external table d stored as delta with (endpoint = 'http://h') location 'd';
DROP EXTERNAL TABLE airports;
create source log (At TIMESTAMP, city VARCHAR NOT NULL, watermark for at as at - interval '1 minute', _offset BIGINT)
  with (tail = 'kafka://b/t', format = json, kafka.Security.protocol = 'ssl', kafka.sasl.password = '${PASSWORD}');
explain handover log";

fn script() -> Vec<watershed_plan::Parsed> {
    parse(SCRIPT, &|name| {
        let known = [("ROOT", "s3://it's"), ("PASSWORD", "secret")];
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
    })
    .unwrap()
}

#[test]
fn a_text_is_split_into_statements() {
    let all = script();
    assert_eq!(all.len(), 18);
    let Statement::CreateSource(log) = &all[16].statement else { panic!("{:?}", all[16]) };
    let columns: Vec<_> =
        log.columns.iter().flat_map(|c| c.fields()).map(|f| (f.name().as_str(), f.is_nullable())).collect();
    assert_eq!(columns, [("at", true), ("city", false), ("_offset", true)]);
    assert_eq!((log.time_column.as_deref(), log.delay), (Some("at"), Span::MINUTE));
    let options: Vec<_> = log.options.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        options[2..],
        [("kafka.security.protocol", "ssl"), ("kafka.sasl.password", "${PASSWORD}")],
        "a secret keeps its variable's name"
    );
    assert!(matches!(&all[17].statement, Statement::Handover(name) if name == "log"));
    assert!(matches!(&all[0].statement, Statement::Set { name, value } if name == "parallelism" && value == "4"));
    let Statement::CreateSource(source) = &all[1].statement else { panic!("{:?}", all[1]) };
    assert_eq!((source.name.as_str(), source.time_column.as_deref()), ("flights", Some("date")));
    assert_eq!(source.delay, Span(10 * Span::MINUTE.0));
    let options: Vec<_> = source.options.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(options, [("lake", "s3://it's/flights"), ("bounded", "true"), ("max_leak", "2 hours")]);
    assert!(matches!(&all[2].statement, Statement::CreateSource(s) if s.name == "Odd Name" && s.time_column.is_none()));
    let Statement::CreateTable(table) = &all[3].statement else { panic!("{:?}", all[3]) };
    assert_eq!(table.columns.fields().len(), 8);
    assert!(!table.columns.field(0).is_nullable() && table.columns.field(1).is_nullable());
    assert!(matches!(&all[4].statement, Statement::CreateView(v) if v.or_replace && v.name == "late_ones"));
    let Statement::CreateMaterializedView(view) = &all[5].statement else { panic!("{:?}", all[5]) };
    assert!(view.if_not_exists && !view.or_replace && view.options.len() == 1);
    assert!(matches!(&all[6].statement, Statement::Insert(i) if i.options == [("job".into(), "second".into())]));
    assert!(matches!(&all[7].statement, Statement::Insert(i) if i.options.is_empty() && i.query.with.is_some()));
    assert!(matches!(&all[8].statement, Statement::Drop(d)
        if d.kind == Kind::MaterializedView && d.if_exists && d.keep_table && d.name == "hourly"));
    assert!(matches!(&all[9].statement, Statement::Drop(d) if d.kind == Kind::Source && !d.if_exists));
    assert!(matches!(&all[10].statement, Statement::Explain(of) if of.text == "SELECT 1"));
    assert!(matches!(&all[11].statement, Statement::Describe(name) if name == "flights"));
    let Statement::CreateExternalTable(table) = &all[13].statement else { panic!("{:?}", all[13]) };
    assert_eq!((table.name.as_str(), table.format, table.if_not_exists), ("airports", ExternalFormat::Csv, true));
    assert_eq!((table.location.as_str(), table.options.len()), ("s3://it's/airports.csv", 1));
    assert!(table.columns.as_ref().is_some_and(|c| c.fields().len() == 2 && !c.field(0).is_nullable()));
    assert!(matches!(&all[14].statement, Statement::CreateExternalTable(t)
        if t.or_replace && t.columns.is_none() && t.format == ExternalFormat::Delta && t.options.len() == 1));
    assert!(matches!(&all[15].statement, Statement::Drop(d) if d.kind == Kind::ExternalTable));
    assert_eq!(all[0].at, Place { line: 2, column: 1 });
    assert_eq!(all[12].at, Place { line: 16, column: 1 });
}

#[test]
fn the_normalised_text_reads_back_as_the_same() {
    for parsed in script() {
        let again = parse(&parsed.text, &|name| Some(format!("${{{name}}}"))).unwrap();
        assert_eq!(again.len(), 1, "{}", parsed.text);
        assert_eq!(again[0].text, parsed.text);
    }
}

#[test]
fn layout_and_comments_do_not_change_the_text() {
    let texts = ["select  A,\n b from T -- x", "SELECT A, b FROM T"];
    let texts = texts.map(|text| parse(text, &|_| None).unwrap().remove(0).text);
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn errors_point_at_their_place() {
    let cases = [
        ("SELECT 1;\n  FROB x", "line 2, column 3: expected a statement"),
        ("CREATE SOURCE s (a INT) WITH (lake = 'x')", "line 1, column 18: expected WATERMARK FOR"),
        (
            "CREATE SOURCE s (a INT) WITH (lake = 'x', tail = 'kafka://b/t')",
            "line 1, column 18: a source with a lake has the columns of its table",
        ),
        (
            "CREATE SOURCE s (a INT PRIMARY KEY) WITH (tail = 't')",
            "line 1, column 18: PRIMARY KEY: a log has every message",
        ),
        ("CREATE SOURCE s (WATERMARK FOR a AS b) WITH (lake='x')", "line 1, column 37: a watermark is written"),
        (
            "CREATE SOURCE s (WATERMARK FOR a AS a - INTERVAL '1 month')",
            "line 1, column 41: a delay is an INTERVAL of fixed",
        ),
        ("CREATE SOURCE a.b WITH (lake='x')", "line 1, column 15: a.…: names have one part"),
        ("CREATE SOURCE s WITH (lake='x', LAKE='y')", "line 1, column 33: option lake is given twice"),
        ("CREATE SOURCE s WITH (lake)", "line 1, column 27: expected = and a value, found )"),
        ("CREATE TABLE t AS SELECT 1", "line 1, column 16: expected the table's columns"),
        ("CREATE TABLE t (a INT, b JSON)", "line 1, column 24: b: type JSON is not supported"),
        ("CREATE TABLE t (a INT, UNIQUE (a))", "constraints other than PRIMARY KEY are not supported yet"),
        ("CREATE TABLE t (a INT, PRIMARY KEY (b))", "PRIMARY KEY: there is no column b; the columns are a"),
        ("CREATE TABLE t (a INT DEFAULT 1)", "line 1, column 17: a: DEFAULT 1 is not supported yet"),
        (
            "CREATE INDEX i ON t (a)",
            "line 1, column 8: expected SOURCE, MATERIALIZED VIEW, VIEW, SINK, TABLE or EXTERNAL TABLE",
        ),
        ("INSERT INTO t (a) SELECT 1", "line 1, column 15: a list of columns is not supported yet"),
        ("DROP TABLE t KEEP TABLE", "line 1, column 14: KEEP TABLE goes with"),
        ("SELECT 1 FROM t t2 t3", "line 1, column 20: expected the end of the statement, or ;, found t3"),
        ("SELECT 'abc", "Unterminated string literal"),
        ("SELECT\n (1", "line 2, column 4: Expected: ), found: EOF"),
        ("SELECT '${X}'", "line 1, column 9: ${X} is not set: give it with --var X="),
    ];
    for (text, expected) in cases {
        let message = parse(text, &|_| None).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}\n  {message}\n  {expected}");
    }
}

#[test]
fn variables_do_not_shift_places() {
    let text = "SELECT '${V}', ! FROM t";
    let message = parse(text, &|_| Some("a long\nvalue".into())).unwrap_err().to_string();
    assert!(message.starts_with("line 1, column "), "{message}");
    let text = "CREATE VIEW ${V} AS\nFROB";
    let message = parse(text, &|_| Some("v".into())).unwrap_err().to_string();
    assert!(message.starts_with("line 2, column 1: "), "{message}");
}

#[test]
fn a_key_is_kept_however_it_was_written() {
    let text = |sql: &str| parse(sql, &|_| None).unwrap().remove(0).text;
    let constraint = text("create table t (a int, \"B\" int, primary key (\"B\", a))");
    assert_eq!(constraint, "CREATE TABLE t (a INT, \"B\" INT, PRIMARY KEY (\"B\", a))");
    assert_eq!(text(&constraint), constraint);
    assert_eq!(text("CREATE TABLE t (a INT PRIMARY KEY)"), "CREATE TABLE t (a INT, PRIMARY KEY (a))");
}

#[test]
fn a_sink_is_read_back_as_it_is_written() {
    let text = "CREATE OR REPLACE SINK IF NOT EXISTS out WITH (topic = 'kafka://b:9092/t', kafka.linger.ms = '9') AS SELECT a FROM s";
    let parsed = parse(text, &|_| None).unwrap().remove(0);
    let Statement::CreateSink(sink) = &parsed.statement else { panic!("{parsed:?}") };
    assert!(sink.or_replace && sink.if_not_exists && sink.options.len() == 2);
    assert_eq!(parsed.text, text);
    let dropped = parse("drop sink if exists out", &|_| None).unwrap().remove(0);
    assert!(matches!(&dropped.statement, Statement::Drop(d) if d.kind == Kind::Sink && d.if_exists));
}
