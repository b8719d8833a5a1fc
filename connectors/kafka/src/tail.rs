//! A topic of Kafka as the tail of a source.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use watershed_core::tail::{LogState, Part, Tail, TailPosition, TailReader};
use watershed_core::time::Span;
use watershed_core::{EventTime, Result};

use crate::ask::Asker;
use crate::location::Location;
use crate::options::Options;
use crate::reader::KafkaReader;
use crate::trouble::joined;

/// A topic.
pub struct KafkaTail {
    asker: Arc<Asker>,
    with_headers: bool,
}

impl KafkaTail {
    /// The topic at a location, `kafka://broker:9092,broker2:9092/topic`, with properties of librdkafka such as
    /// `security.protocol` and `sasl.password`. With `group.id`, [`Tail::report`] commits offsets to that group.
    ///
    /// Nothing is asked of the brokers yet; properties that librdkafka does not take are an error.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use watershed_core::tail::Tail;
    /// use watershed_kafka::KafkaTail;
    ///
    /// let properties = BTreeMap::from([("security.protocol".to_string(), "ssl".to_string())]);
    /// let flights = KafkaTail::new("kafka://broker:9092/flights", &properties)?;
    /// assert_eq!(flights.location(), "kafka://broker:9092/flights");
    ///
    /// let jump = BTreeMap::from([("auto.offset.reset".to_string(), "latest".to_string())]);
    /// assert!(KafkaTail::new("kafka://broker:9092/flights", &jump).is_err());
    /// # Ok::<(), watershed_core::Error>(())
    /// ```
    pub fn new(location: &str, options: &BTreeMap<String, String>) -> Result<KafkaTail> {
        let location = Location::parse(location)?;
        let options = Options::new(&location, options)?;
        Ok(KafkaTail { asker: Arc::new(Asker::new(location, options)?), with_headers: false })
    }

    /// Hands over the headers of messages, too; they cost to be copied.
    pub fn with_headers(self, with_headers: bool) -> KafkaTail {
        KafkaTail { with_headers, ..self }
    }

    /// Asks where waiting is allowed.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Arc<Asker>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let asker = Arc::clone(&self.asker);
        joined(spawn_blocking(move || question(asker)).await)
    }
}

impl fmt::Debug for KafkaTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaTail").field(&self.asker.location.text).finish()
    }
}

#[async_trait]
impl Tail for KafkaTail {
    fn location(&self) -> &str {
        &self.asker.location.text
    }

    async fn look(&self) -> Result<LogState> {
        self.ask(|asker| asker.look()).await
    }

    async fn at_time(&self, time: EventTime) -> Result<BTreeMap<Part, i64>> {
        self.ask(move |asker| asker.at_time(time)).await
    }

    async fn keeps(&self) -> Result<Option<Span>> {
        self.asker.keeps().await
    }

    async fn read(&self, from: &BTreeMap<Part, i64>) -> Result<Box<dyn TailReader>> {
        let (from, with_headers) = (from.clone(), self.with_headers);
        Ok(Box::new(self.ask(move |asker| KafkaReader::start(asker, from, with_headers)).await?))
    }

    async fn report(&self, position: &TailPosition) -> Result<()> {
        let position = position.clone();
        self.ask(move |asker| asker.report(&position)).await
    }
}
