//! Where records begin and end in a file's bytes.
//!
//! A line end is LF, CR LF or CR. In CSV one between quotes is part of the record; a quote opens at the beginning of a field
//! only, and two within quotes are one, as arrow's reader has it.
//!
//! Invariant: what is cut does not depend on how much of the file was there when it was cut.

use std::ops::Range;

use super::{Dialect, KEPT, LONGEST};

/// What comes next in a file.
#[derive(Debug, PartialEq)]
pub(super) enum Cut {
    /// A record, and the line that it begins on.
    Record(Range<usize>, i64),
    /// The beginning of one that is too long.
    TooLong(Range<usize>, i64),
}

/// Cuts the bytes of a buffer, which grows at its end, and loses at its beginning what was cut.
#[derive(Debug)]
pub(super) struct Cutter {
    csv: Option<Dialect>,
    /// Up to where the buffer was looked at, and where the record begins that is being looked at.
    at: usize,
    begin: usize,
    field: Field,
    line: i64,
    /// The line that the record begins on.
    line_of_record: i64,
    /// The byte before was a CR, with which an LF makes one line end.
    after_cr: bool,
    /// The record was too long: what follows is passed over to the next line end, in quotes or not.
    lost: bool,
}

/// Where in a field of CSV.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Begin,
    Plain,
    Quoted,
    /// After a quote within quotes: it ends them, or is the first of two.
    QuoteInQuotes,
}

impl Cutter {
    pub(super) fn new(csv: Option<Dialect>) -> Self {
        Cutter { csv, at: 0, begin: 0, field: Field::Begin, line: 0, line_of_record: 0, after_cr: false, lost: false }
    }

    /// Bytes at the buffer's beginning that were cut or passed over.
    pub(super) fn cut_up_to(&self) -> usize {
        self.begin
    }

    /// What comes next. `all`: the file ends with the buffer, and needs no line end there.
    pub(super) fn next(&mut self, buffer: &[u8], all: bool) -> Option<Cut> {
        while let Some(byte) = buffer.get(self.at) {
            let end = self.at;
            self.at += 1;
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            let line_end = matches!(byte, b'\n' | b'\r');
            if line_end && !(*byte == b'\n' && after_cr) {
                self.line += 1;
            }
            if line_end && (self.lost || !self.in_quotes()) {
                if let Some((record, line)) = self.end(buffer, end) {
                    return Some(Cut::Record(record, line));
                }
                continue;
            }
            if let Some(csv) = self.csv {
                self.field = self.field.after(*byte, csv);
            }
            if self.lost {
                self.begin = self.at;
            } else if self.at - self.begin > LONGEST {
                let beginning = self.begin..self.begin + KEPT;
                (self.lost, self.begin) = (true, self.at);
                return Some(Cut::TooLong(beginning, self.line_of_record));
            }
        }
        let last = if all { self.end(buffer, buffer.len()) } else { None };
        last.map(|(record, line)| Cut::Record(record, line))
    }

    fn in_quotes(&self) -> bool {
        self.csv.is_some() && self.field == Field::Quoted
    }

    /// Ends the record before a line end; `None` if there is nothing on the line.
    fn end(&mut self, buffer: &[u8], end: usize) -> Option<(Range<usize>, i64)> {
        let record = self.begin..end;
        let line = self.line_of_record;
        self.begin = self.at;
        self.field = Field::Begin;
        self.line_of_record = self.line;
        let lost = std::mem::take(&mut self.lost);
        let blank = match self.csv {
            Some(_) => record.is_empty(),
            None => buffer[record.clone()].iter().all(u8::is_ascii_whitespace),
        };
        (!lost && !blank).then_some((record, line))
    }

    /// Tells how many bytes at the buffer's beginning are no longer needed, and takes them for gone.
    pub(super) fn forget(&mut self) -> usize {
        let gone = self.begin;
        self.at -= gone;
        self.begin = 0;
        gone
    }
}

impl Field {
    fn after(self, byte: u8, csv: Dialect) -> Field {
        let (quote, delimiter) = (byte == csv.quote, byte == csv.delimiter);
        match self {
            Field::Quoted if quote => Field::QuoteInQuotes,
            Field::Quoted => Field::Quoted,
            Field::Begin | Field::QuoteInQuotes if quote => Field::Quoted,
            _ if delimiter => Field::Begin,
            _ => Field::Plain,
        }
    }
}
