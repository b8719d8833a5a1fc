//! A topic as the result of a job.
//!
//! Rows come as core's [`message_schema`](watershed_core::sink::message_schema) and lie in the partitions where Java's producers
//! would put them by their keys; those without a key are spread.
//!
//! | delivery | when a message is in the topic | after a crash |
//! |---|---|---|
//! | at least once | as soon as it is written; an epoch ends when all are acknowledged | what no manifest has is written again |
//! | exactly once | with its epoch's commit, in one transaction | the epoch is in the topic, or is committed then |
//!
//! Invariant: an epoch that a manifest names is in the topic (at least once), or in a staged file that the manifest names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use watershed_core::sink::{CommitIdentity, Committed, EpochWriter, LastCommit, PreparedCommit, Sink};
use watershed_core::{Error, Result};

use crate::ask::Asker;
use crate::location::Location;
use crate::once::{Once, waiting};
use crate::options::Options;
use crate::outbox::{Deliveries, Messages, Outbox};
use crate::staged::Staging;

/// What a topic has of each row after a crash.
#[derive(Clone)]
pub enum Delivery {
    AtLeastOnce,
    /// By transactions, from staged files.
    ExactlyOnce(Staging),
}

/// A topic that a job writes to.
pub struct KafkaSink {
    name: String,
    job: String,
    location: Location,
    options: Options,
    delivery: Delivery,
    /// At least once: made with the first writer.
    outbox: Mutex<Option<Arc<Outbox>>>,
    /// Exactly once: made when it is known by what name.
    once: Mutex<Option<Arc<Once>>>,
}

impl KafkaSink {
    /// The topic at a location, `kafka://broker:9092,broker2:9092/topic`, with properties of librdkafka such as
    /// `compression.type` and `sasl.password`. `name` is the sink's in its job, for [`Sink::name`].
    ///
    /// Nothing is asked of the brokers yet; properties that librdkafka does not take are an error.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use watershed_core::sink::Sink;
    /// use watershed_kafka::{Delivery, KafkaSink};
    ///
    /// let properties = BTreeMap::from([("compression.type".to_string(), "lz4".to_string())]);
    /// let sink = KafkaSink::new("result", "hourly", "kafka://broker:9092/hours", &properties, Delivery::AtLeastOnce)?;
    /// assert_eq!(sink.location(), "kafka://broker:9092/hours");
    ///
    /// let weak = BTreeMap::from([("acks".to_string(), "1".to_string())]);
    /// assert!(KafkaSink::new("result", "hourly", "kafka://broker:9092/hours", &weak, Delivery::AtLeastOnce).is_err());
    /// # Ok::<(), watershed_core::Error>(())
    /// ```
    pub fn new(
        name: &str,
        job: &str,
        location: &str,
        options: &BTreeMap<String, String>,
        delivery: Delivery,
    ) -> Result<KafkaSink> {
        let location = Location::parse(location)?;
        let options = Options::of_sink(&location, options)?;
        let refused = Outbox::new(&location, &options, matches!(delivery, Delivery::ExactlyOnce(_)).then_some("-"));
        drop(refused?);
        Ok(KafkaSink {
            name: name.to_string(),
            job: job.to_string(),
            location,
            options,
            delivery,
            outbox: Mutex::default(),
            once: Mutex::default(),
        })
    }

    /// Errors unless the topic is there.
    pub async fn check(&self) -> Result<()> {
        let (location, options) = (self.location.clone(), self.options.clone());
        waiting(move || Asker::new(location, options)?.parts().map(|_| ())).await?
    }

    fn once(&self, application: &str) -> Result<Arc<Once>> {
        let mut guard = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(once) = &*guard {
            return Ok(Arc::clone(once));
        }
        let once = Once::new(&self.location, &self.options, &self.job, application)?;
        Ok(Arc::clone(guard.insert(Arc::new(once))))
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaSink").field(&self.location.text).finish()
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn location(&self) -> &str {
        &self.location.text
    }

    fn writer(&self) -> Result<Arc<dyn EpochWriter>> {
        if let Delivery::ExactlyOnce(staging) = &self.delivery {
            return Ok(Arc::new(staging.writer()));
        }
        let mut guard = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let outbox = match &*guard {
            Some(outbox) => Arc::clone(outbox),
            None => Arc::clone(guard.insert(Arc::new(Outbox::new(&self.location, &self.options, None)?))),
        };
        Ok(Arc::new(Sender { outbox, deliveries: Arc::default() }))
    }

    async fn commit(
        &self,
        identity: &CommitIdentity,
        prepared: &PreparedCommit,
        _: &BTreeMap<String, serde_json::Value>,
    ) -> Result<Committed> {
        let Delivery::ExactlyOnce(staging) = &self.delivery else {
            return Err(Error::bug(format!("`{}`: a commit of what was written already", self.location.text)));
        };
        let committed = self.once(&identity.application)?.commit(identity, staging, &prepared.files).await?;
        staging.remove(&prepared.files).await;
        if identity.after.is_none() || identity.epoch.is_multiple_of(LOOK_AFTER) {
            staging.remove_left().await;
        }
        Ok(committed)
    }

    async fn last_committed(&self, application: &str) -> Result<Option<LastCommit>> {
        match &self.delivery {
            Delivery::AtLeastOnce => Ok(None),
            Delivery::ExactlyOnce(_) => {
                let epoch = self.once(application)?.last().await?;
                Ok(epoch.map(|epoch| LastCommit { epoch, info: BTreeMap::new() }))
            }
        }
    }

    async fn verify(&self, prepared: &PreparedCommit) -> Result<()> {
        match &self.delivery {
            Delivery::AtLeastOnce => Ok(()),
            Delivery::ExactlyOnce(staging) => {
                for file in &prepared.files {
                    staging.verify(file).await?;
                }
                Ok(())
            }
        }
    }
}

/// Epochs between two looks for files that nobody needs.
const LOOK_AFTER: u64 = 64;

/// Writes an epoch's messages as they come.
struct Sender {
    outbox: Arc<Outbox>,
    deliveries: Arc<Deliveries>,
}

#[async_trait]
impl EpochWriter for Sender {
    async fn write(&self, _: usize, rows: RecordBatch) -> Result<()> {
        let messages = Messages::of(&rows)?;
        let (outbox, deliveries) = (Arc::clone(&self.outbox), Arc::clone(&self.deliveries));
        waiting(move || outbox.send(&messages, &deliveries).map_err(|lost| outbox.error(lost))).await?
    }

    async fn finish(&self) -> Result<PreparedCommit> {
        let (outbox, deliveries) = (Arc::clone(&self.outbox), Arc::clone(&self.deliveries));
        waiting(move || outbox.flush(&deliveries).map_err(|lost| outbox.error(lost))).await??;
        Ok(PreparedCommit::default())
    }
}
