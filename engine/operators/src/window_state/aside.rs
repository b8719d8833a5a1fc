//! State that does not fit: the largest window's is put aside on disk, and a window too large for memory is emitted in parts.
//!
//! Whenever the account grows and the pool has no more, the window that holds most is frozen into chunks and written
//! ([`crate::spill`]); rows that come for it later begin a new live set. A shard may always hold a little, whatever others
//! hold, or it could not work at all.
//!
//! A window with chunks on disk is emitted by ranges of its keys' hash: each part reads all chunks and merges the rows of its
//! range, and a part that does not fit is halved.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use watershed_core::operator::Aside;
use watershed_core::{Error, EventTime, Result};

use super::{Chunk, Lies, Window, WindowState, in_engine, merge};
use crate::groups::Groups;
use crate::spill::CHUNK_ROWS;

/// Bytes by which the account may be off; less where memory is scarce.
const SLACK: usize = 64 << 10;

/// Parts of a window at most. One of so many that does not fit is no matter of the window's size.
const MOST_PARTS: u64 = 1 << 16;

/// Another than that by which rows go to shards and into tables.
const SEED: u64 = 0x5741_5445_5253_4845;

/// The keys of a window whose hash leaves this rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: EventTime,
    parts: u64,
    rest: u64,
}

impl Part {
    /// All of a window.
    pub(crate) fn all(start: EventTime) -> Self {
        Part { start, parts: 1, rest: 0 }
    }

    fn halves(self) -> [Part; 2] {
        let Part { start, parts, rest } = self;
        [rest, rest + parts].map(|rest| Part { start, parts: 2 * parts, rest })
    }
}

/// What came of emitting a part.
pub(crate) enum Merged {
    Groups(Groups),
    /// It does not fit: these instead.
    Halved([Part; 2]),
}

