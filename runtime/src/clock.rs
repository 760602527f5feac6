//! Wall time as a trait, so that tests own it. Scheduling uses tokio's time, never this.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Tells the wall time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall time now. It may jump either way; callers that schedule use `tokio::time` instead.
    fn now(&self) -> SystemTime;
}

/// The machine's clock. The only place in the workspace that reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one reader of the wall clock"
    )]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock for tests: a fixed start plus what tokio's clock has advanced since, so that one knob (`tokio::time::advance`
/// on a paused runtime) moves timers and certificates together. Clones share their offset.
#[derive(Clone, Debug)]
pub struct FakeClock {
    base: SystemTime,
    started: Instant,
    offset_seconds: Arc<AtomicI64>,
}

impl FakeClock {
    /// A clock that says `base` now.
    #[must_use]
    pub fn new(base: SystemTime) -> Self {
        Self {
            base,
            started: Instant::now(),
            offset_seconds: Arc::default(),
        }
    }

    /// Makes the wall clock differ from its steady course by `seconds` (negative: behind), as if someone had set it.
    pub fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        let steady = self.base + self.started.elapsed();
        let offset = self.offset_seconds.load(Ordering::SeqCst);
        let distance = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 {
            (steady.checked_sub(distance)).map_or(SystemTime::UNIX_EPOCH, |t| t.max(SystemTime::UNIX_EPOCH))
        } else {
            steady + distance
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_secs(1_800_000_000);

    #[tokio::test(start_paused = true)]
    async fn the_fake_clock_moves_with_tokio_time_only() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH + BASE);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + BASE);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(
            clock.now(),
            SystemTime::UNIX_EPOCH + BASE + Duration::from_secs(90)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_offset_jumps_either_way_and_clones_share_it() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH + BASE);
        let other = clock.clone();
        clock.set_offset(-600);
        assert_eq!(
            other.now(),
            SystemTime::UNIX_EPOCH + BASE - Duration::from_secs(600)
        );
        other.set_offset(600);
        assert_eq!(
            clock.now(),
            SystemTime::UNIX_EPOCH + BASE + Duration::from_secs(600)
        );
        clock.set_offset(i64::MIN);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH);
    }
}
