//! Handshakes: how many are under way, and how much work they make, by where they come from.
//!
//! A handshake costs a key exchange and a signature before anybody has proved anything. Its price is a fixed one: time on the wall
//! would make a source pay for the load that others bring, and so slow down honest ones first when it is high. Those of one source
//! that come sooner wait for their turn, once they have spoken and before there is any work; whoever proves an agent's certificate
//! pays from that agent's own bucket. Sources at which agents have done so have a reserve, for when a neighbour at the same address
//! (behind a NAT, a load balancer) has used up the work of all.

use std::{collections::HashMap, future::ready, sync::Arc, time::Duration};

use signet_certs::id::SpiffeId;
use signet_runtime::{
    bucket::{Buckets, Rate},
    places::{Bounds, Loses, Place, Places},
    source::Source,
    sync::Mutex,
    turns::{Full, Turns},
};
use tokio::time::Instant;

/// Handshakes of one source that end without an agent's certificate: about a twentieth of a core at most.
pub(in crate::api) const UNPROVEN: Rate = Rate {
    per_second: 100.0,
    burst: 1000.0,
};
/// Those of one source at which agents have proved themselves, beyond what all may have: an eighth of a core at most. Whoever waits
/// there waits a fifth of a second.
pub(super) const RESERVED: Rate = Rate {
    per_second: 300.0,
    burst: 300.0,
};
/// Connections of one agent. It needs one or two, and others when its network comes and goes.
pub(super) const CONNECTS: Rate = Rate {
    per_second: 1.0,
    burst: 64.0,
};
/// How many of one source wait for a token: four seconds, and agents wait ten for a connection.
pub(super) const WAITING: usize = 400;
/// Buckets that are kept at once, of either kind.
const BUCKETS: usize = 32_768;
/// Places of the reserve that one source has.
pub(super) const RESERVE_PER_SOURCE: usize = 64;
/// How long a source is remembered, and how many are.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const SOURCES: usize = 16_384;

/// See the [module](self).
pub(super) struct Handshakes {
    ordinary: Arc<Places<Source>>,
    reserve: Arc<Places<Source>>,
    unproven: Turns<Source>,
    reserved: Turns<Source>,
    connects: Buckets<SpiffeId>,
    proven: Mutex<HashMap<Source, Instant>>,
}

/// By what a handshake goes on once its first message has come.
pub(super) enum Turn {
    /// It has taken a token of its source.
    Paid,
    /// It has a place of the reserve.
    Reserved(Place<Source>),
}

impl Handshakes {
    /// At most so many under way, a quarter of them in the reserve.
    pub(super) fn new(most: usize) -> Self {
        let reserve = most.div_ceil(4);
        let ordinary = most - reserve;
        let places = |total, cap| {
            Places::new(Bounds {
                total,
                cap,
                loses: Loses::Stalest,
            })
        };
        Self {
            ordinary: places(ordinary, ordinary),
            reserve: places(reserve, RESERVE_PER_SOURCE),
            unproven: Turns::new(UNPROVEN, BUCKETS, WAITING.min(ordinary / 2)),
            reserved: Turns::new(RESERVED, BUCKETS, RESERVE_PER_SOURCE),
            connects: Buckets::new(CONNECTS, BUCKETS),
            proven: Mutex::default(),
        }
    }

    /// A place for a connection that has said nothing yet: those go first where there are too many.
    pub(super) fn begin(&self, source: Source) -> Option<Place<Source>> {
        let place = self.ordinary.take(&source).ok()?;
        place.marker().set_idle(true);
        Some(place)
    }

    /// Waits for a token of the source, before there is any work. Where agents have proved themselves there are more of them.
    ///
    /// # Errors
    /// As many of this source wait as may.
    pub(super) async fn turn(&self, source: Source) -> Result<Turn, Full> {
        if self.unproven.at_once(&source) {
            return Ok(Turn::Paid);
        }
        if self.is_proven(source)
            && let Ok(place) = self.reserve.take(&source)
        {
            return self.reserved.wait(source, ready(Turn::Reserved(place))).await;
        }
        self.unproven.wait(source, ready(Turn::Paid)).await
    }

