//! Keys as hashes of 128 bits: what rows are told apart by everywhere in keyed tables.
//!
//! Key columns, as the table has their types, become comparable bytes (Arrow's row format), and these a SipHash-1-3 of 128
//! bits under a secret that each process draws anew. Two keys of a billion share one by chance in one of 10^20 tables, and
//! nobody who writes rows can make two that do. Since the secret is forgotten, no hash is ever written down.
//!
//! NULL is a value like others here; whether a key may be NULL is the table's affair.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::FormatOptions;
use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;
use watershed_core::{Error, Result};

/// A key.
pub(crate) type KeyHash = [u64; 2];

/// A map by key.
pub(crate) type KeyMap<V> = HashMap<KeyHash, V, BuildHasherDefault<Hashed>>;

/// Takes keys as the hashes that they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let length = bytes.len().min(8);
        word[..length].copy_from_slice(&bytes[..length]);
        self.0 ^= u64::from_ne_bytes(word);
    }

    // The number of words, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes the key columns of one table.
#[derive(Debug)]
pub(crate) struct Keyer {
    converter: RowConverter,
    secret: [u8; 16],
}

impl Keyer {
    /// For key columns of these types.
    pub(crate) fn new(types: &[DataType], secret: Uuid) -> Result<Keyer> {
        let fields = types.iter().map(|t| SortField::new(t.clone())).collect();
        let converter = RowConverter::new(fields)
            .map_err(|e| Error::input(format!("columns of these types cannot be a key together: {e}")))?;
        Ok(Keyer { converter, secret: *secret.as_bytes() })
    }

    /// The keys of rows, whose columns have the types that were given.
    pub(crate) fn hashes(&self, columns: &[ArrayRef]) -> Result<Vec<KeyHash>> {
        let rows = self.converter.convert_columns(columns).map_err(|e| Error::bug(format!("keys as bytes: {e}")))?;
        let fresh = SipHasher13::new_with_key(&self.secret);
        let hash = |row: arrow::row::Row<'_>| {
            let mut hasher = fresh;
            hasher.write(row.as_ref());
            let hash = hasher.finish128();
            [hash.h1, hash.h2]
        };
        Ok(rows.iter().map(hash).collect())
    }
}

/// Whether a column can say which version of a row is newer.
pub(crate) fn orders(data_type: &DataType) -> bool {
    data_type.is_integer() && *data_type != DataType::UInt64
        || matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
}

/// A sequence column as numbers in the same order.
pub(crate) fn sequence(column: &ArrayRef) -> Result<Int64Array> {
    let plain = match column.data_type() {
        // By way of the number of days.
        DataType::Date32 => cast_strictly(column, &DataType::Int32)?,
        _ => column.clone(),
    };
    Ok(cast_strictly(&plain, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn cast_strictly(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, format_options: FormatOptions::new() };
    cast_with_options(column, to, &options).map_err(|e| Error::bug(format!("a sequence as numbers: {e}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Int32Array, StringArray};

    use super::*;

    #[test]
    fn keys_are_told_apart_by_all_their_columns() {
        let keyer = Keyer::new(&[DataType::Utf8, DataType::Int32], Uuid::from_u128(7)).unwrap();
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a"), None, Some(""), Some("a")]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(1), Some(1), Some(1)]));
        let hashes = keyer.hashes(&[texts, numbers]).unwrap();
        assert_eq!(hashes[0], hashes[4]);
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn sequences_keep_their_order() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![-3, 0, 20_000]));
        assert_eq!(sequence(&days).unwrap().values(), &[-3, 0, 20_000]);
        assert!(orders(&DataType::Date32) && orders(&DataType::Int16));
        assert!(!orders(&DataType::UInt64) && !orders(&DataType::Utf8) && !orders(&DataType::Float64));
    }
}
