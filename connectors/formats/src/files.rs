//! Files of JSON and CSV as facts: cut into records, which are read as the messages of a log are.
//!
//! ```text
//!  bytes ──unpack (.gz, .zst)──▶ buffer ──cut──▶ records with their lines ──decoder──▶ facts, malformed records
//! ```
//!
//! * JSON: one object a line.
//! * CSV: one record a line, or several lines where line ends stand in quotes. Its first one names the columns, unless
//!   `csv.header = 'false'`; then they go by position. By name they may be in any order, further ones are not looked at, and
//!   one that a file lacks is NULL. A file whose first line names no column at all is malformed, record by record, and so is
//!   one that lacks a column which is NOT NULL.
//!
//! Lines without anything are no records. A byte order mark is passed over. The line of a record is the one in the unpacked
//! file that it begins on.
//!
//! Invariant: memory is bounded by a batch and by the longest record that is read, whatever a file holds.
//!
//! * `cut`: where records begin and end.
//! * `unpack`: compressed files.
//! * `header`: which columns a CSV file has.

mod cut;

mod header;

mod unpack;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BinaryBuilder, Int64Array, TimestampMillisecondArray, new_null_array};
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use watershed_core::tail::{Decode, Messages};
use watershed_core::text::{MalformedRecord, TextFormat, TextReader, TextRows};
use watershed_core::{Error, Result};

use crate::options::{CSV_DELIMITER, CSV_HEADER, CSV_QUOTE, Format, Options};
use crate::{FormatOptions, decoder};
use cut::{Cut, Cutter};
use header::Columns;
use unpack::Unpacked;

/// Records, and bytes of records, in a batch.
const RECORDS: usize = 8192;
const BYTES: usize = 4 << 20;

/// Bytes of a record beyond which it is malformed.
const LONGEST: usize = 16 << 20;

/// Bytes of such a one that are kept.
const KEPT: usize = 1 << 10;

/// The columns that messages have and files do not.
const OF_MESSAGES: [&str; 5] = ["_offset", "_part", "_timestamp", "_key", "_headers"];

/// What reads files of these columns.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::datatypes::{DataType, Field, Schema};
/// use watershed_formats::{FormatOptions, files};
///
/// let schema = Schema::new(vec![Field::new("km", DataType::Int64, true)]);
/// let json = FormatOptions { format: "json".into(), ..FormatOptions::default() };
/// let mut reader = files(&json, Arc::new(schema))?.begin("rides.json")?;
/// reader.push(b"{\"km\": 1}\n{\"km\":");
/// reader.push(b" 2}\nno json\n");
/// reader.finish();
/// let some = reader.next()?.unwrap();
/// assert_eq!((some.records, some.rows.num_rows(), some.malformed[0].line), (3, 2, 2));
/// assert!(reader.next()?.is_none());
/// # Ok::<(), watershed_core::Error>(())
/// ```
///
/// # Errors
///
/// [`watershed_core::Error::Input`]: a format that files are not read in, an unknown option, or a column of a type that the
/// format cannot give.
pub fn files(format: &FormatOptions, schema: SchemaRef) -> Result<Arc<dyn TextFormat>> {
    if let Some(name) = schema.fields().iter().map(|f| f.name()).find(|name| OF_MESSAGES.contains(&name.as_str())) {
        return Err(Error::input(format!("column {name} is of messages of a log, and files have none: leave it out")));
    }
    let options = Options::of(format)?;
    let by_name = match (options.format, options.get(CSV_HEADER)) {
        (Format::Json, _) | (Format::Csv, Some("false")) => false,
        (Format::Csv, None | Some("true")) => true,
        (Format::Csv, Some(other)) => {
            return Err(Error::input(format!("option {CSV_HEADER} is 'true' or 'false', not '{other}'")));
        }
        _ => {
            return Err(Error::input(format!(
                "files of format '{}' are not read; there are 'json' and 'csv', and Parquet files need no format",
                format.format
            )));
        }
    };
    let csv = match options.format {
        Format::Csv => Some(Dialect {
            delimiter: options.character(CSV_DELIMITER, b',')?,
            quote: options.character(CSV_QUOTE, b'"')?,
        }),
        _ => None,
    };
    let mut of_records = format.clone();
    of_records.options.remove(CSV_HEADER);
    // Whether the columns can be read at all is said before there is a file.
    let decode = decoder(&of_records, Arc::clone(&schema))?;
    Ok(Arc::new(Files(Arc::new(Known { format: format.clone(), of_records, schema, csv, by_name, decode }))))
}

