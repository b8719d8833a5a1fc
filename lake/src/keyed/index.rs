//! The key index: where the keys of a table lie, as far as memory allows and as far as it pays.
//!
//! Three layers, each answering what the one before left open:
//!
//! 1. **Partitions and bounds** come with the log and cost nothing: a key that fixes its partition is looked for in that
//!    one alone, and a file whose bounds do not meet those of the changes is passed over.
//! 2. **Filters**, a Bloom filter a file, made when a file's keys are read for the first time: about ten bits a key.
//! 3. **Maps**, from key to file and row, of a whole group (a partition, or the table): made when a group is visited again, so
//!    that a stream of small commits into one partition reads no file twice.
//!
//! Everything here can be thrown away and made again, and is, least used first, when it outgrows its limit.
//!
//! **Invariant:** a map holds every key of its group's live files or it is not there. Own commits are carried into it;
//! commits of others to a group throw its map away.

use std::collections::HashMap;

use fastbloom::BloomFilter;

use super::key::{KeyHash, KeyMap};
use super::live::FileId;
use crate::table::shape::Key;

/// Bits of a filter for each key; about one file in a hundred is then looked into in vain.
const FILTER_BITS: usize = 10;
/// Bytes that a map takes for each key that it has room for.
const SLOT: usize = 38;

/// The files among which a key is looked for: those of a partition, or all.
pub(crate) type Group = Option<Key>;

/// Where the newest row of a key lies, marked or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) file: FileId,
    pub(crate) row: u32,
    pub(crate) sequence: i64,
}

pub(crate) type Entries = KeyMap<Entry>;

/// The index of one table.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    limit: usize,
    bytes: usize,
    tick: u64,
    maps: HashMap<Group, Map>,
    filters: HashMap<FileId, Filter>,
    visited: HashMap<Group, u64>,
}

#[derive(Debug)]
struct Map {
    entries: Entries,
    bytes: usize,
    used: u64,
}

#[derive(Debug)]
struct Filter {
    bloom: BloomFilter,
    used: u64,
}

impl KeyIndex {
    /// An index that takes no more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> KeyIndex {
        let (maps, filters, visited) = (HashMap::new(), HashMap::new(), HashMap::new());
        KeyIndex { limit, bytes: 0, tick: 0, maps, filters, visited }
    }

    /// Bytes that it takes, about.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys of a group, if they are known.
    pub(crate) fn map(&mut self, group: &Group) -> Option<&Entries> {
        self.tick += 1;
        let map = self.maps.get_mut(group)?;
        map.used = self.tick;
        Some(&map.entries)
    }

    /// Whether a map of this group would pay and fit; counts as a visit.
    pub(crate) fn wants_map(&mut self, group: &Group, rows: u64) -> bool {
        let visits = self.visited.entry(group.clone()).or_default();
        *visits += 1;
        let bytes = usize::try_from(rows).unwrap_or(usize::MAX).saturating_mul(SLOT * 3 / 2);
        *visits > 1 && bytes <= self.limit / 2
    }

    pub(crate) fn put_map(&mut self, group: Group, entries: Entries) {
        self.tick += 1;
        let bytes = entries.capacity() * SLOT;
        self.forget(&group);
        self.bytes += bytes;
        self.maps.insert(group, Map { entries, bytes, used: self.tick });
        self.evict();
    }

    /// Whether a file may hold any of the keys; a file without a filter may.
    pub(crate) fn may_hold<'a>(&mut self, file: FileId, mut keys: impl Iterator<Item = &'a KeyHash>) -> bool {
        self.tick += 1;
        let Some(filter) = self.filters.get_mut(&file) else { return true };
        filter.used = self.tick;
        keys.any(|key| filter.bloom.contains_hash(key[0]))
    }

    pub(crate) fn has_filter(&self, file: FileId) -> bool {
        self.filters.contains_key(&file)
    }

    pub(crate) fn put_filter(&mut self, file: FileId, bloom: BloomFilter) {
        self.tick += 1;
        self.bytes += bloom.num_bits() / 8;
        let filter = Filter { bloom, used: self.tick };
        if let Some(before) = self.filters.insert(file, filter) {
            self.bytes -= before.bloom.num_bits() / 8;
        }
        self.evict();
    }

    /// Takes in what an own commit did to a group.
    pub(crate) fn carry(&mut self, group: &Group, changes: impl Iterator<Item = (KeyHash, Option<Entry>)>) {
        let Some(map) = self.maps.get_mut(group) else { return };
        for (key, entry) in changes {
            match entry {
                Some(entry) => map.entries.insert(key, entry),
                None => map.entries.remove(&key),
            };
        }
        let bytes = map.entries.capacity() * SLOT;
        self.bytes = self.bytes - map.bytes + bytes;
        map.bytes = bytes;
        self.evict();
    }

    /// Forgets the map of a group.
    pub(crate) fn forget(&mut self, group: &Group) {
        if let Some(map) = self.maps.remove(group) {
            self.bytes -= map.bytes;
        }
    }

    /// Forgets the filter of a file.
    pub(crate) fn forget_file(&mut self, file: FileId) {
        if let Some(filter) = self.filters.remove(&file) {
            self.bytes -= filter.bloom.num_bits() / 8;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = KeyIndex::new(self.limit);
    }

    /// Maps go before filters, which say more for their size.
    fn evict(&mut self) {
        while self.bytes > self.limit {
            if let Some(group) = self.maps.iter().min_by_key(|(_, map)| map.used).map(|(group, _)| group.clone()) {
                self.visited.remove(&group);
                self.forget(&group);
            } else if let Some(file) = self.filters.iter().min_by_key(|(_, f)| f.used).map(|(file, _)| *file) {
                self.forget_file(file);
            } else {
                return;
            }
        }
    }
}

