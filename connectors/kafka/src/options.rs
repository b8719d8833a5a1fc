//! Properties of librdkafka: what the user gave, what we add, and what nobody may set, of a source or of a sink.
//!
//! All that librdkafka knows is passed through by its own name, so that TLS, SASL, racks and the like need no word of ours.
//!
//! Invariant: the properties on which it depends that nothing is skipped, lost or doubled are ours alone; and no text of an error holds a
//! value that may be a secret.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use watershed_core::{Error, Result, secrets};

use crate::location::Location;

/// What the user of a source may not set, and why.
const OURS: [(&str, &str); 11] = [
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    ("auto.offset.reset", "where a topic no longer has an offset, Watershed stops and says so; it never jumps"),
    ("enable.partition.eof", "Watershed has to know the end of each partition"),
    ("enable.auto.commit", POSITIONS),
    ("auto.commit.enable", POSITIONS),
    ("auto.commit.interval.ms", POSITIONS),
    ("enable.auto.offset.store", POSITIONS),
    ("group.instance.id", MEMBERS),
    ("group.protocol", MEMBERS),
    ("plugin.library.paths", "Watershed loads no code that a statement names"),
];

/// What the user of a sink may not set, and why.
const OF_SINKS: [(&str, &str); 13] = [
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    ("acks", DURABLE),
    ("request.required.acks", DURABLE),
    ("enable.idempotence", DURABLE),
    (
        "partitioner",
        "messages lie where producers in Java would put them; have a key (key = 'column') by which they are placed",
    ),
    ("transactional.id", TRANSACTIONS),
    ("group.id", TRANSACTIONS),
    ("group.instance.id", TRANSACTIONS),
    ("isolation.level", TRANSACTIONS),
    ("enable.auto.commit", TRANSACTIONS),
    ("delivery.report.only.error", DURABLE),
    ("plugin.library.paths", "Watershed loads no code that a statement names"),
];

const DURABLE: &str = "Watershed has every message acknowledged by all replicas in sync, once and in order";

const TRANSACTIONS: &str = "say delivery = 'exactly once', and the transactions are Watershed's affair";

const BROKERS: &str = "the brokers stand in the location, kafka://broker:9092,broker2:9092/topic";

const POSITIONS: &str = "a job's place in a topic is kept in its checkpoints; give group.id, and it is reported to that \
                         group of Kafka for monitors";

const MEMBERS: &str = "Watershed reads all partitions itself and is no member of a group";

/// Kerberos and OAuth would need libraries that are not built in.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// How long messages that are produced wait for others to go with them.
const LINGER: u32 = 5;

/// How long a transaction may be open, which is as long as its readers wait: an epoch has to be produced in it, and brokers
/// allow 15 minutes unless they are told otherwise.
const TRANSACTION: u32 = 10 * 60 * 1000;

/// Bytes of messages that wait in librdkafka, of all parts together; and a part's share at least and at most.
const WAITING: usize = 32 << 20;
const SHARE: (usize, usize) = (1 << 20, 16 << 20);

/// Messages that wait, likewise. Each takes some 400 bytes besides its own.
const WAITING_MESSAGES: usize = 100_000;
const SHARE_MESSAGES: (usize, usize) = (1_000, 100_000);

/// A message that is larger never leaves.
const LARGEST: usize = 32 << 20;

/// Of one part in one answer, at least and at most; a message that is larger comes all the same.
const FETCH: (usize, usize) = (64 << 10, 1 << 20);

/// The properties of one tail, or of one sink.
#[derive(Clone)]
pub(crate) struct Options {
    location: Location,
    given: BTreeMap<String, String>,
}

impl Options {
    pub(crate) fn new(location: &Location, given: &BTreeMap<String, String>) -> Result<Options> {
        Options::besides(&OURS, location, given)
    }

    pub(crate) fn of_sink(location: &Location, given: &BTreeMap<String, String>) -> Result<Options> {
        Options::besides(&OF_SINKS, location, given)
    }

    fn besides(ours: &[(&str, &str)], location: &Location, given: &BTreeMap<String, String>) -> Result<Options> {
        for name in given.keys() {
            if let Some((_, why)) = ours.iter().find(|(ours, _)| ours == name) {
                return Err(Error::input(format!("`{}`: leave out the property {name}: {why}", location.text)));
            }
        }
        let mechanism = given.get("sasl.mechanism").or(given.get("sasl.mechanisms"));
        if let Some(mechanism) = mechanism.filter(|name| !MECHANISMS.contains(&name.to_ascii_uppercase().as_str())) {
            return Err(Error::input(format!(
                "`{}`: this build does not know sasl.mechanism {mechanism}: give one of {}",
                location.text,
                MECHANISMS.join(", ")
            )));
        }
        Ok(Options { location: location.clone(), given: given.clone() })
    }

