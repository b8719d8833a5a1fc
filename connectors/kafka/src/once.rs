//! An epoch's transaction, and how it is found out whether it is there.
//!
//! ```text
//!  init ─▶ the group's offset ─core::decide_commit─▶ begin ─▶ messages ─▶ offset := epoch ─▶ commit
//!   ▲                                                                                          │
//!   └──────────────────────────── unknown is not failed: again, from the start ◀───────────────┘
//! ```
//!
//! Transactions and the group have one name, made of the job's incarnation. Whoever calls `init` last is the only one whose
//! transactions can be committed from then on, and has every earlier one ended; so an offset that is read behind it is the
//! snapshot that the transaction is committed on.
//!
//! Invariant: the group's offset is the number of the last epoch whose messages are in the topic. It moves in the transaction
//! that has these messages, or not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::spawn_blocking;
use watershed_core::epoch::{CommitDecision, decide_commit};
use watershed_core::sink::{CommitIdentity, Committed, WrittenFile};
use watershed_core::{Error, Result};

use crate::events::{Events, serve};
use crate::location::Location;
use crate::options::Options;
use crate::outbox::{Deliveries, Lost, Messages, Outbox};
use crate::staged::Staging;
use crate::trouble::{Trouble, trouble, undelivered};

/// How long one call waits, and how often it is made when it may be made again.
const PATIENCE: Duration = Duration::from_secs(10);
const CALLS: usize = 12;

/// How long a transaction of whoever ran before may take to end by itself, before it is ended.
const BRIEFLY: Duration = Duration::from_secs(1);

/// How often a transaction is tried, and the first pause between two.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The topic's partition on which the group has its offset.
const PARTITION: i32 = 0;

/// The transactions of one sink.
pub(crate) struct Once {
    location: Location,
    options: Options,
    job: String,
    name: String,
    group: BaseConsumer<Events>,
    /// From `init` on.
    outbox: Mutex<Option<Arc<Outbox>>>,
}

/// Why a transaction was not committed, as far as is known.
enum Failure {
    /// Another began one by the same name.
    Fenced,
    /// It would fail again.
    ForGood(Error),
    /// It may do better, or have been committed after all.
    Passes(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        match e {
            Error::Storage { .. } => Failure::Passes(e),
            other => Failure::ForGood(other),
        }
    }
}

impl Once {
    pub(crate) fn new(location: &Location, options: &Options, job: &str, application: &str) -> Result<Once> {
        let name = application.replace('/', "-");
        let group = options.group(&name).create_with_context(Events::new(location));
        Ok(Once {
            location: location.clone(),
            options: options.clone(),
            job: job.to_string(),
            name,
            group: group.map_err(|e| options.refused(&e))?,
            outbox: Mutex::default(),
        })
    }

    /// The last epoch that the topic has.
    pub(crate) async fn last(self: &Arc<Self>) -> Result<Option<u64>> {
        let once = Arc::clone(self);
        let found = waiting(move || {
            let found = once.committed(BRIEFLY);
            match found.as_ref().map_err(KafkaError::rdkafka_error_code) {
                // One who was killed left a transaction open.
                Err(Some(Code::OperationTimedOut | Code::UnstableOffsetCommit)) => once.begin().map(|(_, found)| found),
                _ => found.map_err(|e| once.failure(&e)),
            }
        });
        found.await?.map_err(|failure| self.error(failure))
    }

