//! The files of a step as DataFusion takes them: with their partition's values, less those that these rule out, and with the
//! marks of deleted rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::DataType;
use chrono::DateTime;
use datafusion::common::extensions::Extensions as FileExtensions;
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use object_store::ObjectMeta;
use object_store::path::Path;
use watershed_core::history::{DataFile, DeletedRows};
use watershed_core::scan::ScanFile;

use super::Scan;
use crate::watched::Marks;

impl Scan {
    pub(super) fn file(&self, scan: &ScanFile, with_path: bool) -> Result<PartitionedFile> {
        let file = &scan.file;
        let location = Path::parse(&file.path)
            .map_err(|e| exec_datafusion_err!("{}: {}: not a path in its store: {e}", self.location, file.path))?;
        let meta =
            ObjectMeta { location, last_modified: DateTime::UNIX_EPOCH, size: file.size, e_tag: None, version: None };
        let mut values = vec![];
        for (i, field) in self.table.table_partition_cols().iter().enumerate() {
            let text = file.values.get(i).and_then(Option::as_deref);
            values.push(partition_value(text, field.data_type()).map_err(|e| {
                let (name, data_type) = (field.name(), field.data_type());
                let value = text.unwrap_or("NULL");
                exec_datafusion_err!(
                    "{}: {}: partition column {name}: {value} is not of type {data_type}: {e}",
                    self.location,
                    file.path
                )
            })?);
        }
        if with_path {
            values.push(ScalarValue::Utf8(Some(file.path.clone())));
            values.push(ScalarValue::Utf8(self.partition_of(file)));
        }
        let bound = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        Ok(match scan.range {
            Some((start, end)) => {
                let offset = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
                bound.with_range(offset(start), offset(end))
            }
            None => bound,
        })
    }

    /// The file's partition as people write it; `None` in a table without partitions.
    fn partition_of(&self, file: &DataFile) -> Option<String> {
        let value =
            |(name, value): (&String, &Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("NULL"));
        let values: Vec<String> = self.partitions.iter().zip(&file.values).map(value).collect();
        (!values.is_empty()).then(|| values.join("/"))
    }

    /// The files that partition values do not rule out.
    pub(crate) fn kept(&self, files: Vec<ScanFile>) -> Result<Vec<ScanFile>> {
        let mut bound = files.iter().map(|scan| self.file(scan, false)).collect::<Result<Vec<_>>>()?;
        self.prune(&mut bound)?;
        let paths: BTreeSet<String> = bound.iter().map(|f| f.path().to_string()).collect();
        Ok(files.into_iter().filter(|scan| paths.contains(scan.file.path.trim_start_matches('/'))).collect())
    }

    /// Drops files that partition values alone rule out.
    pub(super) fn prune(&self, files: &mut Vec<PartitionedFile>) -> Result<()> {
        let Some((predicate, schema)) = &self.partition_predicate else { return Ok(()) };
        if files.is_empty() {
            return Ok(());
        }
        let column = |i: usize| ScalarValue::iter_to_array(files.iter().map(|file| file.partition_values[i].clone()));
        let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
        let values = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        let keep = predicate.evaluate(&values)?.into_array(files.len())?;
        let keep = keep.as_boolean().clone();
        let mut i = 0;
        files.retain(|_| {
            i += 1;
            keep.is_valid(i - 1) && keep.value(i - 1)
        });
        Ok(())
    }
}

/// What makes the reader pass over deleted rows. It checks that the file has as many rows as the marks speak of.
pub(super) fn undeleted(deleted: &Arc<DeletedRows>) -> FileExtensions {
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let mut selectors = Vec::with_capacity(2 * deleted.runs.len() + 1);
    let mut at = 0;
    for run in &deleted.runs {
        selectors.push(RowSelector::select(count(run.start - at)));
        selectors.push(RowSelector::skip(count(run.end - run.start)));
        at = run.end;
    }
    selectors.push(RowSelector::select(count(deleted.rows - at)));
    let mut extensions = FileExtensions::default();
    extensions.insert(ParquetRowSelection::new(RowSelection::from(selectors)));
    extensions.insert(Marks(Arc::clone(deleted)));
    extensions
}

fn partition_value(text: Option<&str>, data_type: &DataType) -> Result<ScalarValue> {
    match text {
        None => ScalarValue::try_from(data_type),
        Some(text) => ScalarValue::try_from_string(text.to_string(), data_type),
    }
}
