//! A source whose log is what becomes of a table: `lake = '…', tail = 'changes'`.
//!
//! It is said as `tail = 'commits'` is, beside the table itself: where that lies, the options of its store and the columns mean
//! what they mean there, and nothing has to be declared. It has no history, for its rows are other rows than the table's: they
//! have three columns more, and `start` says where they begin.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, SchemaRef};
use watershed_core::settings::Settings;
use watershed_core::tail::{Numbering, Start};
use watershed_core::{Error, Result};
use watershed_lake::Stores;
use watershed_lake::changes::{CHANGE_COLUMNS, ChangeTail};

use crate::tails::{self, OpenTail, Reading};

/// The tail of a source whose log is its table's changes.
pub(crate) const CHANGES: &str = "changes";

/// Begins with what the table holds.
const SNAPSHOT: &str = "snapshot";

/// Such a log as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredChanges {
    /// `None`: with what the table holds.
    start: Option<Start>,
    /// By which deletes and inserts are paired, where the table has no key on record.
    key: Option<Vec<String>>,
    reading: Reading,
}

impl DeclaredChanges {
    pub(crate) fn new(own: impl Fn(&'static str) -> Option<String>, settings: &Settings, what: &str) -> Result<Self> {
        let start = match own("start") {
            Some(text) if !text.trim().eq_ignore_ascii_case(SNAPSHOT) => Some(start(&text, what)?),
            _ => None,
        };
        let key = own("primary_key").map(|text| text.split(',').map(|name| name.trim().to_string()).collect());
        Ok(DeclaredChanges { start, key, reading: Reading::new(None, settings) })
    }

    /// Opens the log of the table at a location; with the columns of its rows.
    pub(crate) async fn open(
        &self,
        stores: &Stores,
        location: &str,
        time_column: Option<&str>,
    ) -> Result<(OpenTail, SchemaRef, String)> {
        let tail = ChangeTail::open(stores, location, self.key.as_deref()).await?;
        let columns = tail.schema();
        // When a change was committed is known of all of them.
        let time_column = time_column.unwrap_or(CHANGE_COLUMNS[2]).to_string();
        let time = columns.index_of(&time_column).map_err(|_| {
            let names: Vec<&str> = columns.fields().iter().map(|f| f.name().as_str()).collect();
            Error::input(format!("{location} has no column `{time_column}`; its columns are {}", names.join(", ")))
        })?;
        if !matches!(columns.field(time).data_type(), DataType::Timestamp(..)) {
            return Err(Error::input(format!(
                "{location}: `{time_column}` is {}, and an event time must be a TIMESTAMP",
                columns.field(time).data_type()
            )));
        }
        let content = || Start::Offsets(BTreeMap::from([(0, tail.content())]));
        let start = self.start.clone().unwrap_or_else(content);
        let reading = self.reading.clone().beginning(start);
        Ok((OpenTail::of_rows(tail, reading, time), columns, time_column))
    }
}

/// Offsets are given as versions.
fn start(text: &str, what: &str) -> Result<Start> {
    let begins = |(part, version)| (part, Numbering::Versions.begins(version));
    let start = tails::start(text, what).map_err(|_| {
        Error::sql(format!(
            "{what}: start = '{text}': give '{SNAPSHOT}', 'earliest', 'latest', a time such as '2024-01-31T12:00:00Z', or a version, \
             as in '0:12'"
        ))
    })?;
    Ok(match start {
        Start::Offsets(versions) => Start::Offsets(versions.into_iter().map(begins).collect()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_begin_where_it_is_said() {
        let declared = |text: Option<&str>| {
            let own = |name: &str| text.filter(|_| name == "start").map(str::to_string);
            DeclaredChanges::new(own, &Settings::default(), "source s").map(|declared| declared.start)
        };
        assert_eq!(declared(None).unwrap(), None);
        assert_eq!(declared(Some(" Snapshot")).unwrap(), None);
        assert_eq!(declared(Some("latest")).unwrap(), Some(Start::Latest));
        let version = Start::Offsets(BTreeMap::from([(0, 120_000_000_000)]));
        assert_eq!(declared(Some("0:12")).unwrap(), Some(version));
        let error = declared(Some("soon")).unwrap_err().to_string();
        assert!(error.contains("give 'snapshot', 'earliest'") && error.contains("'0:12'"), "{error}");
    }
}
