//! Decoders that are used again: what they have allocated is as large as what they give.
//!
//! Invariant: only a decoder that ended between two records comes here.

use std::sync::{Mutex, PoisonError};

use arrow::array::BinaryArray;

/// Decoders by how many messages they take at most.
pub(crate) struct Spare<D>(Mutex<Vec<(usize, D)>>);

/// As many as threads may decode for one source at a time.
const MOST: usize = 4;

/// Bytes of payloads after which a decoder is not kept: it is a few times larger.
const LARGEST: usize = 16 << 20;

impl<D> Default for Spare<D> {
    fn default() -> Self {
        Spare(Mutex::new(vec![]))
    }
}

impl<D> Spare<D> {
    /// One that takes so many messages, with how many it does take.
    pub(crate) fn take(&self, messages: usize) -> Option<(usize, D)> {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = spare.iter().position(|(most, _)| *most >= messages)?;
        Some(spare.swap_remove(fits))
    }

    /// Keeps the larger ones, but for those that read more at once than most do.
    pub(crate) fn give(&self, messages: usize, decoder: D, read: &BinaryArray) {
        if read.value_data().len() > LARGEST {
            return;
        }
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push((messages, decoder));
        if spare.len() > MOST {
            let smallest = spare.iter().enumerate().min_by_key(|(_, (most, _))| *most);
            if let Some(at) = smallest.map(|(at, _)| at) {
                spare.swap_remove(at);
            }
        }
    }
}
