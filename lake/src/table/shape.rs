//! From the sink's rows to the table's columns: casts, derived partition columns, and the cut into table partitions.
//!
//! A [`Shape`] is worked out once, against the table as it is or is to be, so that rows pass through it without looking
//! anything up. Rows whose partition values differ are told apart by comparing whole columns, not row by row.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{CastOptions, SortColumn, cast_with_options, lexsort_to_indices, partition, take_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;
use watershed_core::time::Span;
use watershed_core::{Error, Result};

use super::types::{delta_schema_as, same_type, utc};
use super::{PartitionBy, TIMESTAMP_TYPE, TableSpec};
use crate::keyed::KeySpec;

/// Partition values in the order of the table's partition columns, as Delta writes them.
pub(crate) type Key = Vec<Option<String>>;

/// How the rows of one input schema become files of one table.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    location: String,
    /// All columns of the table, as it is or is to be made.
    pub(crate) table_schema: SchemaRef,
    pub(crate) partition_columns: Vec<String>,
    /// The columns that files hold.
    pub(crate) file_schema: SchemaRef,
    /// For each column of a file, where it comes from, and whether the table allows NULL.
    columns: Vec<(usize, bool)>,
    partitions: Vec<Source>,
    /// The key's columns, if the table is keyed.
    key: Vec<String>,
}

#[derive(Clone, Debug)]
struct Source {
    by: PartitionBy,
    input: usize,
    field: FieldRef,
}

/// Rows as the columns of files, and their values of the partition columns.
pub(crate) struct StoredRows {
    pub(crate) file: RecordBatch,
    pub(crate) partitions: Vec<ArrayRef>,
}

/// Where a column of the table is found.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    InFiles(usize, FieldRef),
    InPartitions(usize, FieldRef),
}

/// Beyond this many runs of equal partition values a batch is sorted first: a run is worth some hundred rows.
const RUN: usize = 256;

impl Shape {
    /// The shape of a table that is made for a spec.
    pub(crate) fn of_new(location: &str, spec: &TableSpec) -> Result<Shape> {
        let ntz = match spec.properties.get(TIMESTAMP_TYPE).map(String::as_str) {
            None | Some("utc") => false,
            Some("ntz") => true,
            Some(other) => return Err(Error::input(format!("{TIMESTAMP_TYPE} = '{other}': give 'utc' or 'ntz'"))),
        };
        let mut fields: Vec<FieldRef> = delta_schema_as(&spec.schema, ntz)?.fields().to_vec();
        for by in &spec.partition_by {
            let derived = match by {
                PartitionBy::Column(_) => continue,
                PartitionBy::Day(_) => DataType::Date32,
                PartitionBy::Hour(_) => utc(),
            };
            let name = by.column_name();
            if fields.iter().any(|f| f.name().eq_ignore_ascii_case(&name)) {
                return Err(Error::input(format!(
                    "partition by {by} adds a column `{name}`, but there is one already; rename it with AS, or \
                     partition by `{name}` itself"
                )));
            }
            fields.push(Field::new(name, derived, true).into());
        }
        Shape::build(location, Schema::new(fields).into(), spec.partition_by.clone(), spec)
    }

    /// The shape for a table that is there. Columns go by name; those that the rows do not have stay NULL.
    pub(crate) fn of_existing(
        location: &str,
        table_schema: SchemaRef,
        partition_columns: &[String],
        spec: &TableSpec,
    ) -> Result<Shape> {
        let by = match &spec.partition_by[..] {
            [] => partition_columns.iter().map(|c| infer(location, c, &spec.schema)).collect::<Result<Vec<_>>>()?,
            given => given.to_vec(),
        };
        let names: Vec<String> = by.iter().map(PartitionBy::column_name).collect();
        if names != partition_columns {
            return Err(Error::input(format!(
                "table {location} is partitioned by ({}), not by ({}); write it as it is, or to another location",
                partition_columns.join(", "),
                names.join(", ")
            )));
        }
        Shape::build(location, table_schema, by, spec)
    }

