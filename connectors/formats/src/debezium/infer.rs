//! The columns of a database's table, for a source that declares none, and the change's own: `_op` and `_changed_at`.
//!
//! Where changes have a schema, it says what columns there are; a type that has a name of Debezium's becomes what that means. Where
//! they have none, values are looked at, of both images of the row: what is written as numbers, dates among them, is numbers.
//!
//! Invariant: [`super::DebeziumJson`] and [`super::avro()`] read every column that is made here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use serde_json::Value;
use watershed_core::Result;
use watershed_core::tail::Messages;

use super::avro::{Written, row};
use super::columns::Columns;
use super::connect;
use super::envelope::parts;
use super::semantic;
use crate::avro::{self, Writer};
use crate::infer::{Learnt, Tally};
use crate::json::{Rules, Seen};
use crate::options::{DEBEZIUM_TIMESTAMP, Options};
use crate::typed::sql_name;

/// The columns that are the change's.
pub(crate) const OWN: [&str; 2] = ["_op", "_changed_at"];

/// Those of a source of this name.
fn with_own(mut learnt: Learnt) -> Learnt {
    learnt.columns.retain(|column| !OWN.contains(&column.name().as_str()));
    learnt.columns.extend([op(), Arc::new(Field::new(OWN[1], timestamp(), true))]);
    learnt
}

fn op() -> FieldRef {
    Arc::new(Field::new(OWN[0], DataType::Utf8, true))
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Of changes in JSON. The newest message that has a schema has the one to go by.
pub(crate) fn of_json(options: &Options<'_>, messages: &[Messages], time: Option<&str>) -> Result<(Learnt, Tally)> {
    let mut tally = Tally::default();
    let mut image = Seen::Nothing;
    let (mut schema, mut newest) = (None, None);
    tally.count_all(messages, |payload, written| {
        let parts = parts(payload)?;
        let change = Seen::of(parts.change)?.into_fields().ok_or("it is no change: it has no fields")?;
        let has = |name: &str| change.iter().find(|(known, _)| known == name).map(|(_, seen)| seen.clone());
        if !matches!(has("op"), Some(Seen::Text(_))) {
            return Err("it is no change: it has no `op`".into());
        }
        let images = ["before", "after"].into_iter().filter_map(has).filter(|seen| matches!(seen, Seen::Object(_)));
        image = images.fold(std::mem::replace(&mut image, Seen::Nothing), Seen::and);
        if !parts.schema.is_empty() && (schema.is_none() || newest <= Some(written)) {
            (schema, newest) = (Some(parts.schema.to_vec()), Some(written));
        }
        Ok(())
    });
    if let Some(schema) = schema {
        let learnt = connect_columns(&schema);
        return Ok(match learnt {
            Ok(learnt) => (with_own(learnt), tally),
            Err(reason) => {
                tally.none_if(Some(reason));
                (Learnt::default(), tally)
            }
        });
    }
    let unit = options.get(DEBEZIUM_TIMESTAMP).is_some_and(|unit| unit != "iso");
    // What is larger than BIGINT is text: decimals are written in ways that only who declares them knows.
    let rules = Rules { iso: true, large: DataType::Utf8, time: time.filter(|_| unit).map(str::to_string) };
    let mut learnt = Learnt::default();
    for (name, seen) in image.into_fields().unwrap_or_default() {
        let column = seen.column_named(&name, &rules);
        learnt.add(&name, column.map(|data_type| Arc::new(Field::new(&name, data_type, true))));
    }
    Ok((with_own(learnt), tally))
}

/// The columns of the schema beside a change.
fn connect_columns(schema: &[u8]) -> Result<Learnt, String> {
    let parsed: Value = serde_json::from_slice(schema).map_err(|e| format!("its schema is no JSON: {e}"))?;
    let image = |name: &str| parsed["fields"].as_array()?.iter().find(|field| field["field"] == name);
    let row = image("after").or(image("before")).and_then(|row| row["fields"].as_array());
    let mut learnt = Learnt::default();
    for field in row.ok_or("its schema is none of a change: no `after` is in it")? {
        let Some(name) = field["field"].as_str() else { continue };
        let column = of_connect(field).and_then(|data_type| {
            let column: FieldRef = Arc::new(Field::new(name, data_type, true));
            let columns = Columns::new("debezium-json", &[op(), Arc::clone(&column)].into());
            connect::encodings(&columns.map_err(|e| e.to_string())?, schema).map(|_| column)
        });
        learnt.add(name, column);
    }
    Ok(learnt)
}

/// The type that a name of Debezium's or Kafka Connect's means.
fn meant(name: &str) -> Option<DataType> {
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => DataType::Date32,
        "io.debezium.time.Timestamp"
        | "io.debezium.time.MicroTimestamp"
        | "io.debezium.time.NanoTimestamp"
        | "io.debezium.time.ZonedTimestamp"
        | "io.debezium.time.IsoTimestamp"
        | "org.apache.kafka.connect.data.Timestamp" => timestamp(),
        _ => return None,
    })
}

