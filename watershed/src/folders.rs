//! Folders of JSON and CSV files as histories: from what was declared to what the lake and the plan read them by.
//!
//! Which files there are, which of them are read next and what it means when one changes is the lake's, as for folders of
//! Parquet files; what their bytes mean is the formats'. Neither knows the other; here one is handed to the other.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use watershed_core::settings::OnError;
use watershed_core::text::TextFiles;
use watershed_core::{Error, Result};
use watershed_formats::FormatOptions;
use watershed_plan::CreateSource;

use crate::tails;

/// A folder of text files, as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredFiles {
    format: String,
    options: BTreeMap<String, String>,
    columns: SchemaRef,
    on_error: OnError,
}

impl DeclaredFiles {
    /// `options` are those of the format; there is no broker that could have any.
    pub(crate) fn new(
        format: &str,
        source: &CreateSource,
        options: BTreeMap<String, String>,
        on_error: OnError,
        what: &str,
    ) -> Result<Self> {
        if let Some(name) = options.keys().find(|name| tails::is_of_broker(name)) {
            return Err(Error::sql(format!(
                "{what}: `{name}` speaks of a log, and there is none: give tail = 'kafka://…'"
            )));
        }
        if format == "parquet" || format == "delta" {
            return Err(Error::sql(format!(
                "{what}: format is for files of text, 'json' or 'csv'; Delta tables and folders of Parquet files are known by \
                 what lies there: leave it out"
            )));
        }
        let Some(columns) = &source.columns else {
            return Err(Error::sql(format!(
                "{what}: say what columns its files have: CREATE SOURCE {} (ts TIMESTAMP, …, WATERMARK FOR ts AS ts) WITH \
                 (lake = '…', format = '{format}')",
                source.name
            )));
        };
        let files = DeclaredFiles { format: format.to_string(), options, columns: columns.clone(), on_error };
        // What is wrong with the options is said where they stand.
        files.open(&BTreeMap::new()).map_err(|e| match e {
            Error::Input(message) => Error::sql(format!("{what}: {message}")),
            other => other,
        })?;
        Ok(files)
    }

    pub(crate) fn open(&self, variables: &BTreeMap<String, String>) -> Result<TextFiles> {
        let (_, options) = tails::resolved(&self.options, variables)?;
        let format = FormatOptions { format: self.format.clone(), options };
        Ok(TextFiles { format: watershed_formats::files(&format, self.columns.clone())?, on_error: self.on_error })
    }
}
