//! Decimals as JSON has them: base64 of a large integer's bytes, the highest first, in two's complement, which is the digits
//! without the point (`decimal.handling.mode = 'precise'`, the default); or a number, where Kafka Connect's converter was
//! told so (`decimal.format = 'NUMERIC'`).
//!
//! Invariant: text and numbers are not confused. `1234` is both base64 and a number, and arrow's reader does not say which of
//! them it was; then the message is asked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Builder, StringArray};
use arrow::datatypes::DataType;
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::number::Number;
use crate::text::{Refused, refused};

/// Text as decimals of the column's type, of digits of which so many stand behind the point.
pub(crate) fn unscaled(
    texts: &StringArray,
    scale: i32,
    to: &DataType,
    is_text: &dyn Fn(usize) -> Option<bool>,
) -> (ArrayRef, Refused) {
    let (precision, column_scale) = match to {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => (38, 0),
    };
    let most = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    let mut builder = Decimal128Builder::with_capacity(texts.len()).with_data_type(to.clone());
    let mut all = Refused::new();
    for (row, text) in texts.iter().enumerate() {
        let value = text.and_then(|text| {
            let value = match (Number::parse(text), BASE64_STANDARD.decode(text).ok()) {
                (Some(number), Some(bytes)) => match is_text(row)? {
                    true => rescaled(integer(&bytes)?, scale, column_scale),
                    false => number.scaled(column_scale.into())?.exact(),
                },
                (Some(number), None) => number.scaled(column_scale.into())?.exact(),
                (None, Some(bytes)) => rescaled(integer(&bytes)?, scale, column_scale),
                (None, None) => None,
            };
            value.filter(|value| -most < *value && *value < most)
        });
        if let (Some(text), None) = (text, value) {
            all.insert(row, refused(text, to, "; it should be a decimal's bytes in base64, or a number"));
        }
        builder.append_option(value);
    }
    (Arc::new(builder.finish()), all)
}

/// Digits behind another point; `None`: they do not fit, or some would be lost.
fn rescaled(value: i128, from: i32, to: i8) -> Option<i128> {
    let more = u32::try_from(i32::from(to).checked_sub(from)?).ok()?;
    value.checked_mul(10i128.checked_pow(more)?)
}

/// An integer of any number of bytes; `None`: it is none, or beyond 128 bits.
fn integer(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let sign = if negative { 0xff } else { 0 };
    let (more, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut whole = [sign; 16];
    whole[16 - kept.len()..].copy_from_slice(kept);
    let value = i128::from_be_bytes(whole);
    (more.iter().all(|byte| *byte == sign) && (value < 0) == negative).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_length() {
        assert_eq!(integer(&[]), None);
        assert_eq!(integer(&[0]), Some(0));
        assert_eq!(integer(&[0xff]), Some(-1));
        assert_eq!(integer(&[0x7f, 0xff]), Some(32767));
        assert_eq!(integer(&[0x80, 0]), Some(-32768));
        assert_eq!(integer(&[0, 0x80]), Some(128));
        assert_eq!(integer(&i128::MIN.to_be_bytes()), Some(i128::MIN));
        assert_eq!(integer(&[&[0xff; 4][..], &i128::MIN.to_be_bytes()].concat()), Some(i128::MIN));
        assert_eq!(integer(&[&[0][..], &i128::MIN.to_be_bytes()].concat()), None);
        assert_eq!(integer(&[&[1][..], &[0; 16]].concat()), None);
    }

    #[test]
    fn digits_are_never_lost() {
        assert_eq!(rescaled(-1234, 2, 4), Some(-123_400));
        assert_eq!(rescaled(5, -2, 1), Some(5_000));
        assert_eq!(rescaled(1234, 3, 2), None);
        assert_eq!(rescaled(i128::MAX, 0, 1), None);
        assert_eq!(rescaled(1, i32::MIN, 0), None);
    }
}
