//! From a commit's changes to marks: which rows of which files they replace, on one very snapshot of the table.
//!
//! ```text
//!  changes ─by group─▶ map known? ──▶ entries ────────────────┐
//!                          │ no                                ▼
//!                          └▶ files by bounds, filters ─▶ scan keys ─▶ hits ─▶ marks, and changes that came too late
//! ```
//!
//! **Invariant:** afterwards at most one row of each changed key is unmarked: the change's own, or, where the table has a
//! newer version by its sequence, the table's. Nothing of the table or of the commit is altered here, so it can be done
//! again on another snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fastbloom::BloomFilter;
use futures::StreamExt;
use futures::stream::BoxStream;
use roaring::{RoaringBitmap, RoaringTreemap};
use watershed_core::{Error, Result};

use super::bounds::{Bounds, bounds, meet, union};
use super::fold::FileKeys;
use super::index::{self, Entries, Entry, Group, KeyIndex};
use super::key::{KeyHash, KeyMap};
use super::live::{FileId, LiveFile, LiveFiles};
use super::scan::{KeyColumns, KeyFile, scan};
use super::sieve::Sieve;
use crate::stores::Place;
use crate::table::shape::Key;

/// Files whose keys are read at once.
const CONCURRENT: usize = 4;

/// A file of a commit, and what is left of it after the commit's own fold.
#[derive(Debug)]
pub(crate) struct ChangeFile {
    pub(crate) path: String,
    pub(crate) partition: Key,
    pub(crate) statistics: String,
    pub(crate) keys: FileKeys,
    /// Rows that another of the commit outdoes.
    pub(crate) outdone: RoaringBitmap,
    /// Its rows delete their keys.
    pub(crate) deletes: bool,
    /// Its rows keep nothing of what was.
    pub(crate) whole: bool,
}

/// What a commit changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) files: Vec<ChangeFile>,
}

/// One key's change.
#[derive(Clone, Copy, Debug)]
struct Change {
    sequence: i64,
    file: usize,
    row: u32,
}

/// The changes of a group.
#[derive(Debug, Default)]
struct Probe {
    changes: KeyMap<Change>,
    sieve: Option<Sieve>,
}

/// What the changes mean on one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Rows of live files that are replaced or deleted, which were not marked.
    pub(crate) marks: BTreeMap<FileId, RoaringTreemap>,
    /// For each file of the commit, rows that came too late, besides those that were outdone.
    pub(crate) stale: Vec<RoaringBitmap>,
    /// Where old values may be kept: file and row of the commit, and those of the table's that it replaces.
    pub(crate) replaced: Vec<((usize, u32), (FileId, u32))>,
}

impl Changes {
    /// The files by the groups in which their keys are looked for.
    fn by_group(&self, fixes_partition: bool) -> HashMap<Group, Vec<usize>> {
        let mut groups: HashMap<Group, Vec<usize>> = HashMap::new();
        for (number, file) in self.files.iter().enumerate() {
            groups.entry(group(fixes_partition, &file.partition)).or_default().push(number);
        }
        groups
    }

    /// What is looked for in a group.
    fn probe(&self, files: &[usize]) -> Probe {
        let mut probe = Probe::default();
        let of = || files.iter().map(|number| &self.files[*number].keys);
        probe.changes.reserve(of().map(|keys| keys.hashes.len()).sum());
        for number in files {
            let file = &self.files[*number];
            for (row, hash) in file.rows() {
                let change = Change { sequence: file.keys.sequence(row as usize), file: *number, row };
                probe.changes.insert(hash, change);
            }
        }
        if of().all(|keys| keys.prints.len() == keys.hashes.len()) {
            probe.sieve = Some(Sieve::new(probe.changes.len(), of().flat_map(|keys| &keys.prints).copied()));
        }
        probe
    }

    /// The bounds of the keys that some files have.
    fn bounds(&self, keys: &KeyColumns, files: &[usize]) -> Bounds {
        let each = files.iter().map(|number| bounds(Some(&self.files[*number].statistics), keys.stored()));
        each.reduce(union).unwrap_or_default()
    }
}

