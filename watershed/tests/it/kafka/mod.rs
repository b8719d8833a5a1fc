//! Watershed and Kafka: everything over a real Kafka, which [`broker`] starts from the jars that `WATERSHED_KAFKA` names.

mod broker;

mod history_and_log;

mod messages;

mod sink;

mod sink_killed;

mod world;
