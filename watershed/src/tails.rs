//! The log of a source: from what was declared to something that the runtime can read.
//!
//! Options of librdkafka are given as `kafka.…`, those of a format under its own name. A secret among them is the name of a
//! variable, looked up when the log is opened. A log that is made up by the clock (`generate://`) has options of its own, and
//! no format to choose. That of a table's changes (`chained`) gives out rows.
//!
//! Messages that no fact can be made of become rows of the job's table of late and bad rows, with three columns more: the
//! payload, what is wrong with it, and when it was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Date32Type, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use watershed_core::clock::Clock;
use watershed_core::history::History;
use watershed_core::scan::MESSAGE_COLUMNS;
use watershed_core::secrets;
use watershed_core::settings::{OnError, Settings, parse_time};
use watershed_core::tail::{Decode, Decoded, HEADERS, Malformed, Messages, Start, Tail};
use watershed_core::time::{Grain, Span};
use watershed_core::{Error, EventTime, Result};
use watershed_formats::FormatOptions;
use watershed_generator::GeneratorTail;
use watershed_operators::{message_fields, rejected_fields};
use watershed_runtime::{Keys, TailInput};

use crate::keys::TableKeys;

/// What options of librdkafka begin with.
const KAFKA: &str = "kafka.";

/// Where rows are made up, what options of that begin with, and as what they are read.
const GENERATED: &str = "generate://";
const GENERATE: &str = "generate.";
const GENERATED_FORMAT: &str = "json";

/// Whether an option of `CREATE SOURCE … WITH` speaks of a log or a format.
pub(crate) fn is_option(name: &str) -> bool {
    is_of_broker(name) || name.starts_with(GENERATE) || watershed_formats::is_option(name)
}

/// Whether an option is one of librdkafka.
pub(crate) fn is_of_broker(name: &str) -> bool {
    name.starts_with(KAFKA)
}

/// Options of librdkafka by its own names, and those of a format, with what their secrets stand for.
pub(crate) fn resolved(
    options: &BTreeMap<String, String>,
    variables: &BTreeMap<String, String>,
) -> Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let (mut kafka, mut of_format) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in options {
        let value = match secrets::variable(value).filter(|_| secrets::is_secret(name)) {
            Some(variable) => variables.get(variable).cloned().ok_or_else(|| {
                Error::input(format!(
                    "option {name}: variable ${{{variable}}} is not set; give it with --var or in the environment"
                ))
            })?,
            None => value.clone(),
        };
        match name.strip_prefix(KAFKA) {
            Some(property) => kafka.insert(property.to_string(), value),
            None => of_format.insert(name.clone(), value),
        };
    }
    Ok((kafka, of_format))
}

/// A log as it was declared.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredTail {
    pub(crate) url: String,
    format: String,
    options: BTreeMap<String, String>,
    reading: Reading,
}

/// How a log is read, whatever it is.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    start: Start,
    archive: Option<String>,
    /// The columns that tell facts apart.
    key: Vec<String>,
    idle: Span,
    grace: Span,
    on_error: OnError,
}

impl Reading {
    /// From the oldest message on.
    pub(crate) fn new(archive: Option<String>, settings: &Settings) -> Self {
        Reading {
            start: Start::default(),
            archive,
            key: vec![],
            idle: settings.idle_timeout,
            grace: settings.grace,
            on_error: settings.on_error,
        }
    }

    pub(crate) fn beginning(self, start: Start) -> Self {
        Reading { start, ..self }
    }
}

