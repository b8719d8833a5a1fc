//! The tail of a source: a live log in parts, and how its messages become facts.
//!
//! A log is cut into *parts* (Kafka calls them partitions), each an ordered run of messages with growing offsets, perhaps
//! with gaps: transaction markers and compaction leave them. [`Tail`] is the seam to a broker and knows nothing of what the
//! messages hold; [`Decode`] knows that and nothing of brokers. Where a job stands in a log is a [`TailPosition`], kept
//! in its own checkpoints and nowhere else.
//!
//! A log whose messages are facts as they are hands over rows and needs no [`Decode`]: the versions of a table, each with as
//! many rows as it changed ([`Numbering::Versions`]). There each row has an offset of its own, so that a job may stand within
//! a version.
//!
//! Invariant: a position is the offset of the *next* message, so what lies before it has been read, and only that. A log
//! that no longer has that offset is an error at the seam, never a jump.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, ListArray, TimestampMillisecondArray, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::time::{EventTime, Span};

/// The number of a part of a log.
pub type Part = i32;

/// What a log has at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// What a log made anew under the same name would have another of; `None` where the broker does not tell.
    pub id: Option<String>,
    /// For each part, from the offset of its oldest message on (or of the next one, if it has none) to that of the next to
    /// be written.
    pub parts: BTreeMap<Part, Range<i64>>,
    pub numbering: Numbering,
}

/// How the messages of a log are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbering {
    /// By their offsets: a message is a fact.
    #[default]
    Offsets,
    /// A message is a version of a table and has many rows. Row `r` of version `v` has the offset `v` * [`VERSION`] + `r`, which
    /// reads well: `12_0000000344`.
    Versions,
}

/// The offsets that a version takes, whatever it changed.
pub const VERSION: i64 = 10_000_000_000;

impl Numbering {
    /// The offset at which a message begins.
    pub fn begins(self, message: i64) -> i64 {
        message.saturating_mul(self.width())
    }

    /// The message that an offset lies in.
    pub fn message(self, offset: i64) -> i64 {
        offset.div_euclid(self.width())
    }

    /// How many messages take these offsets; one of which a part is left counts.
    pub fn messages(self, offsets: Range<i64>) -> u64 {
        let left = u64::try_from(offsets.end.saturating_sub(offsets.start)).unwrap_or(0);
        left.div_ceil(self.width().unsigned_abs())
    }

    /// What a message's number is called.
    pub fn name(self) -> &'static str {
        match self {
            Numbering::Offsets => "offset",
            Numbering::Versions => "version",
        }
    }

    fn width(self) -> i64 {
        match self {
            Numbering::Offsets => 1,
            Numbering::Versions => VERSION,
        }
    }
}

/// Where a source stands in its log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TailPosition {
    /// [`LogState::id`] when it was first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub parts: BTreeMap<Part, PartPosition>,
    /// The log follows a history that has no record of offsets, and is still where both may have the same facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
}

/// The event times of which facts may be in a history and in its log, where nobody recorded how far the one is in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Earlier facts of the log are taken to be in the history.
    pub from: EventTime,
    /// No fact of the history is later; once the log promises that no such fact comes, they overlap no more.
    pub until: EventTime,
}

/// Where a source stands in one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPosition {
    /// The offset of the next message to read.
    pub next: i64,
    /// The latest event time read of it, or archived of it before the seam; those that lie too far ahead do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<EventTime>,
    /// Bytes of a message of it, by those that were read lately: what is told of the lag stands on it, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_bytes: Option<u64>,
}

impl PartPosition {
    /// Before the message at an offset, with nothing known of those before it.
    pub fn at(next: i64) -> Self {
        PartPosition { next, newest: None, message_bytes: None }
    }
}

