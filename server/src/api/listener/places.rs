//! Room for open connections: agents, guests and strangers are counted apart, and of each the one that has the most gives way.

use std::sync::Arc;

use signet_certs::id::SpiffeId;
use signet_runtime::{
    places::{Bounds, Loses, Places},
    source::Source,
};

use super::{Claim, Rooms, connection::Place};
use crate::{
    api::allowance::{Caller, STRANGERS_PER_SOURCE},
    store::Generation,
};

/// Open connections of one agent, which needs one or two: the rest is for those it lost.
pub(super) const CONNECTIONS_PER_AGENT: usize = 8;
/// Open connections of one agent whose certificate is worth a trust stream and no more: the stream, and one to attest by.
pub(super) const CONNECTIONS_PER_GUEST: usize = 2;

/// Room for open connections.
pub(super) struct Connections {
    /// Of one agent, those by older certificates go first, and take none from those by newer ones.
    agents: Arc<Places<SpiffeId, Generation>>,
    guests: Arc<Places<SpiffeId>>,
    pub(super) strangers: Arc<Places<Source>>,
}

impl Connections {
    /// All of them free.
    pub(super) fn new(rooms: Rooms) -> Self {
        Self {
            agents: agents(rooms.agents),
            guests: Places::new(Bounds {
                total: rooms.guests,
                cap: CONNECTIONS_PER_GUEST,
                loses: Loses::Newest,
            }),
            strangers: Places::new(Bounds {
                total: rooms.strangers,
                cap: STRANGERS_PER_SOURCE,
                loses: Loses::Stalest,
            }),
        }
    }

    /// A place for a connection that may claim this; `None` when there is none.
    pub(super) fn take(&self, claim: Claim, caller: &Caller) -> Option<Place> {
        Some(match (claim, caller) {
            (Claim::Agent(generation), Caller::Agent(agent)) => {
                Place::Agent(self.agents.take_worth(agent, generation).ok()?)
            }
            (_, Caller::Guest(agent)) => Place::Guest(self.guests.take(agent).ok()?),
            (_, Caller::Stranger(source)) => Place::Stranger(self.strangers.take(source).ok()?),
            (_, Caller::Agent(_) | Caller::Admin) => return None,
        })
    }
}

fn agents(total: usize) -> Arc<Places<SpiffeId, Generation>> {
    Places::new(Bounds {
        total,
        cap: CONNECTIONS_PER_AGENT,
        loses: Loses::Newest,
    })
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::task::noop_waker;

    use super::*;

    type AgentPlace = signet_runtime::places::Place<SpiffeId, Generation>;

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
        let places = agents(100);
        let take = |number| places.take_worth(&agent(0), generation(number)).ok();
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
        assert!(places.take_worth(&agent(1), generation(1)).is_ok());
        drop(new);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn where_all_places_are_taken_an_agent_with_fewer_takes_one() {
        let places = agents(2 * CONNECTIONS_PER_AGENT);
        let take = |n| places.take_worth(&agent(n), generation(1)).ok();
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
        assert_eq!(places.taken(), 2 * CONNECTIONS_PER_AGENT);
        assert!(
            !is_lost(&mut of_two[0]),
            "what an agent has had for longest stays"
        );
        assert!(take(0).is_none(), "it has the most");
    }
}
