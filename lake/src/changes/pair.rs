//! Deletes and inserts of one key in one version are an update: which keys these are.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use crate::keyed::key::{Hashed, KeyHash};

/// Keys by what was done to them in one version.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    deleted: HashSet<KeyHash, BuildHasherDefault<Hashed>>,
    both: HashSet<KeyHash, BuildHasherDefault<Hashed>>,
}

impl Pairs {
    /// All deletes come first.
    pub(crate) fn delete(&mut self, keys: &[KeyHash]) {
        self.deleted.extend(keys);
    }

    pub(crate) fn insert(&mut self, keys: &[KeyHash]) {
        self.both.extend(keys.iter().filter(|key| self.deleted.contains(*key)));
    }

    /// With all seen, those that were only deleted need not be known any more.
    pub(crate) fn settle(&mut self) {
        self.deleted = HashSet::default();
        self.both.shrink_to_fit();
    }

    /// Whether a row of this key is an image of an update.
    pub(crate) fn updated(&self, key: &KeyHash) -> bool {
        self.both.contains(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.both.is_empty()
    }
}
