//! A change as it is read, and what of it counts.
//!
//! ```text
//!  before, after: STRUCT of the row's columns    op: text    ts_ms: BIGINT    source: STRUCT { ts_ms: BIGINT }
//! ```
//!
//! | `op` | the row is | |
//! |---|---|---|
//! | `c`, `u`, `r` | `after` | it was created, updated, read by a snapshot |
//! | `d` | `before` | it was deleted; columns besides the key may be NULL |
//! | `t`, `m`, others, none | | malformed |
//!
//! Invariant: a row has the values of one image, and the other one is not looked at beyond its types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, StructArray};
use arrow::compute::cast;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit};

use super::columns::{Columns, Of};
use super::encoding::{Encoding, decoded, since_epoch};
use crate::apart::Attempted;
use crate::text::Refused;
use crate::typed::plain;

/// The fields of a change whose row has these.
pub(crate) fn fields(row: Fields) -> Vec<Field> {
    let image = DataType::Struct(row);
    let source = DataType::Struct(vec![Field::new("ts_ms", DataType::Int64, true)].into());
    vec![
        Field::new("before", image.clone(), true),
        Field::new("after", image, true),
        Field::new("op", DataType::Utf8, true),
        Field::new("ts_ms", DataType::Int64, true),
        Field::new("source", source, true),
    ]
}

/// Changes as the columns of [`fields`].
pub(crate) struct Changes<'a> {
    before: &'a StructArray,
    after: &'a StructArray,
    op: &'a StringArray,
    seen: &'a Int64Array,
    source: &'a StructArray,
}

impl<'a> Changes<'a> {
    pub(crate) fn of(columns: &'a [ArrayRef]) -> Result<Self, String> {
        let [before, after, op, seen, source] = columns else { return Err("it is no change of Debezium".into()) };
        Ok(Changes {
            before: before.as_struct(),
            after: after.as_struct(),
            op: op.as_string(),
            seen: seen.as_primitive(),
            source: source.as_struct(),
        })
    }

    /// Their rows. `encodings` are those of the row's columns; `is_text` says of a row's value in a column whether it is
    /// written as text, which is asked where that is not plain.
    pub(crate) fn rows(
        &self,
        columns: &Columns,
        encodings: &[Encoding],
        is_text: &dyn Fn(usize, &str) -> Option<bool>,
    ) -> Result<Attempted, String> {
        let mut refused = self.refused();
        let deleted: BooleanArray = self.op.iter().map(|op| Some(op == Some("d"))).collect();
        let image = |at: usize| -> Result<ArrayRef, String> {
            match deleted.has_true() {
                false => Ok(Arc::clone(self.after.column(at))),
                true => zip(&deleted, self.before.column(at), self.after.column(at)).map_err(plain),
            }
        };
        let mut found = vec![];
        for (field, of) in columns.all() {
            let column = match of {
                Of::Op => cast(self.op, field.data_type()).map_err(plain)?,
                Of::ChangedAt => {
                    let (column, beyond) = since_epoch(&self.changed(), TimeUnit::Millisecond, field.data_type())?;
                    let reason = || format!("column '{}': its ts_ms is beyond the range of times", field.name());
                    beyond.into_iter().for_each(|row| _ = refused.entry(row).or_insert_with(reason));
                    column
                }
                Of::Row(at) => {
                    let is_text = |row| is_text(row, field.name());
                    let (column, others) = decoded(&image(at)?, field, encodings[at], &is_text)?;
                    others.into_iter().for_each(|(row, reason)| _ = refused.entry(row).or_insert(reason));
                    column
                }
            };
            found.push(column);
        }
        Ok(Attempted { columns: found, refused })
    }

    /// Those that change no row, and why.
    fn refused(&self) -> Refused {
        let reason = |row: usize| {
            let op = self.op.is_valid(row).then(|| self.op.value(row));
            match op {
                Some("c" | "u" | "r") if self.after.is_valid(row) => None,
                Some("d") if self.before.is_valid(row) => None,
                Some(op @ ("c" | "u" | "r")) => Some(format!("its op is '{op}', and it has no `after`")),
                Some("d") => Some("it deletes a row, and without `before` does not say which".to_string()),
                Some("t") => Some("the table was truncated, which cannot be done by changes of rows".to_string()),
                Some("m") => Some("it is a message of the database's log, and no change of a row".to_string()),
                Some(op) => Some(format!("its op '{op}' is none of c, u, r and d")),
                None => Some("it has no op: it is no change, or one that a transform has unwrapped".to_string()),
            }
        };
        (0..self.op.len()).filter_map(|row| Some((row, reason(row)?))).collect()
    }

    /// When the database made them, or Debezium saw them, in milliseconds since 1970.
    fn changed(&self) -> Int64Array {
        let made = self.source.column(0).as_primitive::<Int64Type>();
        let made = made.iter().enumerate().map(|(row, made)| made.filter(|_| self.source.is_valid(row)));
        made.zip(self.seen).map(|(made, seen)| made.or(seen)).collect()
    }
}
