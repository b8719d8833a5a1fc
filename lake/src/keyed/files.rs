//! Rows of a keyed table by file and number, and files that a commit writes besides those of its epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use roaring::RoaringTreemap;
use uuid::Uuid;
use watershed_core::sink::WrittenFile;
use watershed_core::{Error, Result};

use super::live::LiveFile;
use super::resolve::ChangeFile;
use super::scan::KeyColumns;
use crate::data_file::{DataFile, all_but, constant, gather, only};
use crate::stores::Place;
use crate::table::SinkOptions;
use crate::table::encode::{Encoded, Encoding};
use crate::table::shape::{Key, Shape};

/// Rows of a batch.
pub(crate) const BATCH: usize = 8192;

/// Where a file lies, and which partition's it is.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    pub(crate) partition: &'a Key,
}

impl<'a> At<'a> {
    pub(crate) fn live(file: &'a LiveFile) -> At<'a> {
        let size = u64::try_from(file.add.size).unwrap_or_default();
        At { path: &file.add.path, size, partition: &file.partition }
    }

    pub(crate) fn written(file: &'a WrittenFile, change: &'a ChangeFile) -> At<'a> {
        At { path: &file.path, size: file.size, partition: &change.partition }
    }
}

/// A table's files, read and written with the columns of a shape.
pub(crate) struct TableFiles<'a> {
    pub(crate) place: &'a Place,
    pub(crate) keys: &'a Arc<KeyColumns>,
    pub(crate) shape: Arc<Shape>,
    pub(crate) options: &'a SinkOptions,
    /// In the names of files that are written.
    pub(crate) attempt: Uuid,
}

impl TableFiles<'_> {
    /// The columns of files, then those of partitions.
    pub(crate) fn columns(&self) -> SchemaRef {
        let open = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
        let fields = self.shape.file_schema.fields().iter().chain(self.shape.partition_fields());
        Arc::new(Schema::new(fields.map(open).collect::<Vec<_>>()))
    }

    /// These rows of a file in their order, with all [`TableFiles::columns`].
    pub(crate) async fn rows(&self, at: At<'_>, rows: &RoaringTreemap) -> Result<RecordBatch> {
        let fail = |e| Error::bug(format!("rows of {} with their partition: {e}", at.path));
        let schema = self.columns();
        let in_files = &schema.fields()[..self.shape.file_schema.fields().len()];
        let open = DataFile::open(self.place, at.path, at.size).await?;
        let found =
            gather(&Schema::new(in_files.to_vec()).into(), open.read(in_files, Some(only(rows)), BATCH)?).await?;
        if found.num_rows() as u64 != rows.len() {
            let why = format!("{} rows were asked for, and {} are there", rows.len(), found.num_rows());
            return Err(Error::storage("cannot read", format!("{}{}", self.place.url, at.path), why));
        }
        let mut columns: Vec<ArrayRef> = found.columns().to_vec();
        for (field, value) in self.shape.partition_fields().zip(at.partition) {
            columns.push(constant(value.as_deref(), field.data_type(), found.num_rows()).map_err(fail)?);
        }
        RecordBatch::try_new(schema, columns).map_err(fail)
    }

    /// All rows of a file but some, as files have them.
    pub(crate) async fn others(
        &self,
        at: At<'_>,
        but: &RoaringTreemap,
    ) -> Result<futures::stream::BoxStream<'static, Result<RecordBatch>>> {
        let open = DataFile::open(self.place, at.path, at.size).await?;
        let chosen = all_but(but, open.rows());
        open.read(self.shape.file_schema.fields(), Some(chosen), BATCH)
    }

    pub(crate) fn encoding(&self, kind: &'static str) -> Encoding {
        Encoding::new(self.place.clone(), self.shape.clone(), self.options, self.attempt).named(kind)
    }
}

/// A file that a commit adds beside those of its epoch.
pub(crate) fn written(encoded: Encoded) -> (WrittenFile, ChangeFile) {
    let change = ChangeFile {
        path: encoded.file.path.clone(),
        partition: encoded.partition,
        statistics: encoded.file.stats.clone(),
        keys: encoded.keys,
        outdone: Default::default(),
        deletes: encoded.file.deletes,
        whole: encoded.file.whole,
    };
    (encoded.file, change)
}

/// Things by the partition that they belong to.
pub(crate) fn by_partition<T>(things: impl Iterator<Item = (Key, T)>) -> BTreeMap<Key, Vec<T>> {
    let mut all: BTreeMap<Key, Vec<T>> = BTreeMap::new();
    for (partition, thing) in things {
        all.entry(partition).or_default().push(thing);
    }
    all
}
