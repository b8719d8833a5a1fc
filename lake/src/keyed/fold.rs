//! Several changes of one key inside one commit come down to the last. Pure.
//!
//! **Invariant:** of all rows of a commit that have the same key, exactly one is left unmarked: the one with the greatest
//! sequence, among these the one that came last.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::index::Group;
use super::key::{KeyHash, KeyMap};

/// Keys that are folded at once; more are taken in several rounds, so that memory stays small beside the keys themselves.
const ROUND: usize = 1 << 20;
/// Bits for each key by which those are told that come more than once, and the most of them: 32 MB.
const BITS: usize = 16;
const MOST_BITS: u32 = 28;

/// The keys of one file that was written for a commit, row by row.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileKeys {
    pub(crate) hashes: Vec<KeyHash>,
    /// For [`super::sieve`]; empty for keys without.
    pub(crate) prints: Vec<u32>,
    /// Of tables with a sequence column.
    pub(crate) sequences: Vec<i64>,
    /// When rows came: the first row of each batch, and the batch's number.
    pub(crate) arrivals: Vec<(usize, u64)>,
}

impl FileKeys {
    pub(crate) fn sequence(&self, row: usize) -> i64 {
        self.sequences.get(row).copied().unwrap_or(i64::MIN)
    }

    /// Row by row, the number of the batch that it came with.
    pub(crate) fn arrived(&self) -> impl Iterator<Item = u64> {
        let mut batches = self.arrivals.iter().copied().peekable();
        let mut arrival = 0;
        (0..self.hashes.len()).map(move |row| {
            while let Some((_, number)) = batches.next_if(|(first, _)| *first <= row) {
                arrival = number;
            }
            arrival
        })
    }
}

/// What the fold found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Folded {
    /// For each file, the rows that another row of the commit outdoes.
    pub(crate) outdone: Vec<RoaringBitmap>,
    /// Two rows of one key with nothing that says which is the newer, as file and row, if there are.
    pub(crate) tie: Option<[(usize, usize); 2]>,
}

#[derive(Clone, Copy)]
struct Winner {
    order: (i64, u64),
    file: usize,
    row: usize,
}

/// Folds the files of a commit, each with the group in which its keys are looked for: rows of two groups never have one key.
pub(crate) fn fold<'a>(files: impl Iterator<Item = (Group, &'a FileKeys)>) -> Folded {
    let mut by_group: HashMap<Group, Vec<(usize, &FileKeys)>> = HashMap::new();
    let mut folded = Folded::default();
    for (number, (group, file)) in files.enumerate() {
        by_group.entry(group).or_default().push((number, file));
        folded.outdone.push(RoaringBitmap::new());
    }
    let mut groups: Vec<_> = by_group.into_values().collect();
    groups.sort_unstable_by_key(|files| files[0].0);
    groups.iter().for_each(|files| fold_group(files, &mut folded));
    folded
}

fn fold_group(files: &[(usize, &FileKeys)], folded: &mut Folded) {
    let twice = Twice::of(files);
    let candidates = files.iter().flat_map(|(_, of)| &of.hashes).filter(|hash| twice.maybe(hash)).count();
    let rounds = (candidates / ROUND + 1) as u64;
    for round in 0..rounds {
        let mut winners: KeyMap<Winner> = KeyMap::default();
        winners.reserve(candidates / rounds as usize + 1);
        for (file, of) in files.iter().copied() {
            for (row, (hash, arrival)) in of.hashes.iter().zip(of.arrived()).enumerate() {
                if !twice.maybe(hash) || hash[0] % rounds != round {
                    continue;
                }
                let found = Winner { order: (of.sequence(row), arrival), file, row };
                let Some(known) = winners.insert(*hash, found) else { continue };
                // Rows of one batch have different keys.
                let (newer, older) = if found.order >= known.order { (found, known) } else { (known, found) };
                if found.order.0 == known.order.0 {
                    folded.tie.get_or_insert([(known.file, known.row), (file, row)]);
                }
                winners.insert(*hash, newer);
                // Rows of a file are counted in 32 bits: see `FileKeys`' users.
                folded.outdone[older.file].insert(older.row as u32);
            }
        }
    }
}

/// Which keys may come more than once: most come once, and need not go through a map.
struct Twice {
    bits: Vec<u64>,
    shift: u32,
}

impl Twice {
    fn of(files: &[(usize, &FileKeys)]) -> Twice {
        let keys: usize = files.iter().map(|(_, of)| of.hashes.len()).sum();
        let wanted = keys.saturating_mul(BITS).next_power_of_two().trailing_zeros();
        let size = wanted.clamp(6, MOST_BITS);
        let mut once = vec![0u64; 1 << (size - 6)];
        let mut twice = Twice { bits: once.clone(), shift: 64 - size };
        for hash in files.iter().flat_map(|(_, of)| &of.hashes) {
            let (word, bit) = twice.place(hash);
            twice.bits[word] |= once[word] & bit;
            once[word] |= bit;
        }
        twice
    }

    fn place(&self, hash: &KeyHash) -> (usize, u64) {
        let at = hash[1] >> self.shift;
        ((at >> 6) as usize, 1 << (at & 63))
    }

