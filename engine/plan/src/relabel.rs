//! Other names for the fields inside of nested columns: the same buffers under another type.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray, ListArray, MapArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;

/// A nested column whose fields are called otherwise, position by position.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Relabel {
    input: Arc<dyn PhysicalExpr>,
    field: FieldRef,
}

// Written out, because deriving it would move the boxed child.
impl PartialEq for Relabel {
    fn eq(&self, other: &Self) -> bool {
        self.input.eq(&other.input) && self.field == other.field
    }
}

impl Hash for Relabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.field.hash(state);
    }
}

impl Relabel {
    /// `field` is what the column is to be; its type differs from the input's in names only.
    pub(crate) fn new(input: Arc<dyn PhysicalExpr>, field: FieldRef) -> Self {
        Relabel { input, field }
    }
}

impl fmt::Display for Relabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} AS {}", self.input, self.field.data_type())
    }
}

impl PhysicalExpr for Relabel {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(self.field.is_nullable())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let nested = self.input.evaluate(batch)?.into_array(batch.num_rows())?;
        relabel(&nested, self.field.data_type()).map(ColumnarValue::Array)
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(Arc::clone(&self.field))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.input]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Relabel { input, field: Arc::clone(&self.field) })),
            None => internal_err!("a relabelled column without its input"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.input.fmt_sql(f)
    }
}

fn relabel(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    Ok(match (array.data_type(), to) {
        (DataType::Struct(from), DataType::Struct(fields)) if from.len() == fields.len() => {
            let array = array.as_struct();
            let columns = array.columns().iter().zip(fields).map(|(c, field)| relabel(c, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let nulls = array.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())?)
        }
        (DataType::List(_), DataType::List(element)) => {
            let array = array.as_list::<i32>();
            let values = relabel(array.values(), element.data_type())?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, nulls)?)
        }
        (DataType::LargeList(_), DataType::LargeList(element)) => {
            let array = array.as_list::<i64>();
            let values = relabel(array.values(), element.data_type())?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Arc::new(LargeListArray::try_new(Arc::clone(element), offsets, values, nulls)?)
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let array = array.as_map();
            let pairs = relabel(&(Arc::new(array.entries().clone()) as ArrayRef), entries.data_type())?;
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs.as_struct().clone(), nulls, *sorted)?)
        }
        (from, to) => return internal_err!("{from} cannot be called {to}"),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Field, Fields};

    use super::*;

    #[test]
    fn nested_names_change_and_nothing_else() {
        let fields = |name: &str| Fields::from(vec![Field::new(name, DataType::Int64, true)]);
        let list = |name: &str| DataType::List(Field::new("element", DataType::Struct(fields(name)), true).into());
        let pair = |name: &str| DataType::Struct(Fields::from(vec![Field::new(name, list("x"), true)]));
        let outer = |o: &str, i: &str| DataType::Struct(Fields::from(vec![Field::new(o, list(i), true)]));
        let numbers = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef;
        let nulls = NullBuffer::from(vec![true, true, false]);
        let inner = StructArray::new(fields("col-a"), vec![numbers], Some(nulls));
        let element: FieldRef = Field::new("element", inner.data_type().clone(), true).into();
        let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
        let lists = ListArray::new(element, offsets, Arc::new(inner), Some(NullBuffer::from(vec![true, false, true])));
        let DataType::Struct(of) = outer("col-b", "col-a") else { unreachable!() };
        let array: ArrayRef = Arc::new(StructArray::new(of, vec![Arc::new(lists)], None));
        let named = relabel(&array, &outer("b", "a")).unwrap();
        assert_eq!(named.data_type(), &outer("b", "a"));
        let back = relabel(&named, array.data_type()).unwrap();
        assert_eq!(&back, &array);
        assert_eq!(named.as_struct().column(0).as_list::<i32>().value(0).as_struct().column(0).len(), 2);
        assert!(relabel(&array, &DataType::Int64).is_err());
        assert!(relabel(&array, &pair("b")).is_ok());
    }
}