impl ChangeFile {
    /// The rows that count, by number, with their keys.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u32, KeyHash)> {
        let rows = self.keys.hashes.iter().enumerate().map(|(row, hash)| (row as u32, *hash));
        rows.filter(|(row, _)| !self.outdone.contains(*row))
    }
}

pub(crate) fn group(fixes_partition: bool, partition: &Key) -> Group {
    fixes_partition.then(|| partition.clone())
}

/// Looks the changes up.
pub(crate) async fn resolve(
    place: &Place,
    keys: &Arc<KeyColumns>,
    live: &LiveFiles,
    index: &mut KeyIndex,
    changes: &Changes,
) -> Result<Resolved> {
    let mut resolved = Resolved { stale: vec![RoaringBitmap::new(); changes.files.len()], ..Resolved::default() };
    if live.is_empty() {
        return Ok(resolved);
    }
    let mut by_group: HashMap<Group, Vec<&Arc<LiveFile>>> = HashMap::new();
    for file in live.iter() {
        by_group.entry(group(keys.fixes_partition, &file.partition)).or_default().push(file);
    }
    let mut searches: Vec<Search> = vec![];
    let mut reads = vec![];
    for (group, files) in changes.by_group(keys.fixes_partition) {
        let probe = Arc::new(changes.probe(&files));
        let mut search =
            Search { whole: false, complete: false, hits: vec![], entries: Entries::default(), group, probe };
        match index.map(&search.group) {
            Some(entries) => {
                let found = search.probe.changes.keys().filter_map(|key| Some((*key, *entries.get(key)?)));
                search.hits = found.collect();
            }
            None => {
                let wanted = changes.bounds(keys, &files);
                let number = searches.len();
                let files = by_group.remove(&search.group).unwrap_or_default();
                let files = search.plan(keys, files, index, &wanted);
                reads.extend(files.into_iter().map(|(file, filter)| (number, file, filter)));
            }
        }
        searches.push(search);
    }
    let reads = reads.into_iter().map(|(number, file, filter)| {
        let (probe, whole) = (searches[number].probe.clone(), searches[number].whole);
        let read = read(place.clone(), keys.clone(), file, probe, whole, filter);
        async move { (number, tokio::spawn(read).await) }
    });
    // Made before the searches are written to: they only say what is read.
    let reads: Vec<_> = reads.collect();
    let mut found: BoxStream<'_, _> = futures::stream::iter(reads).buffer_unordered(CONCURRENT).boxed();
    while let Some((number, read)) = found.next().await {
        let read = read.map_err(|e| Error::bug(format!("a reader of keys died: {e}")))??;
        let search = &mut searches[number];
        search.hits.extend(read.hits);
        if let Some(filter) = read.filter {
            index.put_filter(read.file.id, filter);
        }
        if search.complete {
            search.complete = enter(place, keys, &read.file, &read.keys, &mut search.entries).await?;
        }
    }
    drop(found);
    for Search { group, probe, complete, hits, entries, .. } in searches {
        if complete {
            index.put_map(group, entries);
        }
        judge(place, keys, live, &probe, hits, &mut resolved).await?;
    }
    Ok(resolved)
}

/// The look-up of one group's changes.
struct Search {
    group: Group,
    probe: Arc<Probe>,
    /// Every file of the group is read, for a map.
    whole: bool,
    /// The map holds what has been read so far.
    complete: bool,
    hits: Vec<(KeyHash, Entry)>,
    entries: Entries,
}

impl Search {
    /// The files whose keys are to be read, and of which of them a filter is to be made.
    fn plan(
        &mut self,
        keys: &KeyColumns,
        files: Vec<&Arc<LiveFile>>,
        index: &mut KeyIndex,
        wanted: &Bounds,
    ) -> Vec<(Arc<LiveFile>, bool)> {
        self.whole = index.wants_map(&self.group, files.iter().map(|file| rows_of(file)).sum());
        self.complete = self.whole;
        let mut reads = vec![];
        for file in files {
            let near = || meet(wanted, &bounds(file.add.stats.as_deref(), keys.stored()));
            if self.whole || (near() && index.may_hold(file.id, self.probe.changes.keys())) {
                // Where the key fixes the partition, it is maps that help the next time.
                reads.push((file.clone(), !keys.fixes_partition && !index.has_filter(file.id)));
            }
        }
        reads
    }
}

