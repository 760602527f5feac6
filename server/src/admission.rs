//! Bounded work, shared fairly: a flood of one agent is answered with a retry hint and leaves room for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use signet_certs::id::SpiffeId;

/// When a refused caller should come back.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Counts items under way, in all and per agent.
#[derive(Debug)]
pub struct Admission {
    total: usize,
    per_agent: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    by_agent: HashMap<SpiffeId, usize>,
}

/// Items that may be worked on until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    agent: SpiffeId,
    items: usize,
}

impl Admission {
    /// At most `total` items under way, `per_agent` of them for one agent.
    #[must_use]
    pub fn new(total: usize, per_agent: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_agent,
            state: Mutex::default(),
        })
    }

    /// Takes `items` places, or none: the caller then answers `RESOURCE_EXHAUSTED` with [`RETRY_AFTER`].
    #[must_use]
    pub fn admit(self: &Arc<Self>, agent: &SpiffeId, items: usize) -> Option<Admitted> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.by_agent.get(agent).copied().unwrap_or(0);
        if state.total + items > self.total || mine + items > self.per_agent {
            return None;
        }
        state.total += items;
        state.by_agent.insert(agent.clone(), mine + items);
        Some(Admitted {
            admission: self.clone(),
            agent: agent.clone(),
            items,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self
            .admission
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.total -= self.items;
        if let Some(mine) = state.by_agent.get_mut(&self.agent) {
            *mine -= self.items;
            if *mine == 0 {
                state.by_agent.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/{name}")).unwrap()
    }

    #[test]
    fn one_agent_cannot_take_every_place() {
        let admission = Admission::new(10, 6);
        let greedy = admission.admit(&agent("a"), 6).unwrap();
        assert!(admission.admit(&agent("a"), 1).is_none());
        let other = admission.admit(&agent("b"), 4).unwrap();
        assert!(admission.admit(&agent("c"), 1).is_none(), "the total is bounded");
        drop(greedy);
        assert!(admission.admit(&agent("c"), 6).is_some());
        drop(other);
        assert!(
            admission.state.lock().unwrap().by_agent.is_empty(),
            "nothing is remembered of idle agents"
        );
    }
}
