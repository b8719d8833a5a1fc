//! Which fields of a message type are columns, and how each becomes what its column is.
//!
//! | field | column |
//! |---|---|
//! | integers | integers that hold them, DECIMAL, for 32 bits DOUBLE; `uint32` also INT and `uint64` also BIGINT, where a number beyond is malformed |
//! | `bool`, `float`, `double`, `string`, `bytes` | BOOLEAN, REAL, DOUBLE, text, BYTEA |
//! | enums | text: its name, or the digits of a number without one; or integers |
//! | messages | STRUCT, of those of its fields that are asked for |
//! | `repeated`, maps | lists; MAP, or a list of STRUCT (key, value) |
//! | `google.protobuf.Timestamp` | TIMESTAMP, what is finer than it cut off |
//! | `google.protobuf.Duration` | BIGINT: microseconds, what is finer cut off |
//! | `google.protobuf.Int64Value` and its like | as their values, NULL where they are not there |
//!
//! With `protobuf.timestamp` integers are TIMESTAMP, too.
//!
//! Invariant: that a column can be read is known from the types alone; then only single values may not fit.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use watershed_core::widen;

use super::infer::{natural, type_name};
use super::scalar::Scalar;
use crate::options::nearest;
use crate::typed::sql_name;

/// A message type as columns.
pub(super) struct Shape {
    pub(super) columns: Vec<Plan>,
    /// By the fields' numbers, which grow.
    places: Vec<(u32, Place)>,
    /// For each `oneof` of which some field is a column, those columns.
    oneofs: Vec<Vec<usize>>,
}

/// What becomes of a field. Those that are neither are not looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) column: Option<usize>,
    oneof: Option<usize>,
}

/// A column, or what a list has.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) to: DataType,
    /// Only of what is nested: what is NULL at the top is judged for all formats alike.
    pub(super) not_null: bool,
    /// A field that is not there has its default, rather than being NULL.
    pub(super) has_default: bool,
    pub(super) reading: Reading,
}

pub(super) enum Reading {
    Scalar(Scalar),
    /// In a message of its own, as `google.protobuf.Int64Value` has it.
    Wrapped(Scalar),
    Enum(Names),
    /// A number of units since 1970.
    Epoch(Scalar, TimeUnit),
    Timestamp,
    Duration,
    Message(Shape),
    List(Box<Plan>),
    /// Of a key and a value.
    Map(Shape),
}

/// The names of an enum's numbers.
pub(super) struct Names {
    names: HashMap<i32, String>,
    pub(super) default: i32,
}

impl Names {
    fn of(of: &EnumDescriptor) -> Self {
        let mut names = HashMap::new();
        // Of several names of a number the first counts, as in other languages.
        for value in &of.enum_descriptor_proto().value {
            names.entry(value.number()).or_insert_with(|| value.name().to_string());
        }
        Names { names, default: of.default_value().number() }
    }

    pub(super) fn name(&self, number: i32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }
}

/// How a message type is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// In which integers are times.
    pub(super) times: Option<TimeUnit>,
    /// Whether columns stand for themselves, or are fields of a STRUCT.
    pub(super) nested: bool,
}

impl Shape {
    /// Or why these columns cannot be read from messages of this type.
    pub(super) fn new(message: &MessageDescriptor, columns: &Fields, asked: Asked) -> Result<Self, String> {
        let mut shape = Shape { columns: vec![], places: vec![], oneofs: vec![] };
        let mut oneofs = HashMap::new();
        for (at, column) in columns.iter().enumerate() {
            let name = column.name();
            let field = message.get_field_by_name(name).ok_or_else(|| unknown(message, name, asked))?;
            shape.columns.push(plan(&field, column, asked)?);
            let oneof = field.containing_oneof().map(|oneof| {
                let known = oneofs.entry(oneof.full_name().to_string()).or_insert_with(|| {
                    shape.oneofs.push(vec![]);
                    (shape.oneofs.len() - 1, oneof)
                });
                known.0
            });
            if let Some(oneof) = oneof {
                shape.oneofs[oneof].push(at);
            }
            shape.places.push((field.number(), Place { column: Some(at), oneof }));
        }
        for (at, oneof) in oneofs.values() {
            for field in oneof.fields().filter(|field| columns.find(field.name()).is_none()) {
                shape.places.push((field.number(), Place { column: None, oneof: Some(*at) }));
            }
        }
        shape.places.sort_unstable_by_key(|(number, _)| *number);
        Ok(shape)
    }

