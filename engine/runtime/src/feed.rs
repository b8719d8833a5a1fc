//! A log being read: fetched and decoded ahead by a task of its own, taken chunk by chunk by the steps.
//!
//! ```text
//!  Tail ─ messages ─▶ decode, some at a time ─ chunks, in order ─▶ queues, one a part ─ take ─▶ step
//!     └── rows ─────────────────────────────────▲
//! ```
//!
//! A chunk knows the earliest and latest event time of its rows, so a step's watermark is known before the step is run, as
//! it is over history. Which part's chunk is taken next, and what the log then promises, is decided in `core::log`.
//!
//! Rows of one message, a version of a table, are in no order: none of them promises anything before the last is taken.
//!
//! Invariant: memory is bounded by what a part may have queued and by what is being decoded: a part that is read faster
//! than it is taken is held, and when nothing is taken at all, nothing is fetched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use watershed_core::log::{self, Lag, PartStanding};
use watershed_core::tail::{
    Fetched, FetchedRows, LogRows, LogState, Malformed, Messages, Part, PartPosition, TailPosition, TailReader,
};
use watershed_core::{Error, EventTime, Result};

use crate::job::{OnError, TailInput};
use crate::overlap::KnownFacts;

/// Chunks that wait between the task and the queues, and that are being decoded.
const AHEAD: usize = 4;

/// Bytes of messages that all parts may have queued before they are held; each an equal share, but at least and at most so
/// much. A held part is let go at a quarter of it.
const QUEUE: u64 = 32 << 20;
const SHARE: (u64, u64) = (256 << 10, 8 << 20);

/// How often the log is looked at for new parts, and for its ends.
const LOOK: Duration = Duration::from_secs(5);

/// Messages of a part after which those before them count half in what a message holds.
const LATELY: u64 = 1 << 16;

/// Between two steps a part gets no more idle than this: its source may have waited for others.
const MOST_IDLE: Duration = Duration::from_secs(1);

/// A log that is being read.
pub(crate) struct Feed {
    input: TailInput,
    chunks: mpsc::Receiver<Result<Chunk>>,
    commands: mpsc::UnboundedSender<Command>,
    parts: BTreeMap<Part, PartState>,
    held: BTreeSet<Part>,
    id: Option<String>,
    /// What was promised before the log was read.
    floor: EventTime,
    /// Facts that the history has already, while there may be some.
    known: Option<KnownFacts>,
    /// The log as it was last looked at.
    log: Arc<Mutex<LogState>>,
    /// When it was last asked for rows.
    polled: Option<Duration>,
    _pump: SpawnedTask<()>,
    _look: SpawnedTask<()>,
}

#[derive(Debug)]
struct PartState {
    position: PartPosition,
    /// The latest event time taken of a message of which more is to come.
    within: Option<EventTime>,
    queue: VecDeque<Chunk>,
    at_end: bool,
    /// For how long it has been at its end while rows were asked for.
    quiet: Duration,
    /// The part's end when the log was begun: a run until it is caught up ends there.
    target: i64,
    /// Messages taken lately, and their bytes.
    lately: (u64, u64),
}

/// The facts of some messages of one part.
#[derive(Debug)]
struct Chunk {
    part: Part,
    next: i64,
    /// It ends a message.
    whole: bool,
    at_end: bool,
    rows: LogRows,
    /// The earliest and latest event time.
    times: Option<(EventTime, EventTime)>,
    /// Rows without an event time.
    timeless: bool,
    /// How many messages there were, and their bytes.
    messages: u64,
    bytes: u64,
    malformed: Malformed,
}

enum Command {
    Hold(BTreeSet<Part>),
    Add(BTreeMap<Part, i64>),
}

/// What a step takes of a log.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) rows: Vec<LogRows>,
    pub(crate) malformed: Vec<Malformed>,
    pub(crate) bytes: u64,
    /// The earliest and latest event time among the rows.
    pub(crate) times: Option<(EventTime, EventTime)>,
    pub(crate) timeless: bool,
    /// Facts that the history has already: there is more behind them, and how far they go is to be on record.
    passed: bool,
}

impl Taken {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.malformed.is_empty() && !self.passed
    }
}

