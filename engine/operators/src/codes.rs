//! Text keys as numbers: what a worker groups by, where a scan gives text as dictionaries.
//!
//! A file with few distinct texts holds each once, and its rows as indices. Grouping by the texts themselves would copy,
//! hash and compare them row by row; here each dictionary is looked at once, a row costs a lookup by index, and groups are
//! found by numbers of four bytes. The texts come back when groups are emitted. What a file holds plainly comes as a
//! dictionary of its own rows: then each row's text is hashed once, as it would have been.
//!
//! Invariant: within one [`Codes`], until it is emptied, the same text has the same code, whichever dictionary it comes from,
//! and NULL has none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Schema, SchemaRef};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::physical_expr_common::binary_map::{ArrowBytesMap, OutputType};

/// Bytes of distinct text after which a worker should emit: offsets into it have 32 bits.
const FULL: usize = 1 << 30;

/// The type in which a scan gives text whose rows are to be told apart, and nothing more.
pub fn coded_text() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The coded ones among a worker's keys.
pub(crate) struct Codes {
    keys: Vec<Option<Pool>>,
    plain: SchemaRef,
    coded: SchemaRef,
}

impl Codes {
    /// `given` are the types in which keys come in, `plain` what they are.
    pub(crate) fn new(given: &[DataType], plain: SchemaRef) -> Self {
        let is_coded = |(given, field): (&DataType, &FieldRef)| *given == coded_text() && field.data_type() != given;
        let keys: Vec<_> = given.iter().zip(plain.fields()).map(|key| is_coded(key).then(Pool::default)).collect();
        let field = |(pool, field): (&Option<Pool>, &FieldRef)| match pool {
            Some(_) => Arc::new(Field::new(field.name(), DataType::UInt32, true)),
            None => Arc::clone(field),
        };
        let coded = Arc::new(Schema::new(keys.iter().zip(plain.fields()).map(field).collect::<Vec<_>>()));
        Codes { keys, plain, coded }
    }

    /// The keys as they are grouped by.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.coded
    }

    /// Replaces dictionaries by codes.
    pub(crate) fn encode(&mut self, keys: &mut [ArrayRef]) -> Result<()> {
        for (pool, key) in self.keys.iter_mut().zip(keys) {
            if let Some(pool) = pool {
                *key = pool.encode(key)?;
            }
        }
        Ok(())
    }

    /// Replaces dictionaries by text.
    pub(crate) fn texts(&self, keys: &mut [ArrayRef]) -> Result<()> {
        for ((pool, key), field) in self.keys.iter().zip(keys).zip(self.plain.fields()) {
            if pool.is_some() {
                *key = cast(key, field.data_type())?;
            }
        }
        Ok(())
    }

    /// The texts of all codes given so far, which are forgotten.
    pub(crate) fn take(&mut self) -> Texts {
        let texts = |(pool, field): (&mut Option<Pool>, &FieldRef)| {
            let texts = std::mem::take(pool.as_mut()?).texts.into_state();
            Some((texts, field.data_type().clone()))
        };
        Texts(self.keys.iter_mut().zip(self.plain.fields()).map(texts).collect())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.keys.iter().flatten().map(Pool::bytes).sum()
    }

    /// Whether they have to be taken before more rows come.
    pub(crate) fn full(&self) -> bool {
        self.keys.iter().flatten().any(|pool| pool.texts.size() > FULL)
    }
}

/// Codes back to texts.
pub(crate) struct Texts(Vec<Option<(ArrayRef, DataType)>>);

impl Texts {
    pub(crate) fn decode(&self, keys: &mut [ArrayRef]) -> Result<()> {
        for (texts, key) in self.0.iter().zip(keys) {
            if let Some((texts, kind)) = texts {
                *key = cast(&take(texts, key, None)?, kind)?;
            }
        }
        Ok(())
    }
}

/// One key's texts.
struct Pool {
    /// Each text's code is its number in the order of their coming.
    texts: ArrowBytesMap<i32, u32>,
    /// The dictionary that came last, and the code of each of its texts.
    last: Option<(StringArray, Vec<u32>)>,
}

impl Default for Pool {
    fn default() -> Self {
        Pool { texts: ArrowBytesMap::new(OutputType::Utf8), last: None }
    }
}

