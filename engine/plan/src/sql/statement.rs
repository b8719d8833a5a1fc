//! What a user can say.
//!
//! [`std::fmt::Display`] gives the normalised text: keywords in capitals, no comments, options as written. It is a
//! statement's identity, by which a second run knows whether its view was changed.

use std::fmt;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::sql::sqlparser::ast;
use watershed_core::error::Place;
use watershed_core::time::Span;

use super::columns;

/// One statement of a text.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub statement: Statement,
    /// The normalised text, variables replaced.
    pub text: String,
    pub at: Place,
}

/// Options of a `WITH (…)`: names in lower case, values as text.
pub type Options = Vec<(String, String)>;

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A text holds a handful of them.
pub enum Statement {
    CreateSource(CreateSource),
    CreateMaterializedView(CreateMaterializedView),
    CreateSink(CreateSink),
    CreateTable(CreateTable),
    CreateExternalTable(CreateExternalTable),
    CreateView(CreateView),
    Insert(Insert),
    Drop(Drop),
    Set {
        name: String,
        value: String,
    },
    Explain(Box<Parsed>),
    /// `EXPLAIN BACKFILL …`
    Backfill(Backfill),
    /// `EXPLAIN HANDOVER name`
    Handover(String),
    Describe(String),
    Query(ast::Query),
}

/// What a backfill is estimated of: a statement that makes a job, or a view that there is.
#[derive(Clone, Debug)]
pub enum Backfill {
    Of(Box<Parsed>),
    View(String),
}

/// `CREATE [OR REPLACE] SOURCE name [([columns,] WATERMARK FOR c AS c [- INTERVAL '…'])] WITH (lake = '…', tail = '…', …)`
#[derive(Clone, Debug)]
pub struct CreateSource {
    pub name: String,
    pub or_replace: bool,
    /// Of a source that has a log only; `None`: those of its table.
    pub columns: Option<SchemaRef>,
    /// `None`: the table's own time column.
    pub time_column: Option<String>,
    pub delay: Span,
    pub options: Options,
}

/// `CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [WITH (…)] AS query [EMIT EVERY '…']`
#[derive(Clone, Debug)]
pub struct CreateMaterializedView {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub options: Options,
    pub query: ast::Query,
    /// How often results of windows that are still open are put out.
    pub emit_every: Option<Span>,
}

/// `CREATE [OR REPLACE] SINK [IF NOT EXISTS] name WITH (topic = '…', …) AS query`
#[derive(Clone, Debug)]
pub struct CreateSink {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub options: Options,
    pub query: ast::Query,
}

/// `CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (columns [, PRIMARY KEY (…)]) [WITH (…)]`
#[derive(Clone, Debug)]
pub struct CreateTable {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub columns: SchemaRef,
    /// Columns of the key; none: rows are only ever added.
    pub primary_key: Vec<String>,
    pub options: Options,
}

/// `CREATE [OR REPLACE] EXTERNAL TABLE [IF NOT EXISTS] name [(columns)] STORED AS format LOCATION '…' [WITH (…)]`
#[derive(Clone, Debug)]
pub struct CreateExternalTable {
    pub name: String,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// `None`: as the files have them.
    pub columns: Option<SchemaRef>,
    pub format: ExternalFormat,
    pub location: String,
    pub options: Options,
}

/// What an external table is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalFormat {
    Csv,
    Parquet,
    Delta,
}

impl fmt::Display for ExternalFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExternalFormat::Csv => "CSV",
            ExternalFormat::Parquet => "PARQUET",
            ExternalFormat::Delta => "DELTA",
        })
    }
}

/// `CREATE [OR REPLACE] VIEW name AS query`
#[derive(Clone, Debug)]
pub struct CreateView {
    pub name: String,
    pub or_replace: bool,
    pub query: ast::Query,
}

/// `INSERT INTO table [WITH (job = '…', …)] query`
#[derive(Clone, Debug)]
pub struct Insert {
    pub table: String,
    pub options: Options,
    pub query: ast::Query,
}

/// `DROP SOURCE | TABLE | EXTERNAL TABLE | VIEW | MATERIALIZED VIEW | SINK [IF EXISTS] name [KEEP TABLE]`
#[derive(Clone, Debug)]
pub struct Drop {
    pub kind: Kind,
    pub name: String,
    pub if_exists: bool,
    pub keep_table: bool,
}

