//! What an error of librdkafka means, for a reader and for a producer, and how it is worded.
//!
//! Three kinds matter. What passes by itself, since librdkafka tries again for ever. What went wrong with access or the
//! environment. And what would mean to skip messages, if reading went on: that stops.
//!
//! Invariant: what is not known to pass ends the reading. Of a message that it cannot unpack, librdkafka tells once and goes
//! on behind it.

use std::ops::Range;

use rdkafka::types::RDKafkaErrorCode as Code;
use watershed_core::tail::Part;
use watershed_core::{Error, Result};

use crate::location::Location;

/// What an error of a part means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// librdkafka tries again by itself.
    Passes,
    /// The part does not have the offset.
    Gap,
    /// The topic or the part is not there.
    Gone,
    /// Reading it is not permitted.
    Denied,
    /// Something that a message is made of cannot be read.
    Unreadable,
}

pub(crate) fn trouble(code: Code) -> Trouble {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::NodeUpdate
        | Code::BrokerDestroy
        | Code::DestroyBroker
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::Retry
        | Code::Unknown
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::RequestTimedOut
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::StaleControllerEpoch
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::KafkaStorageError
        | Code::FetchSessionIdNotFound
        | Code::InvalidFetchSessionEpoch
        | Code::ListenerNotFound
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable
        | Code::PreferredLeaderNotAvailable
        | Code::EligibleLeadersNotAvailable
        | Code::ThrottlingQuotaExceeded
        | Code::RebootstrapRequired => Trouble::Passes,
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => Trouble::Gap,
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic => Trouble::Gone,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Trouble::Denied,
        _ => Trouble::Unreadable,
    }
}

/// Why reading of a part ends, of all kinds but gaps, which [`gap`] words.
pub(crate) fn ended(location: &Location, part: Part, code: Code, said: &str) -> Error {
    let Location { text, topic, .. } = location;
    match trouble(code) {
        Trouble::Gone => Error::stopped(format!(
            "`{text}` partition {part}: it is no longer there ({code}): the topic was deleted, or has fewer partitions. If it \
             was made anew under this name, build the view anew as well"
        )),
        Trouble::Denied => denied(location, code),
        _ => {
            let advice = match code {
                Code::MessageSizeTooLarge => ": set message.max.bytes and receive.message.max.bytes to more",
                _ => ", and reading on would skip them",
            };
            Error::stopped(format!(
                "`{text}` partition {part}: messages of topic `{topic}` cannot be read ({}){advice}",
                reason(code, said)
            ))
        }
    }
}

/// Whether a part does not have an offset that is to be read next, and what to do then. `now` is what the part has.
pub(crate) fn gap(location: &Location, part: Part, asked: i64, now: Option<&Range<i64>>) -> Option<Error> {
    let text = &location.text;
    let Some(now) = now else {
        return Some(Error::stopped(format!(
            "`{text}` has no partition {part}, of which offset {asked} is to be read next: if the topic was made anew under \
             this name, build the view anew as well"
        )));
    };
    let Range { start, end } = now;
    let why = match asked {
        _ if asked < *start => {
            "what comes before has been deleted, and was not read. Have the topic keep its messages longer (retention.ms, \
             retention.bytes), and build the view anew from a history that has them"
        }
        _ if asked > *end => {
            "it was cut off, or made anew under the same name. If that was meant, build the view anew as well"
        }
        _ => return None,
    };
    Some(Error::stopped(format!(
        "`{text}` partition {part}: offset {asked} is to be read next, but the topic has {start} to {end} now: {why}"
    )))
}

/// A topic that is not the one it was.
pub(crate) fn made_anew(location: &Location) -> Error {
    Error::stopped(format!(
        "`{}`: the topic was deleted and made anew while it was read; what the old one still had is lost, and its offsets \
         mean nothing in the new one. Build the view anew",
        location.text
    ))
}

/// A message with an offset that was read already.
pub(crate) fn went_back(location: &Location, part: Part, next: i64, came: i64) -> Error {
    Error::stopped(format!(
        "`{}` partition {part}: offset {came} came where {next} or more was to come: the topic was cut off, or made anew under \
         the same name. If that was meant, build the view anew as well",
        location.text
    ))
}

pub(crate) fn denied(location: &Location, code: Code) -> Error {
    let Location { text, topic, .. } = location;
    Error::input(format!(
        "`{text}`: the brokers do not permit it ({code}): allow this user Describe on topic `{topic}`, and Read \
         for a source or Write for a sink, or give other \
         credentials as properties (sasl.username, sasl.password, ssl.certificate.location, …)"
    ))
}