    /// Of a field by its number, near `hint`, which is where the field behind it may be: fields are written in their order.
    #[inline]
    pub(super) fn place(&self, number: u32, hint: &mut usize) -> Option<Place> {
        if self.places.get(*hint).is_none_or(|(of, _)| *of != number) {
            *hint = self.places.binary_search_by_key(&number, |(of, _)| *of).ok()?;
        }
        let place = self.places.get(*hint)?.1;
        *hint += 1;
        Some(place)
    }

    /// Columns that are NULL once this field is there.
    pub(super) fn rivals(&self, place: Place) -> impl Iterator<Item = usize> {
        let all = place.oneof.and_then(|oneof| self.oneofs.get(oneof)).map(Vec::as_slice).unwrap_or_default();
        all.iter().copied().filter(move |column| Some(*column) != place.column)
    }
}

fn plan(field: &FieldDescriptor, column: &Field, asked: Asked) -> Result<Plan, String> {
    let to = column.data_type();
    let reading = if field.is_map() { map(field, to, asked)? } else { None };
    let reading = match (reading, to) {
        (Some(reading), _) => Some(reading),
        (None, DataType::List(item) | DataType::LargeList(item)) if field.is_list() || field.is_map() => {
            single(field, item.data_type(), asked)?.map(|reading| Reading::List(Box::new(one(item, reading))))
        }
        _ if field.is_list() || field.is_map() => None,
        _ => single(field, to, asked)?,
    };
    let reading = reading.ok_or_else(|| mismatch(field, column, asked))?;
    Ok(Plan {
        name: column.name().clone(),
        to: to.clone(),
        not_null: asked.nested && !column.is_nullable(),
        has_default: !field.supports_presence(),
        reading,
    })
}

/// What a list has, each of which is there.
fn one(item: &Field, reading: Reading) -> Plan {
    let (name, to) = (item.name().clone(), item.data_type().clone());
    Plan { name, to, not_null: false, has_default: true, reading }
}

/// A map as MAP; `None`: the column is none that it fits.
fn map(field: &FieldDescriptor, to: &DataType, asked: Asked) -> Result<Option<Reading>, String> {
    let (Kind::Message(entry), DataType::Map(entries, _)) = (field.kind(), to) else { return Ok(None) };
    let DataType::Struct(of) = entries.data_type() else { return Ok(None) };
    let [key, value] = of.as_ref() else { return Ok(None) };
    let (Some(one), Some(two)) = (entry.get_field(1), entry.get_field(2)) else { return Ok(None) };
    // Every writer of tables has other names for the two.
    let renamed = [key.as_ref().clone().with_name(one.name()), value.as_ref().clone().with_name(two.name())];
    let shape = Shape::new(&entry, &Fields::from(renamed.to_vec()), Asked { nested: true, ..asked });
    let mut shape = shape.map_err(|reason| within(field, reason))?;
    for column in &mut shape.columns {
        column.has_default = true;
    }
    Ok(Some(Reading::Map(shape)))
}

