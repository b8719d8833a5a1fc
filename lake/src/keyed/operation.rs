//! The operation column of a change stream: what each row does to its key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Schema};
use watershed_core::{Error, Result};

/// Words for rows that hold what the key is from now on, and for those that end it: of ours, of Delta's change feed, of
/// Debezium, and as single letters.
const UPSERTS: &[&str] =
    &["upsert", "insert", "update", "update_postimage", "create", "read", "i", "u", "c", "r", "+i", "+u"];
const DELETES: &[&str] = &["delete", "d", "-d"];
/// What was before; the key's new row, or its deletion, comes on its own.
const PASSED_OVER: &[&str] = &["update_preimage", "update_before", "-u"];

/// Rows without their operation column, and which of them delete.
pub(crate) struct Operations {
    pub(crate) rows: RecordBatch,
    /// `None`: none does.
    pub(crate) deletes: Option<Vec<bool>>,
}

/// A schema without the operation column.
pub(crate) fn without(schema: &Schema, column: &str) -> Result<(usize, Arc<Schema>)> {
    let at = schema.index_of(column).map_err(|_| {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::input(format!("there is no column `{column}` for the operation; the columns are {}", names.join(", ")))
    })?;
    let kept: Vec<usize> = (0..schema.fields().len()).filter(|i| *i != at).collect();
    let kept = schema.project(&kept).map_err(|e| Error::bug(format!("a schema without `{column}`: {e}")))?;
    Ok((at, Arc::new(kept)))
}

/// Reads the operation column away.
pub(crate) fn operations(rows: &RecordBatch, at: usize) -> Result<Operations> {
    let name = rows.schema().field(at).name().clone();
    let column: ArrayRef = cast(rows.column(at), &DataType::Utf8)
        .map_err(|e| Error::input(format!("column `{name}` cannot tell operations: {e}")))?;
    let words = column.as_string::<i32>();
    let (mut keep, mut deletes) = (Vec::with_capacity(words.len()), Vec::with_capacity(words.len()));
    for word in words {
        let known = |of: &[&str]| word.is_some_and(|word| of.iter().any(|w| w.eq_ignore_ascii_case(word.trim())));
        let (upsert, delete) = (known(UPSERTS), known(DELETES));
        if !upsert && !delete && !known(PASSED_OVER) {
            let said = word.map_or("NULL".to_string(), |word| format!("'{word}'"));
            return Err(Error::input(format!(
                "column `{name}` says {said}, which is no operation; these are: {}, {} (and {}, which are passed over)",
                UPSERTS.join(", "),
                DELETES.join(", "),
                PASSED_OVER.join(", ")
            )));
        }
        keep.push(upsert || delete);
        deletes.push(delete);
    }
    let bug = |e| Error::bug(format!("rows by their operation: {e}"));
    let others: Vec<usize> = (0..rows.num_columns()).filter(|i| *i != at).collect();
    let mut rows = rows.project(&others).map_err(bug)?;
    if keep.contains(&false) {
        rows = filter_record_batch(&rows, &BooleanArray::from(keep.clone())).map_err(bug)?;
        let mut kept = keep.iter();
        deletes.retain(|_| kept.next() == Some(&true));
    }
    Ok(Operations { rows, deletes: deletes.contains(&true).then_some(deletes) })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

    fn rows(words: Vec<Option<&str>>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("op", DataType::Utf8, true), Field::new("id", DataType::Int32, true)]);
        let ids = Int32Array::from_iter_values(0..i32::try_from(words.len()).unwrap());
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(words)), Arc::new(ids)]).unwrap()
    }

    #[test]
    fn operations_are_read_away() {
        let found = operations(&rows(vec![Some("I"), Some("update_preimage"), Some("d"), Some("+U")]), 0).unwrap();
        assert_eq!(found.rows.column(0).as_primitive::<Int32Type>().values(), &[0, 2, 3]);
        assert_eq!(found.deletes, Some(vec![false, true, false]));
        assert_eq!(operations(&rows(vec![Some("c")]), 0).unwrap().deletes, None);
        for (odd, words) in [(Some("merge"), "says 'merge'"), (None, "says NULL")] {
            let error = operations(&rows(vec![Some("i"), odd]), 0).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(without(&rows(vec![]).schema(), "kind").unwrap_err().to_string().contains("columns are op, id"));
    }
}