    /// Commits staged messages, unless the topic has them.
    pub(crate) async fn commit(
        self: &Arc<Self>,
        identity: &CommitIdentity,
        staging: &Staging,
        files: &[WrittenFile],
    ) -> Result<Committed> {
        let mut tries = 0;
        loop {
            match self.attempt(identity, staging, files).await {
                Ok(committed) => return Ok(committed),
                Err(Failure::Passes(e)) if tries < TRIES => {
                    tries += 1;
                    tracing::warn!(job = self.job, epoch = identity.epoch, "a transaction is tried again: {e}");
                    tokio::time::sleep(PAUSE * tries).await;
                }
                Err(Failure::Fenced) => {
                    // Perhaps not before it was committed.
                    let once = Arc::clone(self);
                    return match waiting(move || once.committed(PATIENCE)).await? {
                        Ok(Some(found)) if found >= identity.epoch => Ok(Committed::Before),
                        _ => Err(self.error(Failure::Fenced)),
                    };
                }
                Err(failure) => return Err(self.error(failure)),
            }
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        identity: &CommitIdentity,
        staging: &Staging,
        files: &[WrittenFile],
    ) -> Result<Committed, Failure> {
        let once = Arc::clone(self);
        let (outbox, found) = waiting(move || once.begin()).await??;
        match decide_commit(identity.epoch, identity.after, found) {
            CommitDecision::Done => return Ok(Committed::Before),
            CommitDecision::Commit => {}
            CommitDecision::Stop(why) => {
                return Err(Failure::ForGood(Error::stopped(format!(
                    "`{}`: {why}; that is recorded as the offset of group {}: was the topic made anew, or is \
                     offsets.retention.minutes of the brokers shorter than the sink rested? Make it anew with CREATE OR REPLACE \
                     SINK",
                    self.location.text, self.name
                ))));
            }
        }
        let ended = self.transaction(&outbox, identity.epoch, staging, files).await;
        let Err(failure) = ended else { return Ok(Committed::Now { version: identity.epoch }) };
        let once = Arc::clone(self);
        waiting(move || once.give_up(outbox, failure)).await?
    }

    async fn transaction(
        self: &Arc<Self>,
        outbox: &Arc<Outbox>,
        epoch: u64,
        staging: &Staging,
        files: &[WrittenFile],
    ) -> Result<(), Failure> {
        outbox.producer.begin_transaction().map_err(|e| self.failure(&e))?;
        let deliveries = Arc::new(Deliveries::default());
        for file in files {
            let mut staged = staging.read(file).await?;
            while let Some(rows) = staged.try_next().await? {
                let messages = Messages::of(&rows)?;
                let (outbox, deliveries) = (Arc::clone(outbox), Arc::clone(&deliveries));
                let sent = waiting(move || outbox.send(&messages, &deliveries)).await?;
                sent.map_err(|lost| self.lost(lost))?;
            }
        }
        let (once, outbox) = (Arc::clone(self), Arc::clone(outbox));
        waiting(move || once.complete(&outbox, epoch, &deliveries)).await?
    }

    /// Has the messages acknowledged, and commits them with the epoch.
    fn complete(&self, outbox: &Outbox, epoch: u64, deliveries: &Deliveries) -> Result<(), Failure> {
        outbox.flush(deliveries).map_err(|lost| self.lost(lost))?;
        let odd = |what: &str| Failure::ForGood(Error::bug(format!("{}: {what}", self.name)));
        let offset = i64::try_from(epoch).map_err(|_| odd("an epoch that is no offset"))?;
        let mut offsets = TopicPartitionList::new();
        let added = offsets.add_partition_offset(&self.location.topic, PARTITION, Offset::Offset(offset));
        added.map_err(|e| self.failure(&e))?;
        let group = self.group.group_metadata().ok_or_else(|| odd("a group without metadata"))?;
        let done = again(|| outbox.producer.send_offsets_to_transaction(&offsets, &group, PATIENCE))
            .and_then(|()| again(|| outbox.producer.commit_transaction(PATIENCE)));
        done.map_err(|e| self.failure(&e))
    }

    /// A producer that nobody fenced yet, and the epoch that the topic then had.
    fn begin(&self) -> Result<(Arc<Outbox>, Option<u64>), Failure> {
        let ready = self.guard().clone();
        let outbox = match ready {
            Some(outbox) => outbox,
            None => {
                let outbox = Outbox::new(&self.location, &self.options, Some(&self.name))?;
                again(|| outbox.producer.init_transactions(PATIENCE)).map_err(|e| self.failure(&e))?;
                Arc::clone(self.guard().insert(Arc::new(outbox)))
            }
        };
        let found = self.committed(PATIENCE).map_err(|e| self.failure(&e))?;
        Ok((outbox, found))
    }

    /// Ends a transaction that failed, and its producer: the next one begins anew.
    fn give_up(&self, outbox: Arc<Outbox>, failure: Failure) -> Result<Committed, Failure> {
        let fatal = outbox.producer.client().fatal_error();
        let failure = match fatal {
            Some((code, _)) if is_fenced(code) => Failure::Fenced,
            _ => failure,
        };
        if !matches!(failure, Failure::Fenced)
            && let Err(e) = outbox.producer.abort_transaction(PATIENCE)
        {
            tracing::debug!(job = self.job, "a transaction is left to end by itself: {e}");
        }
        *self.guard() = None;
        Err(failure)
    }

    /// The group's offset; waits for a transaction that is about to move it, and for brokers that are about to know who keeps it.
    fn committed(&self, patience: Duration) -> KafkaResult<Option<u64>> {
        let mut calls = 1;
        loop {
            let found = self.committed_now(patience);
            let code = found.as_ref().err().and_then(KafkaError::rdkafka_error_code);
            if calls == CALLS || !code.is_some_and(finds_coordinator) {
                return found;
            }
            calls += 1;
            std::thread::sleep(4 * PAUSE);
        }
    }

    fn committed_now(&self, patience: Duration) -> KafkaResult<Option<u64>> {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(&self.location.topic, PARTITION);
        let found = self.group.committed_offsets(wanted, patience);
        serve(&self.group);
        let found = found?;
        let elements = found.elements();
        let Some(found) = elements.first() else { return Ok(None) };
        found.error()?;
        Ok(match found.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        })
    }

