//! JSON: one object a message.
//!
//! * `objects`: columns as arrow's decoder reads them, much as text; [`crate::typed`] makes them what they are.
//! * `infer`: columns that nobody declared, by looking at objects.
//!
//! What a value may be, besides what [`crate::text`] says of numbers and times:
//!
//! * NULL, and a field that is not there, are NULL. Of two fields of one name the last counts. Names are compared as they
//!   are, upper and lower case.
//! * Text in a column of numbers or times is read as those: `"5"` is 5. Numbers, `true` and `false` in a column of text are
//!   the text they are written as; objects and lists are not.
//! * BYTEA is text in hexadecimal. TIME is text, or a number of the column's unit.
//! * Lists, structs and maps are lists and objects, to any depth that columns have.

mod objects;

mod infer;

use arrow::array::BinaryArray;
use arrow::datatypes::{Field, FieldRef, Fields};
use watershed_core::{Error, Result};

pub(crate) use self::infer::{Rules, Seen};
pub(crate) use self::objects::Objects;
use crate::apart::{Attempted, Fault, Read, read_apart};
use crate::facts::Payloads;
use crate::options::{JSON_TIMESTAMP, Options};
use crate::text::Times;
use crate::typed::{as_columns, read_as, sql_name};

pub(crate) struct Json {
    fields: Fields,
    objects: Objects,
    times: Times,
}

impl Json {
    pub(crate) fn new(options: &Options<'_>, fields: Fields) -> Result<Self> {
        let times = Times::of(JSON_TIMESTAMP, options.get(JSON_TIMESTAMP)).map_err(Error::input)?;
        let read = |field: &FieldRef| {
            let data_type = read_as(field.data_type()).ok_or_else(|| unreadable(field))?;
            Ok(Field::new(field.name(), data_type, true))
        };
        let objects = Objects::new(fields.iter().map(read).collect::<Result<_>>()?)?;
        Ok(Json { fields, objects, times })
    }

    fn attempt(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Attempted, Fault> {
        let rows = self.objects.read(payloads, messages, |message| payloads.value(message))?;
        as_columns(&rows, &self.fields, self.times).map_err(Fault::from)
    }
}

impl Payloads for Json {
    fn read(&self, payloads: &BinaryArray, messages: &[usize]) -> Result<Read> {
        read_apart(&self.fields, messages, &|some| self.attempt(payloads, some))
    }
}

/// What to say of a column that no JSON is read as.
pub(crate) fn unreadable(field: &Field) -> Error {
    let (name, data_type) = (field.name(), sql_name(field.data_type()));
    Error::input(format!("column '{name}' is {data_type}, which cannot be read from JSON"))
}
