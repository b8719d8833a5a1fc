//! Formats and their options, as a user names them.
//!
//! Invariant: an option that would have no effect is an error, with the one that was probably meant.

use std::collections::BTreeMap;

use watershed_core::secrets::variable;
use watershed_core::{Error, Result};

use crate::FormatOptions;

/// What `format` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
    Avro,
    Protobuf,
    Raw,
    DebeziumJson,
    DebeziumAvro,
}

const FORMATS: [(&str, Format); 7] = [
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("avro", Format::Avro),
    ("protobuf", Format::Protobuf),
    ("raw", Format::Raw),
    ("debezium-json", Format::DebeziumJson),
    ("debezium-avro", Format::DebeziumAvro),
];

/// Formats that we know of, and do not read.
const NOT_YET: [&str; 1] = ["json-registry"];

pub(crate) const JSON_TIMESTAMP: &str = "json.timestamp";
pub(crate) const CSV_DELIMITER: &str = "csv.delimiter";
pub(crate) const CSV_QUOTE: &str = "csv.quote";
pub(crate) const CSV_NULL: &str = "csv.null";
pub(crate) const CSV_HEADER: &str = "csv.header";
pub(crate) const CSV_TIMESTAMP: &str = "csv.timestamp";
pub(crate) const AVRO_REGISTRY: &str = "avro.registry";
pub(crate) const AVRO_REGISTRY_USER: &str = "avro.registry_user";
pub(crate) const AVRO_REGISTRY_PASSWORD: &str = "avro.registry_password";
pub(crate) const AVRO_SCHEMA: &str = "avro.schema";
pub(crate) const PROTOBUF_DESCRIPTORS: &str = "protobuf.descriptors";
pub(crate) const PROTOBUF_MESSAGE: &str = "protobuf.message";
pub(crate) const PROTOBUF_FRAMING: &str = "protobuf.framing";
pub(crate) const PROTOBUF_TIMESTAMP: &str = "protobuf.timestamp";
/// Is there to be refused with more words than an unknown option.
pub(crate) const PROTOBUF_REGISTRY: &str = "protobuf.registry";
pub(crate) const DEBEZIUM_TIMESTAMP: &str = "debezium.timestamp";
pub(crate) const DEBEZIUM_DECIMAL: &str = "debezium.decimal";

const OPTIONS: [&str; 17] = [
    JSON_TIMESTAMP,
    CSV_DELIMITER,
    CSV_QUOTE,
    CSV_NULL,
    CSV_HEADER,
    CSV_TIMESTAMP,
    AVRO_REGISTRY,
    AVRO_REGISTRY_USER,
    AVRO_REGISTRY_PASSWORD,
    AVRO_SCHEMA,
    PROTOBUF_DESCRIPTORS,
    PROTOBUF_MESSAGE,
    PROTOBUF_FRAMING,
    PROTOBUF_TIMESTAMP,
    PROTOBUF_REGISTRY,
    DEBEZIUM_TIMESTAMP,
    DEBEZIUM_DECIMAL,
];

/// Whether `CREATE SOURCE … WITH` may have an option of this name for some format.
///
/// ```
/// assert!(watershed_formats::is_option("csv.delimiter"));
/// assert!(!watershed_formats::is_option("csv.separator"));
/// ```
pub fn is_option(name: &str) -> bool {
    OPTIONS.contains(&name)
}

impl Format {
    /// What the names of its options begin with.
    fn family(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Avro | Format::DebeziumAvro => "avro",
            Format::Protobuf => "protobuf",
            Format::Raw => "raw",
            Format::DebeziumJson => "debezium",
        }
    }
}

/// A format with options that are its own.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// As the user names it.
    pub(crate) name: &'a str,
    pub(crate) format: Format,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Options<'a> {
    pub(crate) fn of(given: &'a FormatOptions) -> Result<Self> {
        let name = given.format.as_str();
        let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = FORMATS.iter().map(|(name, _)| *name).collect();
            if NOT_YET.contains(&name) {
                let there_are = known.join(", ");
                return Err(Error::input(format!("format '{name}' is not supported yet; there are {there_are}")));
            }
            return Err(Error::input(format!("unknown format '{name}'; {}", nearest(name, &known))));
        };
        let own: Vec<&str> = OPTIONS.into_iter().filter(|o| o.split('.').next() == Some(format.family())).collect();
        match given.options.keys().find(|option| !own.contains(&option.as_str())) {
            Some(option) if own.is_empty() => Err(Error::input(format!("option {option}: format '{name}' has none"))),
            Some(option) => {
                let shown: Vec<&str> = own.into_iter().filter(|own| *own != PROTOBUF_REGISTRY).collect();
                let hint = nearest(option, &shown);
                Err(Error::input(format!("unknown option {option} of format '{name}'; {hint}")))
            }
            None => Ok(Options { name, format: *format, values: &given.options }),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(String::as_str)
    }

    /// An option's value, looked up in the environment if it is `${NAME}`.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<String>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Some(variable) = variable(value) else { return Ok(Some(value.to_string())) };
        let found = std::env::var(variable);
        found.map(Some).map_err(|_| Error::input(format!("option {name} = '${{{variable}}}': set that variable")))
    }

    /// An option whose value is one ASCII character; `\t` is a tab.
    pub(crate) fn character(&self, name: &str, or: u8) -> Result<u8> {
        match self.get(name).map(str::as_bytes) {
            None => Ok(or),
            Some(br"\t") => Ok(b'\t'),
            Some([one]) if one.is_ascii() && !b"\r\n".contains(one) => Ok(*one),
            Some(_) => Err(Error::input(format!("option {name}: give one ASCII character, such as ';' or '\\t'"))),
        }
    }
}

/// What to say of a name that is none: the one that was probably meant, or all.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    let scored = known.iter().map(|known| (strsim::jaro_winkler(name, known), *known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8) {
        Some((_, known)) => format!("did you mean {known}?"),
        None => format!("there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(format: &str, options: &[(&str, &str)], expected: &str) {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let given = FormatOptions { format: format.into(), options };
        assert_eq!(Options::of(&given).unwrap_err().to_string(), expected);
    }

    #[test]
    fn names_that_are_none_are_told_from_those_that_are_not_yet() {
        refused("jsn", &[], "unknown format 'jsn'; did you mean json?");
        let all = "json, csv, avro, protobuf, raw, debezium-json, debezium-avro";
        refused("xml", &[], &format!("unknown format 'xml'; there are {all}"));
        refused("json-registry", &[], &format!("format 'json-registry' is not supported yet; there are {all}"));
        let framing = "unknown option protobuf.frame of format 'protobuf'; did you mean protobuf.framing?";
        refused("protobuf", &[("protobuf.frame", "confluent")], framing);
        let meant = "unknown option json.timestamps of format 'json'; did you mean json.timestamp?";
        refused("json", &[("json.timestamps", "ms")], meant);
        let others = "unknown option csv.null of format 'json'; there are json.timestamp";
        refused("json", &[("csv.null", "x")], others);
        refused("raw", &[("csv.null", "x")], "option csv.null: format 'raw' has none");
        let changes =
            "unknown option json.timestamp of format 'debezium-json'; there are debezium.timestamp, debezium.decimal";
        refused("debezium-json", &[("json.timestamp", "ms")], changes);
    }
}
