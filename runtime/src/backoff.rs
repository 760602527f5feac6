//! Waiting times between attempts: exponential, bounded, spread by jitter. Pure: the caller brings the randomness.

use std::time::Duration;

/// Waits that double from `min` to `max`, each shortened by up to the share `jitter`.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
    attempts: u32,
}

impl Backoff {
    /// Waits from `min` to `max`, all of them whole. What makes no sense is brought into order, so that this cannot fail:
    /// `min` is at least a millisecond, for a wait of zero would spin, and `max` at least `min`.
    #[must_use]
    pub const fn between(min: Duration, max: Duration) -> Self {
        const SHORTEST: Duration = Duration::from_millis(1);
        let min = longer(min, SHORTEST);
        Self {
            min,
            max: longer(max, min),
            jitter: 0.0,
            attempts: 0,
        }
    }

    /// With each wait shortened by up to this share of itself (0 to 1; what lies outside is brought inside).
    #[must_use]
    pub const fn jittered(self, share: f64) -> Self {
        Self {
            jitter: self::share(share),
            ..self
        }
    }

    /// The next wait: at most `max`, at least `min × (1 − jitter)`. `unit` is a random number from 0 to 1.
    #[must_use = "the caller waits this long"]
    pub fn next(&mut self, unit: f64) -> Duration {
        let factor = 1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        let wait = self.min.saturating_mul(factor).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        jitter(wait, self.jitter, unit)
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Shortens `wait` by `fraction × unit` of itself; both are shares and are brought into 0 to 1.
#[must_use]
pub fn jitter(wait: Duration, fraction: f64, unit: f64) -> Duration {
    let kept = 1.0 - share(fraction) * share(unit);
    Duration::try_from_secs_f64(wait.as_secs_f64() * kept)
        .unwrap_or(wait)
        .min(wait)
}

/// Brings a share into 0 to 1; what is no number is 0.
const fn share(value: f64) -> f64 {
    if value.is_finite() {
        value.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

const fn longer(one: Duration, other: Duration) -> Duration {
    if one.as_nanos() > other.as_nanos() {
        one
    } else {
        other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<u64> = (0..6).map(|_| backoff.next(0.7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_secs(1));
    }

    #[test]
    fn bounds_that_make_no_sense_are_brought_into_order() {
        const RETRY: Backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(3)).jittered(0.5);
        let mut retry = RETRY;
        let waits: Vec<u128> = (0..3).map(|_| retry.next(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 1500]);
        let first = |min: u64, max: u64, share| {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            Backoff::between(min, max).jittered(share).next(0.5)
        };
        assert_eq!(first(0, 0, 0.0), Duration::from_millis(1), "it never spins");
        assert_eq!(first(20, 10, 0.0), Duration::from_millis(20));
        assert_eq!(first(20, 20, 7.0), Duration::from_millis(10));
        assert_eq!(first(20, 20, f64::NAN), Duration::from_millis(20));
    }

    proptest! {
        #[test]
        fn every_wait_stays_within_its_bounds(
            min_ms in 1_u64..100_000,
            extra_ms in 0_u64..10_000_000,
            share in 0.0_f64..=1.0,
            attempts in 1_usize..80,
            u in 0.0_f64..1.0,
        ) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + extra_ms));
            let mut backoff = Backoff::between(min, max).jittered(share);
            let mut before = Duration::ZERO;
            for _ in 0..attempts {
                let wait = backoff.next(u);
                prop_assert!(wait <= max);
                // A nanosecond of slack for the rounding of floating point.
                prop_assert!(wait + Duration::from_nanos(1) >= min.mul_f64(1.0 - share));
                prop_assert!(wait >= before, "with the same random number waits never shrink");
                before = wait;
            }
        }

        #[test]
        fn jitter_survives_any_numbers(ms in any::<u32>(), fraction in any::<f64>(), u in any::<f64>()) {
            let wait = Duration::from_millis(ms.into());
            prop_assert!(jitter(wait, fraction, u) <= wait);
        }
    }
}
