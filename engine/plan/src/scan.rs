//! Scans: what is known of one when it is planned, and how it is bound to files.
//!
//! In a streaming plan a source is a [`SourceScanExec`], a hole; [`Scan::bind`] fills it for one step with DataFusion's
//! Parquet scan over the step's files. Predicates prune files by partition value here, and row groups and pages in the
//! reader; the exact filter stays above. Footers are cached, for a file is cut into ranges that are read one by one.
//!
//! Rows that are marked as deleted are passed over by the reader itself, so row numbers stay the file's own. Columns are read
//! under the names that files know them by ([`crate::stored`]), and text that only groups rows as dictionaries
//! ([`crate::coded`]).
//!
//! * [`files`]: a step's files as DataFusion takes them.
//! * [`hole`]: what stands in a plan where files are still to come.
//! * [`log`]: the rows of a log in their place; [`text`]: files of text.

mod files;

mod hole;

mod log;

mod text;

pub(crate) use hole::SourceScanExec;
pub(crate) use text::{DELETED, MALFORMED, MalformedTo, OPENED, RECORDS};

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::extensions::Extensions as FileExtensions;
use datafusion::common::{DFSchema, DataFusionError, Result, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetFileReaderFactory};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::parquet::arrow::RowNumber;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::history::{DeletedRows, Layout};
use watershed_core::scan::ScanFile;
use watershed_core::text::TextFiles;
use watershed_operators::coded_text;

use crate::accounted::AccountedReaders;
use crate::ahead::AheadReaders;
use crate::checked::CheckedReaders;
use crate::coded::{CodedColumns, CodedNames, CodedReaders};
use crate::stored::{ByFieldId, Stored};
use crate::watched::{Watched, WatchedReaders};
use files::undeleted;

/// Enough for the footer of most files: one request instead of two.
const FOOTER_HINT: usize = 64 << 10;

/// Names that no table has, for what an inspected scan reads besides.
const FILE_COLUMN: &str = "__watershed_file";
const PARTITION_COLUMN: &str = "__watershed_partition";
const ROW_COLUMN: &str = "__watershed_row";

/// The columns of a table: those in its files, then those of its partitions.
pub(crate) fn table_schema(layout: &Layout) -> SchemaRef {
    let fields = layout.file_schema.fields().iter().chain(&layout.partition_columns).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// A planned scan of a table.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    location: String,
    store: ObjectStoreUrl,
    table: TableSchema,
    /// The same with the file's path, its partition, and the row's number.
    inspected: TableSchema,
    /// The partition columns' names.
    partitions: Vec<String>,
    options: TableParquetOptions,
    /// Indices in the table's schema.
    pub(crate) projection: Vec<usize>,
    pub(crate) schema: SchemaRef,
    /// The columns of `inspected` as they are read, and as they come out.
    outputs: Vec<ProjectionExpr>,
    by_id: Option<Arc<ByFieldId>>,
    /// What each file's columns are held against, where nobody declared them.
    inferred: Option<SchemaRef>,
    /// Columns that are read as dictionaries.
    coded: Option<Arc<CodedNames>>,
    /// Over the stored columns.
    predicate: Option<Arc<dyn PhysicalExpr>>,
    /// What of the predicate speaks of partition columns alone, and their schema.
    partition_predicate: Option<(Arc<dyn PhysicalExpr>, SchemaRef)>,
    /// What the files hold, where they are text.
    text: Option<TextFiles>,
}

/// A scan of files, and what tells which of them it opens.
pub(crate) struct Bound {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) watched: Arc<Watched>,
    /// Files that partition values ruled out.
    pub(crate) pruned_files: u64,
    /// Of a log: its rows.
    pub(crate) of_log: Option<u64>,
}

/// What an inspected scan yields: columns of the table by index, then file, partition and row.
#[derive(Clone, Debug)]
pub(crate) struct Inspection {
    pub(crate) columns: Vec<usize>,
}