/// What one file gave.
struct Read {
    file: Arc<LiveFile>,
    hits: Vec<(KeyHash, Entry)>,
    /// All its keys, if they were asked for.
    keys: FileKeys,
    filter: Option<BloomFilter>,
}

async fn read(
    place: Place,
    keys: Arc<KeyColumns>,
    file: Arc<LiveFile>,
    probe: Arc<Probe>,
    whole: bool,
    filter: bool,
) -> Result<Read> {
    let size = u64::try_from(file.add.size).unwrap_or_default();
    let from = KeyFile { path: &file.add.path, size, partition: &file.partition };
    let (mut hits, mut all) = (vec![], FileKeys::default());
    // A map or a filter wants all keys.
    let sieve = probe.sieve.as_ref().filter(|_| !whole && !filter);
    scan(&place, &keys, &from, sieve, |rows| {
        for (i, hash) in rows.hashes.iter().enumerate() {
            if probe.changes.contains_key(hash) {
                let row = u32::try_from(rows.rows[i])
                    .map_err(|_| Error::input(format!("file {} has more rows than fit 32 bits", file.add.path)))?;
                let sequence = rows.sequences.get(i).copied().unwrap_or(i64::MIN);
                hits.push((*hash, Entry { file: file.id, row, sequence }));
            }
        }
        if whole || filter {
            all.hashes.extend(rows.hashes);
            all.sequences.extend(rows.sequences);
        }
        Ok(())
    })
    .await?;
    let filter = filter.then(|| index::filter(all.hashes.len(), all.hashes.iter()));
    Ok(Read { hits, keys: all, filter, file })
}

/// Puts a file's keys into a map; `false` if two unmarked rows have one key, which a map cannot say.
async fn enter(
    place: &Place,
    keys: &KeyColumns,
    file: &LiveFile,
    of: &FileKeys,
    entries: &mut Entries,
) -> Result<bool> {
    let marks = file.marks(place).await?;
    entries.reserve(of.hashes.len());
    for (row, hash) in of.hashes.iter().enumerate() {
        let marked = marks.contains(row as u64);
        // Marked rows matter only as the deletions that they may stand for.
        if marked && keys.sequence.is_none() {
            continue;
        }
        let entry = Entry { file: file.id, row: row as u32, sequence: of.sequence(row) };
        let Some(known) = entries.insert(*hash, entry) else { continue };
        if keys.sequence.is_none() {
            return Ok(false);
        }
        // Of equal ones the unmarked: a row that was written again replaced its like.
        if known.sequence > entry.sequence || (known.sequence == entry.sequence && marked) {
            entries.insert(*hash, known);
        }
    }
    Ok(true)
}

/// Decides what each hit means.
async fn judge(
    place: &Place,
    keys: &KeyColumns,
    live: &LiveFiles,
    probe: &Probe,
    hits: Vec<(KeyHash, Entry)>,
    resolved: &mut Resolved,
) -> Result<()> {
    let mut marks: HashMap<FileId, Arc<RoaringTreemap>> = HashMap::new();
    for (key, entry) in hits {
        let Some(change) = probe.changes.get(&key) else { continue };
        if keys.sequence.is_some() && entry.sequence > change.sequence {
            resolved.stale[change.file].insert(change.row);
            continue;
        }
        let known = match marks.get(&entry.file) {
            Some(known) => known,
            None => {
                let gone = || Error::bug(format!("a key lies in file {}, which is not live", entry.file));
                let loaded = live.by_id(entry.file).ok_or_else(gone)?.marks(place).await?;
                marks.entry(entry.file).or_insert(loaded)
            }
        };
        if !known.contains(u64::from(entry.row)) {
            resolved.marks.entry(entry.file).or_default().insert(u64::from(entry.row));
            if keys.partial {
                resolved.replaced.push(((change.file, change.row), (entry.file, entry.row)));
            }
        }
    }
    Ok(())
}

fn rows_of(file: &LiveFile) -> u64 {
    let (rows, _) = crate::history::statistics_of(file.add.stats.as_deref(), None);
    // Without statistics, as many as fit the file.
    rows.unwrap_or_else(|| u64::try_from(file.add.size).unwrap_or_default())
}
