//! Arrow types that Delta has, and what becomes of the others: widened without loss, or refused with the column's name.
//!
//! | Arrow | Delta |
//! |---|---|
//! | timestamps of any unit, zone-less or not | `timestamp` (UTC, µs); zone-less ones `timestamp_ntz` where asked for |
//! | unsigned 8, 16, 32 bits; 64 bits | the next wider integer; `decimal(20,0)` |
//! | Float16; Date64; decimals of other widths | `float`; `date`; `decimal` of the same precision |
//! | large, view and fixed-size strings, binaries, lists | `string`, `binary`, `array` |
//! | dictionaries | their values |
//!
//! Every column is nullable: a NOT NULL column would bind all other writers of the table to check it.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use watershed_core::{Error, Result};

/// Characters that Spark refuses in column names of tables without column mapping.
const FORBIDDEN: [char; 9] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t'];

/// The columns of a Delta table that keeps rows of a schema; zone-less timestamps become `timestamp`.
pub fn delta_schema(schema: &Schema) -> Result<SchemaRef> {
    delta_schema_as(schema, false)
}

/// The same, where `ntz` keeps zone-less timestamps zone-less.
pub(crate) fn delta_schema_as(schema: &Schema, ntz: bool) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = vec![];
    for field in schema.fields() {
        let name = field.name();
        if name.is_empty() || name.contains(FORBIDDEN) || name.contains('=') {
            return Err(Error::input(format!(
                "column `{name}`: a table's column name must not be empty or hold any of ` ,;{{}}()=`, tabs and \
                 newlines; name it with AS"
            )));
        }
        if fields.iter().any(|f| f.name().eq_ignore_ascii_case(name)) {
            return Err(Error::input(format!(
                "column `{name}` appears twice (Delta does not tell upper from lower case); rename one with AS"
            )));
        }
        let data_type = delta_type(field.data_type(), ntz, true).map_err(|why| {
            let advice = advice(field.data_type(), name);
            let data_type = match field.data_type() {
                DataType::Union(..) => "of a type that differs from row to row".to_string(),
                one => one.to_string(),
            };
            Error::input(format!("column `{name}` is {data_type}, {why}; {advice}"))
        })?;
        fields.push(Field::new(name, data_type, true).into());
    }
    Ok(Schema::new(fields).into())
}

/// What to write instead of a column that Delta does not have.
fn advice(data_type: &DataType, name: &str) -> String {
    use DataType::*;
    match data_type {
        Time32(_) | Time64(_) | Interval(_) | Duration(_) => format!("keep it as text: CAST({name} AS VARCHAR)"),
        Decimal256(_, scale) if (0..=38).contains(scale) => format!("if it fits, CAST({name} AS DECIMAL(38, {scale}))"),
        Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => format!("CAST({name} AS DOUBLE)"),
        Null => format!("give it one: CAST({name} AS VARCHAR)"),
        // What `->` gives for JSON.
        Union(..) => "take it as text with ->> or as another type with json_get_int, json_get_float, json_get_bool, \
                      json_get_str"
            .to_string(),
        nested if nested.is_nested() => "cast what is inside with arrow_cast, or put it out by itself".to_string(),
        _ => "cast it to another type".to_string(),
    }
}