impl DeclaredTail {
    pub(crate) fn new(
        url: &str,
        own: impl Fn(&'static str) -> Option<String>,
        options: BTreeMap<String, String>,
        settings: &Settings,
        what: &str,
    ) -> Result<Self> {
        let is_generated = url.starts_with(GENERATED);
        let format = own("format").or_else(|| is_generated.then(|| GENERATED_FORMAT.to_string())).ok_or_else(|| {
            Error::sql(format!(
                "{what}: say what its messages are: format = 'json', 'csv', 'avro', 'protobuf', 'raw', 'debezium-json' or \
                 'debezium-avro'"
            ))
        })?;
        let strange = |name: &&String| name.starts_with(GENERATE) != is_generated;
        if let Some(name) = options.keys().find(strange) {
            return Err(Error::sql(format!("{what}: `{name}` is no option of tail = '{url}'")));
        }
        if is_generated && format != GENERATED_FORMAT {
            return Err(Error::sql(format!(
                "{what}: format = '{format}': what is generated is '{GENERATED_FORMAT}'; leave the format out"
            )));
        }
        let start = own("start").map_or(Ok(Start::default()), |text| start(&text, what))?;
        let key = own("key").map_or(vec![], |key| key.split(',').map(|name| name.trim().to_string()).collect());
        let reading = Reading { key, ..Reading::new(own("archive"), settings).beginning(start) };
        Ok(DeclaredTail { url: url.to_string(), format, options, reading })
    }

    /// Whether its rows are made up, and nobody but the declaration says of what.
    pub(crate) fn is_generated(&self) -> bool {
        self.url.starts_with(GENERATED)
    }

    /// What its messages are.
    pub(crate) fn format(&self, variables: &BTreeMap<String, String>) -> Result<FormatOptions> {
        let (_, options) = resolved(&self.options, variables)?;
        Ok(FormatOptions { format: self.format.clone(), options })
    }

    /// Its messages as they are, for who wants to know what they hold.
    pub(crate) fn log(&self, variables: &BTreeMap<String, String>) -> Result<Arc<dyn Tail>> {
        let (kafka, _) = resolved(&self.options, variables)?;
        log(&self.url, &kafka, false)
    }

    /// Opens the log of a source whose table has these columns; `derived` is the one that is made from the event time. Only a
    /// log alone begins when its source was `made`.
    pub(crate) fn open(
        &self,
        table: &SchemaRef,
        time_column: &str,
        derived: Option<(usize, Grain)>,
        variables: &BTreeMap<String, String>,
        clock: &Arc<dyn Clock>,
        made: Option<EventTime>,
    ) -> Result<OpenTail> {
        let time = table
            .index_of(time_column)
            .map_err(|_| Error::input(format!("{} has no column {time_column} to be its event time", self.url)))?;
        let mut fields = table.fields().to_vec();
        if let Some((at, _)) = derived {
            fields.remove(at);
        }
        let columns = Arc::new(Schema::new(fields));
        let (tail, of_format) = match self.url.starts_with(GENERATED) {
            true => {
                let own =
                    |(name, value): (&String, &String)| Some((name.strip_prefix(GENERATE)?.into(), value.clone()));
                let own = self.options.iter().filter_map(own).collect();
                let tail = GeneratorTail::new(&self.url, &own, &columns, time_column, made, Arc::clone(clock))?;
                (Arc::new(tail) as Arc<dyn Tail>, BTreeMap::new())
            }
            false => {
                let (kafka, of_format) = resolved(&self.options, variables)?;
                (log(&self.url, &kafka, columns.index_of(HEADERS).is_ok())?, of_format)
            }
        };
        let format = FormatOptions { format: self.format.clone(), options: of_format };
        let inner = watershed_formats::decoder(&format, columns)?;
        let decode = match derived {
            None => inner,
            Some((at, grain)) => {
                Arc::new(Placed { inner, table: Arc::clone(table), time: time_column.to_string(), at, grain })
            }
        };
        Ok(OpenTail { reading: self.reading.clone(), tail, decode: Some(decode), time, keys: None })
    }
}

/// The log at a location, its messages with their headers or without.
fn log(url: &str, kafka: &BTreeMap<String, String>, with_headers: bool) -> Result<Arc<dyn Tail>> {
    match url.split_once("://") {
        #[cfg(feature = "kafka")]
        Some(("kafka", _)) => Ok(Arc::new(watershed_kafka::KafkaTail::new(url, kafka)?.with_headers(with_headers))),
        #[cfg(not(feature = "kafka"))]
        Some(("kafka", _)) => {
            let (options, _) = (kafka.len(), with_headers);
            Err(Error::input(format!("tail = '{url}': this build was made without Kafka ({options} options)")))
        }
        _ => Err(Error::input(format!(
            "tail = '{url}': expected kafka://BROKER:9092/TOPIC, or generate:// for rows that are made up"
        ))),
    }
}

/// Where a log begins, as a user says it.
pub(crate) fn start(text: &str, what: &str) -> Result<Start> {
    let text = text.trim();
    if let Some(time) = parse_time(text) {
        return Ok(Start::At(time));
    }
    let offset = |pair: &str| {
        let (part, offset) = pair.split_once(':')?;
        Some((part.trim().parse().ok()?, offset.trim().parse().ok()?))
    };
    match text.to_ascii_lowercase().as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        offsets => offsets.split(',').map(offset).collect::<Option<_>>().map(Start::Offsets).ok_or_else(|| {
            Error::sql(format!(
                "{what}: start = '{text}': give 'earliest', 'latest', a time such as '2024-01-31T12:00:00Z', or an offset for \
                 each part, such as '0:1200, 1:980'"
            ))
        }),
    }
}

