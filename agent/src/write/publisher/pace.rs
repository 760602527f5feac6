//! When a set may be written: the first ones at once, then one in a while; after one that failed later and later, whatever comes meanwhile.

use std::time::Duration;

use signet_runtime::backoff::Backoff;
use signet_runtime::bucket::{Bucket, Rate};
use signet_runtime::pace::random_unit;
use tokio::time::Instant;

/// Waits after a set that could not be written.
const BACKOFF: Backoff = Backoff::between(Duration::from_millis(500), Duration::from_secs(15)).jittered(0.5);
/// Lists may come several times a second, and what each costs is not ours to say: programs start processes for each reload, and the
/// folder keeps what was replaced in the last ten seconds.
const RATE: Rate = Rate {
    per_second: 0.5,
    burst: 3.0,
};

pub(super) struct Pace {
    bucket: Bucket,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bucket: Bucket::full(RATE, now),
            backoff: BACKOFF,
            not_before: None,
        }
    }

    /// When the next set may be written: not later than now, where that is at once.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let allowed = self.bucket.check(now).map_or_else(|wait| now + wait, |()| now);
        self.not_before
            .map_or(allowed, |not_before| allowed.max(not_before))
    }

    /// One begins.
    pub(super) fn begins(&mut self, now: Instant) {
        self.bucket.spend(1.0, now);
    }

    /// The last one failed: how long the next one waits.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let wait = self.backoff.next(random_unit());
        self.not_before = Some(now + wait);
        wait
    }

    /// The last one succeeded, or is to be tried again at once.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
        self.not_before = None;
    }
}
