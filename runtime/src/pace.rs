//! Waiting for a moment of the wall clock, and the chance that spreads such moments.
//!
//! The wall clock may be set, and a machine may sleep, while a timer counts on: so nobody sleeps long for it. Whoever
//! waits takes a [`slice`](fn@slice) of the time at most and looks at the clock again.

use std::time::{Duration, SystemTime};

use crate::clock::Clock;

/// Longest sleep of [`nap_until`] and [`sleep_until`].
pub const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Shortest wait, so that a deadline that does not go away, for it is another's to move it, keeps neither a core nor a store busy.
const SHORTEST: Duration = Duration::from_millis(50);

/// How long to wait before looking again: until the deadline, at most `longest` (without a deadline too), at least a twentieth of a second.
#[must_use]
pub fn slice(now: SystemTime, deadline: Option<SystemTime>, longest: Duration) -> Duration {
    let left = deadline.map_or(longest, |deadline| {
        deadline.duration_since(now).unwrap_or_default()
    });
    left.min(longest).max(SHORTEST)
}

/// Sleeps until the deadline or, if that is far away, for [`LONGEST_NAP`]; for ever without a deadline. The caller looks
/// again at what is due.
pub async fn nap_until(clock: &dyn Clock, deadline: Option<SystemTime>) {
    if deadline.is_none() {
        return std::future::pending().await;
    }
    tokio::time::sleep(slice(clock.now(), deadline, LONGEST_NAP)).await;
}

/// As [`nap_until`], for a moment of elapsed time.
pub async fn nap_until_elapsed(clock: &dyn Clock, deadline: Option<Duration>) {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    let left = deadline.saturating_sub(clock.elapsed());
    tokio::time::sleep(left.clamp(SHORTEST, LONGEST_NAP)).await;
}

/// Sleeps until so much time has elapsed, suspends of the machine included.
pub async fn sleep_until_elapsed(clock: &dyn Clock, deadline: Duration) {
    while clock.elapsed() < deadline {
        nap_until_elapsed(clock, Some(deadline)).await;
    }
}

/// Sleeps until the wall clock shows `deadline`.
pub async fn sleep_until(clock: &dyn Clock, deadline: SystemTime) {
    while clock.now() < deadline {
        nap_until(clock, Some(deadline)).await;
    }
}

/// A random number from 0 up to but not including 1, to spread waits with: good enough for that, and for nothing that
/// someone must not guess.
#[must_use]
pub fn random_unit() -> f64 {
    fastrand::f64()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::clock::FakeClock;

    const BASE: SystemTime = SystemTime::UNIX_EPOCH;
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_slice_ends_at_the_deadline_and_is_never_endless_nor_empty() {
        let of = |deadline| slice(BASE + 10 * SECOND, deadline, 60 * SECOND);
        assert_eq!(of(Some(BASE + 12 * SECOND)), 2 * SECOND);
        assert_eq!(of(Some(BASE + 1000 * SECOND)), 60 * SECOND);
        assert_eq!(of(None), 60 * SECOND);
        assert_eq!(of(Some(BASE + 10 * SECOND)), Duration::from_millis(50));
        assert_eq!(of(Some(BASE)), Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn naps_end_early_and_sleeps_at_the_moment() {
        let (clock, begun) = (FakeClock::new(BASE), Instant::now());
        nap_until(&clock, Some(BASE + 3600 * SECOND)).await;
        assert_eq!(begun.elapsed(), LONGEST_NAP);
        sleep_until(&clock, BASE + 3600 * SECOND).await;
        assert_eq!(begun.elapsed(), 3600 * SECOND);
        sleep_until(&clock, BASE).await;
        assert_eq!(begun.elapsed(), 3600 * SECOND, "what is past is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_forward_is_noticed_in_time() {
        let (clock, begun) = (FakeClock::new(BASE), Instant::now());
        let set = async {
            tokio::time::sleep(SECOND).await;
            clock.set_offset(3600);
        };
        tokio::join!(sleep_until(&clock, BASE + 3600 * SECOND), set);
        assert_eq!(begun.elapsed(), LONGEST_NAP);
    }

    #[tokio::test(start_paused = true)]
    async fn elapsed_time_is_waited_for_whatever_the_wall_clock_shows() {
        let (clock, begun) = (FakeClock::new(BASE), Instant::now());
        clock.set_offset(3600);
        sleep_until_elapsed(&clock, 100 * SECOND).await;
        assert_eq!(begun.elapsed(), 100 * SECOND);
        nap_until_elapsed(&clock, Some(3600 * SECOND)).await;
        assert_eq!(begun.elapsed(), 100 * SECOND + LONGEST_NAP);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_deadline_a_nap_has_no_end() {
        let clock = FakeClock::new(BASE);
        let napped = tokio::time::timeout(1_000_000 * SECOND, nap_until(&clock, None)).await;
        assert!(napped.is_err());
    }

    #[test]
    fn chance_stays_within_its_bounds_and_is_no_constant() {
        let drawn: Vec<f64> = (0..1000).map(|_| random_unit()).collect();
        assert!(drawn.iter().all(|unit| (0.0..1.0).contains(unit)));
        assert!(drawn.iter().any(|unit| *unit < 0.25) && drawn.iter().any(|unit| *unit > 0.75));
    }
}
