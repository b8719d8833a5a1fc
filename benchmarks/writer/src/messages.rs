//! Messages for a log: JSON of one size, each a function of its number and its time.
//!
//! `{"at":"2026-01-01T00:00:00.000000Z","site":"s0042","page":"/…","n":17,"v":123.45,"ok":true,"pad":"…"}`
//!
//! Either as fast as the broker takes them, with times that are a function of the number; or so many a second, each with the
//! time at which it was handed to the client library. A partition's messages are in the order of their numbers.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde_json::json;
use watershed_core::EventTime;
use watershed_core::clock::{Clock, SystemClock, mix};

use crate::Result;

/// 2026-01-01T00:00:00Z
const FIRST: i64 = 1_767_225_600_000_000;

const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Messages {
    topic: String,
    /// A bootstrap.servers
    #[arg(long)]
    brokers: String,
    /// Make the topic first
    #[arg(long)]
    create: bool,
    /// Of the topic that is made, messages have the time at which the broker took them
    #[arg(long)]
    append_time: bool,
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// How many messages
    #[arg(long)]
    count: u64,
    /// The number of the first
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Microseconds of event time between one message and the next
    #[arg(long, default_value_t = 1000)]
    every: i64,
    /// Messages a second, whose event time is the time at which they are sent; without it as many as can be sent
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long, default_value_t = 1000)]
    sites: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// How batches are compressed: none, lz4, snappy
    #[arg(long, default_value = "lz4")]
    compression: String,
}

impl Messages {
    /// Sends all, and tells what was sent and how long it took until all were acknowledged.
    pub(crate) async fn run(self) -> Result<()> {
        if self.create {
            self.make_topic().await?;
        }
        let producer: BaseProducer<Deliveries> = self.client().create_with_context(Deliveries::default())?;
        let clock = SystemClock::default();
        let began = clock.elapsed();
        let (mut text, mut bytes, mut behind) = (Vec::with_capacity(self.size), 0, Duration::ZERO);
        for done in 0..self.count {
            let number = self.from + done;
            let at = match self.rate {
                None => EventTime(FIRST + number as i64 * self.every),
                Some(rate) => {
                    let due = Duration::from_nanos(done * 1_000_000_000 / rate);
                    loop {
                        let since = clock.elapsed() - began;
                        if since >= due {
                            behind = behind.max(since - due);
                            break;
                        }
                        producer.poll(Duration::from_millis(1));
                    }
                    clock.now()
                }
            };
            self.write(&mut text, number, at);
            bytes += text.len();
            let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic)
                .partition((number % self.partitions as u64) as i32)
                .payload(&text);
            while let Err((e, unsent)) = producer.send(record) {
                if e.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(e.into());
                }
                producer.poll(Duration::from_millis(5));
                record = unsent;
            }
        }
        producer.flush(TIMEOUT)?;
        let refused = producer.context().refused();
        if refused > 0 {
            return Err(format!("{refused} messages were not acknowledged").into());
        }
        let seconds = (clock.elapsed() - began).as_secs_f64();
        println!(
            "{}",
            json!({"messages": self.count, "bytes": bytes, "seconds": seconds, "behind": behind.as_secs_f64()})
        );
        Ok(())
    }

    async fn make_topic(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(1));
        let time = if self.append_time { "LogAppendTime" } else { "CreateTime" };
        let topic = topic.set("message.timestamp.type", time);
        for made in admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await? {
            made.map_err(|(topic, code)| format!("topic {topic} could not be made: {code}"))?;
        }
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.brokers)
            .set("compression.type", &self.compression)
            .set("linger.ms", if self.rate.is_some() { "1" } else { "50" })
            .set("batch.num.messages", "50000")
            .set("batch.size", "900000")
            .set("queue.buffering.max.messages", "400000")
            .set("queue.buffering.max.kbytes", "131072")
            // Only what fails is told: a call for each message would cost more than sending it.
            .set("delivery.report.only.error", "true");
        client
    }

    fn write(&self, text: &mut Vec<u8>, number: u64, at: EventTime) {
        let drawn = mix(number);
        text.clear();
        text.extend_from_slice(br#"{"at":""#);
        iso(text, at.0);
        // Into memory: nothing that can fail.
        let _ = write!(
            text,
            r#"","site":"s{:04}","page":"/shelf/{}/item/{}","n":{number},"v":{}.{:02},"ok":{},"pad":""#,
            drawn % self.sites,
            (drawn >> 20) % 50,
            (drawn >> 26) % 10_000,
            (drawn >> 40) % 1000,
            (drawn >> 50) % 100,
            (drawn >> 57).is_multiple_of(2),
        );
        let mut letters = mix(drawn);
        while text.len() + 2 < self.size {
            text.push(b'a' + (letters & 15) as u8);
            letters = if letters >> 4 == 0 { mix(drawn ^ text.len() as u64) } else { letters >> 4 };
        }
        text.extend_from_slice(br#""}"#);
    }
}

/// `2026-01-01T00:00:00.000000Z`, from microseconds since 1970. (Days to a date: Hinnant's `civil_from_days`.)
fn iso(text: &mut Vec<u8>, micros: i64) {
    let (days, of_day) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut digits = |value: i64, count: u32, after: u8| {
        for place in (0..count).rev() {
            text.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
        }
        text.push(after);
    };
    digits(year, 4, b'-');
    digits(month, 2, b'-');
    digits(day, 2, b'T');
    digits(hour, 2, b':');
    digits(minute, 2, b':');
    digits(second, 2, b'.');
    digits(micros, 6, b'Z');
}

/// How many messages were not acknowledged.
#[derive(Default)]
struct Deliveries(AtomicU64);

impl Deliveries {
    fn refused(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
