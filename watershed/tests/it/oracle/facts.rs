//! Facts for the oracle: rows in files of a time-partitioned folder, drawn from a seed with everything that goes wrong in
//! real ones: files out of order, rows that leak into later partitions, late ones, NULLs, duplicates, skew, holes.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, is_null, nullif};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use watershed_core::EventTime;
use watershed_core::clock::mix;
use watershed_core::time::{Grain, Span};

/// 2026-01-01T00:00:00Z.
pub(crate) const EPOCH: i64 = 1_767_225_600_000_000;

/// One fact.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    pub(crate) ts: Option<i64>,
    pub(crate) k: Option<i64>,
    pub(crate) s: Option<String>,
    pub(crate) v: Option<f64>,
    pub(crate) n: i64,
}

/// A file: which partition it lies in, counted in grains from [`EPOCH`], and its rows.
#[derive(Clone, Debug)]
pub(crate) struct FactFile {
    pub(crate) partition: i64,
    pub(crate) rows: Vec<Fact>,
}

/// How a source's files lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Layout {
    /// `day=2026-01-01`, `hour=2026-01-01-00`.
    Hive(Grain),
    /// `year=2026/month=01`.
    Months,
    /// `dt=20260306`, by the clocks of New York: the third day has 23 hours.
    NewYork,
    /// `2026/01/01`.
    Pattern,
    /// One folder, whose files tell nothing.
    Flat,
}

impl Layout {
    /// When a partition begins.
    pub(crate) fn start(self, partition: i64) -> i64 {
        let day = Span::DAY.0;
        match self {
            Layout::Hive(grain) => EPOCH + partition * grain.span().0,
            Layout::Months => {
                let days = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
                EPOCH + days.iter().take(partition as usize).sum::<i64>() * day
            }
            Layout::NewYork => EPOCH + (64 + partition) * day + if partition < 3 { 5 } else { 4 } * Span::HOUR.0,
            Layout::Pattern | Layout::Flat => EPOCH + partition * day,
        }
    }

    /// What `CREATE SOURCE` has to say of it.
    pub(crate) fn options(self) -> &'static str {
        match self {
            Layout::NewYork => ", time_zone = 'America/New_York'",
            Layout::Pattern => ", time_partition = '{%Y/%m/%d}'",
            Layout::Hive(_) | Layout::Months | Layout::Flat => "",
        }
    }
}

/// A source.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) layout: Layout,
    pub(crate) files: Vec<FactFile>,
    /// The type that the event time is written as.
    pub(crate) time: DataType,
    /// Further columns, each a name and an expression over the other columns in DataFusion's SQL.
    pub(crate) computed: Vec<(String, String)>,
    /// What stands in this source's watermark after the column, besides the case's.
    pub(crate) delay: String,
    /// `WITH` options of this source, besides the case's.
    pub(crate) options: String,
    /// Whether there are columns of all kinds of types besides, see [`wide`].
    pub(crate) wide: bool,
}

/// What a drawn source is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) grain: Grain,
    pub(crate) partitions: i64,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) keys: u64,
    /// In a thousand: rows written to a later partition than their own.
    pub(crate) leaks: u64,
    /// In a thousand: rows whose time is NULL.
    pub(crate) timeless: u64,
    /// In ten: partitions that are missing.
    pub(crate) holes: u64,
    /// In a thousand: rows that are the one before once more.
    pub(crate) twice: u64,
}

impl Default for Shape {
    fn default() -> Self {
        let grain = Grain::Day;
        Shape { grain, partitions: 6, files: 2, rows: 120, keys: 5, leaks: 0, timeless: 0, holes: 0, twice: 0 }
    }
}

/// Numbers from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(mix(seed))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % n.max(1)
    }

    pub(crate) fn chance(&mut self, per_thousand: u64) -> bool {
        self.below(1000) < per_thousand
    }
}

impl Facts {
    /// Draws a source.
    pub(crate) fn draw(shape: Shape, seed: u64) -> Facts {
        Facts::laid_out(Layout::Hive(shape.grain), shape, seed)
    }

    /// The same in another layout; the shape's grain is not heeded.
    pub(crate) fn laid_out(layout: Layout, shape: Shape, seed: u64) -> Facts {
        let mut dice = Dice::new(seed);
        let mut files = vec![];
        for partition in 0..shape.partitions {
            if partition > 0 && partition + 1 < shape.partitions && dice.chance(shape.holes * 100) {
                continue;
            }
            for _ in 0..=dice.below(shape.files) {
                let mut rows: Vec<Fact> = vec![];
                for _ in 0..dice.below(shape.rows) {
                    let again = rows.last().filter(|_| shape.twice > 0 && dice.chance(shape.twice)).cloned();
                    rows.push(again.unwrap_or_else(|| fact(&mut dice, shape, partition, layout)));
                }
                files.push(FactFile { partition, rows });
            }
        }
        Facts {
            layout,
            files,
            time: DataType::Timestamp(TimeUnit::Microsecond, None),
            computed: vec![],
            delay: String::new(),
            options: String::new(),
            wide: false,
        }
    }