    fn maybe(&self, hash: &KeyHash) -> bool {
        let (word, bit) = self.place(hash);
        self.bits[word] & bit != 0
    }
}

/// The rows of one batch that are left, in their order, if some are outdone; and two rows that nothing but their place tells
/// apart, if there are.
pub(crate) fn fold_batch(hashes: &[KeyHash], sequences: &[i64]) -> (Option<Vec<u32>>, Option<[usize; 2]>) {
    let sequence = |row: usize| sequences.get(row).copied().unwrap_or(i64::MIN);
    let mut winners: KeyMap<usize> = KeyMap::default();
    winners.reserve(hashes.len());
    let mut tie = None;
    for (row, hash) in hashes.iter().enumerate() {
        let Some(known) = winners.insert(*hash, row) else { continue };
        if sequence(known) == sequence(row) {
            tie.get_or_insert([known, row]);
        }
        if sequence(known) > sequence(row) {
            winners.insert(*hash, known);
        }
    }
    if winners.len() == hashes.len() {
        return (None, tie);
    }
    let mut left: Vec<u32> = winners.into_values().map(|row| row as u32).collect();
    left.sort_unstable();
    (Some(left), tie)
}

/// The rows of a batch in rounds, in each of which a key comes once; `None`: one round is enough.
pub(crate) fn rounds(hashes: &[KeyHash]) -> Option<Vec<Vec<u32>>> {
    let mut times: KeyMap<usize> = KeyMap::default();
    times.reserve(hashes.len());
    let mut rounds: Vec<Vec<u32>> = vec![];
    for (row, hash) in hashes.iter().enumerate() {
        let time = times.entry(*hash).and_modify(|n| *n += 1).or_default();
        if rounds.len() <= *time {
            rounds.push(vec![]);
        }
        rounds[*time].push(row as u32);
    }
    (rounds.len() > 1).then_some(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(keys: &[u64], sequences: &[i64], arrivals: &[(usize, u64)]) -> FileKeys {
        FileKeys {
            hashes: keys.iter().map(|k| [*k, *k << 60]).collect(),
            prints: vec![],
            sequences: sequences.to_vec(),
            arrivals: arrivals.to_vec(),
        }
    }

    fn rows(bitmap: &RoaringBitmap) -> Vec<u32> {
        bitmap.iter().collect()
    }

    #[test]
    fn what_came_last_is_left() {
        // Key 1 came in batches 0, 3 and 2, wherever its rows lie.
        let a = file(&[1, 2, 1], &[], &[(0, 0), (2, 3)]);
        let b = file(&[1, 3], &[], &[(0, 2)]);
        let folded = fold([&a, &b].map(|file| (None, file)).into_iter());
        assert_eq!(rows(&folded.outdone[0]), [0]);
        assert_eq!(rows(&folded.outdone[1]), [0]);
        assert!(folded.tie.is_some());
    }

    #[test]
    fn a_sequence_comes_before_the_time_of_arrival() {
        let folded = fold([(None, &file(&[1, 1, 1], &[5, 9, 7], &[(0, 0), (1, 1), (2, 2)]))].into_iter());
        assert_eq!(rows(&folded.outdone[0]), [0, 2]);
        assert_eq!(folded.tie, None);
    }

    #[test]
    fn many_keys_fold_as_a_map_would() {
        // Every seventh key comes again in a later file, in a batch of its own.
        let spread = |k: u64| [k.wrapping_mul(0x9E37_79B9_7F4A_7C15), k.wrapping_mul(0xD1B5_4A32_D192_ED03)];
        let of = |keys: Vec<u64>, arrival| FileKeys {
            hashes: keys.into_iter().map(spread).collect(),
            arrivals: vec![(0, arrival)],
            ..FileKeys::default()
        };
        let files = [
            of((0..50_000).collect(), 1),
            of((0..50_000).step_by(7).collect(), 0),
            of((0..50_000).step_by(14).collect(), 2),
        ];
        let folded = fold(files.iter().map(|file| (None, file)));
        assert_eq!(rows(&folded.outdone[0]), (0..50_000).step_by(14).collect::<Vec<_>>());
        assert_eq!(folded.outdone[1].len(), files[1].hashes.len() as u64);
        assert!(folded.outdone[2].is_empty());
        // Of two groups, none is the other's.
        let apart = fold(files.iter().enumerate().map(|(i, file)| (Some(vec![Some(i.to_string())]), file)));
        assert!(apart.outdone.iter().all(|rows| rows.is_empty()) && apart.tie.is_none());
    }

    #[test]
    fn batches_fold_by_sequence_then_place() {
        let hashes = [[1, 0], [2, 0], [1, 0], [1, 0]];
        assert_eq!(fold_batch(&hashes, &[]), (Some(vec![1, 3]), Some([0, 2])));
        assert_eq!(fold_batch(&hashes, &[9, 0, 3, 4]), (Some(vec![0, 1]), None));
        assert_eq!(fold_batch(&hashes[..2], &[]), (None, None));
    }
}
