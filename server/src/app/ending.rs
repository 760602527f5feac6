//! The orderly end.

use std::{sync::Arc, time::Duration};

use signet_runtime::{clock::Clock, drain::Drain, ready::Readiness};

use tokio::sync::watch;

use super::Base;
use crate::{
    audit::{AuditAction, AuditEmitter, AuditEvent, AuditLog, AuditProgress},
    readiness::{REASONS, STOPPING},
};

/// Bound of the graceful end; Kubernetes gives 30 s by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// The last look at `/ready` and `/metrics` may take this long.
const TELEMETRY_LIMIT: Duration = Duration::from_secs(1);

/// What is there from before the start until after the end, in whose order it ends.
pub(super) struct Ending {
    pub(super) drain: Drain,
    pub(super) telemetry_drain: Drain,
    pub(super) readiness: Readiness,
    audit: AuditLog,
    emitter: AuditEmitter,
    clock: Arc<dyn Clock>,
}

impl Ending {
    /// Of a server that has not started yet; `emitter` is writing its audit log already, for what happens during the start
    /// belongs in it.
    pub(super) fn of(base: &Base, emitter: AuditEmitter) -> Self {
        Self {
            drain: base.drain.clone(),
            telemetry_drain: Drain::new(),
            readiness: Readiness::new(REASONS),
            audit: base.audit.clone(),
            emitter,
            clock: base.clock.clone(),
        }
    }

    /// How far the audit log has come.
    pub(super) fn audit_progress(&self) -> watch::Receiver<AuditProgress> {
        self.emitter.progress()
    }

    /// Nothing was served yet: what has been started ends again.
    pub(super) async fn abandon(self) {
        self.drain.finish(DRAIN_LIMIT).await;
        self.audit.flush().await;
        self.emitter.finish().await;
        self.telemetry_drain.start();
    }

    /// Streams end first, requests under way finish, the audit log is written out.
    pub(super) async fn end(self, reason: &str) {
        tracing::info!(reason, "stopping");
        let _stopping = self.readiness.hold(STOPPING);
        let stopped = AuditAction::ServerStopped {
            reason: reason.to_owned(),
        };
        self.audit.record(AuditEvent::new(self.clock.now(), stopped));
        if !self.drain.finish(DRAIN_LIMIT).await {
            tracing::warn!("some requests did not end in time");
        }
        self.telemetry_drain.finish(TELEMETRY_LIMIT).await;
        self.audit.flush().await;
        self.emitter.finish().await;
        tracing::info!("stopped");
    }
}