/// Messages of one part that lie next to each other, in the order of their offsets. All arrays are as long.
#[derive(Clone, Debug)]
pub struct Messages {
    pub part: Part,
    pub offsets: Int64Array,
    /// When they were written, by the log; NULL where it does not say.
    pub timestamps: TimestampMillisecondArray,
    /// NULL: a message without a key.
    pub keys: BinaryArray,
    /// NULL: a tombstone.
    pub payloads: BinaryArray,
    /// Items as of [`header_item`]. `None`: nobody asked for them, or nobody knows them any more.
    pub headers: Option<ListArray>,
    /// The offset after all of this: that of the last message plus one, or beyond, where only markers follow.
    pub next: i64,
    /// Nothing followed when this was read. Such a one may be without messages.
    pub at_end: bool,
}

impl Messages {
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Some of them, as if they had been fetched alone.
    pub fn slice(&self, from: usize, count: usize) -> Messages {
        let offsets = self.offsets.slice(from, count);
        let next = offsets.values().last().map_or(self.next, |last| last + 1);
        Messages {
            part: self.part,
            offsets,
            timestamps: self.timestamps.slice(from, count),
            keys: self.keys.slice(from, count),
            payloads: self.payloads.slice(from, count),
            headers: self.headers.as_ref().map(|headers| headers.slice(from, count)),
            next,
            at_end: false,
        }
    }

    /// Bytes of keys and payloads, and of headers if they are there.
    pub fn bytes(&self) -> u64 {
        let of = |array: &BinaryArray| {
            let offsets = array.value_offsets();
            let ends = offsets.first().zip(offsets.last());
            ends.map_or(0, |(first, last)| u64::try_from(last - first).unwrap_or(0))
        };
        of(&self.keys) + of(&self.payloads) + self.headers.as_ref().map_or(0, header_bytes)
    }
}

/// The column of a log that stands for the headers of a message.
pub const HEADERS: &str = "_headers";

/// A header among those of a message: a name, of which there may be several, and a value that may be NULL. A name that is NULL
/// is one that nobody can read as text.
pub fn header_item() -> FieldRef {
    Arc::new(Field::new("element", DataType::Struct(header_fields()), true))
}

/// What a header consists of.
pub fn header_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)].into()
}

fn header_bytes(headers: &ListArray) -> u64 {
    let offsets = headers.value_offsets();
    let Some((first, last)) = offsets.first().zip(offsets.last()) else { return 0 };
    let between = |offsets: &[i32]| {
        let at = |of: &i32| usize::try_from(*of).ok().and_then(|at| offsets.get(at)).copied().unwrap_or(0);
        u64::try_from(at(last) - at(first)).unwrap_or(0)
    };
    let items = headers.values().as_struct();
    between(items.column(0).as_string::<i32>().value_offsets())
        + between(items.column(1).as_binary::<i32>().value_offsets())
}

/// Rows of one part that are facts as they are, in the order of their offsets.
#[derive(Clone, Debug)]
pub struct FetchedRows {
    pub part: Part,
    /// All columns of the source's table.
    pub rows: RecordBatch,
    /// For each row its offset.
    pub offsets: Int64Array,
    /// As in [`Messages`].
    pub next: i64,
    /// They end a message. Rows of one message are in no order, so what they promise of time is said at its end.
    pub whole: bool,
    /// As in [`Messages`].
    pub at_end: bool,
}

/// What a log gives out.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// To be understood by a [`Decode`].
    Messages(Box<Messages>),
    Rows(FetchedRows),
}

impl From<Messages> for Fetched {
    fn from(messages: Messages) -> Self {
        Fetched::Messages(Box::new(messages))
    }
}

impl Fetched {
    /// `None`: they are rows.
    pub fn messages(self) -> Option<Messages> {
        match self {
            Fetched::Messages(messages) => Some(*messages),
            Fetched::Rows(_) => None,
        }
    }
}

/// The seam to a broker: one log of it.
#[async_trait]
pub trait Tail: Send + Sync {
    /// The log as the user named it, without secrets, for messages and for the table of rejected rows.
    fn location(&self) -> &str;

    /// The log as it is now. A log that is not there is an error that says so.
    async fn look(&self) -> Result<LogState>;

    /// For each part, the offset of the first message that was written at or after a time; the part's end if none was.
    async fn at_time(&self, time: EventTime) -> Result<BTreeMap<Part, i64>>;

