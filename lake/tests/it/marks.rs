//! Deletion vectors of Delta tables: which rows they mark, and what it means when they change.

use buoyant_kernel::actions::deletion_vector_writer::{KernelDeletionVector, StreamingDeletionVectorWriter};
use serde_json::{Value, json};
use watershed_core::Error;
use watershed_core::history::{DataFile, DeletedRows, History};
use watershed_lake::{DeltaSink, open_history};

use crate::fixtures::*;

/// Names of vector files, and what the log calls them.
const FILE: (&str, &str) = ("deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin", "vBn[lx{q8@P<9BNH/isA");
const PREFIXED: (&str, &str) =
    ("ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin", "ab^-aqEH.-t@S}K{vb[*k^");
/// Rows 3, 4, 7, 11, 18 and 29; from the kernel's tests.
const INLINE: &str = "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L";

/// Writes vectors to one file; the offset and size of each.
fn write_vectors(lake: &Lake, name: &str, vectors: &[&[u64]]) -> Vec<(i32, i32)> {
    let mut bytes = vec![];
    let mut writer = StreamingDeletionVectorWriter::new(&mut bytes);
    let written = vectors.iter().map(|rows| {
        let mut vector = KernelDeletionVector::new();
        vector.add_deleted_row_indexes(rows.iter().copied());
        let result = writer.write_deletion_vector(vector).unwrap();
        (result.offset, result.size_in_bytes)
    });
    let written = written.collect();
    writer.finalize().unwrap();
    let path = lake.folder.path().join("t").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
    written
}

fn vector(storage: &str, path: &str, at: Option<(i32, i32)>, rows: usize) -> Value {
    let mut vector = json!({"storageType": storage, "pathOrInlineDv": path, "cardinality": rows});
    vector["sizeInBytes"] = json!(at.map_or(44, |(_, size)| size));
    if let Some((offset, _)) = at {
        vector["offset"] = json!(offset);
    }
    vector
}

fn with(add: &Value, vector: Option<&Value>, change: bool) -> Value {
    let mut add = add.clone();
    add["dataChange"] = json!(change);
    match vector {
        Some(vector) => add["deletionVector"] = vector.clone(),
        None => drop(add.as_object_mut().unwrap().remove("deletionVector")),
    }
    json!({ "add": add })
}

fn remove(add: &Value, change: bool) -> Value {
    let mut remove = json!({"path": add["path"], "dataChange": change});
    if let Some(vector) = add.get("deletionVector") {
        remove["deletionVector"] = vector.clone();
    }
    json!({ "remove": remove })
}

fn protocol() -> Value {
    let features = json!(["deletionVectors"]);
    json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}})
}

fn adds(lake: &Lake, version: u64) -> Vec<Value> {
    entry(lake, "t", version).into_iter().filter_map(|action| action.get("add").cloned()).collect()
}

/// A table `t` of one file of forty rows and one of a row, versions 1 and 2; version 3 asks for the feature.
async fn table(lake: &Lake) -> DeltaSink {
    let sink = lake.sink("t", "day(ts)").await;
    put(&sink, 1, &(0..40).map(|k| (k, k)).collect::<Vec<_>>()).await;
    put(&sink, 2, &[(DAY, 40)]).await;
    put_entry(lake, "t", 3, &[protocol()]);
    sink
}

async fn history(lake: &Lake) -> std::sync::Arc<dyn History> {
    open_history(&lake.stores, &lake.at("t"), &by_time()).await.unwrap()
}

fn runs(deleted: &Option<std::sync::Arc<DeletedRows>>) -> Option<(u64, Vec<(u64, u64)>)> {
    deleted.as_ref().map(|d| (d.rows, d.runs.iter().map(|r| (r.start, r.end)).collect()))
}

#[tokio::test]
async fn every_storage_is_resolved() {
    let lake = Lake::new();
    table(&lake).await;
    let mut add = adds(&lake, 1).remove(0);
    let at = write_vectors(&lake, FILE.0, &[&[7], &[0, 1, 2, 39], &[]]);
    let other = write_vectors(&lake, PREFIXED.0, &[&[5]])[0];
    let absolute = url::Url::from_file_path(lake.folder.path().join("t").join(FILE.0)).unwrap().to_string();
    let cases = [
        (vector("u", FILE.1, Some(at[0]), 1), vec![(7, 8)]),
        (vector("u", FILE.1, Some(at[1]), 4), vec![(0, 3), (39, 40)]),
        (vector("u", FILE.1, Some(at[2]), 0), vec![]),
        (vector("u", PREFIXED.1, Some(other), 1), vec![(5, 6)]),
        (vector("p", &absolute, Some(at[1]), 4), vec![(0, 3), (39, 40)]),
        (vector("i", INLINE, None, 6), vec![(3, 5), (7, 8), (11, 12), (18, 19), (29, 30)]),
    ];
    let history = history(&lake).await;
    for (i, (vector, expected)) in cases.into_iter().enumerate() {
        let marked = with(&add, Some(&vector), true);
        put_entry(&lake, "t", 4 + i as u64, &[remove(&add, true), marked.clone()]);
        add = marked["add"].clone();
        let files = files(&history.pin(None).await.unwrap());
        let deleted = history.deleted(&files).await.unwrap();
        assert_eq!((files.len(), runs(&deleted[1])), (2, None));
        assert_eq!(runs(&deleted[0]), Some((40, expected)), "{vector}");
        // Where the log has no row count, or the piece of a file only its own, the footer has.
        for (rows, range) in [(None, None), (Some(1), Some((4, 99)))] {
            let others: Vec<_> = files.iter().map(|f| DataFile { rows, range, ..f.clone() }).collect();
            assert_eq!(history.deleted(&others).await.unwrap(), deleted);
        }
    }
}

