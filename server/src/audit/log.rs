//! What is audited outside the store's own transactions: sampled, queued, and stored by a task of its own, so that whoever
//! has something to say never waits for the disk.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_runtime::spans;
use signet_runtime::sync::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument as _;

use super::sampler::Sampler;
use super::{AuditAction, AuditEvent};
use crate::store::{AuditOutbox, StoreError};

/// Events that may wait; further ones are lost and counted.
const WAITING: usize = 8192;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Takes events that belong to no transaction of the store. Clones share it; its task ends with the last of them.
#[derive(Clone)]
pub(crate) struct AuditLog {
    queue: Arc<Queue>,
    _task: Arc<DropGuard>,
}

struct Queue {
    outbox: Arc<dyn AuditOutbox>,
    refusals: Sampler,
    waiting: Mutex<Waiting>,
    added: Notify,
    /// Held while events are on their way into the store, so that they arrive in order.
    storing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<AuditEvent>,
    /// Lost since the last event that was stored.
    lost: u64,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}

impl AuditLog {
    /// Starts the task that stores what is recorded. Needs a tokio runtime around it.
    pub(crate) fn start(outbox: Arc<dyn AuditOutbox>) -> Self {
        let queue = Arc::new(Queue {
            outbox,
            refusals: Sampler::default(),
            waiting: Mutex::default(),
            added: Notify::new(),
            storing: tokio::sync::Mutex::default(),
        });
        let ended = CancellationToken::new();
        let storing = queue.clone().run(ended.clone());
        tokio::spawn(storing.instrument(spans::worker("audit log")));
        Self {
            queue,
            _task: Arc::new(ended.drop_guard()),
        }
    }

    /// Has an event stored soon. Never blocks: refusals are sampled per caller, and when too many events wait the loss
    /// is counted and the count audited.
    pub(crate) fn record(&self, event: AuditEvent) {
        self.queue.add(self.queue.refusals.admit(event));
    }

    /// Writes how many refusals were only counted of callers that have been quiet. Call it about once a minute.
    pub(crate) fn tidy(&self, now: SystemTime) {
        self.queue.add(self.queue.refusals.drain_idle(now));
    }

    /// Stores what was recorded until now. What the store does not take keeps waiting.
    pub(crate) async fn flush(&self) {
        if let Err(error) = self.queue.store().await {
            tracing::error!(%error, "audit events could not be stored");
        }
    }
}

impl Queue {
    fn add(&self, events: Vec<AuditEvent>) {
        if events.is_empty() {
            return;
        }
        self.waiting.lock().add(events);
        self.added.notify_one();
    }

    async fn run(self: Arc<Self>, ended: CancellationToken) {
        loop {
            tokio::select! {
                () = self.added.notified() => {}
                () = ended.cancelled() => return,
            }
            while let Err(error) = self.store().await {
                tracing::error!(%error, "audit events wait for the store");
                tokio::select! { () = sleep(RETRY) => {}, () = ended.cancelled() => return }
            }
        }
    }

    async fn store(&self) -> Result<(), StoreError> {
        let _in_order = self.storing.lock().await;
        let taken = std::mem::take(&mut *self.waiting.lock());
        let events = taken.told();
        if events.is_empty() {
            return Ok(());
        }
        let stored = self.outbox.append(events).await;
        if stored.is_err() {
            self.waiting.lock().give_back(taken);
        }
        stored
    }
}

impl Waiting {
    fn add(&mut self, events: Vec<AuditEvent>) {
        for event in events {
            if self.events.len() < WAITING {
                self.events.push_back(event);
            } else {
                self.lost += 1;
            }
        }
    }

    /// The events, and how many are missing after them.
    fn told(&self) -> Vec<AuditEvent> {
        let lost = self.events.back().filter(|_| self.lost > 0).map(|last| {
            let action = AuditAction::EventsLost { count: self.lost };
            AuditEvent::new(last.time(), action)
        });
        self.events.iter().cloned().chain(lost).collect()
    }

    /// Puts events back before those that came since.
    fn give_back(&mut self, mut taken: Self) {
        taken.events.append(&mut self.events);
        taken.lost += self.lost;
        *self = taken;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use signet_testkit::provoked;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::suite::fixture::{at, trust_domain};

    fn stopped(reason: usize) -> AuditEvent {
        let reason = reason.to_string();
        AuditEvent::new(at(0), AuditAction::ServerStopped { reason })
    }

    /// What is stored: the reasons, and how many events are said to be lost.
    fn stored(store: &MemoryStore) -> (Vec<String>, Vec<u64>) {
        let (mut reasons, mut lost) = (Vec::new(), Vec::new());
        for event in store.audit_events() {
            match event.action() {
                AuditAction::ServerStopped { reason } => reasons.push(reason.clone()),
                AuditAction::EventsLost { count } => lost.push(*count),
                other => panic!("{other:?}"),
            }
        }
        (reasons, lost)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_recorded_is_stored_without_being_asked_for() {
        let store = MemoryStore::new(trust_domain());
        let log = AuditLog::start(store.clone());
        log.record(stopped(1));
        log.record(stopped(2));
        sleep(RETRY).await;
        assert_eq!(stored(&store).0, ["1", "2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_gets_the_same_events_later_and_in_order() {
        let store = MemoryStore::new(trust_domain());
        let log = AuditLog::start(store.clone());
        store.audit_failures.store(2, Ordering::SeqCst);
        log.record(stopped(1));
        log.flush().await;
        assert!(stored(&store).0.is_empty());
        log.record(stopped(2));
        sleep(3 * RETRY).await;
        assert_eq!(stored(&store), (vec!["1".to_owned(), "2".to_owned()], vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_is_counted_and_the_count_is_stored() {
        let store = MemoryStore::new(trust_domain());
        let log = AuditLog::start(store.clone());
        store.audit_failures.store(1, Ordering::SeqCst);
        (0..WAITING + 5).for_each(|number| log.record(stopped(number)));
        log.flush().await;
        log.record(stopped(WAITING + 5));
        log.flush().await;
        let (reasons, lost) = stored(&store);
        assert_eq!((reasons.len(), lost), (WAITING, vec![6]));
        let json = |event: &AuditEvent| serde_json::from_str(&event.to_json()).unwrap();
        let lines: Vec<_> = store.audit_events().iter().map(json).collect();
        provoked("events_lost", &lines);
        log.record(stopped(0));
        log.flush().await;
        assert_eq!(stored(&store).0.len(), WAITING + 1, "the count is told once");
        assert_eq!(stored(&store).1, [6]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_last_handle() {
        let store = MemoryStore::new(trust_domain());
        let log = AuditLog::start(store.clone());
        drop(log.clone());
        log.record(stopped(1));
        sleep(RETRY).await;
        assert_eq!(stored(&store).0.len(), 1);
        drop(log);
        sleep(RETRY).await;
        assert_eq!(Arc::strong_count(&store), 1);
    }
}
