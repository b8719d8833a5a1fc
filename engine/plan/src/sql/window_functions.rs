//! The functions that window table functions become; no user writes them.
//!
//! | function | stands for | in |
//! |---|---|---|
//! | `__tumble_start(ts, width, origin)` | the start of the window that holds `ts` | both |
//! | `__hop_starts(ts, slide, size, origin)` | the starts of all its windows, to be unnested | batch |
//! | `__cumulate_ends(ts, step, size, origin)` | the ends of all its windows, to be unnested | batch |
//! | `__hop_start`, `__hop_end`, `__cumulate_start`, `__cumulate_end` | an edge of each of its windows | streaming |
//!
//! Spans and origins are whole microseconds, BIGINT literals. The last row's are *marks*: a row has many windows, so they have
//! no value of their own; lowering puts panes in their place, and refuses them everywhere but in GROUP BY.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use watershed_core::EventTime;
use watershed_core::time::Span;
use watershed_operators::{WindowForm, scaled, window_starts};

/// What a function tells of a row's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Tells {
    TumbleStart,
    HopStarts,
    CumulateEnds,
    Mark,
}

const FUNCTIONS: [(&str, Tells); 7] = [
    ("__tumble_start", Tells::TumbleStart),
    ("__hop_starts", Tells::HopStarts),
    ("__cumulate_ends", Tells::CumulateEnds),
    ("__hop_start", Tells::Mark),
    ("__hop_end", Tells::Mark),
    ("__cumulate_start", Tells::Mark),
    ("__cumulate_end", Tells::Mark),
];

/// All of them, to be registered.
pub(crate) fn functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.iter().map(|(name, tells)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::new_from_impl(WindowFunction { name, tells: *tells, signature })
    })
}

/// The function that tells the start of a row's only window.
pub(crate) fn tumble_start() -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(WindowFunction { name: "__tumble_start", tells: Tells::TumbleStart, signature })
}

/// One edge of a family of windows over a time, as a call of one of these functions says it; `None` for all other expressions.
pub(crate) fn edge(expr: &Expr) -> Option<(WindowForm, bool, &Expr)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let span = |i: usize| match call.args.get(i) {
        Some(Expr::Literal(ScalarValue::Int64(Some(span)), _)) => Some(*span),
        _ => None,
    };
    let (a, b) = (span(1)?, span(2)?);
    let last = || Some(EventTime(span(3)?));
    let (form, is_start) = match call.func.name() {
        "__tumble_start" => (WindowForm::Fixed { width: Span(a), origin: EventTime(b) }, true),
        "__hop_start" => (WindowForm::Hop { slide: Span(a), size: Span(b), origin: last()? }, true),
        "__hop_end" => (WindowForm::Hop { slide: Span(a), size: Span(b), origin: last()? }, false),
        "__cumulate_start" => (WindowForm::Cumulate { step: Span(a), size: Span(b), origin: last()? }, true),
        "__cumulate_end" => (WindowForm::Cumulate { step: Span(a), size: Span(b), origin: last()? }, false),
        _ => return None,
    };
    Some((form, is_start, call.args.first()?))
}

/// Whether an expression is a mark.
pub(crate) fn is_mark(expr: &Expr) -> bool {
    edge(expr).is_some_and(|(form, _, _)| form.overlaps())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowFunction {
    name: &'static str,
    tells: Tells,
    signature: Signature,
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let time = match arguments.first() {
            Some(time @ DataType::Timestamp(..)) => time.clone(),
            other => {
                let found = other.map_or("nothing".to_string(), DataType::to_string);
                return plan_err!("a window's time column is a TIMESTAMP, not {found}");
            }
        };
        Ok(match self.tells {
            Tells::TumbleStart | Tells::Mark => time,
            Tells::HopStarts | Tells::CumulateEnds => DataType::List(item(&time)),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, true)))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arguments.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let span = |i: usize| match args.args.get(i) {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(span)))) => Ok(*span),
            _ => exec_err!("{}: its spans are constants", self.name),
        };
        let Some(times) = args.args.first() else { return exec_err!("{} has no time", self.name) };
        let times = times.to_array(args.number_rows)?;
        let found = match self.tells {
            Tells::TumbleStart => window_starts(&times, Span(span(1)?), EventTime(span(2)?))?,
            Tells::HopStarts => starts(&times, Span(span(1)?), Span(span(2)?), EventTime(span(3)?))?,
            Tells::CumulateEnds => ends(&times, Span(span(1)?), Span(span(2)?), EventTime(span(3)?))?,
            Tells::Mark => return exec_err!("{} stands for many windows and has no value of its own", self.name),
        };
        Ok(ColumnarValue::Array(found))
    }
}

fn item(time: &DataType) -> FieldRef {
    Arc::new(Field::new_list_field(time.clone(), true))
}

fn starts(times: &ArrayRef, slide: Span, size: Span, origin: EventTime) -> Result<ArrayRef> {
    let last = window_starts(times, slide, origin)?;
    let (slide_units, _) = units(slide, times)?;
    let count = size.0 / slide.0;
    lists(&last, |start| (0..count).rev().map(move |k| start.saturating_sub(k * slide_units)))
}

fn ends(times: &ArrayRef, step: Span, size: Span, origin: EventTime) -> Result<ArrayRef> {
    let pane = window_starts(times, step, origin)?;
    let (step_units, _) = units(step, times)?;
    let (size_units, origin_units) = {
        let (size, _) = units(size, times)?;
        (size, scaled(step, origin, times.data_type()).map_or(0, |(_, origin)| origin))
    };
    lists(&pane, |start| {
        let into = start.saturating_sub(origin_units).rem_euclid(size_units);
        let left = (size_units - into) / step_units;
        (1..=left).map(move |k| start.saturating_add(k * step_units))
    })
}

fn units(span: Span, times: &ArrayRef) -> Result<(i64, i64)> {
    match scaled(span, EventTime(0), times.data_type()) {
        Some(units) => Ok(units),
        None => exec_err!(
            "windows of {span} cannot be told apart in times of type {}: make them longer, or cast the time to \
             TIMESTAMP",
            times.data_type()
        ),
    }
}

/// A list for each time, in the time's type; NULL for NULL.
fn lists<I: Iterator<Item = i64>>(times: &ArrayRef, of: impl Fn(i64) -> I) -> Result<ArrayRef> {
    let plain = cast(times, &DataType::Int64)?;
    let plain = plain.as_primitive::<Int64Type>();
    let (mut values, mut lengths) = (vec![], vec![]);
    for time in plain {
        let before = values.len();
        values.extend(time.into_iter().flat_map(&of));
        lengths.push(values.len() - before);
    }
    let values: ArrayRef = cast(&(Arc::new(Int64Array::from(values)) as ArrayRef), times.data_type())?;
    let nulls = plain.nulls().map(|n| NullBuffer::new(n.inner().clone()));
    Ok(Arc::new(ListArray::new(item(times.data_type()), OffsetBuffer::from_lengths(lengths), values, nulls)))
}