fn of_connect(schema: &Value) -> Result<DataType, String> {
    let name = schema["name"].as_str().unwrap_or_default();
    if let Some(meant) = meant(name) {
        return Ok(meant);
    }
    // As which it would be declared.
    if let Some(reason) = semantic::unreadable(&DataType::Decimal128(38, 0), name) {
        return Err(reason);
    }
    let nested =
        |name: &str, schema: &Value, nullable| Ok::<_, String>(Field::new(name, of_connect(schema)?, nullable));
    Ok(match schema["type"].as_str().unwrap_or_default() {
        "bytes" if name == "org.apache.kafka.connect.data.Decimal" => {
            let number = |name: &str| schema["parameters"][name].as_str().and_then(|digits| digits.parse::<u8>().ok());
            let precision = number("connect.decimal.precision").filter(|digits| (1..=38).contains(digits));
            let scale = number("scale").filter(|digits| *digits <= precision.unwrap_or(38));
            let scale = scale.ok_or("no DECIMAL has as many digits behind the point as it")?;
            DataType::Decimal128(precision.unwrap_or(38), scale as i8)
        }
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "string" => DataType::Utf8,
        "bytes" => DataType::Binary,
        "array" => DataType::List(Arc::new(nested("element", &schema["items"], true)?)),
        "map" => {
            let pair = vec![nested("key", &schema["keys"], false)?, nested("value", &schema["values"], true)?];
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)), false)
        }
        "struct" => {
            let fields = schema["fields"].as_array().map_or(&[][..], Vec::as_slice);
            let field = |field: &Value| nested(field["field"].as_str().unwrap_or_default(), field, true);
            match fields.is_empty() {
                true => return Err("it is a struct without fields".into()),
                false => DataType::Struct(fields.iter().map(field).collect::<Result<Vec<_>, _>>()?.into()),
            }
        }
        other => return Err(format!("no column holds its {other}")),
    })
}

/// Of changes in Avro, by their writer's schema.
pub(crate) fn of_avro(schema: &str) -> Result<Learnt, String> {
    let envelope: Value = serde_json::from_str(schema).map_err(|e| format!("it is no JSON: {e}"))?;
    let described = row(&envelope).ok_or("it is none of a change: no row is in it")?;
    let image = Writer::fields(schema)?.into_iter().flatten().find(|f| f.name() == "before" || f.name() == "after");
    let Some(DataType::Struct(read)) = image.map(|image| image.data_type().clone()) else {
        return Err("its row is no record".into());
    };
    let mut learnt = Learnt::default();
    for field in &read {
        let described = described.iter().find(|described| described["name"] == field.name().as_str());
        let named = described.and_then(|described| super::avro::there(&described["type"])["connect.name"].as_str());
        let data_type = named.and_then(meant).or_else(|| avro::natural(field.data_type()));
        let column = data_type.ok_or_else(|| format!("no column holds its {}", sql_name(field.data_type())));
        let column = column.and_then(|data_type| {
            let column: FieldRef = Arc::new(Field::new(field.name(), data_type, true));
            Written::new(schema, &[op(), Arc::clone(&column)].into()).map(|_| column)
        });
        learnt.add(field.name(), column);
    }
    Ok(with_own(learnt))
}
