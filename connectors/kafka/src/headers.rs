//! Headers of messages, on their way to be a column.
//!
//! They are a list of names and values in the order in which they were written, not a map: Kafka allows a name twice, and
//! tools that route a message again add theirs each time.
//!
//! Names are text by Kafka's protocol. A producer that writes other bytes makes rdkafka panic when such a name is asked for, and
//! there is no other door to it without unsafe code; so the panic ends here, and the name is NULL.
//!
//! Invariant: a message has all its headers or none here, and those who do not ask for them pay nothing: librdkafka does not
//! even take them apart.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{BinaryBuilder, ListArray, StringBuilder, StructArray};
use arrow::buffer::OffsetBuffer;
use watershed_core::tail::{header_fields, header_item};
use watershed_core::{Error, Result};

#[derive(Default)]
pub(crate) struct Headers {
    /// How many each message has.
    counts: Vec<usize>,
    names: StringBuilder,
    values: BinaryBuilder,
}

impl Headers {
    /// Takes those of a message in; how many bytes they hold.
    pub(crate) fn take_in(&mut self, headers: Option<&impl rdkafka::message::Headers>) -> usize {
        let Some(headers) = headers else {
            self.counts.push(0);
            return 0;
        };
        let (count, mut bytes) = (headers.count(), 0);
        for at in 0..count {
            match catch_unwind(AssertUnwindSafe(|| headers.try_get(at))) {
                Ok(Some(header)) => {
                    self.names.append_value(header.key);
                    self.values.append_option(header.value);
                    bytes += header.key.len() + header.value.map_or(0, <[u8]>::len);
                }
                Ok(None) | Err(_) => {
                    self.names.append_null();
                    self.values.append_null();
                }
            }
        }
        self.counts.push(count);
        bytes
    }

    /// What was taken in since the last time.
    pub(crate) fn hand_over(&mut self) -> Result<ListArray> {
        let odd = |e: arrow::error::ArrowError| Error::bug(format!("headers of messages: {e}"));
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.counts));
        let columns = vec![Arc::new(self.names.finish()) as _, Arc::new(self.values.finish()) as _];
        let items = StructArray::try_new(header_fields(), columns, None).map_err(odd)?;
        ListArray::try_new(header_item(), offsets, Arc::new(items), None).map_err(odd)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use rdkafka::message::{Header, OwnedHeaders};

    use super::*;

    /// One header, whose name is read as rdkafka reads it.
    struct Named(&'static [u8]);

    impl rdkafka::message::Headers for Named {
        fn count(&self) -> usize {
            1
        }

        fn try_get(&self, _: usize) -> Option<Header<'_, &[u8]>> {
            Some(Header { key: std::str::from_utf8(self.0).unwrap(), value: Some(b"v") })
        }
    }

    #[test]
    fn all_headers_are_kept_in_their_order() {
        let some = OwnedHeaders::new()
            .insert(Header { key: "a", value: Some(&b"\xff\x00"[..]) })
            .insert(Header { key: "a", value: None::<&[u8]> })
            .insert(Header { key: "", value: Some(&b""[..]) });
        let mut headers = Headers::default();
        assert_eq!(headers.take_in(Some(&some)), 4);
        assert_eq!(headers.take_in(None::<&OwnedHeaders>), 0);
        assert_eq!(headers.take_in(Some(&OwnedHeaders::new())), 0);
        let list = headers.hand_over().unwrap();
        assert_eq!((0..3).map(|at| list.value_length(at)).collect::<Vec<_>>(), [3, 0, 0]);
        assert_eq!(list.null_count(), 0);
        let items = list.values().as_struct();
        let (names, values) = (items.column(0).as_string::<i32>(), items.column(1).as_binary::<i32>());
        assert_eq!(names.iter().collect::<Vec<_>>(), [Some("a"), Some("a"), Some("")]);
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"\xff\x00"[..]), None, Some(b"")]);
        assert_eq!(headers.hand_over().unwrap().len(), 0);
    }

    #[test]
    fn a_name_that_is_no_text_is_null_and_ends_nothing() {
        let mut headers = Headers::default();
        headers.take_in(Some(&Named(b"\xff")));
        assert_eq!(headers.take_in(Some(&Named(b"good"))), 5);
        let list = headers.hand_over().unwrap();
        let items = list.values().as_struct();
        assert_eq!(items.column(0).as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("good")]);
    }
}