    /// The same rows, but so that the files of a partition follow each other in time, as do the row groups of each.
    pub(crate) fn in_order(mut self) -> Facts {
        for files in self.files.chunk_by_mut(|a, b| a.partition == b.partition) {
            let mut rows: Vec<Fact> = files.iter_mut().flat_map(|f| std::mem::take(&mut f.rows)).collect();
            rows.sort_by_key(|r| r.ts);
            let width = rows.len().div_ceil(files.len()).max(1);
            for (file, rows) in files.iter_mut().zip(rows.chunks(width)) {
                file.rows = rows.to_vec();
            }
        }
        self
    }

    /// Whether a file has been read when the source stands at a boundary.
    pub(crate) fn read(&self, index: usize, boundary: i64) -> bool {
        let file = &self.files[index];
        let start = match self.layout {
            Layout::Flat => file.rows.iter().filter_map(|r| r.ts).min().unwrap_or(i64::MIN + 1),
            layout => layout.start(file.partition),
        };
        start < boundary
    }

    pub(crate) fn rows(&self) -> usize {
        self.files.iter().map(|f| f.rows.len()).sum()
    }

    /// Rows as the source has them, but for the event time, which is in microseconds without a zone.
    pub(crate) fn batch<'a>(&self, rows: impl IntoIterator<Item = &'a Fact> + Clone) -> RecordBatch {
        let plain = if self.wide { wide(&batch(rows)) } else { batch(rows) };
        if self.computed.is_empty() {
            return plain;
        }
        let context = SessionContext::new();
        let known = DFSchema::try_from(plain.schema()).unwrap();
        let (mut fields, mut columns) = (plain.schema().fields().to_vec(), plain.columns().to_vec());
        let simplify = SimplifyContext::builder().with_schema(Arc::new(known.clone())).build();
        let simplify = ExprSimplifier::new(simplify);
        for (name, sql) in &self.computed {
            let expression = context.parse_sql_expr(sql, &known).unwrap_or_else(|e| panic!("column {name}: {e}"));
            let expression = simplify.coerce(expression, &known).and_then(|e| simplify.simplify(e));
            let expression = expression.unwrap_or_else(|e| panic!("column {name}: {e}"));
            let expression = context.create_physical_expr(expression, &known).unwrap();
            let column = expression.evaluate(&plain).unwrap().into_array(plain.num_rows()).unwrap();
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    /// Name of a file within its folder.
    pub(crate) fn path(&self, index: usize) -> String {
        let file = &self.files[index];
        let start = EventTime(self.layout.start(file.partition)).to_string();
        let folder = match self.layout {
            Layout::Hive(Grain::Hour) => format!("hour={}-{}", &start[..10], &start[11..13]),
            Layout::Hive(_) => format!("day={}", &start[..10]),
            Layout::Months => format!("year={}/month={}", &start[..4], &start[5..7]),
            Layout::NewYork => format!("dt={}", start[..10].replace('-', "")),
            Layout::Pattern => start[..10].replace('-', "/"),
            Layout::Flat => "all".to_string(),
        };
        format!("{folder}/part-{index}.parquet")
    }

    /// The end of that name, as it is found in the table of rejected rows.
    pub(crate) fn short_path(&self, index: usize) -> String {
        let path = self.path(index);
        let mut parts: Vec<&str> = path.rsplit('/').take(2).collect();
        parts.reverse();
        parts.join("/")
    }

    /// Writes the files, with small row groups, so that slices have several pieces.
    pub(crate) fn write(&self, folder: &Path) {
        for index in 0..self.files.len() {
            self.write_file(folder, index);
        }
    }

    pub(crate) fn write_file(&self, folder: &Path, index: usize) {
        let path = folder.join(self.path(index));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Text is read as codes from dictionaries; not every writer makes them.
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(40))
            .set_dictionary_enabled(index % 3 != 2)
            .build();
        let rows = self.batch(&self.files[index].rows);
        let mut fields = rows.schema().fields().to_vec();
        fields[0] = Arc::new(Field::new("ts", self.time.clone(), true));
        let mut columns = rows.columns().to_vec();
        columns[0] = cast(&columns[0], &self.time).unwrap();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
}

fn fact(dice: &mut Dice, shape: Shape, partition: i64, layout: Layout) -> Fact {
    let leak = if dice.chance(shape.leaks) { 1 + dice.below(3) as i64 } else { 0 };
    let own = partition - leak.min(partition);
    let width = layout.start(own + 1) - layout.start(own);
    // Coarse times make ties and rows on the very edges of windows.
    let within = match dice.below(8) {
        0 => 0,
        1 => width - 1,
        2 => dice.below((width / Span::HOUR.0) as u64) as i64 * Span::HOUR.0,
        _ => dice.below(width as u64) as i64,
    };
    let key = dice.below(shape.keys).min(dice.below(shape.keys));
    let texts = ["", "a", "b", "naïve", "a much longer text than twelve"];
    Fact {
        ts: (!dice.chance(shape.timeless)).then_some(layout.start(own) + within),
        k: (!dice.chance(30)).then_some(key as i64),
        s: (!dice.chance(50)).then(|| texts[dice.below(5) as usize].to_string()),
        v: (!dice.chance(80)).then(|| dice.below(2_000) as f64 / 8.0 - 100.0),
        n: dice.below(50) as i64 - 10,
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("k", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
        Field::new("v", DataType::Float64, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn batch<'a>(rows: impl IntoIterator<Item = &'a Fact> + Clone) -> RecordBatch {
    let each = || rows.clone().into_iter();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter(each().map(|r| r.ts))),
        Arc::new(Int64Array::from_iter(each().map(|r| r.k))),
        Arc::new(StringArray::from_iter(each().map(|r| r.s.clone()))),
        Arc::new(Float64Array::from_iter(each().map(|r| r.v))),
        Arc::new(Int64Array::from_iter_values(each().map(|r| r.n))),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The rows with a column of every type that Parquet files have, made from the others, NULLs among them.
fn wide(rows: &RecordBatch) -> RecordBatch {
    let [ts, k, s, v, n] = [0, 1, 2, 3, 4].map(|i| rows.column(i));
    let to = |column: &ArrayRef, kind: DataType| cast(column, &kind).unwrap();
    let times = |unit, zone: Option<&str>| to(ts, DataType::Timestamp(unit, zone.map(Into::into)));
    let ints = |c: &ArrayRef| c.as_primitive::<Int64Type>().clone();
    let plus: ArrayRef = Arc::new(ints(n).unary::<_, Int64Type>(|n| n + 10));
    let four = ints(n).iter().map(|n| n.filter(|n| n % 7 != 0).map(|n| (n as i32).to_be_bytes())).collect::<Vec<_>>();
    let binary = to(s, DataType::Binary);
    let present = k.nulls().cloned();
    let list = {
        // As long as `k` says; NULL where it is.
        let lengths: Vec<usize> = ints(k).iter().map(|k| k.unwrap_or(0) as usize % 4).collect();
        let values = lengths.iter().enumerate().flat_map(|(row, len)| (0..*len).map(move |i| (row, i)));
        let values = values.map(|(row, i)| (i != 2).then(|| ints(n).value(row) + i as i64));
        let values = Arc::new(Int64Array::from_iter(values));
        let field = Arc::new(Field::new("item", DataType::Int64, true));
        ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, present.clone())
    };
    let pair = Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]);
    // What stands below a NULL is nobody's business, and does not survive Parquet: so there is nothing.
    let below = |column: &ArrayRef| nullif(column, &is_null(v).unwrap()).unwrap();
    let pairs = StructArray::new(pair, vec![below(k), below(s)], v.nulls().cloned());
    let map = {
        let entry =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows.num_rows()).map(|_| "k")));
        let entries = StructArray::new(entry.clone(), vec![keys, Arc::clone(k)], None);
        let field = Arc::new(Field::new("entries", DataType::Struct(entry), false));
        MapArray::new(field, OffsetBuffer::from_lengths(vec![1; rows.num_rows()]), entries, None, false)
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", to(&plus, DataType::Boolean)),
        ("i8", to(n, DataType::Int8)),
        ("i16", to(n, DataType::Int16)),
        ("i32", to(k, DataType::Int32)),
        ("u8", to(&plus, DataType::UInt8)),
        ("u16", to(&plus, DataType::UInt16)),
        ("u32", to(k, DataType::UInt32)),
        ("u64", to(k, DataType::UInt64)),
        ("f32", to(v, DataType::Float32)),
        ("dec", to(v, DataType::Decimal128(12, 3))),
        ("big", to(v, DataType::Decimal256(30, 3))),
        ("date", to(ts, DataType::Date32)),
        ("time", to(ts, DataType::Time64(TimeUnit::Microsecond))),
        ("at_s", times(TimeUnit::Second, None)),
        ("at_ms", times(TimeUnit::Millisecond, Some("UTC"))),
        ("at_us", times(TimeUnit::Microsecond, Some("Europe/Berlin"))),
        ("at_ns", times(TimeUnit::Nanosecond, Some("+05:30"))),
        ("bin", Arc::clone(&binary)),
        ("bview", to(&binary, DataType::BinaryView)),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(four.into_iter(), 4).unwrap())),
        ("large", to(s, DataType::LargeUtf8)),
        ("text", to(s, DataType::Utf8View)),
        ("dict", to(s, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))),
        ("list", Arc::new(list)),
        ("pair", Arc::new(pairs)),
        ("map", Arc::new(map)),
    ];
    let mut fields = rows.schema().fields().to_vec();
    fields.extend(columns.iter().map(|(name, c)| Arc::new(Field::new(*name, c.data_type().clone(), true))));
    let all = rows.columns().iter().cloned().chain(columns.into_iter().map(|(_, c)| c));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), all.collect()).unwrap()
}