    /// Whether the job's place is told to a group of Kafka.
    pub(crate) fn reports(&self) -> bool {
        self.given.contains_key("group.id")
    }

    /// For asking what a topic has. It takes no heed of transactions, which [`crate::ask`] explains.
    pub(crate) fn asking(&self) -> ClientConfig {
        let mut config = self.common();
        config.set("isolation.level", "read_uncommitted");
        // How long a report waits for a group that nobody answers for, also when all else is done.
        self.unless_given(&mut config, &["session.timeout.ms", "heartbeat.interval.ms"], 6_000);
        config
    }

    /// For asking how a topic is set up.
    pub(crate) fn administering(&self) -> ClientConfig {
        let mut config = self.common();
        // Properties of consumers, which are told of on each use.
        for name in ["group.id", "isolation.level", "enable.partition.eof"] {
            config.remove(name);
        }
        config
    }

    /// For reading this many parts.
    pub(crate) fn reading(&self, parts: usize) -> ClientConfig {
        let parts = parts.max(1);
        let share = (WAITING / parts).clamp(SHARE.0, SHARE.1);
        let messages = (WAITING_MESSAGES / parts).clamp(SHARE_MESSAGES.0, SHARE_MESSAGES.1);
        let fetch = (WAITING / parts / 2).clamp(FETCH.0, FETCH.1);
        let mut config = self.common();
        self.unless_given(&mut config, &["isolation.level"], "read_committed");
        // librdkafka assigns parts in the name of a group only, even where it never asks anything of it.
        self.unless_given(&mut config, &["group.id"], "watershed");
        self.unless_given(&mut config, &["queued.max.messages.kbytes"], share >> 10);
        self.unless_given(&mut config, &["queued.min.messages"], messages);
        self.unless_given(&mut config, &["fetch.message.max.bytes", "max.partition.fetch.bytes"], fetch);
        self.unless_given(
            &mut config,
            &["fetch.max.bytes", "message.max.bytes", "receive.message.max.bytes"],
            16 << 20,
        );
        // Messages are sent at once when there are some. This is how long an end goes unnoticed, and a new part unread.
        self.unless_given(&mut config, &["fetch.wait.max.ms"], 50);
        // How long a part that was full is left alone; the default of a second would be most of the time.
        self.unless_given(&mut config, &["fetch.queue.backoff.ms"], 5);
        self.unless_given(&mut config, &["check.crcs"], true);
        for (name, value) in [
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
        ] {
            config.set(name, value);
        }
        config
    }

    /// For producing: in transactions, if they have a name.
    pub(crate) fn producing(&self, transactions: Option<&str>) -> ClientConfig {
        let mut config = self.common();
        self.unless_given(&mut config, &["linger.ms", "queue.buffering.max.ms"], LINGER);
        self.unless_given(&mut config, &["queue.buffering.max.kbytes"], WAITING >> 10);
        // What a topic takes is the topic's to say.
        self.unless_given(&mut config, &["message.max.bytes"], LARGEST);
        for (name, value) in [("acks", "all"), ("enable.idempotence", "true"), ("partitioner", "murmur2_random")] {
            config.set(name, value);
        }
        if let Some(name) = transactions {
            self.unless_given(&mut config, &["transaction.timeout.ms"], TRANSACTION);
            config.set("transactional.id", name);
        }
        config
    }

    /// For reading what a group has committed. What a transaction is about to commit is waited for.
    pub(crate) fn group(&self, name: &str) -> ClientConfig {
        let mut config = self.common();
        for (name, value) in
            [("group.id", name), ("isolation.level", "read_committed"), ("enable.auto.commit", "false")]
        {
            config.set(name, value);
        }
        config
    }

    fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.given {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.location.brokers);
        self.unless_given(&mut config, &["client.id"], "watershed");
        self.unless_given(&mut config, &["socket.keepalive.enable"], true);
        // A broker that comes back is found soon; the default is ten seconds.
        self.unless_given(&mut config, &["reconnect.backoff.max.ms", "reconnect.backoff.ms"], 3_000);
        // How long a broker may deny a topic that another one has; the topic was seen before it is read.
        self.unless_given(&mut config, &["topic.metadata.propagation.max.ms"], 5_000);
        // The topic's id is told on this channel alone; see `events`.
        let debug = self.given.get("debug").map(|given| format!("{given},metadata"));
        config.set("debug", debug.as_deref().unwrap_or("metadata"));
        config.set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// `names` are one property, and those that are it by another name or have to fit it.
    fn unless_given(&self, config: &mut ClientConfig, names: &[&str], value: impl ToString) {
        if let [name, ..] = names
            && !names.iter().any(|name| self.given.contains_key(*name))
        {
            config.set(*name, value.to_string());
        }
    }