fn delta_type(data_type: &DataType, ntz: bool, top: bool) -> Result<DataType, &'static str> {
    use DataType::*;
    let inner = |name: &str, field: &FieldRef| -> Result<FieldRef, &'static str> {
        Ok(Field::new(name, delta_type(field.data_type(), ntz, false)?, true).into())
    };
    Ok(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Utf8 | Binary | Date32 => data_type.clone(),
        UInt8 => Int16,
        UInt16 => Int32,
        UInt32 => Int64,
        UInt64 => Decimal128(20, 0),
        Float16 => Float32,
        Date64 => Date32,
        // Inside of other types the exactness of a conversion is not checked.
        Timestamp(TimeUnit::Nanosecond, _) if !top => return Err("which holds nested nanoseconds"),
        Timestamp(_, None) if ntz => Timestamp(TimeUnit::Microsecond, None),
        Timestamp(_, _) => utc(),
        Utf8View | LargeUtf8 => Utf8,
        BinaryView | LargeBinary | FixedSizeBinary(_) => Binary,
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s)
            if *p <= DECIMAL128_MAX_PRECISION && *s >= 0 =>
        {
            Decimal128(*p, *s)
        }
        List(item) | LargeList(item) | FixedSizeList(item, _) | ListView(item) | LargeListView(item) => {
            List(inner("element", item)?)
        }
        Struct(fields) => Struct(fields.iter().map(|f| inner(f.name(), f)).collect::<Result<_, _>>()?),
        Map(entries, _) => {
            let Struct(pair) = entries.data_type() else { return Err("which is not a proper map") };
            let [key, value] = &pair[..] else { return Err("which is not a proper map") };
            let key = Field::new("key", delta_type(key.data_type(), ntz, false)?, false);
            let pair = Struct(vec![Arc::new(key), inner("value", value)?].into());
            Map(Field::new("key_value", pair, false).into(), false)
        }
        Dictionary(_, values) => delta_type(values, ntz, top)?,
        Null => return Err("a type that no table has"),
        _ => return Err("a type that Delta does not have"),
    })
}

pub(crate) fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Whether two types hold the same values, whatever their fields are called and whether they are nullable.
pub(crate) fn same_type(a: &DataType, b: &DataType) -> bool {
    use DataType::*;
    match (a, b) {
        // Written with the zone that the table has.
        (Timestamp(x, _), Timestamp(y, _)) => x == y,
        (List(x), List(y)) => same_type(x.data_type(), y.data_type()),
        (Map(x, _), Map(y, _)) => same_type(x.data_type(), y.data_type()),
        (Struct(x), Struct(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_type(x.data_type(), y.data_type()))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_type: DataType) -> Result<DataType, String> {
        let schema = Schema::new(vec![Field::new("x", data_type, false)]);
        delta_schema(&schema).map(|s| s.field(0).data_type().clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn widens_without_loss() {
        use DataType::*;
        let list = |item| List(Field::new("element", item, true).into());
        for (from, to) in [
            (UInt8, Int16),
            (UInt64, Decimal128(20, 0)),
            (Float16, Float32),
            (Utf8View, Utf8),
            (Dictionary(Int32.into(), LargeUtf8.into()), Utf8),
            (Timestamp(TimeUnit::Nanosecond, None), utc()),
            (Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())), utc()),
            (LargeList(Field::new("item", UInt32, false).into()), list(Int64)),
            (Decimal256(30, 4), Decimal128(30, 4)),
        ] {
            assert_eq!(of(from.clone()), Ok(to), "{from}");
        }
        let zoneless = Schema::new(vec![Field::new("x", Timestamp(TimeUnit::Second, None), true)]);
        let kept = delta_schema_as(&zoneless, true).unwrap();
        assert_eq!(kept.field(0).data_type(), &Timestamp(TimeUnit::Microsecond, None));
    }

    #[test]
    fn refuses_by_column() {
        use DataType::*;
        for bad in [Null, Interval(arrow::datatypes::IntervalUnit::DayTime), Duration(TimeUnit::Second)] {
            let error = of(bad.clone()).unwrap_err();
            assert!(error.starts_with(&format!("column `x` is {bad}, a type that")), "{error}");
        }
        assert!(of(Decimal256(50, 3)).unwrap_err().contains("CAST(x AS DECIMAL(38, 3))"));
        assert!(of(Time64(TimeUnit::Microsecond)).unwrap_err().contains("CAST(x AS VARCHAR)"));
        let nested = List(Field::new("item", Timestamp(TimeUnit::Nanosecond, None), true).into());
        assert!(of(nested).unwrap_err().contains("nested nanoseconds"));
        let names = |a: &str, b: &str| {
            let schema = Schema::new(vec![Field::new(a, Int64, true), Field::new(b, Int64, true)]);
            delta_schema(&schema).map(|_| ()).map_err(|e| e.to_string())
        };
        assert!(names("count(*)", "b").unwrap_err().contains("name it with AS"));
        assert!(names("a", "A").unwrap_err().contains("appears twice"));
    }
}
