//! Column definitions of `CREATE TABLE` as an Arrow schema.
//!
//! Only types that a Delta table has are taken, in the form that reads back from it: times are microseconds.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, ColumnDef, ColumnOption, DataType as SqlType, ExactNumberInfo, Expr, StructField,
    TableConstraint, TimezoneInfo,
};
use watershed_core::error::{Error, Place, Result};

use super::parse::normal;
use super::place::span_place;
use super::statement::{CreateSource, Statement, name};

/// The columns of a table, and those that its primary key is of: of a constraint, or of the columns that say so themselves.
pub(crate) fn keyed(
    columns: &[ColumnDef],
    constraints: &[TableConstraint],
    statement: Option<Place>,
) -> Result<(SchemaRef, Vec<String>)> {
    let is_key = |column: &&ColumnDef| column.options.iter().any(|o| matches!(o.option, ColumnOption::PrimaryKey(_)));
    let mut key: Vec<String> = columns.iter().filter(is_key).map(|column| normal(&column.name)).collect();
    let again =
        || Err(Error::sql_at("a table has one primary key: PRIMARY KEY (a, b) names all of its columns", statement));
    if key.len() > 1 {
        return again();
    }
    for constraint in constraints {
        let TableConstraint::PrimaryKey(primary) = constraint else {
            let message = format!("{constraint}: constraints other than PRIMARY KEY are not supported yet");
            return Err(Error::sql_at(message, statement));
        };
        if !key.is_empty() {
            return again();
        }
        for column in &primary.columns {
            let Expr::Identifier(name) = &column.column.expr else {
                let message = format!("PRIMARY KEY ({}): give names of columns", column.column.expr);
                return Err(Error::sql_at(message, statement));
            };
            key.push(normal(name));
        }
    }
    let schema = schema(columns, statement)?;
    if let Some(stranger) = key.iter().find(|name| schema.field_with_name(name).is_err()) {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let message = format!("PRIMARY KEY: there is no column {stranger}; the columns are {}", names.join(", "));
        return Err(Error::sql_at(message, statement));
    }
    Ok((schema, key))
}

/// Columns as [`super::statement::columns_text`] writes them, read back.
pub fn columns_of(text: &str) -> Result<SchemaRef> {
    let text = format!("CREATE SOURCE s ({text}) WITH (tail = '')");
    let statement = super::parse::parse(&text, &|name| Some(format!("${{{name}}}")))?.pop().map(|one| one.statement);
    match statement {
        Some(Statement::CreateSource(CreateSource { columns: Some(columns), .. })) => Ok(columns),
        _ => Err(Error::bug("columns are read back as none")),
    }
}

/// The columns of what has no key.
pub(crate) fn keyless(columns: &[ColumnDef], statement: Option<Place>) -> Result<SchemaRef> {
    match keyed(columns, &[], statement)? {
        (schema, key) if key.is_empty() => Ok(schema),
        _ => Err(Error::sql_at("PRIMARY KEY: a log has every message it was given; leave the key out", statement)),
    }
}

pub(crate) fn schema(columns: &[ColumnDef], statement: Option<Place>) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = vec![];
    for column in columns {
        let at = span_place(column.name.span).or(statement);
        let name = normal(&column.name);
        if fields.iter().any(|f| *f.name() == name) {
            return Err(Error::sql_at(format!("column {name} is given twice; leave one out"), at));
        }
        let data_type = data_type(&column.data_type).ok_or_else(|| {
            let known = "BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), VARCHAR, BYTEA, DATE, TIMESTAMP \
                         [WITH TIME ZONE], and ARRAY<…>, STRUCT<name …> and MAP(…, …) of these";
            Error::sql_at(format!("{name}: type {} is not supported; there are {known}", column.data_type), at)
        })?;
        let mut nullable = true;
        for option in &column.options {
            match option.option {
                ColumnOption::Null => nullable = true,
                ColumnOption::NotNull => nullable = false,
                // Read by [`keyed`], and refused where there is none.
                ColumnOption::PrimaryKey(_) => {}
                ref other => {
                    return Err(Error::sql_at(format!("{name}: {other} is not supported yet"), at));
                }
            }
        }
        fields.push(Field::new(name, data_type, nullable));
    }
    if fields.is_empty() {
        return Err(Error::sql_at("a table has at least one column: CREATE TABLE name (column TYPE, …)", statement));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The type as [`schema`] reads it back.
pub fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Int8 => "TINYINT".to_string(),
        DataType::Int16 => "SMALLINT".to_string(),
        DataType::Int32 => "INT".to_string(),
        DataType::Int64 => "BIGINT".to_string(),
        DataType::Float32 => "REAL".to_string(),
        DataType::Float64 => "DOUBLE".to_string(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 => "VARCHAR".to_string(),
        DataType::Binary => "BYTEA".to_string(),
        DataType::Date32 => "DATE".to_string(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_string(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".to_string(),
        DataType::List(element) => format!("ARRAY<{}>", sql_type(element.data_type())),
        DataType::Struct(fields) => {
            let field = |field: &FieldRef| format!("{} {}", name(field.name()), sql_type(field.data_type()));
            format!("STRUCT<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let of = pair.iter().map(|field| sql_type(field.data_type())).collect::<Vec<_>>();
                format!("MAP({})", of.join(", "))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn data_type(sql: &SqlType) -> Option<DataType> {
    Some(match sql {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::Float(_) | SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Decimal(info) | SqlType::Numeric(info) | SqlType::Dec(info) => decimal(info)?,
        SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Text | SqlType::String(_) => DataType::Utf8,
        SqlType::Bytea | SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(None | Some(6), zone) => match zone {
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => DataType::Timestamp(TimeUnit::Microsecond, None),
            TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
        },
        SqlType::Array(ArrayElemTypeDef::AngleBracket(of) | ArrayElemTypeDef::SquareBracket(of, None)) => {
            DataType::List(Arc::new(Field::new("element", data_type(of)?, true)))
        }
        SqlType::Struct(fields, _) if !fields.is_empty() => {
            let field = |field: &StructField| {
                Some(Field::new(normal(field.field_name.as_ref()?), data_type(&field.field_type)?, true))
            };
            let fields: Fields = fields.iter().map(field).collect::<Option<_>>()?;
            let again = |at: usize| fields[..at].iter().any(|before| before.name() == fields[at].name());
            if (0..fields.len()).any(again) {
                return None;
            }
            DataType::Struct(fields)
        }
        // As tables have them.
        SqlType::Map(key, value) => {
            let pair = vec![Field::new("key", data_type(key)?, false), Field::new("value", data_type(value)?, true)];
            DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false)), false)
        }
        _ => return None,
    })
}

fn decimal(info: &ExactNumberInfo) -> Option<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    let precision = u8::try_from(precision).ok().filter(|p| (1..=38).contains(p))?;
    let scale = i8::try_from(scale).ok().filter(|s| (0..=38).contains(s) && *s as u8 <= precision)?;
    Some(DataType::Decimal128(precision, scale))
}
