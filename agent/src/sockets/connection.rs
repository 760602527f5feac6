//! One accepted connection: who is at its other end, and what it may use.

use std::sync::Arc;

use signet_runtime::quota::Held;
use signet_runtime::spans;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Kept, Room, Sharer};
use super::counts::{Bound, Counts};
use crate::context::Caller;

/// An accepted connection. In the extensions of each request as `Arc<Connection>`.
#[derive(Debug)]
pub(crate) struct Connection {
    caller: Caller,
    budget: Arc<Budget>,
    counts: Counts,
    stop: CancellationToken,
    story: spans::Connection,
}

impl Connection {
    pub(super) fn new(caller: Caller, budget: Arc<Budget>, counts: Counts, stop: CancellationToken) -> Self {
        let story = spans::Connection::new("workload");
        let story = match &caller {
            Caller::Volume { pod_uid, .. } => story.of_pod(pod_uid),
            Caller::Peer(peer) => story.of_user(peer.uid),
        };
        Self {
            story,
            caller,
            budget,
            counts,
            stop,
        }
    }

    /// Its story in the log.
    pub(super) const fn story(&self) -> &spans::Connection {
        &self.story
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

    /// What its caller may use.
    pub(super) const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Where what it is refused is counted.
    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What closes the socket.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether its caller may subscribe once more now.
    pub(crate) fn try_attach(&self) -> bool {
        let may = self.budget.try_attach();
        if !may {
            self.counts.met(Bound::Attaches);
        }
        may
    }

    /// It has not taken what it was sent, and what that was of is gone.
    pub(crate) fn fell_behind(&self) {
        self.counts.met(Bound::Lists);
    }

    /// Room for one more call of this caller.
    pub(crate) fn try_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.budget.try_stream()
    }

    /// So many bytes of this caller for what it has asked for, if there are as many now.
    pub(super) fn try_bytes(&self, bytes: usize) -> Option<Held<Sharer>> {
        self.budget.try_bytes(bytes)
    }

    /// Holds so many bytes of this caller's, more or fewer than before; `false` where there are no more.
    pub(crate) fn keep(&self, kept: &mut Option<Kept>, bytes: usize) -> bool {
        let keeps = self.budget.keep(kept, bytes);
        if !keeps {
            self.counts.met(Bound::Bytes);
        }
        keeps
    }

    /// Spends work of this caller's, once it may do some.
    pub(crate) async fn pay(&self, work: u32) {
        if self.budget.pay(work).await {
            self.counts.met(Bound::Requests);
        }
    }

    /// Room for a message, if there is some now.
    pub(crate) fn try_room(&self, bytes: usize) -> Option<Room> {
        self.budget.try_room(bytes)
    }

    /// Room for a message, once this caller has taken others.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        self.budget.clone().room(bytes).await
    }
}
