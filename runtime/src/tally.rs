//! Events that anybody can cause in any number, told once an interval with their number, so that nobody fills a log.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::Mutex;

/// Counts between two tellings.
#[derive(Debug)]
pub struct Tally {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    untold: u64,
    told: Option<Instant>,
}

impl Tally {
    /// At most one telling in each `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self {
            every,
            state: Mutex::new(State {
                untold: 0,
                told: None,
            }),
        }
    }

    /// Counts one event. `Some` when it is to be told: how many there were since the last telling, this one included.
    pub fn count(&self) -> Option<u64> {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.untold += 1;
        if state.told.is_some_and(|told| now < told + self.every) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_rest_once_an_interval() {
        let tally = Tally::new(Duration::from_secs(10));
        assert_eq!(tally.count(), Some(1));
        assert!((0..99_999).all(|_| tally.count().is_none()));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(tally.count(), Some(100_000));
        assert_eq!(tally.count(), None);
    }
}
