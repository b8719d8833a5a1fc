//! Sources that declare no columns: what is inferred of a sample, that it stays as it is, and what is said where nothing can be.

use std::fs;
use std::thread;
use std::time::Duration;

use super::broker::Broker;
use super::broker::topics::{Header, Message};
use super::world::{World, hours, rides};
use crate::binary::all_said;

const SOURCE: &str = "
CREATE SOURCE log (WATERMARK FOR at AS at - INTERVAL '10 minutes') WITH (tail = '${TOPIC}', format = 'json');
";

const HOURLY: &str = "
CREATE MATERIALIZED VIEW hourly WITH (location = '${DIR}/hourly') AS
SELECT window_start, city, count(*) AS rides, sum(km) AS km
FROM TUMBLE(log, at, INTERVAL '1 hour') GROUP BY window_start, city;
";

/// A view that any source can have.
const ANY: &str = "CREATE MATERIALIZED VIEW some WITH (location = '${DIR}/some') AS SELECT * FROM log;";

fn text(text: &str) -> Message {
    (0, None, Some(text.as_bytes().to_vec()), None)
}

impl World<'_> {
    /// The names of a relation's columns and their types.
    fn described(&self, name: &str) -> Vec<String> {
        let out = self.command(&["describe", name]).output().unwrap();
        assert!(out.status.success(), "{}", all_said(&out));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }
}

#[test]
fn columns_are_those_of_a_sample_and_stay_so() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "inferred", 3);
    let all = rides(61, 0..3_000, 30);
    world.produce(&all[..2_000]);
    broker.produce("inferred", ["{\"at\":", "[1]"].map(text));
    // A plan looks, and keeps nothing.
    let file = world.sql(&[SOURCE, HOURLY]);
    let planned = world.command(&["plan", &file]).output().unwrap();
    assert!(planned.status.success(), "{}", all_said(&planned));
    assert!(!world.dir.path().join(".watershed/catalog").exists());

    let said = world.run(&[SOURCE, HOURLY], &[]);
    let told = "columns of source log, from 1000 messages (2 could not be read): at TIMESTAMP, city VARCHAR, km BIGINT, n BIGINT";
    assert!(said.contains(told), "{said}");
    let columns = ["at Timestamp(µs) event time", "city Utf8", "km Int64", "n Int64"];
    assert_eq!(world.described("log"), columns);

    // Later messages change nothing of what the source means, not even that of a run that was killed.
    let mut running = world.start(&[SOURCE, HOURLY], &[]);
    thread::sleep(Duration::from_millis(700));
    world.produce(&all[2_000..]);
    let later = [r#"{"at":"2026-01-02T01:00:00Z","city":"c1","km":"far","n":1}"#, r#"{"more":1,"km":7,"city":"x"}"#];
    broker.produce("inferred", later.map(text));
    running.kill().unwrap();
    running.wait().unwrap();
    let said = world.run(&[SOURCE, HOURLY], &["--final"]);
    assert!(!said.contains("columns of source"), "{said}");
    assert_eq!(world.described("log"), columns);
    assert_eq!(world.hourly(), hours(&all));
    let errors = world
        .query("SELECT _error FROM hourly_late WHERE _reason = 'malformed' AND _payload IS NOT NULL ORDER BY _row");
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("column 'km': 'far' is no BIGINT")), "{errors:?}");

    // With another sample the source is declared anew.
    let anew = SOURCE.replace("CREATE", "CREATE OR REPLACE").replace("'json'", "'json', sample = '6'");
    let said = world.run(&[&anew], &[]);
    assert!(
        said.contains("columns of source log, from ") && said.contains("km VARCHAR, n BIGINT, more BIGINT"),
        "{said}"
    );
}

