//! CSV files as a table: the columns that were declared, or those that the files have.
//!
//! Columns are found by the header's names, so files may have them in another order, and more of them. Without a header they
//! go by position. A value that does not fit its column is an error with its line, not a NULL.

use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as EngineResult;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use sha2::{Digest, Sha256};
use watershed_core::history::Version;
use watershed_core::{Error, Result};
use watershed_lake::Place;

/// Rows from whose values types are guessed.
const GUESSED_FROM: usize = 1_000_000;

/// How the files are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) has_header: bool,
    pub(crate) delimiter: u8,
}

#[derive(Debug)]
struct CsvTable {
    store: ObjectStoreUrl,
    dialect: Dialect,
    schema: SchemaRef,
    files: Vec<CsvFile>,
}

#[derive(Debug)]
struct CsvFile {
    object: ObjectMeta,
    /// All its columns, those that the table has in the table's types.
    schema: SchemaRef,
    /// Where each of the table's columns stands.
    columns: Vec<usize>,
}

/// The files at a place, one or a folder of `.csv`, as they are listed now.
pub(crate) async fn open(
    place: &Place,
    location: &str,
    declared: Option<&SchemaRef>,
    dialect: Dialect,
    runtime: &Arc<RuntimeEnv>,
) -> Result<(Arc<dyn TableProvider>, Version)> {
    let objects = list(place, location).await?;
    let state = SessionContext::new_with_config_rt(SessionConfig::new(), Arc::clone(runtime)).state();
    // With declared columns only the header matters.
    let rows = if declared.is_some() { 1 } else { GUESSED_FROM };
    let format = dialect.format().with_schema_infer_max_rec(rows);
    let mut found = vec![];
    for object in &objects {
        let schema = format.infer_schema(&state, &place.store, std::slice::from_ref(object)).await;
        found.push(schema.map_err(|e| Error::input(format!("{}: cannot be read as CSV: {e}", object.location)))?);
    }
    let schema = match declared {
        Some(declared) => Arc::clone(declared),
        None => guessed(&found),
    };
    let version = Version::Listing { digest: digest(&objects) };
    let files = objects.into_iter().zip(found).map(|(object, own)| file(object, &own, &schema, dialect));
    let files = files.collect::<Result<_>>()?;
    let store = ObjectStoreUrl::parse(place.store_url.as_str());
    let store = store.map_err(|e| Error::input(format!("{location}: {e}")))?;
    Ok((Arc::new(CsvTable { store, dialect, schema, files }), version))
}

impl Dialect {
    fn format(self) -> CsvFormat {
        // Cutting a file into ranges would cut quoted values with line ends in them: whole files only.
        let format = CsvFormat::default().with_has_header(self.has_header).with_delimiter(self.delimiter);
        format.with_newlines_in_values(true)
    }
}

async fn list(place: &Place, location: &str) -> Result<Vec<ObjectMeta>> {
    let listed = place.store.list(Some(&place.path)).try_collect().await;
    let mut objects: Vec<ObjectMeta> = match listed {
        Ok(objects) => objects,
        Err(object_store::Error::NotFound { .. }) => vec![],
        Err(e) => return Err(Error::storage("could not list", location, e)),
    };
    let root = place.path.as_ref();
    objects.retain(|object| {
        let below = object.location.as_ref().strip_prefix(root).unwrap_or_default();
        below.ends_with(".csv") && !below.split('/').any(|segment| segment.starts_with(['.', '_']))
    });
    if objects.is_empty()
        && let Ok(object) = place.store.head(&place.path).await
    {
        objects.push(object);
    }
    objects.retain(|object| object.size > 0);
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    match objects.is_empty() {
        true => {
            Err(Error::input(format!("{location}: there is no such file, and no .csv file below it; check the path")))
        }
        false => Ok(objects),
    }
}

/// The first file's columns, in types that hold the values of all.
fn guessed(found: &[SchemaRef]) -> SchemaRef {
    let Some(first) = found.first() else { return Arc::new(Schema::empty()) };
    let field = |field: &FieldRef| -> Field {
        let types = found.iter().filter_map(|s| s.field_with_name(field.name()).ok()).map(|f| f.data_type());
        let data_type = types.fold(DataType::Null, |known, other| match (&known, other) {
            (DataType::Null, other) => other.clone(),
            (_, DataType::Null) => known,
            (a, b) if a == b => known,
            (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
            _ => DataType::Utf8,
        });
        let data_type = if data_type == DataType::Null { DataType::Utf8 } else { data_type };
        Field::new(field.name(), data_type, true)
    };
    Arc::new(Schema::new(first.fields().iter().map(field).collect::<Vec<_>>()))
}

/// A file whose columns have been found.
fn file(object: ObjectMeta, own: &Schema, table: &SchemaRef, dialect: Dialect) -> Result<CsvFile> {
    if !dialect.has_header {
        if own.fields().len() != table.fields().len() {
            return Err(Error::input(format!(
                "{}: its first row has {} columns, and the table was declared with {}; declare as many, or mend the \
                 file",
                object.location,
                own.fields().len(),
                table.fields().len()
            )));
        }
        let columns = (0..table.fields().len()).collect();
        return Ok(CsvFile { object, schema: Arc::clone(table), columns });
    }
    let names: Vec<&str> = own.fields().iter().map(|f| f.name().as_str()).collect();
    let mut fields: Vec<FieldRef> =
        own.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_name(f.name()))).collect();
    let mut columns = vec![];
    for wanted in table.fields() {
        let exact = names.iter().position(|name| *name == wanted.name());
        let at = exact.or_else(|| names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted.name())));
        let Some(at) = at else {
            return Err(Error::input(format!(
                "{}: it has no column {}; its header says {}; declare the columns by these names, or mend the file",
                object.location,
                wanted.name(),
                names.join(", ")
            )));
        };
        fields[at] = Arc::clone(wanted);
        columns.push(at);
    }
    // Nobody reads the others, so no value of theirs can be wrong.
    for (i, field) in fields.iter_mut().enumerate().filter(|(i, _)| !columns.contains(i)) {
        *field = Arc::new(Field::new(format!("{}#{i}", field.name()), DataType::Utf8, true));
    }
    Ok(CsvFile { object, schema: Arc::new(Schema::new(fields)), columns })
}

fn digest(objects: &[ObjectMeta]) -> String {
    let mut hash = Sha256::new();
    for object in objects {
        let tag = object.e_tag.clone().unwrap_or_else(|| object.last_modified.to_rfc3339());
        hash.update(format!("{}\t{}\t{tag}\n", object.location, object.size));
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[async_trait]
impl TableProvider for CsvTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&all);
        let format = self.dialect.format();
        let mut plans = vec![];
        for file in &self.files {
            let columns = wanted.iter().map(|i| file.columns[*i]).collect();
            let group = FileGroup::new(vec![PartitionedFile::new_from_meta(file.object.clone())]);
            let config = FileScanConfigBuilder::new(self.store.clone(), format.file_source((&file.schema).into()))
                .with_projection_indices(Some(columns))?
                .with_file_group(group)
                .build();
            plans.push(format.create_physical_plan(state, config).await?);
        }
        match plans.len() {
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}