impl Feed {
    /// Begins to read at a position of a log which looks so.
    pub(crate) async fn open(
        input: &TailInput,
        position: TailPosition,
        log: LogState,
        floor: EventTime,
        known: Option<KnownFacts>,
    ) -> Result<Feed> {
        let from: BTreeMap<Part, i64> = position.parts.iter().map(|(part, at)| (*part, at.next)).collect();
        let reader = input.tail.read(&from).await?;
        let part = |(part, position): (Part, PartPosition)| {
            let target = log.parts.get(&part).map_or(0, |has| has.end);
            let at_end = position.next >= target;
            (part, PartState { at_end, target, ..PartState::at(position) })
        };
        let parts = position.parts.into_iter().map(part).collect();
        let (send_chunks, chunks) = mpsc::channel(AHEAD);
        let (commands, receive_commands) = mpsc::unbounded_channel();
        let pump = SpawnedTask::spawn(pump(input.clone(), reader, receive_commands, send_chunks));
        let id = log.id.clone();
        let parts_known: BTreeSet<Part> = log.parts.keys().copied().collect();
        let log = Arc::new(Mutex::new(log));
        let look = SpawnedTask::spawn(look(input.clone(), Arc::clone(&log), parts_known, commands.clone()));
        Ok(Feed {
            input: input.clone(),
            chunks,
            commands,
            parts,
            held: BTreeSet::new(),
            id,
            floor,
            known,
            log,
            polled: None,
            _pump: pump,
            _look: look,
        })
    }

    pub(crate) fn position(&self) -> TailPosition {
        let parts = self.parts.iter().map(|(part, state)| (*part, state.position)).collect();
        let overlap = self.known.as_ref().map(|known| known.overlap);
        TailPosition { id: self.id.clone(), parts, overlap }
    }

    /// No unread fact is earlier, but for the declared delay.
    pub(crate) fn promise(&self) -> EventTime {
        log::promise(&self.standings(), self.floor)
    }

    /// Nothing is left of what the log had when it was begun to be read, or has now.
    pub(crate) fn caught_up(&self) -> bool {
        self.parts.values().all(|p| p.queue.is_empty() && (p.at_end || p.position.next >= p.target))
    }

    /// The latest event time taken.
    pub(crate) fn newest(&self) -> Option<EventTime> {
        self.parts.values().filter_map(|part| part.position.newest).max()
    }

    /// What the log has and was not taken, as far as known.
    pub(crate) fn lag(&self) -> Lag {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log::lag(&self.position().parts, &log)
    }

    /// Ready when something has come, which the next [`Feed::take`] may give out.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let chunk = self.chunks.recv().await;
        self.accept(chunk.ok_or_else(ended)??);
        Ok(())
    }

    /// Takes what has come, up to so many bytes of messages; `ahead` is the latest event time that counts.
    pub(crate) fn take(&mut self, most: u64, now: Duration, ahead: EventTime) -> Result<Taken> {
        let waited = self.polled.map_or(Duration::ZERO, |before| now.saturating_sub(before)).min(MOST_IDLE);
        self.polled = Some(now);
        self.drain()?;
        for part in self.parts.values_mut() {
            let quiet = part.at_end && part.queue.is_empty();
            part.quiet = if quiet { part.quiet + waited } else { Duration::ZERO };
        }
        let mut taken = Taken::default();
        while taken.bytes < most {
            let standings = self.standings();
            let Some(part) = log::next_part(&standings).and_then(|i| self.parts.values_mut().nth(i)) else { break };
            let Some(chunk) = part.queue.pop_front() else { break };
            part.within = part.within.max(newest(&chunk, self.input.time, ahead)?);
            part.pass(&chunk);
            part.took(chunk.messages, chunk.bytes);
            taken.bytes += chunk.bytes;
            taken.timeless |= chunk.timeless;
            taken.times = match (taken.times, chunk.times) {
                (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                (a, b) => a.or(b),
            };
            let of_chunk = chunk.rows.rows.num_rows();
            let rows = match &mut self.known {
                Some(known) => known.unknown(chunk.rows)?,
                None => chunk.rows,
            };
            taken.passed |= rows.rows.num_rows() < of_chunk;
            if rows.rows.num_rows() > 0 {
                taken.rows.push(rows);
            }
            if !chunk.malformed.offsets.is_empty() {
                taken.malformed.push(chunk.malformed);
            }
        }
        self.hold();
        let promise = self.promise();
        if let Some(known) = self.known.take_if(|known| known.is_over(promise)) {
            let (log, passed) = (self.input.tail.location(), known.passed);
            tracing::info!(log, passed, "the log is past what the history has; facts of both were passed over");
        }
        Ok(taken)
    }

    fn drain(&mut self) -> Result<()> {
        loop {
            match self.chunks.try_recv() {
                Ok(chunk) => self.accept(chunk?),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(ended()),
            }
        }
    }

    fn accept(&mut self, chunk: Chunk) {
        let part = self.parts.entry(chunk.part).or_insert_with(|| PartState::at(PartPosition::at(chunk.next)));
        part.at_end = chunk.at_end;
        if chunk.rows.rows.num_rows() == 0 && chunk.malformed.offsets.is_empty() && part.queue.is_empty() {
            // Markers only: there is nothing to take, but the place has moved.
            part.pass(&chunk);
        } else {
            part.queue.push_back(chunk);
        }
    }

    /// Holds the parts that have enough queued, and lets the others go.
    fn hold(&mut self) {
        let share = (QUEUE / self.parts.len().max(1) as u64).clamp(SHARE.0, SHARE.1);
        let bytes = |p: &PartState| p.queue.iter().map(|c| c.bytes).sum::<u64>();
        let is_full = |(part, state): &(&Part, &PartState)| {
            bytes(state) > if self.held.contains(part) { share / 4 } else { share }
        };
        let held: BTreeSet<Part> = self.parts.iter().filter(is_full).map(|(part, _)| *part).collect();
        if held != self.held {
            // A task that is gone has said why, through the chunks.
            let _ = self.commands.send(Command::Hold(held.clone()));
            self.held = held;
        }
    }

    fn standings(&self) -> Vec<PartStanding> {
        let idle = Duration::from_micros(self.input.idle.0.max(0) as u64);
        let standing = |p: &PartState| PartStanding {
            newest: p.position.newest,
            // Rows without a time, and what is malformed, wait for nothing.
            head: p.queue.front().map(|c| c.times.map_or(EventTime::MIN, |(min, _)| min)),
            at_end: p.at_end,
            idle: p.quiet >= idle,
        };
        self.parts.values().map(standing).collect()
    }
}

