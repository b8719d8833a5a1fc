//! A table's columns, and the names that its files and its log know them by. Pure.
//!
//! With column mapping (mode `name` or `id`) a column keeps one physical name for life, whatever it is renamed to: Parquet
//! files, partition values and statistics all speak of that one. In mode `id` files are matched by field number where they
//! have numbers. Delta protocol, "Column Mapping".

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use watershed_core::history::FIELD_ID;
use watershed_core::{Error, Result};

use super::{LogMetadata, state};
use crate::stores::Place;

const MODE: &str = "delta.columnMapping.mode";
const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
const ID: &str = "delta.columnMapping.id";

/// The columns of a table in its own order, partition columns included.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) table: SchemaRef,
    /// The same columns as files have them, column by column; the table's where names are not mapped.
    pub(crate) stored: SchemaRef,
    pub(crate) mapping: Mapping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    None,
    Name,
    Id,
}

/// How a table maps names.
pub(crate) fn mapping(metadata: &LogMetadata) -> Result<Mapping, String> {
    match metadata.configuration.get(MODE).map(String::as_str) {
        None | Some("none") => Ok(Mapping::None),
        Some("name") => Ok(Mapping::Name),
        Some("id") => Ok(Mapping::Id),
        Some(other) => Err(format!("{MODE} = '{other}'")),
    }
}

impl Columns {
    pub(crate) fn of(place: &Place, metadata: &LogMetadata) -> Result<Columns> {
        let schema = state::arrow_schema(place, metadata)?;
        let unknown = |what| Error::input(format!("table {} has {what}, which Watershed does not know", place.url));
        let mapping = mapping(metadata).map_err(unknown)?;
        let table: SchemaRef = Schema::new(plain(schema.fields())).into();
        let stored = match mapping {
            Mapping::None => table.clone(),
            _ => Schema::new(stored(schema.fields(), mapping == Mapping::Id).map_err(|column| {
                Error::input(format!(
                    "table {} maps column names, and column `{column}` has no physical name; its log is damaged",
                    place.url
                ))
            })?)
            .into(),
        };
        Ok(Columns { table, stored, mapping })
    }
}

/// Without what the log alone is concerned with, so that it is not copied to tables made from this one.
fn plain(fields: &Fields) -> Fields {
    let field = |field: &FieldRef| -> Field {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !key.starts_with("delta.") && key != FIELD_ID);
        let data_type = nested(field.data_type(), &|fields| Ok::<_, String>(plain(fields)));
        let data_type = data_type.unwrap_or_else(|_| field.data_type().clone());
        Field::new(field.name(), data_type, field.is_nullable()).with_metadata(metadata)
    };
    fields.iter().map(field).collect()
}

/// Fields under their physical names; `Err` names one that has none.
fn stored(fields: &Fields, by_id: bool) -> Result<Fields, String> {
    let field = |field: &FieldRef| {
        let name = field.metadata().get(PHYSICAL_NAME).ok_or_else(|| field.name().clone())?;
        let data_type = nested(field.data_type(), &|fields| stored(fields, by_id))?;
        let id = field.metadata().get(ID).filter(|_| by_id);
        let metadata: HashMap<String, String> = id.map(|id| (FIELD_ID.to_string(), id.clone())).into_iter().collect();
        Ok(Field::new(name, data_type, field.is_nullable()).with_metadata(metadata))
    };
    fields.iter().map(field).collect()
}

/// A type with the fields of every struct in it made anew.
fn nested<E>(data_type: &DataType, anew: &dyn Fn(&Fields) -> Result<Fields, E>) -> Result<DataType, E> {
    let inner = |field: &FieldRef| -> Result<FieldRef, E> {
        let data_type = nested(field.data_type(), anew)?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()).into())
    };
    Ok(match data_type {
        DataType::Struct(fields) => DataType::Struct(anew(fields)?),
        DataType::List(element) => DataType::List(inner(element)?),
        DataType::LargeList(element) => DataType::LargeList(inner(element)?),
        DataType::Map(entries, sorted) => {
            let DataType::Struct(pair) = entries.data_type() else { return Ok(data_type.clone()) };
            let pair: Fields = pair.iter().map(inner).collect::<Result<_, E>>()?;
            let entries = Field::new(entries.name(), DataType::Struct(pair), entries.is_nullable());
            DataType::Map(entries.into(), *sorted)
        }
        other => other.clone(),
    })
}
