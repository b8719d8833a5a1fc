//! The thread that takes messages from librdkafka and hands them on in batches.
//!
//! Each part has a queue of its own in librdkafka, set up before the part is assigned, so that errors and ends are known to be
//! of it, and a part that is held is simply not asked: what waits there stays, and librdkafka fetches no more once it is
//! enough. (Its own way to pause throws away what waits, and goes on at the last message that it thinks was taken.)
//!
//! A batch goes out when it is full, or when nothing waits any more and the other side has taken all before it. So batches
//! are small while the reader is quick, and grow when it is not. A reader that takes nothing stops the thread at the bounded
//! channel, and with it librdkafka at its bounds.
//!
//! An end is where the consumer stands when librdkafka tells of it: behind the markers of transactions, which count as taken.
//!
//! Invariant: nothing that was taken from librdkafka is dropped while there is a reader; and nothing is handed over of a topic
//! that was made anew meanwhile. librdkafka logs that before it asks the new one for messages, so the log is read after
//! messages were taken and before they are handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::mpsc::Sender;
use watershed_core::tail::{Messages, Part};
use watershed_core::{Error, Result};

use crate::ask::Asker;
use crate::events::{Client, Events, serve};
use crate::gather::Gather;
use crate::trouble::{Trouble, ended, gap, made_anew, reason, trouble, went_back};

/// Messages that are taken of a part before it is another one's turn.
const TURN: usize = 4096;

/// Bytes of unfinished batches, of all parts together, from which on all go out.
const GATHERED: usize = 16 << 20;

/// How long to sleep at most while nothing comes: how long a reader that is gone goes unnoticed.
const SLEEP: Duration = Duration::from_millis(50);

/// The same while something waits for the reader.
const GLANCE: Duration = Duration::from_millis(2);

/// What a reader tells its thread.
pub(crate) enum Order {
    Hold(BTreeSet<Part>),
    Add(BTreeMap<Part, i64>),
}

/// Why the thread ends.
pub(crate) enum End {
    /// Nobody reads any more.
    Left,
    Failed(Error),
}

impl From<Error> for End {
    fn from(e: Error) -> End {
        End::Failed(e)
    }
}

pub(crate) struct Fetch {
    // Dropped in this order: queues before the consumer that they are of.
    queues: Vec<Queue>,
    client: Arc<Client>,
    asker: Arc<Asker>,
    orders: Receiver<Order>,
    batches: Sender<Result<Vec<Messages>>>,
    with_headers: bool,
    troubled: bool,
}

struct Queue {
    source: PartitionQueue<Events>,
    held: bool,
    gather: Gather,
}

impl Fetch {
    pub(crate) fn new(
        client: Client,
        asker: Arc<Asker>,
        orders: Receiver<Order>,
        batches: Sender<Result<Vec<Messages>>>,
        with_headers: bool,
    ) -> Fetch {
        Fetch { queues: Vec::new(), client: Arc::new(client), asker, orders, batches, with_headers, troubled: false }
    }

    /// Runs until the reader is gone or reading has to end.
    pub(crate) fn run(mut self, from: &BTreeMap<Part, i64>) {
        let done = self.add(from).map_err(End::from).and_then(|()| self.fetch());
        let Err(End::Failed(e)) = done else { return };
        // What was read before it went wrong is good, unless it may be another topic's.
        if self.client.context().made_anew() || self.send(|_| true).is_ok() {
            let _ = self.batches.blocking_send(Err(e));
        }
    }

    fn fetch(&mut self) -> Result<(), End> {
        loop {
            self.obey()?;
            let mut dry = true;
            for at in 0..self.queues.len() {
                if !self.queues[at].held {
                    dry &= self.take(at)?;
                }
                if self.queues[at].gather.is_full() {
                    self.send(|gather| gather.is_full())?;
                }
            }
            if self.queues.iter().map(|queue| queue.gather.bytes()).sum::<usize>() >= GATHERED {
                self.send(|_| true)?;
            }
            if dry {
                self.rest()?;
            }
        }
    }

    fn obey(&mut self) -> Result<(), End> {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Hold(parts) => {
                    self.queues.iter_mut().for_each(|queue| queue.held = parts.contains(&queue.gather.part));
                }
                Order::Add(from) => self.add(&from)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, from: &BTreeMap<Part, i64>) -> Result<()> {
        let location = &self.asker.location;
        let failed = |e: KafkaError| Error::bug(format!("`{}`: partitions are not assigned: {e}", location.text));
        let mut assigned = TopicPartitionList::with_capacity(from.len());
        for (part, offset) in from {
            if self.queues.iter().any(|queue| queue.gather.part == *part) {
                return Err(Error::bug(format!("`{}` partition {part} is read already", location.text)));
            }
            let source = self.client.split_partition_queue(&location.topic, *part);
            let mut source = source.ok_or_else(|| Error::bug(format!("partition {part} has no queue")))?;
            let me = thread::current();
            source.set_nonempty_callback(move || me.unpark());
            self.queues.push(Queue { source, held: false, gather: Gather::new(*part, *offset, self.with_headers) });
            assigned.add_partition_offset(&location.topic, *part, Offset::Offset(*offset)).map_err(failed)?;
        }
        match from.is_empty() {
            true => Ok(()),
            false => self.client.incremental_assign(&assigned).map_err(failed),
        }
    }

