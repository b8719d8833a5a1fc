//! Debezium: a message is one change of one row of a database's table, in JSON or in Avro.
//!
//! ```text
//!  message ─▶ change { before, after, op, ts_ms, source { ts_ms } } ─▶ one image of the row, by `op` ─▶ columns
//!             json │ avro: all of a batch at once, as columns          after: c u r   before: d
//! ```
//!
//! * `columns`: which columns are the row's, and which are the change's: `_op`, `_changed_at`.
//! * `change`: a change as it is read, and the image of the row that counts.
//! * `encoding`: how the database's values are written, and how they become values of columns; `decimal`: one of them.
//! * `semantic`: what Debezium's names for types say of that.
//! * `json`: `format = 'debezium-json'`; `envelope`: its schema and payload; `connect`: what such a schema says of columns.
//! * `avro`: `format = 'debezium-avro'`.
//! * `infer`: the columns of a source that declares none.
//!
//! What holds for both:
//!
//! * A row is a change and not a fact for good: some of them delete. So a source has to have `_op`, or whoever counts its
//!   rows would count what was deleted and what was replaced, and not know it.
//! * `t`, a truncation, is malformed: it takes back rows that nobody knows by key. `m`, a message of the database's log, is
//!   malformed, too: it is no row. Passed over, both would be lost in silence.
//! * A value that the database did not send, since it is large and was not changed, is no value: the message is malformed.
//! * Columns are of a type that holds what the database's does, as in Avro, or of the type it is written as: a
//!   `MicroTimestamp` is TIMESTAMP or BIGINT. What is read as neither is malformed, never guessed.
//!
//! Message shapes: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events>.

mod columns;

mod change;

mod encoding;

mod decimal;

mod semantic;

mod json;

mod envelope;

mod connect;

mod avro;

mod infer;

pub(crate) use avro::avro;
pub(crate) use infer::{OWN, of_avro, of_json};
pub(crate) use json::DebeziumJson;