/// A log that can be read.
#[derive(Clone)]
pub(crate) struct OpenTail {
    reading: Reading,
    tail: Arc<dyn Tail>,
    /// `None`: it gives out rows.
    decode: Option<Arc<dyn Decode>>,
    time: usize,
    keys: Option<Arc<dyn Keys>>,
}

impl OpenTail {
    /// Knows its history's facts by their keys, if there is a key.
    pub(crate) fn joined_with(mut self, history: &Arc<dyn History>, time_column: &str) -> Result<Self> {
        if let (false, Some(decode)) = (self.reading.key.is_empty(), &self.decode) {
            let keys = TableKeys::new(history, time_column, self.reading.key.clone(), &decode.schema())?;
            self.keys = Some(Arc::new(keys));
        }
        Ok(self)
    }

    /// The columns that tell its facts from those of its history, where offsets do not.
    pub(crate) fn key(&self) -> &[String] {
        &self.reading.key
    }

    /// How long before its newest fact its history was complete, where offsets do not tell.
    pub(crate) fn grace(&self) -> Span {
        self.reading.grace
    }

    /// A log that gives out rows, whose event time is the column of this index.
    pub(crate) fn of_rows(tail: impl Tail + 'static, reading: Reading, time: usize) -> Self {
        OpenTail { reading, tail: Arc::new(tail), decode: None, time, keys: None }
    }

    /// It is no log of messages, but the changes of a table.
    pub(crate) fn gives_rows(&self) -> bool {
        self.decode.is_none()
    }

    pub(crate) fn log(&self) -> &dyn Tail {
        self.tail.as_ref()
    }

    pub(crate) fn archive(&self) -> Option<&str> {
        self.reading.archive.as_deref()
    }

    /// For a job whose rejected rows have this schema.
    pub(crate) fn input(&self, source: &str, rejected: &SchemaRef) -> TailInput {
        let origin: Arc<str> = self.tail.location().into();
        let (name, of, schema) = (source.to_string(), Arc::clone(&origin), Arc::clone(rejected));
        TailInput {
            tail: Arc::clone(&self.tail),
            decode: self.decode.clone(),
            time: self.time,
            origin,
            start: self.reading.start.clone(),
            archive: self.reading.archive.clone(),
            idle: self.reading.idle,
            grace: self.reading.grace,
            keys: self.keys.clone(),
            on_error: self.reading.on_error,
            malformed: Arc::new(move |malformed| rows(&schema, &name, &of, malformed)),
        }
    }
}

/// The schema of a job's rejected rows, if it reads a log. That of one which reads text files has the columns already.
pub(crate) fn rejected_schema(rejected: &SchemaRef, reads_log: bool) -> SchemaRef {
    let last = rejected.fields().last().map(|field| field.name().as_str());
    if !reads_log || last == MESSAGE_COLUMNS.last().copied() {
        return Arc::clone(rejected);
    }
    let more = message_fields().into_iter().map(Arc::new);
    Arc::new(Schema::new(rejected.fields().iter().cloned().chain(more).collect::<Vec<_>>()))
}

/// Rejected rows in the schema of all of them: late and bad ones have nothing to say of messages.
pub(crate) fn widened(rows: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.num_columns() == schema.fields().len() {
        return Ok(rows);
    }
    let mut columns = rows.columns().to_vec();
    for field in &schema.fields()[columns.len()..] {
        columns.push(new_null_array(field.data_type(), rows.num_rows()));
    }
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| Error::bug(format!("rejected rows: {e}")))
}

/// Malformed messages as rejected rows.
fn rows(schema: &SchemaRef, source: &str, origin: &str, malformed: &Malformed) -> Result<RecordBatch> {
    let n = malformed.offsets.len();
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, n))) };
    let payloads: BinaryArray = malformed.payloads.iter().map(Option::as_deref).collect();
    let written = malformed.timestamps.iter().map(|ms| ms.map(|ms| ms.saturating_mul(1000)));
    let column = |(i, field): (usize, &FieldRef)| {
        Ok(match field.name().as_str() {
            "_source" if i < rejected_fields().len() => text(source),
            "_file" if i < rejected_fields().len() => text(origin),
            "_row" if i < rejected_fields().len() => Arc::new(Int64Array::from(malformed.offsets.clone())),
            "_reason" if i < rejected_fields().len() => text("malformed"),
            "_partition" if i < rejected_fields().len() => text(&malformed.part.to_string()),
            // If the query reads them, so that whoever plays the message back has them.
            "_key" if can_cast_types(&DataType::Binary, field.data_type()) => keys(malformed, field.data_type())?,
            HEADERS => headers(malformed, field)?,
            "_payload" if i + 3 == schema.fields().len() => Arc::new(payloads.clone()),
            "_error" if i + 2 == schema.fields().len() => Arc::new(StringArray::from(malformed.errors.clone())),
            "_written_at" if i + 1 == schema.fields().len() => {
                Arc::new(TimestampMicrosecondArray::from_iter(written.clone()).with_timezone("UTC"))
            }
            _ => new_null_array(field.data_type(), n),
        })
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<_>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|e| Error::bug(format!("malformed messages: {e}")))
}

