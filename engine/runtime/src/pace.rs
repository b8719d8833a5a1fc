//! How fast a job reads: rows and bytes a second, shared by all its workers, within a step as between steps.
//!
//! Every batch that a scan yields is booked and passed on only when it is paid for, in the order of booking; what is
//! allowed flows at the limits' rates and does not pile up while nothing waits. So a slice of any size is paced, and no
//! burst follows a quiet time. Limits may be changed at any moment, and the whole may be *held*: then nothing is passed on.
//!
//! Invariant: between any two moments no more rows are passed on than the limit's rate makes of the time between them, and
//! one batch a worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use watershed_core::clock::Clock;
use watershed_core::scan::Pace;
use watershed_core::settings::Settings;

/// How long a worker sleeps at most before it looks again: limits may have changed, or the clock moved.
const NAP: Duration = Duration::from_millis(200);

/// The pace of one job. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    rows: Flow,
    bytes: Flow,
    held: bool,
    /// When what is allowed was last brought up to date.
    at: Duration,
}

/// What is allowed of one measure.
#[derive(Debug, Default)]
struct Flow {
    /// A second; `None`: no limit.
    rate: Option<u64>,
    booked: f64,
    allowed: f64,
}

impl Flow {
    fn advance(&mut self, by: Duration) {
        self.allowed = match self.rate {
            None => self.booked,
            Some(rate) => (self.allowed + rate as f64 * by.as_secs_f64()).min(self.booked),
        };
    }

    /// How long until this much is allowed in all.
    fn wait(&self, until: f64) -> Duration {
        match self.rate {
            Some(rate) if until > self.allowed => Duration::from_secs_f64((until - self.allowed) / rate.max(1) as f64),
            _ => Duration::ZERO,
        }
    }
}

impl State {
    fn advance(&mut self, now: Duration) {
        let by = now.saturating_sub(self.at);
        self.at = now;
        // What is held does not earn.
        let by = if self.held { Duration::ZERO } else { by };
        self.rows.advance(by);
        self.bytes.advance(by);
    }
}

impl Pacer {
    pub(crate) fn new(clock: Arc<dyn Clock>, settings: &Settings) -> Self {
        let state = State { at: clock.elapsed(), ..State::default() };
        let pacer = Pacer { clock, state: Arc::new(Mutex::new(state)) };
        pacer.limit(settings);
        pacer
    }

    /// Takes on other limits; who waits already waits by them from now on.
    pub(crate) fn limit(&self, settings: &Settings) {
        let mut state = self.state();
        state.advance(self.clock.elapsed());
        state.rows.rate = settings.throttle_rows;
        state.bytes.rate = settings.throttle_bytes;
    }

    /// Passes nothing on, until it is let go.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.state();
        state.advance(self.clock.elapsed());
        state.held = held;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long something booked up to here has still to wait.
    fn wait(&self, rows: f64, bytes: f64) -> Duration {
        let mut state = self.state();
        state.advance(self.clock.elapsed());
        match state.held {
            true => NAP,
            false => state.rows.wait(rows).max(state.bytes.wait(bytes)),
        }
    }
}

impl Pace for Pacer {
    fn by_bytes(&self) -> bool {
        self.state().bytes.rate.is_some()
    }

    fn book(&self, rows: u64, bytes: u64) -> BoxFuture<'static, ()> {
        let (rows, bytes) = {
            let mut state = self.state();
            state.advance(self.clock.elapsed());
            state.rows.booked += rows as f64;
            state.bytes.booked += bytes as f64;
            (state.rows.booked, state.bytes.booked)
        };
        let pacer = self.clone();
        async move {
            loop {
                let left = pacer.wait(rows, bytes);
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(NAP)).await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use watershed_core::EventTime;
    use watershed_core::clock::ManualClock;

    use super::*;

    fn pacer(rows: Option<u64>, bytes: Option<u64>) -> (Arc<ManualClock>, Pacer) {
        let clock = Arc::new(ManualClock::new(EventTime(0), 0));
        let settings = Settings { throttle_rows: rows, throttle_bytes: bytes, ..Settings::default() };
        (clock.clone(), Pacer::new(clock, &settings))
    }

    fn seconds(of: f64) -> Duration {
        Duration::from_secs_f64(of)
    }

    /// Books without waiting, and gives how long it would have to wait.
    fn booked(pacer: &Pacer, rows: u64, bytes: u64) -> Duration {
        drop(pacer.book(rows, bytes));
        let booked = {
            let state = pacer.state();
            (state.rows.booked, state.bytes.booked)
        };
        pacer.wait(booked.0, booked.1)
    }

    #[test]
    fn one_after_the_other_and_the_tighter_limit_counts() {
        let (clock, pacer) = pacer(Some(100), Some(1000));
        assert_eq!(booked(&pacer, 50, 10), seconds(0.5));
        assert_eq!(booked(&pacer, 100, 10), seconds(1.5));
        assert_eq!(booked(&pacer, 0, 1980), seconds(2.0));
        clock.advance(seconds(1.0));
        assert_eq!(booked(&pacer, 10, 0), seconds(1.0));
    }

    #[test]
    fn quiet_times_save_nothing_up() {
        let (clock, pacer) = pacer(Some(100), None);
        assert_eq!(booked(&pacer, 100, 0), seconds(1.0));
        clock.advance(seconds(1000.0));
        assert_eq!(booked(&pacer, 100, 1 << 40), seconds(1.0));
    }

    #[test]
    fn other_limits_count_for_those_who_wait() {
        let (clock, pacer) = pacer(Some(1), None);
        let ticket = 1000.0;
        assert_eq!(booked(&pacer, 1000, 0), seconds(1000.0));
        clock.advance(seconds(100.0));
        pacer.limit(&Settings { throttle_rows: Some(900), ..Settings::default() });
        assert_eq!(pacer.wait(ticket, 0.0), seconds(1.0));
        pacer.limit(&Settings::default());
        assert_eq!(pacer.wait(ticket, 0.0), Duration::ZERO);
    }

    #[test]
    fn what_is_held_waits_and_earns_nothing() {
        let (clock, pacer) = pacer(Some(100), None);
        booked(&pacer, 100, 0);
        pacer.hold(true);
        clock.advance(seconds(1000.0));
        assert_eq!(pacer.wait(100.0, 0.0), NAP);
        pacer.hold(false);
        assert_eq!(pacer.wait(100.0, 0.0), seconds(1.0));
    }

    /// Many workers over a clock turned by hand: what has passed never exceeds the limit.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn workers_share_the_limit() {
        let (clock, pacer) = pacer(Some(1000), None);
        let passed = Arc::new(AtomicU64::new(0));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let (pacer, passed) = (pacer.clone(), passed.clone());
                tokio::spawn(async move {
                    for _ in 0..5 {
                        pacer.book(100, 0).await;
                        passed.fetch_add(100, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        while workers.iter().any(|w| !w.is_finished()) {
            clock.advance(Duration::from_millis(50));
            tokio::time::sleep(Duration::from_millis(5)).await;
            let allowed = clock.elapsed().as_millis() as u64;
            let passed = passed.load(Ordering::SeqCst);
            assert!(passed <= allowed, "{passed} rows of {allowed}");
        }
        assert!(clock.elapsed() >= seconds(2.0));
    }
}
