//! Windows: which expressions over a time column are windows, where they start and how long they are.
//!
//! `date_bin` with a constant width and `date_trunc` with a constant unit are monotone in time, and every value of theirs
//! stands for a half-open interval; so a group of theirs is final once the watermark has passed the interval's end.

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, Operator};
use watershed_core::EventTime;
use watershed_core::time::Span;
use watershed_operators::WindowForm;

use crate::sql::window_functions::edge;
use crate::sql::window_tables::fixed_span;

/// What an expression is, seen as a window.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Meaning {
    /// The start of a window over this column.
    Start(WindowForm, Column),
    /// Its end.
    End(WindowForm, Column),
    /// Looks like a window but is none, and why.
    Not(String),
    /// Nothing to do with windows.
    Other,
}

/// What an expression over a scan's columns is; `type_of` tells a column's type.
pub(crate) fn meaning(expr: &Expr, type_of: &dyn Fn(&Column) -> Option<DataType>) -> Meaning {
    match expr {
        Expr::Alias(alias) => meaning(&alias.expr, type_of),
        Expr::Cast(cast) if keeps_time(cast) => meaning(&cast.expr, type_of),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match meaning(left, type_of) {
            Meaning::Start(form, column) if interval(right).is_some_and(|i| same_length(i, form)) => {
                Meaning::End(form, column)
            }
            _ => Meaning::Other,
        },
        Expr::ScalarFunction(call) => match (call.func.name(), &call.args[..]) {
            ("date_bin", [width, time]) => date_bin(width, time, None, type_of),
            ("date_bin", [width, time, origin]) => date_bin(width, time, Some(origin), type_of),
            ("date_trunc", [unit, time]) => date_trunc(unit, time, type_of),
            _ => match edge(expr) {
                Some((form, is_start, time)) => match (time_column(time, type_of), is_start) {
                    (Some(column), true) => Meaning::Start(form, column),
                    (Some(column), false) => Meaning::End(form, column),
                    (None, _) => {
                        let why = "the time of TUMBLE, HOP or CUMULATE is not a column of its table; name the one that the \
                                   watermark speaks of";
                        Meaning::Not(why.to_string())
                    }
                },
                None => Meaning::Other,
            },
        },
        _ => Meaning::Other,
    }
}

fn date_bin(
    width: &Expr,
    time: &Expr,
    origin: Option<&Expr>,
    type_of: &dyn Fn(&Column) -> Option<DataType>,
) -> Meaning {
    let Some(column) = time_column(time, type_of) else { return Meaning::Other };
    let Some(width) = interval(width) else {
        return Meaning::Not(
            "date_bin's width is not a constant; write one, such as INTERVAL '15 minutes'".to_string(),
        );
    };
    let Some(width) = fixed_span(width).filter(|w| w.0 > 0) else {
        return Meaning::Not(
            "date_bin's width is not of fixed, positive length in whole microseconds; for calendar windows write \
             date_trunc with 'month', 'quarter' or 'year'"
                .to_string(),
        );
    };
    match origin.map(|origin| literal(origin).and_then(micros)) {
        None => Meaning::Start(WindowForm::Fixed { width, origin: EventTime(0) }, column),
        Some(Some(origin)) => Meaning::Start(WindowForm::Fixed { width, origin: EventTime(origin) }, column),
        Some(None) => Meaning::Not(
            "date_bin's origin is not a constant in whole microseconds; write one, such as TIMESTAMP '2024-01-01 06:00:00'"
                .to_string(),
        ),
    }
}

fn date_trunc(unit: &Expr, time: &Expr, type_of: &dyn Fn(&Column) -> Option<DataType>) -> Meaning {
    let Some(column) = time_column(time, type_of) else { return Meaning::Other };
    let Some(unit) = literal(unit).and_then(|unit| unit.try_as_str().flatten().map(str::to_lowercase)) else {
        return Meaning::Not("date_trunc's unit is not a constant; write one, such as 'hour'".to_string());
    };
    if let Some(DataType::Timestamp(_, Some(zone))) = type_of(&column)
        && !is_utc(&zone)
    {
        return Meaning::Not(format!(
            "date_trunc in time zone {zone}: not supported yet; date_bin and TUMBLE make windows in UTC"
        ));
    }
    let fixed = |width: Span| WindowForm::Fixed { width, origin: EventTime(0) };
    let form = match unit.as_str() {
        "microsecond" => fixed(Span::MICROSECOND),
        "millisecond" => fixed(Span(1_000)),
        "second" => fixed(Span::SECOND),
        "minute" => fixed(Span::MINUTE),
        "hour" => fixed(Span::HOUR),
        "day" => fixed(Span::DAY),
        // Weeks start on Mondays; 1970-01-05 was one.
        "week" => WindowForm::Fixed { width: Span(7 * Span::DAY.0), origin: EventTime(4 * Span::DAY.0) },
        "month" => WindowForm::Months(1),
        "quarter" => WindowForm::Months(3),
        "year" => WindowForm::Months(12),
        other => {
            return Meaning::Not(format!(
                "date_trunc('{other}', …) makes no windows; the units are microsecond, millisecond, second, minute, \
                 hour, day, week, month, quarter and year"
            ));
        }
    };
    Meaning::Start(form, column)
}

