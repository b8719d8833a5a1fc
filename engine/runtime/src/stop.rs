//! Asks a run to end, and says when it has been waited for long enough.
//!
//! A run that is asked to stop finishes the step in hand and commits the epoch. If that takes longer than the request's
//! patience, by core's clock, what is in flight is given up: the next run repeats it from the last checkpoint. So a run over
//! slices of hours still ends in seconds, and nothing is lost but work.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use watershed_core::clock::Clock;

/// How long the step in hand may take to its end, unless the request says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often the clock is asked, which may be one that only tests move.
const TICK: Duration = Duration::from_millis(100);

/// Asks a run to end at the next safe point. Clones ask for the same.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<Option<Duration>>>);

impl Default for Stop {
    fn default() -> Self {
        Stop(Arc::new(watch::Sender::new(None)))
    }
}

impl Stop {
    /// Asks to end, within about [`PATIENCE`].
    pub fn request(&self) {
        self.request_within(PATIENCE);
    }

    /// Asks to end; what is not finished after so long is given up and repeated by the next run. A later request may be
    /// less patient than an earlier one, not more.
    pub fn request_within(&self, patience: Duration) {
        self.0.send_modify(|asked| *asked = Some(asked.map_or(patience, |before| before.min(patience))));
    }

    pub fn requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Ready once it has been asked for.
    pub async fn asked(&self) {
        // The sender lives as long as `self` does, so this only ends by a request.
        let _ = self.0.subscribe().wait_for(Option::is_some).await;
    }

    /// Ready when a request has waited for longer than its patience and `more`.
    pub async fn overdue(&self, clock: &dyn Clock, more: Duration) {
        self.asked().await;
        let asked = clock.elapsed();
        let mut watch = self.0.subscribe();
        loop {
            let patience = watch.borrow_and_update().unwrap_or_default();
            let left = (patience + more).saturating_sub(clock.elapsed().saturating_sub(asked));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(TICK)) => {}
                _ = watch.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use watershed_core::EventTime;
    use watershed_core::clock::ManualClock;

    use super::*;

    #[tokio::test]
    async fn is_overdue_by_the_clock_that_it_is_given() {
        let (clock, stop) = (ManualClock::new(EventTime(0), 0), Stop::default());
        let overdue = stop.overdue(&clock, Duration::ZERO);
        tokio::pin!(overdue);
        assert!(overdue.as_mut().now_or_never().is_none() && !stop.requested());
        stop.request_within(Duration::from_secs(3));
        assert!(overdue.as_mut().now_or_never().is_none() && stop.requested());
        clock.advance(Duration::from_secs(4));
        overdue.await;
    }

    #[tokio::test]
    async fn a_later_request_can_only_be_less_patient() {
        let (clock, stop) = (ManualClock::new(EventTime(0), 0), Stop::default());
        stop.request();
        stop.request_within(Duration::from_secs(60));
        stop.clone().request_within(Duration::ZERO);
        stop.overdue(&clock, Duration::ZERO).await;
    }
}