impl Pool {
    fn encode(&mut self, key: &ArrayRef) -> Result<ArrayRef> {
        let Some(key) = key.as_dictionary_opt::<Int32Type>() else {
            return internal_err!("a coded key comes as {}", key.data_type());
        };
        let of_strings = || internal_datafusion_err!("a coded key is of {}", key.values().data_type());
        let texts = key.values().as_string_opt::<i32>().ok_or_else(of_strings)?;
        let codes = match &mut self.last {
            Some((last, codes)) if same(last, texts) => codes,
            last => {
                let mut next = u32::try_from(self.texts.len())
                    .map_err(|_| internal_datafusion_err!("more texts than codes for them"))?;
                let mut codes = Vec::with_capacity(texts.len());
                let fresh = |_: Option<&[u8]>| {
                    next += 1;
                    next - 1
                };
                self.texts.insert_if_new(key.values(), fresh, |code| codes.push(code));
                &mut last.insert((texts.clone(), codes)).1
            }
        };
        // Under a NULL stands any index at all.
        let code = |index: &i32| usize::try_from(*index).ok().and_then(|i| codes.get(i)).copied().unwrap_or_default();
        let codes: Vec<u32> = key.keys().values().iter().map(code).collect();
        Ok(Arc::new(UInt32Array::new(codes.into(), key.logical_nulls())))
    }

    fn bytes(&self) -> usize {
        let last = self.last.as_ref().map_or(0, |(texts, codes)| texts.get_array_memory_size() + codes.capacity() * 4);
        self.texts.size() + last
    }
}

/// Whether two dictionaries are the same memory.
fn same(a: &StringArray, b: &StringArray) -> bool {
    let nulls = |array: &StringArray| array.nulls().map(|n| (n.buffer().as_ptr(), n.offset()));
    a.len() == b.len()
        && a.offsets().as_ptr() == b.offsets().as_ptr()
        && a.values().as_ptr() == b.values().as_ptr()
        && nulls(a) == nulls(b)
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int32Array, Int64Array, StringViewArray};

    use super::*;

    fn dictionary(keys: Vec<Option<i32>>, texts: Vec<Option<&str>>) -> ArrayRef {
        let keys = Int32Array::from(keys);
        Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from(texts))).unwrap())
    }

    #[test]
    fn one_text_has_one_code_in_all_dictionaries() {
        let plain = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("d", coded_text(), true),
        ]));
        let mut codes = Codes::new(&[DataType::Int64, coded_text(), coded_text()], Arc::clone(&plain));
        let kinds: Vec<_> = codes.schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(kinds, [DataType::Int64, DataType::UInt32, coded_text()], "a column that is a dictionary stays one");

        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
        let first = dictionary(vec![Some(1), Some(0), None, Some(1), Some(2)], vec![Some("a"), Some("b"), None]);
        let again = dictionary(vec![Some(0), Some(1), Some(2)], vec![Some("c"), Some("b"), Some("")]);
        let encode = |codes: &mut Codes, text: &ArrayRef| {
            let mut keys = vec![numbers.slice(0, text.len()), Arc::clone(text), Arc::clone(text)];
            codes.encode(&mut keys).unwrap();
            assert_eq!(keys[2].data_type(), &coded_text());
            keys.remove(1)
        };
        let coded = [&first, &again, &again.slice(1, 2)].map(|text| encode(&mut codes, text));
        assert_eq!(coded[0].as_primitive::<arrow::datatypes::UInt32Type>().value(0), 1);
        assert_eq!(coded[1].slice(1, 2).as_ref(), coded[2].as_ref());
        assert!(codes.bytes() > 0 && !codes.full());

        let texts = codes.take();
        let decoded = |coded: &ArrayRef| {
            let mut keys = vec![Arc::clone(&numbers), Arc::clone(coded), Arc::clone(&first)];
            texts.decode(&mut keys).unwrap();
            keys.remove(1)
        };
        let views = |texts: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringViewArray::from(texts)) };
        assert_eq!(&decoded(&coded[0]), &views(vec![Some("b"), Some("a"), None, Some("b"), None]));
        assert_eq!(&decoded(&coded[1]), &views(vec![Some("c"), Some("b"), Some("")]));
        // Taken, they begin anew.
        assert_eq!(encode(&mut codes, &again).as_primitive::<arrow::datatypes::UInt32Type>().values(), &[0, 1, 2]);
        let mut keys = vec![Arc::clone(&numbers), again, first];
        codes.texts(&mut keys).unwrap();
        assert_eq!(&keys[1], &views(vec![Some("c"), Some("b"), Some("")]));
    }
}
