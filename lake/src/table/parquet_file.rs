//! A Parquet file that leaves for its store row group by row group.
//!
//! Parquet's own asynchronous writer has a row group's bytes gathered in one buffer, which doubles as it grows and is sent when it
//! is whole: for a moment the row group is in memory three times. Here it is handed over in pieces, each of which takes the place
//! of pages that are done with.

use std::io::{self, Write};
use std::mem;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use crate::parquet_object::ObjectWriter;

/// Bytes of a piece.
const PIECE: usize = 1 << 20;

pub(super) struct ParquetFile {
    encoder: ArrowWriter<Pieces>,
    object: ObjectWriter,
}

impl ParquetFile {
    pub(super) fn begin(object: ObjectWriter, schema: SchemaRef, properties: WriterProperties) -> Result<ParquetFile> {
        Ok(ParquetFile { encoder: ArrowWriter::try_new(Pieces::default(), schema, Some(properties))?, object })
    }

    /// Encodes rows, and sends what row groups they complete.
    pub(super) async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.encoder.write(rows)?;
        self.send().await
    }

    /// Ends the row group in hand.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.encoder.flush()?;
        self.send().await
    }

    /// Ends the file; it is in its store when this has returned.
    pub(super) async fn finish(&mut self) -> Result<ParquetMetaData> {
        let metadata = self.encoder.finish()?;
        self.send().await?;
        let rest = mem::take(&mut self.encoder.inner_mut().open);
        self.object.write(rest.into()).await?;
        self.object.complete().await?;
        Ok(metadata)
    }

    /// Bytes in memory of the row group in hand.
    pub(super) fn memory_size(&self) -> usize {
        self.encoder.memory_size()
    }

    /// Bytes so far, and about those that the row group in hand will have.
    pub(super) fn size(&self) -> usize {
        self.encoder.bytes_written() + self.encoder.in_progress_size()
    }

    pub(super) fn bytes_written(&self) -> usize {
        self.encoder.bytes_written()
    }

    async fn send(&mut self) -> Result<()> {
        for piece in mem::take(&mut self.encoder.inner_mut().full) {
            self.object.write(piece).await?;
        }
        Ok(())
    }
}

/// What was encoded and not sent.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    open: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.open.len());
        self.open.extend_from_slice(&bytes[..taken]);
        if self.open.len() == PIECE {
            // A file may be small; one that filled a piece will fill another.
            self.full.push(mem::replace(&mut self.open, Vec::with_capacity(PIECE)).into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_that_was_written_in_its_order() {
        let mut pieces = Pieces::default();
        let all: Vec<u8> = (0..PIECE * 2 + 7).map(|i| (i % 251) as u8).collect();
        for part in all.chunks(700_001) {
            pieces.write_all(part).unwrap();
        }
        assert!(pieces.full.iter().all(|piece| piece.len() == PIECE) && pieces.full.len() == 2);
        assert_eq!([pieces.full.concat(), pieces.open].concat(), all);
    }
}
