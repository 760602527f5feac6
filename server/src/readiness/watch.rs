//! The tasks that own the server's conditions.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::drain::Drain;
use signet_runtime::ready::{Condition, Readiness};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};

use super::judge;
use super::{
    AUDIT_STUCK, CLOCK_UNTRUSTED, CLUSTERS_AWAY, LISTS_FAILING, LISTS_OLD, NO_AUTHORITY, OWN_CERTIFICATE,
    STORE_FAILING, STORE_PUT_BACK,
};
use crate::attest::Attestor;
use crate::audit::AuditBacklog;
use crate::authority::AuthorityView;
use crate::clock::TrustedClock;
use crate::store::Store;
use crate::trust::TrustSnapshot;

/// How often what has no word of its own is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often the store is tried while all is well.
const PROBE: Duration = Duration::from_secs(30);
/// How often it is tried after a failure.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
/// Longest a write may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// What is looked at.
pub(crate) struct Watched {
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Its store.
    pub store: Arc<dyn Store>,
    /// The authorities.
    pub view: watch::Receiver<Arc<AuthorityView>>,
    /// What is published of them.
    pub snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    /// Why the publisher's last round failed.
    pub publishing: watch::Receiver<Option<String>>,
    /// What proves that an older store was put in place of the present one.
    pub put_back: watch::Receiver<Option<String>>,
    /// Until when the server's own certificates are valid.
    pub own_valid_until: watch::Receiver<Option<std::time::SystemTime>>,
    /// The clusters.
    pub attestor: Arc<dyn Attestor>,
    /// The lines of the audit log that wait.
    pub audit: AuditBacklog,
}

/// Keeps the server's conditions as what is watched is, until the drain starts. What stands now stands when this returns.
pub(crate) fn start(watched: Watched, readiness: &Readiness, drain: &Drain) {
    let store = StoreWatch {
        condition: readiness.condition(STORE_FAILING),
        failed: watched.store.failed_writes(),
        store: watched.store.clone(),
    };
    drain.spawn_vital("readiness of the store", store.run(drain.clone()));
    let mut look = Look::new(watched, readiness);
    look.all();
    drain.spawn_vital("readiness", look.run(drain.clone()));
}

struct Look {
    watched: Watched,
    /// When the audit log has taken a line, or had none to take.
    audit_moved: (u64, Instant),
    lists_old: Condition,
    lists_failing: Condition,
    put_back: Condition,
    clock: Condition,
    authority: Condition,
    own: Condition,
    clusters: Condition,
    audit: Condition,
}

impl Look {
    fn new(watched: Watched, readiness: &Readiness) -> Self {
        Self {
            watched,
            audit_moved: (0, Instant::now()),
            lists_old: readiness.condition(LISTS_OLD),
            lists_failing: readiness.condition(LISTS_FAILING),
            put_back: readiness.condition(STORE_PUT_BACK),
            clock: readiness.condition(CLOCK_UNTRUSTED),
            authority: readiness.condition(NO_AUTHORITY),
            own: readiness.condition(OWN_CERTIFICATE),
            clusters: readiness.condition(CLUSTERS_AWAY),
            audit: readiness.condition(AUDIT_STUCK),
        }
    }

    async fn run(mut self, drain: Drain) {
        let (mut tick, mut clock) = (interval(LOOK), self.watched.clock.state());
        loop {
            tokio::select! {
                () = drain.signalled() => return,
                _ = tick.tick() => {}
                Ok(()) = clock.changed() => {}
                Ok(()) = self.watched.view.changed() => {}
                Ok(()) = self.watched.snapshots.changed() => {}
                Ok(()) = self.watched.publishing.changed() => {}
                Ok(()) = self.watched.put_back.changed() => {}
                Ok(()) = self.watched.own_valid_until.changed() => {}
                Ok(()) = self.watched.audit.changed() => {}
            }
            self.all();
        }
    }

    fn all(&mut self) {
        let time = self.watched.clock.time();
        let untrusted = || self.watched.clock.show().reason;
        self.clock.set((!time.state.is_trusted()).then(untrusted));
        let view = self.watched.view.borrow().clone();
        let snapshot = self.watched.snapshots.borrow().clone();
        self.lists_old.set(judge::lists_old(&view, &snapshot, &time));
        self.authority.set(judge::no_authority(&view, &time));
        self.lists_failing.set(self.watched.publishing.borrow().clone());
        self.put_back.set(self.watched.put_back.borrow().clone());
        let valid_until = *self.watched.own_valid_until.borrow();
        self.own.set(judge::own_certificate(valid_until, &time));
        self.clusters
            .set(judge::clusters_away(&self.watched.attestor.clusters()));
        self.audit();
    }

    fn audit(&mut self) {
        let backlog = &self.watched.audit;
        let (progress, waiting) = (backlog.progress(), backlog.waiting());
        if progress.emitted != self.audit_moved.0 || waiting == 0 {
            self.audit_moved = (progress.emitted, Instant::now());
        }
        let waited = self.audit_moved.1.elapsed();
        let (stops, failing) = (backlog.stops_issuing(), progress.failing.as_deref());
        self.audit
            .set(judge::audit_stuck(stops, failing, waiting, waited));
    }
}

/// Tries the store, soon after a failure and now and then.
struct StoreWatch {
    condition: Condition,
    failed: watch::Receiver<u64>,
    store: Arc<dyn Store>,
}

impl StoreWatch {
    async fn run(mut self, drain: Drain) {
        let mut failed = false;
        loop {
            let tried = tokio::select! {
                () = drain.signalled() => return,
                tried = timeout(PROBE_LIMIT, self.store.probe()) => tried,
            };
            failed |= self.failed.has_changed().unwrap_or(false);
            self.failed.mark_unchanged();
            let trouble = match tried {
                Err(_) => Some(format!("a write takes longer than {} s", PROBE_LIMIT.as_secs())),
                Ok(Err(error)) => Some(error.to_string()),
                // A small write may go well where a large one has just failed, so that one counts until the next try.
                Ok(Ok(())) => failed.then(|| "a write has failed, see the log".to_owned()),
            };
            failed = false;
            let calm = trouble.is_none();
            self.condition.set(trouble);
            tokio::select! {
                () = drain.signalled() => return,
                () = sleep(if calm { PROBE } else { PROBE_AGAIN }) => {}
                Ok(()) = self.failed.changed(), if calm => failed = true,
            }
        }
    }
}
