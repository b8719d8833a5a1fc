//! From text to statements, and from a query as written to a query that DataFusion understands.
//!
//! * [`variables`] replaces `${NAME}`.
//! * [`statement`]: what a user can say.
//! * [`parse`]: text to statements.
//! * [`columns`]: columns of `CREATE TABLE`.
//! * [`place`]: line and column.
//! * [`views`]: plain views are expanded where they are named.
//! * [`window_tables`]: `TUMBLE(t, ts, size)` becomes an ordinary subquery.
//! * [`window_functions`]: what window table functions become.
//! * [`header`]: the function `header`.
//! * [`refuse`]: what the syntax alone shows cannot be made incremental, with its place.

pub(crate) mod variables;

pub mod statement;

pub mod parse;

pub(crate) mod columns;

pub(crate) mod place;

pub(crate) mod views;

pub(crate) mod window_tables;

pub(crate) mod window_functions;

pub(crate) mod header;

pub(crate) mod refuse;
