//! Columns that grow by a row for each message, and what of the row in progress was read so far.
//!
//! A field may come several times: of scalars the last counts, messages are merged, lists go on; and of a `oneof` only the
//! last field counts. So a row is in progress until its message ends, and is then added to all columns. What is within a
//! list is added at once, and taken back if the row comes to nothing.
//!
//! Invariant: a row that is malformed leaves nothing behind.

use std::collections::HashSet;

use super::bad::Bad;
use super::scalar::Scalar;
use super::shape::{Plan, Reading, Shape};
use super::store::{Key, Store};
use super::wire::{Reader, Wire};

/// The columns of a message type.
pub(super) struct Row<'a> {
    shape: &'a Shape,
    pub(super) columns: Vec<Column<'a>>,
    /// What its columns are called in errors.
    what: &'static str,
}

pub(super) struct Column<'a> {
    pub(super) plan: &'a Plan,
    /// Whether the row in progress has a value.
    there: bool,
    /// For each row whether it is not NULL.
    pub(super) valid: Vec<bool>,
    pub(super) values: Values<'a>,
}

pub(super) enum Values<'a> {
    Plain(Store<'a>),
    Struct(Row<'a>),
    List {
        items: Box<Column<'a>>,
        offsets: Vec<i32>,
    },
    Map {
        entries: Row<'a>,
        offsets: Vec<i32>,
        /// Of the row in progress.
        keys: Vec<Key<'a>>,
        /// Entries behind which there is another of the same key, growing.
        replaced: Vec<usize>,
    },
}

impl<'a> Row<'a> {
    pub(super) fn new(shape: &'a Shape, rows: usize, what: &'static str) -> Self {
        Row { shape, columns: shape.columns.iter().map(|plan| Column::new(plan, rows)).collect(), what }
    }

    /// Adds the row of a message.
    pub(super) fn add(&mut self, message: &'a [u8]) -> Result<(), Bad> {
        self.read(message)?;
        self.end()
    }

    /// Adds one of NULLs in the place of one that came to nothing; so many there are before it.
    pub(super) fn none(&mut self, rows: usize) {
        self.rewind(rows);
        self.skip();
    }

    /// Fields of a message into the row in progress.
    fn read(&mut self, message: &'a [u8]) -> Result<(), Bad> {
        let (mut reader, mut hint) = (Reader::new(message), 0);
        while let Some((number, wire)) = reader.field()? {
            let Some(place) = self.shape.place(number, &mut hint) else { continue };
            for rival in self.shape.rivals(place) {
                self.columns[rival].forget();
            }
            if let Some(column) = place.column.and_then(|at| self.columns.get_mut(at)) {
                if column.repeats() {
                    // Another may follow.
                    hint -= 1;
                }
                column.read(wire).map_err(|bad| bad.within(self.what, &column.plan.name))?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Bad> {
        let mut columns = self.columns.iter_mut();
        columns.try_for_each(|column| column.end().map_err(|bad| bad.within(self.what, &column.plan.name)))
    }

    fn rewind(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.rewind(rows));
    }

    fn forget(&mut self) {
        self.columns.iter_mut().for_each(Column::forget);
    }

    fn skip(&mut self) {
        self.columns.iter_mut().for_each(Column::skip);
    }
}

impl<'a> Column<'a> {
    fn new(plan: &'a Plan, rows: usize) -> Self {
        let values = match &plan.reading {
            Reading::Message(shape) => Values::Struct(Row::new(shape, rows, "field")),
            Reading::List(item) => Values::List { items: Box::new(Column::new(item, 0)), offsets: vec![0] },
            Reading::Map(shape) => {
                Values::Map { entries: Row::new(shape, 0, "its"), offsets: vec![0], keys: vec![], replaced: vec![] }
            }
            _ => Values::Plain(Store::new(plan, rows)),
        };
        Column { plan, there: false, valid: Vec::with_capacity(rows), values }
    }

    fn repeats(&self) -> bool {
        matches!(self.values, Values::List { .. } | Values::Map { .. })
    }

    /// A field's value into the row in progress.
    fn read(&mut self, wire: Wire<'a>) -> Result<(), Bad> {
        match &mut self.values {
            Values::Plain(store) => store.read(self.plan, wire)?,
            Values::Struct(row) => row.read(nested(wire)?)?,
            Values::List { items, .. } => {
                let packed = match (items.plan.reading.scalar().filter(|scalar| scalar.packs()), wire) {
                    (Some(scalar), Wire::Bytes(packed)) => Some((scalar, packed)),
                    _ => None,
                };
                let Some((scalar, packed)) = packed else { return items.add(wire) };
                let mut reader = Reader::new(packed);
                while !reader.rest().is_empty() {
                    items.add(scalar.packed(&mut reader)?)?;
                }
            }
            Values::Map { entries, keys, .. } => {
                entries.read(nested(wire)?)?;
                if let Some(Column { values: Values::Plain(store), .. }) = entries.columns.first() {
                    keys.push(store.key());
                }
                entries.end()?;
            }
        }
        self.there = true;
        Ok(())
    }

    /// One more of a list's.
    fn add(&mut self, wire: Wire<'a>) -> Result<(), Bad> {
        self.read(wire)?;
        self.end()
    }

    /// Ends the row in progress.
    fn end(&mut self) -> Result<(), Bad> {
        let there = std::mem::take(&mut self.there);
        let valid = there || self.plan.has_default || self.repeats();
        if !valid && self.plan.not_null {
            return Err("it is NOT NULL, and is missing".into());
        }
        match &mut self.values {
            Values::Plain(store) => store.end(self.plan)?,
            Values::Struct(row) if valid => row.end()?,
            Values::Struct(row) => row.skip(),
            Values::List { items, offsets } => offsets.push(offset(items.valid.len())?),
            Values::Map { entries, offsets, keys, replaced } => {
                let first = rows(offsets);
                offsets.push(offset(first + keys.len())?);
                if keys.len() > 1 {
                    let mut seen = HashSet::with_capacity(keys.len());
                    let from = replaced.len();
                    let repeated = keys.iter().enumerate().rev().filter(|(_, key)| !seen.insert(**key));
                    replaced.extend(repeated.map(|(at, _)| first + at));
                    replaced[from..].reverse();
                }
                debug_assert!(entries.columns.iter().all(|column| column.valid.len() == first + keys.len()));
                keys.clear();
            }
        }
        self.valid.push(valid);
        Ok(())
    }

    /// Back to so many rows, with none in progress.
    fn rewind(&mut self, to: usize) {
        self.there = false;
        self.valid.truncate(to);
        match &mut self.values {
            Values::Plain(store) => store.rewind(to),
            Values::Struct(row) => row.rewind(to),
            Values::List { items, offsets } => {
                offsets.truncate(to + 1);
                items.rewind(rows(offsets));
            }
            Values::Map { entries, offsets, keys, replaced } => {
                offsets.truncate(to + 1);
                keys.clear();
                entries.rewind(rows(offsets));
                replaced.truncate(replaced.partition_point(|at| *at < rows(offsets)));
            }
        }
    }

    /// Drops what the row in progress has.
    fn forget(&mut self) {
        if !std::mem::take(&mut self.there) {
            return;
        }
        match &mut self.values {
            Values::Plain(store) => store.forget(),
            Values::Struct(row) => row.forget(),
            Values::List { .. } | Values::Map { .. } => self.rewind(self.valid.len()),
        }
    }

    /// Adds NULL.
    fn skip(&mut self) {
        self.valid.push(false);
        match &mut self.values {
            Values::Plain(store) => store.skip(),
            Values::Struct(row) => row.skip(),
            Values::List { offsets, .. } | Values::Map { offsets, .. } => {
                offsets.extend(offsets.last().copied());
            }
        }
    }
}

impl Reading {
    /// What is packed in lists.
    fn scalar(&self) -> Option<Scalar> {
        match self {
            Reading::Scalar(scalar) | Reading::Epoch(scalar, _) => Some(*scalar),
            Reading::Enum(_) => Some(Scalar::Enum),
            _ => None,
        }
    }
}

/// The bytes of a message within another.
pub(super) fn nested(wire: Wire<'_>) -> Result<&[u8], Bad> {
    match wire {
        Wire::Bytes(message) | Wire::Group(message) => Ok(message),
        other => Err(format!("a message has not the wire type {}", other.name()).into()),
    }
}

/// How many items the rows have together.
fn rows(offsets: &[i32]) -> usize {
    offsets.last().and_then(|offset| usize::try_from(*offset).ok()).unwrap_or_default()
}

fn offset(items: usize) -> Result<i32, Bad> {
    i32::try_from(items).map_err(|_| Bad::too_many("it has more items than a list may have"))
}
