//! Room for open connections of agents. Each agent has a few places; where they are taken, a connection by a newer
//! certificate takes the place of one by an older, which counts no more.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;
use tokio::sync::oneshot;

use crate::store::Generation;

/// Open connections of agents, in all and of one agent, which needs one or two: the rest is for those it lost.
pub(super) const AGENTS: usize = 20_000;
pub(super) const CONNECTIONS_PER_AGENT: usize = 8;

/// Who has which place.
#[derive(Debug, Default)]
pub(super) struct AgentPlaces(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: usize,
    last: u64,
    holders: HashMap<SpiffeId, Vec<Holder>>,
}

#[derive(Debug)]
struct Holder {
    place: u64,
    generation: Generation,
    /// Dropping it ends the connection.
    _open: oneshot::Sender<()>,
}

/// The place of one connection, until this is dropped.
#[derive(Debug)]
pub(super) struct AgentPlace {
    places: Arc<AgentPlaces>,
    agent: SpiffeId,
    place: u64,
    lost: oneshot::Receiver<()>,
}

impl AgentPlaces {
    /// A place for a connection by a certificate of this generation; `None` when there is none.
    pub(super) fn take(self: &Arc<Self>, agent: &SpiffeId, generation: Generation) -> Option<AgentPlace> {
        let mut state = self.0.lock();
        let of_agent = state.holders.get(agent).map_or(0, Vec::len);
        if of_agent >= CONNECTIONS_PER_AGENT {
            state.give_up_one_older_than(agent, generation)?;
        }
        if state.taken >= AGENTS {
            return None;
        }
        state.taken += 1;
        state.last += 1;
        let (open, lost) = oneshot::channel();
        let place = state.last;
        state.holders.entry(agent.clone()).or_default().push(Holder {
            place,
            generation,
            _open: open,
        });
        Some(AgentPlace {
            places: self.clone(),
            agent: agent.clone(),
            place,
            lost,
        })
    }
}

impl State {
    fn give_up_one_older_than(&mut self, agent: &SpiffeId, generation: Generation) -> Option<()> {
        let holders = self.holders.get(agent)?;
        let oldest = holders.iter().min_by_key(|holder| holder.generation)?;
        let place = (oldest.generation < generation).then_some(oldest.place)?;
        self.leave(agent, place);
        Some(())
    }

    fn leave(&mut self, agent: &SpiffeId, place: u64) {
        let Some(holders) = self.holders.get_mut(agent) else {
            return;
        };
        let before = holders.len();
        holders.retain(|holder| holder.place != place);
        self.taken -= before - holders.len();
        if holders.is_empty() {
            self.holders.remove(agent);
        }
    }
}

impl AgentPlace {
    /// Ready once the place went to a connection by a newer certificate; wakes the task at that moment.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.lost).poll(cx).map(drop)
    }
}

impl Drop for AgentPlace {
    fn drop(&mut self) {
        self.places.0.lock().leave(&self.agent, self.place);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker;

    use super::*;

    fn agent(n: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
    }

    fn generation(number: u64) -> Generation {
        Generation { epoch: 1, number }
    }

    fn is_lost(place: &mut AgentPlace) -> bool {
        place
            .poll_lost(&mut Context::from_waker(&noop_waker()))
            .is_ready()
    }

    #[test]
    fn an_older_certificate_takes_no_place_from_its_successor() {
        let places = Arc::new(AgentPlaces::default());
        let take = |number| places.take(&agent(0), generation(number));
        let mut old: Vec<AgentPlace> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(old.len(), CONNECTIONS_PER_AGENT);
        let mut new: Vec<AgentPlace> = std::iter::from_fn(|| take(2)).collect();
        assert_eq!(new.len(), CONNECTIONS_PER_AGENT, "every place is the newer one's");
        assert!(old.iter_mut().all(is_lost));
        assert!(!new.iter_mut().any(is_lost));
        assert!(take(1).is_none(), "an older one takes none back");
        old.clear();
        assert!(take(2).is_none(), "what was lost is given back once");
        new.pop();
        assert!(take(2).is_some());
        assert!(places.take(&agent(1), generation(1)).is_some());
        drop(new);
        assert!(places.0.lock().holders.is_empty());
        assert_eq!(places.0.lock().taken, 0);
    }
}
