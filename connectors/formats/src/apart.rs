//! A batch that cannot be read whole, taken apart until only the malformed messages are left out.
//!
//! Arrow's readers give all rows of a batch or an error, and after one cannot be told to forget the message that caused it.
//! So a batch is tried whole, which is nearly always all; then in chunks; then, where a chunk fails, message by message.
//! Malformed messages thus cost their neighbours two more readings, not the batch one for each.
//!
//! Invariant: what an attempt says of a message must not depend on the others of the attempt. Then this finds exactly the
//! messages that fail alone.

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::Fields;
use watershed_core::{Error, Result};

/// What payloads gave.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) columns: Vec<ArrayRef>,
    /// For each row the index of its message, growing.
    pub(crate) rows: Vec<usize>,
    /// By index of the message, growing.
    pub(crate) malformed: Vec<(usize, String)>,
}

/// Messages in a chunk.
const CHUNK: usize = 64;

/// The columns of these messages, by attempts at some of them.
pub(crate) fn read_apart(
    fields: &Fields,
    messages: &[usize],
    attempt: &dyn Fn(&[usize]) -> Result<Vec<ArrayRef>, String>,
) -> Result<Read> {
    let mut apart = Apart { fields, attempt, pieces: vec![], rows: vec![], malformed: vec![] };
    if !messages.is_empty() {
        apart.read(messages);
    }
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

struct Apart<'a> {
    fields: &'a Fields,
    attempt: &'a dyn Fn(&[usize]) -> Result<Vec<ArrayRef>, String>,
    pieces: Vec<Vec<ArrayRef>>,
    rows: Vec<usize>,
    malformed: Vec<(usize, String)>,
}

impl Apart<'_> {
    fn read(&mut self, messages: &[usize]) {
        let tried = (self.attempt)(messages).and_then(|columns| self.without_gaps(columns));
        match (tried, messages) {
            (Ok(columns), _) => {
                self.pieces.push(columns);
                self.rows.extend_from_slice(messages);
            }
            (Err(reason), [one]) => self.malformed.push((*one, brief(reason))),
            (Err(_), _) => {
                let size = if messages.len() > CHUNK { CHUNK } else { 1 };
                messages.chunks(size).for_each(|chunk| self.read(chunk));
            }
        }
    }

    /// No NULL where there must be none.
    fn without_gaps(&self, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, String> {
        let mut both = columns.iter().zip(self.fields);
        match both.find(|(column, field)| !field.is_nullable() && column.null_count() > 0) {
            Some((_, field)) => Err(format!("column '{}' is NOT NULL, and is NULL or missing", field.name())),
            None => Ok(columns),
        }
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