impl WindowState {
    /// Brings the account up to date after windows were forgotten.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let bytes = self.bytes + self.besides;
        // Small changes are not worth a visit to the pool that all shards share.
        let slack = self.spill.as_ref().map_or(SLACK, |spill| SLACK.min(spill.least / 4));
        if bytes.abs_diff(self.account.size()) < slack && bytes != 0 {
            return Ok(());
        }
        match self.make_room()? {
            None => Ok(()),
            Some(why) => Err(self.does_not_fit(&why)),
        }
    }

    /// Brings the account to what is held, putting windows aside while the pool has no more; else why it has not.
    fn make_room(&mut self) -> Result<Option<String>> {
        loop {
            let bytes = self.bytes + self.besides;
            let Err(full) = self.account.try_resize(bytes) else { return Ok(None) };
            if self.spill.as_ref().is_some_and(|spill| bytes <= spill.least) {
                self.account.resize(bytes);
                return Ok(None);
            }
            if !self.put_aside()? {
                return Ok(Some(full.to_string()));
            }
        }
    }

    fn does_not_fit(&self, why: &str) -> Error {
        let size = self.size();
        Error::Resources(format!(
            "view {}: the state of {} open windows with {} groups does not fit the memory limit; give more \
             (memory_limit), or use shorter windows or fewer keys: {why}",
            self.spec.name, size.windows, size.groups
        ))
    }

    /// Puts the window that holds most aside; whether there was one.
    fn put_aside(&mut self) -> Result<bool> {
        let Some(spill) = self.spill.clone() else { return Ok(false) };
        let candidates = self.windows.iter().filter(|(_, window)| !window.pinned && window.bytes > 0);
        let Some(start) = candidates.max_by_key(|(_, window)| window.bytes).map(|(start, _)| *start) else {
            return Ok(false);
        };
        let size = self.size();
        let Some(mut window) = self.forget(start) else { return Ok(false) };
        let (windows, groups) = (size.windows, size.groups);
        let state =
            format!("the state of {windows} open windows with {groups} groups, the largest that beginning {start},");
        self.freeze(start, &mut window)?;
        let mut chunks = vec![];
        for Chunk { id, states } in window.chunks {
            let Lies::Here(states) = states else {
                chunks.push(Chunk { id, states });
                continue;
            };
            let (rows, bytes) = (states.num_rows(), states.get_array_memory_size());
            // One that a checkpoint holds stays what it is, unless it is too large to be read back at once.
            let whole = rows <= 4 * CHUNK_ROWS;
            let (id, step) = if whole { (id, rows.max(1)) } else { (None, CHUNK_ROWS) };
            for at in (0..rows).step_by(step) {
                let part = states.slice(at, step.min(rows - at));
                let share = (bytes as u128 * part.num_rows() as u128 / rows as u128) as usize;
                let spilled = spill.put(&part, share, &self.spec.name, &state)?;
                chunks.push(Chunk { id, states: Lies::Aside(Arc::new(spilled)) });
            }
        }
        self.windows.insert(start, Window { chunks, ..Window::default() });
        Ok(true)
    }

    /// Makes what is live a chunk.
    fn freeze(&self, start: EventTime, window: &mut Window) -> Result<()> {
        if let Some(live) = window.live.take() {
            window.chunks.push(Chunk { id: None, states: Lies::Here(self.states(start, live)?) });
        }
        Ok(())
    }

    /// Whether a window has chunks on disk.
    pub(crate) fn is_aside(&self, start: EventTime) -> bool {
        self.windows.get(&start).is_some_and(|window| window.chunks.iter().any(|c| !c.states.is_here()))
    }

    /// The groups of a part of a window, which stays. Memory for them is accounted as the owner's ([`Self::keep_besides`]),
    /// beside what is.
    pub(crate) fn part(&mut self, part: Part) -> Result<Merged> {
        let besides = self.besides;
        let Some(mut window) = self.forget(part.start) else { return Err(Error::bug("a part of no window")) };
        window.bytes = 0;
        self.freeze(part.start, &mut window)?;
        let mut groups = Groups::new(&self.spec.aggregates, &self.key_schema).map_err(in_engine)?;
        let mut fits = true;
        for chunk in &window.chunks {
            let states = self.of_part(&chunk.states.load()?, part)?;
            if states.num_rows() == 0 {
                continue;
            }
            merge(&mut groups, &states).map_err(in_engine)?;
            self.besides = besides + groups.bytes();
            if let Some(why) = self.make_room()? {
                if part.parts >= MOST_PARTS || self.key_schema.fields().is_empty() {
                    let groups: usize = window.chunks.iter().map(|c| c.states.rows()).sum();
                    let why = format!("the window beginning {} has up to {groups} groups; {why}", part.start);
                    return Err(self.does_not_fit(&why));
                }
                fits = false;
                break;
            }
        }
        self.windows.insert(part.start, window);
        if !fits {
            // What did not fit is gone before the account is looked at again.
            drop(groups);
            self.besides = besides;
            self.account(part.start)?;
            return Ok(Merged::Halved(part.halves()));
        }
        self.account(part.start)?;
        Ok(Merged::Groups(groups))
    }

    /// The rows of a chunk whose keys are of a part.
    fn of_part(&self, states: &RecordBatch, part: Part) -> Result<RecordBatch> {
        if part.parts == 1 {
            return Ok(states.clone());
        }
        let keys = &states.columns()[1..=self.key_schema.fields().len()];
        let mut hashes = vec![0; states.num_rows()];
        create_hashes(keys, &RandomState::with_seed(SEED), &mut hashes).map_err(in_engine)?;
        let mine: BooleanArray = hashes.iter().map(|hash| Some(hash % part.parts == part.rest)).collect();
        filter_record_batch(states, &mine).map_err(|e| in_engine(e.into()))
    }

    /// The parts that a window is emitted in at first: each about what the shard may hold in any case.
    pub(crate) fn parts(&self, start: EventTime) -> Vec<Part> {
        let Some(window) = self.windows.get(&start) else { return vec![] };
        let aside = window.chunks.iter().map(|c| match &c.states {
            Lies::Aside(spilled) => spilled.bytes(),
            Lies::Here(_) => 0,
        });
        let bytes = aside.sum::<usize>() + window.bytes;
        let least = self.spill.as_ref().map_or(usize::MAX, |spill| spill.least);
        // Groups take about twice what their states do.
        let parts = (2 * bytes / least.max(1)).next_power_of_two().min(256) as u64;
        match self.key_schema.fields().is_empty() {
            true => vec![Part::all(start)],
            false => (0..parts).map(|rest| Part { start, parts, rest }).collect(),
        }
    }
}
