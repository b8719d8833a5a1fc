//! Query results on their way out: a table for people, CSV, JSON lines or Parquet for programs.
//!
//! All but the table are written as they come, so that a result may be larger than memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches_with_schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use watershed_core::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    /// One object a line.
    Json,
    Parquet,
}

impl Format {
    /// What a file's name asks for.
    pub(crate) fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "json" | "ndjson" | "jsonl" => Some(Format::Json),
            "parquet" => Some(Format::Parquet),
            "txt" => Some(Format::Table),
            _ => None,
        }
    }
}

/// Takes batches, writes them, and says what went wrong in the words of the user's world.
pub(crate) struct Output {
    to: String,
    schema: SchemaRef,
    writer: Writer,
}

type Bytes = Box<dyn Write + Send>;

enum Writer {
    Table(Bytes, Vec<RecordBatch>),
    Csv(Box<arrow::csv::Writer<Bytes>>),
    Json(Box<LineDelimitedWriter<Bytes>>),
    Parquet(Box<ArrowWriter<Bytes>>),
}

impl Output {
    /// To a file, or to standard output.
    pub(crate) fn open(format: Format, file: Option<&Path>, schema: SchemaRef) -> Result<Self> {
        let to = file.map_or("standard output".to_string(), |f| f.display().to_string());
        let bytes: Bytes = match file {
            None => Box::new(BufWriter::new(std::io::stdout())),
            Some(path) => {
                Box::new(BufWriter::new(File::create(path).map_err(|e| Error::storage("could not create", &to, e))?))
            }
        };
        let writer = match format {
            Format::Table => Writer::Table(bytes, vec![]),
            Format::Csv => {
                let mut writer = WriterBuilder::new().with_header(true).build(bytes);
                // The header comes with the first batch, and there may be none.
                let header = writer.write(&RecordBatch::new_empty(schema.clone()));
                header.map_err(|e| Error::storage("could not write to", &to, e))?;
                Writer::Csv(Box::new(writer))
            }
            Format::Json => Writer::Json(Box::new(LineDelimitedWriter::new(bytes))),
            Format::Parquet => {
                let properties =
                    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
                let writer = ArrowWriter::try_new(bytes, schema.clone(), Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|e| Error::storage("could not write to", &to, e))?))
            }
        };
        Ok(Output { to, schema, writer })
    }

    pub(crate) fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let written: Result<(), Box<dyn std::error::Error + Send + Sync>> = match &mut self.writer {
            Writer::Table(_, batches) => {
                batches.push(batch);
                Ok(())
            }
            Writer::Csv(writer) => writer.write(&batch).map_err(Into::into),
            Writer::Json(writer) => writer.write(&batch).map_err(Into::into),
            Writer::Parquet(writer) => writer.write(&batch).map_err(Into::into),
        };
        written.map_err(|e| Error::storage("could not write to", &self.to, e))
    }

    pub(crate) fn finish(self) -> Result<()> {
        let Output { to, schema, writer } = self;
        let done: Result<(), Box<dyn std::error::Error + Send + Sync>> = (|| match writer {
            Writer::Table(mut bytes, batches) => {
                writeln!(bytes, "{}", pretty_format_batches_with_schema(schema, &batches)?)?;
                Ok(bytes.flush()?)
            }
            Writer::Csv(writer) => Ok(writer.into_inner().flush()?),
            Writer::Json(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner().flush()?)
            }
            Writer::Parquet(writer) => Ok(writer.into_inner()?.flush()?),
        })();
        match done {
            // Somebody who read only the first lines, as `head` does.
            Err(e) if is_broken_pipe(e.as_ref()) => Ok(()),
            other => other.map_err(|e| Error::storage("could not write to", to, e)),
        }
    }
}

fn is_broken_pipe(e: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
