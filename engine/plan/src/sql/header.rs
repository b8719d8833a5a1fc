//! `header(headers, name)`: the value of a header, BYTEA, among those of a message (`ARRAY<STRUCT<key VARCHAR, value BYTEA>>`).
//!
//! A message may have several of a name; the last one counts, as for Kafka's own `lastHeader`. NULL where there is none, and
//! where its value is. It is the same over a log and over a table that the column was archived in.

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use watershed_core::tail::header_item;

/// The function, to be registered.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(HeaderFunction { signature: Signature::user_defined(Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HeaderFunction {
    signature: Signature,
}

impl ScalarUDFImpl for HeaderFunction {
    fn name(&self) -> &str {
        "header"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [headers, name] if are_headers(headers) && is_text(name) => Ok(vec![headers.clone(), DataType::Utf8]),
            [headers, name] => plan_err!(
                "header(headers, name) takes ARRAY<STRUCT<key VARCHAR, value BYTEA>>, as the column _headers of a log is, and a \
                 text; not {headers} and {name}"
            ),
            _ => plan_err!("header(headers, name) takes two arguments, such as header(_headers, 'trace')"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [headers, names] = &args.args[..] else { return exec_err!("header has two arguments") };
        let headers = cast(&headers.to_array(args.number_rows)?, &DataType::List(header_item()))?;
        let names = cast(&names.to_array(args.number_rows)?, &DataType::Utf8)?;
        Ok(ColumnarValue::Array(values(&headers, &names)?))
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn are_headers(data_type: &DataType) -> bool {
    let (DataType::List(item) | DataType::LargeList(item)) = data_type else { return false };
    let DataType::Struct(fields) = item.data_type() else { return false };
    let [key, value] = &fields[..] else { return false };
    let bytes = matches!(value.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    key.name() == "key" && value.name() == "value" && is_text(key.data_type()) && bytes
}

/// For each row the value of the last header of its name.
fn values(headers: &ArrayRef, names: &ArrayRef) -> Result<ArrayRef> {
    let (headers, names) = (headers.as_list::<i32>(), names.as_string::<i32>());
    let items = headers.values().as_struct();
    let keys = items.column(0).as_string::<i32>();
    let found = |row: usize| {
        if headers.is_null(row) || names.is_null(row) {
            return None;
        }
        let (from, to) = (headers.value_offsets()[row], headers.value_offsets()[row + 1]);
        let is_named = |at: &usize| items.is_valid(*at) && keys.is_valid(*at) && keys.value(*at) == names.value(row);
        (from as usize..to as usize).rev().find(is_named).map(|at| at as u64)
    };
    let found: UInt64Array = (0..headers.len()).map(found).collect();
    Ok(take(items.column(1), &found, None)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, ListArray, StringArray, StructArray};
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use watershed_core::tail::header_fields;

    use super::*;

    #[test]
    fn the_last_header_of_a_name_counts() {
        let keys: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("a"), Some("b"), None, Some("a")]));
        let values_of = vec![Some(&b"1"[..]), Some(b"\xff"), None, Some(b"lost"), None];
        let of_keys: ArrayRef = Arc::new(BinaryArray::from_opt_vec(values_of));
        let items = StructArray::new(header_fields(), vec![keys, of_keys], None);
        let nulls = NullBuffer::from(vec![true, true, false, true]);
        let offsets = OffsetBuffer::from_lengths([3, 0, 0, 2]);
        let list: ArrayRef = Arc::new(ListArray::new(header_item(), offsets, Arc::new(items), Some(nulls)));
        let of = |name: Option<&str>| {
            let names: ArrayRef = Arc::new(StringArray::from(vec![name; list.len()]));
            let found = values(&list, &names).unwrap();
            found.as_binary::<i32>().iter().map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>()
        };
        assert_eq!(of(Some("a")), [Some(b"\xff".to_vec()), None, None, None]);
        assert_eq!(of(Some("b")), [None, None, None, None]);
        assert_eq!(of(None), [None, None, None, None]);
    }
}