/// How records of CSV are written.
#[derive(Clone, Copy, Debug)]
struct Dialect {
    delimiter: u8,
    quote: u8,
}

struct Files(Arc<Known>);

struct Known {
    format: FormatOptions,
    /// Of a record by itself.
    of_records: FormatOptions,
    schema: SchemaRef,
    csv: Option<Dialect>,
    /// A file's first record names its columns.
    by_name: bool,
    decode: Arc<dyn Decode>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files of {}", self.0.format.format)
    }
}

impl TextFormat for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn with_schema(&self, schema: SchemaRef) -> Result<Arc<dyn TextFormat>> {
        files(&self.0.format, schema)
    }

    fn endings(&self) -> Vec<String> {
        let plain: &[&str] = if self.0.csv.is_some() { &[".csv"] } else { &[".json", ".ndjson", ".jsonl"] };
        let each = ["", unpack::GZIP, unpack::ZSTD].into_iter();
        each.flat_map(|packed| plain.iter().map(move |plain| format!("{plain}{packed}"))).collect()
    }

    fn begin(&self, path: &str) -> Result<Box<dyn TextReader>> {
        let columns = if self.0.by_name { Columns::Unread } else { Columns::ByPosition };
        Ok(Box::new(Reader {
            known: Arc::clone(&self.0),
            unpacked: Unpacked::new(path)?,
            buffer: vec![],
            begun: false,
            cutter: Cutter::new(self.0.csv),
            cut: vec![],
            malformed: vec![],
            columns,
            ended: false,
        }))
    }
}

struct Reader {
    known: Arc<Known>,
    unpacked: Unpacked,
    /// What was unpacked and is not in a batch yet.
    buffer: Vec<u8>,
    /// The file's beginning was seen.
    begun: bool,
    cutter: Cutter,
    /// Records in the buffer, and the line each begins on.
    cut: Vec<(Range<usize>, i64)>,
    /// Records that are too long.
    malformed: Vec<MalformedRecord>,
    columns: Columns,
    ended: bool,
}

impl TextReader for Reader {
    fn push(&mut self, bytes: &[u8]) {
        self.unpacked.push(bytes);
    }

    fn finish(&mut self) {
        self.ended = true;
    }

    fn next(&mut self) -> Result<Option<TextRows>> {
        loop {
            let more = self.unpacked.next(&mut self.buffer, self.ended)?;
            self.skip_mark(!more && self.ended);
            let all = !more && self.ended;
            self.cut(all);
            let full = self.cut.len() >= RECORDS || self.cutter.cut_up_to() >= BYTES;
            match self.cut.is_empty() && self.malformed.is_empty() {
                false if full || all => return self.batch().map(Some),
                // Blank lines, or the rest of a record that was too long.
                true => drop(self.buffer.drain(..self.cutter.forget())),
                false => {}
            }
            if !more {
                return Ok(None);
            }
        }
    }
}

impl Reader {
    /// Passes over a byte order mark, once enough of the file is there to tell.
    fn skip_mark(&mut self, all: bool) {
        const MARK: &[u8] = b"\xEF\xBB\xBF";
        if self.begun || (self.buffer.len() < MARK.len() && !all) {
            return;
        }
        self.begun = true;
        if self.buffer.starts_with(MARK) {
            self.buffer.drain(..MARK.len());
        }
    }

