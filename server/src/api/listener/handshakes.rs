//! Handshakes: how many are under way, and how much work they make, by where they come from.
//!
//! A handshake costs a key exchange and a signature before anybody has proved anything. Its price is a fixed one: time on the wall
//! would make a source pay for the load that others bring, and so slow down honest ones first when it is high. Whoever proves an agent's
//! certificate pays from that agent's own bucket. Sources at which agents have done so keep a reserve, for when a neighbour at the
//! same address (behind a NAT, a load balancer) has used up the work of all: strangers take no tokens of it, and its places go to whoever
//! comes last and speaks first.

use std::{collections::HashMap, sync::Arc, time::Duration};

use signet_certs::id::SpiffeId;
use signet_runtime::{
    bucket::{Buckets, Rate},
    places::{Bounds, Loses, Place, Places},
    source::Source,
    sync::Mutex,
};
use tokio::time::Instant;

/// Handshakes of one source that end without an agent's certificate: about a twentieth of a core at most.
pub(in crate::api) const UNPROVEN: Rate = Rate {
    per_second: 100.0,
    burst: 1000.0,
};
/// Connections of one agent. It needs one or two, and others when its network comes and goes.
pub(super) const CONNECTS: Rate = Rate {
    per_second: 1.0,
    burst: 64.0,
};
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
    unproven: Buckets<Source>,
    connects: Buckets<SpiffeId>,
    proven: Mutex<HashMap<Source, Instant>>,
}

impl Handshakes {
    /// At most so many under way, a quarter of them in the reserve.
    pub(super) fn new(most: usize) -> Self {
        let reserve = most.div_ceil(4);
        let places = |total, cap| {
            Places::new(Bounds {
                total,
                cap,
                loses: Loses::Stalest,
            })
        };
        Self {
            ordinary: places(most - reserve, most - reserve),
            reserve: places(reserve, RESERVE_PER_SOURCE),
            unproven: Buckets::new(UNPROVEN, BUCKETS),
            connects: Buckets::new(CONNECTS, BUCKETS),
            proven: Mutex::default(),
        }
    }

    /// A place for a handshake that begins, idle until something has arrived; none where the source has used up its work and no agent
    /// has proved itself there.
    pub(super) fn begin(&self, source: Source) -> Option<Place<Source>> {
        let places = if self.unproven.check(source).is_ok() {
            &self.ordinary
        } else if self.is_proven(source) {
            &self.reserve
        } else {
            return None;
        };
        let place = places.take(&source).ok()?;
        place.marker().set_idle(true);
        Some(place)
    }

    /// What is paid for a handshake whose first message has come, from now on.
    pub(super) fn price(self: &Arc<Self>, source: Source) -> Price {
        Price {
            handshakes: self.clone(),
            source,
            is_due: true,
        }
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

/// Owed by the source, however the handshake ends, unless an agent pays.
pub(super) struct Price {
    handshakes: Arc<Handshakes>,
    source: Source,
    is_due: bool,
}

impl Price {
    /// The certificate of this agent was presented, and counts: the source is remembered for that.
    ///
    /// # Errors
    /// How long until the agent may connect again.
    pub(super) fn paid_by(mut self, agent: &SpiffeId) -> Result<(), Duration> {
        self.is_due = false;
        self.handshakes.remember(self.source);
        self.handshakes.connects.take(agent.clone())
    }
}

impl Drop for Price {
    fn drop(&mut self) {
        if self.is_due {
            self.handshakes.unproven.spend(self.source, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::IpAddr, task::Poll};

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn agent(n: usize) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/node-{n}")).unwrap()
    }

    fn strangers(handshakes: &Arc<Handshakes>, source: Source, count: usize) {
        for _ in 0..count {
            let _place = handshakes.begin(source);
            drop(handshakes.price(source));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_pays_for_its_handshakes_and_no_other_does() {
        let handshakes = Arc::new(Handshakes::new(256));
        strangers(&handshakes, source(1), 1000);
        assert!(handshakes.begin(source(1)).is_none());
        assert!(handshakes.begin(source(2)).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(handshakes.begin(source(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_beside_an_agent_takes_nothing_of_the_reserve() {
        let handshakes = Arc::new(Handshakes::new(256));
        assert_eq!(handshakes.price(source(1)).paid_by(&agent(1)), Ok(()));
        strangers(&handshakes, source(1), 5000);
        let mut kept: Vec<_> = (0..100).filter_map(|_| handshakes.begin(source(1))).collect();
        assert_eq!(kept.len(), 100, "whoever comes last is let in");
        assert!(handshakes.begin(source(2)).is_some(), "by the ordinary places");
        // What has spoken stays, however many come after it and say nothing.
        let mut speaking = handshakes.begin(source(1)).unwrap();
        speaking.marker().set_idle(false);
        kept.extend((0..100).filter_map(|_| handshakes.begin(source(1))));
        assert!(poll_fn(|cx| Poll::Ready(speaking.poll_lost(cx).is_pending())).await);
        tokio::time::advance(REMEMBERED).await;
        strangers(&handshakes, source(1), 1001);
        assert!(
            handshakes.begin(source(1)).is_none(),
            "it is forgotten after a day"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_connects_without_end_waits_and_its_neighbour_does_not() {
        let handshakes = Arc::new(Handshakes::new(256));
        let connect = |n| handshakes.price(source(1)).paid_by(&agent(n));
        assert_eq!((0..100).filter(|_| connect(1).is_ok()).count(), 64);
        assert_eq!(connect(1), Err(Duration::from_secs(1)));
        assert_eq!(connect(2), Ok(()));
        assert!(
            handshakes.unproven.check(source(1)).is_ok(),
            "the source owes nothing"
        );
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
