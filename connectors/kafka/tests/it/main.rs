//! The tail on a broker, from outside. `WATERSHED_TEST_KAFKA_AT=127.0.0.1:9092` names one that tests may make topics on and
//! that runs with `auto.create.topics.enable=false`; without it they say that they were skipped.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so best by stopping there.

mod topic;

mod asking;

mod reading;

mod ending;

mod outage;

mod pace;
