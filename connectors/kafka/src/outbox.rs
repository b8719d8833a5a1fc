//! Messages on their way to a topic, and what became of them.
//!
//! librdkafka sends in the background and tells of each message whether it was acknowledged; [`Deliveries`] counts for whoever
//! sent it. What passes by itself it tries again, in order and without doubling, for as long as `message.timeout.ms` says.
//!
//! Invariant: when [`Outbox::flush`] returns without an error, every message of these deliveries is acknowledged by all replicas
//! in sync.
//!
//! All of this may wait: call it where waiting is allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray, BinaryArray};
use arrow::record_batch::RecordBatch;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode as Code;
use watershed_core::{Error, Result};

use crate::events::Events;
use crate::location::Location;
use crate::options::Options;
use crate::trouble::undelivered;

/// How long the queue is left alone when it is full, and how long one look at it lasts when it is to be emptied.
const FULL: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_secs(1);

/// A producer of one topic.
pub(crate) struct Outbox {
    location: Location,
    pub(crate) producer: BaseProducer<Events>,
}

impl Outbox {
    /// With transactions, if they have a name; nothing is asked of the brokers yet.
    pub(crate) fn new(location: &Location, options: &Options, transactions: Option<&str>) -> Result<Outbox> {
        let producer = options.producing(transactions).create_with_context(Events::new(location));
        Ok(Outbox { location: location.clone(), producer: producer.map_err(|e| options.refused(&e))? })
    }

    /// Sends messages; waits while the queue is full.
    pub(crate) fn send(&self, messages: &Messages, deliveries: &Arc<Deliveries>) -> Result<(), Lost> {
        let Messages { keys, payloads } = messages;
        for row in 0..keys.len() {
            let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.location.topic, Arc::clone(deliveries));
            record.key = keys.is_valid(row).then(|| keys.value(row));
            record.payload = payloads.is_valid(row).then(|| payloads.value(row));
            deliveries.open.fetch_add(1, Ordering::SeqCst);
            while let Err((e, unsent)) = self.producer.send(record) {
                let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
                let full = code == Code::QueueFull && self.producer.in_flight_count() > 0;
                if !full || deliveries.lost().is_some() {
                    deliveries.open.fetch_sub(1, Ordering::SeqCst);
                    // That one was lost before says more than that this one is not taken; a queue that is empty and full is too
                    // small for it.
                    let bytes = keys.value(row).len() + payloads.value(row).len();
                    let code = if code == Code::QueueFull { Code::MessageSizeTooLarge } else { code };
                    return Err(deliveries.lost().unwrap_or(Lost { code, bytes }));
                }
                self.producer.poll(FULL);
                record = unsent;
            }
        }
        self.producer.poll(Duration::ZERO);
        deliveries.check()
    }

    /// Waits until all of these are acknowledged.
    pub(crate) fn flush(&self, deliveries: &Deliveries) -> Result<(), Lost> {
        while deliveries.open.load(Ordering::SeqCst) > 0 && deliveries.lost().is_none() {
            match self.producer.flush(LOOK) {
                Ok(()) | Err(KafkaError::Flush(Code::OperationTimedOut)) => self.producer.poll(Duration::ZERO),
                Err(e) => return Err(Lost { code: e.rdkafka_error_code().unwrap_or(Code::Unknown), bytes: 0 }),
            }
        }
        deliveries.check()
    }

    pub(crate) fn error(&self, Lost { code, bytes }: Lost) -> Error {
        undelivered(&self.location, code, bytes)
    }
}

/// Messages, as core has them.
pub(crate) struct Messages {
    keys: BinaryArray,
    payloads: BinaryArray,
}

impl Messages {
    pub(crate) fn of(rows: &RecordBatch) -> Result<Messages> {
        let column = |i: usize| -> Result<BinaryArray> {
            let column = rows.columns().get(i).and_then(|column| column.as_binary_opt());
            column.cloned().ok_or_else(|| Error::bug("messages are not two columns of bytes"))
        };
        Ok(Messages { keys: column(0)?, payloads: column(1)? })
    }
}

/// What became of some messages.
#[derive(Default)]
pub(crate) struct Deliveries {
    open: AtomicU64,
    lost: Mutex<Option<Lost>>,
}

/// The first message that was not delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) code: Code,
    pub(crate) bytes: usize,
}

impl Deliveries {
    pub(crate) fn lost(&self) -> Option<Lost> {
        *self.guard()
    }

    fn check(&self) -> Result<(), Lost> {
        self.lost().map_or(Ok(()), Err)
    }

    fn guard(&self) -> MutexGuard<'_, Option<Lost>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProducerContext for Events {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Arc<Deliveries>) {
        if let Err((e, message)) = result {
            let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
            let bytes = message.payload_len() + message.key_len();
            deliveries.guard().get_or_insert(Lost { code, bytes });
        }
        deliveries.open.fetch_sub(1, Ordering::SeqCst);
    }
}
