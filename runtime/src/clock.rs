//! Wall time and elapsed time as a trait, so that tests own them. Scheduling uses tokio's time, never this.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Tells the wall time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall time now. It may jump either way; callers that schedule use `tokio::time` instead.
    fn now(&self) -> SystemTime;

    /// Time that has passed since some fixed moment, the same for the whole life of the process. Nobody can set it, and it
    /// goes on while the machine is suspended. Zero where the system does not tell it.
    fn elapsed(&self) -> Duration;
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

    /// The raw oscillator, which no time daemon slews, and what it missed during suspends.
    fn elapsed(&self) -> Duration {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        let suspended = read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC));
        read(ClockId::CLOCK_MONOTONIC_RAW) + suspended
    }
}

/// A clock for tests: a fixed start plus what tokio's clock has advanced since, so that one knob (`tokio::time::advance`
/// on a paused runtime) moves timers and certificates together. Clones share their knobs.
#[derive(Clone, Debug)]
pub struct FakeClock {
    base: SystemTime,
    started: Instant,
    offset_seconds: Arc<AtomicI64>,
    /// What elapsed time has lost by standing still.
    lost_ms: Arc<AtomicU64>,
    /// Since when it stands still, or [`RUNS`].
    stopped_at_ms: Arc<AtomicU64>,
    /// How long the machine was suspended.
    suspended_ms: Arc<AtomicU64>,
}

/// Elapsed time runs.
const RUNS: u64 = u64::MAX;

impl FakeClock {
    /// A clock that says `base` now.
    #[must_use]
    pub fn new(base: SystemTime) -> Self {
        Self {
            base,
            started: Instant::now(),
            offset_seconds: Arc::default(),
            lost_ms: Arc::default(),
            stopped_at_ms: Arc::new(AtomicU64::new(RUNS)),
            suspended_ms: Arc::default(),
        }
    }

    /// Makes the wall clock differ from its steady course by `seconds` (negative: behind), as if someone had set it.
    pub fn set_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::SeqCst);
    }

    /// Lets elapsed time stand still, as on a virtual machine that is paused unnoticed, while the wall clock goes on.
    pub fn stop_elapsed(&self) {
        self.stopped_at_ms.store(self.steady_ms(), Ordering::SeqCst);
    }

    /// Lets elapsed time run again.
    pub fn resume_elapsed(&self) {
        let stopped_at = self.stopped_at_ms.swap(RUNS, Ordering::SeqCst);
        if stopped_at != RUNS {
            let lost = self.steady_ms().saturating_sub(stopped_at);
            self.lost_ms.fetch_add(lost, Ordering::SeqCst);
        }
    }

    /// Lets this much time pass while the machine is suspended: timers, which go by tokio's clock, know nothing of it.
    pub fn suspend(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(RUNS);
        self.suspended_ms.fetch_add(millis, Ordering::SeqCst);
    }

    fn suspended(&self) -> Duration {
        Duration::from_millis(self.suspended_ms.load(Ordering::SeqCst))
    }

    fn steady_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(RUNS - 1)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        let steady = self.base + self.started.elapsed() + self.suspended();
        let offset = self.offset_seconds.load(Ordering::SeqCst);
        let distance = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 {
            (steady.checked_sub(distance)).map_or(SystemTime::UNIX_EPOCH, |t| t.max(SystemTime::UNIX_EPOCH))
        } else {
            steady + distance
        }
    }

    fn elapsed(&self) -> Duration {
        let until = self.steady_ms().min(self.stopped_at_ms.load(Ordering::SeqCst));
        let ran = until.saturating_sub(self.lost_ms.load(Ordering::SeqCst));
        Duration::from_millis(ran) + self.suspended()
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
    async fn elapsed_time_knows_no_offset_and_can_stand_still() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH + BASE);
        let minute = Duration::from_secs(60);
        clock.set_offset(-7200);
        tokio::time::advance(minute).await;
        assert_eq!(clock.elapsed(), minute);
        clock.stop_elapsed();
        tokio::time::advance(minute).await;
        assert_eq!(clock.elapsed(), minute);
        clock.resume_elapsed();
        tokio::time::advance(minute).await;
        assert_eq!(clock.elapsed(), minute * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_while_the_machine_is_suspended_and_timers_do_not() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH + BASE);
        let (began, hour) = (Instant::now(), Duration::from_secs(3600));
        clock.suspend(hour);
        assert_eq!(clock.elapsed(), hour);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + BASE + hour);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn the_machines_elapsed_time_runs() {
        let first = SystemClock.elapsed();
        assert!(first > Duration::ZERO && SystemClock.elapsed() >= first);
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
