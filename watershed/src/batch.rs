//! A query's answer, batch by batch, and what its errors mean to who asked.

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::physical_plan::SendableRecordBatchStream;
use futures::{Stream, StreamExt};
use watershed_core::{Error, Result};

/// A stream of batches with their schema known beforehand.
pub struct Rows(SendableRecordBatchStream);

impl Rows {
    pub(crate) fn new(stream: SendableRecordBatchStream) -> Self {
        Rows(stream)
    }

    pub fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context).map(|next| next.map(|batch| batch.map_err(in_query)))
    }
}

/// DataFusion's errors by whose turn it is.
pub(crate) fn in_query(e: DataFusionError) -> Error {
    match e {
        DataFusionError::ResourcesExhausted(message) => Error::Resources(message),
        DataFusionError::ObjectStore(source) => Error::storage("could not read", "a data file", *source),
        DataFusionError::ParquetError(e) if of_store(e.as_ref()) => {
            Error::storage("could not read", "a data file", e.to_string())
        }
        DataFusionError::Internal(message) => Error::bug(message),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => in_query(*inner),
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::input(other.to_string()),
        },
        other => Error::sql(other.strip_backtrace()),
    }
}

/// Whether it is the store that could not be read, not the file. Where a footer is read, only the text tells.
fn of_store(e: &(dyn std::error::Error + 'static)) -> bool {
    let cause = |e: &(dyn std::error::Error + 'static)| e.is::<object_store::Error>();
    cause(e) || e.source().is_some_and(of_store) || e.to_string().contains("Object Store error: ")
}
