use std::{
    net::IpAddr,
    task::{Context, Poll, Waker},
};

use super::{places::CONNECTIONS_PER_AGENT, *};

const ROOMS: Rooms = Rooms {
    handshakes: 64,
    agents: 256,
    guests: 64,
    strangers: 1024,
};

fn agent(n: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
}

fn source(n: usize) -> Source {
    IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8]).into()
}

#[test]
fn strangers_take_no_agents_place_and_one_address_or_agent_not_everyones() {
    let places = Connections::new(ROOMS);
    let stranger = |n| {
        places
            .take(Claim::Stranger, &Caller::Stranger(source(n)))
            .unwrap()
    };
    let is_lost = |place: &mut Place| match place {
        Place::Stranger(place) => place.poll_lost(&mut Context::from_waker(Waker::noop())) == Poll::Ready(()),
        _ => panic!("a stranger's"),
    };
    // Of one address, those that came last are open, and as many as one may have.
    let mut of_one: Vec<Place> = (0..2 * STRANGERS_PER_SOURCE).map(|_| stranger(0)).collect();
    let lost: Vec<bool> = of_one.iter_mut().map(is_lost).collect();
    let (older, newer) = lost.split_at(STRANGERS_PER_SOURCE);
    assert!(older.iter().all(|lost| *lost) && !newer.iter().any(|lost| *lost));
    let mut open: Vec<Place> = (1..ROOMS.strangers).map(stranger).collect();
    assert_eq!(places.strangers.taken(), ROOMS.strangers);
    assert!(!open.iter_mut().any(is_lost), "they take from whom has more");
    let by = |claim, caller: Caller| places.take(claim, &caller);
    let guests: Vec<Place> = std::iter::from_fn(|| by(Claim::Guest, Caller::Guest(agent(0)))).collect();
    assert_eq!(guests.len(), CONNECTIONS_PER_GUEST);
    let first = Claim::Agent(Generation { epoch: 1, number: 1 });
    let of_one: Vec<Place> = std::iter::from_fn(|| by(first, Caller::Agent(agent(0)))).collect();
    assert_eq!(of_one.len(), CONNECTIONS_PER_AGENT, "guests take none of them");
    assert!(by(first, Caller::Agent(agent(1))).is_some());
}
