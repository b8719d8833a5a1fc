//! The columns of a message type whose columns nobody declared.
//!
//! Unsigned integers become types that Delta tables have; what holds nothing, a message type without fields, is no column.
//!
//! Invariant: [`super::shape::Shape`] reads every column that is made here.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::scalar::Scalar;
use super::shape::wrapped;

/// Message types within each other.
const DEEPEST: usize = 50;

/// A column for each field, in the order in which they were written down.
pub(super) fn columns(message: &MessageDescriptor) -> Result<Fields, String> {
    fields(message, &mut vec![])
}

/// The type that a field has where nobody asks for another.
pub(super) fn natural(field: &FieldDescriptor) -> Result<DataType, String> {
    of_field(field, &mut vec![]).map(|of| of.unwrap_or(DataType::Null))
}

/// A field's type as `.proto` has it.
pub(super) fn type_name(field: &FieldDescriptor) -> String {
    let one = |field: &FieldDescriptor| match field.kind() {
        Kind::Message(message) => message.full_name().to_string(),
        Kind::Enum(names) => names.full_name().to_string(),
        kind => Scalar::of(&kind).map(Scalar::name).unwrap_or_default().to_string(),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let of = |number| entry.get_field(number).map(|field| one(&field)).unwrap_or_default();
            format!("map<{}, {}>", of(1), of(2))
        }
        _ if field.is_list() => format!("repeated {}", one(field)),
        _ => one(field),
    }
}

fn fields(message: &MessageDescriptor, within: &mut Vec<String>) -> Result<Fields, String> {
    let name = message.full_name();
    if within.iter().any(|outer| outer == name) || within.len() == DEEPEST {
        return Err(format!("{name} holds messages of its own type; declare the columns that are wanted"));
    }
    within.push(name.to_string());
    let mut columns = vec![];
    // In the order of the text, where `fields` would have that of the numbers.
    for proto in &message.descriptor_proto().field {
        let Some(field) = message.get_field_by_name(proto.name()) else { continue };
        if let Some(data_type) = of_field(&field, within).map_err(|e| format!("field '{}': {e}", field.name()))? {
            columns.push(Field::new(field.name(), data_type, true));
        }
    }
    within.pop();
    Ok(columns.into())
}

/// `None`: it holds nothing.
fn of_field(field: &FieldDescriptor, within: &mut Vec<String>) -> Result<Option<DataType>, String> {
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let mut of = |number| entry.get_field(number).map_or(Ok(None), |field| one(&field, within));
        let (Some(key), Some(value)) = (of(1)?, of(2)?) else { return Ok(None) };
        let entry = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
        return Ok(Some(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)));
    }
    let listed = |of| match field.is_list() {
        true => DataType::List(Arc::new(Field::new("item", of, true))),
        false => of,
    };
    Ok(one(field, within)?.map(listed))
}

/// One value of a field.
fn one(field: &FieldDescriptor, within: &mut Vec<String>) -> Result<Option<DataType>, String> {
    Ok(Some(match field.kind() {
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "google.protobuf.Duration" => DataType::Int64,
            _ => match wrapped(&message) {
                Some(scalar) => plain(scalar),
                None => {
                    let fields = fields(&message, within)?;
                    return Ok((!fields.is_empty()).then_some(DataType::Struct(fields)));
                }
            },
        },
        kind => Scalar::of(&kind).map_or(DataType::Null, plain),
    }))
}

fn plain(scalar: Scalar) -> DataType {
    match scalar {
        Scalar::Double => DataType::Float64,
        Scalar::Float => DataType::Float32,
        Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => DataType::Int32,
        Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 | Scalar::Uint32 | Scalar::Fixed32 => DataType::Int64,
        Scalar::Uint64 | Scalar::Fixed64 => DataType::Decimal128(20, 0),
        Scalar::Bool => DataType::Boolean,
        Scalar::String | Scalar::Enum => DataType::Utf8,
        Scalar::Bytes => DataType::Binary,
    }
}
