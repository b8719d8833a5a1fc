//! Any messages, sound and malformed in any order: what they become is what `serde_json` and the rules say of each alone,
//! and how they were fetched never matters.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};
use watershed_core::tail::{Decode, Messages};

use crate::{messages, open};

const COLUMNS: [(&str, &str); 7] = [
    ("_offset", "BIGINT!"),
    ("at", "TIMESTAMP"),
    ("t", "TEXT"),
    ("n", "BIGINT"),
    ("x", "DOUBLE"),
    ("ok", "BOOLEAN"),
    ("l", "BIGINT[]"),
];

/// A row, by the rules.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    at: Option<i64>,
    t: Option<String>,
    n: Option<i64>,
    x: Option<f64>,
    ok: Option<bool>,
    l: Option<Vec<Option<i64>>>,
}

/// `None`: malformed.
fn expected(payload: &[u8]) -> Option<Row> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else { return None };
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    // Of a field that is there, its value or nothing at all.
    fn each<T>(value: Option<&Value>, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
        value.map_or(Some(None), |value| read(value).map(Some))
    }
    let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
    let integer = |value: &Value| match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(s) => s.trim().parse().ok().or_else(|| s.trim().parse().ok().and_then(whole)),
        _ => None,
    };
    let text = |value: &Value| match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let float = |value: &Value| match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    };
    let time = |value: &Value| {
        let text = value.as_str()?.trim();
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
    };
    let list = |value: &Value| {
        let values =
            value.as_array()?.iter().map(|item| if item.is_null() { Some(None) } else { integer(item).map(Some) });
        values.collect::<Option<Vec<_>>>()
    };
    Some(Row {
        at: each(field("at"), time)?,
        t: each(field("t"), text)?,
        n: each(field("n"), integer)?,
        x: each(field("x"), float)?,
        ok: each(field("ok"), Value::as_bool)?,
        l: each(field("l"), list)?,
    })
}

fn row(batch: &RecordBatch, at: usize) -> Row {
    fn there<T>(array: &dyn Array, at: usize, value: impl Fn() -> T) -> Option<T> {
        array.is_valid(at).then(value)
    }
    let column = |name: &str| batch.column_by_name(name).unwrap();
    Row {
        at: there(column("at"), at, || column("at").as_primitive::<TimestampMicrosecondType>().value(at)),
        t: there(column("t"), at, || column("t").as_string::<i32>().value(at).to_string()),
        n: there(column("n"), at, || column("n").as_primitive::<Int64Type>().value(at)),
        x: there(column("x"), at, || column("x").as_primitive::<Float64Type>().value(at)),
        ok: there(column("ok"), at, || column("ok").as_boolean().value(at)),
        l: there(column("l"), at, || {
            column("l").as_list::<i32>().value(at).as_primitive::<Int64Type>().iter().collect()
        }),
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1000i32..1000).prop_map(|n| Value::from(f64::from(n) / 4.0)),
        " ?[0-9]{1,4} ?".prop_map(Value::from),
        "[g-z ]{1,6}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ]
}

