//! A sieve before the look-up: most rows of a file are told to be none of the changed ones without hashing their key.
//!
//! A print is 32 bits of a key's columns as far as files hold them, cheaply made; it says nothing about who wrote them, and
//! whoever makes many keys with one print only makes look-ups slower. A sieve is a bitmap of the prints of a group's changes,
//! about a sixteenth filled, so that a file with none of the keys passes one row in sixteen on to be hashed.
//!
//! **Invariant:** rows with equal keys have equal prints: a row that the sieve holds back has none of its keys.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

/// Bits of a sieve for each key.
const BITS: usize = 16;
/// Of the largest: 4 MB.
const MOST_BITS: u32 = 25;
const LEAST_BITS: u32 = 10;

/// Odd, without a pattern: a product's high bits depend on all bits of the other factor below them.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Which prints some keys have.
#[derive(Debug)]
pub(crate) struct Sieve {
    words: Vec<u64>,
    shift: u32,
}

impl Sieve {
    /// For that many prints.
    pub(crate) fn new(keys: usize, prints: impl Iterator<Item = u32>) -> Sieve {
        let wanted = keys.saturating_mul(BITS).next_power_of_two().trailing_zeros();
        let bits = wanted.clamp(LEAST_BITS, MOST_BITS);
        let mut sieve = Sieve { words: vec![0; 1 << (bits - 6)], shift: 32 - bits };
        for print in prints {
            let at = print >> sieve.shift;
            sieve.words[(at >> 6) as usize] |= 1 << (at & 63);
        }
        sieve
    }

    fn passes(&self, print: u32) -> bool {
        let at = print >> self.shift;
        self.words[(at >> 6) as usize] >> (at & 63) & 1 == 1
    }

    /// The rows whose prints are known here.
    pub(crate) fn rows(&self, prints: &[u32]) -> Vec<u32> {
        let rows = prints.iter().enumerate().filter(|(_, print)| self.passes(**print));
        rows.map(|(row, _)| row as u32).collect()
    }
}

/// The prints of rows; `None` for columns of types that have none.
pub(crate) fn prints(columns: &[ArrayRef]) -> Option<Vec<u32>> {
    let first = columns.first()?;
    let mut mixed = vec![0u64; first.len()];
    for column in columns {
        mix(column, &mut mixed)?;
    }
    Some(mixed.into_iter().map(|word| (word.wrapping_mul(SPREAD) >> 32) as u32).collect())
}

fn mix(column: &ArrayRef, into: &mut [u64]) -> Option<()> {
    // What lies under a NULL is not defined.
    if column.null_count() > 0 {
        return None;
    }
    macro_rules! numbers {
        ($kind:ty) => {
            for (word, value) in into.iter_mut().zip(column.as_primitive::<$kind>().values()) {
                *word = step(*word, i64::from(*value) as u64);
            }
        };
    }
    match column.data_type() {
        DataType::Int8 => numbers!(Int8Type),
        DataType::Int16 => numbers!(Int16Type),
        DataType::Int32 => numbers!(Int32Type),
        DataType::Int64 => numbers!(Int64Type),
        DataType::Date32 => numbers!(Date32Type),
        DataType::Timestamp(TimeUnit::Microsecond, _) => numbers!(TimestampMicrosecondType),
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            for (word, row) in into.iter_mut().zip(0..texts.len()) {
                *word = text(*word, texts.value(row).as_bytes());
            }
        }
        _ => return None,
    }
    Some(())
}

fn step(word: u64, value: u64) -> u64 {
    (word.rotate_left(29) ^ value).wrapping_mul(SPREAD) ^ (word >> 32)
}

fn text(word: u64, bytes: &[u8]) -> u64 {
    let mut word = step(word, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        word = step(word, u64::from_le_bytes(eight));
    }
    word
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn no_key_is_held_back_and_few_others_pass() {
        let of = |range: std::ops::Range<i64>| {
            let texts: StringArray = range.clone().map(|i| Some(format!("some text, {i}"))).collect();
            let columns: [ArrayRef; 2] = [Arc::new(Int64Array::from_iter_values(range)), Arc::new(texts)];
            prints(&columns).unwrap()
        };
        let known = of(0..5000);
        let sieve = Sieve::new(known.len(), known.iter().copied());
        assert_eq!(sieve.rows(&known).len(), 5000);
        let others = sieve.rows(&of(5000..105_000)).len();
        assert!(others < 8000, "{others} of 100000");
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1 << 16).map(|i| i * 1024)));
        let spread: std::collections::BTreeSet<u32> =
            prints(&[numbers]).unwrap().into_iter().map(|p| p >> 12).collect();
        assert!(spread.len() > 50_000, "{}", spread.len());
    }

    #[test]
    fn some_columns_have_no_prints() {
        let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.0]));
        let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        assert_eq!((prints(&[floats]), prints(&[nulls]), prints(&[])), (None, None, None));
    }
}
