//! What ends the connections of an agent at once.

use std::collections::HashMap;

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;
use tokio::sync::oneshot;

/// The open connections of agents, by whose certificate each of them is.
#[derive(Debug, Default)]
pub(super) struct Leashes(Mutex<HashMap<SpiffeId, Vec<oneshot::Sender<()>>>>);

impl Leashes {
    /// See [`Agents::leash`](super::Agents::leash).
    pub(super) fn add(&self, agent: &SpiffeId) -> oneshot::Receiver<()> {
        let (open, cut) = oneshot::channel();
        let mut held = self.0.lock();
        let of_agent = held.entry(agent.clone()).or_default();
        of_agent.retain(|open| !open.is_closed());
        of_agent.push(open);
        cut
    }

    /// The agents with an open connection of which this is so.
    pub(super) fn agents(&self, wanted: impl Fn(&SpiffeId) -> bool) -> Vec<SpiffeId> {
        let held = self.0.lock();
        held.keys().filter(|agent| wanted(agent)).cloned().collect()
    }

    /// Ends those of an agent.
    pub(super) fn cut(&self, agent: &SpiffeId) {
        self.0.lock().remove(agent);
    }

    /// Forgets those that have ended by themselves.
    pub(super) fn forget_ended(&self) {
        self.0.lock().retain(|_, of_agent| {
            of_agent.retain(|open| !open.is_closed());
            !of_agent.is_empty()
        });
    }
}
