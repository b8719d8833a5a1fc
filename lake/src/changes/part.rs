//! One part of a version as rows: those of its file that it speaks of, as the table has its columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use deltalake::kernel::DeletionVectorDescriptor;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::RowSelection;
use roaring::RoaringTreemap;
use watershed_core::{Error, Result};

use super::plan::{Part, What};
use super::table::{CHANGE_COLUMNS, Table};
use crate::data_file::{DataFile, all_but, constant, only};
use crate::history::marks;

/// Rows of a batch.
const BATCH: usize = 8192;

/// Opens the parts of a version.
pub(super) struct Parts {
    pub(super) table: Arc<Table>,
    pub(super) version: u64,
}

/// A part whose file is open, and of which nothing was read.
pub(super) struct OpenPart<'a> {
    of: &'a Parts,
    part: &'a Part,
    file: DataFile,
    chosen: RowSelection,
    /// How many rows it has.
    pub(super) rows: u64,
}

impl Parts {
    pub(super) async fn open<'a>(&'a self, part: &'a Part) -> Result<OpenPart<'a>> {
        let file = self.file(part).await?;
        let (rows, chosen) = self.chosen(part, file.rows()).await?;
        Ok(OpenPart { of: self, part, file, chosen, rows })
    }

    async fn file(&self, part: &Part) -> Result<DataFile> {
        let place = &self.table.place;
        let size = match part.size.and_then(|size| u64::try_from(size).ok()) {
            Some(size) => Ok(size),
            None => {
                let found = place.store.head(&place.at(&part.path)?).await;
                let failed = |e| Error::storage("cannot read", format!("{}{}", place.url, part.path), e);
                found.map(|meta| meta.size).map_err(failed)
            }
        };
        let file = match size {
            Ok(size) => DataFile::open(place, &part.path, size).await,
            Err(e) => Err(e),
        };
        file.map_err(|e| match e.to_string().contains("not found") {
            // What was replaced is kept only as long as the table's retention says.
            true => self.untold(format!(
                "{e}; a vacuum has removed it. Begin at a later version, and keep what was removed longer \
                 (delta.deletedFileRetentionDuration)"
            )),
            false => e,
        })
    }

    pub(super) fn untold(&self, why: String) -> Error {
        let Table { location, .. } = self.table.as_ref();
        Error::stopped(format!("what version {} of table {location} changed cannot be told: {why}", self.version))
    }

    /// Which rows of its file a part speaks of, and how many these are.
    async fn chosen(&self, part: &Part, rows: u64) -> Result<(u64, RowSelection)> {
        let unless = self.marks(part, &part.unless).await?.unwrap_or_default();
        Ok(match self.marks(part, &part.marked).await? {
            None => (rows - unless.range_cardinality(0..rows), all_but(&unless, rows)),
            Some(marked) => {
                let mut chosen = marked - unless;
                chosen.remove_range(rows..);
                (chosen.len(), only(&chosen))
            }
        })
    }

    async fn marks(&self, part: &Part, vector: &Option<DeletionVectorDescriptor>) -> Result<Option<RoaringTreemap>> {
        let Some(vector) = vector else { return Ok(None) };
        let vector = marks::descriptor(vector.clone());
        let found = marks::bitmap(&self.table.place, &self.table.location, &part.path, &vector).await;
        found.map(Some).map_err(|e| match e {
            Error::Stopped(why) => self.untold(why),
            other => other,
        })
    }
}

impl OpenPart<'_> {
    /// All that its file has of its rows.
    pub(super) fn read(self) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let fields = self.of.table.schema.fields();
        let told = usize::from(self.part.what == What::Told);
        self.read_columns(&fields[..fields.len() - CHANGE_COLUMNS.len() + told])
    }

    /// These columns of its rows.
    pub(super) fn read_columns(self, columns: &[FieldRef]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let values = self.part.values.as_ref();
        if values.is_none() && self.of.table.is_partitioned {
            return Err(self.of.untold(format!(
                "its log entry does not say in which partition {} was (partitionValues)",
                self.part.path
            )));
        }
        // Delta takes an empty value for NULL.
        let value = |field: &FieldRef| Some(values?.get(field.name())?.clone().filter(|value| !value.is_empty()));
        let of_partition: Vec<Option<Option<String>>> = columns.iter().map(value).collect();
        let pairs = columns.iter().zip(&of_partition);
        let in_file: Vec<FieldRef> =
            pairs.filter(|(_, value)| value.is_none()).map(|(field, _)| field.clone()).collect();
        let schema: SchemaRef = Schema::new(columns.to_vec()).into();
        let rows = self.file.read(&in_file, Some(self.chosen), BATCH)?.map(move |rows| {
            let rows = rows?;
            let odd = |e| Error::stopped(format!("a partition value of the table's log: {e}"));
            let column = |(field, value): (&FieldRef, &Option<Option<String>>)| -> Result<ArrayRef> {
                match value {
                    Some(value) => constant(value.as_deref(), field.data_type(), rows.num_rows()).map_err(odd),
                    None => Ok(rows[field.name().as_str()].clone()),
                }
            };
            let columns = schema.fields().iter().zip(&of_partition).map(column).collect::<Result<Vec<_>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(odd)
        });
        Ok(rows.boxed())
    }
}
