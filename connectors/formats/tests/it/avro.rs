//! Against messages that fastavro wrote (`tests/data/avro.py`), and a registry that runs here.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use watershed_core::Error;

use crate::oracle::{spoils, spoilt_ones_spoil_no_others};
use crate::{check, messages, open};

/// Schemas and records that fastavro wrote, by number.
pub(crate) struct Written(Value);

impl Written {
    fn read() -> Self {
        Written::of(include_str!("../data/avro.json"))
    }

    /// Those of such a file.
    pub(crate) fn of(file: &str) -> Self {
        Written(serde_json::from_str(file).unwrap())
    }

    pub(crate) fn schema(&self, id: u32) -> &str {
        self.0[id.to_string()]["schema"].as_str().unwrap()
    }

    pub(crate) fn record(&self, id: u32, at: usize) -> Vec<u8> {
        let hex = self.0[id.to_string()]["bodies"][at].as_str().unwrap();
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    pub(crate) fn framed(&self, id: u32, at: usize) -> Vec<u8> {
        [&[0], &id.to_be_bytes()[..], &self.record(id, at)].concat()
    }
}

/// Answers of a registry: by path, status and body. What has none is a schema that is not there.
pub(crate) struct Served {
    pub(crate) url: String,
    asked: Arc<AtomicUsize>,
    headers: Arc<Mutex<String>>,
}

pub(crate) fn serve(answers: Vec<(&'static str, u16, Value)>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, headers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let served = Served { url, asked: asked.clone(), headers: headers.clone() };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            *headers.lock().unwrap() = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
            asked.fetch_add(1, Ordering::SeqCst);
            let path = request.split(' ').nth(1).unwrap_or_default();
            let missing = (path, 404, json!({"error_code": 40403, "message": "Schema not found"}));
            let (_, status, body) = answers.iter().find(|(of, ..)| *of == path).unwrap_or(&missing);
            let body = body.to_string();
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                .unwrap();
        }
    });
    served
}

/// All that was written, and what else a registry may have.
fn registry() -> Served {
    let written = Written::read();
    let schema = |id| json!({"schema": written.schema(id)});
    serve(vec![
        ("/schemas/ids/1", 200, schema(1)),
        ("/schemas/ids/2", 200, schema(2)),
        ("/schemas/ids/3", 200, schema(3)),
        ("/schemas/ids/4", 200, json!({"schema": "message X {}", "schemaType": "PROTOBUF"})),
        ("/schemas/ids/5", 200, json!({"schema": "{}", "references": [{"name": "shop.Address"}]})),
        (
            "/schemas/ids/6",
            200,
            json!({"schema": r#"{"type": "record", "name": "Node", "fields": [
            {"name": "id", "type": "long"}, {"name": "next", "type": ["null", "Node"]}]}"#}),
        ),
    ])
}

#[test]
fn messages_of_several_schemas_in_their_order() {
    let (written, served) = (Written::read(), registry());
    let columns = [("id", "BIGINT"), ("_offset", "BIGINT"), ("name", "TEXT"), ("at", "TIMESTAMP"), ("none", "DOUBLE")];
    let avro = open("avro", &[("avro.registry", &served.url)], &columns).unwrap();
    let payloads = [
        written.framed(2, 0),
        written.framed(1, 0),
        written.framed(3, 0),
        written.framed(2, 1),
        written.framed(1, 1),
        vec![0, 0, 0, 0, 4, 2],
        vec![0, 0, 0, 0, 5, 2],
        vec![0, 0, 0, 0, 9, 2],
        b"{\"id\": 1}".to_vec(),
        vec![0, 0],
        vec![],
    ];
    let expected = format!(
        "
        7 | 1000 | NULL | 2026-01-31T12:00:00.123 | NULL
        9223372036854775807 | 1002 | ann | 2026-01-31T12:00:00.123 | NULL
        -7 | 1006 | bob | 2026-01-31T12:00:00.123 | NULL
        0 | 1008 |  | 1969-12-31T23:59:59 | NULL
        2: its schema 3: column 'id' is BIGINT, which does not hold its text
        5: its schema 4: it is a schema of PROTOBUF
        6: its schema 5: it refers to other schemas, which is not supported yet
        7: its schema 9: the schema registry {} does not have it
        8: it begins with the byte 0x7b, not with the 0 before a schema's id
        9: it ends within the id of its schema
        10: it is empty",
        served.url
    );
    check(&avro, &payloads, &expected);
    let asked = served.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 6);
    check(&avro, &payloads, &expected);
    assert_eq!(served.asked.load(Ordering::SeqCst), asked, "an id is asked for once");
}

