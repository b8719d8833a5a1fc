//! Which row groups of its files a scan opened: seen at the bytes that it fetched of them.
//!
//! A row group counts as opened once any byte of its columns was asked for. That is known without trusting what the reader
//! says it read, which is what the account is held against.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::parquet::ParquetFileReaderFactory;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use watershed_core::history::DeletedRows;

/// Rides on a file to tell which of its rows are marked.
#[derive(Debug)]
pub(crate) struct Marks(pub(crate) Arc<DeletedRows>);

/// Names a piece: the file's path, and its range.
type PieceOf = (String, Option<(i64, i64)>);

/// What one scan opened.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// A piece may be opened by several readers, one after the other.
    pieces: Mutex<HashMap<PieceOf, Arc<Piece>>>,
}

#[derive(Debug)]
struct Piece {
    range: Option<FileRange>,
    marks: Option<Arc<Marks>>,
    /// Known once the footer was read.
    groups: OnceLock<Vec<Group>>,
}

/// A row group of a piece.
#[derive(Debug)]
struct Group {
    span: Range<u64>,
    rows: u64,
    deleted: u64,
    opened: AtomicBool,
}

/// Row groups and rows by whether they were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) files: u64,
    pub(crate) unopened_files: u64,
    pub(crate) groups: u64,
    pub(crate) unopened_groups: u64,
    /// Of opened row groups, without marked rows.
    pub(crate) rows: u64,
    /// Of row groups that were not opened, without marked rows.
    pub(crate) unopened_rows: u64,
    /// Marked rows, of all row groups.
    pub(crate) deleted: u64,
}

impl Watched {
    fn piece(&self, file: &PartitionedFile) -> Arc<Piece> {
        let range = file.range.as_ref().map(|r| (r.start, r.end));
        let key = (file.object_meta.location.to_string(), range);
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let marks = file.extensions.get_arc::<Marks>();
            Arc::new(Piece { range: file.range.clone(), marks, groups: OnceLock::new() })
        };
        Arc::clone(pieces.entry(key).or_insert_with(fresh))
    }

    /// Asked once the scan has ended. `ruled_out` tells whether statistics ruled out row groups or pages of a file: one that
    /// has none of the columns that are read yields its rows without a byte being fetched.
    pub(crate) fn opened(&self, ruled_out: impl Fn(&str) -> bool) -> Opened {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut files, mut unopened_files) = (BTreeSet::new(), BTreeSet::new());
        let mut total = Opened::default();
        for ((path, _), piece) in pieces.iter() {
            let Some(groups) = piece.groups.get() else {
                unopened_files.insert(path);
                continue;
            };
            files.insert(path);
            let fetched = groups.iter().any(|g| g.opened.load(Ordering::Relaxed));
            let all = !fetched && !ruled_out(path);
            for group in groups {
                total.deleted += group.deleted;
                // A row group whose rows are all marked is passed over, and is no matter of statistics.
                let live = group.rows - group.deleted;
                if group.opened.load(Ordering::Relaxed) || (all && live > 0) {
                    total.groups += 1;
                    total.rows += live;
                } else if live > 0 {
                    total.unopened_groups += 1;
                    total.unopened_rows += live;
                }
            }
        }
        total.files = files.len() as u64;
        total.unopened_files = unopened_files.difference(&files).count() as u64;
        total
    }
}

impl Piece {
    fn read_footer(&self, metadata: &ParquetMetaData) {
        self.groups.get_or_init(|| {
            let mut at = 0;
            let mut groups = vec![];
            for group in metadata.row_groups() {
                let rows = u64::try_from(group.num_rows()).unwrap_or(0);
                let from = at;
                at += rows;
                let Some(first) = group.columns().first() else { continue };
                // As the reader tells which row groups a range stands for.
                let first = first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset());
                if self.range.as_ref().is_some_and(|range| !range.contains(first)) {
                    continue;
                }
                let spans = || group.columns().iter().map(|c| c.byte_range());
                let start = spans().map(|(start, _)| start).min().unwrap_or(0);
                let end = spans().map(|(start, length)| start + length).max().unwrap_or(0);
                let deleted = self.marks.as_ref().map_or(0, |m| marked(&m.0, from..at));
                groups.push(Group { span: start..end, rows, deleted, opened: AtomicBool::new(false) });
            }
            groups
        });
    }

    fn fetch(&self, ranges: &[Range<u64>]) {
        for group in self.groups.get().into_iter().flatten() {
            if !group.opened.load(Ordering::Relaxed)
                && ranges.iter().any(|r| r.start < group.span.end && group.span.start < r.end)
            {
                group.opened.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// How many of these rows are marked.
fn marked(deleted: &DeletedRows, rows: Range<u64>) -> u64 {
    let from = deleted.runs.partition_point(|run| run.end <= rows.start);
    let within = deleted.runs[from..].iter().take_while(|run| run.start < rows.end);
    within.map(|run| run.end.min(rows.end) - run.start.max(rows.start)).sum()
}

/// Opens files as `inner` does, and watches what is fetched of them.
#[derive(Debug)]
pub(crate) struct WatchedReaders {
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) watched: Arc<Watched>,
}

impl ParquetFileReaderFactory for WatchedReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let piece = self.watched.piece(&file);
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        Ok(Box::new(WatchedReader { inner, piece }))
    }
}

struct WatchedReader {
    inner: Box<dyn AsyncFileReader + Send>,
    piece: Arc<Piece>,
}

impl AsyncFileReader for WatchedReader {
    // Footers, indexes and filters come this way; pages do not.
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.piece.fetch(&ranges);
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let metadata = self.inner.get_metadata(options).await?;
            self.piece.read_footer(&metadata);
            Ok(metadata)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_where_they_lie() {
        let deleted = DeletedRows { rows: 100, runs: vec![0..3, 10..20, 95..100] };
        let counts = [0..100, 0..10, 2..11, 20..95, 19..96].map(|rows| marked(&deleted, rows));
        assert_eq!(counts, [18, 3, 2, 0, 2]);
    }
}
