//! The scalar types of Protobuf: from the wire to a number, a flag, or bytes.
//!
//! Invariant: a value is what was written, or refused. Google's parsers cut numbers that are too large for a field, and
//! take a field of another wire type for one they do not know; here such a message is malformed.

use prost_reflect::Kind;

use super::bad::Bad;
use super::wire::{Reader, Wire};

/// A type by its name in `.proto`; enums are numbers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum,
}

/// A value of a scalar type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Signed(i64),
    Unsigned(u64),
    Double(f64),
    Float(f32),
    Bool(bool),
    /// UTF-8, if the type is `string`.
    Bytes(&'a [u8]),
}

impl Scalar {
    /// `None`: it is a message.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Double => Scalar::Double,
            Kind::Float => Scalar::Float,
            Kind::Int32 => Scalar::Int32,
            Kind::Int64 => Scalar::Int64,
            Kind::Uint32 => Scalar::Uint32,
            Kind::Uint64 => Scalar::Uint64,
            Kind::Sint32 => Scalar::Sint32,
            Kind::Sint64 => Scalar::Sint64,
            Kind::Fixed32 => Scalar::Fixed32,
            Kind::Fixed64 => Scalar::Fixed64,
            Kind::Sfixed32 => Scalar::Sfixed32,
            Kind::Sfixed64 => Scalar::Sfixed64,
            Kind::Bool => Scalar::Bool,
            Kind::String => Scalar::String,
            Kind::Bytes => Scalar::Bytes,
            Kind::Enum(_) => Scalar::Enum,
            Kind::Message(_) => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Scalar::Double => "double",
            Scalar::Float => "float",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Uint32 => "uint32",
            Scalar::Uint64 => "uint64",
            Scalar::Sint32 => "sint32",
            Scalar::Sint64 => "sint64",
            Scalar::Fixed32 => "fixed32",
            Scalar::Fixed64 => "fixed64",
            Scalar::Sfixed32 => "sfixed32",
            Scalar::Sfixed64 => "sfixed64",
            Scalar::Bool => "bool",
            Scalar::String => "string",
            Scalar::Bytes => "bytes",
            Scalar::Enum => "enum",
        }
    }

    /// Whether several of them may be written one after the other as one value.
    pub(super) fn packs(self) -> bool {
        !matches!(self, Scalar::String | Scalar::Bytes)
    }

    #[inline(always)]
    pub(super) fn value<'a>(self, wire: Wire<'a>) -> Result<Value<'a>, Bad> {
        use Scalar::*;
        let beyond = || format!("{} is beyond {}", if let Wire::Varint(v) = wire { v } else { 0 }, self.name());
        Ok(match (self, wire) {
            (Double, Wire::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
            (Float, Wire::Fixed32(bits)) => Value::Float(f32::from_bits(bits)),
            (Int32 | Enum, Wire::Varint(v)) => {
                let number = i32::try_from(v.cast_signed());
                Value::Signed(number.map_err(|_| format!("{} is beyond int32", v.cast_signed()))?.into())
            }
            (Int64, Wire::Varint(v)) => Value::Signed(v.cast_signed()),
            (Uint32, Wire::Varint(v)) => Value::Unsigned(u32::try_from(v).map_err(|_| beyond())?.into()),
            (Uint64, Wire::Varint(v)) => Value::Unsigned(v),
            (Sint32, Wire::Varint(v)) => {
                let number = u32::try_from(v).map_err(|_| format!("{} is beyond sint32", zigzag(v)))?;
                Value::Signed(zigzag(number.into()))
            }
            (Sint64, Wire::Varint(v)) => Value::Signed(zigzag(v)),
            (Fixed32, Wire::Fixed32(v)) => Value::Unsigned(v.into()),
            (Fixed64, Wire::Fixed64(v)) => Value::Unsigned(v),
            (Sfixed32, Wire::Fixed32(v)) => Value::Signed(v.cast_signed().into()),
            (Sfixed64, Wire::Fixed64(v)) => Value::Signed(v.cast_signed()),
            (Bool, Wire::Varint(v)) => Value::Bool(v != 0),
            (Bytes, Wire::Bytes(bytes)) => Value::Bytes(bytes),
            (String, Wire::Bytes(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
                Value::Bytes(bytes)
            }
            _ => return Err(format!("{} has not the wire type {}", self.name(), wire.name()).into()),
        })
    }

    /// The next of several that are packed.
    pub(super) fn packed<'a>(self, from: &mut Reader<'a>) -> Result<Wire<'a>, Bad> {
        Ok(match self {
            Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64 => Wire::Fixed64(from.fixed64()?),
            Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32 => Wire::Fixed32(from.fixed32()?),
            _ => Wire::Varint(from.varint()?),
        })
    }
}

/// Signed numbers as the unsigned ones they are written as: 0, -1, 1, -2, …
pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
