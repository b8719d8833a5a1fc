//! Messages as lines, a payload each.
//!
//! Invariant: a message is one line, and a line one message.

use arrow::array::{Array, AsArray, BinaryArray};
use arrow::record_batch::RecordBatch;
use watershed_core::{Error, Result};

/// The payloads of core's [`message_schema`](watershed_core::sink::message_schema), with a line feed behind each.
pub(crate) fn lines(messages: &RecordBatch) -> Result<Vec<u8>> {
    let payloads: Option<&BinaryArray> = messages.columns().get(1).and_then(|column| column.as_binary_opt());
    let payloads = payloads.ok_or_else(|| Error::bug("messages are not two columns of bytes"))?;
    if payloads.null_count() > 0 {
        return Err(Error::bug("a deleted key cannot be a line"));
    }
    let mut lines = Vec::with_capacity(payloads.value_data().len() + payloads.len());
    for payload in payloads.iter().flatten() {
        if payload.contains(&b'\n') {
            return Err(Error::bug("a message of several lines"));
        }
        lines.extend_from_slice(payload);
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use watershed_core::sink::message_schema;

    use super::*;

    #[test]
    fn a_message_is_a_line() {
        let messages = |payloads: Vec<Option<&[u8]>>| {
            let payloads: BinaryArray = payloads.into_iter().collect();
            RecordBatch::try_new(message_schema(), vec![Arc::new(payloads.clone()), Arc::new(payloads)]).unwrap()
        };
        assert_eq!(lines(&messages(vec![Some(b"{}"), Some(b"{\"a\":1}")])).unwrap(), b"{}\n{\"a\":1}\n");
        assert!(lines(&messages(vec![])).unwrap().is_empty());
        assert!(lines(&messages(vec![Some(b"{}"), None])).is_err());
        assert!(lines(&messages(vec![Some(b"{\n}")])).is_err());
    }
}
