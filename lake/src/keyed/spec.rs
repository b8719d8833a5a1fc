//! What makes a table keyed, as its properties record it and as its writers are told. Pure.

use std::collections::BTreeMap;

use watershed_core::{Error, Result};

/// The table property that names the key columns, separated by commas.
pub const PRIMARY_KEY: &str = "watershed.primary_key";

/// The table property that names the column by which a newer version of a row is known.
pub const SEQUENCE_BY: &str = "watershed.sequence_by";

/// The table property that says what a new row does to values of the old one.
pub(crate) const MERGE: &str = "watershed.merge";

/// The table property that says how replaced rows leave the table.
pub(crate) const WRITE_MODE: &str = "watershed.write_mode";

/// What a new row does to the values of the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// It replaces them all.
    #[default]
    Replace,
    /// Where it is NULL, or does not have the column, the old value stays.
    Partial,
}

/// How replaced rows leave the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// They are marked in deletion vectors.
    #[default]
    MergeOnRead,
    /// Their files are written anew without them: for readers that do not know deletion vectors.
    CopyOnWrite,
}

/// How rows go into a keyed table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySpec {
    /// The key's columns; a declared key is never NULL.
    pub columns: Vec<String>,
    /// A row replaces another only if its value here is not less. Without it, what comes later replaces what came earlier.
    pub sequence_by: Option<String>,
    /// The column of the rows that says what each of them does to its key; it is not kept. Without it, all are upserts.
    pub operation: Option<String>,
    /// Two rows of one commit may have the same key. Else that is an error, since nobody said which of them is the newer:
    /// for rows that come in no order.
    pub fold: bool,
    /// A table that another made without deletion vectors may be changed to use them; older readers then refuse it.
    pub upgrade: bool,
    pub merge: Merge,
    pub write_mode: WriteMode,
}

impl Merge {
    pub fn name(self) -> &'static str {
        match self {
            Merge::Replace => "replace",
            Merge::Partial => "partial",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Result<Merge> {
        match text {
            "replace" => Ok(Merge::Replace),
            "partial" => Ok(Merge::Partial),
            other => Err(Error::input(format!(
                "merge = '{other}': give 'replace' (a new row replaces the old one), or 'partial' (NULL keeps the old value)"
            ))),
        }
    }
}

impl WriteMode {
    pub fn name(self) -> &'static str {
        match self {
            WriteMode::MergeOnRead => "merge-on-read",
            WriteMode::CopyOnWrite => "copy-on-write",
        }
    }

    /// By its name.
    pub fn parse(text: &str) -> Result<WriteMode> {
        match text {
            "merge-on-read" => Ok(WriteMode::MergeOnRead),
            "copy-on-write" => Ok(WriteMode::CopyOnWrite),
            other => Err(Error::input(format!(
                "write_mode = '{other}': give 'merge-on-read' (replaced rows are marked in deletion vectors), or \
                 'copy-on-write' (their files are written anew)"
            ))),
        }
    }
}

impl KeySpec {
    /// The key that a table's properties name, if any.
    pub fn of(properties: &BTreeMap<String, String>) -> Option<KeySpec> {
        let columns = names(properties.get(PRIMARY_KEY)?);
        // A value that is not known here is refused when the table is opened.
        let merge = properties.get(MERGE).and_then(|text| Merge::parse(text).ok()).unwrap_or_default();
        let write_mode = properties.get(WRITE_MODE).and_then(|text| WriteMode::parse(text).ok()).unwrap_or_default();
        let sequence_by = properties.get(SEQUENCE_BY).cloned();
        Some(KeySpec { columns, sequence_by, fold: true, merge, write_mode, ..KeySpec::default() })
    }

    /// The properties that record it.
    pub fn properties(&self) -> BTreeMap<String, String> {
        let key = (PRIMARY_KEY.to_string(), self.columns.join(","));
        let sequence = self.sequence_by.iter().map(|column| (SEQUENCE_BY.to_string(), column.clone()));
        let merge = (self.merge == Merge::Partial).then(|| (MERGE.to_string(), self.merge.name().to_string()));
        let copies = self.write_mode == WriteMode::CopyOnWrite;
        let write_mode = copies.then(|| (WRITE_MODE.to_string(), self.write_mode.name().to_string()));
        std::iter::once(key).chain(sequence).chain(merge).chain(write_mode).collect()
    }

    /// Errors unless the table that is there is keyed in the same way, if it says that it is keyed.
    pub(crate) fn check_against(&self, location: &str, properties: &BTreeMap<String, String>) -> Result<()> {
        let of_table = |e: Error| Error::input(format!("table {location}: {e}"));
        properties.get(MERGE).map(|text| Merge::parse(text)).transpose().map_err(of_table)?;
        properties.get(WRITE_MODE).map(|text| WriteMode::parse(text)).transpose().map_err(of_table)?;
        let Some(recorded) = KeySpec::of(properties) else { return Ok(()) };
        if recorded.columns != self.columns {
            return Err(Error::input(format!(
                "the key of table {location} is ({}), not ({}); leave the key out, or write to another table",
                recorded.columns.join(", "),
                self.columns.join(", ")
            )));
        }
        if recorded.sequence_by != self.sequence_by {
            let said = |by: &Option<String>| by.clone().unwrap_or_else(|| "nothing".to_string());
            return Err(Error::input(format!(
                "rows of table {location} are in the order of {}, not of {} (sequence_by); what is newer cannot be judged \
                 in two ways",
                said(&recorded.sequence_by),
                said(&self.sequence_by)
            )));
        }
        if (recorded.merge, recorded.write_mode) != (self.merge, self.write_mode) {
            return Err(Error::input(format!(
                "table {location} was made with merge = '{}' and write_mode = '{}', and is to be written with '{}' and '{}'; \
                 write to it as it is, or to another table",
                recorded.merge.name(),
                recorded.write_mode.name(),
                self.merge.name(),
                self.write_mode.name()
            )));
        }
        Ok(())
    }
}

/// Names separated by commas.
pub fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_say_it_again() {
        let spec = KeySpec {
            columns: vec!["a".into(), "b".into()],
            sequence_by: Some("at".into()),
            fold: true,
            ..KeySpec::default()
        };
        assert_eq!(KeySpec::of(&spec.properties()), Some(spec.clone()));
        assert_eq!(KeySpec::of(&BTreeMap::new()), None);
        spec.check_against("t", &spec.properties()).unwrap();
        spec.check_against("t", &BTreeMap::new()).unwrap();
        let other = KeySpec { columns: vec!["a".into()], ..spec.clone() };
        let error = other.check_against("t", &spec.properties()).unwrap_err().to_string();
        assert!(error.contains("key of table t is (a, b), not (a)"), "{error}");
        let other = KeySpec { sequence_by: None, ..spec.clone() };
        let error = other.check_against("t", &spec.properties()).unwrap_err().to_string();
        assert!(error.contains("order of at, not of nothing"), "{error}");
    }
}
