//! The topic that a sink fills: what its statement says of it, held against what its query gives.
//!
//! A row becomes a message: the row as one JSON object, and its key columns as another. Messages of one key are in one
//! partition, in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use watershed_core::sink::Sink;
use watershed_core::{Error, Result};
use watershed_formats::Encoder;
use watershed_plan::Lowered;

use super::Asked;
use crate::bindings::Changed;
use crate::catalog::Entry;
use crate::engine::Engine;

/// A topic as a statement says it.
pub(super) struct Topic {
    pub(super) url: String,
    key: Vec<String>,
    delivery: Delivery,
    /// Options of the broker, as written.
    options: BTreeMap<String, String>,
    encoder: Encoder,
}

/// What the topic has of each row after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

impl Topic {
    pub(super) fn of(asked: &Asked<'_>, lowered: &Lowered) -> Result<Topic> {
        let what = format!("sink {}", asked.name);
        let own = |name: &str| asked.with.own(name);
        let url = own("topic").ok_or_else(|| {
            Error::sql(format!("{what}: say where its messages go: WITH (topic = 'kafka://broker:9092/topic')"))
        })?;
        let format =
            own("format").ok_or_else(|| Error::sql(format!("{what}: say what its messages are: format = 'json'")))?;
        let delivery = match own("delivery") {
            None | Some("at least once") => Delivery::AtLeastOnce,
            Some("exactly once") => Delivery::ExactlyOnce,
            Some(other) => {
                let message = format!("{what}: delivery = '{other}': give 'at least once' or 'exactly once'");
                return Err(Error::sql(message));
            }
        };
        let key = match own("key") {
            Some(key) => key.split(',').map(|column| column.trim().to_string()).collect(),
            None => lowered.key.clone(),
        };
        let encoder = Encoder::new(format, &lowered.output, &key).map_err(|e| match e {
            Error::Input(message) => Error::sql(format!("{what}: {message}")),
            other => other,
        })?;
        Ok(Topic { url: url.to_string(), key, delivery, options: asked.with.log.clone(), encoder })
    }

    /// Errors unless the topic is there and its options can be heeded; nothing is written.
    pub(super) async fn check(&self, engine: &Engine, job: &str) -> Result<()> {
        self.log(engine, job, None).await.map(|_| ())
    }

    /// The topic as a job's result.
    pub(super) async fn open(self, engine: &Engine, entry: &Entry) -> Result<Arc<dyn Sink>> {
        let log = self.log(engine, &entry.name, Some(entry)).await?;
        Ok(Arc::new(Changed::new(log, move |rows| self.encoder.encode(&rows))))
    }

    #[cfg(feature = "kafka")]
    async fn log(&self, engine: &Engine, job: &str, entry: Option<&Entry>) -> Result<Arc<dyn Sink>> {
        use watershed_kafka::{KafkaSink, Staging};

        use crate::tables::{RESULT, job_folder};
        use crate::tails;

        let (kafka, _) = tails::resolved(&self.options, engine.variables())?;
        let staging = |entry| {
            let folder = job_folder(engine, entry).join("staged");
            Staging::new(Arc::clone(engine.home().0), folder, Arc::clone(engine.clock()))
        };
        let delivery = match (self.delivery, entry) {
            (Delivery::ExactlyOnce, Some(entry)) => watershed_kafka::Delivery::ExactlyOnce(staging(entry)),
            _ => watershed_kafka::Delivery::AtLeastOnce,
        };
        let sink = KafkaSink::new(RESULT, job, &self.url, &kafka, delivery)?;
        sink.check().await?;
        Ok(Arc::new(sink))
    }

    #[cfg(not(feature = "kafka"))]
    async fn log(&self, _: &Engine, _: &str, _: Option<&Entry>) -> Result<Arc<dyn Sink>> {
        let options = self.options.len();
        Err(Error::input(format!("topic = '{}': this build was made without Kafka ({options} options)", self.url)))
    }
}

/// A line of the job's plan.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic: {}, ", self.url)?;
        match self.key.is_empty() {
            true => f.write_str("messages without a key, ")?,
            false => write!(f, "key {}, ", self.key.join(", "))?,
        }
        f.write_str(match self.delivery {
            Delivery::AtLeastOnce => "at least once, as rows come",
            Delivery::ExactlyOnce => "exactly once, a transaction an epoch",
        })
    }
}
