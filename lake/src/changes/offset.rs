//! Where a reader stands among the versions of a table, as one number. Pure.
//!
//! ```text
//!  v · VERSION              + CONTENT                  (v + 1) · VERSION
//!  │ rows that v changed …  │ rows that the table has behind v …  │ rows that v + 1 changed …
//! ```
//!
//! What a table holds is told as if it had come with a version, once, to a reader who begins there; so it has offsets of its
//! own, behind those of what the version changed. Whoever reads on from version to version passes over them.

use watershed_core::tail::{Numbering, Part, TailPosition, VERSION};

/// The log's only part.
pub(super) const PART: Part = 0;

/// Where the rows that the table holds begin, from the version's first offset.
const CONTENT: i64 = VERSION / 2;

/// Which rows of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// What it changed.
    Changes,
    /// All that the table holds.
    Content,
}

/// The place of a row that is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) version: u64,
    pub(super) told: Told,
    /// Rows of these that were read.
    pub(super) row: u64,
}

impl Standing {
    /// Before the first of these rows.
    pub(super) fn before(version: u64, told: Told) -> Standing {
        Standing { version, told, row: 0 }
    }

    pub(super) fn at(offset: i64) -> Standing {
        let version = u64::try_from(Numbering::Versions.message(offset)).unwrap_or(0);
        let within = offset.rem_euclid(VERSION);
        let (told, row) = if within < CONTENT { (Told::Changes, within) } else { (Told::Content, within - CONTENT) };
        Standing { version, told, row: row.unsigned_abs() }
    }

    pub(super) fn offset(self) -> i64 {
        let first = begins(self.version) + if self.told == Told::Content { CONTENT } else { 0 };
        first.saturating_add(i64::try_from(self.row).unwrap_or(i64::MAX))
    }

    /// Whether so many rows more still have offsets of their own.
    pub(super) fn has_room(self, rows: u64) -> bool {
        i64::try_from(self.row.saturating_add(rows)).is_ok_and(|row| row <= CONTENT)
    }
}

/// The offset at which what a version changed begins.
pub(super) fn begins(version: u64) -> i64 {
    Numbering::Versions.begins(i64::try_from(version).unwrap_or(i64::MAX))
}

/// What a job has still to read of a table's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Needs {
    /// A version of which it reads all that the table held.
    pub(crate) content: Option<u64>,
    /// The first version of which it reads what it changed.
    pub(crate) changes: u64,
}

/// What a job needs that stands there in a log, if that is the changes of the table of this id.
pub(crate) fn needs(position: &TailPosition, table_id: &str) -> Option<Needs> {
    let at = position.parts.get(&PART).filter(|_| position.id.as_deref() == Some(table_id))?;
    let Standing { version, told, .. } = Standing::at(at.next);
    Some(match told {
        Told::Changes => Needs { content: None, changes: version },
        Told::Content => Needs { content: Some(version), changes: version + 1 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_its_offset() {
        for version in [0, 1, 7, 900_000_000] {
            for told in [Told::Changes, Told::Content] {
                for row in [0, 1, 8191, CONTENT.unsigned_abs() - 1] {
                    let standing = Standing { version, told, row };
                    assert_eq!(Standing::at(standing.offset()), standing);
                    assert!(standing.offset() < begins(version + 1));
                }
            }
        }
        assert_eq!(Standing { version: 12, told: Told::Changes, row: 344 }.offset(), 120_000_000_344);
    }

    #[test]
    fn what_does_not_fit_is_known() {
        let last = Standing { version: 3, told: Told::Content, row: CONTENT.unsigned_abs() - 5 };
        assert_eq!((last.has_room(5), last.has_room(6)), (true, false));
    }
}
