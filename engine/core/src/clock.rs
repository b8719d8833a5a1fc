//! The only door to wall time and randomness, so that a test can turn both by hand and one seed replays a run.
//!
//! Wall time decides nothing about results: it ends epochs (`commit_interval`), closes the last partition (`grace`) and
//! refuses facts from the future (`max_ahead`); each use that matters is written into the checkpoint.

#![allow(clippy::disallowed_methods)] // This is the door itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::time::EventTime;

/// Wall time, elapsed time and fresh ids.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall time, UTC.
    fn now(&self) -> EventTime;

    /// Time since some fixed point; never goes back.
    fn elapsed(&self) -> Duration;

    /// An id that nobody else has.
    fn id(&self) -> Uuid;
}

/// The machine's own clock and entropy.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> EventTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EventTime(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn id(&self) -> Uuid {
        Uuid::new_v4()
    }
}

/// A clock that stands until it is moved, with ids drawn from a seed.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    elapsed: Mutex<Duration>,
    seed: u64,
    drawn: AtomicU64,
}

impl ManualClock {
    pub fn new(now: EventTime, seed: u64) -> Self {
        ManualClock { now: AtomicI64::new(now.0), elapsed: Mutex::default(), seed, drawn: AtomicU64::new(0) }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.now.fetch_add(micros, Ordering::SeqCst);
        *self.elapsed.lock().unwrap_or_else(|e| e.into_inner()) += by;
    }

    /// Sets wall time, also backwards; elapsed time is untouched, as on a machine whose clock is set.
    pub fn set(&self, now: EventTime) {
        self.now.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> EventTime {
        EventTime(self.now.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn id(&self) -> Uuid {
        let n = self.drawn.fetch_add(1, Ordering::SeqCst);
        // The seed is mixed first, or seeds next to each other would draw the same ids in another order.
        let seed = mix(self.seed);
        Uuid::from_u64_pair(mix(seed ^ n), mix(seed.wrapping_add(n) ^ 0x9e37_79b9_7f4a_7c15))
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
