//! `kafka://broker:9092,broker2:9092/topic`: which brokers are asked first, and for which topic.
//!
//! Invariant: a location that is kept holds no credentials; one that seems to is refused, and not repeated.

use watershed_core::{Error, Result};

const FORM: &str = "kafka://broker:9092,broker2:9092/topic";

/// Kafka takes no longer names.
const LONGEST: usize = 249;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// As the user named it.
    pub(crate) text: String,
    /// As librdkafka wants them.
    pub(crate) brokers: String,
    pub(crate) topic: String,
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Location> {
        if text.contains('@') {
            return Err(Error::input(format!(
                "a location of kafka:// has an `@`: write it as {FORM}, and give credentials as properties, sasl.username \
                 and sasl.password"
            )));
        }
        let bad = |why: &str| Error::input(format!("`{text}` {why}: write it as {FORM}"));
        let rest = text.strip_prefix("kafka://").ok_or_else(|| bad("is no topic of Kafka"))?;
        let (brokers, topic) = rest.split_once('/').ok_or_else(|| bad("names no topic"))?;
        if let Some(broker) = brokers.split(',').find(|broker| !is_broker(broker)) {
            return Err(bad(&format!("has `{broker}` where a broker should be")));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match topic {
            "" => return Err(bad("names no topic")),
            "." | ".." => return Err(bad("names a topic that Kafka does not take")),
            _ if topic.len() > LONGEST || !topic.chars().all(legal) => {
                return Err(bad(&format!(
                    "names a topic that Kafka does not take (up to {LONGEST} of A-Z a-z 0-9 . _ -)"
                )));
            }
            _ => {}
        }
        Ok(Location { text: text.to_string(), brokers: brokers.to_string(), topic: topic.to_string() })
    }
}

/// `host`, `host:port` or `[::1]:port`.
fn is_broker(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| matches!(port.parse::<u16>(), Ok(1..)));
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '%');
    !host.is_empty() && host.chars().all(legal) && port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_and_topic_are_told_apart() {
        let one = Location::parse("kafka://broker:9092/flights").unwrap();
        assert_eq!((one.brokers.as_str(), one.topic.as_str()), ("broker:9092", "flights"));
        let more = Location::parse("kafka://a.example:9092,10.0.0.1:9093,[::1]:9094,plain/my.topic_1-x").unwrap();
        assert_eq!(more.brokers, "a.example:9092,10.0.0.1:9093,[::1]:9094,plain");
        assert_eq!(more.topic, "my.topic_1-x");
    }

    #[test]
    fn what_is_no_location_is_refused_by_its_name() {
        let long = format!("kafka://b:1/{}", "x".repeat(250));
        for bad in [
            "broker:9092/topic",
            "kafka:/b:9092/topic",
            "kafka://b:9092",
            "kafka://b:9092/",
            "kafka:///topic",
            "kafka://b:9092,/topic",
            "kafka://b:port/topic",
            "kafka://b:0/topic",
            "kafka://b:70000/topic",
            "kafka://b:9092/topic?group=x",
            "kafka://b:9092/a/b",
            "kafka://b:9092/..",
            "kafka://b c:9092/topic",
            &long,
        ] {
            let said = Location::parse(bad).unwrap_err().to_string();
            assert!(said.contains(bad) && said.contains("write it as kafka://"), "{said}");
        }
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        let said = Location::parse("kafka://me:hush@b:9092/topic").unwrap_err().to_string();
        assert!(!said.contains("hush") && said.contains("sasl.password"), "{said}");
    }
}
