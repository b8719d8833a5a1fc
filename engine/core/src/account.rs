//! The account of a run's rows: what it opened, and what became of each.
//!
//! **Invariant:** every row of a row group that was opened is used, filtered, late or bad, and only one of them, in however many
//! windows it is. Rows that a deletion vector marks and rows of row groups that statistics ruled out are counted apart.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// Rows by what became of them. A source that the query reads twice is counted in each reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Rows of the row groups that were opened, less those that deletion vectors mark.
    pub opened: u64,
    /// Rows that went into an aggregate, a join or the result.
    pub used: u64,
    /// Rows that a condition of the query left out, or its pages' statistics.
    pub filtered: u64,
    /// Rows that were late for every window they belong to.
    pub late: u64,
    /// Rows without a usable event time.
    pub bad: u64,
    /// Rows that were late for some of their windows and went on to the others: listed as late, but not counted so above.
    pub partly_late: u64,
    /// Rows of opened files that deletion vectors mark.
    pub deleted: u64,
    /// Rows of row groups that were not opened, though their files were.
    pub pruned_rows: u64,
    /// Files that were opened; one is counted in each step that reads some of it.
    pub files: u64,
    /// Files that partition values ruled out.
    pub pruned_files: u64,
    /// Row groups that were opened.
    pub row_groups: u64,
    /// Row groups of opened files that statistics ruled out.
    pub pruned_row_groups: u64,
}

impl Account {
    /// `Err` says by how much it does not balance.
    pub fn balance(&self) -> Result<(), String> {
        let Account { opened, used, filtered, late, bad, .. } = *self;
        if opened == used + filtered + late + bad {
            return Ok(());
        }
        Err(format!(
            "of {opened} rows in the row groups that were opened, {used} were used, {filtered} filtered, {late} late and {bad} \
             bad, which makes {}",
            used + filtered + late + bad
        ))
    }
}

impl Add for Account {
    type Output = Account;

    fn add(self, other: Account) -> Account {
        Account {
            opened: self.opened + other.opened,
            used: self.used + other.used,
            filtered: self.filtered + other.filtered,
            late: self.late + other.late,
            bad: self.bad + other.bad,
            partly_late: self.partly_late + other.partly_late,
            deleted: self.deleted + other.deleted,
            pruned_rows: self.pruned_rows + other.pruned_rows,
            files: self.files + other.files,
            pruned_files: self.pruned_files + other.pruned_files,
            row_groups: self.row_groups + other.row_groups,
            pruned_row_groups: self.pruned_row_groups + other.pruned_row_groups,
        }
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Account) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_too_many_or_too_few_is_told() {
        let account = Account { opened: 10, used: 4, filtered: 3, late: 2, bad: 1, ..Account::default() };
        assert_eq!(account.balance(), Ok(()));
        assert_eq!((account + account).balance(), Ok(()));
        for wrong in [Account { used: 5, ..account }, Account { opened: 11, ..account }] {
            let said = wrong.balance().unwrap_err();
            assert!(said.contains(&format!("{} were used", wrong.used)), "{said}");
        }
    }
}
