//! What a topic has, where it stood at a time, and how far a job is.
//!
//! Ends are high watermarks, and times are looked up among all messages, also those of transactions that are open: were
//! these left out, a topic "as of noon" would begin behind messages of noon whose transaction ends later.
//!
//! Invariant: an end that stands for "no message was written since" was asked for before that question was.
//!
//! All of this waits for brokers: call it where waiting is allowed.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use watershed_core::tail::{LogState, Part, TailPosition};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use crate::events::{Client, Events, serve};
use crate::location::Location;
use crate::options::Options;
use crate::trouble::{Trouble, gap, trouble, unanswered};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a question is asked that nobody could answer for the moment, as when leaders are being elected.
const TRIES: usize = 5;

const PAUSE: Duration = Duration::from_millis(200);

/// Asks about one topic.
pub(crate) struct Asker {
    pub(crate) location: Location,
    pub(crate) options: Options,
    client: Closing,
}

/// A client that is closed on a thread of its own, for that may wait for brokers.
struct Closing(Option<Client>);

impl Deref for Closing {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let client = self.0.take();
        // Where no thread is to be had, it is closed here.
        let _ = thread::Builder::new().spawn(move || drop(client));
    }
}

impl Asker {
    pub(crate) fn new(location: Location, options: Options) -> Result<Asker> {
        let client = options.asking().create_with_context(Events::new(&location));
        let client = client.map_err(|e| options.refused(&e))?;
        Ok(Asker { location, options, client: Closing(Some(client)) })
    }

    pub(crate) fn look(&self) -> Result<LogState> {
        let parts = self.parts()?;
        let starts = self.offsets(&parts, Offset::Beginning)?;
        let mut ends = self.offsets(&parts, Offset::End)?;
        let parts = starts.into_iter().filter_map(|(part, start)| {
            let end = ends.remove(&part)??;
            Some((part, start?..end))
        });
        Ok(LogState { id: self.client.context().id(), parts: parts.collect(), ..LogState::default() })
    }

    /// That all of these offsets are there to be read.
    pub(crate) fn check(&self, from: &BTreeMap<Part, i64>) -> Result<()> {
        let now = self.look()?;
        let gap = from.iter().find_map(|(part, asked)| gap(&self.location, *part, *asked, now.parts.get(part)));
        gap.map_or(Ok(()), Err)
    }

    pub(crate) fn at_time(&self, time: EventTime) -> Result<BTreeMap<Part, i64>> {
        let parts = self.parts()?;
        let ends = self.offsets(&parts, Offset::End)?;
        // Kafka knows milliseconds; those below zero have other meanings.
        let millis = time.0.div_euclid(1000).saturating_add(i64::from(time.0.rem_euclid(1000) > 0)).max(0);
        let mut found = self.offsets(&parts, Offset::Offset(millis))?;
        let at = |(part, end): (Part, Option<i64>)| Some((part, found.remove(&part).flatten().or(end)?));
        Ok(ends.into_iter().filter_map(at).collect())
    }

    /// How long the topic keeps messages; `None` if that is for ever, or what this user may not know.
    pub(crate) async fn keeps(&self) -> Result<Option<Span>> {
        let admin: AdminClient<DefaultClientContext> =
            self.options.administering().create().map_err(|e| self.options.refused(&e))?;
        let topic = &self.location.topic;
        let asked = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await;
        let said = asked
            .map_err(|e| Error::storage("cannot ask how long messages are kept in", &self.location.text, e))?
            .pop();
        let config = match said {
            Some(Ok(config)) => config,
            Some(Err(code)) => {
                tracing::debug!(location = self.location.text, "how long messages are kept is not told: {code}");
                return Ok(None);
            }
            None => return Ok(None),
        };
        let value = |name| config.get(name).and_then(|entry| entry.value.clone());
        // What a compacted topic keeps of each key does not depend on time.
        if !value("cleanup.policy").is_some_and(|policy| policy.contains("delete")) {
            return Ok(None);
        }
        let millis = value("retention.ms").and_then(|text| text.parse::<i64>().ok()).filter(|millis| *millis >= 0);
        Ok(millis.map(|millis| Span(millis.saturating_mul(1000))))
    }

    /// Has the group's offsets committed, without waiting for it.
    pub(crate) fn report(&self, position: &TailPosition) -> Result<()> {
        if !self.options.reports() || position.parts.is_empty() {
            return Ok(());
        }
        let failed = |e: KafkaError| Error::storage("cannot report a job's place in", &self.location.text, e);
        let mut offsets = TopicPartitionList::with_capacity(position.parts.len());
        for (part, at) in &position.parts {
            offsets.add_partition_offset(&self.location.topic, *part, Offset::Offset(at.next)).map_err(failed)?;
        }
        serve(&self.client);
        let events = self.client.context();
        // librdkafka would keep the offsets for later, and wait for that when it is closed.
        if let Some(said) = events.group_denied() {
            events.reported(Err(said));
            return Ok(());
        }
        self.client.commit(&offsets, CommitMode::Async).map_err(failed)
    }

    pub(crate) fn parts(&self) -> Result<Vec<Part>> {
        self.ask(|| {
            let topic = &self.location.topic;
            let metadata = self.client.fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let found = found.ok_or(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition))?;
            match found.error() {
                Some(e) => Err(KafkaError::MetadataFetch(e.into())),
                None => Ok(found.partitions().iter().map(|part| part.id()).collect()),
            }
        })
    }

    /// For each part the offset of a kind, or of the first message since a time in milliseconds; `None` where there is none.
    fn offsets(&self, parts: &[Part], of: Offset) -> Result<BTreeMap<Part, Option<i64>>> {
        self.ask(|| {
            let mut wanted = TopicPartitionList::with_capacity(parts.len());
            for part in parts {
                wanted.add_partition_offset(&self.location.topic, *part, of)?;
            }
            // One request for each broker. The two ends of a part are times of their own to Kafka, by the same numbers.
            let found = self.client.offsets_for_times(wanted, PATIENCE)?;
            let offset = |found: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                found.error()?;
                match found.offset() {
                    Offset::Offset(offset) => Ok((found.partition(), Some(offset))),
                    _ => Ok((found.partition(), None)),
                }
            };
            found.elements().iter().map(offset).collect()
        })
    }

    fn ask<T>(&self, question: impl Fn() -> Result<T, KafkaError>) -> Result<T> {
        serve(&self.client);
        self.client.context().take_trouble();
        let mut tries = 1;
        loop {
            let e = match question() {
                Ok(answer) => {
                    serve(&self.client);
                    return Ok(answer);
                }
                Err(e) => e,
            };
            serve(&self.client);
            let code = e.rdkafka_error_code().unwrap_or(Code::Fail);
            let unreachable = matches!(
                code,
                Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve
            );
            if tries == TRIES || unreachable || trouble(code) != Trouble::Passes {
                let said = self.client.context().take_trouble();
                let said = said.map(|(code, said)| (code, self.options.clean(&said)));
                return Err(unanswered(&self.location, code, said));
            }
            tries += 1;
            thread::sleep(PAUSE);
        }
    }
}
