//! The bytes as they are: the one column of the payload is the payload.
//!
//! A tombstone is NULL. Text must be valid UTF-8.
//!
//! Invariant: nothing is copied where the column is BYTEA as arrow keeps messages.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, UInt64Array};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{DataType, Fields};
use watershed_core::{Error, Result};

use crate::apart::{Attempted, Fault, Read, read_apart};
use crate::facts::Payloads;
use crate::typed::{plain, sql_name};

pub(crate) struct Raw {
    fields: Fields,
    to: DataType,
}

impl Raw {
    pub(crate) fn new(fields: Fields) -> Result<Self> {
        use DataType::*;
        let [field] = fields.as_ref() else {
            let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
            return Err(Error::input(format!(
                "format 'raw' has one column for the payload, beside _offset, _part, _timestamp, _key and _headers; there are: {}",
                if names.is_empty() { "none".into() } else { names.join(", ") },
            )));
        };
        let to = field.data_type().clone();
        if !matches!(to, Binary | LargeBinary | BinaryView | Utf8 | LargeUtf8 | Utf8View) {
            let (name, found) = (field.name(), sql_name(&to));
            return Err(Error::input(format!("column '{name}' is {found}; with format 'raw' it is BYTEA or text")));
        }
        Ok(Raw { fields, to })
    }

    fn attempt(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Attempted, Fault> {
        let all: ArrayRef = Arc::new(payloads.clone());
        let some = if messages.len() == payloads.len() {
            all
        } else {
            let messages = UInt64Array::from_iter_values(messages.iter().map(|at| *at as u64));
            take(&all, &messages, None).map_err(plain)?
        };
        // Strictly, a slice would be judged by what lies around it, too. This way what is no text is NULL.
        let lenient = CastOptions { safe: true, ..CastOptions::default() };
        let column = cast_with_options(&some, &self.to, &lenient).map_err(plain)?;
        let mut attempted = Attempted::from(vec![column]);
        let column = &attempted.columns[0];
        if column.null_count() > some.null_count() {
            let none = (0..some.len()).filter(|row| column.is_null(*row) && some.is_valid(*row));
            let reason = format!("column '{}': it is not UTF-8", self.fields[0].name());
            attempted.refused.extend(none.map(|row| (row, reason.clone())));
        }
        Ok(attempted)
    }
}

impl Payloads for Raw {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        read_apart(&self.fields, messages, &|some| self.attempt(payloads, some))
    }

    fn reads_tombstones(&self) -> bool {
        true
    }
}
