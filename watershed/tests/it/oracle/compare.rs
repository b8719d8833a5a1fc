//! Compares two answers as bags of rows: floats at 1e-9 relative, all else exactly.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// A value: exact text, or a float.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Exact(String),
    Float(f64),
}

pub(crate) type Rows = Vec<Vec<Cell>>;

/// The rows of an answer; times as microseconds, so that zones and units do not matter.
pub(crate) fn rows(batches: &[RecordBatch]) -> Rows {
    let mut rows = vec![];
    for batch in batches {
        let from = rows.len();
        rows.extend((0..batch.num_rows()).map(|_| Vec::with_capacity(batch.num_columns())));
        for column in batch.columns() {
            for (i, cell) in cells(column.as_ref()).into_iter().enumerate() {
                rows[from + i].push(cell);
            }
        }
    }
    rows
}

fn cells(column: &dyn Array) -> Vec<Cell> {
    let null = |i: usize, cell: Cell| if column.is_null(i) { Cell::Null } else { cell };
    if column.data_type().is_floating() {
        let floats = cast(column, &DataType::Float64).unwrap();
        let floats = floats.as_primitive::<Float64Type>();
        return (0..column.len()).map(|i| null(i, Cell::Float(floats.value(i)))).collect();
    }
    let plain = match column.data_type() {
        DataType::Timestamp(_, zone) => {
            let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).unwrap();
            cast(&micros, &DataType::Int64).unwrap()
        }
        _ => arrow::array::make_array(column.to_data()),
    };
    let format = ArrayFormatter::try_new(plain.as_ref(), &FormatOptions::default()).unwrap();
    (0..column.len()).map(|i| null(i, Cell::Exact(format.value(i).to_string()))).collect()
}

/// `Err` says where two answers differ.
pub(crate) fn same(mut expected: Rows, mut found: Rows) -> Result<(), String> {
    expected.sort_by(|a, b| order(a, b));
    found.sort_by(|a, b| order(a, b));
    if expected.len() != found.len() {
        let only = |a: &Rows, b: &Rows| a.iter().find(|r| !b.iter().any(|o| equal(r, o))).cloned();
        return Err(format!(
            "{} rows expected, {} found; first missing: {:?}; first extra: {:?}",
            expected.len(),
            found.len(),
            only(&expected, &found),
            only(&found, &expected)
        ));
    }
    match expected.iter().zip(&found).find(|(a, b)| !equal(a, b)) {
        Some((a, b)) => Err(format!("expected {a:?}\n   found {b:?}")),
        None => Ok(()),
    }
}

fn near(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

fn equal(a: &[Cell], b: &[Cell]) -> bool {
    let cells = |(a, b): (&Cell, &Cell)| match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => near(*a, *b),
        _ => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(cells)
}

/// By exact values first, floats only break ties: so rounding does not reorder rows whose keys differ.
fn order(a: &[Cell], b: &[Cell]) -> Ordering {
    let exact = |row: &[Cell]| -> Vec<Option<String>> {
        let cell = |c: &Cell| match c {
            Cell::Exact(text) => Some(Some(text.clone())),
            Cell::Null => Some(None),
            Cell::Float(_) => None,
        };
        row.iter().filter_map(cell).collect()
    };
    let floats = |row: &[Cell]| -> Vec<i128> {
        let coarse = |c: &Cell| match c {
            Cell::Float(f) => Some((f * 1e6).round() as i128),
            _ => None,
        };
        row.iter().filter_map(coarse).collect()
    };
    exact(a).cmp(&exact(b)).then_with(|| floats(a).cmp(&floats(b)))
}

#[test]
fn differences_are_found() {
    let row = |k: &str, v: f64| vec![Cell::Exact(k.into()), Cell::Float(v)];
    assert!(same(vec![row("a", 1.0), row("b", 2.0)], vec![row("b", 2.0 + 1e-12), row("a", 1.0)]).is_ok());
    assert!(same(vec![row("a", 1.0)], vec![row("a", 1.0 + 1e-6)]).is_err());
    assert!(same(vec![row("a", 1.0)], vec![row("a", 1.0), row("a", 1.0)]).is_err());
    assert!(same(vec![vec![Cell::Null]], vec![vec![Cell::Exact("".into())]]).is_err());
}
