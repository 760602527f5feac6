//! A token bucket: so much at once, so much per second on average. Pure: the caller says what time it is.

mod keyed;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

pub use self::keyed::Buckets;

/// A moment of some clock.
pub trait Moment: Copy {
    /// Time since an earlier moment; zero if that one is later, as happens when a wall clock is set back.
    fn since(self, earlier: Self) -> Duration;
}

impl Moment for Instant {
    fn since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl Moment for SystemTime {
    fn since(self, earlier: Self) -> Duration {
        self.duration_since(earlier).unwrap_or_default()
    }
}

/// How a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Tokens gained per second.
    pub per_second: f64,
    /// Most tokens it holds.
    pub burst: f64,
}

/// What is missing by rounding alone would have whoever waits for it ask again at once, without end where time stands still.
const SHORTEST: Duration = Duration::from_millis(1);

/// Tokens, and when they were counted last.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<T = Instant> {
    rate: Rate,
    available: f64,
    counted: T,
}

impl<T: Moment> Bucket<T> {
    /// A full one.
    #[must_use]
    pub fn full(rate: Rate, now: T) -> Self {
        Self {
            rate,
            available: rate.burst,
            counted: now,
        }
    }

    /// Tokens in it at this moment.
    pub fn available(&mut self, now: T) -> f64 {
        let gained = now.since(self.counted).as_secs_f64() * self.rate.per_second;
        self.available = (self.available + gained).min(self.rate.burst);
        self.counted = now;
        self.available
    }

    /// Whether it has nothing to gain, so that a new one would do as well.
    pub fn is_full(&mut self, now: T) -> bool {
        self.available(now) >= self.rate.burst
    }

    /// Whether a token could be taken.
    ///
    /// # Errors
    /// How long until there is one, a millisecond at least; [`Duration::MAX`] when none is ever gained.
    pub fn check(&mut self, now: T) -> Result<(), Duration> {
        let missing = 1.0 - self.available(now);
        if missing <= 0.0 {
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64(missing / self.rate.per_second).unwrap_or(Duration::MAX);
        Err(wait.max(SHORTEST))
    }

    /// Takes one token.
    ///
    /// # Errors
    /// As [`check`](Self::check); nothing is taken then.
    pub fn take(&mut self, now: T) -> Result<(), Duration> {
        self.check(now)?;
        self.available -= 1.0;
        Ok(())
    }

    /// Takes so many tokens, also those that it does not hold yet: for work whose price shows only when it is done. Until they are
    /// gained, [`check`](Self::check) and [`take`](Self::take) refuse. Whoever is asked first owes for one piece of work at most.
    pub fn spend(&mut self, tokens: f64, now: T) {
        self.available = self.available(now) - tokens;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGIN: SystemTime = SystemTime::UNIX_EPOCH;

    /// Three hundred a second are gained in steps that are no whole number of anything.
    #[test]
    fn whoever_waits_as_long_as_it_is_told_gets_a_token() {
        let rate = Rate {
            per_second: 300.0,
            burst: 1.0,
        };
        let (mut now, mut asked) = (BEGIN, 0);
        let mut bucket = Bucket::full(rate, now);
        for _ in 0..3000 {
            while let Err(wait) = bucket.take(now) {
                asked += 1;
                now += wait;
            }
        }
        assert!(asked < 6000, "asked {asked} times in vain");
    }

    fn at(ms: u64) -> SystemTime {
        BEGIN + Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let rate = Rate {
            per_second: 10.0,
            burst: 3.0,
        };
        let mut bucket = Bucket::full(rate, at(0));
        assert!(bucket.is_full(at(0)));
        assert_eq!((0..5).filter(|_| bucket.take(at(0)).is_ok()).count(), 3);
        assert_eq!(bucket.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(bucket.check(at(100)), Ok(()));
        assert_eq!(bucket.take(at(100)), Ok(()));
        assert!(bucket.take(at(150)).is_err());
        assert!(!bucket.is_full(at(299)) && bucket.is_full(at(500)));
        assert_eq!((0..5).filter(|_| bucket.take(at(1_000_000)).is_ok()).count(), 3);
    }

    #[test]
    fn a_clock_set_back_gives_and_takes_nothing() {
        let rate = Rate {
            per_second: 1.0,
            burst: 2.0,
        };
        let mut bucket = Bucket::full(rate, at(60_000));
        assert_eq!(bucket.take(at(60_000)), Ok(()));
        assert!((bucket.available(at(0)) - 1.0).abs() < f64::EPSILON);
        assert!((bucket.available(at(500)) - 1.5).abs() < 1e-9);
    }

    #[test]
    fn a_debt_is_worked_off_first() {
        let rate = Rate {
            per_second: 1.0,
            burst: 2.0,
        };
        let mut bucket = Bucket::full(rate, at(0));
        bucket.spend(5.0, at(0));
        assert_eq!(bucket.take(at(0)), Err(Duration::from_secs(4)));
        assert_eq!(bucket.take(at(4000)), Ok(()));
        // All of it, however much more than a burst.
        bucket.spend(100.0, at(4000));
        assert_eq!(bucket.take(at(4000)), Err(Duration::from_secs(101)));
    }

    #[test]
    fn a_bucket_that_never_fills_says_so() {
        let rate = Rate {
            per_second: 0.0,
            burst: 1.0,
        };
        let mut bucket = Bucket::full(rate, at(0));
        assert_eq!(bucket.take(at(0)), Ok(()));
        assert_eq!(bucket.take(at(5)), Err(Duration::MAX));
    }

    proptest! {
        #[test]
        fn never_more_passes_than_burst_and_rate_allow(
            per_second in 0.1_f64..1000.0,
            burst in 1_u32..100,
            waits in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let rate = Rate { per_second, burst: f64::from(burst) };
            let mut bucket = Bucket::full(rate, at(0));
            let (mut now, mut passed) = (0, 0.0);
            for wait in waits {
                now += wait;
                if let Err(left) = bucket.take(at(now)) {
                    // Who waits as long as told gets one (a nanosecond of slack for the rounding of floating point).
                    let mut later = bucket;
                    prop_assert!(later.take(at(now) + left + Duration::from_nanos(1)).is_ok());
                } else {
                    passed += 1.0;
                }
                let allowed = rate.burst + per_second * Duration::from_millis(now).as_secs_f64();
                prop_assert!(passed <= allowed + 1e-6, "{passed} of {allowed}");
            }
        }
    }
}
