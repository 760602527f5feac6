//! Waiting for a moment of the wall clock, and the random fractions that spread such moments.

use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use signet_runtime::backoff;
use signet_runtime::clock::Clock;

/// Longest single sleep, so that a wall clock that was set forward (or a machine that slept) is noticed in time.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Shortest sleep, so that a deadline that does not go away cannot keep a core busy.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Sleeps until the deadline or, if that is far away, for [`LONGEST_SLEEP`]; for ever without a deadline. Callers look
/// again at what is due.
pub(crate) async fn nap_until(clock: &dyn Clock, deadline: Option<SystemTime>) {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    let left = deadline.duration_since(clock.now()).unwrap_or_default();
    tokio::time::sleep(left.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
}

/// Sleeps until the wall clock shows `deadline`.
pub(crate) async fn sleep_until(clock: &dyn Clock, deadline: SystemTime) {
    while clock.now() < deadline {
        nap_until(clock, Some(deadline)).await;
    }
}

/// A random number in [0, 1). Without randomness from the system it is 0.5: spreading is not a matter of safety.
pub(crate) fn unit(rng: &SystemRandom) -> f64 {
    let mut bytes = [0; 8];
    match rng.fill(&mut bytes) {
        Ok(()) => backoff::unit(bytes),
        Err(_) => 0.5,
    }
}
