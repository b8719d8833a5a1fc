//! What a message has besides its payload, as columns of these names: `_offset`, `_part`, `_timestamp`, `_key`, `_headers`.
//!
//! Headers are `ARRAY<STRUCT<key VARCHAR, value BYTEA>>`, as Spark's source of Kafka has them, and not a map: Kafka allows a name
//! twice, as where a message was routed again, and a map would lose one of them. Values are bytes, for Kafka says nothing of
//! what they are. So whatever headers a message has, they are no reason to reject it, but for a name that is no text.
//!
//! A message without headers has an empty array. NULL says that its headers are not known: it is generated, or was kept
//! without them.
//!
//! Invariant: a value that a column has no room for makes its message malformed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, Int32Array, ListArray, OffsetSizeTrait, StringArray, StructArray,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use watershed_core::tail::{HEADERS, Messages};
use watershed_core::{Error, Result};

use crate::typed::sql_name;

/// How headers are declared.
const HEADERS_TYPE: &str = "ARRAY<STRUCT<key VARCHAR, value BYTEA>>";

/// What a message has besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Offset,
    Part,
    Timestamp,
    Key,
    Headers,
}

/// A column, and the messages that it makes malformed.
pub(crate) type Column = (ArrayRef, BTreeMap<usize, String>);

impl Own {
    /// What of a message has this name, whatever its column's type.
    pub(crate) fn named(name: &str) -> Option<Own> {
        Some(match name {
            "_offset" => Own::Offset,
            "_part" => Own::Part,
            "_timestamp" => Own::Timestamp,
            "_key" => Own::Key,
            HEADERS => Own::Headers,
            _ => return None,
        })
    }

    /// `None`: a column of the payload.
    pub(crate) fn of(field: &Field) -> Result<Option<Own>> {
        use DataType::*;
        let Some(own) = Own::named(field.name()) else { return Ok(None) };
        let found = field.data_type();
        let (fits, wanted) = match own {
            Own::Offset => (matches!(found, Int64), "BIGINT"),
            Own::Part => (matches!(found, Int32 | Int64), "INT or BIGINT"),
            Own::Timestamp => (matches!(found, Timestamp(..)), "TIMESTAMP"),
            Own::Key => (is_text(found) || is_bytes(found), "BYTEA or text"),
            Own::Headers => (are_headers(found), HEADERS_TYPE),
        };
        if !fits {
            let (name, found) = (field.name(), sql_name(found));
            return Err(Error::input(format!("column {name} is the message's own, so it is {wanted}, not {found}")));
        }
        Ok(Some(own))
    }

    pub(crate) fn column(self, messages: &Messages, field: &Field) -> Result<Column> {
        let values: ArrayRef = match self {
            Own::Offset => Arc::new(messages.offsets.clone()),
            Own::Part => Arc::new(Int32Array::from_value(messages.part, messages.len())),
            Own::Timestamp => Arc::new(messages.timestamps.clone()),
            Own::Key => Arc::new(messages.keys.clone()),
            Own::Headers => return headers(messages, field),
        };
        let column = lenient(&values, field.data_type(), field)?;
        let mut malformed = missing(&column, field);
        for at in (0..column.len()).filter(|at| column.is_null(*at) && values.is_valid(*at)) {
            malformed.insert(at, format!("column '{}': not a value of {}", field.name(), sql_name(field.data_type())));
        }
        Ok((column, malformed))
    }
}

/// The messages that have nothing where there has to be something.
fn missing(column: &ArrayRef, field: &Field) -> BTreeMap<usize, String> {
    let reason = || format!("column '{}' is NOT NULL, and the message has none", field.name());
    let nulls = column.nulls().filter(|_| !field.is_nullable());
    nulls.map_or(BTreeMap::new(), |nulls| {
        (0..column.len()).filter(|at| nulls.is_null(*at)).map(|at| (at, reason())).collect()
    })
}

fn lenient(values: &ArrayRef, to: &DataType, field: &Field) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(values, to, &options).map_err(|e| odd(field, &e))
}

fn odd(field: &Field, e: &ArrowError) -> Error {
    Error::bug(format!("column {} of a log: {e}", field.name()))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn are_headers(data_type: &DataType) -> bool {
    let (DataType::List(item) | DataType::LargeList(item)) = data_type else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    let [key, value] = &fields[..] else { return false };
    let named = key.name() == "key" && value.name() == "value";
    named && is_text(key.data_type()) && is_bytes(value.data_type()) && value.is_nullable()
}

fn headers(messages: &Messages, field: &Field) -> Result<Column> {
    let Some(given) = &messages.headers else {
        let column = new_null_array(field.data_type(), messages.len());
        let malformed = missing(&column, field);
        return Ok((column, malformed));
    };
    let column = match field.data_type() {
        DataType::LargeList(item) => list::<i64>(given, item, field)?,
        DataType::List(item) => list::<i32>(given, item, field)?,
        other => return Err(Error::bug(format!("column {}: headers are no {other}", field.name()))),
    };
    let (mut malformed, names) = (missing(&column, field), given.values().as_struct().column(0));
    if names.null_count() > 0 {
        for at in 0..given.len() {
            let items = given.value(at);
            if items.as_struct().column(0).null_count() > 0 {
                malformed.insert(at, format!("column '{}': the name of a header is not UTF-8", field.name()));
            }
        }
    }
    Ok((column, malformed))
}

/// The same headers as the type of a column has them.
fn list<O: OffsetSizeTrait>(given: &ListArray, item: &FieldRef, field: &Field) -> Result<ArrayRef> {
    let DataType::Struct(fields) = item.data_type() else {
        return Err(Error::bug(format!("column {}: a header is no {}", field.name(), item.data_type())));
    };
    let items = given.values().as_struct();
    let (names, values) = (items.column(0), items.column(1));
    // A name that is no text is of a message that is malformed.
    let named = || names.as_string::<i32>().iter().map(|name| name.or(Some(""))).collect::<StringArray>();
    let names = if names.null_count() == 0 { Arc::clone(names) } else { Arc::new(named()) };
    let columns = [names, Arc::clone(values)];
    let columns = columns.iter().zip(fields).map(|(column, of)| lenient(column, of.data_type(), field));
    let columns = columns.collect::<Result<_>>()?;
    let items = StructArray::try_new(fields.clone(), columns, None).map_err(|e| odd(field, &e))?;
    let offsets = OffsetBuffer::from_lengths(given.offsets().lengths());
    // Only a slice begins behind the first item.
    let first = given.value_offsets().first().copied().unwrap_or(0).unsigned_abs() as usize;
    let count = given.offsets().lengths().sum();
    let nulls = given.nulls().cloned();
    let list = GenericListArray::<O>::try_new(Arc::clone(item), offsets, Arc::new(items.slice(first, count)), nulls);
    Ok(Arc::new(list.map_err(|e| odd(field, &e))?))
}
