//! The columns of a row as one JSON object.
//!
//! | column | value |
//! |---|---|
//! | the event time | when the row is written, less the disorder |
//! | other TIMESTAMP | when the row is written |
//! | DATE | the day of the event time |
//! | text | `{column}_{key}`, keys from 0 |
//! | integers | a key, or the row's number if the column is a sequence |
//! | REAL, DOUBLE, DECIMAL | from 0 to 100, with two decimals |
//! | BOOLEAN | either |
//!
//! Invariant: a column's values depend on its name, on the options and on the row's number.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use watershed_core::time::Span;
use watershed_core::{Error, EventTime, Result};

use crate::draw::{below, draw, is_among, key, salt};
use crate::options::{LATE_BY, Options};

/// Columns that are the message's own.
const OWN: [&str; 5] = ["_offset", "_part", "_timestamp", "_key", "_headers"];

/// What draws are for that are of no column.
const DISORDERED: &str = "generate.disorder";
const LATE: &str = "generate.late";

/// Makes the payloads.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    options: Options,
    columns: Vec<Column>,
    disordered: u64,
    late: u64,
}

#[derive(Clone, Debug)]
struct Column {
    /// The name as JSON has it, and the colon.
    name: String,
    salt: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// In steps of so many microseconds.
    EventTime(i64),
    Written(i64),
    Day,
    Sequence,
    Key,
    /// What stands before the key, within quotes.
    Text(String),
    Real,
    /// Digits in all, below which the number without its point is drawn, and behind the point.
    Decimal(u32, usize),
    Boolean,
}

impl Payloads {
    pub(crate) fn new(options: &Options, columns: &Schema, time_column: &str) -> Result<Payloads> {
        let columns = columns.fields().iter().filter(|field| !OWN.contains(&field.name().as_str()));
        let columns: Vec<&Field> = columns.map(AsRef::as_ref).collect();
        if let Some(stranger) = options.sequence.iter().find(|name| !columns.iter().any(|c| c.name() == *name)) {
            return Err(Error::input(format!("generate.sequence: there is no column {stranger}")));
        }
        let column = |field: &&Field| {
            let name = field.name();
            let salt = salt(name);
            Ok(Column { name: format!("{}:", quoted(name)?), salt, value: value(options, field, name == time_column)? })
        };
        let columns = columns.iter().map(column).collect::<Result<_>>()?;
        Ok(Payloads { options: options.clone(), columns, disordered: salt(DISORDERED), late: salt(LATE) })
    }

    /// Writes a row that is written at this time.
    pub(crate) fn write(&self, row: i64, written: EventTime, out: &mut String) -> Result<()> {
        let event = self.event_time(row, written);
        out.push('{');
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push_str(&column.name);
            let drawn = draw(self.options.seed, column.salt, row);
            let key = || key(drawn, self.options.keys, self.options.skew);
            match &column.value {
                Value::EventTime(step) => write!(out, "\"{}\"", floor(event, *step)),
                Value::Written(step) => write!(out, "\"{}\"", floor(written, *step)),
                Value::Day => write!(out, "\"{:.10}\"", event.to_string()),
                Value::Sequence => write!(out, "{row}"),
                Value::Key => write!(out, "{}", key()),
                Value::Text(before) => write!(out, "\"{before}{}\"", key()),
                Value::Real => decimal(out, below(drawn, 10_000), 2),
                Value::Decimal(digits, scale) => decimal(out, below(drawn, 10_u64.pow(*digits)), *scale),
                Value::Boolean => write!(out, "{}", drawn.is_multiple_of(2)),
            }
            .map_err(|e| Error::bug(format!("a generated row: {e}")))?;
        }
        out.push('}');
        Ok(())
    }

    fn event_time(&self, row: i64, written: EventTime) -> EventTime {
        let up_to = |span: Span, drawn: u64| Span(below(drawn, span.0.cast_unsigned() + 1).cast_signed());
        let late = draw(self.options.seed, self.late, row);
        if is_among(late, self.options.late) {
            return written.minus(self.options.disorder).minus(up_to(LATE_BY, draw(late, self.late, row)));
        }
        written.minus(up_to(self.options.disorder, draw(self.options.seed, self.disordered, row)))
    }
}

fn value(options: &Options, field: &Field, is_event_time: bool) -> Result<Value> {
    use DataType::*;
    let name = field.name();
    let keys = |most: u64| match options.keys - 1 > most {
        true => Err(Error::input(format!(
            "column {name} is {}, which has no {} keys (generate.keys)",
            field.data_type(),
            options.keys
        ))),
        false => Ok(Value::Key),
    };
    let sequence = options.sequence.contains(name);
    let value = match field.data_type() {
        Int64 | UInt64 if sequence => Value::Sequence,
        _ if sequence => {
            return Err(Error::input(format!("generate.sequence: column {name} numbers rows, so it has to be BIGINT")));
        }
        Timestamp(unit, _) => {
            let step = match unit {
                TimeUnit::Second => 1_000_000,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
            };
            if is_event_time { Value::EventTime(step) } else { Value::Written(step) }
        }
        Date32 | Date64 => Value::Day,
        Int8 => keys(i8::MAX as u64)?,
        UInt8 => keys(u8::MAX.into())?,
        Int16 => keys(i16::MAX as u64)?,
        UInt16 => keys(u16::MAX.into())?,
        Int32 | UInt32 | Int64 | UInt64 => Value::Key,
        Utf8 | LargeUtf8 | Utf8View => {
            let before = quoted(&format!("{name}_"))?;
            Value::Text(before.trim_matches('"').to_string())
        }
        Float32 | Float64 => Value::Real,
        Decimal128(precision, scale) if *scale >= 0 => {
            let scale = scale.unsigned_abs();
            // More digits than a draw has would be zeros.
            let digits = u32::from((*precision).min(scale.saturating_add(2))).min(18);
            Value::Decimal(digits, scale.into())
        }
        Boolean => Value::Boolean,
        other => {
            return Err(Error::input(format!(
                "column {name} is {other}, of which generate:// makes no values; there are those of BOOLEAN, integers, REAL, \
                 DOUBLE, DECIMAL, VARCHAR, DATE and TIMESTAMP"
            )));
        }
    };
    Ok(value)
}

/// Down to a whole step.
fn floor(time: EventTime, step: i64) -> EventTime {
    EventTime(time.0 - time.0.rem_euclid(step))
}

/// A number with so many digits behind its point.
fn decimal(out: &mut String, number: u64, scale: usize) -> std::fmt::Result {
    let digits = format!("{number:0width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    match fraction {
        "" => out.write_str(whole),
        _ => write!(out, "{whole}.{fraction}"),
    }
}

fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|e| Error::bug(format!("{text} as JSON: {e}")))
}