/// A filter of these keys.
pub(crate) fn filter<'a>(keys: usize, hashes: impl Iterator<Item = &'a KeyHash>) -> BloomFilter {
    let mut bloom = BloomFilter::with_num_bits(keys.max(64) * FILTER_BITS).expected_items(keys.max(64));
    for hash in hashes {
        bloom.insert_hash(hash[0]);
    }
    bloom
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(keys: std::ops::Range<u64>) -> Entries {
        keys.map(|k| ([k.wrapping_mul(0x9E37_79B9_7F4A_7C15), k], Entry { file: 1, row: 0, sequence: 0 })).collect()
    }

    #[test]
    fn the_least_used_is_evicted_and_bytes_add_up() {
        let mut index = KeyIndex::new(180_000);
        let group = |name: &str| Some(vec![Some(name.to_string())]);
        index.put_filter(7, filter(1000, [[1, 1]].iter()));
        index.put_map(group("a"), entries(0..1000));
        index.put_map(group("b"), entries(0..1000));
        assert!(index.map(&group("a")).is_some());
        index.put_map(group("c"), entries(0..1000));
        assert!(index.map(&group("a")).is_some() && index.map(&group("b")).is_none());
        assert!(index.bytes() <= 180_000 && index.has_filter(7));
        for name in ["a", "b", "c"] {
            index.forget(&group(name));
        }
        index.forget_file(7);
        assert_eq!(index.bytes(), 0);
    }

    #[test]
    fn maps_are_made_for_groups_that_are_visited_again() {
        let mut index = KeyIndex::new(1 << 20);
        assert!(!index.wants_map(&None, 10));
        assert!(index.wants_map(&None, 10));
        assert!(!index.wants_map(&None, 1 << 20));
    }

    #[test]
    fn filters_know_their_keys() {
        let keys: Vec<KeyHash> = entries(0..5000).into_keys().collect();
        let mut index = KeyIndex::new(1 << 20);
        index.put_filter(1, filter(keys.len(), keys.iter()));
        assert!(keys.iter().all(|key| index.may_hold(1, [key].into_iter())));
        let others: Vec<KeyHash> = entries(5000..10_000).into_keys().collect();
        let wrong = others.iter().filter(|key| index.may_hold(1, [*key].into_iter())).count();
        assert!(wrong < 250, "{wrong} of 5000");
        assert!(index.may_hold(2, others.iter()));
    }
}
