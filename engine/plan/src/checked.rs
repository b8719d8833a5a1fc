//! Files whose columns nobody declared: each is held against the table's when its footer is read.
//!
//! A folder's columns come from a sample of its files. Another file may have a column in a type that the table's does not
//! hold; a cast would round, parse or overflow, so it is an error instead, which names file, column and both types.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use watershed_core::widen::holds;

/// Opens files as `inner` does, and checks them against the table's columns.
#[derive(Debug)]
pub(crate) struct CheckedReaders {
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) table: SchemaRef,
}

impl ParquetFileReaderFactory for CheckedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.path().to_string();
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        Ok(Box::new(Checked { inner, path, table: Arc::clone(&self.table) }))
    }
}

struct Checked {
    inner: Box<dyn AsyncFileReader + Send>,
    path: String,
    table: SchemaRef,
}

impl Checked {
    fn check(&self, metadata: &ParquetMetaData) -> ParquetResult<()> {
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        for field in schema.fields() {
            let Ok(known) = self.table.field_with_name(field.name()) else { continue };
            if !holds(known.data_type(), field.data_type()) {
                let (path, name, is, shall) = (&self.path, field.name(), field.data_type(), known.data_type());
                return Err(ParquetError::External(Box::new(exec_datafusion_err!(
                    "file {path} has column `{name}` as {is}, but the others that were looked at have it as {shall}, which \
                     does not hold its values; rewrite the file, or move it away"
                ))));
            }
        }
        Ok(())
    }
}

impl AsyncFileReader for Checked {
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
            self.check(&metadata)?;
            Ok(metadata)
        }
        .boxed()
    }
}