/// What the catalog holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Source,
    Table,
    ExternalTable,
    View,
    MaterializedView,
    Sink,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Source => "SOURCE",
            Kind::Table => "TABLE",
            Kind::ExternalTable => "EXTERNAL TABLE",
            Kind::View => "VIEW",
            Kind::MaterializedView => "MATERIALIZED VIEW",
            Kind::Sink => "SINK",
        })
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::CreateSource(s) => {
                write!(f, "CREATE {}SOURCE {}", flag(s.or_replace, "OR REPLACE "), name(&s.name))?;
                let columns = s.columns.as_ref().map(columns_text);
                let watermark = s.time_column.as_ref().map(|column| {
                    let (column, micros) = (name(column), s.delay.0);
                    let less = if micros == 0 { String::new() } else { format!(" - INTERVAL '{micros} microseconds'") };
                    format!("WATERMARK FOR {column} AS {column}{less}")
                });
                let items: Vec<String> = columns.into_iter().chain(watermark).collect();
                if !items.is_empty() {
                    write!(f, " ({})", items.join(", "))?;
                }
                options(f, &s.options)
            }
            Statement::CreateMaterializedView(s) => {
                let (replace, unless) = (flag(s.or_replace, "OR REPLACE "), flag(s.if_not_exists, "IF NOT EXISTS "));
                write!(f, "CREATE {replace}MATERIALIZED VIEW {unless}{}", name(&s.name))?;
                options(f, &s.options)?;
                write!(f, " AS {}", s.query)?;
                s.emit_every.map_or(Ok(()), |every| write!(f, " EMIT EVERY '{} microseconds'", every.0))
            }
            Statement::CreateSink(s) => {
                let (replace, unless) = (flag(s.or_replace, "OR REPLACE "), flag(s.if_not_exists, "IF NOT EXISTS "));
                write!(f, "CREATE {replace}SINK {unless}{}", name(&s.name))?;
                options(f, &s.options)?;
                write!(f, " AS {}", s.query)
            }
            Statement::CreateTable(s) => {
                let (replace, unless) = (flag(s.or_replace, "OR REPLACE "), flag(s.if_not_exists, "IF NOT EXISTS "));
                write!(f, "CREATE {replace}TABLE {unless}{}", name(&s.name))?;
                column_list(f, &s.columns, &s.primary_key)?;
                options(f, &s.options)
            }
            Statement::CreateExternalTable(s) => {
                let (replace, unless) = (flag(s.or_replace, "OR REPLACE "), flag(s.if_not_exists, "IF NOT EXISTS "));
                write!(f, "CREATE {replace}EXTERNAL TABLE {unless}{}", name(&s.name))?;
                if let Some(columns) = &s.columns {
                    column_list(f, columns, &[])?;
                }
                write!(f, " STORED AS {} LOCATION {}", s.format, quoted(&s.location))?;
                options(f, &s.options)
            }
            Statement::CreateView(s) => {
                write!(f, "CREATE {}VIEW {} AS {}", flag(s.or_replace, "OR REPLACE "), name(&s.name), s.query)
            }
            Statement::Insert(s) => {
                write!(f, "INSERT INTO {}", name(&s.table))?;
                options(f, &s.options)?;
                write!(f, " {}", s.query)
            }
            Statement::Drop(s) => {
                let (exists, keep) = (flag(s.if_exists, "IF EXISTS "), flag(s.keep_table, " KEEP TABLE"));
                write!(f, "DROP {} {exists}{}{keep}", s.kind, name(&s.name))
            }
            Statement::Set { name: setting, value } => write!(f, "SET {setting} = {}", quoted(value)),
            Statement::Explain(of) => write!(f, "EXPLAIN {}", of.text),
            Statement::Backfill(Backfill::Of(of)) => write!(f, "EXPLAIN BACKFILL {}", of.text),
            Statement::Backfill(Backfill::View(of)) => write!(f, "EXPLAIN BACKFILL {}", name(of)),
            Statement::Handover(of) => write!(f, "EXPLAIN HANDOVER {}", name(of)),
            Statement::Describe(of) => write!(f, "DESCRIBE {}", name(of)),
            Statement::Query(query) => query.fmt(f),
        }
    }
}

fn column_list(f: &mut fmt::Formatter<'_>, columns: &SchemaRef, key: &[String]) -> fmt::Result {
    write!(f, " ({}", columns_text(columns))?;
    if !key.is_empty() {
        write!(f, ", PRIMARY KEY ({})", key.iter().map(|column| name(column)).collect::<Vec<_>>().join(", "))?;
    }
    f.write_str(")")
}

/// Columns as a statement has them.
pub fn columns_text(columns: &SchemaRef) -> String {
    let column = |column: &FieldRef| {
        let nullable = flag(!column.is_nullable(), " NOT NULL");
        format!("{} {}{nullable}", name(column.name()), columns::sql_type(column.data_type()))
    };
    columns.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}

fn flag(set: bool, text: &'static str) -> &'static str {
    if set { text } else { "" }
}

fn options(f: &mut fmt::Formatter<'_>, options: &Options) -> fmt::Result {
    if options.is_empty() {
        return Ok(());
    }
    let given: Vec<_> = options.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect();
    write!(f, " WITH ({})", given.join(", "))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name, in double quotes where it needs them to be read back.
pub(crate) fn name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
