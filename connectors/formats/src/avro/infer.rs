//! The columns of a writer's schema, for a source that declares none: exact, and nothing is guessed.
//!
//! A field whose type no column can be declared as, such as a time of day, is left out and named.
//!
//! Invariant: [`super::Writer`] reads every column that is made here.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use watershed_core::Result;
use watershed_core::tail::Messages;

use super::registry::{Found, Registry};
use super::{AVRO_SCHEMA, Writer, schema_id, without_schema};
use crate::infer::{Learnt, Tally};
use crate::options::Options;
use crate::typed::sql_name;

/// The schema to go by: the one that was given, or else of those that messages were written with the one that was registered
/// last, which has the largest id.
pub(crate) fn schema(options: &Options<'_>, messages: &[Messages]) -> Result<(String, Tally)> {
    let mut tally = Tally::default();
    if let Some(schema) = options.get(AVRO_SCHEMA) {
        return Ok((schema.to_string(), tally));
    }
    let registry = Registry::of(options)?.ok_or_else(|| without_schema(options))?;
    let mut ids = BTreeSet::new();
    tally.count(messages, |payload| {
        ids.insert(schema_id(payload)?);
        Ok(())
    });
    let mut unusable = None;
    for id in ids.into_iter().rev() {
        match registry.schema(id)? {
            Found::Schema(schema) => return Ok((schema, tally)),
            Found::Unusable(why) => unusable = unusable.or(Some(format!("its schema {id}: {why}"))),
        }
    }
    tally.none_if(unusable);
    Ok((String::new(), tally))
}

/// A column for each field of the record.
pub(crate) fn columns(schema: &str) -> Result<Learnt, String> {
    let mut learnt = Learnt::default();
    for field in Writer::fields(schema)? {
        let (name, column) = match field {
            Ok(field) => (field.name().clone(), natural(field.data_type()).ok_or_else(|| unreadable(&field))),
            Err((name, reason)) => (name, Err(reason)),
        };
        let column = column.and_then(|data_type| {
            let column: FieldRef = Arc::new(Field::new(&name, data_type, true));
            Writer::new(schema, &[Arc::clone(&column)].into()).map(|_| column)
        });
        learnt.add(&name, column);
    }
    Ok(learnt)
}

fn unreadable(field: &Field) -> String {
    format!("no column holds its {}", sql_name(field.data_type()))
}

/// The type of a column that can be declared and holds all values of one that is read.
pub(crate) fn natural(read: &DataType) -> Option<DataType> {
    use DataType::*;
    let inner = |name: &str, field: &Field, nullable| Some(Field::new(name, natural(field.data_type())?, nullable));
    Some(match read {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Utf8 | Binary | Date32 => read.clone(),
        Decimal128(_, scale) if *scale >= 0 => read.clone(),
        Decimal32(precision, scale) | Decimal64(precision, scale) if *scale >= 0 => Decimal128(*precision, *scale),
        LargeUtf8 | Utf8View => Utf8,
        LargeBinary | BinaryView | FixedSizeBinary(_) => Binary,
        Timestamp(_, zone) => Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into())),
        // An enum.
        Dictionary(_, values) => natural(values)?,
        List(item) => List(Arc::new(inner("element", item, true)?)),
        Struct(fields) => {
            let fields: Vec<Field> = fields.iter().filter_map(|field| inner(field.name(), field, true)).collect();
            return (!fields.is_empty()).then(|| Struct(fields.into()));
        }
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else { return None };
            let [key, value] = &pair[..] else { return None };
            let pair = vec![inner("key", key, false)?, inner("value", value, true)?];
            Map(Arc::new(Field::new("key_value", Struct(pair.into()), false)), false)
        }
        _ => return None,
    })
}
