//! Standard output as the result of a job: lines as soon as they are made, at least once.
//!
//! Invariant: what a manifest speaks of was written and flushed before.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tokio::task::spawn_blocking;
use watershed_core::sink::{CommitIdentity, Committed, EpochWriter, LastCommit, PreparedCommit, Sink};
use watershed_core::{Error, Result};

use crate::lines::lines;

/// What messages call it.
const LOCATION: &str = "stdout";

type Out = Arc<Mutex<dyn Write + Send>>;

/// Standard output, or what takes its place.
pub struct StdoutSink {
    name: String,
    out: Out,
}

impl StdoutSink {
    /// `name` is the sink's in its job, for [`Sink::name`].
    pub fn new(name: &str) -> StdoutSink {
        StdoutSink::to(name, io::stdout())
    }

    fn to(name: &str, out: impl Write + Send + 'static) -> StdoutSink {
        StdoutSink { name: name.to_string(), out: Arc::new(Mutex::new(out)) }
    }
}

impl fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StdoutSink").field(&self.name).finish()
    }
}

#[async_trait]
impl Sink for StdoutSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> &str {
        LOCATION
    }

    fn writer(&self) -> Result<Arc<dyn EpochWriter>> {
        Ok(Arc::new(Printer { out: Arc::clone(&self.out) }))
    }

    async fn commit(
        &self,
        _: &CommitIdentity,
        _: &PreparedCommit,
        _: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed> {
        Err(Error::bug("standard output: a commit of what was written already"))
    }

    async fn last_committed(&self, _: &str) -> Result<Option<LastCommit>> {
        Ok(None)
    }

    async fn verify(&self, _: &PreparedCommit) -> Result<()> {
        Ok(())
    }
}

struct Printer {
    out: Out,
}

#[async_trait]
impl EpochWriter for Printer {
    async fn write(&self, _: usize, rows: RecordBatch) -> Result<()> {
        let (lines, out) = (lines(&rows)?, Arc::clone(&self.out));
        // Whoever reads it may be slow.
        let written = spawn_blocking(move || {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            out.write_all(&lines).and_then(|()| out.flush())
        });
        let written = written.await.map_err(|e| Error::bug(format!("standard output: {e}")))?;
        written.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Error::stopped(
                "standard output was closed by whoever read it; run again, which writes the rows since the last checkpoint \
                 once more",
            ),
            _ => Error::storage_unknown("could not write to", "standard output", e),
        })
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        Ok(PreparedCommit::default())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::BinaryArray;
    use watershed_core::sink::message_schema;

    use super::*;

    fn messages(payloads: &[&str]) -> RecordBatch {
        let payloads: BinaryArray = payloads.iter().map(|payload| Some(payload.as_bytes())).collect();
        RecordBatch::try_new(message_schema(), vec![Arc::new(payloads.clone()), Arc::new(payloads)]).unwrap()
    }

    /// Counts what was flushed, and is closed after so many bytes.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<(Vec<u8>, usize)>>, usize);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            if inner.0.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            inner.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            let mut inner = self.0.lock().unwrap();
            inner.1 = inner.0.len();
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_are_out_at_once_and_a_closed_pipe_stops_the_job() {
        let pipe = Pipe(Arc::default(), 12);
        let sink = StdoutSink::to("result", pipe.clone());
        let writer = sink.writer().unwrap();
        writer.write(0, messages(&["{}", "{\"a\":1}"])).await.unwrap();
        assert_eq!(*pipe.0.lock().unwrap(), (b"{}\n{\"a\":1}\n".to_vec(), 11));
        let closed = writer.write(1, messages(&["{}"])).await.unwrap_err();
        assert!(matches!(&closed, Error::Stopped(why) if why.contains("was closed")), "{closed}");
        assert_eq!(writer.finish().await.unwrap(), PreparedCommit::default());
    }
}
