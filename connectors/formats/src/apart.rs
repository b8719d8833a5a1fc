//! A batch that cannot be read whole, taken apart until only the malformed messages are left out.
//!
//! Arrow's readers give all rows of a batch or an error, and after one cannot be told to forget the message that caused it.
//! So a batch is tried whole, which is nearly always all. An attempt may then say which rows are none, and they are left
//! out; or which message it failed at, and what lies before and behind it is tried again; or neither, and then smaller and
//! smaller parts are. So malformed messages cost their neighbours another reading or a few, but none for each.
//!
//! Invariant: what an attempt says of a message must not depend on the others of the attempt. Then this finds exactly the
//! messages that fail alone, with the same reasons.

use arrow::array::{ArrayRef, BooleanArray, UInt64Array, new_empty_array};
use arrow::compute::{concat, filter, take};
use arrow::datatypes::Fields;
use watershed_core::{Error, Result};

use crate::text::Refused;

/// What payloads gave.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) columns: Vec<ArrayRef>,
    /// For each row the index of its message, growing.
    pub(crate) rows: Vec<usize>,
    /// By index of the message, growing.
    pub(crate) malformed: Vec<(usize, String)>,
}

/// What some messages gave.
pub(crate) struct Attempted {
    /// A row for each of them.
    pub(crate) columns: Vec<ArrayRef>,
    /// Rows that are none, by their place, and why.
    pub(crate) refused: Refused,
}

impl From<Vec<ArrayRef>> for Attempted {
    fn from(columns: Vec<ArrayRef>) -> Self {
        Attempted { columns, refused: Refused::new() }
    }
}

/// Why some messages gave nothing.
pub(crate) struct Fault {
    /// The place of the first that is malformed, if that is known.
    pub(crate) at: Option<usize>,
    pub(crate) reason: String,
}

impl<S: Into<String>> From<S> for Fault {
    fn from(reason: S) -> Self {
        Fault { at: None, reason: reason.into() }
    }
}

/// Reads some messages.
pub(crate) type Attempt<'a> = dyn Fn(&[usize]) -> Result<Attempted, Fault> + 'a;

/// Into how many parts messages are taken of which any may be malformed.
const PARTS: usize = 8;

/// The columns of these messages, by attempts at some of them.
pub(crate) fn read_apart(fields: &Fields, messages: &[usize], attempt: &Attempt<'_>) -> Result<Read> {
    let mut apart = Apart { fields, attempt, pieces: vec![], rows: vec![], malformed: vec![] };
    apart.read(messages)?;
    let Apart { mut pieces, rows, malformed, .. } = apart;
    let columns = match pieces.len() {
        0 => fields.iter().map(|field| new_empty_array(field.data_type())).collect(),
        1 => pieces.remove(0),
        _ => {
            let column = |at: usize| {
                let parts: Vec<_> = pieces.iter().map(|piece| piece[at].as_ref()).collect();
                concat(&parts).map_err(|e| Error::bug(format!("rows of a log put together: {e}")))
            };
            (0..fields.len()).map(column).collect::<Result<_>>()?
        }
    };
    Ok(Read { columns, rows, malformed })
}

/// What groups of messages gave that were read each in its own way, in the order of the messages, beside those that were
/// malformed before.
pub(crate) fn together(fields: &Fields, mut all: Vec<Read>, malformed: Vec<(usize, String)>) -> Result<Read> {
    let mut malformed: Vec<_> = malformed.into_iter().map(|(message, reason)| (message, brief(reason))).collect();
    for read in &mut all {
        malformed.append(&mut read.malformed);
    }
    malformed.sort_unstable_by_key(|(message, _)| *message);
    if let [_] = all.as_slice() {
        let Read { columns, rows, .. } = all.remove(0);
        return Ok(Read { columns, rows, malformed });
    }
    let mut places: Vec<usize> = all.iter().flat_map(|read| &read.rows).copied().collect();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by_key(|row| places[*row]);
    places.sort_unstable();
    let order = UInt64Array::from_iter_values(order.into_iter().map(|row| row as u64));
    let column = |at: usize| -> Result<ArrayRef> {
        let parts: Vec<_> = all.iter().map(|read| read.columns[at].as_ref()).collect();
        if parts.is_empty() {
            return Ok(new_empty_array(fields[at].data_type()));
        }
        let ordered = concat(&parts).and_then(|parts| take(&parts, &order, None));
        ordered.map_err(|e| Error::bug(format!("rows of several schemas put together: {e}")))
    };
    let columns = (0..fields.len()).map(column).collect::<Result<_>>()?;
    Ok(Read { columns, rows: places, malformed })
}

struct Apart<'a> {
    fields: &'a Fields,
    attempt: &'a Attempt<'a>,
    pieces: Vec<Vec<ArrayRef>>,
    rows: Vec<usize>,
    malformed: Vec<(usize, String)>,
}

impl Apart<'_> {
    fn read(&mut self, mut messages: &[usize]) -> Result<()> {
        while !messages.is_empty() {
            match (self.attempt)(messages) {
                Ok(attempted) => return self.keep(messages, attempted),
                Err(Fault { at, reason }) => match at.or((messages.len() == 1).then_some(0)) {
                    Some(at) => {
                        self.read(&messages[..at])?;
                        self.malformed.push((messages[at], brief(reason)));
                        messages = &messages[at + 1..];
                    }
                    None => {
                        let mut parts = messages.chunks(messages.len().div_ceil(PARTS));
                        return parts.try_for_each(|part| self.read(part));
                    }
                },
            }
        }
        Ok(())
    }

    /// The rows, but for those that are none.
    fn keep(&mut self, messages: &[usize], attempted: Attempted) -> Result<()> {
        let Attempted { mut columns, mut refused } = attempted;
        for (column, field) in columns.iter().zip(self.fields) {
            if !field.is_nullable() && column.null_count() > 0 {
                let gaps = (0..column.len()).filter(|row| column.is_null(*row));
                let reason = || format!("column '{}' is NOT NULL, and is NULL or missing", field.name());
                gaps.for_each(|row| _ = refused.entry(row).or_insert_with(reason));
            }
        }
        if refused.is_empty() {
            self.rows.extend_from_slice(messages);
        } else {
            let kept: BooleanArray = (0..messages.len()).map(|row| Some(!refused.contains_key(&row))).collect();
            let filtered = columns.iter().map(|column| filter(column, &kept)).collect::<Result<_, _>>();
            columns = filtered.map_err(|e| Error::bug(format!("rows of a log picked: {e}")))?;
            self.rows
                .extend(messages.iter().enumerate().filter(|(row, _)| kept.value(*row)).map(|(_, message)| message));
            self.malformed.extend(refused.into_iter().map(|(row, reason)| (messages[row], brief(reason))));
        }
        self.pieces.push(columns);
        Ok(())
    }
}

/// A reason that fits a line: arrow's quote whole values.
fn brief(mut reason: String) -> String {
    const LONGEST: usize = 300;
    if let Some((end, _)) = reason.char_indices().nth(LONGEST) {
        reason.truncate(end);
        reason.push('…');
    }
    reason
}
