//! Small standing tasks of the server.

use std::{sync::Arc, time::Duration};

use signet_runtime::{clock::Clock, drain::Drain};
use tokio::sync::{mpsc, watch};

use crate::{
    agents::Agents,
    attest::{PodEvent, PodEventKind},
    audit::AuditLog,
    metrics::Metrics,
    store::Store,
    trust::TrustSnapshot,
};

/// How often the store is tidied and the agents' registry with it.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) audit: AuditLog,
    pub(super) agents: Arc<Agents>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    pub(super) clock_trusted: watch::Sender<bool>,
    pub(super) pod_events: mpsc::Receiver<PodEvent>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) drain: Drain,
}

pub(super) fn start(parts: Parts) {
    let drain = parts.drain.clone();
    drain.spawn_vital("housekeeping", run(parts));
}

async fn run(mut parts: Parts) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    parts.metrics.set_published(&parts.snapshots.borrow_and_update());
    loop {
        tokio::select! {
            () = parts.drain.signalled() => return,
            _ = tick.tick() => parts.housekeeping().await,
            Ok(()) = parts.snapshots.changed() => {
                let snapshot = parts.snapshots.borrow_and_update().clone();
                parts.metrics.set_published(&snapshot);
            }
            Some(event) = parts.pod_events.recv() => parts.pod(&event),
        }
        parts.metrics.set_agents(parts.agents.connected());
    }
}

impl Parts {
    async fn housekeeping(&self) {
        let now = self.clock.now();
        self.agents.forget_gone(now);
        self.audit.tidy(now);
        match self.store.housekeeping(now).await {
            Ok(done) => {
                let behind = done.clock_behind.unwrap_or_default();
                self.metrics.set_housekeeping(behind, done.audit_backlog);
                self.clock_trusted.send_replace(behind.is_zero());
                if !behind.is_zero() {
                    tracing::error!(
                        behind_seconds = behind.as_secs(),
                        "the clock is behind the latest time this server has seen: nothing is issued until it is right"
                    );
                }
            }
            Err(error) => tracing::error!(%error, "the store could not be tidied"),
        }
    }

    /// A changed pod may get another verdict; a pod that is gone needs none: its volume goes with it.
    fn pod(&self, event: &PodEvent) {
        if event.kind == PodEventKind::Changed {
            self.agents
                .pod_affected(&event.cluster, &event.node_name, &event.pod_uid);
        }
    }
}