#[test]
fn every_type() {
    let (written, served) = (Written::read(), registry());
    let columns = [
        ("n", "BIGINT"),
        ("price", "DECIMAL"),
        ("ratio", "DOUBLE"),
        ("x", "DOUBLE"),
        ("ok", "BOOLEAN"),
        ("at", "TIMESTAMP(9)"),
        ("seen", "TIMESTAMP(3)"),
        ("day", "DATE"),
        ("kind", "TEXT"),
        ("hash", "BYTEA"),
        ("uid", "VIEW"),
        ("tags", "TEXT[]"),
        ("counts", "MAP"),
        ("home", "ADDRESS"),
        ("work", "ADDRESS"),
        ("blob", "BYTEA"),
    ];
    let avro = open("avro", &[("avro.registry", &served.url)], &columns).unwrap();
    let expected = "
        -1 | -12.34 | 0.5 | -1e300 | true | 2026-01-31T12:00:00.123 | 2026-01-31T12:00:00.123 | 2026-01-31 | SELL | \
        0001feff | 12345678-1234-5678-1234-567812345678 | [a, , ä] | {one: 1} | {zip: NULL, more: NULL} | \
        {zip: 123, more: NULL} | ff
        0 | 0.00 | 0.0 | 0.0 | false | 1969-12-31T23:59:59 | NULL | 1969-12-31 | BUY | 00000000 | \
        00000000-0000-0000-0000-000000000000 | [] | {} | NULL | NULL |";
    check(&avro, &[written.framed(1, 0), written.framed(1, 1)], expected);
    // The type of `work` is defined in `home`, which is not read.
    let avro = open("avro", &[("avro.registry", &served.url)], &[("work", "ADDRESS"), ("id", "BIGINT")]).unwrap();
    let expected = "{zip: 123, more: NULL} | 9223372036854775807\nNULL | 0";
    check(&avro, &[written.framed(1, 0), written.framed(1, 1)], expected);
}

#[test]
fn types_that_do_not_fit() {
    let (written, served) = (Written::read(), registry());
    for (column, data_type, expected) in [
        ("id", "INT", "column 'id' is INT, which does not hold its BIGINT"),
        ("x", "REAL", "column 'x' is REAL, which does not hold its DOUBLE"),
        ("name", "BIGINT", "column 'name' is BIGINT, which does not hold its text"),
        ("n", "TIMESTAMP", "column 'n' is TIMESTAMP, which does not hold its INT"),
    ] {
        let avro = open("avro", &[("avro.registry", &served.url)], &[(column, data_type)]).unwrap();
        check(&avro, &[written.framed(1, 0)], &format!("0: its schema 1: {expected}"));
    }
    let other = open("avro", &[("avro.registry", &served.url)], &[("other", "BIGINT")]).unwrap();
    let decoded = other.decode(&messages(&[Some(written.framed(1, 0))])).unwrap();
    assert!(
        decoded.malformed[0].1.starts_with("its schema 1: column 'other' is BIGINT, which does not hold its Union(")
    );
    let recursive = open("avro", &[("avro.registry", &served.url)], &[("next", "TEXT")]).unwrap();
    let decoded = recursive.decode(&messages(&[Some([0, 0, 0, 0, 6, 2, 0])])).unwrap();
    assert!(decoded.malformed[0].1.starts_with("its schema 6: "), "{:?}", decoded.malformed);
    let must = open("avro", &[("avro.registry", &served.url)], &[("name", "TEXT!"), ("id", "BIGINT")]).unwrap();
    let payloads = [written.framed(2, 0), written.framed(2, 1)];
    check(&must, &payloads, "bob | -7\n0: column 'name' is NOT NULL, and is NULL or missing");
}

#[test]
fn a_record_that_does_not_end_where_its_message_does() {
    let (written, served) = (Written::read(), registry());
    let avro = open("avro", &[("avro.registry", &served.url)], &[("id", "BIGINT"), ("name", "TEXT")]).unwrap();
    let (one, two) = (written.framed(2, 1), written.framed(2, 0));
    let payloads = [
        one.clone(),
        one[..one.len() - 1].to_vec(),
        [&one[..], b"x"].concat(),
        [&one[..], &[0; 5]].concat(),
        [&one[..], &[0]].concat(),
        [&one[..], &one[..]].concat(),
        one[..5].to_vec(),
        two.clone(),
        [&two[..], &[0; 5]].concat(),
    ];
    let expected = "
        -7 | bob
        7 | NULL
        1: it is no record of its schema: bad varint
        2: bytes follow the Avro record
        3: bytes follow the Avro record
        4: bytes follow the Avro record
        5: bytes follow the Avro record
        6: the Avro record ends early
        8: bytes follow the Avro record";
    check(&avro, &payloads, expected);
}

