//! Text that only groups rows is read as dictionaries, from the file's own where it has them.
//!
//! Three parts meet here. [`coded`] finds, in the plan below a partial aggregate, the text columns of the source that reach
//! its keys unchanged and that nothing else looks at, and has the scan give those as dictionaries; the rest of the plan keeps
//! its types, and above the aggregate keys are text again (`operators::codes`). [`CodedReaders`] tells the Parquet reader to
//! keep the dictionaries of a file whose column chunks are dictionary-encoded throughout: the reader takes its word from the
//! Arrow schema in the file's metadata. [`CodedColumns`] makes dictionaries of what other files hold plainly, each row its own
//! entry: packing it would hash every text once more.
//!
//! **Invariant:** what is read as a dictionary is seen by a partial aggregate's keys alone, and by the gate, which lists
//! rejected rows as text.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, exec_datafusion_err, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::logical_expr::ColumnarValue;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema, parquet_to_arrow_schema};
use datafusion::parquet::basic::Encoding;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use watershed_core::history::FIELD_ID;
use watershed_operators::{WindowPartialExec, coded_text};

use crate::scan::SourceScanExec;

/// The partial aggregate with those of its keys coded that can be.
pub(crate) fn coded(partial: WindowPartialExec) -> Result<WindowPartialExec> {
    let input = read_coded(partial.input(), &partial.keys_alone())?;
    Ok(input.map_or_else(|| partial.clone(), |(input, _)| partial.with_coded(input)))
}

/// A plan, and which of its output columns come as dictionaries.
type Coded = (Arc<dyn ExecutionPlan>, BTreeSet<usize>);

/// The plan with some of the wanted output columns as dictionaries; nothing above looks at these.
fn read_coded(plan: &Arc<dyn ExecutionPlan>, wanted: &BTreeSet<usize>) -> Result<Option<Coded>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    if let Some(source) = plan.downcast_ref::<SourceScanExec>() {
        let scan = source.scan.coded(wanted);
        return Ok(scan.map(|(scan, coded)| {
            let partitions = plan.output_partitioning().partition_count();
            let source = SourceScanExec::new(source.source.clone(), Arc::new(scan), partitions);
            (Arc::new(source) as Arc<dyn ExecutionPlan>, coded)
        }));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let passes = |i: usize| projection.expr()[i].expr.downcast_ref::<Column>().map(Column::index);
        let looked_at = |(i, of): (usize, BTreeSet<usize>)| match wanted.contains(&i) && passes(i).is_some() {
            true => BTreeSet::new(),
            false => of,
        };
        let outputs = projection.expr().iter().map(|e| columns(&e.expr)).enumerate();
        let others: BTreeSet<usize> = outputs.flat_map(looked_at).collect();
        let below = wanted.iter().filter_map(|i| passes(*i)).filter(|c| !others.contains(c)).collect();
        let Some((input, coded)) = read_coded(projection.input(), &below)? else { return Ok(None) };
        let coded = wanted.iter().copied().filter(|i| passes(*i).is_some_and(|c| coded.contains(&c))).collect();
        return Ok(Some((Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), input)?), coded)));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let others = columns(filter.predicate());
        let input_of = |i: usize| filter.projection().as_ref().map_or(Some(i), |kept| kept.get(i).copied());
        let below = wanted.iter().filter_map(|i| input_of(*i)).filter(|c| !others.contains(c)).collect();
        let Some((input, coded)) = read_coded(filter.input(), &below)? else { return Ok(None) };
        let coded = wanted.iter().copied().filter(|i| input_of(*i).is_some_and(|c| coded.contains(&c))).collect();
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        return Ok(Some((Arc::clone(plan).replace_children(vec![input], options)?, coded)));
    }
    Ok(None)
}

fn columns(expr: &Arc<dyn PhysicalExpr>) -> BTreeSet<usize> {
    collect_columns(expr).iter().map(Column::index).collect()
}

/// Which columns of a table's files are read as dictionaries: by the names that files know them by, and by their numbers.
#[derive(Clone, Debug)]
pub(crate) struct CodedNames {
    pub(crate) names: BTreeSet<String>,
    /// Where files are matched by number.
    pub(crate) ids: Option<BTreeSet<String>>,
}

impl CodedNames {
    fn hold(&self, field: &FieldRef) -> bool {
        let by_id = self.ids.as_ref().and_then(|ids| Some(ids.contains(field.metadata().get(FIELD_ID)?)));
        by_id.unwrap_or_else(|| self.names.contains(field.name()))
    }
}

/// Opens files as `inner` does; columns that are dictionary-encoded throughout a file are said to be dictionaries.
#[derive(Debug)]
pub(crate) struct CodedReaders {
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) coded: Arc<CodedNames>,
}

impl ParquetFileReaderFactory for CodedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        Ok(Box::new(CodedReader { inner, coded: Arc::clone(&self.coded) }))
    }
}

struct CodedReader {
    inner: Box<dyn AsyncFileReader + Send>,
    coded: Arc<CodedNames>,
}