fn time() -> impl Strategy<Value = Value> {
    (0i64..4_000_000_000_000_000, -12i32..12).prop_map(|(micros, hours)| {
        let zone = chrono::FixedOffset::east_opt(hours * 3600).unwrap();
        let time = chrono::DateTime::from_timestamp_micros(micros).unwrap().with_timezone(&zone);
        Value::from(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
    })
}

/// Mostly of the right type, now and then of any other.
fn sound() -> impl Strategy<Value = String> {
    fn mostly(right: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Option<Value>> {
        prop_oneof![40 => right.prop_map(Some), 4 => Just(None), 4 => Just(Some(Value::Null)), 1 => scalar().prop_map(Some)]
    }
    let list = vec(prop_oneof![9 => any::<i64>().prop_map(Value::from), 1 => Just(Value::Null)], 0..4);
    let fields = (
        mostly(time()),
        mostly(any::<String>().prop_map(Value::from)),
        mostly(any::<i64>().prop_map(Value::from)),
        mostly((-1000i32..1000).prop_map(|n| Value::from(f64::from(n) / 8.0))),
        mostly(any::<bool>().prop_map(Value::from)),
        mostly(list.prop_map(Value::from)),
        mostly(scalar()),
        any::<bool>(),
    );
    fields.prop_map(|(at, t, n, x, ok, l, more, pretty)| {
        let names = ["at", "t", "n", "x", "ok", "l", "more"];
        let fields = names.iter().zip([at, t, n, x, ok, l, more]);
        let object: Map<String, Value> = fields.filter_map(|(name, value)| Some((name.to_string(), value?))).collect();
        if pretty { serde_json::to_string_pretty(&object).unwrap() } else { serde_json::to_string(&object).unwrap() }
    })
}

fn payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    let cut = (sound(), any::<Index>()).prop_map(|(text, at)| text.as_bytes()[..at.index(text.len())].to_vec());
    let spoilt = (sound(), any::<Index>()).prop_map(|(text, at)| {
        let mut bytes = text.into_bytes();
        bytes.insert(at.index(bytes.len()), 0xff);
        bytes
    });
    let deep = (100usize..160, any::<bool>()).prop_map(|(levels, list)| {
        let (open, close) = if list { ("[", "]") } else { ("{\"n\":", "}") };
        format!("{{\"n\": 1, \"deep\": {}0{}}}", open.repeat(levels), close.repeat(levels)).into_bytes()
    });
    // serde_json reads long fractions as floats that are a little off.
    let whole = r"-?([1-9][0-9]{0,40}|[1-9][0-9]{0,4}\.0{1,4})".prop_map(|n| format!("{{\"n\": {n}}}"));
    let float = r"-?[1-9][0-9]{0,40}(\.[0-9]{1,60})?".prop_map(|x| format!("{{\"x\": {x}}}"));
    let number = prop_oneof![whole, float].prop_map(String::into_bytes);
    prop_oneof![
        60 => sound().prop_map(|text| Some(text.into_bytes())),
        2 => Just(None),
        1 => cut.prop_map(Some),
        1 => spoilt.prop_map(Some),
        1 => deep.prop_map(Some),
        2 => number.prop_map(Some),
        1 => (sound(), sound()).prop_map(|(a, b)| Some(format!("{a}{b}").into_bytes())),
        1 => sound().prop_map(|text| Some(format!("[{text}]").into_bytes())),
        1 => sound().prop_map(|text| Some(format!("{text} x").into_bytes())),
        1 => vec(any::<u8>(), 0..20).prop_map(Some),
        1 => scalar().prop_map(|value| Some(value.to_string().into_bytes())),
    ]
}

fn part_of(all: &Messages, from: usize, count: usize) -> Messages {
    Messages {
        part: all.part,
        offsets: all.offsets.slice(from, count),
        timestamps: all.timestamps.slice(from, count),
        keys: all.keys.slice(from, count),
        payloads: all.payloads.slice(from, count),
        headers: all.headers.as_ref().map(|headers| headers.slice(from, count)),
        next: all.next,
        at_end: all.at_end,
    }
}

/// Decoded at once, and in two parts, it is the same.
fn split_does_not_matter(decode: &dyn Decode, all: &Messages, at: usize) -> Result<(), TestCaseError> {
    let whole = decode.decode(all).unwrap();
    let first = decode.decode(&part_of(all, 0, at)).unwrap();
    let second = decode.decode(&part_of(all, at, all.len() - at)).unwrap();
    let rows = concat_batches(&decode.schema(), [&first.rows, &second.rows]).unwrap();
    prop_assert_eq!(&whole.rows, &rows);
    let offsets: Vec<_> = first.offsets.values().iter().chain(second.offsets.values()).collect();
    prop_assert_eq!(whole.offsets.values().iter().collect::<Vec<_>>(), offsets);
    let later = second.malformed.into_iter().map(|(message, reason)| (message + at, reason));
    prop_assert_eq!(whole.malformed, first.malformed.into_iter().chain(later).collect::<Vec<_>>());
    Ok(())
}

/// What is done to some messages.
#[derive(Clone, Debug)]
pub(crate) enum Spoil {
    Cut(Index),
    Flip(Index, u8),
    Insert(Index, u8),
    Append(Vec<u8>),
}

pub(crate) fn spoils() -> impl Strategy<Value = Vec<Option<Spoil>>> {
    let spoil = prop_oneof![
        any::<Index>().prop_map(Spoil::Cut),
        any::<(Index, u8)>().prop_map(|(at, byte)| Spoil::Flip(at, byte)),
        any::<(Index, u8)>().prop_map(|(at, byte)| Spoil::Insert(at, byte)),
        (any::<u8>(), 1usize..8).prop_map(|(byte, count)| Spoil::Append(vec![byte; count])),
        vec(any::<u8>(), 1..8).prop_map(Spoil::Append),
    ];
    vec(prop::option::weighted(0.2, spoil), 1..150)
}

/// These messages in turn, some of them spoilt: each becomes what it does alone.
pub(crate) fn spoilt_ones_spoil_no_others(
    decode: &dyn Decode,
    sound: &[Vec<u8>],
    spoils: &[Option<Spoil>],
    split: Index,
) -> Result<(), TestCaseError> {
    let payload = |(i, spoil): (usize, &Option<Spoil>)| {
        let mut payload = sound[i % sound.len()].clone();
        match spoil {
            None => {}
            Some(Spoil::Cut(at)) => payload.truncate(at.index(payload.len())),
            Some(Spoil::Flip(at, byte)) => *at.get_mut(&mut payload) ^= byte,
            Some(Spoil::Insert(at, byte)) => payload.insert(at.index(payload.len()), *byte),
            Some(Spoil::Append(bytes)) => payload.extend(bytes),
        }
        Some(payload)
    };
    let payloads: Vec<_> = spoils.iter().enumerate().map(payload).collect();
    let all = messages(&payloads);
    let decoded = decode.decode(&all).unwrap();
    let (mut rows, mut malformed) = (vec![], vec![]);
    for (message, spoil) in spoils.iter().enumerate() {
        let alone = decode.decode(&part_of(&all, message, 1)).unwrap();
        prop_assert!(spoil.is_some() || alone.malformed.is_empty(), "{:?}", alone.malformed);
        prop_assert_eq!(alone.rows.num_rows() + alone.malformed.len(), 1);
        rows.push(alone.rows);
        malformed.extend(alone.malformed.into_iter().map(|(_, why)| (message, why)));
    }
    prop_assert_eq!(&decoded.malformed, &malformed);
    prop_assert_eq!(&decoded.rows, &concat_batches(&decode.schema(), &rows).unwrap());
    split_does_not_matter(decode, &all, split.index(all.len() + 1))
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    a.zip(b).map_or(a == b, |(a, b)| (a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn json_is_what_serde_says(payloads in vec(payload(), 0..200), at in any::<Index>()) {
        let json = open("json", &[], &COLUMNS).unwrap();
        let all = messages(&payloads);
        let decoded = json.decode(&all).unwrap();
        let mut rows = 0;
        let mut malformed = vec![];
        for (message, payload) in payloads.iter().enumerate() {
            let Some(payload) = payload else { continue };
            let Some(expected) = expected(payload) else {
                malformed.push(message);
                continue;
            };
            prop_assert!(rows < decoded.rows.num_rows(), "{message} is missing: {:?}", decoded.malformed);
            prop_assert_eq!(decoded.offsets.value(rows), all.offsets.value(message));
            let own = decoded.rows.column(0).as_primitive::<Int64Type>().value(rows);
            prop_assert_eq!(own, all.offsets.value(message));
            let found = row(&decoded.rows, rows);
            // serde_json is not exact to the last bit.
            prop_assert!(close(found.x, expected.x), "{:?} {:?}", found.x, expected.x);
            let x = found.x;
            prop_assert_eq!(found, Row { x, ..expected });
            rows += 1;
        }
        let found: Vec<_> = decoded.malformed.iter().map(|(message, _)| *message).collect();
        let shown = payloads.iter().flatten().map(|payload| String::from_utf8_lossy(payload)).collect::<Vec<_>>();
        prop_assert_eq!(malformed, found, "{}", shown.join("\n"));
        prop_assert_eq!(rows, decoded.rows.num_rows());
        split_does_not_matter(json.as_ref(), &all, at.index(payloads.len() + 1))?;
    }

    #[test]
    fn spoilt_objects_spoil_no_others(sound in vec(sound(), 1..10), spoils in spoils(), at in any::<Index>()) {
        let json = open("json", &[], &COLUMNS).unwrap();
        let sound: Vec<_> = sound.into_iter().map(String::into_bytes).filter(|text| expected(text).is_some()).collect();
        prop_assume!(!sound.is_empty());
        spoilt_ones_spoil_no_others(json.as_ref(), &sound, &spoils, at)?;
    }

    #[test]
    fn spoilt_records_spoil_no_others(spoils in spoils(), at in any::<Index>()) {
        let csv = open("csv", &[], &[("t", "TEXT"), ("n", "BIGINT"), ("_offset", "BIGINT"), ("at", "TIMESTAMP")]).unwrap();
        let sound = ["a,1,2026-01-31", "\"b\"\",\",,", "\u{e4}\u{1f600},-5,2026-01-31T12:00:00Z\n"];
        spoilt_ones_spoil_no_others(csv.as_ref(), &sound.map(|text| text.as_bytes().to_vec()), &spoils, at)?;
    }

    #[test]
    fn csv_is_what_was_written(records in vec(record(), 1..150), at in any::<Index>()) {
        let csv = open("csv", &[], &[("t", "TEXT"), ("_key", "BYTEA"), ("n", "BIGINT")]).unwrap();
        let payloads: Vec<_> = records.iter().map(|(payload, _)| Some(payload.as_bytes())).collect();
        let all = messages(&payloads);
        let decoded = csv.decode(&all).unwrap();
        let (texts, numbers) = (decoded.rows.column(0).as_string::<i32>(), decoded.rows.column(2));
        let numbers = numbers.as_primitive::<Int64Type>();
        let found: Vec<_> = texts.iter().zip(numbers).map(|(t, n)| (t.map(str::to_string), n)).collect();
        let sound = records.iter().enumerate().filter_map(|(message, (_, row))| Some((message, row.clone()?)));
        let (messages, rows): (Vec<_>, Vec<_>) = sound.unzip();
        prop_assert_eq!(found, rows);
        prop_assert_eq!(decoded.offsets.len() + decoded.malformed.len(), records.len());
        let offsets: Vec<_> = messages.iter().map(|message| all.offsets.value(*message)).collect();
        prop_assert_eq!(decoded.offsets.values().to_vec(), offsets);
        split_does_not_matter(csv.as_ref(), &all, at.index(records.len() + 1))?;
    }

    /// Arrow's parsers slice text by bytes.
    #[test]
    fn any_text_in_any_column_panics_nowhere(texts in vec(nearly_a_value(), 1..30)) {
        let types = ["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP(9)", "BERLIN", "TIME", "DECIMAL", "INT", "REAL", "BYTEA"];
        let columns: Vec<_> = types.iter().map(|name| (*name, *name)).collect();
        for times in ["iso", "s", "ns"] {
            let json = open("json", &[("json.timestamp", times)], &columns).unwrap();
            let csv = open("csv", &[("csv.timestamp", times)], &columns[..9]).unwrap();
            for text in &texts {
                let object: Map<String, Value> = types.iter().map(|name| (name.to_string(), Value::from(text.as_str()))).collect();
                let each = types.iter().map(|name| serde_json::json!({*name: text}).to_string());
                let payloads: Vec<_> = each.chain([Value::from(object).to_string()]).map(Some).collect();
                json.decode(&messages(&payloads)).unwrap();
                let cell = format!("\"{}\"", text.replace('"', "\"\""));
                let records: Vec<_> = (0..9).map(|at| Some(format!("{}{cell}{}", ",".repeat(at), ",".repeat(8 - at)))).collect();
                csv.decode(&messages(&records)).unwrap();
            }
        }
    }

    #[test]
    fn raw_is_the_payload(payloads in vec(prop::option::of(vec(any::<u8>(), 0..9)), 0..150), at in any::<Index>()) {
        let raw = open("raw", &[], &[("t", "TEXT"), ("_key", "TEXT")]).unwrap();
        let all = messages(&payloads);
        let decoded = raw.decode(&all).unwrap();
        let texts = payloads.iter().enumerate().filter_map(|(message, payload)| match payload {
            None => Some((all.offsets.value(message), None)),
            Some(payload) => Some((all.offsets.value(message), Some(String::from_utf8(payload.clone()).ok()?))),
        });
        let texts: Vec<_> = texts.collect();
        let column = decoded.rows.column(0).as_string::<i32>().iter().map(|text| text.map(str::to_string));
        prop_assert_eq!(decoded.offsets.values().iter().copied().zip(column).collect::<Vec<_>>(), texts);
        split_does_not_matter(raw.as_ref(), &all, at.index(payloads.len() + 1))?;
    }
}

fn nearly_a_value() -> impl Strategy<Value = String> {
    let time = r"[+-]?[0-9]{2,6}-?[0-9]{1,2}-?[0-9]{1,2}([T é]?[0-9]{1,2}:?[0-9]{2}(:?[0-9é]{2}(\.[0-9]{1,12})?)?)?";
    let zone = r"(Z| ?[+-][0-9]{1,2}:?[0-9]{0,2}| Europe/Berlin|é|.{0,4})?";
    let number = r"[+-]?[0-9]{0,45}\.?[0-9]{0,45}([eE][+-]?[0-9]{0,6})?";
    prop_oneof![(time, zone).prop_map(|(time, zone)| time + &zone), number, any::<String>(), "[0-9a-fA-F]{0,9}"]
}

/// A text and a number.
type TextAndNumber = (Option<String>, Option<i64>);

/// A record, and what it is; `None`: malformed.
fn record() -> impl Strategy<Value = (String, Option<TextAndNumber>)> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let sound = (any::<String>(), prop::option::of(any::<i64>()), prop_oneof![Just(""), Just("\n"), Just("\r\n")]);
    let sound = sound.prop_map(move |(text, n, end)| {
        let number = n.map(|n| n.to_string()).unwrap_or_default();
        (format!("{},{number}{end}", quoted(&text)), Some(((!text.is_empty()).then_some(text), n)))
    });
    let malformed = (any::<String>(), "[a-z]{1,5}", 0..7).prop_map(move |(text, word, kind)| {
        let text = quoted(&text);
        let payload = match kind {
            0 => format!("{text},1,2"),
            1 => text,
            2 => format!("{text},{word}"),
            3 => format!("{text},1\n{text},2"),
            4 => format!("{text},\"1"),
            5 => format!("{word},1\n\""),
            _ => String::new(),
        };
        (payload, None)
    });
    prop_oneof![12 => sound, 1 => malformed]
}