#[test]
fn columns_of_the_message_itself_are_declared_beside() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "inferred_beside", 1);
    let trace: &[Header<'_>] = &[("trace", Some(b"t"))];
    let message = r#"{"at":"2026-01-01T00:00:00Z","home":{"zip":7,"Tags":["a"]},"_offset":99,"ratio":0.5,"big":18446744073709551615}"#;
    broker.produce_with_headers("inferred_beside", 0, &[(message, trace), (r#"{"ratio":1,"odd":[]}"#, &[])]);
    broker.produce("inferred_beside", [text(r#"{"odd":1}"#)]);
    let declared = SOURCE.replace(
        "(WATERMARK",
        "(_part INT, _offset BIGINT NOT NULL, _headers ARRAY<STRUCT<key VARCHAR, value BYTEA>>, WATERMARK",
    );
    let said = world.run(&[&declared, ANY], &[]);
    let told = "columns of source log, from 3 messages, without 'odd': it is a list or an object in one message and something else \
                in another: _part INT, _offset BIGINT NOT NULL, _headers ARRAY<STRUCT<key VARCHAR, value BYTEA>>, at TIMESTAMP, \
                home STRUCT<zip BIGINT, \"Tags\" ARRAY<VARCHAR>>, ratio DOUBLE, big DECIMAL(20, 0)";
    assert!(said.contains(told), "{said}");
    let rows = world.query(
        "SELECT _offset, home['zip'], home['Tags'][1], ratio, big, TRY_CAST(header(_headers, 'trace') AS VARCHAR) FROM some ORDER BY _offset",
    );
    assert_eq!(rows, ["0,7,a,0.5,18446744073709551615,t", "1,,,1.0,,", "2,,,,,"]);
}

#[test]
fn columns_of_other_formats() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "inferred_raw", 1);
    broker.produce("inferred_raw", [text("as it is")]);
    let raw = SOURCE.replace("WATERMARK FOR at AS at", "_timestamp TIMESTAMP, WATERMARK FOR _timestamp AS _timestamp");
    world.run(&[&raw.replace("'json'", "'raw'"), ANY], &[]);
    assert_eq!(world.query("SELECT CAST(value AS VARCHAR) FROM some"), ["as it is"]);

    // Descriptors say what columns there are; beside those of the message itself they are fixed, too.
    let world = World::new(broker, "inferred_protobuf", 1);
    let of_formats = concat!(env!("CARGO_MANIFEST_DIR"), "/../connectors/formats/tests/data/protobuf");
    fs::copy(format!("{of_formats}/shop.binpb"), world.dir.path().join("shop.binpb")).unwrap();
    broker.produce("inferred_protobuf", [(0, None, Some(vec![0x1a, 3, 8, 0x80, 1, 0x28, 1]), None)]);
    let protobuf = "
        CREATE SOURCE log (_offset BIGINT, WATERMARK FOR at AS at) WITH (
            tail = '${TOPIC}', format = 'protobuf', protobuf.descriptors = '${DIR}/shop.binpb', protobuf.message = 'shop.Event'
        );
    ";
    let said = world.run(&[protobuf, ANY], &[]);
    let told = "columns of source log, by format 'protobuf': _offset BIGINT, at TIMESTAMP WITH TIME ZONE, city VARCHAR";
    assert!(said.contains(told) && said.contains("kinds MAP(VARCHAR, VARCHAR)"), "{said}");
    assert_eq!(world.query("SELECT _offset, at, kind FROM some"), ["0,1970-01-01T00:02:08Z,BUY"]);

    let world = World::new(broker, "inferred_changes", 1);
    let change = |op: &str, image: &str, name: &str| {
        text(&format!(r#"{{"{image}":{{"id":1,"name":"{name}"}},"op":"{op}","source":{{"ts_ms":1767225600000}}}}"#))
    };
    broker.produce("inferred_changes", [change("c", "after", "Ann"), change("u", "after", "Bea")]);
    let mirror = "
        CREATE SOURCE log (_offset BIGINT) WITH (tail = '${TOPIC}', format = 'debezium-json');
        CREATE TABLE customers (id BIGINT, name VARCHAR, version BIGINT, PRIMARY KEY (id))
        WITH (location = '${DIR}/customers', sequence_by = 'version');
        INSERT INTO customers WITH (operation = '_op') SELECT id, name, _offset, _op FROM log;
    ";
    let said = world.run(&[mirror], &[]);
    let told = "from 2 messages: _offset BIGINT, id BIGINT, name VARCHAR, _op VARCHAR, _changed_at TIMESTAMP";
    assert!(said.contains(told), "{said}");
    assert_eq!(world.query("SELECT id, name, version FROM customers"), ["1,Bea,1"]);
}

#[test]
fn a_sample_is_the_newest_messages_that_there_are() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "inferred_newest", 1);
    let at = r#""at":"2026-01-01T00:00:00Z""#;
    broker.produce("inferred_newest", [text(&format!("{{{at},\"old\":1}}")), text(&format!("{{{at},\"new\":1}}"))]);
    let one = SOURCE.replace("'json'", "'json', sample = 1");
    let said = world.run(&[&one], &[]);
    assert!(said.contains("from 1 messages: at TIMESTAMP, new BIGINT"), "{said}");
    // What was given up is not there; what is before it is asked then.
    broker.produce_transaction("inferred_newest", [text("{}"), text("{}")], false);
    let two = one.replace("CREATE", "CREATE OR REPLACE").replace("sample = 1", "sample = 2");
    let said = world.run(&[&two], &[]);
    assert!(said.contains("from 2 messages: at TIMESTAMP, old BIGINT, new BIGINT"), "{said}");
}

#[test]
fn what_cannot_be_inferred_has_to_be_declared() {
    let Some(broker) = Broker::shared() else { return };
    let world = World::new(broker, "inferred_not", 2);
    let advice = "declare the columns: CREATE SOURCE log (ts TIMESTAMP, …, WATERMARK FOR ts AS ts) …";
    let refused = |source: &str, expected: &str| {
        let said = world.refused(&[source, ANY], &[]);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("fault in Watershed"), "{said}");
        said
    };
    let said = refused(SOURCE, "inferred_not has no messages yet that would say what they hold");
    assert!(said.contains(advice) && said.contains("line 2, column 1"), "{said}");
    broker.produce("inferred_not", [(1, Some(b"k".to_vec()), None, None)]);
    refused(SOURCE, "has no messages yet");
    broker.produce("inferred_not", ["no", "{"].map(text));
    let said =
        refused(SOURCE, "of 2 messages none can be read as format 'json', the first of them, at offset 0 of part 0: ");
    assert!(said.contains(advice), "{said}");
    broker.produce("inferred_not", [text(r#"{"at":1767225600000,"n":1}"#)]);
    let said = refused(SOURCE, "the watermark speaks of at, which is no TIMESTAMP but BIGINT");
    assert!(said.contains("json.timestamp = 'ms'"), "{said}");
    refused(&SOURCE.replace("FOR at AS at", "FOR ts AS ts"), "the watermark speaks of ts, and there are at, n");
    refused(&SOURCE.replace("'json'", "'csv'"), "messages of format 'csv' have no names for their columns");
    refused(&SOURCE.replace("'json'", "'jsn'"), "did you mean json?");
    refused(&SOURCE.replace("'json'", "'json', sample = 0"), "give how many messages are looked at");
    let declared = SOURCE.replace("(WATERMARK", "(at TIMESTAMP, WATERMARK").replace("'json'", "'json', sample = 5");
    refused(&declared, "`sample` is for a log whose columns are inferred");
    refused(
        "CREATE SOURCE log WITH (lake = '${DIR}/lake', sample = 5);",
        "`sample` speaks of a log, and there is none",
    );
    refused(&SOURCE.replace("${TOPIC}", "${TOPIC}_missing"), advice);
    let closed = SOURCE.replace("${TOPIC}", "kafka://127.0.0.1:1/nowhere");
    refused(&closed, advice);
    let generated = "CREATE SOURCE log WITH (tail = 'generate://');";
    refused(generated, "say what columns its rows have");

    // Nothing was kept of all that, and with the unit there is a time.
    world.run(&[&SOURCE.replace("'json'", "'json', json.timestamp = 'ms'"), ANY], &[]);
    assert_eq!(world.query("SELECT at, n FROM some"), ["2026-01-01T00:00:00Z,1"]);
}
