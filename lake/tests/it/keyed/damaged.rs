//! Files of a keyed table that are damaged or gone: whoever needs them says which, and leaves everything as it was.

use std::collections::BTreeMap;

use object_store::path::Path;
use watershed_core::Error;
use watershed_core::clock::SystemClock;
use watershed_core::sink::{PreparedCommit, Sink};
use watershed_lake::upkeep::{CompactOptions, compact};

use super::faults::{down, up};
use super::memory::{Memory, rows_in};
use super::*;
use crate::fixtures::APP;

/// A table whose first file has marked rows, and a commit to come.
async fn table() -> Memory {
    let memory = Memory::new();
    let sink = memory.sink(&memory.stores(), spec("", key())).await.unwrap();
    put(&sink, 1, &(1..=6).map(|key| up(key, 0, key)).collect::<Vec<_>>()).await;
    put(&sink, 2, &[up(1, 0, 10), down(2, 0, 11)]).await;
    memory
}

/// The only file of the table whose name ends so.
async fn only(memory: &Memory, suffix: &str) -> Path {
    let mut found = memory.paths(suffix).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

async fn commit(memory: &Memory, prepared: Option<&PreparedCommit>) -> Result<(), Error> {
    let sink = memory.sink(&memory.stores(), spec("", key())).await?;
    let prepared = match prepared {
        Some(prepared) => {
            sink.verify(prepared).await?;
            prepared.clone()
        }
        None => prepare(&sink, &[vec![up(1, 0, 20), up(3, 0, 21)]]).await?,
    };
    sink.commit(&identity(3, Some(2)), &prepared, &BTreeMap::new()).await.map(drop)
}

async fn tidied(memory: &Memory) -> Result<(), Error> {
    let options = CompactOptions { dead_rows: 0.0001, ..CompactOptions::default() };
    compact(&memory.stores(), memory.at(), options, &SystemClock::default()).await.map(drop)
}

/// Everybody who needs a file says these words, and the table stays at its version.
async fn refused(memory: &Memory, words: &[&str]) {
    let read = rows_in(&memory.stores(), memory.at(), None).await.map(drop);
    for (who, done) in [("reader", read), ("writer", commit(memory, None).await), ("upkeep", tidied(memory).await)] {
        let error = done.unwrap_err().to_string();
        assert!(words.iter().all(|words| error.contains(words)), "{who}: {error}");
    }
    assert_eq!(memory.newest().await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vector_with_any_flipped_bit_is_refused() {
    let whole = table().await;
    let path = only(&whole, ".bin").await;
    let bytes = whole.get(&path).await;
    for at in 0..bytes.len() {
        println!("byte {at}");
        let memory = whole.copied();
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x10;
        memory.put(&path, damaged).await;
        refused(&memory, &["the deletion vector of file ", "part-", "cannot be used"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vector_that_is_cut_short_or_gone_is_refused() {
    let whole = table().await;
    let path = only(&whole, ".bin").await;
    let bytes = whole.get(&path).await;
    for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        let memory = whole.copied();
        memory.put(&path, bytes[..length].to_vec()).await;
        refused(&memory, &["the deletion vector of file ", "part-", "cannot be used"]).await;
    }
    whole.delete(&path).await;
    refused(&whole, &["the deletion vector of file ", "part-", "is gone"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_file_that_is_gone_or_damaged_is_refused() {
    let whole = table().await;
    let add = whole.entry(1).await.into_iter().find_map(|action| action.get("add").cloned()).unwrap();
    let name = add["path"].as_str().unwrap();
    let path = only(&whole, name).await;
    let bytes = whole.get(&path).await;
    let memory = whole.copied();
    memory.delete(&path).await;
    for done in [commit(&memory, None).await, tidied(&memory).await] {
        let error = done.unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains(name), "{error}");
    }
    for length in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        let memory = whole.copied();
        memory.put(&path, bytes[..length].to_vec()).await;
        for done in [commit(&memory, None).await, tidied(&memory).await] {
            let error = done.unwrap_err().to_string();
            assert!(error.contains("cannot read") && error.contains(name), "{length} bytes: {error}");
        }
        assert_eq!(memory.newest().await, Some(2));
    }
    assert_eq!(memory.newest().await, Some(2));
}

/// A commit that is to be redone by a writer that has not written it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_commit_with_a_file_missing_is_refused() {
    let whole = table().await;
    let sink = whole.sink(&whole.stores(), spec("", key())).await.unwrap();
    // Two batches, so that the later marks a row of the earlier.
    let prepared =
        prepare(&sink, &[vec![up(3, 0, 20), up(4, 0, 21)], vec![up(3, 0, 22), down(5, 0, 23)]]).await.unwrap();
    let before = table().await.paths("").await.len();
    let written: Vec<Path> = whole.paths("").await;
    assert!(written.len() > before + 2, "{written:?}");
    let known: Vec<&str> = prepared.files.iter().map(|file| file.path.as_str()).collect();
    let vectors = whole.paths(".bin").await;
    let live = whole.entry(2).await.iter().filter(|action| !action["add"]["deletionVector"].is_null()).count();
    assert_eq!((vectors.len(), live), (2, 1));
    for path in written.iter().filter(|path| known.iter().any(|name| path.as_ref().ends_with(name))).chain(&vectors) {
        let memory = whole.copied();
        memory.delete(path).await;
        let error = commit(&memory, Some(&prepared)).await.unwrap_err();
        assert!(error.to_string().contains("is gone"), "{path}: {error}");
        assert!(matches!(error, Error::Stopped(_)), "{path}: {error}");
        assert_eq!((memory.newest().await, memory.commits_of(APP).await.len()), (Some(2), 2));
        // Put back, it goes on.
        memory.put(path, whole.get(path).await.to_vec()).await;
        commit(&memory, Some(&prepared)).await.unwrap();
        let rows = memory.rows(None).await;
        let keys: Vec<(i64, i64)> = rows.iter().map(|row| (row.0, row.3)).collect();
        assert_eq!(keys, [(1, 10), (3, 22), (4, 21), (6, 6)], "{path}");
    }
}