    fn build(location: &str, table_schema: SchemaRef, by: Vec<PartitionBy>, spec: &TableSpec) -> Result<Shape> {
        let input = delta_schema_as(&spec.schema, false)?;
        let find = |name: &str| input.fields().iter().position(|f| f.name() == name);
        let partition_columns: Vec<String> = by.iter().map(PartitionBy::column_name).collect();
        let mut partitions = vec![];
        for by in by {
            let (PartitionBy::Column(name) | PartitionBy::Day(name) | PartitionBy::Hour(name)) = &by;
            let index = find(name).ok_or_else(|| {
                let names: Vec<&str> = input.fields().iter().map(|f| f.name().as_str()).collect();
                Error::input(format!(
                    "{location}: partition by {by}: there is no column `{name}`; the columns are {}",
                    names.join(", ")
                ))
            })?;
            let from = input.field(index).data_type();
            let fits = match &by {
                PartitionBy::Column(_) => !from.is_nested() && !from.is_floating() && !matches!(from, DataType::Binary),
                _ => matches!(from, DataType::Timestamp(..)),
            };
            if !fits {
                let need = if matches!(by, PartitionBy::Column(_)) { "which cannot be one" } else { "not a TIMESTAMP" };
                return Err(Error::input(format!("{location}: partition by {by}: `{name}` is {from}, {need}")));
            }
            let column = by.column_name();
            let field = table_schema.fields().iter().find(|f| *f.name() == column).cloned();
            let field = field.ok_or_else(|| Error::input(format!("table {location} has no column `{column}`")))?;
            let expected = match &by {
                PartitionBy::Column(_) => from.clone(),
                PartitionBy::Day(_) => DataType::Date32,
                PartitionBy::Hour(_) => utc(),
            };
            if !same_type(&expected, field.data_type()) {
                return Err(Error::input(format!(
                    "table {location}: its partition column `{column}` is {}, but {by} gives {expected}",
                    field.data_type()
                )));
            }
            partitions.push(Source { by, input: index, field });
        }
        let (mut fields, mut columns) = (vec![], vec![]);
        for field in table_schema.fields().iter().filter(|f| !partition_columns.contains(f.name())) {
            match find(field.name()) {
                None if field.is_nullable() => {}
                None => {
                    return Err(Error::input(format!(
                        "table {location}: its column `{}` must not be NULL, but the rows do not have it",
                        field.name()
                    )));
                }
                Some(index) if same_type(input.field(index).data_type(), field.data_type()) => {
                    columns.push((index, field.is_nullable()));
                    fields.push(field.clone());
                }
                Some(index) => {
                    return Err(Error::input(format!(
                        "table {location}: its column `{}` is {}, but the rows have {}; cast it",
                        field.name(),
                        field.data_type(),
                        input.field(index).data_type()
                    )));
                }
            }
        }
        let unknown = |f: &&FieldRef| !table_schema.fields().iter().any(|t| t.name() == f.name());
        if let Some(field) = input.fields().iter().find(unknown) {
            let names: Vec<&str> = table_schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::input(format!(
                "table {location} has no column `{}`; its columns are {}",
                field.name(),
                names.join(", ")
            )));
        }
        // The file's own statistics of nullability do not matter; the table's word was checked above.
        let file_schema = Schema::new(
            fields.iter().map(|f| f.as_ref().clone().with_metadata(Default::default())).collect::<Vec<_>>(),
        );
        if file_schema.fields().is_empty() {
            return Err(Error::input(format!(
                "table {location}: all columns are partition columns; files must hold some"
            )));
        }
        Ok(Shape {
            location: location.to_string(),
            table_schema,
            partition_columns,
            file_schema: file_schema.into(),
            columns,
            partitions,
            key: spec.key.as_ref().map(|key| key.columns.clone()).unwrap_or_default(),
        })
    }

    /// The columns whose statistics readers plan by: the sources of derived partition columns, and the key.
    pub(crate) fn planned_by(&self) -> Vec<&str> {
        let derived = self.partitions.iter().filter_map(|source| match &source.by {
            PartitionBy::Day(name) | PartitionBy::Hour(name) => Some(name.as_str()),
            PartitionBy::Column(_) => None,
        });
        derived.chain(self.key.iter().map(String::as_str)).collect()
    }

    /// The same for rows that name a key and nothing else: every column may be NULL.
    pub(crate) fn of_keys_alone(&self) -> Shape {
        let open = |f: &FieldRef| f.as_ref().clone().with_nullable(true);
        let fields: Vec<Field> = self.file_schema.fields().iter().map(open).collect();
        let columns = self.columns.iter().map(|(input, _)| (*input, true)).collect();
        Shape { file_schema: Schema::new(fields).into(), columns, ..self.clone() }
    }

    /// The shape of rows that have all columns of a table, partition columns among them.
    pub(crate) fn of_table(
        location: &str,
        table: SchemaRef,
        columns: &[String],
        key: Option<KeySpec>,
    ) -> Result<Shape> {
        let (partition_by, properties) = (vec![], BTreeMap::new());
        let spec = TableSpec { schema: table.clone(), partition_by, properties, owner: None, key };
        Shape::of_existing(location, table, columns, &spec)
    }

    /// The same with one more column in the files, which the table does not have.
    pub(crate) fn with_column(&self, field: FieldRef) -> Shape {
        let fields: Vec<FieldRef> = self.file_schema.fields().iter().cloned().chain([field]).collect();
        Shape { file_schema: Schema::new(fields).into(), ..self.clone() }
    }

    /// The partition columns.
    pub(crate) fn partition_fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.partitions.iter().map(|source| &source.field)
    }

    /// Where a column of the table is, among those that the rows have.
    pub(crate) fn find(&self, name: &str) -> Option<Stored> {
        let in_files = self.file_schema.fields().iter().position(|f| f.name() == name);
        let stored = in_files.map(|i| Stored::InFiles(i, self.file_schema.fields()[i].clone()));
        let in_partitions = || {
            let at = self.partitions.iter().position(|source| source.field.name() == name)?;
            Some(Stored::InPartitions(at, self.partitions[at].field.clone()))
        };
        stored.or_else(in_partitions)
    }

    /// Whether rows with equal values of these columns are of one partition.
    pub(crate) fn partition_follows_from(&self, columns: &[String]) -> bool {
        self.partitions.iter().all(|source| {
            let (PartitionBy::Column(name) | PartitionBy::Day(name) | PartitionBy::Hour(name)) = &source.by;
            columns.contains(name)
        })
    }

    /// A key as the log has it.
    pub(crate) fn values(&self, key: &Key) -> BTreeMap<String, Option<String>> {
        self.partition_columns.iter().cloned().zip(key.iter().cloned()).collect()
    }

    /// A key from what the log has.
    pub(crate) fn key_of(&self, values: &BTreeMap<String, Option<String>>) -> Key {
        self.partition_columns.iter().map(|column| values.get(column).cloned().flatten()).collect()
    }

    /// The rows as the table keeps them, cut into its partitions. Rows of one partition keep their order.
    pub(crate) fn cut(&self, rows: &RecordBatch) -> Result<Vec<(Key, RecordBatch)>> {
        self.split(self.stored(rows)?)
    }

    /// The rows as the table keeps them.
    pub(crate) fn stored(&self, rows: &RecordBatch) -> Result<StoredRows> {
        let fail = |e| Error::bug(format!("{}: cutting rows into partitions: {e}", self.location));
        let mut columns = Vec::with_capacity(self.columns.len());
        for (field, (input, nullable)) in self.file_schema.fields().iter().zip(&self.columns) {
            let column = self.convert(rows.column(*input), field)?;
            if !nullable && column.null_count() > 0 {
                return Err(Error::input(format!(
                    "table {}: its column `{}` must not be NULL, but a row has NULL there",
                    self.location,
                    field.name()
                )));
            }
            columns.push(column);
        }
        let file = RecordBatch::try_new(self.file_schema.clone(), columns).map_err(fail)?;
        let partitions = self.partitions.iter().map(|s| self.key_column(s, rows)).collect::<Result<Vec<_>>>()?;
        Ok(StoredRows { file, partitions })
    }

    /// Cuts rows into the table's partitions.
    pub(crate) fn split(&self, StoredRows { file, partitions }: StoredRows) -> Result<Vec<(Key, RecordBatch)>> {
        let fail = |e| Error::bug(format!("{}: cutting rows into partitions: {e}", self.location));
        if file.num_rows() == 0 {
            return Ok(vec![]);
        }
        if partitions.is_empty() {
            return Ok(vec![(vec![], file)]);
        }
        let mut keys = partitions;
        let mut file = file;
        let mut ranges = partition(&keys).map_err(fail)?.ranges();
        if ranges.len() > 1 + file.num_rows() / RUN {
            let order = by_key(&keys, file.num_rows()).map_err(fail)?;
            file = take_record_batch(&file, &order).map_err(fail)?;
            keys =
                keys.iter().map(|k| arrow::compute::take(k, &order, None)).collect::<Result<_, _>>().map_err(fail)?;
            ranges = partition(&keys).map_err(fail)?.ranges();
        }
        let slice = |range: Range<usize>| {
            let key = keys.iter().map(|column| self.value(column, range.start)).collect::<Result<Key>>()?;
            Ok((key, file.slice(range.start, range.len())))
        };
        ranges.into_iter().map(slice).collect()
    }

    fn key_column(&self, source: &Source, rows: &RecordBatch) -> Result<ArrayRef> {
        let column = rows.column(source.input);
        let floor = |column: &ArrayRef, width: Span| -> Result<TimestampMicrosecondArray> {
            let micros = self.convert(column, &Field::new(source.field.name(), utc(), true))?;
            Ok(micros.as_primitive::<TimestampMicrosecondType>().unary(|t| t.div_euclid(width.0)))
        };
        match source.by {
            PartitionBy::Column(_) => self.convert(column, &source.field),
            PartitionBy::Day(_) => {
                let days = floor(column, Span::DAY)?;
                let days: Date32Array =
                    days.unary(|d| i32::try_from(d).unwrap_or(if d < 0 { i32::MIN } else { i32::MAX }));
                Ok(Arc::new(days))
            }
            PartitionBy::Hour(_) => {
                let hours =
                    floor(column, Span::HOUR)?.unary::<_, TimestampMicrosecondType>(|h| h.saturating_mul(Span::HOUR.0));
                self.convert(&(Arc::new(hours) as ArrayRef), &source.field)
            }
        }
    }

    /// A column as the table has it.
    fn convert(&self, column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
        let (from, to) = (column.data_type(), field.data_type());
        if from == to {
            return Ok(column.clone());
        }
        let fail = |what: &dyn std::fmt::Display| {
            Error::input(format!("table {}: column `{}` cannot be written: {what}", self.location, field.name()))
        };
        match (from, to) {
            (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
                let same = column.as_primitive::<TimestampMicrosecondType>().clone();
                return Ok(Arc::new(same.with_timezone_opt(zone.clone())));
            }
            (DataType::Timestamp(TimeUnit::Nanosecond, _), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                let nanos = column.as_primitive::<TimestampNanosecondType>();
                if let Some(odd) = nanos.iter().flatten().find(|n| n % 1000 != 0) {
                    let shown = DateTime::from_timestamp_nanos(odd).to_rfc3339();
                    return Err(fail(&format!(
                        "{shown} has nanoseconds, and tables keep microseconds; cut them off with \
                         date_trunc('microsecond', …)"
                    )));
                }
            }
            _ => {}
        }
        if let (DataType::Timestamp(unit, _), DataType::Timestamp(..)) = (from, to) {
            // A zone is a way to show an instant; the table's is UTC, and a zone-less time is taken as UTC.
            let instants = DataType::Timestamp(*unit, Some("UTC".into()));
            let column = cast_with_options(column, &instants, &STRICT).map_err(|e| fail(&e))?;
            return cast_with_options(&column, to, &STRICT).map_err(|e| fail(&e));
        }
        cast_with_options(column, to, &STRICT).map_err(|e| fail(&e))
    }

    /// A partition value as Delta writes it; an empty text is NULL there.
    fn value(&self, column: &ArrayRef, row: usize) -> Result<Option<String>> {
        if column.is_null(row) {
            return Ok(None);
        }
        let fail = |e: &dyn std::fmt::Display| Error::input(format!("table {}: a partition value: {e}", self.location));
        if let DataType::Timestamp(TimeUnit::Microsecond, zone) = column.data_type() {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            let time =
                DateTime::from_timestamp_micros(micros).ok_or_else(|| fail(&format!("{micros} µs is out of range")))?;
            let format = if zone.is_some() { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%d %H:%M:%S%.6f" };
            return Ok(Some(time.format(format).to_string()));
        }
        let options = FormatOptions::new().with_display_error(false);
        let text = ArrayFormatter::try_new(column, &options).map_err(|e| fail(&e))?.value(row).try_to_string();
        Ok(Some(text.map_err(|e| fail(&e))?).filter(|text| !text.is_empty()))
    }
}

const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// What an existing partition column is made from, when the user did not say.
fn infer(location: &str, column: &str, schema: &Schema) -> Result<PartitionBy> {
    let has = |name: &str| schema.field_with_name(name).is_ok();
    if has(column) {
        return Ok(PartitionBy::Column(column.to_string()));
    }
    match (column.strip_suffix("_day"), column.strip_suffix("_hour")) {
        (Some(source), _) if has(source) => Ok(PartitionBy::Day(source.to_string())),
        (_, Some(source)) if has(source) => Ok(PartitionBy::Hour(source.to_string())),
        _ => Err(Error::input(format!(
            "table {location} is partitioned by `{column}`, and the rows have neither this column nor one it is the \
             day or hour of"
        ))),
    }
}

/// A stable order by key.
fn by_key(keys: &[ArrayRef], rows: usize) -> Result<UInt32Array, arrow::error::ArrowError> {
    let last =
        u32::try_from(rows).map_err(|_| arrow::error::ArrowError::ArithmeticOverflow("rows of a batch".into()))?;
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..last));
    let columns: Vec<SortColumn> =
        keys.iter().cloned().chain([numbers]).map(|values| SortColumn { values, options: None }).collect();
    lexsort_to_indices(&columns, None)
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