/// Why a message of so many bytes was not delivered, or why nothing could be produced.
pub(crate) fn undelivered(location: &Location, code: Code, bytes: usize) -> Error {
    let Location { text, topic, .. } = location;
    match (trouble(code), code) {
        (Trouble::Gone, _) => Error::stopped(format!(
            "`{text}`: topic `{topic}` is no longer there ({code}): create it again, and run again"
        )),
        (Trouble::Denied, _) => denied(location, code),
        (_, Code::TransactionalIdAuthorizationFailed | Code::GroupAuthorizationFailed) => Error::input(format!(
            "`{text}`: the brokers do not permit it ({code}): for delivery = 'exactly once' allow this user Describe and Write \
             on transactional ids, and Describe and Read on groups, that begin with watershed-"
        )),
        (_, Code::InvalidTransactionTimeout) => Error::input(format!(
            "`{text}`: the brokers do not let transactions be open for so long ({code}): give kafka.transaction.timeout.ms of at \
             most their transaction.max.timeout.ms"
        )),
        (_, Code::MessageSizeTooLarge) => Error::input(format!(
            "`{text}`: a message of {bytes} bytes is more than the topic takes, or those that were sent with it are ({code}): raise \
             max.message.bytes of topic `{topic}` and run again, which goes on; or give a smaller kafka.batch.size"
        )),
        (_, Code::InvalidRecord) => Error::input(format!(
            "`{text}`: the brokers do not take a message of {bytes} bytes ({code}): a topic that is compacted wants a key (key = \
             'column, …')"
        )),
        (_, Code::PolicyViolation) => {
            Error::input(format!("`{text}`: a policy of the brokers forbids a message ({code})"))
        }
        _ => Error::storage_unknown("could not produce to", text, code.to_string()),
    }
}

/// Why asking about a topic failed. `said` is the latest that librdkafka told of connections.
pub(crate) fn unanswered(location: &Location, code: Code, said: Option<(Code, String)>) -> Error {
    let Location { text, brokers, topic } = location;
    match (trouble(code), said) {
        (Trouble::Gone, _) => Error::input(format!(
            "`{text}`: the brokers at {brokers} have no topic `{topic}`: Watershed makes no topics: create it, or mend its name"
        )),
        (Trouble::Denied, _) => denied(location, code),
        (_, Some((Code::Authentication | Code::SaslAuthenticationFailed, said))) => Error::input(format!(
            "`{text}`: the brokers do not accept who we are: {said}; see the properties security.protocol, sasl.mechanism, \
             sasl.username and sasl.password"
        )),
        (_, Some((Code::SSL, said))) => Error::input(format!(
            "`{text}`: no TLS with the brokers: {said}; see the properties security.protocol, ssl.ca.location and \
             ssl.endpoint.identification.algorithm"
        )),
        (_, said) => {
            let said = said.map(|(code, said)| reason(code, &said)).unwrap_or_else(|| code.to_string());
            let why = format!(
                "{said}; see that the brokers can be reached, also under the names they call themselves by \
                 (advertised.listeners), and that the property security.protocol is what they speak"
            );
            Error::storage("cannot ask about", text, why)
        }
    }
}

/// The text of librdkafka, with the code where it does not tell it itself.
pub(crate) fn reason(code: Code, said: &str) -> String {
    match said {
        "" => code.to_string(),
        _ => said.to_string(),
    }
}

/// A step of work on another thread came to no end.
pub(crate) fn joined<T>(result: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    result.unwrap_or_else(|e| Err(Error::bug(format!("a thread that asks Kafka ended: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        Location::parse("kafka://broker:9092/flights").unwrap()
    }

    #[test]
    fn what_a_part_does_not_have_is_told_with_what_it_has() {
        let now = 100..250;
        for (asked, fine) in [(99, false), (100, true), (250, true), (251, false)] {
            let gap = gap(&location(), 2, asked, Some(&now));
            assert_eq!(gap.is_none(), fine, "{asked}");
            if let Some(e) = gap {
                let said = e.to_string();
                assert!(matches!(e, Error::Stopped(_)), "{said}");
                for part in ["kafka://broker:9092/flights", "partition 2", &asked.to_string(), "100 to 250"] {
                    assert!(said.contains(part), "{said}");
                }
            }
        }
        assert!(gap(&location(), 7, 0, None).unwrap().to_string().contains("no partition 7"));
    }

    #[test]
    fn what_is_not_known_to_pass_ends_the_reading() {
        for code in [Code::BadMessage, Code::BadCompression, Code::NotImplemented, Code::InvalidRecord, Code::Fatal] {
            assert_eq!(trouble(code), Trouble::Unreadable);
            assert!(matches!(ended(&location(), 0, code, "why"), Error::Stopped(_)));
        }
        assert_eq!(trouble(Code::AllBrokersDown), Trouble::Passes);
        assert_eq!(trouble(Code::AutoOffsetReset), Trouble::Gap);
    }

    #[test]
    fn whose_turn_it_is_shows_in_the_kind() {
        let of = |code, said| unanswered(&location(), code, said);
        let unknown = of(Code::UnknownTopicOrPartition, None);
        assert!(matches!(&unknown, Error::Input(said) if said.contains("`flights`") && said.contains("broker:9092")));
        assert!(matches!(of(Code::TopicAuthorizationFailed, None), Error::Input(_)));
        let refused = Some((Code::Authentication, "invalid credentials".to_string()));
        assert!(matches!(of(Code::OperationTimedOut, refused), Error::Input(_)));
        let down = Some((Code::BrokerTransportFailure, "Connection refused".to_string()));
        let down = of(Code::OperationTimedOut, down);
        assert!(matches!(&down, Error::Storage { .. }) && down.to_string().contains("Connection refused"), "{down}");
    }
}
