//! Whether a watch can be believed, shared with those who ask.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::clock::Clock as _;
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::clock::TrustedClock;

/// A watch that has shown nothing for this long counts as unsynced.
pub(in crate::kubernetes) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How old what a watch has shown may become while a list that replaces it comes in.
const LISTING_LIMIT: Duration = Duration::from_secs(300);
/// A list that brings nothing for this long does not come in.
const LISTING_SILENCE: Duration = Duration::from_secs(30);

/// Whether a watch can be believed. Its moments are those of [`Clock::elapsed`](signet_runtime::clock::Clock::elapsed): a watch has
/// shown nothing while the machine was suspended.
#[derive(Debug)]
pub(in crate::kubernetes) struct WatchHealth {
    clock: Arc<TrustedClock>,
    state: Mutex<State>,
    listed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    seen: Option<Duration>,
    current: Option<Duration>,
    /// When a list brought something last, be it one that broke off: the next one begins soon.
    listing: Option<Duration>,
    problem: Option<String>,
}

impl WatchHealth {
    pub(in crate::kubernetes) fn new(clock: Arc<TrustedClock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            listed: watch::Sender::new(false),
        }
    }

    /// Complete, and showed a sign of life within [`SILENCE_LIMIT`].
    pub(in crate::kubernetes) fn is_synced(&self) -> bool {
        self.last_seen().is_some_and(|silence| silence < SILENCE_LIMIT)
    }

    /// Synced, or it was not long ago and the list that replaces what it has shown comes in: a large one takes more than
    /// [`SILENCE_LIMIT`], and that is no reason to ask about every token anew.
    pub(in crate::kubernetes) fn holds(&self) -> bool {
        let state = self.lock();
        let Some(silence) = state.seen.map(|at| self.since(at)) else {
            return false;
        };
        let comes_in = state.listing.is_some_and(|at| self.since(at) < LISTING_SILENCE);
        silence < SILENCE_LIMIT || (comes_in && silence < LISTING_LIMIT)
    }

    /// Time since the last list, event or bookmark.
    pub(in crate::kubernetes) fn last_seen(&self) -> Option<Duration> {
        self.last_seen_at().map(|at| self.since(at))
    }

    /// When it had shown all that there was: with a list, or a bookmark.
    pub(in crate::kubernetes) fn current_at(&self) -> Option<Duration> {
        self.lock().current
    }

    pub(super) fn last_seen_at(&self) -> Option<Duration> {
        self.lock().seen
    }

    /// What stands in the way now.
    pub(in crate::kubernetes) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// Returns once the first list is complete.
    pub(in crate::kubernetes) async fn first_list(&self) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// A list that comes in has brought something. Until it is taken over, and where it breaks off until the next one brings something,
    /// what was shown before holds on.
    pub(super) fn list_goes_on(&self) {
        let now = self.now();
        self.lock().listing = Some(now);
    }

    /// A list was taken over that shows what there was when it began. It counts as coming in for a moment longer, until the watch that goes
    /// on from it has shown something.
    pub(super) fn listed(&self, began: Duration) {
        let now = self.now();
        let mut state = self.lock();
        (state.seen, state.current) = (Some(began), Some(began));
        state.problem = None;
        state.listing = Some(now);
        drop(state);
        self.listed.send_replace(true);
    }

    pub(super) fn alive(&self, is_current: bool) {
        let now = self.now();
        let mut state = self.lock();
        state.seen = Some(now);
        if is_current {
            state.current = state.seen;
        }
        state.problem = None;
    }

    /// True for the first problem since it was well.
    pub(super) fn failed(&self, problem: String) -> bool {
        let mut state = self.lock();
        let is_new = state.problem.is_none();
        state.problem = Some(problem);
        is_new
    }

    /// This moment, as this counts them.
    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn since(&self, moment: Duration) -> Duration {
        self.now().saturating_sub(moment)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use signet_runtime::clock::FakeClock;
    use tokio::time::advance;

    use super::*;

    fn health() -> (WatchHealth, FakeClock) {
        let machine = FakeClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = TrustedClock::agreed(Arc::new(machine.clone()));
        (WatchHealth::new(Arc::new(clock)), machine)
    }

    /// A pod that went just after its page was read is still in it.
    #[tokio::test(start_paused = true)]
    async fn a_list_shows_what_there_was_when_it_began() {
        let (health, _) = health();
        let began = health.now();
        advance(Duration::from_secs(100)).await;
        health.list_goes_on();
        health.listed(began);
        assert!(!health.is_synced(), "it is 100 s old");
        assert_eq!(health.current_at(), Some(began));
        assert!(health.holds(), "until the watch has shown something");
        advance(LISTING_SILENCE).await;
        assert!(!health.holds());
        health.alive(false);
        assert!(health.is_synced());
        for (age, holds) in [(299, true), (300, false)] {
            let began = health.now();
            advance(Duration::from_secs(age)).await;
            health.listed(began);
            assert_eq!(health.holds(), holds, "a list of {age} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_machine_is_suspended_a_watch_shows_nothing() {
        let (health, machine) = health();
        health.listed(health.now());
        assert!(health.is_synced() && health.holds());
        machine.suspend(SILENCE_LIMIT);
        assert!(!health.is_synced() && !health.holds());
        assert_eq!(health.last_seen(), Some(SILENCE_LIMIT));
        health.alive(true);
        assert!(health.is_synced());
    }
}
