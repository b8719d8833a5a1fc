//! The tables that queries are planned over: sources, whose files come step by step, and tables whose files are known now.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use watershed_core::history::Layout;
use watershed_core::scan::ScanFile;

use crate::scan::{Scan, SourceScanExec, table_schema};

/// A source: every scan of it is a hole.
#[derive(Debug)]
pub(crate) struct SourceProvider {
    name: String,
    layout: Layout,
    schema: SchemaRef,
}

impl SourceProvider {
    pub(crate) fn new(name: String, layout: Layout) -> Self {
        SourceProvider { name, schema: table_schema(&layout), layout }
    }
}

#[async_trait]
impl TableProvider for SourceProvider {
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
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Scan::plan(&self.layout, state, projection, filters)?;
        let partitions = state.config().target_partitions();
        Ok(Arc::new(SourceScanExec::new(self.name.clone(), Arc::new(scan), partitions)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// A table that holds what these files hold.
pub fn files_table(layout: Layout, files: Vec<ScanFile>) -> Arc<dyn TableProvider> {
    Arc::new(FilesProvider::new(layout, files))
}

/// A table whose files are known.
#[derive(Debug)]
pub(crate) struct FilesProvider {
    layout: Layout,
    files: Vec<ScanFile>,
    schema: SchemaRef,
}

impl FilesProvider {
    pub(crate) fn new(layout: Layout, files: Vec<ScanFile>) -> Self {
        FilesProvider { schema: table_schema(&layout), layout, files }
    }
}

#[async_trait]
impl TableProvider for FilesProvider {
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
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Scan::plan(&self.layout, state, projection, filters)?;
        Ok(scan.bind(&self.files, None, state.config().target_partitions(), state.runtime_env(), None)?.plan)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// The aggregate's output, to which what stands above it in the query is planned.
#[derive(Debug)]
pub(crate) struct WindowsProvider {
    schema: SchemaRef,
}

impl WindowsProvider {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        WindowsProvider { schema }
    }
}

#[async_trait]
impl TableProvider for WindowsProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = state.config().target_partitions();
        Ok(Arc::new(crate::finish::WindowsExec::try_new(&self.schema, projection, partitions)?))
    }
}