#[tokio::test]
async fn a_vector_that_cannot_be_read_is_an_error() {
    let lake = Lake::new();
    table(&lake).await;
    let add = adds(&lake, 1).remove(0);
    let at = write_vectors(&lake, FILE.0, &[&[1, 2], &[3, 50]]);
    let path = lake.folder.path().join("t").join(FILE.0);
    let whole = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let own = |rows| vector("u", FILE.1, Some(at[0]), rows);
    let cases: [(Value, &[u8], &str); 11] = [
        (own(3), &whole, "it marks 2 rows, and the log says 3"),
        (vector("u", FILE.1, Some(at[1]), 2), &whole, "it marks row 50, and the file has 40"),
        (own(2), &flipped(20), "CRC32 checksum mismatch"),
        (own(2), &flipped(0), "Invalid version 0"),
        (own(2), &whole[..30], ""),
        (own(2), &[], ""),
        (
            vector("u", PREFIXED.1, Some(at[0]), 2),
            &whole,
            "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin is gone",
        ),
        (vector("u", "short", Some(at[0]), 2), &whole, "at least 20 bytes"),
        (
            vector("p", "s3://elsewhere/v.bin", Some(at[0]), 2),
            &whole,
            "s3://elsewhere/v.bin is not in the table's store file:///",
        ),
        (vector("i", "0000", None, 2), &whole, "`0000` is no bitmap"),
        (vector("i", "000000000000000", None, 2), &whole, "Invalid magic"),
    ];
    let history = history(&lake).await;
    for (i, (vector, bytes, words)) in cases.into_iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        put_entry(&lake, "t", 4 + i as u64, &[remove(&add, true), with(&add, Some(&vector), true)]);
        let files = files(&history.pin(None).await.unwrap());
        let error = history.deleted(&files).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Stopped(_) | Error::Storage { .. }), "{i}: {error:?}");
        assert!(text.contains(words) && text.contains(&files[0].path), "{i}: {text}");
    }
}

#[tokio::test]
async fn other_marks_are_other_facts_unless_the_commit_changes_none() {
    let lake = Lake::new();
    table(&lake).await;
    let (first, second) = (adds(&lake, 1).remove(0), adds(&lake, 2).remove(0));
    let at = write_vectors(&lake, FILE.0, &[&[7], &[7, 8]]);
    let one = vector("u", FILE.1, Some(at[0]), 1);
    let two = vector("u", FILE.1, Some(at[1]), 2);
    let named = |add: &Value, path: &str| {
        let mut add = add.clone();
        add["path"] = json!(path);
        add
    };
    let history = history(&lake).await;
    let mut pinned = vec![history.pin(None).await.unwrap()];
    let compacted = named(&first, "compacted.parquet");
    let late = named(&second, "late.parquet");
    let steps: Vec<Vec<Value>> = vec![
        // 4: rows are deleted.
        vec![remove(&first, true), with(&first, Some(&one), true)],
        // 5: the same vector again, other statistics: nothing.
        vec![with(&first, Some(&one), true)],
        // 6: moved to another vector without a change of data: nothing.
        vec![remove(&first, false), with(&first, Some(&two), false)],
        // 7: rows come back, as a RESTORE does it; the Remove is missing.
        vec![with(&first, None, true)],
        // 8: a file that is new and has a vector; 9: and another one.
        vec![with(&late, Some(&one), true)],
        vec![remove(&late, true), with(&late, Some(&two), true)],
        // 10: compacted; 11: rows of what came of it are deleted.
        vec![remove(&first, false), with(&compacted, None, false)],
        vec![remove(&compacted, true), with(&compacted, Some(&one), true)],
    ];
    for (i, actions) in steps.iter().enumerate() {
        put_entry(&lake, "t", 4 + i as u64, actions);
        pinned.push(history.pin(None).await.unwrap());
    }
    let changes = async |from: usize, to: usize| {
        let changes = history.changes(&pinned[from - 3], &pinned[to - 3]).await.unwrap();
        let name = |path: &str| path.rsplit('/').next().unwrap().to_string();
        let added: Vec<_> = changes
            .added
            .iter()
            .map(|(i, f)| (i.unwrap().start.0, name(&f.path), f.deletion_vector.as_ref().map(|v| v.cardinality)))
            .collect();
        let removed: Vec<_> =
            changes.removed.iter().map(|r| (r.version.clone(), name(&r.path), r.interval.unwrap().start.0)).collect();
        (added, removed)
    };
    let first_name = first["path"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
    let gone = |version: &str, name: &str| (version.to_string(), name.to_string(), 0);
    assert_eq!(changes(3, 4).await, (vec![], vec![gone("4", &first_name)]));
    assert_eq!(changes(4, 5).await, (vec![], vec![]));
    assert_eq!(changes(4, 6).await, (vec![], vec![]));
    assert_eq!(changes(6, 7).await, (vec![], vec![gone("7", &first_name)]));
    assert_eq!(changes(7, 8).await, (vec![(DAY, "late.parquet".to_string(), Some(1))], vec![]));
    assert_eq!(changes(8, 9).await, (vec![], vec![("9".to_string(), "late.parquet".to_string(), DAY)]));
    assert_eq!(changes(7, 9).await, (vec![(DAY, "late.parquet".to_string(), Some(2))], vec![]));
    assert_eq!(changes(9, 10).await, (vec![], vec![]));
    assert_eq!(changes(9, 11).await, (vec![], vec![gone("11", "compacted.parquet")]));
    assert_eq!(changes(10, 11).await, (vec![], vec![gone("11", "compacted.parquet")]));
}
