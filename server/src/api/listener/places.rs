//! Room for open connections of agents. Each agent has a few places; where they are taken, a connection by a newer
//! certificate takes the place of one by an older, which counts no more. Where all places of all agents are taken, an agent that has
//! fewer takes one from the agent that has the most.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use signet_certs::id::SpiffeId;
use signet_runtime::sync::Mutex;
use tokio::sync::oneshot;

use crate::store::Generation;

/// Open connections of one agent, which needs one or two: the rest is for those it lost.
pub(super) const CONNECTIONS_PER_AGENT: usize = 8;

/// Who has which place.
#[derive(Debug)]
pub(super) struct AgentPlaces {
    total: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    last: u64,
    holders: HashMap<SpiffeId, Vec<Holder>>,
    /// For whoever has the most.
    by_number: BTreeSet<(usize, SpiffeId)>,
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
    /// So many in all, each free.
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            state: Mutex::default(),
        }
    }

    /// A place for a connection by a certificate of this generation; `None` when there is none.
    pub(super) fn take(self: &Arc<Self>, agent: &SpiffeId, generation: Generation) -> Option<AgentPlace> {
        let mut state = self.state.lock();
        if state.number_of(agent) >= CONNECTIONS_PER_AGENT {
            state.give_up_one_older_than(agent, generation)?;
        }
        if state.taken >= self.total {
            state.give_up_one_for(agent)?;
        }
        state.taken += 1;
        state.last += 1;
        let (open, lost) = oneshot::channel();
        let place = state.last;
        state.change(agent, |holders| {
            holders.push(Holder {
                place,
                generation,
                _open: open,
            });
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

    /// Takes a place from the agent that has the most, if that keeps at least as many as this one then has.
    fn give_up_one_for(&mut self, agent: &SpiffeId) -> Option<()> {
        let (most, largest) = self.by_number.last().cloned()?;
        if most <= self.number_of(agent) + 1 {
            return None;
        }
        let holders = self.holders.get(&largest)?;
        // The oldest certificate's, and of these the newest: long use is a sign of honest use.
        let least = holders.iter().rev().min_by_key(|holder| holder.generation)?;
        let place = least.place;
        self.leave(&largest, place);
        Some(())
    }

    fn number_of(&self, agent: &SpiffeId) -> usize {
        self.holders.get(agent).map_or(0, Vec::len)
    }

    fn leave(&mut self, agent: &SpiffeId, place: u64) {
        let before = self.number_of(agent);
        self.change(agent, |holders| holders.retain(|holder| holder.place != place));
        self.taken -= before - self.number_of(agent);
    }

    fn change(&mut self, agent: &SpiffeId, change: impl FnOnce(&mut Vec<Holder>)) {
        let holders = self.holders.entry(agent.clone()).or_default();
        let before = holders.len();
        change(holders);
        let after = holders.len();
        self.by_number.remove(&(before, agent.clone()));
        if after == 0 {
            self.holders.remove(agent);
        } else {
            self.by_number.insert((after, agent.clone()));
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
        self.places.state.lock().leave(&self.agent, self.place);
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
        let places = Arc::new(AgentPlaces::new(100));
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
        let state = places.state.lock();
        assert!(state.holders.is_empty() && state.by_number.is_empty());
        assert_eq!(state.taken, 0);
    }

    #[test]
    fn where_all_places_are_taken_an_agent_with_fewer_takes_one() {
        let places = Arc::new(AgentPlaces::new(2 * CONNECTIONS_PER_AGENT));
        let take = |n| places.take(&agent(n), generation(1));
        let mut of_two: Vec<AgentPlace> = (0..2).flat_map(|n| std::iter::from_fn(move || take(n))).collect();
        assert_eq!(of_two.len(), 2 * CONNECTIONS_PER_AGENT, "all are taken");
        let others: Vec<AgentPlace> = (2..10).filter_map(take).collect();
        assert_eq!(others.len(), 8);
        assert_eq!(
            of_two
                .iter_mut()
                .filter_map(|place| is_lost(place).then_some(()))
                .count(),
            8
        );
        assert_eq!(places.state.lock().taken, 2 * CONNECTIONS_PER_AGENT);
        assert!(
            !is_lost(&mut of_two[0]),
            "what an agent has had for longest stays"
        );
        assert!(take(0).is_none(), "it has the most");
    }
}
