//! The rows of a log in the place of files: they are in memory already, and come as a scan of files would give them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{Result, internal_datafusion_err};
use datafusion::datasource::memory::MemorySourceConfig;
use watershed_core::tail::LogRows;

use super::{Bound, FILE_COLUMN, Inspection, PARTITION_COLUMN, ROW_COLUMN, Scan};

impl Scan {
    /// The scan of these rows in `partitions` streams, dealt out evenly.
    pub(crate) fn bind_log(
        &self,
        log: &[LogRows],
        inspection: Option<&Inspection>,
        partitions: usize,
    ) -> Result<Bound> {
        let columns = inspection.map_or(&self.projection, |inspection| &inspection.columns);
        let schema = self.read_schema(inspection);
        let mut dealt: Vec<(usize, Vec<RecordBatch>)> = vec![(0, vec![]); partitions.max(1)];
        let mut of_log = 0;
        for rows in log {
            of_log += rows.rows.num_rows() as u64;
            let batch = batch(rows, columns, inspection.is_some(), &schema)?;
            let least = dealt.iter_mut().min_by_key(|(rows, _)| *rows);
            let (count, batches) = least.ok_or_else(|| internal_datafusion_err!("a scan has no partitions"))?;
            *count += batch.num_rows();
            batches.push(batch);
        }
        let dealt: Vec<Vec<RecordBatch>> = dealt.into_iter().map(|(_, batches)| batches).collect();
        let plan = MemorySourceConfig::try_new_exec(&dealt, schema, None)?;
        Ok(Bound { plan, watched: Arc::default(), pruned_files: 0, of_log: Some(of_log) })
    }

    /// What a scan yields that is not Parquet's: the columns as they are planned, and what an inspection asks for besides.
    pub(super) fn read_schema(&self, inspection: Option<&Inspection>) -> SchemaRef {
        let mut fields: Vec<FieldRef> = self.schema.fields().to_vec();
        if let Some(inspection) = inspection {
            // An inspected scan reads the event time as well, behind what the query reads.
            for column in inspection.columns.iter().skip(fields.len()) {
                fields.push(Arc::new(self.table.table_schema().field(*column).clone()));
            }
            fields.push(Arc::new(Field::new(FILE_COLUMN, DataType::Utf8, false)));
            fields.push(Arc::new(Field::new(PARTITION_COLUMN, DataType::Utf8, true)));
            fields.push(Arc::new(Field::new(ROW_COLUMN, DataType::Int64, false)));
        }
        Arc::new(Schema::new(fields))
    }
}

fn batch(log: &LogRows, columns: &[usize], inspected: bool, schema: &SchemaRef) -> Result<RecordBatch> {
    let n = log.rows.num_rows();
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (column, field) in columns.iter().zip(schema.fields()) {
        let array = log.rows.column(*column);
        // Text that only groups rows is planned to come as dictionaries.
        arrays.push(match array.data_type() == field.data_type() {
            true => Arc::clone(array),
            false => cast(array, field.data_type())?,
        });
    }
    if inspected {
        let text = |text: &str| StringArray::from_iter_values(std::iter::repeat_n(text, n));
        arrays.push(Arc::new(text(&log.origin)));
        arrays.push(Arc::new(text(&log.part.to_string())));
        arrays.push(Arc::new(Int64Array::from_iter_values(log.offsets.values().iter().copied())));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(n));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?)
}
