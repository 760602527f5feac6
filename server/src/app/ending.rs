//! The orderly end.

use std::{sync::Arc, time::Duration};

use signet_runtime::{clock::Clock, drain::Drain, ready::Readiness};
use tokio::time::{Instant, timeout_at};

use super::Base;
use crate::{
    audit::{AuditAction, AuditEmitter, AuditEvent, AuditLog},
    readiness::{REASONS, STOPPING},
};

/// Bound of the graceful end, all of it; Kubernetes gives 30 s by default.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// What of it is left to the audit log, and to nothing else.
const LAST_LINES: Duration = Duration::from_secs(4);
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

    /// Nothing was served yet: what has been started ends again.
    pub(super) async fn abandon(self) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        self.drain.finish(DRAIN_LIMIT - LAST_LINES).await;
        self.telemetry_drain.start();
        write_out(&self.audit, self.emitter, deadline).await;
    }

    /// Streams end first, requests under way finish, the audit log is written out.
    pub(super) async fn end(self, reason: &str) {
        tracing::info!(reason, "stopping");
        let _stopping = self.readiness.hold(STOPPING);
        let stopped = AuditAction::ServerStopped {
            reason: reason.to_owned(),
        };
        self.audit.record(AuditEvent::new(self.clock.now(), stopped));
        let deadline = Instant::now() + DRAIN_LIMIT;
        if !self
            .drain
            .finish(DRAIN_LIMIT - LAST_LINES - TELEMETRY_LIMIT)
            .await
        {
            tracing::warn!("some requests did not end in time");
        }
        self.telemetry_drain.finish(TELEMETRY_LIMIT).await;
        write_out(&self.audit, self.emitter, deadline).await;
        tracing::info!("stopped");
    }
}

/// What was recorded goes into the store, and from there out. What does not go by the deadline goes out after the next
/// start. A store that hangs leaves half of [`LAST_LINES`] for what it has taken already.
async fn write_out(audit: &AuditLog, emitter: AuditEmitter, deadline: Instant) {
    if timeout_at(deadline - LAST_LINES / 2, audit.flush())
        .await
        .is_err()
    {
        tracing::error!("the store does not take the last audit events: they are lost");
    }
    emitter.finish(deadline).await;
}

#[cfg(test)]
mod tests;
