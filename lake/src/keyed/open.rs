//! A keyed table as a sink opens it: whether its columns can be a key, and the parts that its epochs are made of.

use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;
use watershed_core::sink::EpochWriter;
use watershed_core::{Error, Result};

use super::key::{Keyer, orders};
use super::operation;
use super::scan::{KeyColumn, KeyColumns};
use super::spec::{KeySpec, Merge, WriteMode};
use super::table::{KeyedTable, Pending};
use super::writer::KeyedWriter;
use crate::log::{LogMetadata, features};
use crate::stores::Place;
use crate::table::encode::Encoding;
use crate::table::shape::{Shape, Stored};
use crate::table::{SinkOptions, TableSpec};

/// What makes a sink keyed.
#[derive(Debug)]
pub(crate) struct Keyed {
    location: String,
    spec: KeySpec,
    operation: Option<usize>,
    keys: Arc<KeyColumns>,
    deletes: Arc<Shape>,
    pending: Pending,
    pub(crate) table: Mutex<KeyedTable>,
}

impl Keyed {
    /// What the rows of a spec are without their operation column, and where that is.
    pub(crate) fn rows(mut spec: TableSpec) -> Result<(TableSpec, Option<usize>)> {
        let Some(column) = spec.key.as_ref().and_then(|key| key.operation.as_deref()) else { return Ok((spec, None)) };
        let (at, schema) = operation::without(&spec.schema, column)?;
        spec.schema = schema;
        Ok((spec, Some(at)))
    }

    /// Errors unless a table's columns can be keyed so.
    pub(crate) fn columns(location: &str, spec: &KeySpec, shape: &Shape, secret: Uuid) -> Result<KeyColumns> {
        if spec.columns.is_empty() {
            return Err(Error::input(format!("table {location}: a key has at least one column")));
        }
        let find = |name: &String, what: &str| {
            shape.find(name).ok_or_else(|| {
                let names: Vec<&str> = shape.table_schema.fields().iter().map(|f| f.name().as_str()).collect();
                Error::input(format!(
                    "table {location}: {what} `{name}` is no column of the rows; the table's are {}",
                    names.join(", ")
                ))
            })
        };
        let mut columns: Vec<KeyColumn> = vec![];
        for name in &spec.columns {
            if columns.iter().any(|c| c.field.name() == name) {
                return Err(Error::input(format!("table {location}: the key names `{name}` twice")));
            }
            columns.push(match find(name, "the key's")? {
                Stored::InFiles(_, field) => KeyColumn { field, partition: None },
                Stored::InPartitions(at, field) => KeyColumn { field, partition: Some(at) },
            });
        }
        let sequence = match &spec.sequence_by {
            None => None,
            Some(name) => match find(name, "sequence_by's")? {
                Stored::InFiles(_, field) if orders(field.data_type()) => Some(field),
                Stored::InFiles(_, field) => {
                    return Err(Error::input(format!(
                        "table {location}: sequence_by `{name}` is {}; it must be a whole number, a timestamp or a date",
                        field.data_type()
                    )));
                }
                Stored::InPartitions(..) => {
                    return Err(Error::input(format!(
                        "table {location}: sequence_by `{name}` is a partition column; take one that is kept in the files"
                    )));
                }
            },
        };
        let types: Vec<_> = columns.iter().map(|c| c.field.data_type().clone()).collect();
        let keyer = Keyer::new(&types, secret)?;
        let fixes_partition = shape.partition_follows_from(&spec.columns);
        if spec.merge == Merge::Partial && sequence.is_some() {
            return Err(Error::input(format!(
                "table {location}: merge = 'partial' does not go with sequence_by: where an older row comes late, nothing says \
                 which of the newer one's values it was to keep; leave out one of the two"
            )));
        }
        if spec.write_mode == WriteMode::CopyOnWrite && sequence.is_some() && spec.operation.is_some() {
            return Err(Error::input(format!(
                "table {location}: deletes do not go with sequence_by and write_mode = 'copy-on-write' together, for how old a \
                 deletion is is remembered by deletion vectors; leave out one of the three"
            )));
        }
        let partial = spec.merge == Merge::Partial;
        Ok(KeyColumns { keyer, columns, sequence, fixes_partition, partial })
    }

    pub(crate) fn new(
        place: &Place,
        location: &str,
        spec: KeySpec,
        operation: Option<usize>,
        shape: &Shape,
        secret: Uuid,
        options: &SinkOptions,
    ) -> Result<Keyed> {
        let keys = Arc::new(Keyed::columns(location, &spec, shape, secret)?);
        let columns = shape.partition_columns.clone();
        let table = KeyedTable::new(place.clone(), keys.clone(), spec.clone(), columns, *options);
        Ok(Keyed {
            location: location.to_string(),
            spec,
            operation,
            keys,
            deletes: Arc::new(shape.of_keys_alone()),
            pending: table.pending.clone(),
            table: Mutex::new(table),
        })
    }

    /// Errors unless rows of a table may be replaced.
    pub(crate) fn check(&self, metadata: &LogMetadata) -> Result<()> {
        self.spec.check_against(&self.location, &metadata.configuration)?;
        features::check_replaceable(&self.location, metadata)
    }

    pub(crate) fn writer(
        &self,
        place: &Place,
        shape: &Arc<Shape>,
        options: &SinkOptions,
        id: Uuid,
    ) -> Arc<dyn EpochWriter> {
        let rows = Encoding::new(place.clone(), shape.clone(), options, id);
        let deletes = Encoding::new(place.clone(), self.deletes.clone(), options, id).named("deletes");
        Arc::new(KeyedWriter::new(
            &self.location,
            [rows, deletes],
            self.keys.clone(),
            self.spec.clone(),
            self.operation,
            *options,
            self.pending.clone(),
        ))
    }
}
