//! The columns of a source of changes: the row's, by name, and the change's own.
//!
//! Invariant: there is an `_op`, so that whoever reads the rows can tell a deletion from a fact.

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use watershed_core::{Error, Result};

use crate::typed::sql_name;

/// What a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// `_op`: what was done, `c`, `u`, `r` or `d`.
    Op,
    /// `_changed_at`: when the database did it, or, if that is not known, when Debezium saw it.
    ChangedAt,
    /// A column of the row, by its place among those.
    Row(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Columns {
    all: Fields,
    of: Vec<Of>,
}

impl Columns {
    /// Of a source in this format.
    pub(crate) fn new(format: &str, fields: &Fields) -> Result<Self> {
        let mut rows = 0;
        let of = |field: &FieldRef| {
            let of = own(field)?.unwrap_or(Of::Row(rows));
            rows += usize::from(matches!(of, Of::Row(_)));
            Ok(of)
        };
        let of: Vec<Of> = fields.iter().map(of).collect::<Result<_>>()?;
        if !of.contains(&Of::Op) {
            return Err(Error::input(format!(
                "format '{format}': rows of this source are changes, deletions among them: declare a column _op VARCHAR, which \
                 tells them apart, and keep the table's rows by INSERT INTO t WITH (operation = '_op') SELECT …, _op"
            )));
        }
        Ok(Columns { all: fields.clone(), of })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&FieldRef, Of)> {
        self.all.iter().zip(self.of.iter().copied())
    }

    /// Those of the row.
    pub(crate) fn of_row(&self) -> impl Iterator<Item = &FieldRef> {
        self.all().filter(|(_, of)| matches!(of, Of::Row(_))).map(|(field, _)| field)
    }
}

/// What a column is of the change, if it is one of those.
fn own(field: &Field) -> Result<Option<Of>> {
    use DataType::*;
    let (of, fits, wanted) = match (field.name().as_str(), field.data_type()) {
        ("_op", found) => (Of::Op, matches!(found, Utf8 | LargeUtf8 | Utf8View), "text"),
        ("_changed_at", found) => (Of::ChangedAt, matches!(found, Timestamp(..)), "TIMESTAMP"),
        _ => return Ok(None),
    };
    if !fits {
        let (name, found) = (field.name(), sql_name(field.data_type()));
        return Err(Error::input(format!("column {name} is the change's own, so it is {wanted}, not {found}")));
    }
    Ok(Some(of))
}
