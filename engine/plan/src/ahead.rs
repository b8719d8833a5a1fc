//! Reading ahead in files that lie behind a network: row groups that follow one another are fetched together.
//!
//! A Parquet reader asks for one row group at a time, and for a server a request costs about as much as a megabyte. So a piece
//! of a file, which a worker takes to read it whole, is fetched [`MOST`] bytes at a time; and once the reader of a whole file
//! is seen to go from row group to row group, each fetch may be three times the one before, up to as much. What comes ahead
//! is kept until it is asked for. A reader that passes over row groups, or reads the lesser part of their columns, fetches
//! what it asks for and nothing else.
//!
//! Files on the local disk are not read ahead: there the page cache does it.

use std::ops::Range;
use std::sync::Arc;

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

/// The most bytes of one fetch, unless a single row group is larger.
const MOST: u64 = 8 << 20;

/// Opens files as `inner` does, and reads them ahead.
#[derive(Debug)]
pub(crate) struct AheadReaders {
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
}

impl ParquetFileReaderFactory for AheadReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let piece = file.range.clone();
        let inner = self.inner.create_reader(partition, file, hint, metrics)?;
        Ok(Box::new(Ahead { inner, piece, groups: vec![], last: 0..0, kept: Kept::default() }))
    }
}

struct Ahead {
    inner: Box<dyn AsyncFileReader + Send>,
    piece: Option<FileRange>,
    /// Where the piece's row groups lie, in the file's order.
    groups: Vec<Range<u64>>,
    /// What was fetched last.
    last: Range<u64>,
    kept: Kept,
}

/// Bytes that were fetched and may be asked for.
#[derive(Default)]
struct Kept {
    start: u64,
    bytes: Bytes,
}

impl Kept {
    fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }

    fn slices(&self, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        ranges.iter().map(|range| self.slice(range)).collect()
    }
}

/// What to fetch when `asked` is asked for and `last` was fetched before: one range that holds it and more, or `None` for
/// what is asked alone. Pure.
fn fetch(groups: &[Range<u64>], piece: bool, last: &Range<u64>, asked: &[Range<u64>]) -> Option<Range<u64>> {
    let start = asked.iter().map(|range| range.start).min()?;
    let end = asked.iter().map(|range| range.end).max()?;
    let first = groups.iter().position(|group| group.start <= start && start < group.end)?;
    let bytes: u64 = asked.iter().map(|range| range.end - range.start).sum();
    if 2 * bytes < end - start || 2 * bytes < groups[first].end - groups[first].start {
        return None;
    }
    // The row group behind the one in which the last fetch ended.
    let before = first.checked_sub(1).map(|i| &groups[i]);
    let follows = !last.is_empty() && before.is_some_and(|group| group.start < last.end) && last.end <= start;
    let wanted = match (piece && (first == 0 || follows), follows) {
        (true, _) => MOST,
        (false, true) => (3 * (last.end - last.start)).min(MOST),
        (false, false) => 0,
    };
    let mut ahead = start..end;
    for group in &groups[first + 1..] {
        if group.start < ahead.end || group.end - start > wanted {
            break;
        }
        ahead.end = group.end;
    }
    Some(ahead)
}

impl AsyncFileReader for Ahead {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        match self.kept.slice(&range) {
            Some(bytes) => std::future::ready(Ok(bytes)).boxed(),
            None => self.inner.get_bytes(range),
        }
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            if let Some(found) = self.kept.slices(&ranges) {
                return Ok(found);
            }
            // Let go before the next is fetched.
            self.kept = Kept::default();
            let ahead = fetch(&self.groups, self.piece.is_some(), &self.last, &ranges);
            self.last = ahead.clone().unwrap_or(0..0);
            let Some(ahead) = ahead else { return self.inner.get_byte_ranges(ranges).await };
            let mut fetched = self.inner.get_byte_ranges(vec![ahead.clone()]).await?;
            self.kept = Kept { start: ahead.start, bytes: fetched.pop().unwrap_or_default() };
            match self.kept.slices(&ranges) {
                Some(found) => Ok(found),
                // The file is shorter than its footer says: let the reader find out.
                None => self.inner.get_byte_ranges(ranges).await,
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let metadata = self.inner.get_metadata(options).await?;
            self.groups = groups(&metadata, self.piece.as_ref());
            Ok(metadata)
        }
        .boxed()
    }
}

/// Where the row groups of a piece lie.
fn groups(metadata: &ParquetMetaData, piece: Option<&FileRange>) -> Vec<Range<u64>> {
    let mut groups = vec![];
    for group in metadata.row_groups() {
        let Some(first) = group.columns().first() else { continue };
        // As the reader tells which row groups a range stands for.
        let first = first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset());
        if piece.is_some_and(|piece| !piece.contains(first)) {
            continue;
        }
        let spans = || group.columns().iter().map(|column| column.byte_range());
        let start = spans().map(|(start, _)| start).min().unwrap_or(0);
        let end = spans().map(|(start, length)| start + length).max().unwrap_or(0);
        groups.push(start..end);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn file() -> Vec<Range<u64>> {
        (0..12).map(|i| 4 + i * MB + i..4 + (i + 1) * (MB + 1)).collect()
    }

    #[test]
    fn fetches_grow_as_row_groups_follow_one_another() {
        let (groups, mut last, mut fetches) = (file(), 0..0, vec![]);
        for group in &groups {
            if last.end >= group.end {
                continue;
            }
            last = fetch(&groups, false, &last, &[group.start..group.start + MB / 2, group.start + MB / 2..group.end])
                .unwrap();
            fetches.push((last.end - last.start) / MB);
        }
        assert_eq!(fetches, [1, 3, 7, 1]);
        assert_eq!(fetch(&groups, true, &(0..0), &groups[..1]), Some(groups[0].start..groups[6].end));
    }

    #[test]
    fn what_is_passed_over_is_not_fetched() {
        let groups = file();
        // The next is not asked for: from there on as at first.
        assert_eq!(fetch(&groups, false, &groups[0], std::slice::from_ref(&groups[2])), Some(groups[2].clone()));
        // One column of several.
        let column = groups[1].start..groups[1].start + MB / 4;
        assert_eq!(fetch(&groups, false, &groups[0], &[column]), None);
        // Two columns far apart.
        let (low, high) = (groups[1].start..groups[1].start + 9, groups[1].end - 9..groups[1].end);
        assert_eq!(fetch(&groups, false, &groups[0], &[low, high]), None);
        // Not of a row group that is known.
        assert_eq!(fetch(&[], false, &groups[0], std::slice::from_ref(&groups[1])), None);
    }

    #[test]
    fn kept_bytes_are_given_as_asked() {
        let kept = Kept { start: 10, bytes: Bytes::from_static(b"abcdef") };
        assert_eq!(kept.slices(&[10..12, 15..16]).unwrap(), [&b"ab"[..], b"f"]);
        for (from, to) in [(9, 11), (15, 17), (0, 1)] {
            assert!(kept.slice(&(from..to)).is_none(), "{from}..{to}");
        }
    }
}
