//! How a file to load is read: by DataFusion's readers, in the types of the table it goes to.
//!
//! CSV columns stand in the file's own order and their types are a guess, so each file is read by a plan of its own: the
//! columns it has, in the order it has them. A guess only decides what a new table's columns are; the file is then read in
//! the table's types, and a value that does not fit is an error with its line, not a NULL.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::{Error, Result};

use super::find::{Format, Found};

/// Rows from whose values the types of text files are guessed.
const GUESSED_FROM: usize = 1_000_000;

impl Format {
    /// Whether types are guessed from text.
    pub(crate) fn is_text(self) -> bool {
        self != Format::Parquet
    }

    fn reader(self) -> Arc<dyn FileFormat> {
        match self {
            // Cutting a file into ranges would cut quoted values with line ends in them: whole files only.
            Format::Csv => Arc::new(
                CsvFormat::default()
                    .with_has_header(true)
                    .with_newlines_in_values(true)
                    .with_schema_infer_max_rec(GUESSED_FROM),
            ),
            Format::Ndjson => Arc::new(JsonFormat::default().with_schema_infer_max_rec(GUESSED_FROM)),
            Format::Parquet => Arc::new(ParquetFormat::default().with_force_view_types(false)),
        }
    }
}

/// The columns of a file, in its order.
pub(crate) async fn schema(file: &Found, session: &dyn Session) -> Result<SchemaRef> {
    let objects = std::slice::from_ref(&file.object);
    let schema = file.format.reader().infer_schema(session, &file.store, objects).await;
    let schema = schema.map_err(|e| unreadable(file, e))?;
    match schema.fields().is_empty() {
        true => Err(Error::input(format!("{}: there are no columns in it; leave it out", file.url))),
        false => Ok(schema),
    }
}

/// A plan that reads the file, in up to `ways` partitions.
pub(crate) async fn plan(
    file: &Found,
    own: &SchemaRef,
    table: &Schema,
    ways: usize,
    session: &dyn Session,
) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = if file.format.is_text() { in_types_of(own, table) } else { own.clone() };
    let reader = file.format.reader();
    let store = ObjectStoreUrl::parse(file.store_url.as_str()).map_err(|e| unreadable(file, e))?;
    let files = FileGroup::new(vec![PartitionedFile::new_from_meta(file.object.clone())]);
    let config = FileScanConfigBuilder::new(store, reader.file_source((&schema).into())).with_file_group(files).build();
    let plan = reader.create_physical_plan(session, config).await.map_err(|e| unreadable(file, e))?;
    let cut = plan.repartitioned(ways, session.config_options()).map_err(|e| unreadable(file, e))?;
    Ok(cut.unwrap_or(plan))
}

/// The file's columns in the table's types.
fn in_types_of(own: &SchemaRef, table: &Schema) -> SchemaRef {
    let typed = |field: &FieldRef| match table.field_with_name(field.name()) {
        Ok(known) => Arc::new(known.clone()),
        Err(_) => field.clone(),
    };
    Arc::new(Schema::new(own.fields().iter().map(typed).collect::<Vec<_>>()))
}

pub(crate) fn unreadable(file: &Found, e: impl std::fmt::Display) -> Error {
    let kind = match file.format {
        Format::Parquet => "Parquet",
        Format::Csv => "CSV with a header line",
        Format::Ndjson => "JSON with one object a line",
    };
    Error::input(format!("{}: cannot be read as {kind}: {e}; mend or leave out the file", file.url))
}
