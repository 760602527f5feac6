//! Attestations of nodes: anybody may ask for one, and a signature of the caller's choice is checked for it. So they have a price, by the
//! key of the CSR, and whoever the connection proves pays before anything is checked.
//!
//! Strangers wait instead of being refused. Those of one source wait for each other in the order in which they came, and each
//! connection has a few calls under way: so an agent beside one that asks without end behind the same address has its turn within
//! seconds. What strangers may have of the processor in all is shared out among their sources in turn.

use std::time::Duration;

use signet_certs::{csr::verification_work, id::SpiffeId};
use signet_runtime::{
    bucket::{Bucket, Buckets, Rate},
    keyed::Keyed,
    limits::Limit,
    refusals::Refusals,
    source::Source,
};
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep, timeout},
};
use tonic::Status;

use crate::api::{allowance::Caller, retry::later};

/// Attestations of one agent, whose connection proves it: one each time its pod or its certificate is another, and some for a crash loop.
const AGENTS: Rate = Rate {
    per_second: 1.0,
    burst: 32.0,
};
/// Those from one source without a certificate that counts, in checks of a CSR over P-256. The source may be the address of all nodes
/// of a cluster: a rack of 500 comes through at once when it is started, and 5,000 nodes within a minute. One that asks without end costs about a
/// hundredth of a core.
const STRANGERS: Rate = Rate {
    per_second: 100.0,
    burst: 1000.0,
};
/// Those of all strangers together: a tenth of a core.
const ALL_STRANGERS: Rate = Rate {
    per_second: 1000.0,
    burst: 100.0,
};
/// How long a stranger waits for its turn; agents wait 30 s for an answer. All calls that the connections of one source may have under
/// way take 3 s, or 6 s over RSA.
const LONGEST_TURN: Duration = Duration::from_secs(25);
/// What is told to whoever had no turn.
const COME_BACK: Duration = Duration::from_secs(1);
/// Callers that are told apart at once.
const CALLERS: usize = 32_768;

/// Why they are refused, as the [`Refusals`] of the agents' door count it.
pub(super) const ATTESTATIONS: &str = "attestations";

/// See the [module](self).
pub(crate) struct Attests {
    agents: Buckets<SpiffeId>,
    guests: Buckets<SpiffeId>,
    turns: Turns,
    refusals: Refusals,
}

impl Attests {
    /// Nobody has asked yet; `refusals` are the door's.
    pub(crate) fn new(refusals: Refusals) -> Self {
        Self {
            agents: Buckets::new(AGENTS, CALLERS),
            guests: Buckets::new(AGENTS, CALLERS),
            turns: Turns::new(),
            refusals,
        }
    }

    /// The caller pays for the check of this CSR, and waits for its turn.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with the time to wait.
    pub(super) async fn admit(&self, caller: &Caller, csr: &[u8]) -> Result<(), Status> {
        let work = f64::from(verification_work(csr));
        let paid = match caller {
            Caller::Agent(agent) => pay(&self.agents, agent.clone(), work),
            Caller::Guest(agent) => pay(&self.guests, agent.clone(), work),
            Caller::Stranger(source) => timeout(LONGEST_TURN, self.turns.wait(*source, work))
                .await
                .map_err(|_| COME_BACK),
            // Nobody attests a node at the admin socket.
            Caller::Admin => Ok(()),
        };
        paid.map_err(|wait| {
            self.refusals.count(ATTESTATIONS, caller);
            later("too many attestations are asked for from here", wait)
        })
    }
}

/// The first token is taken where it is there, and the rest may be owed.
fn pay<K: Clone + Eq + std::hash::Hash>(buckets: &Buckets<K>, caller: K, work: f64) -> Result<(), Duration> {
    buckets.take(caller.clone())?;
    buckets.spend(caller, work - 1.0);
    Ok(())
}

/// A queue in which every source has one place: the others of that source wait for it.
struct Turns {
    strangers: Buckets<Source>,
    all: Turn<Bucket>,
    sources: Keyed<Source, Turn<()>>,
}

impl Turns {
    fn new() -> Self {
        Self {
            strangers: Buckets::new(STRANGERS, CALLERS),
            all: Turn::new(Bucket::full(ALL_STRANGERS, Instant::now())),
            sources: Keyed::default(),
        }
    }

    async fn wait(&self, source: Source, work: f64) {
        let own = self.sources.take(source);
        let _own = own.lock().await;
        while let Err(wait) = self.strangers.take(source) {
            sleep(wait).await;
        }
        self.strangers.spend(source, work - 1.0);
        let mut all = self.all.lock().await;
        while let Err(wait) = all.take(Instant::now()) {
            sleep(wait).await;
        }
        all.spend(work - 1.0, Instant::now());
    }
}