/// The keys of malformed messages; one that is no text is NULL in a column of text.
fn keys(malformed: &Malformed, data_type: &DataType) -> Result<ArrayRef> {
    let keys: BinaryArray = malformed.keys.iter().map(Option::as_deref).collect();
    cast(&keys, data_type).map_err(|e| Error::bug(format!("keys of malformed messages: {e}")))
}

/// The headers of malformed messages; NULL where nobody knows them any more.
fn headers(malformed: &Malformed, field: &FieldRef) -> Result<ArrayRef> {
    match &malformed.headers {
        Some(headers) if can_cast_types(headers.data_type(), field.data_type()) => {
            cast(headers, field.data_type()).map_err(|e| Error::bug(format!("headers of malformed messages: {e}")))
        }
        _ => Ok(new_null_array(field.data_type(), malformed.offsets.len())),
    }
}

/// Facts with the partition column of their table, which messages do not have: it is made from the event time.
struct Placed {
    inner: Arc<dyn Decode>,
    table: SchemaRef,
    time: String,
    at: usize,
    grain: Grain,
}

impl Decode for Placed {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table)
    }

    fn decode(&self, messages: &Messages) -> Result<Decoded> {
        let decoded = self.inner.decode(messages)?;
        let odd = |e: arrow::error::ArrowError| Error::bug(format!("the partition column of a log's facts: {e}"));
        let time = decoded.rows.column_by_name(&self.time);
        let time = time.ok_or_else(|| Error::bug(format!("a log's facts have no {}", self.time)))?;
        let micros = cast(time, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(odd)?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        let field = self.table.field(self.at);
        let width = self.grain.span().0;
        let made: ArrayRef = match (self.grain, field.data_type()) {
            (Grain::Day, DataType::Date32) => {
                let day = |t: i64| i32::try_from(t.div_euclid(width)).unwrap_or(i32::MAX);
                Arc::new(micros.unary::<_, Date32Type>(day))
            }
            (Grain::Hour, hour @ DataType::Timestamp(..)) => {
                let begin = micros.unary::<_, TimestampMicrosecondType>(|t| t - t.rem_euclid(width));
                cast(&begin, hour).map_err(odd)?
            }
            (_, other) => new_null_array(other, micros.len()),
        };
        let mut columns = decoded.rows.columns().to_vec();
        columns.insert(self.at, made);
        let rows = RecordBatch::try_new(Arc::clone(&self.table), columns).map_err(odd)?;
        Ok(Decoded { rows, ..decoded })
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_log_begins_where_it_is_said() {
        assert_eq!(start("Earliest", "s").unwrap(), Start::Earliest);
        assert_eq!(start(" latest", "s").unwrap(), Start::Latest);
        assert_eq!(start("0:12, 3:7", "s").unwrap(), Start::Offsets(BTreeMap::from([(0, 12), (3, 7)])));
        assert!(matches!(start("2024-05-01", "s").unwrap(), Start::At(_)));
        assert!(start("soon", "source s").unwrap_err().to_string().contains("'earliest', 'latest', a time"));
    }

    #[test]
    fn malformed_messages_are_rows_beside_late_ones() {
        let mut fields = rejected_fields();
        fields.push(Field::new("km", DataType::Int64, true));
        fields.push(Field::new("_key", DataType::Utf8, true));
        let late = Arc::new(Schema::new(fields));
        let schema = rejected_schema(&late, true);
        let malformed = Malformed {
            part: 2,
            offsets: vec![7, 9],
            timestamps: vec![Some(5), None],
            keys: vec![Some(b"k".to_vec()), None],
            payloads: vec![Some(b"{".to_vec()), None],
            headers: None,
            errors: vec!["cut off".into(), "empty".into()],
        };
        let rows = rows(&schema, "s", "kafka://b/t", &malformed).unwrap();
        let text = |name: &str| rows.column_by_name(name).unwrap().as_string::<i32>().value(0).to_string();
        let found = ["_source", "_file", "_reason", "_partition", "_key", "_error"].map(text);
        assert_eq!(found, ["s", "kafka://b/t", "malformed", "2", "k", "cut off"]);
        let late = widened(RecordBatch::new_empty(late), &schema).unwrap();
        assert_eq!(late.schema(), rows.schema());
    }
}
