//! What librdkafka tells besides messages: its log, its troubles, what became of commits.
//!
//! The topic's id is known from the log alone: librdkafka writes there, among what it says of metadata, that a topic
//! "changed id" from none to its first, and then whenever it finds another. Should a release word that otherwise, no id is
//! known and everything else stays as it is; a test on a broker would tell.
//!
//! Invariant: nothing here ends anything. What was told is kept for whoever asks next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaErrorCode;

use crate::location::Location;

/// How an id looks that is none.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A client whose events are kept.
pub(crate) type Client = BaseConsumer<Events>;

/// Takes in the events of one client, which asks or reads one topic.
pub(crate) struct Events {
    location: Location,
    seen: Mutex<Seen>,
    /// How many there were; see [`serve`].
    taken: AtomicU64,
}

#[derive(Default)]
struct Seen {
    id: Option<String>,
    made_anew: bool,
    trouble: Option<(RDKafkaErrorCode, String)>,
    group_denied: Option<String>,
    commits_fail: bool,
}

impl Seen {
    fn trouble(&mut self, code: RDKafkaErrorCode, said: &str) {
        // That all are down tells less than what happened to one.
        if code != RDKafkaErrorCode::AllBrokersDown || self.trouble.is_none() {
            self.trouble = Some((code, said.to_string()));
        }
    }
}

impl Events {
    pub(crate) fn new(location: &Location) -> Events {
        Events { location: location.clone(), seen: Mutex::default(), taken: AtomicU64::new(0) }
    }

    /// The topic's id, as far as it is known.
    pub(crate) fn id(&self) -> Option<String> {
        self.seen().id.clone()
    }

    /// Whether the topic's id became another one.
    pub(crate) fn made_anew(&self) -> bool {
        self.seen().made_anew
    }

    /// What was said, if the group may not be asked anything.
    pub(crate) fn group_denied(&self) -> Option<String> {
        self.seen().group_denied.clone()
    }

    /// The latest trouble since this was asked last.
    pub(crate) fn take_trouble(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.seen().trouble.take()
    }

    /// Whether monitors see the job's place; the log says when that becomes otherwise.
    pub(crate) fn reported(&self, result: Result<(), String>) {
        let failed_before = std::mem::replace(&mut self.told().commits_fail, result.is_err());
        let location = &self.location.text;
        match result {
            Err(e) if !failed_before => {
                tracing::warn!(location, "Kafka's monitors do not see this job's place: {e}; the job itself goes on");
            }
            Ok(()) if failed_before => tracing::info!(location, "Kafka's monitors see this job's place again"),
            _ => {}
        }
    }

    fn told(&self) -> MutexGuard<'_, Seen> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.seen()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a client tell all that it has to tell. Errors that are not of one part come out, the latest one; those of parts come
/// from the parts' own queues.
pub(crate) fn serve(client: &Client) -> Option<KafkaError> {
    let taken = || client.context().taken.load(Ordering::Relaxed);
    let mut error = None;
    loop {
        // A poll without patience takes one event, and tells of an event that it handled itself as if there was none.
        let before = taken();
        match client.poll(Duration::ZERO) {
            Some(Err(e)) => error = Some(e),
            Some(Ok(_)) => {}
            None if taken() == before => return error,
            None => {}
        }
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let mut seen = self.told();
        if let Some((before, id)) = changed_id(text, &self.location.topic) {
            seen.made_anew |= before != NO_ID;
            seen.id = Some(id.to_string());
        }
        if facility == "FAIL" {
            // Of a broker that hangs up, nothing but the log tells why that may be.
            let said = text.split_once("]: ").map_or(text, |(_thread, said)| said);
            seen.trouble(RDKafkaErrorCode::BrokerTransportFailure, said);
        }
        drop(seen);
        let location = &self.location.text;
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", location, facility, "{text}"),
            _ => tracing::debug!(target: "librdkafka", location, facility, "{text}"),
        }
    }

    fn stats(&self, _: Statistics) {
        drop(self.told());
    }

    fn error(&self, e: KafkaError, said: &str) {
        let code = e.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        let mut seen = self.told();
        match code {
            RDKafkaErrorCode::PartitionEOF => {}
            RDKafkaErrorCode::GroupAuthorizationFailed => seen.group_denied = Some(said.to_string()),
            _ => seen.trouble(code, said),
        }
    }
}

impl ConsumerContext for Events {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.reported(result.map_err(|e| e.to_string()));
    }
}

/// The ids before and now, of a line of the log that tells of a topic's id.
fn changed_id<'a>(line: &'a str, topic: &str) -> Option<(&'a str, &'a str)> {
    let (_, rest) = line.split_once("Topic ")?;
    let (before, now) = rest.strip_prefix(topic)?.strip_prefix(" changed id from ")?.split_once(" to ")?;
    (now != NO_ID).then_some((before, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_id_of_its_own_topic_only() {
        let line = "[thrd:main]: Topic flights changed id from AAAAAAAAAAAAAAAAAAAAAA to 4pIsRVCtQYqQ1gVK0kT0Qw";
        assert_eq!(changed_id(line, "flights"), Some((NO_ID, "4pIsRVCtQYqQ1gVK0kT0Qw")));
        assert_eq!(changed_id(line, "flight"), None);
        assert_eq!(changed_id("[thrd:main]: Topic flights [0] Leader 1 Epoch 0", "flights"), None);
    }

    #[test]
    fn a_second_id_is_another_topic() {
        let location = Location::parse("kafka://b:9092/flights").unwrap();
        let events = Events::new(&location);
        let tell = |from: &str, to: &str| {
            events.log(RDKafkaLogLevel::Debug, "METADATA", &format!("Topic flights changed id from {from} to {to}"));
        };
        tell(NO_ID, "one");
        assert_eq!((events.id().as_deref(), events.made_anew()), (Some("one"), false));
        tell("one", "two");
        assert_eq!((events.id().as_deref(), events.made_anew()), (Some("two"), true));
    }
}