/// Rows of the table of limits.
pub(super) fn limits() -> [Limit; 2] {
    let row = |who, what, rate: String, cap: String| Limit {
        who,
        what,
        share: rate,
        cap,
        counted: "server::api::agent::attests",
        metric: "signet_server_refused_total",
    };
    let rate = |rate: Rate| format!("{} at once, then {} each second", rate.burst, rate.per_second);
    let what = "attestations of nodes; one over RSA of 4096 bits counts twice";
    [
        row("an agent", what, rate(AGENTS), rate(AGENTS)),
        row(
            "strangers of one source",
            what,
            format!("an equal part of {} each second", ALL_STRANGERS.per_second),
            format!("{}; beyond that they wait", rate(STRANGERS)),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use super::*;

    fn attests() -> Arc<Attests> {
        Arc::new(Attests::new(Refusals::untold("agents")))
    }

    fn source(n: usize) -> Caller {
        let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
        Caller::Stranger(IpAddr::from([10, 0, a, b]).into())
    }

    /// So many calls at once; how many are admitted.
    async fn admitted(attests: &Attests, caller: &Caller, calls: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..calls {
            admitted += usize::from(attests.admit(caller, b"").await.is_ok());
        }
        admitted
    }

    /// One address asks without end; the nodes behind another start at once.
    #[tokio::test(start_paused = true)]
    async fn a_source_has_its_rate_and_a_rack_behind_one_address_comes_through() {
        let (attests, begun) = (attests(), Instant::now());
        let mut verified = 0;
        while begun.elapsed() < Duration::from_secs(10) {
            verified += admitted(&attests, &source(1), 20).await;
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((1900..2200).contains(&verified), "{verified} in ten seconds");
        let asked = Instant::now();
        assert_eq!(admitted(&attests, &source(2), 500).await, 500);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }

    /// One asks without end, with as many calls as the connections of a source may have under way; an agent without a certificate is
    /// behind the same address.
    #[tokio::test(start_paused = true)]
    async fn whoever_shares_an_address_with_a_flood_has_his_turn_in_seconds() {
        let attests = attests();
        admitted(&attests, &source(1), 1000).await;
        for _ in 0..252 {
            let attests = attests.clone();
            tokio::spawn(async move { while attests.admit(&source(1), b"").await.is_ok() {} });
        }
        for _ in 0..10 {
            sleep(Duration::from_secs(1)).await;
            let asked = Instant::now();
            attests.admit(&source(1), b"").await.unwrap();
            assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        }
    }

    /// Its certificate may be in anybody's hands.
    #[tokio::test(start_paused = true)]
    async fn a_guest_takes_nothing_of_the_agent_that_it_claims_to_be() {
        let (attests, id) = (attests(), "spiffe://example.org/signet/agent/dev/node-1");
        let id = SpiffeId::parse(id).unwrap();
        assert_eq!(admitted(&attests, &Caller::Guest(id.clone()), 1000).await, 32);
        assert_eq!(admitted(&attests, &Caller::Agent(id), 1).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_pays_for_itself_and_neither_its_address_nor_another() {
        let attests = attests();
        let agent = |n: usize| {
            let id = format!("spiffe://example.org/signet/agent/dev/node-{n}");
            Caller::Agent(SpiffeId::parse(&id).unwrap())
        };
        assert_eq!(admitted(&attests, &agent(1), 1000).await, 32);
        assert_eq!(admitted(&attests, &agent(2), 1).await, 1);
        let refused = attests.admit(&agent(1), b"").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.metadata().get("retry-after-ms").is_some());
    }

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length = match content.len() {
            0..128 => vec![length[1]],
            128..256 => vec![0x81, length[1]],
            _ => vec![0x82, length[0], length[1]],
        };
        [&[tag][..], &length, &content].concat()
    }

    /// In the form of a CSR over RSA of 4096 bits.
    fn large() -> Vec<u8> {
        let algorithm = |last| {
            let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, last];
            der(0x30, &[&oid, &[5, 0]])
        };
        let modulus = der(2, &[&[0], &[0xff; 512]]);
        let key = der(0x30, &[&modulus, &[2, 3, 1, 0, 1]]);
        let spki = der(0x30, &[&algorithm(1), &der(3, &[&[0], &key])]);
        let info = der(0x30, &[&[2, 1, 0], &der(0x30, &[]), &spki, &[0xa0, 0]]);
        der(0x30, &[&info, &algorithm(11), &der(3, &[&[0], &[1; 512]])])
    }

    #[tokio::test(start_paused = true)]
    async fn one_over_a_large_key_is_paid_for_twice() {
        let (attests, large) = (attests(), large());
        assert_eq!(verification_work(&large), 2);
        let agent = SpiffeId::parse("spiffe://example.org/signet/agent/dev/node-1").unwrap();
        let mut admitted = 0;
        while attests.admit(&Caller::Agent(agent.clone()), &large).await.is_ok() {
            admitted += 1;
        }
        assert_eq!(admitted, 16);
    }

    /// Two hundred sources with all that each may have at once, and one more that asks once.
    #[tokio::test(start_paused = true)]
    async fn all_strangers_together_have_a_rate_and_nobody_waits_behind_anothers_flood() {
        let (attests, begun) = (attests(), Instant::now());
        let mut floods = tokio::task::JoinSet::new();
        for flooding in 0..200 {
            for _ in 0..100 {
                let attests = attests.clone();
                floods.spawn(async move { attests.admit(&source(flooding), b"").await.is_ok() });
            }
        }
        // Until all of them wait: a few dozen go on for each time that this one yields.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let asked = Instant::now();
        attests.admit(&source(1000), b"").await.unwrap();
        assert!(
            asked.elapsed() < Duration::from_millis(500),
            "{:?}",
            asked.elapsed()
        );
        let mut admitted = 1.0;
        while let Some(one) = floods.join_next().await {
            admitted += f64::from(u8::from(one.unwrap()));
        }
        let rate = (admitted - ALL_STRANGERS.burst) / begun.elapsed().as_secs_f64();
        assert!(
            admitted > 19_000.0 && rate <= 1001.0,
            "{admitted}, {rate} each second"
        );
        assert!(attests.turns.sources.is_empty(), "nobody waits");
    }
}