impl AsyncFileReader for CodedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let metadata = self.inner.get_metadata(options).await?;
            said_to_be_coded(metadata, &self.coded)
        }
        .boxed()
    }
}

/// The metadata with dictionaries in its Arrow schema.
fn said_to_be_coded(metadata: Arc<ParquetMetaData>, coded: &CodedNames) -> ParquetResult<Arc<ParquetMetaData>> {
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    let leaf_of = |name: &str| {
        let leaves = file.schema_descr().columns();
        leaves.iter().position(|leaf| leaf.path().parts() == [name])
    };
    let is_coded = |field: &FieldRef| {
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let leaf = (text && coded.hold(field)).then(|| leaf_of(field.name())).flatten();
        leaf.is_some_and(|leaf| metadata.row_groups().iter().all(|group| in_dictionaries(group.column(leaf))))
    };
    let said: Vec<bool> = schema.fields().iter().map(is_coded).collect();
    if !said.contains(&true) {
        return Ok(metadata);
    }
    let field = |(field, said): (&FieldRef, &bool)| match said {
        true => Arc::new(field.as_ref().clone().with_data_type(coded_text())),
        false => Arc::clone(field),
    };
    let fields: Vec<FieldRef> = schema.fields().iter().zip(&said).map(field).collect();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let mut pairs: Vec<KeyValue> = file.key_value_metadata().cloned().unwrap_or_default();
    pairs.retain(|pair| pair.key != ARROW_SCHEMA_META_KEY);
    pairs.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_string(), encode_arrow_schema(&schema)));
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_string),
        Some(pairs),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let built = ParquetMetaDataBuilder::new(file)
        .set_row_groups(metadata.row_groups().to_vec())
        .set_column_index(metadata.column_index().cloned())
        .set_offset_index(metadata.offset_index().cloned());
    Ok(Arc::new(built.build()))
}

/// Whether all values of a column chunk are indices into a dictionary, as far as one can tell.
fn in_dictionaries(chunk: &ColumnChunkMetaData) -> bool {
    let indices = |e: &Encoding| matches!(e, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
    let known = chunk.page_encoding_stats_mask().map(|mask| mask.encodings().all(|e| indices(&e)));
    chunk.dictionary_page_offset().is_some() && known.unwrap_or(true)
}

/// Makes dictionaries of coded columns where files do not have them.
#[derive(Debug)]
pub(crate) struct CodedColumns {
    /// Finds the columns; DataFusion's way where there is none.
    pub(crate) inner: Option<Arc<dyn PhysicalExprAdapterFactory>>,
}

impl PhysicalExprAdapterFactory for CodedColumns {
    fn create(&self, logical: SchemaRef, physical: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let inner = match &self.inner {
            Some(inner) => inner.create(logical, physical)?,
            None => DefaultPhysicalExprAdapterFactory.create(logical, physical)?,
        };
        Ok(Arc::new(ToDictionaries { inner }))
    }
}

#[derive(Debug)]
struct ToDictionaries {
    inner: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for ToDictionaries {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let adapted = self.inner.rewrite(expr)?.transform(|node| {
            let Some(cast) = node.downcast_ref::<CastExpr>() else { return Ok(Transformed::no(node)) };
            if *cast.cast_type() != coded_text() || !cast.expr().is::<Column>() {
                return Ok(Transformed::no(node));
            }
            let (input, field) = (Arc::clone(cast.expr()), Arc::clone(cast.target_field()));
            Ok(Transformed::yes(Arc::new(AsDictionary { input, field })))
        });
        adapted.data()
    }
}

/// A column as text in a dictionary in which each row has an entry of its own.
#[derive(Clone, Debug, Eq)]
struct AsDictionary {
    input: Arc<dyn PhysicalExpr>,
    field: FieldRef,
}

// Written out, because deriving it would move the boxed child.
impl PartialEq for AsDictionary {
    fn eq(&self, other: &Self) -> bool {
        self.input.eq(&other.input) && self.field == other.field
    }
}

impl Hash for AsDictionary {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.field.hash(state);
    }
}

impl fmt::Display for AsDictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AS DICTIONARY", self.input)
    }
}

impl PhysicalExpr for AsDictionary {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let rows = self.input.evaluate(batch)?.into_array(batch.num_rows())?;
        // The cast may have been about metadata or NULLs alone.
        if rows.data_type() == self.field.data_type() {
            return Ok(ColumnarValue::Array(rows));
        }
        let texts = cast(&rows, &DataType::Utf8)?;
        let end = i32::try_from(texts.len()).map_err(|_| exec_datafusion_err!("a batch of {} rows", texts.len()))?;
        let keys = Int32Array::new((0..end).collect::<Vec<_>>().into(), texts.nulls().cloned());
        let texts: ArrayRef = Arc::new(texts.as_string::<i32>().clone());
        Ok(ColumnarValue::Array(Arc::new(DictionaryArray::try_new(keys, texts)?)))
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(AsDictionary { input, field: Arc::clone(&self.field) })),
            None => internal_err!("a column as a dictionary without its input"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.input.fmt_sql(f)
    }
}
