//! One schema for Parquet files that differ: their columns together, each as wide as its widest ([`widen`]). Pure.
//!
//! What does not widen is a clash, which names the file, the column and both types.
//!
//! Which files are asked is decided by [`sample`]: all of them would be a request a file before the first row is read.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use watershed_core::widen::widen;
use watershed_core::{Error, Result};

/// Most files whose footers are read to learn the columns of a folder.
pub(crate) const SAMPLE: usize = 64;

/// Which of so many files, in order of time, tell the columns: all, or some evenly spread from the first to the last. So a
/// column that came to stay is seen whenever it came; one that only files between two of these have is not.
pub(crate) fn sample(files: usize) -> Vec<usize> {
    match files {
        0 => vec![],
        n if n <= SAMPLE => (0..n).collect(),
        n => (0..SAMPLE).map(|i| i * (n - 1) / (SAMPLE - 1)).collect(),
    }
}

/// The columns of all files, in the order of the last, those that it lacks behind. Files come with their paths, oldest
/// first.
pub(crate) fn union(location: &str, files: &[(&str, Arc<Schema>)]) -> Result<Vec<FieldRef>> {
    // Each column with the file that gave it the type it has.
    let mut columns: Vec<(FieldRef, &str)> = vec![];
    for (path, schema) in files.iter().rev() {
        for field in schema.fields() {
            let Some((known, by)) = columns.iter_mut().find(|(known, _)| known.name() == field.name()) else {
                let plain = field.as_ref().clone().with_nullable(true).with_metadata(Default::default());
                columns.push((plain.into(), path));
                continue;
            };
            let Some(wide) = widen(known.data_type(), field.data_type()) else {
                return Err(Error::input(format!(
                    "{location}: column `{}` is {} in file {path}, but {} in {by}, and neither type holds the other's values; \
                     rewrite one of them, or move it away",
                    field.name(),
                    field.data_type(),
                    known.data_type()
                )));
            };
            if wide != *known.data_type() {
                *known = known.as_ref().clone().with_data_type(wide).into();
                *by = path;
            }
        }
    }
    Ok(columns.into_iter().map(|(field, _)| field).collect())
}

#[cfg(test)]
#[path = "evolve_tests.rs"]
mod tests;