    /// The certificate of this agent was presented, and counts: it pays instead of its source, if that has, and the source is
    /// remembered for it.
    ///
    /// # Errors
    /// How long until the agent may connect again.
    pub(super) fn proved(&self, agent: &SpiffeId, source: Source, has_paid: bool) -> Result<(), Duration> {
        if has_paid {
            self.unproven.give_back(source);
        }
        self.remember(source);
        self.connects.take(agent.clone())
    }

    fn is_proven(&self, source: Source) -> bool {
        let now = Instant::now();
        self.proven.lock().get(&source).is_some_and(|until| now < *until)
    }

    fn remember(&self, source: Source) {
        let (mut proven, now) = (self.proven.lock(), Instant::now());
        if proven.len() >= SOURCES && !proven.contains_key(&source) {
            proven.retain(|_, until| now < *until);
        }
        if proven.len() < SOURCES || proven.contains_key(&source) {
            proven.insert(source, now + REMEMBERED);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn agent(n: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
    }

    /// Strangers who have their turn at once.
    fn strangers(handshakes: &Handshakes, source: Source) -> usize {
        let turns = std::iter::from_fn(|| handshakes.unproven.at_once(&source).then_some(()));
        turns.take(5000).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_pays_for_its_handshakes_and_no_other_does() {
        let handshakes = Handshakes::new(256);
        assert_eq!(strangers(&handshakes, source(1)), 1000);
        let asked = Instant::now();
        for _ in 0..100 {
            assert!(matches!(handshakes.turn(source(1)).await, Ok(Turn::Paid)));
        }
        let waited = asked.elapsed();
        assert!((1000..1200).contains(&waited.as_millis()), "{waited:?}");
        let asked = Instant::now();
        assert!(matches!(handshakes.turn(source(2)).await, Ok(Turn::Paid)));
        assert_eq!(asked.elapsed(), Duration::ZERO);
    }

    /// As many strangers as may be there come again without end.
    #[tokio::test(start_paused = true)]
    async fn at_a_source_that_has_proved_itself_an_agent_hardly_waits_for_strangers() {
        let handshakes = Arc::new(Handshakes::new(1024));
        assert_eq!(handshakes.proved(&agent(1), source(1), true), Ok(()));
        strangers(&handshakes, source(1));
        let mut floods = tokio::task::JoinSet::new();
        for _ in 1..RESERVE_PER_SOURCE {
            let handshakes = handshakes.clone();
            floods.spawn(async move { while handshakes.turn(source(1)).await.is_ok() {} });
        }
        for _ in 0..100 {
            let asked = Instant::now();
            let turn = handshakes.turn(source(1)).await;
            assert!(turn.is_ok());
            assert!(
                asked.elapsed() < Duration::from_millis(300),
                "{:?}",
                asked.elapsed()
            );
        }
        floods.shutdown().await;
        tokio::time::advance(REMEMBERED).await;
        strangers(&handshakes, source(1));
        let turn = handshakes.turn(source(1)).await;
        assert!(matches!(turn, Ok(Turn::Paid)), "it is forgotten after a day");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_connects_without_end_waits_and_its_neighbour_does_not() {
        let handshakes = Handshakes::new(256);
        let connect = |n| {
            assert!(handshakes.unproven.at_once(&source(1)), "the source owes nothing");
            handshakes.proved(&agent(n), source(1), true)
        };
        assert_eq!((0..2000).filter(|_| connect(1).is_ok()).count(), 64);
        assert_eq!(connect(1), Err(Duration::from_secs(1)));
        assert_eq!(connect(2), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let handshakes = Handshakes::new(256);
        for n in 0..=SOURCES {
            let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
            handshakes.remember(IpAddr::from([10, 1, a, b]).into());
        }
        assert_eq!(handshakes.proven.lock().len(), SOURCES);
        assert!(handshakes.is_proven(IpAddr::from([10, 1, 0, 0]).into()));
    }
}
