//! One accepted connection: who is at its other end, and what it may use.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use crate::context::Caller;

/// An accepted connection. In the extensions of each request as `Arc<Connection>`.
#[derive(Debug)]
pub(crate) struct Connection {
    caller: Caller,
    budget: Arc<Budget>,
    stop: CancellationToken,
}

impl Connection {
    pub(super) fn new(caller: Caller, budget: Arc<Budget>, stop: CancellationToken) -> Self {
        Self { caller, budget, stop }
    }

    /// Who connected.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the other end still is what connected; asked before each answer. A pod's socket is the pod's whoever connects.
    ///
    /// # Errors
    /// Why not, in one line for the workload's owner.
    pub(crate) fn unchanged(&self) -> Result<(), String> {
        match &self.caller {
            Caller::Volume { .. } => Ok(()),
            Caller::Peer(peer) => peer.unchanged().map_err(|changed| changed.to_string()),
        }
    }

    /// Resolves when the socket is being closed: watch streams then end with Unavailable.
    pub(crate) async fn ending(&self) {
        self.stop.cancelled().await;
    }

    /// What closes the socket.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Room for one more call of this caller.
    pub(crate) fn try_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.budget.try_stream()
    }

    /// Room for a message, if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.budget.try_untaken(bytes)
    }

    /// Room for a message, once this caller has taken others.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.budget.untaken(bytes).await
    }
}
