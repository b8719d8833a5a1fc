//! Parquet bytes in memory, accounted: what a reader fetched counts until it fetches more or is done.
//!
//! They are counted and never refused, for a row group is read whole or not at all; so it is those that can give way who do:
//! partial aggregates hand on early, and state goes to disk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;

/// Opens files as `inner` does.
#[derive(Debug)]
pub(crate) struct AccountedReaders {
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) pool: Arc<dyn MemoryPool>,
}

impl ParquetFileReaderFactory for AccountedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        let held = MemoryConsumer::new("Parquet reader").register(&self.pool);
        Ok(Box::new(Accounted { inner, held }))
    }
}

struct Accounted {
    inner: Box<dyn AsyncFileReader + Send>,
    held: MemoryReservation,
}

impl AsyncFileReader for Accounted {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.held.resize(length(&range));
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.held.resize(ranges.iter().map(length).sum());
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.inner.get_metadata(options)
    }
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}
