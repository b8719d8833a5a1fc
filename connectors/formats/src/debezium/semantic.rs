//! What Debezium's names for types say of how values are written.
//!
//! A plain type of Avro or Kafka Connect may have such a name, as `io.debezium.time.MicroTimestamp` for a number. It counts
//! where the column is of the type that it means; in another column the value is the plain one.

use arrow::datatypes::{DataType, TimeUnit};

use super::encoding::Encoding;
use crate::options::DEBEZIUM_TIMESTAMP;
use crate::text::Times;

/// Times as text, and what is said of numbers.
pub(crate) const ISO: Times = Times::Iso { option: DEBEZIUM_TIMESTAMP };

/// How a value of a type of this name is written, for a column that is what the name means; `None`: as any of its plain type.
pub(crate) fn encoding(column: &DataType, name: &str) -> Option<Encoding> {
    let since = |unit| Some(Encoding::Plain(Times::Epoch(unit)));
    match (column, name) {
        (DataType::Timestamp(..), "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp") => {
            since(TimeUnit::Millisecond)
        }
        (DataType::Timestamp(..), "io.debezium.time.MicroTimestamp") => since(TimeUnit::Microsecond),
        (DataType::Timestamp(..), "io.debezium.time.NanoTimestamp") => since(TimeUnit::Nanosecond),
        (DataType::Timestamp(..), "io.debezium.time.ZonedTimestamp" | "io.debezium.time.IsoTimestamp") => {
            Some(Encoding::Plain(ISO))
        }
        (DataType::Date32, "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date") => Some(Encoding::Days),
        _ => None,
    }
}

/// Why a column cannot be read of a type of this name at all, with what to do.
pub(crate) fn unreadable(column: &DataType, name: &str) -> Option<String> {
    match (column, name) {
        (DataType::Decimal128(..), "io.debezium.data.VariableScaleDecimal") => Some(
            "it is a VariableScaleDecimal, which is not read as DECIMAL: set decimal.handling.mode = 'string' in the connector"
                .to_string(),
        ),
        _ => None,
    }
}
