//! How many calls attestation may make to an API server.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: `burst` calls at once, `per_second` on average. Over it a caller is told when to come back.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    available: f64,
    filled_at: Instant,
}

impl Budget {
    /// A full bucket. Rates below one call per second count as one.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second: f64::from(per_second.max(1)),
            burst,
            state: Mutex::new(State {
                available: burst,
                filled_at: Instant::now(),
            }),
        }
    }

    /// Takes one call out of the bucket, or says how long until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(state.filled_at).as_secs_f64() * self.per_second;
        state.available = (state.available + gained).min(self.burst);
        state.filled_at = now;
        if state.available < 1.0 {
            let missing = (1.0 - state.available) / self.per_second;
            return Err(Duration::from_secs_f64(missing).max(Duration::from_millis(10)));
        }
        state.available -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_the_rate_holds() {
        let budget = Budget::new(10, 3);
        for _ in 0..3 {
            assert_eq!(budget.take(), Ok(()));
        }
        let wait = budget.take().unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        tokio::time::advance(wait).await;
        assert_eq!(budget.take(), Ok(()));
        assert!(budget.take().is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((0..10).filter(|_| budget.take().is_ok()).count(), 3);
    }
}