    /// Finds further records in the buffer, as many as a batch has.
    fn cut(&mut self, all: bool) {
        if !self.begun {
            return;
        }
        while self.cut.len() < RECORDS && self.cutter.cut_up_to() < BYTES {
            match self.cutter.next(&self.buffer, all) {
                Some(Cut::Record(record, line)) => self.cut.push((record, line)),
                Some(Cut::TooLong(beginning, line)) => {
                    let payload = self.buffer[beginning].to_vec();
                    let error = format!("it is longer than {LONGEST} bytes, of which the first {KEPT} are kept");
                    self.malformed.push(MalformedRecord { line, payload, error });
                }
                None => break,
            }
        }
    }

    /// The records that were cut, read; they leave the buffer.
    fn batch(&mut self) -> Result<TextRows> {
        let mut cut = std::mem::take(&mut self.cut);
        let mut malformed = std::mem::take(&mut self.malformed);
        let mut records = (cut.len() + malformed.len()) as u64;
        if matches!(self.columns, Columns::Unread) && !cut.is_empty() {
            let first = &self.buffer[cut[0].0.clone()];
            self.columns = Columns::of(first, &self.known)?;
            // A first line that names columns is no record.
            if !matches!(self.columns, Columns::Wrong(_)) {
                cut.remove(0);
                records -= 1;
            }
        }
        let rows = match &self.columns {
            Columns::Wrong(why) => {
                malformed.extend(cut.iter().map(|(record, line)| MalformedRecord {
                    line: *line,
                    payload: self.buffer[record.clone()].to_vec(),
                    error: why.clone(),
                }));
                None
            }
            _ if cut.is_empty() => None,
            Columns::ByPosition => Some(self.read(&cut, self.known.decode.as_ref(), None, &mut malformed)?),
            Columns::Named { decode, at } => Some(self.read(&cut, decode.as_ref(), Some(at), &mut malformed)?),
            Columns::Unread => None,
        };
        let (rows, lines) = rows
            .unwrap_or_else(|| (RecordBatch::new_empty(Arc::clone(&self.known.schema)), Int64Array::from(vec![0; 0])));
        self.buffer.drain(..self.cutter.forget());
        malformed.sort_by_key(|record| record.line);
        Ok(TextRows { records, rows, lines, malformed })
    }

    /// Records read by a decoder; `at` tells where it has the columns of the facts.
    fn read(
        &self,
        cut: &[(Range<usize>, i64)],
        decode: &dyn Decode,
        at: Option<&Vec<Option<usize>>>,
        malformed: &mut Vec<MalformedRecord>,
    ) -> Result<(RecordBatch, Int64Array)> {
        let bytes = cut.iter().map(|(record, _)| record.len()).sum();
        let mut payloads = BinaryBuilder::with_capacity(cut.len(), bytes);
        cut.iter().for_each(|(record, _)| payloads.append_value(&self.buffer[record.clone()]));
        let messages = Messages {
            part: 0,
            offsets: Int64Array::from_iter_values(cut.iter().map(|(_, line)| *line)),
            timestamps: TimestampMillisecondArray::new_null(cut.len()),
            keys: BinaryArray::new_null(cut.len()),
            payloads: payloads.finish(),
            headers: None,
            next: 0,
            at_end: false,
        };
        let decoded = decode.decode(&messages)?;
        malformed.extend(decoded.malformed.into_iter().map(|(index, error)| MalformedRecord {
            line: messages.offsets.value(index),
            payload: messages.payloads.value(index).to_vec(),
            error,
        }));
        let Some(at) = at else { return Ok((decoded.rows, decoded.offsets)) };
        let n = decoded.rows.num_rows();
        let column = |(at, field): (&Option<usize>, &FieldRef)| -> ArrayRef {
            match at {
                Some(at) => Arc::clone(decoded.rows.column(*at)),
                None => new_null_array(field.data_type(), n),
            }
        };
        let columns = at.iter().zip(self.known.schema.fields()).map(column).collect();
        let count = RecordBatchOptions::new().with_row_count(Some(n));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.known.schema), columns, &count);
        Ok((rows.map_err(|e| Error::bug(format!("rows of a file: {e}")))?, decoded.offsets))
    }
}

#[cfg(test)]
mod tests;