impl Scan {
    pub(crate) fn plan(
        layout: &Layout,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> Result<Scan> {
        let stored = Stored::of(layout)?;
        let (table, inspected) = tables(&stored.file_schema, &stored.partition_columns);
        let mut outputs = stored.outputs();
        for name in [FILE_COLUMN, PARTITION_COLUMN, ROW_COLUMN] {
            outputs.push(ProjectionExpr::new(Arc::new(Column::new(name, outputs.len())), name));
        }
        let schema = &table_schema(layout);
        let projection = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let physical = |filters: Vec<Expr>, schema: &SchemaRef| -> Result<Option<Arc<dyn PhysicalExpr>>> {
            let df_schema = DFSchema::try_from(Arc::clone(schema))?;
            conjunction(filters).map(|all| session.create_physical_expr(all, &df_schema)).transpose()
        };
        let partition_schema: SchemaRef = Arc::new(Schema::new(layout.partition_columns.clone()));
        let of_partitions = filters.iter().filter(|filter| {
            let columns = filter.column_refs();
            !columns.is_empty() && columns.iter().all(|c| partition_schema.column_with_name(&c.name).is_some())
        });
        let partition_predicate = physical(of_partitions.cloned().collect(), &partition_schema)?;
        let mut options = TableParquetOptions::default();
        // Old writers' 96-bit times reach further than nanoseconds do.
        options.global.coerce_int96 = Some("us".to_string());
        Ok(Scan {
            location: layout.location.clone(),
            partitions: layout.partition_columns.iter().map(|f| f.name().clone()).collect(),
            store: ObjectStoreUrl::parse(&layout.store)?,
            options,
            schema: Arc::new(schema.project(&projection)?),
            predicate: physical(filters.iter().filter(|f| stored.can_prune(f)).cloned().collect(), schema)?
                .map(|predicate| stored.rename(predicate))
                .transpose()?,
            by_id: stored.by_id.clone(),
            inferred: layout.inferred.then(|| Arc::clone(&stored.file_schema)),
            coded: None,
            outputs,
            partition_predicate: partition_predicate.map(|predicate| (predicate, partition_schema)),
            text: layout.text.clone(),
            projection,
            table,
            inspected,
        })
    }

    /// The scan with those of some of its columns as dictionaries that are text in the files, and which these are.
    pub(crate) fn coded(&self, wanted: &BTreeSet<usize>) -> Option<(Scan, BTreeSet<usize>)> {
        let files = self.table.file_schema();
        let text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_text = |i: &usize| files.fields().get(self.projection[*i]).is_some_and(|f| text(f.data_type()));
        let coded: BTreeSet<usize> = wanted.iter().copied().filter(is_text).collect();
        if coded.is_empty() {
            return None;
        }
        let recoded = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(coded_text()));
        let (mut stored, mut fields) = (files.fields().to_vec(), self.schema.fields().to_vec());
        let mut names = BTreeSet::new();
        for i in &coded {
            let column = self.projection[*i];
            names.insert(stored[column].name().clone());
            stored[column] = recoded(&stored[column]);
            fields[*i] = recoded(&fields[*i]);
        }
        let ids = self.by_id.as_ref().map(|by_id| by_id.of(&names));
        let (table, inspected) = tables(&Arc::new(Schema::new(stored)), self.table.table_partition_cols());
        let (schema, names) = (Arc::new(Schema::new(fields)), Some(Arc::new(CodedNames { names, ids })));
        Some((Scan { table, inspected, schema, coded: names, ..self.clone() }, coded))
    }

    /// Whether the files are text, in which there may be records that are no facts.
    pub(crate) fn is_text(&self) -> bool {
        self.text.is_some()
    }

