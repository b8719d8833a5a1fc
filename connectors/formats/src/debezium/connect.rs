//! The schema that Kafka Connect's converter writes beside a change, and what it says of the row's columns.
//!
//! | type of the field | column |
//! |---|---|
//! | named as in [`super::semantic`] | what the name means |
//! | `bytes` named `Decimal` | DECIMAL of as many digits behind the point, or more |
//! | `int8` … `int64` | integers, DECIMAL, DOUBLE; a number beyond the column's range is malformed |
//! | `float`, `double` | REAL, DOUBLE, DECIMAL |
//! | `boolean`, `string`, `bytes` | BOOLEAN, text, BYTEA |
//! | `string` | DECIMAL, too (`decimal.handling.mode = 'string'`) |
//! | `array`, `map`, `struct` | lists, MAP, STRUCT of what is plain |
//!
//! Invariant: what a column is read as is known from the schema alone.

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

use super::columns::Columns;
use super::encoding::Encoding;
use super::semantic::{self, ISO};
use crate::typed::sql_name;

/// How the row's columns are written in changes of this schema, or why they cannot be read.
pub(crate) fn encodings(columns: &Columns, schema: &[u8]) -> Result<Vec<Encoding>, String> {
    let schema: Value = serde_json::from_slice(schema).map_err(|e| format!("its schema is no JSON: {e}"))?;
    let image = |name: &str| fields(&schema)?.iter().find(|field| field["field"] == name).and_then(fields);
    let (before, after) = (image("before"), image("after"));
    let row = after.or(before).ok_or("its schema is none of a change: no `after` is in it")?;
    if before.is_some_and(|before| before != row) {
        return Err("in its schema `before` and `after` differ".into());
    }
    let encoding = |column: &Field| match row.iter().find(|field| field["field"] == column.name().as_str()) {
        // What no message has is NULL.
        None => Ok(Encoding::Plain(ISO)),
        Some(field) => encoding(column.data_type(), field).map_err(|e| format!("column '{}': {e}", column.name())),
    };
    columns.of_row().map(|column| encoding(column)).collect()
}

fn fields(schema: &Value) -> Option<&Vec<Value>> {
    schema["fields"].as_array()
}

fn encoding(column: &DataType, schema: &Value) -> Result<Encoding, String> {
    use DataType::*;
    let plain_type = schema["type"].as_str().unwrap_or_default();
    let name = schema["name"].as_str().unwrap_or_default();
    if let Some(encoding) = semantic::encoding(column, name) {
        return Ok(encoding);
    }
    if let Some(reason) = semantic::unreadable(column, name) {
        return Err(reason);
    }
    let is_integer = matches!(plain_type, "int8" | "int16" | "int32" | "int64");
    let is_number = is_integer || matches!(plain_type, "float" | "double");
    let fits = match column {
        Decimal128(_, scale) if name == "org.apache.kafka.connect.data.Decimal" => {
            let digits = schema["parameters"]["scale"].as_str().and_then(|digits| digits.parse::<i32>().ok());
            return match digits {
                Some(digits) if digits <= i32::from(*scale) => Ok(Encoding::Unscaled(digits)),
                Some(digits) => {
                    Err(format!("it has {digits} digits behind the point, which {} does not hold", sql_name(column)))
                }
                None => Err("its schema does not say how many digits are behind the point".into()),
            };
        }
        Decimal128(..) => is_number || plain_type == "string",
        Float32 | Float64 => is_number,
        Boolean => plain_type == "boolean",
        Utf8 | LargeUtf8 | Utf8View => plain_type == "string",
        Binary | LargeBinary | BinaryView if plain_type == "bytes" => return Ok(Encoding::Bytes),
        List(item) | LargeList(item) if plain_type == "array" => {
            return nested(item, &schema["items"]);
        }
        Struct(columns) if plain_type == "struct" => {
            return of_struct(columns, fields(schema).map_or(&[], Vec::as_slice));
        }
        Map(entries, _) if plain_type == "map" => {
            let Struct(entry) = entries.data_type() else { return Err("it is a map without entries".into()) };
            let mut of_map = entry.iter().zip(["keys", "values"]);
            return of_map.try_fold(Encoding::Plain(ISO), |_, (column, name)| nested(column, &schema[name]));
        }
        _ if column.is_integer() => is_integer,
        _ => false,
    };
    match fits {
        true => Ok(Encoding::Plain(ISO)),
        false => Err(format!("it is {}, which does not hold {}", sql_name(column), called(plain_type, name))),
    }
}

fn of_struct(columns: &Fields, schemas: &[Value]) -> Result<Encoding, String> {
    let schema = |column: &Field| schemas.iter().find(|field| field["field"] == column.name().as_str());
    let mut there = columns.iter().filter_map(|column| Some((column, schema(column)?)));
    there.try_fold(Encoding::Plain(ISO), |_, (column, schema)| nested(column, schema))
}

/// Within lists, structs and maps, where arrow's decoder makes the values.
fn nested(column: &Field, schema: &Value) -> Result<Encoding, String> {
    match encoding(column.data_type(), schema)? {
        plain @ Encoding::Plain(ISO) => Ok(plain),
        _ => Err(format!(
            "{} within it is not read: leave the column out",
            called(schema["type"].as_str().unwrap_or_default(), schema["name"].as_str().unwrap_or_default())
        )),
    }
}

fn called(plain_type: &str, name: &str) -> String {
    match name {
        "" => format!("its {plain_type}"),
        name => format!("its {plain_type} ({name})"),
    }
}