/// One value of a field; `None`: the column is none that it fits.
fn single(field: &FieldDescriptor, to: &DataType, asked: Asked) -> Result<Option<Reading>, String> {
    use DataType::*;
    let kind = field.kind();
    Ok(match (&kind, to) {
        (Kind::Message(message), Struct(fields)) => {
            let shape = Shape::new(message, fields, Asked { nested: true, ..asked });
            Some(Reading::Message(shape.map_err(|reason| within(field, reason))?))
        }
        (Kind::Message(message), _) => match (message.full_name(), to) {
            ("google.protobuf.Timestamp", Timestamp(..)) => Some(Reading::Timestamp),
            ("google.protobuf.Duration", Int64) => Some(Reading::Duration),
            _ => wrapped(message).filter(|scalar| fits(to, *scalar)).map(Reading::Wrapped),
        },
        (Kind::Enum(names), Utf8 | LargeUtf8 | Utf8View) => Some(Reading::Enum(Names::of(names))),
        (_, Timestamp(..)) => match (asked.times, Scalar::of(&kind)) {
            (Some(unit), Some(scalar)) if fits(&Int64, scalar) => Some(Reading::Epoch(scalar, unit)),
            _ => None,
        },
        _ => Scalar::of(&kind).filter(|scalar| fits(to, *scalar)).map(Reading::Scalar),
    })
}

/// What a message like `google.protobuf.Int64Value` wraps.
pub(super) fn wrapped(message: &MessageDescriptor) -> Option<Scalar> {
    const WRAPPED: [&str; 9] = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];
    let name = message.full_name().strip_prefix("google.protobuf.")?.strip_suffix("Value")?;
    WRAPPED.contains(&name).then(|| message.get_field(1)).flatten().and_then(|field| Scalar::of(&field.kind()))
}

/// Whether a column may have values of a scalar type.
fn fits(to: &DataType, from: Scalar) -> bool {
    use DataType::*;
    let natural = match from {
        Scalar::Double => Float64,
        Scalar::Float => Float32,
        Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 | Scalar::Enum => Int32,
        Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => Int64,
        Scalar::Uint32 | Scalar::Fixed32 => UInt32,
        Scalar::Uint64 | Scalar::Fixed64 => UInt64,
        Scalar::Bool => Boolean,
        Scalar::String => Utf8,
        Scalar::Bytes => Binary,
    };
    match to {
        Int32 if natural == UInt32 => true,
        Int64 if natural == UInt64 => true,
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => widen::holds(to, &natural),
        Float32 | Float64 | Decimal128(..) => widen::holds(to, &natural),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => widen::holds(to, &natural),
        _ => false,
    }
}

fn what(asked: Asked) -> &'static str {
    if asked.nested { "field" } else { "column" }
}

fn within(field: &FieldDescriptor, reason: String) -> String {
    format!("in '{}': {reason}", field.name())
}

fn unknown(message: &MessageDescriptor, name: &str, asked: Asked) -> String {
    let fields: Vec<_> = message.fields().map(|field| field.name().to_string()).collect();
    let known: Vec<_> = fields.iter().map(String::as_str).collect();
    let (what, full, hint) = (what(asked), message.full_name(), nearest(name, &known));
    let there_are = if hint.starts_with("did") { format!(" There are {}", known.join(", ")) } else { String::new() };
    match known.as_slice() {
        [] => format!("{what} '{name}': {full} has no fields"),
        _ => format!("{what} '{name}': {full} has no such field; {hint}{there_are}"),
    }
}

fn mismatch(field: &FieldDescriptor, column: &Field, asked: Asked) -> String {
    let (name, wanted) = (column.name(), sql_name(column.data_type()));
    let hint = match natural(field) {
        _ if matches!(column.data_type(), DataType::Timestamp(..))
            && Scalar::of(&field.kind()).is_some_and(|scalar| fits(&DataType::Int64, scalar)) =>
        {
            "; with protobuf.timestamp = 's', 'ms', 'us' or 'ns' integers are times".to_string()
        }
        Ok(fitting) if !fitting.is_nested() => format!("; declare it {}", sql_name(&fitting)),
        _ => String::new(),
    };
    format!("{} '{name}' is {wanted}, which does not hold its {}{hint}", what(asked), type_name(field))
}
