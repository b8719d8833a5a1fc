//! Messages of one part, on their way to be columns.
//!
//! Invariant: `next` lies behind all that was taken in; what lies before it does not come again.

use arrow::array::{BinaryBuilder, Int64Array, TimestampMillisecondBuilder};
use rdkafka::Message;
use watershed_core::Result;
use watershed_core::tail::{Messages, Part};

use crate::headers::Headers;

/// Messages of one batch, at most.
const ROWS: usize = 8192;

/// Bytes of one batch from which on it is full.
const BYTES: usize = 2 << 20;

pub(crate) struct Gather {
    pub(crate) part: Part,
    /// The offset of the next message to be taken in.
    pub(crate) next: i64,
    /// The part's end was reached, and nothing came since; told with the next batch.
    pub(crate) at_end: bool,
    offsets: Vec<i64>,
    timestamps: TimestampMillisecondBuilder,
    keys: BinaryBuilder,
    payloads: BinaryBuilder,
    /// `None`: nobody asks for them.
    headers: Option<Headers>,
    bytes: usize,
}

impl Gather {
    pub(crate) fn new(part: Part, next: i64, with_headers: bool) -> Gather {
        Gather {
            part,
            next,
            at_end: false,
            offsets: Vec::new(),
            timestamps: TimestampMillisecondBuilder::new(),
            keys: BinaryBuilder::new(),
            payloads: BinaryBuilder::new(),
            headers: with_headers.then(Headers::default),
            bytes: 0,
        }
    }

    /// Takes a message in; `false` if its offset lies before the one that is next.
    #[must_use]
    pub(crate) fn take_in(&mut self, message: &impl Message) -> bool {
        let offset = message.offset();
        if offset < self.next {
            return false;
        }
        let (key, payload) = (message.key(), message.payload());
        self.offsets.push(offset);
        self.timestamps.append_option(message.timestamp().to_millis());
        self.keys.append_option(key);
        self.payloads.append_option(payload);
        self.bytes += key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len);
        self.bytes += self.headers.as_mut().map_or(0, |headers| headers.take_in(message.headers()));
        self.next = offset + 1;
        self.at_end = false;
        true
    }

    pub(crate) fn is_full(&self) -> bool {
        self.offsets.len() >= ROWS || self.bytes >= BYTES
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something to tell.
    pub(crate) fn has_news(&self) -> bool {
        self.at_end || !self.offsets.is_empty()
    }

    /// What was taken in since the last time.
    pub(crate) fn hand_over(&mut self) -> Result<Messages> {
        // The next batch will be much like this one.
        let (rows, keys) = (self.offsets.len(), self.keys.values_slice().len());
        let payloads = self.payloads.values_slice().len();
        let messages = Messages {
            part: self.part,
            offsets: Int64Array::from(std::mem::replace(&mut self.offsets, Vec::with_capacity(rows))),
            timestamps: self.timestamps.finish(),
            keys: self.keys.finish(),
            payloads: self.payloads.finish(),
            headers: self.headers.as_mut().map(Headers::hand_over).transpose()?,
            next: self.next,
            at_end: self.at_end,
        };
        self.timestamps = TimestampMillisecondBuilder::with_capacity(rows);
        self.keys = BinaryBuilder::with_capacity(rows, keys);
        self.payloads = BinaryBuilder::with_capacity(rows, payloads);
        self.bytes = 0;
        self.at_end = false;
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;

    fn message(offset: i64, key: Option<&str>, payload: Option<&str>) -> OwnedMessage {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let time = if offset % 2 == 0 { Timestamp::CreateTime(offset * 10) } else { Timestamp::NotAvailable };
        OwnedMessage::new(bytes(payload), bytes(key), "topic".to_string(), time, 3, offset, None)
    }

    #[test]
    fn messages_become_columns_in_their_order() {
        let mut gather = Gather::new(3, 4, false);
        assert!(!gather.has_news());
        assert!(gather.take_in(&message(4, Some("k"), Some("one"))));
        assert!(gather.take_in(&message(7, None, None)));
        assert!(gather.take_in(&message(8, Some(""), Some(""))));
        let batch = gather.hand_over().unwrap();
        assert_eq!((batch.part, batch.next, batch.at_end, batch.len(), batch.bytes()), (3, 9, false, 3, 4));
        assert_eq!(batch.offsets.values(), &[4, 7, 8]);
        assert_eq!((batch.keys.value(0), batch.keys.is_null(1), batch.keys.is_null(2)), (&b"k"[..], true, false));
        assert_eq!((batch.payloads.value(0), batch.payloads.is_null(1)), (&b"one"[..], true));
        assert_eq!((batch.timestamps.value(0), batch.timestamps.is_null(1)), (40, true));
        assert!(batch.headers.is_none() && !gather.has_news());
        assert!(!gather.take_in(&message(8, None, None)), "an offset does not come twice");
    }

    #[test]
    fn headers_are_there_if_they_are_asked_for() {
        let mut gather = Gather::new(0, 0, true);
        let headers = OwnedHeaders::new().insert(Header { key: "trace", value: Some("abc") });
        let with = |offset, headers| {
            let payload = Some(b"x".to_vec());
            OwnedMessage::new(payload, None, "topic".to_string(), Timestamp::NotAvailable, 0, offset, headers)
        };
        assert!(gather.take_in(&with(0, Some(headers))) && gather.take_in(&with(1, None)));
        assert_eq!(gather.bytes(), 2 + 8);
        let batch = gather.hand_over().unwrap();
        assert_eq!((batch.bytes(), batch.headers.unwrap().value_length(0)), (2 + 8, 1));
        assert_eq!(gather.hand_over().unwrap().headers.unwrap().len(), 0);
    }

    #[test]
    fn an_end_is_told_once_and_not_if_something_came_after_it() {
        let mut gather = Gather::new(0, 0, false);
        gather.at_end = true;
        let batch = gather.hand_over().unwrap();
        assert!(batch.at_end && batch.is_empty() && !gather.has_news());
        gather.at_end = true;
        assert!(gather.take_in(&message(0, None, None)));
        assert!(!gather.hand_over().unwrap().at_end);
    }

    #[test]
    fn a_batch_is_full_by_rows_or_by_bytes() {
        let mut gather = Gather::new(0, 0, false);
        let large = "x".repeat(BYTES);
        assert!(gather.take_in(&message(0, None, Some(&large))) && gather.is_full());
        gather.hand_over().unwrap();
        for offset in 1..=ROWS as i64 {
            assert!(!gather.is_full());
            assert!(gather.take_in(&message(offset, None, None)));
        }
        assert!(gather.is_full());
    }
}