#[test]
fn without_a_registry_all_messages_have_one_schema() {
    let written = Written::read();
    let avro = open("avro", &[("avro.schema", written.schema(2))], &[("name", "TEXT"), ("id", "BIGINT")]).unwrap();
    let (one, two) = (written.record(2, 0), written.record(2, 1));
    let expected = "
        NULL | 7
        bob | -7
        1: the Avro record ends early
        2: it is no record of its schema: bad varint";
    check(&avro, &[&one[..], &[], &one[..3], &two], expected);
    let error =
        |schema: &str, column| open("avro", &[("avro.schema", schema)], &[column]).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error("\"string\"", ("id", "BIGINT")), "option avro.schema: it is no record");
    assert!(error("{", ("id", "BIGINT")).starts_with("option avro.schema: it is no JSON: "));
    let expected = "option avro.schema: column 'id' is SMALLINT, which does not hold its INT";
    assert_eq!(error(written.schema(2), ("id", "SMALLINT")), expected);
}

#[test]
fn a_registry_that_does_not_answer_as_one_is_an_error() {
    let written = Written::read();
    let error = |url: &str| {
        let avro = open("avro", &[("avro.registry", url)], &[("id", "BIGINT")]).unwrap();
        avro.decode(&messages(&[Some(written.framed(2, 0))])).unwrap_err()
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = error(&format!("http://{closed}/"));
    let text = down.to_string();
    assert!(matches!(down, Error::Storage { .. }));
    assert!(text.starts_with(&format!("ask for schema 2 of the schema registry http://{closed}: ")), "{text}");
    assert!(text.ends_with("; see that it runs there, or correct avro.registry"), "{text}");

    let path = "/schemas/ids/2";
    let served = serve(vec![(path, 503, json!({}))]);
    assert!(error(&served.url).to_string().contains("it answered 503"));
    assert_eq!(served.asked.load(Ordering::SeqCst), 3, "it is asked again");
    let served = serve(vec![(path, 401, json!({"error_code": 401}))]);
    assert!(
        error(&served.url).to_string().contains("; give avro.registry_user and avro.registry_password of one who may")
    );
    assert_eq!(served.asked.load(Ordering::SeqCst), 1);
    let served = serve(vec![(path, 404, json!("no such page"))]);
    assert!(error(&served.url).to_string().contains("it answered 404"));
    let served = serve(vec![(path, 200, json!("welcome"))]);
    assert!(error(&served.url).to_string().contains("the answer has no schema"));
}

#[test]
fn within_a_runtime_and_with_a_password() {
    let (written, served) = (Written::read(), registry());
    let login =
        [("avro.registry", served.url.as_str()), ("avro.registry_user", "me"), ("avro.registry_password", "x:y")];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let avro = open("avro", &login, &[("id", "BIGINT")]).unwrap();
        check(&avro, &[written.framed(2, 0)], "7");
    });
    let headers = served.headers.lock().unwrap().to_lowercase();
    assert!(headers.contains("authorization: basic bwu6edp5"), "{headers}");
}

#[test]
fn options_of_avro() {
    let error = |options: &[(&str, &str)]| open("avro", options, &[("n", "INT")]).map(|_| ()).unwrap_err().to_string();
    assert!(error(&[]).starts_with("format 'avro' needs avro.registry"));
    assert!(error(&[("avro.registry", "registry:8081")]).starts_with("option avro.registry: give a URL"));
    assert!(!error(&[("avro.registry", "http://me:hidden@host")]).contains("hidden"));
    let both = [("avro.registry", "http://host"), ("avro.schema", "{}")];
    assert_eq!(error(&both), "give avro.registry or avro.schema, not both");
    assert!(error(&[("avro.registry", "http://host"), ("avro.registry_user", "me")]).ends_with("or neither"));
    let unset =
        [("avro.registry", "http://host"), ("avro.registry_user", "me"), ("avro.registry_password", "${NO_SUCH}")];
    assert_eq!(error(&unset), "option avro.registry_password = '${NO_SUCH}': set that variable");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn spoilt_records_spoil_no_others(spoils in spoils(), at in any::<Index>()) {
        let written = Written::read();
        let columns = [("id", "BIGINT"), ("name", "TEXT"), ("tags", "TEXT[]"), ("home", "ADDRESS"), ("_key", "BYTEA")];
        let avro = open("avro", &[("avro.schema", written.schema(1))], &columns).unwrap();
        let records = [written.record(1, 0), written.record(1, 1)];
        spoilt_ones_spoil_no_others(avro.as_ref(), &records, &spoils, at)?;
    }
}
