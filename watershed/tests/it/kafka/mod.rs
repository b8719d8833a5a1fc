//! Watershed and Kafka: everything over a real Kafka, which [`broker`] starts from the jars that `WATERSHED_KAFKA` names.

pub(crate) mod broker;

mod beside;

mod by_time;

mod debezium;

mod headers;

mod history_and_log;

mod inferred;

mod kills;

mod lag;

mod messages;

mod protobuf;

mod repaired;

mod replayed;

mod sink;

mod sink_killed;

mod soak;

mod world;