    /// How long the log keeps messages by its own rules; `None`: for ever, or it does not tell.
    async fn keeps(&self) -> Result<Option<Span>> {
        Ok(None)
    }

    /// Begins to read these parts at these offsets. An offset that the log does not have is an error when it is read,
    /// [`crate::Error::Stopped`], that names part and offset.
    async fn read(&self, from: &BTreeMap<Part, i64>) -> Result<Box<dyn TailReader>>;

    /// Tells the broker how far the job is, so that its monitors see the lag. Nothing is ever read back from there.
    async fn report(&self, position: &TailPosition) -> Result<()>;
}

/// A log being read.
#[async_trait]
pub trait TailReader: Send {
    /// What comes next, of one or more parts; waits until there is something. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Vec<Fetched>>;

    /// Fetches nothing more of these parts until told otherwise; of all others again. What was fetched already may still
    /// come.
    async fn hold(&mut self, parts: &BTreeSet<Part>) -> Result<()>;

    /// Reads further parts as well.
    async fn add(&mut self, from: &BTreeMap<Part, i64>) -> Result<()>;
}

/// What messages of a format mean.
pub trait Decode: Send + Sync {
    /// The columns of the facts.
    fn schema(&self) -> SchemaRef;

    /// The facts of some messages. One that cannot be read is among the malformed ones and fails nothing else; an error is
    /// for what concerns all messages, such as a registry that does not answer.
    fn decode(&self, messages: &Messages) -> Result<Decoded>;
}

/// The facts of some messages.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// In the order of the messages, in [`Decode::schema`].
    pub rows: RecordBatch,
    /// For each row the offset of its message.
    pub offsets: Int64Array,
    /// Messages that no fact could be made of, by their index, and why.
    pub malformed: Vec<(usize, String)>,
}

/// The facts of some messages of one part, as a step reads them.
#[derive(Clone, Debug)]
pub struct LogRows {
    pub part: Part,
    /// Text that names log and part, for the table of rejected rows.
    pub origin: std::sync::Arc<str>,
    /// All columns of the source's table.
    pub rows: RecordBatch,
    /// For each row the offset of its message.
    pub offsets: Int64Array,
}

/// Messages of one part that no fact could be made of. All lists are as long.
#[derive(Clone, Debug, Default)]
pub struct Malformed {
    pub part: Part,
    pub offsets: Vec<i64>,
    /// When each was written, in milliseconds since 1970.
    pub timestamps: Vec<Option<i64>>,
    pub keys: Vec<Option<Vec<u8>>>,
    pub payloads: Vec<Option<Vec<u8>>>,
    /// As in [`Messages`].
    pub headers: Option<ListArray>,
    /// What is wrong with each.
    pub errors: Vec<String>,
}

impl Malformed {
    /// Those of some messages, by index, with the reason.
    pub fn of(messages: &Messages, malformed: &[(usize, String)]) -> Result<Self> {
        let mut found = Malformed { part: messages.part, ..Malformed::default() };
        for (index, error) in malformed {
            let bytes = |of: &BinaryArray| of.is_valid(*index).then(|| of.value(*index).to_vec());
            let time = messages.timestamps.is_valid(*index).then(|| messages.timestamps.value(*index));
            found.offsets.push(messages.offsets.value(*index));
            found.timestamps.push(time);
            found.keys.push(bytes(&messages.keys));
            found.payloads.push(bytes(&messages.payloads));
            found.errors.push(error.clone());
        }
        if let Some(headers) = messages.headers.as_ref().filter(|_| !malformed.is_empty()) {
            let which = UInt64Array::from_iter_values(malformed.iter().map(|(index, _)| *index as u64));
            let some = take(headers, &which, None).map_err(|e| Error::bug(format!("headers of messages: {e}")))?;
            found.headers = Some(some.as_list().clone());
        }
        Ok(found)
    }
}

/// Where a source without a recorded position begins in its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message there is: the log is the history.
    #[default]
    Earliest,
    /// Behind the newest.
    Latest,
    /// At the first message that was written at or after a time.
    At(EventTime),
    /// At these offsets; parts that are not named at their oldest message.
    Offsets(BTreeMap<Part, i64>),
}
