//! Which columns a CSV file has, by its first record.

use std::sync::Arc;

use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use watershed_core::Result;
use watershed_core::tail::Decode;

use super::{Dialect, Known};
use crate::decoder;
use crate::options::CSV_HEADER;

/// How the columns of facts are found in a file.
pub(super) enum Columns {
    /// The first record was not seen yet.
    Unread,
    ByPosition,
    /// `decode` reads the file's columns; for each of the facts where it is among them.
    Named {
        decode: Arc<dyn Decode>,
        at: Vec<Option<usize>>,
    },
    /// No record of the file can be read, and why.
    Wrong(String),
}

impl Columns {
    pub(super) fn of(first: &[u8], known: &Known) -> Result<Columns> {
        let Some(names) = known.csv.and_then(|csv| names(first, csv)) else {
            return Ok(Columns::Wrong("the first line of its file is no CSV".into()));
        };
        let shown: String = String::from_utf8_lossy(first).chars().take(80).collect();
        let fields = known.schema.fields();
        let at = places(fields, &names);
        if at.iter().all(Option::is_none) {
            return Ok(Columns::Wrong(format!(
                "the first line of its file, '{shown}', names no column of the source; for files without such a line say \
                 {CSV_HEADER} = 'false'"
            )));
        }
        let lacking = fields.iter().zip(&at).find(|(field, at)| at.is_none() && !field.is_nullable());
        if let Some((field, _)) = lacking {
            let name = field.name();
            return Ok(Columns::Wrong(format!("column '{name}' is NOT NULL, and its file has none: '{shown}'")));
        }
        let field = |place: usize| match at.iter().position(|at| *at == Some(place)) {
            Some(column) => Arc::clone(&fields[column]),
            // Whatever is in it.
            None => Arc::new(Field::new(format!("#{place}"), DataType::Utf8, true)),
        };
        let in_file = Schema::new((0..names.len()).map(field).collect::<Vec<_>>());
        let decode = decoder(&known.of_records, Arc::new(in_file))?;
        Ok(Columns::Named { decode, at })
    }
}

/// Where columns stand among names: the very name, or else one that differs in case. No place is two columns'.
fn places(fields: &Fields, names: &[String]) -> Vec<Option<usize>> {
    let exact = |field: &FieldRef| names.iter().position(|name| name == field.name());
    let mut at: Vec<Option<usize>> = fields.iter().map(exact).collect();
    for (i, field) in fields.iter().enumerate() {
        if at[i].is_none() {
            let same = |name: &str| name.trim().eq_ignore_ascii_case(field.name());
            at[i] = (0..names.len()).find(|place| same(&names[*place]) && !at.contains(&Some(*place)));
        }
    }
    at
}

/// The fields of a record.
fn names(record: &[u8], csv: Dialect) -> Option<Vec<String>> {
    let format = Format::default().with_header(true).with_delimiter(csv.delimiter).with_quote(csv.quote);
    let (schema, _) = format.infer_schema(record, Some(0)).ok()?;
    Some(schema.fields().iter().map(|field| field.name().clone()).collect())
}
