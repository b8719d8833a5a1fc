//! The tail on a broker, from outside: one that `WATERSHED_KAFKA` has the jars of, or that runs at `WATERSHED_TEST_KAFKA_AT`
//! with `auto.create.topics.enable=false`. Without either these tests say that they were skipped.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so best by stopping there.

mod broker;

mod topic;

mod asking;

mod reading;

mod ending;