/// The column that an expression is, casts that keep the instant aside. One that is no timestamp is found too: it is never
/// a watermark's, and the error that follows names it.
fn time_column(expr: &Expr, type_of: &dyn Fn(&Column) -> Option<DataType>) -> Option<Column> {
    match expr {
        Expr::Alias(alias) => time_column(&alias.expr, type_of),
        Expr::Cast(cast) => {
            let column = time_column(&cast.expr, type_of)?;
            let (from, to) = (type_of(&column)?, cast.field.data_type());
            let of_time = matches!(from, DataType::Timestamp(..));
            (!of_time || (keeps_time(cast) && same_instant(&from, to))).then_some(column)
        }
        Expr::Column(column) => Some(column.clone()),
        _ => None,
    }
}

/// Casts to a coarser unit than microseconds would move times.
fn keeps_time(cast: &Cast) -> bool {
    matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _))
}

fn same_instant(from: &DataType, to: &DataType) -> bool {
    let utc = |zone: &Option<std::sync::Arc<str>>| zone.as_ref().is_none_or(|zone| is_utc(zone));
    match (from, to) {
        (DataType::Timestamp(_, a), DataType::Timestamp(_, b)) => a == b || (utc(a) && utc(b)),
        _ => false,
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00" | "+00" | "Z" | "Etc/UTC" | "utc")
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn interval(expr: &Expr) -> Option<IntervalMonthDayNano> {
    let months = |months| IntervalMonthDayNano { months, days: 0, nanoseconds: 0 };
    match *literal(expr)? {
        ScalarValue::IntervalMonthDayNano(interval) => interval,
        ScalarValue::IntervalYearMonth(interval) => interval.map(months),
        ScalarValue::IntervalDayTime(interval) => interval.map(|i| IntervalMonthDayNano {
            months: 0,
            days: i.days,
            nanoseconds: i64::from(i.milliseconds) * 1_000_000,
        }),
        _ => None,
    }
}

fn same_length(interval: IntervalMonthDayNano, form: WindowForm) -> bool {
    match form {
        WindowForm::Fixed { width, .. } => fixed_span(interval) == Some(width),
        WindowForm::Months(n) => {
            let rest = interval.days == 0 && interval.nanoseconds == 0;
            rest && u32::try_from(interval.months) == Ok(n)
        }
        // Their ends are marks.
        WindowForm::Hop { .. } | WindowForm::Cumulate { .. } => false,
    }
}

/// A timestamp literal in microseconds, if it is a whole number of them.
fn micros(value: &ScalarValue) -> Option<i64> {
    match *value {
        ScalarValue::TimestampSecond(t, _) => t?.checked_mul(1_000_000),
        ScalarValue::TimestampMillisecond(t, _) => t?.checked_mul(1_000),
        ScalarValue::TimestampMicrosecond(t, _) => t,
        ScalarValue::TimestampNanosecond(t, _) => t.filter(|t| t % 1_000 == 0).map(|t| t / 1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::functions::datetime::date_bin;
    use datafusion::functions::datetime::expr_fn::date_trunc;
    use datafusion::logical_expr::{col, lit};

    use super::{Column, DataType, EventTime, Meaning, Span, TimeUnit, WindowForm, meaning};

    #[test]
    fn time_zones_other_than_utc_have_no_truncated_windows() {
        let zoned = |zone: &str| {
            let data_type = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
            move |_: &Column| Some(data_type.clone())
        };
        let hour = || date_trunc(lit("hour"), col("ts"));
        let start = |width| Meaning::Start(WindowForm::Fixed { width, origin: EventTime(0) }, "ts".into());
        assert_eq!(meaning(&hour(), &zoned("UTC")), start(Span::HOUR));
        assert!(matches!(meaning(&hour(), &zoned("Asia/Kolkata")), Meaning::Not(why) if why.contains("Asia/Kolkata")));
        let width = || lit(WindowForm::Fixed { width: Span::HOUR, origin: EventTime(0) }.interval());
        let bin = || date_bin().call(vec![width(), col("ts")]);
        assert_eq!(meaning(&bin(), &zoned("Asia/Kolkata")), start(Span::HOUR));
        let end = Meaning::End(WindowForm::Fixed { width: Span::HOUR, origin: EventTime(0) }, "ts".into());
        assert_eq!(meaning(&(bin() + width()), &zoned("UTC")), end);
        let other = lit(WindowForm::Months(1).interval());
        assert_eq!(meaning(&(bin() + other), &zoned("UTC")), Meaning::Other);
    }
}
