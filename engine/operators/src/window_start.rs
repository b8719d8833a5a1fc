//! Where a row's window starts, for windows of fixed width: a floor to a multiple.
//!
//! The same as `date_bin` and as `date_trunc` to a unit of fixed length, which go through nanoseconds and calendars for each
//! row. Facts come roughly in time order, so the window of the row before mostly holds this one too, and is tried first.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    DataType, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use watershed_core::EventTime;
use watershed_core::time::Span;

/// The start of the fixed-width window that holds a timestamp, in the timestamp's own type.
#[derive(Clone, Debug, Eq)]
pub struct WindowStartExpr {
    time: Arc<dyn PhysicalExpr>,
    width: Span,
    origin: EventTime,
}

// Written out, because deriving it would move the boxed child.
impl PartialEq for WindowStartExpr {
    fn eq(&self, other: &Self) -> bool {
        self.time.eq(&other.time) && (self.width, self.origin) == (other.width, other.origin)
    }
}

impl Hash for WindowStartExpr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.time.hash(state);
        self.width.hash(state);
        self.origin.hash(state);
    }
}

impl WindowStartExpr {
    /// `None` if the width is no whole number of the type's units: then the type cannot say every window's start.
    pub fn try_new(time: Arc<dyn PhysicalExpr>, width: Span, origin: EventTime, kind: &DataType) -> Option<Self> {
        scaled(width, origin, kind)?;
        Some(WindowStartExpr { time, width, origin })
    }
}

/// Timestamps rounded down to a multiple of `width` after `origin`, in their own type.
pub fn window_starts(times: &ArrayRef, width: Span, origin: EventTime) -> Result<ArrayRef> {
    let Some((width, origin)) = scaled(width, origin, times.data_type()) else {
        return exec_err!(
            "windows of {width} cannot be told apart in times of type {}: make them longer, or cast the time to \
             TIMESTAMP",
            times.data_type()
        );
    };
    let floor = match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => floor::<TimestampSecondType>,
        DataType::Timestamp(TimeUnit::Millisecond, _) => floor::<TimestampMillisecondType>,
        DataType::Timestamp(TimeUnit::Microsecond, _) => floor::<TimestampMicrosecondType>,
        _ => floor::<TimestampNanosecondType>,
    };
    Ok(floor(times, width, origin))
}

/// Width and origin in the type's units; `None` if they are no whole number of them.
pub fn scaled(width: Span, origin: EventTime, kind: &DataType) -> Option<(i64, i64)> {
    let DataType::Timestamp(unit, _) = kind else { return None };
    let (times, per) = match unit {
        TimeUnit::Second => (1, 1_000_000),
        TimeUnit::Millisecond => (1, 1_000),
        TimeUnit::Microsecond => (1, 1),
        TimeUnit::Nanosecond => (1_000, 1),
    };
    let exact = width.0 > 0 && width.0 % per == 0 && origin.0 % per == 0;
    exact.then_some(())?;
    Some((width.0.checked_mul(times)? / per, origin.0.checked_mul(times)? / per))
}

fn floor<T: ArrowPrimitiveType<Native = i64>>(times: &ArrayRef, width: i64, origin: i64) -> ArrayRef {
    let times: &PrimitiveArray<T> = times.as_primitive();
    let mut start = origin;
    // NULLs have values too, of any kind: nothing here may overflow.
    let floored = times.values().iter().map(|t| {
        if *t < start || t.wrapping_sub(start) as u64 >= width as u64 {
            // A window that would begin before time does is cut there: nothing earlier can be said.
            start = t.saturating_sub(t.saturating_sub(origin).rem_euclid(width));
        }
        start
    });
    let floored = PrimitiveArray::<T>::new(floored.collect(), times.nulls().cloned());
    Arc::new(floored.with_data_type(times.data_type().clone()))
}

impl PhysicalExpr for WindowStartExpr {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.time.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.time.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let times = self.time.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(ColumnarValue::Array(window_starts(&times, self.width, self.origin)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.time]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(time) => Ok(Arc::new(WindowStartExpr { time, ..self.as_ref().clone() })),
            None => internal_err!("the start of a window is that of a time"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window_start(")?;
        self.time.fmt_sql(f)?;
        write!(f, ", {})", self.width)
    }
}

impl fmt::Display for WindowStartExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window_start({}, {})", self.time, self.width)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::Column;
    use proptest::prelude::*;

    use super::*;

    fn starts(times: &[Option<i64>], width: i64, origin: i64) -> Vec<Option<i64>> {
        let kind = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![Field::new("ts", kind.clone(), true)]));
        let times = TimestampMicrosecondArray::from_iter(times.iter().copied()).with_timezone("UTC");
        let batch = RecordBatch::try_new(schema, vec![Arc::new(times)]).unwrap();
        let time = Arc::new(Column::new("ts", 0));
        let start = WindowStartExpr::try_new(time, Span(width), EventTime(origin), &kind).unwrap();
        let array = start.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
        assert_eq!(array.data_type(), &kind);
        array.as_primitive::<TimestampMicrosecondType>().iter().collect()
    }

    proptest! {
        #[test]
        fn is_the_floor(times in prop::collection::vec(prop::option::of(-1000..1000i64), 0..50), width in 1..90i64, origin in -40..40i64) {
            let expected: Vec<_> = times.iter().map(|t| t.map(|t| (t - origin).div_euclid(width) * width + origin)).collect();
            prop_assert_eq!(starts(&times, width, origin), expected);
        }
    }

    #[test]
    fn a_type_too_coarse_for_the_width_is_refused() {
        let time = || Arc::new(Column::new("ts", 0));
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        assert!(WindowStartExpr::try_new(time(), Span(1_500_000), EventTime(0), &seconds).is_none());
        assert!(WindowStartExpr::try_new(time(), Span(2_000_000), EventTime(0), &seconds).is_some());
        assert!(WindowStartExpr::try_new(time(), Span(1), EventTime(0), &DataType::Date32).is_none());
    }
}