    fn lost(&self, lost: Lost) -> Failure {
        match lost.code {
            code if is_fenced(code) => Failure::Fenced,
            code => undelivered(&self.location, code, lost.bytes).into(),
        }
    }

    fn failure(&self, e: &KafkaError) -> Failure {
        let code = e.rdkafka_error_code().unwrap_or(Code::Unknown);
        match code {
            code if is_fenced(code) => Failure::Fenced,
            Code::TransactionalIdAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::InvalidTransactionTimeout => Failure::ForGood(undelivered(&self.location, code, 0)),
            code if matches!(trouble(code), Trouble::Denied | Trouble::Gone) => {
                undelivered(&self.location, code, 0).into()
            }
            _ => Failure::Passes(Error::storage_unknown("could not commit to", &self.location.text, e.to_string())),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::ForGood(e) | Failure::Passes(e) => e,
            Failure::Fenced => Error::Fenced {
                job: self.job.clone(),
                message: format!(
                    "it began transactions {}; or this one's took longer than kafka.transaction.timeout.ms, and the brokers ended \
                     it: then run again",
                    self.name
                ),
            },
        }
    }

    fn guard(&self) -> MutexGuard<'_, Option<Arc<Outbox>>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// Whether the brokers are about to agree on who keeps a group.
fn finds_coordinator(code: Code) -> bool {
    matches!(code, Code::NotCoordinator | Code::CoordinatorNotAvailable | Code::CoordinatorLoadInProgress)
}

/// Calls until it is answered otherwise than that it should be called again.
fn again(call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let mut calls = 1;
    loop {
        let answer = call();
        let once_more = match &answer {
            Err(KafkaError::Transaction(e)) => e.is_retriable(),
            Err(KafkaError::Flush(code)) => *code == Code::OperationTimedOut,
            _ => false,
        };
        if !once_more || calls == CALLS {
            return answer;
        }
        calls += 1;
    }
}

/// Does what waits where that is allowed.
pub(crate) async fn waiting<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|e| Error::bug(format!("a thread that writes to Kafka ended: {e}")))
}