impl PartState {
    fn at(position: PartPosition) -> Self {
        // What is known from before counts little beside what is read now.
        let lately = position.message_bytes.map_or((0, 0), |bytes| (1, bytes));
        let (queue, quiet) = (VecDeque::new(), Duration::ZERO);
        PartState { position, within: None, queue, at_end: false, quiet, target: 0, lately }
    }

    /// Stands behind a chunk whose times were noted.
    fn pass(&mut self, chunk: &Chunk) {
        self.position.next = self.position.next.max(chunk.next);
        if chunk.whole {
            self.position.newest = self.position.newest.max(self.within.take());
        }
    }

    /// Learns what messages hold.
    fn took(&mut self, messages: u64, bytes: u64) {
        let (before, bytes_before) = self.lately;
        self.lately = (before + messages, bytes_before + bytes);
        if self.lately.0 > LATELY {
            self.lately = (self.lately.0 / 2, self.lately.1 / 2);
        }
        self.position.message_bytes = self.lately.1.checked_div(self.lately.0);
    }
}

fn ended() -> Error {
    Error::bug("the task that reads a log has ended")
}

/// The latest event time of a chunk that counts.
fn newest(chunk: &Chunk, time: usize, ahead: EventTime) -> Result<Option<EventTime>> {
    match chunk.times {
        Some((_, latest)) if latest > ahead => {
            let times = micros(chunk.rows.rows.column(time))?;
            let times = times.as_primitive::<TimestampMicrosecondType>();
            Ok(times.iter().flatten().filter(|t| *t <= ahead.0).max().map(EventTime))
        }
        times => Ok(times.map(|(_, latest)| latest)),
    }
}

pub(crate) fn micros(column: &ArrayRef) -> Result<ArrayRef> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => return Err(Error::bug(format!("the event time of a log is {other}"))),
    };
    cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone)).map_err(|e| Error::bug(e.to_string()))
}