    /// Takes what waits of a part, up to a turn or a full batch; whether nothing waits any more.
    fn take(&mut self, at: usize) -> Result<bool, End> {
        for _ in 0..TURN {
            let Queue { source, gather, .. } = &mut self.queues[at];
            match source.poll(Duration::ZERO) {
                None => return Ok(true),
                Some(Ok(message)) if !gather.take_in(&message) => {
                    let (next, came) = (gather.next, message.offset());
                    return Err(went_back(&self.asker.location, gather.part, next, came).into());
                }
                Some(Ok(_)) if gather.is_full() => return Ok(false),
                Some(Ok(_)) => {}
                Some(Err(KafkaError::PartitionEOF(_))) => gather.at_end = true,
                Some(Err(e)) => {
                    self.judge(at, &e)?;
                    continue;
                }
            }
            if std::mem::take(&mut self.troubled) {
                tracing::info!(location = self.asker.location.text, "messages of Kafka flow again");
            }
        }
        Ok(false)
    }

    /// Nothing waits: what was gathered goes out if the reader waits for it.
    fn rest(&mut self) -> Result<(), End> {
        if self.batches.is_closed() {
            return Err(End::Left);
        }
        let news = self.queues.iter().any(|queue| queue.gather.has_news());
        let waited_for = self.batches.capacity() == self.batches.max_capacity();
        if news && waited_for {
            return self.send(|_| true);
        }
        self.heed()?;
        // Woken by a queue that gets something, or by the reader.
        thread::park_timeout(if news { GLANCE } else { SLEEP });
        Ok(())
    }

    /// Hands over the batches of some parts. Waits for room; the reader's end is noticed there too.
    fn send(&mut self, which: impl Fn(&Gather) -> bool) -> Result<(), End> {
        self.heed()?;
        if self.queues.iter().any(|queue| queue.gather.at_end) {
            self.stand()?;
        }
        let chosen = self.queues.iter_mut().map(|queue| &mut queue.gather);
        let chosen = chosen.filter(|gather| gather.has_news() && which(gather));
        let batches = chosen.map(Gather::hand_over).collect::<Result<Vec<Messages>>>()?;
        match batches.is_empty() {
            true => Ok(()),
            false => self.batches.blocking_send(Ok(batches)).map_err(|_| End::Left),
        }
    }

    /// Moves the places of parts at their end behind what is no message.
    fn stand(&mut self) -> Result<()> {
        let failed = |e: KafkaError| Error::bug(format!("Kafka's consumer does not tell where it stands: {e}"));
        let stands = self.client.position().map_err(failed)?;
        let stands: BTreeMap<Part, Offset> =
            stands.elements().iter().map(|part| (part.partition(), part.offset())).collect();
        for queue in self.queues.iter_mut().filter(|queue| queue.gather.at_end) {
            // Where nothing was taken since it was assigned, it does not stand anywhere yet.
            if let Some(Offset::Offset(stands)) = stands.get(&queue.gather.part) {
                queue.gather.next = queue.gather.next.max(*stands);
            }
        }
        Ok(())
    }

    /// Heeds what librdkafka has to tell that is not of one part.
    fn heed(&mut self) -> Result<(), End> {
        let error = serve(&self.client);
        if self.client.context().made_anew() {
            return Err(made_anew(&self.asker.location).into());
        }
        match error {
            Some(KafkaError::MessageConsumptionFatal(code)) => {
                let said = self.said(code);
                Err(Error::storage("cannot go on reading", &self.asker.location.text, said).into())
            }
            // The group that parts are assigned in the name of need not be permitted: nothing is asked of it.
            Some(KafkaError::MessageConsumption(code)) if code != Code::GroupAuthorizationFailed => {
                self.warn(code);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An error of a part.
    fn judge(&mut self, at: usize, e: &KafkaError) -> Result<(), End> {
        let location = &self.asker.location;
        let Gather { part, next, .. } = self.queues[at].gather;
        let code = e.rdkafka_error_code().unwrap_or(Code::Fail);
        match trouble(code) {
            Trouble::Passes => {
                self.warn(code);
                Ok(())
            }
            Trouble::Gap => {
                let now = self.asker.look();
                let told = now.as_ref().ok().and_then(|now| gap(location, part, next, now.parts.get(&part)));
                // Where it seems to be there after all, or nobody answers, what librdkafka said has to do.
                Err(told.unwrap_or_else(|| ended(location, part, code, &self.said(code))).into())
            }
            _ => Err(ended(location, part, code, &self.said(code)).into()),
        }
    }

    /// What librdkafka said of an error that it just told.
    fn said(&self, code: Code) -> String {
        let said = self.client.context().take_trouble().map(|(_, said)| said).unwrap_or_default();
        self.asker.options.clean(&reason(code, &said))
    }

    fn warn(&mut self, code: Code) {
        let said = self.said(code);
        if !std::mem::replace(&mut self.troubled, true) {
            let location = &self.asker.location.text;
            tracing::warn!(location, "Kafka is not reached, which is tried again for as long as it takes: {said}");
        }
    }
}
