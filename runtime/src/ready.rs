//! Readiness as a set of guards: the process is ready when every guard taken so far has been dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// What a process still waits for before it may serve. Clones are the same set.
///
/// Take all guards before the health endpoint starts: an empty set means ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    waiting: Arc<watch::Sender<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    reasons: BTreeMap<u64, String>,
}

impl Readiness {
    /// Nothing to wait for yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: Arc::new(watch::Sender::new(Waiting::default())),
        }
    }

    /// Holds readiness back until the guard is dropped. `reason` is shown to people who ask why (“first sync”).
    #[must_use = "dropping the guard says that the work is done"]
    pub fn guard(&self, reason: impl Into<String>) -> ReadyGuard {
        let mut key = 0;
        self.waiting.send_modify(|waiting| {
            key = waiting.next;
            waiting.next += 1;
            waiting.reasons.insert(key, reason.into());
        });
        ReadyGuard {
            key,
            waiting: self.waiting.clone(),
        }
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.waiting.borrow().reasons.is_empty()
    }

    /// The reasons of the guards still held, oldest first.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        self.waiting.borrow().reasons.values().cloned().collect()
    }

    /// Resolves when nothing is waited for.
    pub async fn ready(&self) {
        let mut changes = self.waiting.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = changes.wait_for(|waiting| waiting.reasons.is_empty()).await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// Holds readiness back while it lives.
#[derive(Debug)]
pub struct ReadyGuard {
    key: u64,
    waiting: Arc<watch::Sender<Waiting>>,
}

impl ReadyGuard {
    /// Says that the work is done; the same as dropping the guard, but it reads as what it means.
    pub fn done(self) {}
}

impl Drop for ReadyGuard {
    fn drop(&mut self) {
        self.waiting.send_modify(|waiting| {
            waiting.reasons.remove(&self.key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_guard_is_dropped() {
        let readiness = Readiness::new();
        let store = readiness.guard("store");
        let sync = readiness.guard("first sync");
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        assert_eq!(readiness.waiting_for(), ["store", "first sync"]);
        store.done();
        assert_eq!(readiness.waiting_for(), ["first sync"]);
        assert!(!readiness.is_ready());
        drop(sync);
        waiter.await.unwrap();
        assert!(readiness.is_ready());
    }

    #[tokio::test]
    async fn equal_reasons_are_counted_apart() {
        let readiness = Readiness::new();
        let first = readiness.guard("sync");
        let second = readiness.guard("sync");
        drop(first);
        assert_eq!(readiness.waiting_for(), ["sync"]);
        drop(second);
        readiness.ready().await;
    }
}