    /// The scan of these files in `partitions` streams, which share one queue. `malformed` takes the records of text files that
    /// are no facts.
    pub(crate) fn bind(
        &self,
        files: &[ScanFile],
        inspection: Option<&Inspection>,
        partitions: usize,
        runtime: &RuntimeEnv,
        malformed: Option<MalformedTo>,
    ) -> Result<Bound> {
        if let Some(text) = &self.text {
            return self.bind_text(text, files, inspection, partitions, runtime, malformed);
        }
        let mut bound: Vec<PartitionedFile> = Vec::with_capacity(files.len());
        let mut marked: Option<(&Arc<DeletedRows>, FileExtensions)> = None;
        for scan in files {
            let mut file = self.file(scan, inspection.is_some())?;
            if let Some(deleted) = &scan.deleted {
                // The pieces of a file come one after the other and have the same marks.
                let known = marked.take().filter(|(known, _)| Arc::ptr_eq(known, deleted));
                let (_, extensions) = marked.insert(known.unwrap_or_else(|| (deleted, undeleted(deleted))));
                file.extensions = extensions.clone();
            }
            bound.push(file);
        }
        let paths = |bound: &[PartitionedFile]| bound.iter().map(|f| f.path().clone()).collect::<BTreeSet<_>>().len();
        let before = paths(&bound);
        self.prune(&mut bound)?;
        let pruned_files = (before - paths(&bound)) as u64;
        let partitions = partitions.max(1);
        let mut groups = vec![];
        for n in (1..=partitions).rev() {
            let rest = bound.split_off(bound.len().div_ceil(n).min(bound.len()));
            groups.push(FileGroup::new(std::mem::replace(&mut bound, rest)));
        }
        let output = |i: &usize| self.outputs[*i].clone();
        let (table, projection): (_, ProjectionExprs) = match inspection {
            None => (self.table.clone(), self.projection.iter().map(output).collect()),
            Some(inspection) => {
                let width = self.table.table_schema().fields().len();
                let extra = [width, width + 1, width + 2];
                (self.inspected.clone(), inspection.columns.iter().chain(&extra).map(output).collect())
            }
        };
        let mut readers: Arc<dyn ParquetFileReaderFactory> = Arc::new(CachedParquetFileReaderFactory::new(
            runtime.object_store(&self.store)?,
            runtime.cache_manager.get_file_metadata_cache(),
        ));
        if let Some(table) = &self.inferred {
            readers = Arc::new(CheckedReaders { inner: readers, table: Arc::clone(table) });
        }
        let mut adapter = self.by_id.clone().map(|by_id| by_id as Arc<dyn PhysicalExprAdapterFactory>);
        if let Some(coded) = &self.coded {
            readers = Arc::new(CodedReaders { inner: readers, coded: Arc::clone(coded) });
            adapter = Some(Arc::new(CodedColumns { inner: adapter }));
        }
        let pool = Arc::clone(&runtime.memory_pool);
        readers = Arc::new(AccountedReaders { inner: readers, pool });
        if self.store != ObjectStoreUrl::local_filesystem() {
            readers = Arc::new(AheadReaders { inner: readers });
        }
        let watched = Arc::new(Watched::default());
        readers = Arc::new(WatchedReaders { inner: readers, watched: Arc::clone(&watched) });
        // A source of its own for each step: it carries metrics.
        let mut source = ParquetSource::new(table)
            .with_table_parquet_options(self.options.clone())
            .with_metadata_size_hint(FOOTER_HINT)
            .with_parquet_file_reader_factory(readers);
        if let Some(predicate) = &self.predicate {
            source = source.with_predicate(Arc::clone(predicate));
        }
        let source = source.try_pushdown_projection(&projection)?;
        let source = source.ok_or_else(|| internal_datafusion_err!("the Parquet scan takes no projection"))?;
        let config = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_expr_adapter(adapter)
            .build();
        Ok(Bound { plan: DataSourceExec::from_data_source(config), watched, pruned_files, of_log: None })
    }
}

/// A table as it is read, without and with the file's path, its partition and the row's number.
fn tables(file_schema: &SchemaRef, partition_columns: &[FieldRef]) -> (TableSchema, TableSchema) {
    let row = Field::new(ROW_COLUMN, DataType::Int64, false).with_extension_type(RowNumber);
    let file = Arc::new(Field::new(FILE_COLUMN, DataType::Utf8, false));
    let partition = Arc::new(Field::new(PARTITION_COLUMN, DataType::Utf8, true));
    let table = |more: &[FieldRef]| {
        let partitions: Vec<FieldRef> = partition_columns.iter().chain(more).cloned().collect();
        TableSchema::builder(Arc::clone(file_schema)).with_table_partition_cols(partitions)
    };
    (table(&[]).build(), table(&[file, partition]).with_virtual_columns(vec![Arc::new(row)]).build())
}

/// The engine's error outside of SQL planning: a limit, or a fault of ours.
pub(crate) fn engine_error(error: DataFusionError) -> watershed_core::Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => watershed_core::Error::Resources(message.clone()),
        DataFusionError::Execution(message) => watershed_core::Error::Input(message.clone()),
        other => watershed_core::Error::bug(other.strip_backtrace()),
    }
}
