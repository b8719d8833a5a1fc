//! What a fact consists of.
//!
//! | column | type | |
//! |---|---|---|
//! | `ts` | timestamp, µs, no zone | roughly in order, as facts usually are: each up to [`JITTER`] off its place |
//! | `k` | 64-bit integer | uniform in `0..keys`; not in [`Shape::Wide`] |
//! | `v` | 64-bit float | uniform in 0.00 to 999.99, two digits |
//! | `product`, `region` | 64-bit integers | [`Shape::Sales`]: uniform in the keys of the tables in `dimensions.rs` |
//! | `g01` … `g20` | text | [`Shape::Wide`]: what is known of one of `keys` things, see [`attribute`] |

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use clap::ValueEnum;

use super::dimensions::{PRODUCTS, REGIONS};
use super::layout::Stretch;
use super::random::Random;
use crate::Result;

/// How far a fact may be from its place in the order: half a minute either way.
const JITTER: i64 = 30_000_000;

/// Columns of text in [`Shape::Wide`].
const TEXTS: usize = 20;

/// Which columns there are.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum Shape {
    /// `ts`, `k`, `v`
    Plain,
    /// `ts`, `k`, `v`, `product`, `region`
    Sales,
    /// `ts`, `v`, and twenty columns of text
    Wide,
}

/// Makes the rows of stretches.
pub(super) struct Columns {
    shape: Shape,
    keys: u64,
    schema: SchemaRef,
    /// For each column of text, the text of each key.
    texts: Vec<Vec<String>>,
}

impl Columns {
    pub(super) fn new(shape: Shape, keys: u64) -> Self {
        let wide = shape == Shape::Wide;
        let texts = if wide { TEXTS } else { 0 };
        let texts = (1..=texts).map(|column| (0..keys).map(|key| attribute(column, key)).collect()).collect();
        let required = |name: String, data_type| Field::new(name, data_type, false);
        let mut fields = vec![required("ts".into(), DataType::Timestamp(TimeUnit::Microsecond, None))];
        fields.extend((!wide).then(|| required("k".into(), DataType::Int64)));
        fields.push(required("v".into(), DataType::Float64));
        match shape {
            Shape::Plain => {}
            Shape::Sales => fields.extend(["product", "region"].map(|name| required(name.into(), DataType::Int64))),
            Shape::Wide => fields.extend((1..=TEXTS).map(|n| required(format!("g{n:02}"), DataType::Utf8))),
        }
        Columns { shape, keys, schema: Arc::new(Schema::new(fields)), texts }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Some of the `of` rows of a stretch, whose random numbers are drawn from `random`.
    pub(super) fn batch(
        &self,
        stretch: &Stretch,
        rows: Range<u64>,
        of: u64,
        random: &mut Random,
    ) -> Result<RecordBatch> {
        let room = usize::try_from(rows.end - rows.start)?;
        let (mut times, mut keys, mut values) =
            (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
        let (mut products, mut regions) = (vec![], vec![]);
        for row in rows {
            let place = (i128::from(row) * i128::from(stretch.length) / i128::from(of)) as i64;
            let jitter = random.below(2 * JITTER as u64 + 1) as i64 - JITTER;
            times.push(stretch.start + (place + jitter).clamp(0, stretch.length - 1));
            keys.push(random.below(self.keys) as i64);
            values.push(random.below(100_000) as f64 / 100.0);
            if self.shape == Shape::Sales {
                products.push(random.below(PRODUCTS) as i64);
                regions.push(random.below(REGIONS) as i64);
            }
        }

        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMicrosecondArray::from(times))];
        let values: ArrayRef = Arc::new(Float64Array::from(values));
        let integers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        match self.shape {
            Shape::Plain => columns.extend([integers(keys), values]),
            Shape::Sales => columns.extend([integers(keys), values, integers(products), integers(regions)]),
            Shape::Wide => {
                columns.push(values);
                columns.extend(self.texts.iter().map(|texts| {
                    let of_rows = keys.iter().map(|key| texts[*key as usize].as_str());
                    Arc::new(StringArray::from_iter_values(of_rows)) as ArrayRef
                }));
            }
        }
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// What the n-th column, counted from one, says of a key: one of n² + 1 texts of 8 + 2n letters, of which the first four
/// are the same in the whole column, as those of paths and addresses are. The columns together tell keys apart.
fn attribute(column: usize, key: u64) -> String {
    let which = Random::new(key, column as u64).below(column as u64 * column as u64 + 1);
    let mut letters = Random::new(which, 1_000 + column as u64);
    let mut text = format!("c{column:02}/");
    let length = 8 + 2 * column;
    text.extend((4..length).map(|_| char::from(b'a' + letters.below(26) as u8)));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_are_of_few_kinds_and_together_tell_keys_apart() {
        let columns = Columns::new(Shape::Wide, 1_000);
        let kinds: Vec<usize> = columns.texts.iter().map(|texts| texts.iter().collect::<HashSet<_>>().len()).collect();
        assert_eq!((kinds.len(), kinds[0], kinds[4]), (20, 2, 26));
        assert!(kinds.iter().all(|&n| n <= 401));
        let rows: HashSet<Vec<&String>> =
            (0..1_000).map(|key| columns.texts.iter().map(|t| &t[key]).collect()).collect();
        assert_eq!(rows.len(), 1_000);
    }

    #[test]
    fn rows_lie_in_their_stretch_and_do_not_change() {
        for shape in [Shape::Plain, Shape::Sales, Shape::Wide] {
            let columns = Columns::new(shape, 10);
            let stretch = Stretch { number: 3, start: 1_000, length: 3_600_000_000 };
            let draw = || columns.batch(&stretch, 0..500, 500, &mut Random::new(1, stretch.number)).unwrap();
            let rows = draw();
            assert_eq!(rows, draw());
            let times = rows.column(0).as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap();
            assert!(times.values().iter().all(|t| (1_000..3_600_001_000).contains(t)));
        }
    }
}