/// Reads, decodes and hands on, until nobody wants more or something fails.
async fn pump(
    input: TailInput,
    mut reader: Box<dyn TailReader>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    chunks: mpsc::Sender<Result<Chunk>>,
) {
    let mut decoding = FuturesOrdered::new();
    let failure = loop {
        tokio::select! {
            command = commands.recv() => {
                let done = match command {
                    None => return,
                    Some(Command::Hold(parts)) => reader.hold(&parts).await,
                    Some(Command::Add(parts)) => reader.add(&parts).await,
                };
                if let Err(e) = done {
                    break e;
                }
            }
            Some(chunk) = decoding.next(), if !decoding.is_empty() => {
                let chunk: Result<Result<Chunk>, _> = chunk;
                let chunk = chunk.unwrap_or_else(|e| Err(Error::bug(format!("decoding ended early: {e}"))));
                let failed = chunk.is_err();
                if chunks.send(chunk).await.is_err() || failed {
                    return;
                }
            }
            messages = reader.next(), if decoding.len() < AHEAD => match messages {
                Ok(fetched) => {
                    for fetched in fetched {
                        let input = input.clone();
                        decoding.push_back(tokio::task::spawn_blocking(move || chunk(&input, fetched)));
                    }
                }
                Err(e) => break e,
            },
        }
    };
    // What was read before counts.
    while let Some(chunk) = decoding.next().await {
        let Ok(Ok(chunk)) = chunk else { break };
        if chunks.send(Ok(chunk)).await.is_err() {
            return;
        }
    }
    let _ = chunks.send(Err(failure)).await;
}

/// Looks at the log from time to time: its ends tell the lag, and parts that came are read from their first message on.
async fn look(
    input: TailInput,
    log: Arc<Mutex<LogState>>,
    mut known: BTreeSet<Part>,
    commands: mpsc::UnboundedSender<Command>,
) {
    loop {
        tokio::time::sleep(LOOK).await;
        match input.tail.look().await {
            Ok(state) => {
                let fresh: BTreeMap<Part, i64> = state
                    .parts
                    .iter()
                    .filter(|(part, _)| known.insert(**part))
                    .map(|(p, has)| (*p, has.start))
                    .collect();
                *log.lock().unwrap_or_else(PoisonError::into_inner) = state;
                if !fresh.is_empty() {
                    tracing::info!(log = input.tail.location(), parts = ?fresh.keys(), "the log has new parts");
                    if commands.send(Command::Add(fresh)).is_err() {
                        return;
                    }
                }
            }
            // Whether it can be read is for the reader to say.
            Err(e) => tracing::warn!(log = input.tail.location(), "the log cannot be looked at: {e}"),
        }
    }
}

fn chunk(input: &TailInput, fetched: Fetched) -> Result<Chunk> {
    match fetched {
        Fetched::Messages(messages) => decoded(input, &messages),
        Fetched::Rows(rows) => {
            let FetchedRows { part, rows, offsets, next, whole, at_end } = rows;
            let bytes = u64::try_from(rows.get_array_memory_size()).unwrap_or(u64::MAX);
            let rows = LogRows { part, origin: Arc::clone(&input.origin), rows, offsets };
            Ok(Chunk { next, whole, at_end, messages: whole.into(), bytes, ..Chunk::of(input, rows)? })
        }
    }
}

fn decoded(input: &TailInput, messages: &Messages) -> Result<Chunk> {
    let decode = input.decode.as_ref();
    let decode = decode.ok_or_else(|| Error::bug(format!("messages of {} are not read", input.tail.location())))?;
    let decoded = decode.decode(messages)?;
    if let (OnError::Fail, Some((index, why))) = (input.on_error, decoded.malformed.first()) {
        return Err(Error::stopped(format!(
            "{}: the message at offset {} of part {} cannot be read: {why}; to go on without such messages, set on_error = \
             'table', which keeps them beside the result, or 'skip'",
            input.tail.location(),
            messages.offsets.value(*index),
            messages.part
        )));
    }
    let rows = LogRows {
        part: messages.part,
        origin: Arc::clone(&input.origin),
        rows: decoded.rows,
        offsets: decoded.offsets,
    };
    Ok(Chunk {
        next: messages.next,
        at_end: messages.at_end,
        messages: messages.len() as u64,
        bytes: messages.bytes(),
        malformed: Malformed::of(messages, &decoded.malformed)?,
        ..Chunk::of(input, rows)?
    })
}

impl Chunk {
    /// Rows of whole messages, with nothing known of what is around them.
    fn of(input: &TailInput, rows: LogRows) -> Result<Chunk> {
        let times = micros(rows.rows.column(input.time))?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        Ok(Chunk {
            part: rows.part,
            next: 0,
            whole: true,
            at_end: false,
            times: min(times).zip(max(times)).map(|(a, b)| (EventTime(a), EventTime(b))),
            timeless: times.null_count() > 0,
            messages: 0,
            bytes: 0,
            malformed: Malformed::default(),
            rows,
        })
    }
}