    /// Why librdkafka does not take these properties.
    pub(crate) fn refused(&self, e: &KafkaError) -> Error {
        let said = match e {
            KafkaError::ClientConfig(_, said, name, _) if said.is_empty() => format!("{name} has a wrong value"),
            KafkaError::ClientConfig(_, said, _, _) => said.clone(),
            KafkaError::ClientCreation(said) => said.clone(),
            other => other.to_string(),
        };
        // What librdkafka takes where none is given.
        let advice = match said.contains("GSSAPI") {
            true => format!("; set sasl.mechanism to one of {}", MECHANISMS.join(", ")),
            false => String::new(),
        };
        Error::input(format!(
            "`{}`: {}{advice}; properties are those of librdkafka, by its names",
            self.location.text,
            self.clean(said.trim_end_matches('\0'))
        ))
    }

    /// A text without the values that may be secrets.
    pub(crate) fn clean(&self, text: &str) -> String {
        let hidden = self.given.iter().filter(|(name, value)| may_be_secret(name) && !value.is_empty());
        hidden.fold(text.to_string(), |text, (_, value)| text.replace(value.as_str(), "***"))
    }
}

/// By more than [`secrets::is_secret`] knows: librdkafka also takes keys as text.
fn may_be_secret(name: &str) -> bool {
    secrets::is_secret(name)
        || name.ends_with(".pem")
        || name.ends_with(".passphrase")
        || name == "sasl.oauthbearer.config"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> Result<Options> {
        let location = Location::parse("kafka://broker:9092/topic").unwrap();
        Options::new(&location, &given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn what_is_ours_is_refused_with_the_reason() {
        for (name, why) in OURS {
            let said = options(&[(name, "x")]).err().unwrap().to_string();
            assert!(said.contains(name) && said.contains(why) && said.contains("kafka://broker:9092/topic"), "{said}");
        }
        assert!(options(&[("group.id", "monitors")]).unwrap().reports());
        assert!(!options(&[]).unwrap().reports());
    }

    #[test]
    fn a_mechanism_that_is_not_built_in_is_refused() {
        let said = options(&[("sasl.mechanism", "OAUTHBEARER")]).err().unwrap().to_string();
        assert!(said.contains("OAUTHBEARER") && said.contains("SCRAM-SHA-512"), "{said}");
        assert!(options(&[("sasl.mechanisms", "plain")]).is_ok());
    }

    #[test]
    fn what_the_user_gave_comes_before_our_defaults() {
        let given = options(&[("isolation.level", "read_uncommitted"), ("max.partition.fetch.bytes", "7")]).unwrap();
        let config = given.reading(3);
        assert_eq!(config.get("isolation.level"), Some("read_uncommitted"));
        assert_eq!(config.get("fetch.message.max.bytes"), None);
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        let config = options(&[("debug", "fetch")]).unwrap().reading(3);
        assert_eq!(config.get("debug"), Some("fetch,metadata"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("group.id"), Some("watershed"));
    }

    #[test]
    fn a_sink_is_durable_whatever_is_given() {
        let location = Location::parse("kafka://broker:9092/topic").unwrap();
        let of = |name: &str, value: &str| Options::of_sink(&location, &BTreeMap::from([(name.into(), value.into())]));
        for (name, why) in OF_SINKS {
            let said = of(name, "x").err().unwrap().to_string();
            assert!(said.contains(name) && said.contains(why), "{said}");
        }
        let config = of("transaction.timeout.ms", "7000").unwrap().producing(Some("me"));
        let has =
            ["acks", "enable.idempotence", "partitioner", "transactional.id", "transaction.timeout.ms", "linger.ms"];
        assert_eq!(has.map(|name| config.get(name).unwrap()), ["all", "true", "murmur2_random", "me", "7000", "5"]);
        assert_eq!(of("linger.ms", "90").unwrap().producing(None).get("transactional.id"), None);
    }

    #[test]
    fn what_waits_is_shared_by_the_parts() {
        let options = options(&[]).unwrap();
        let of = |parts, name| options.reading(parts).get(name).unwrap().parse::<usize>().unwrap();
        assert_eq!(of(0, "queued.max.messages.kbytes"), 16 << 10);
        assert_eq!(of(16, "queued.max.messages.kbytes"), 2 << 10);
        assert_eq!(of(1000, "queued.max.messages.kbytes"), 1 << 10);
        assert_eq!(of(1, "fetch.message.max.bytes"), 1 << 20);
        assert_eq!(of(1000, "fetch.message.max.bytes"), 64 << 10);
        assert_eq!(of(10, "queued.min.messages"), 10_000);
    }
}
