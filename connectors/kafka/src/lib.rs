//! Kafka as the tail of a source, and as the result of a job: a topic is the log, its partitions are the parts.
//!
//! ```text
//!  kafka://broker:9092/topic ──location, options──▶ KafkaTail ──ask──▶ what the topic has, and from when
//!                                                       │
//!                        librdkafka ──▶ fetch (a thread) ──gather──▶ reader ──▶ core's Messages
//!
//!  at least once:  messages ──outbox──▶ librdkafka ──▶ topic
//!  exactly once:   messages ──staged──▶ a file ──(manifest)──▶ once: one transaction of the file and of the epoch's number
//! ```
//!
//! Modules in reading order:
//!
//! * `location`: which brokers, which topic.
//! * `options`: properties of librdkafka: the user's, ours, and those that nobody may set.
//! * `events`: what librdkafka tells besides messages.
//! * `trouble`: what an error means for a reader, and how it is worded.
//! * `ask`: what a topic has, where it stood at a time, and how far the job is.
//! * `headers`: headers of messages, if they are asked for.
//! * `gather`: messages of one part, on their way to be columns.
//! * `fetch`: the thread that takes messages from librdkafka.
//! * `reader`: the other end of that thread.
//! * `tail`: all of it, as core sees it.
//! * `outbox`: messages on their way to a topic, and what became of them.
//! * `staged`: messages of an epoch in a file.
//! * `once`: an epoch's transaction, and how it is found out whether it is there.
//! * `sink`: all of it, as core sees it.
//!
//! What was decided here, and why:
//!
//! * Parts are assigned at exact offsets, never subscribed to, and where an offset is gone reading ends. Groups of Kafka and
//!   their offsets decide nothing.
//! * A part's end is the high watermark, where the next message will be written. Where transactions are open, what can be
//!   read ends before it; a reader then says `at_end` short of the end that [`Tail::look`] tells.
//! * A topic's id is read from what librdkafka logs, for there is no other door to it without unsafe code. A topic that was
//!   made anew under its old name is noticed by it, also while it is being read.
//! * Brokers that cannot be reached end nothing: librdkafka tries again for ever, and the log says so once.
//!
//! * A sink's epoch is known by a private group's offset on the topic's partition 0: a transaction commits it with the messages, so
//!   it is there if and only if they are. No message says what epoch it is of.
//! * A transaction is begun, and an older runner fenced by it, when an epoch is committed, not when a run begins: until then
//!   whoever writes the next manifest wins, and a runner that loses that has done no harm.
//!
//! **Invariant:** what a reader hands over of a part is every message from the offset on that it was told, in order, once.
//! Only what transactions took back and what compaction removed is left out.
//!
//! [`Tail::look`]: watershed_core::tail::Tail::look

mod location;

mod options;

mod events;

mod trouble;

mod ask;

mod headers;

mod gather;

mod fetch;

mod reader;

mod tail;

mod outbox;

mod staged;

mod once;

mod sink;

pub use sink::{Delivery, KafkaSink};
pub use staged::Staging;
pub use tail::KafkaTail;
