//! Attestations of nodes: anybody may ask for one, and a signature of the caller's choice is checked for it. So they have a price, by the
//! key of the CSR, and whoever the connection proves pays before anything is checked.
//!
//! Strangers wait instead of being refused. Those of one source wait for each other in the order in which they came, and each
//! connection has one that waits: so an agent beside one that asks without end behind the same address has its turn within
//! seconds. What strangers may have of the processor in all is shared out among their sources in turn.

use std::time::Duration;

use signet_certs::{csr::verification_work, id::SpiffeId};
use signet_runtime::{
    bucket::{Bucket, Buckets, Rate},
    limits::Limit,
    refusals::Refusals,
    source::Source,
    turns::Turns,
};
use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep, timeout},
};
use tonic::Status;

use crate::api::{
    allowance::{Caller, Line, STRANGERS_PER_SOURCE},
    retry::later,
};

/// Attestations of one agent, whose connection proves it: one each time its pod or its certificate is another, and some for a crash loop.
const AGENTS: Rate = Rate {
    per_second: 1.0,
    burst: 32.0,
};
/// Those from one source without a certificate that counts, in checks of a CSR over P-256. The source may be the address of all nodes
/// of a cluster: a rack of 500 comes through at once when it is started, and 5,000 nodes within a minute. One that asks without end costs
/// about a thirtieth of a core. It is above the rate of handshakes, so that whoever waits is not pushed out by those who connect
/// after it.
const STRANGERS: Rate = Rate {
    per_second: 300.0,
    burst: 1000.0,
};
/// Those of all strangers together: a tenth of a core.
const ALL_STRANGERS: Rate = Rate {
    per_second: 1000.0,
    burst: 100.0,
};
/// How long a stranger waits for its turn; agents wait 30 s for an answer. All that may wait at one source take a second, or two over
/// RSA, and longer only while many sources ask at once.
const LONGEST_TURN: Duration = Duration::from_secs(25);
/// How long all of an attestation takes at most: beyond that nobody hears the answer.
pub(super) const LONGEST: Duration = Duration::from_secs(28);
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
    strangers: Turns<Source>,
    all_strangers: Turn<Bucket>,
    refusals: Refusals,
}

impl Attests {
    /// Nobody has asked yet; `refusals` are the door's.
    pub(crate) fn new(refusals: Refusals) -> Self {
        Self {
            agents: Buckets::new(AGENTS, CALLERS),
            guests: Buckets::new(AGENTS, CALLERS),
            // Of one source as many wait as it may have connections.
            strangers: Turns::new(STRANGERS, CALLERS, STRANGERS_PER_SOURCE),
            all_strangers: Turn::new(Bucket::full(ALL_STRANGERS, Instant::now())),
            refusals,
        }
    }

    /// The caller pays for the check of this CSR, and waits for its turn.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with the time to wait.
    pub(super) async fn admit(&self, line: &Line, csr: &[u8]) -> Result<(), Status> {
        let caller = line.caller();
        let Some(_waits) = line.attest() else {
            self.refusals.count(ATTESTATIONS, caller);
            return Err(later(
                "an attestation waits on this connection already",
                COME_BACK,
            ));
        };
        let work = f64::from(verification_work(csr));
        let paid = match caller {
            Caller::Agent(agent) => pay(&self.agents, agent.clone(), work),
            Caller::Guest(agent) => pay(&self.guests, agent.clone(), work),
            Caller::Stranger(source) => {
                let all = self.of_all_strangers(*source, work);
                let turn = timeout(LONGEST_TURN, self.strangers.wait(*source, all)).await;
                turn.map_or(Err(COME_BACK), |turn| turn.map_err(|_| COME_BACK))
            }
            // Nobody attests a node at the admin socket.
            Caller::Admin => Ok(()),
        };
        paid.map_err(|wait| {
            self.refusals.count(ATTESTATIONS, caller);
            later("too many attestations are asked for from here", wait)
        })
    }
}

/// The answer after [`LONGEST`].
pub(super) fn too_late() -> Status {
    later("the attestation took too long", COME_BACK)
}

impl Attests {
    /// The rest of what a stranger pays, and his turn among those of all sources: of each there is one.
    async fn of_all_strangers(&self, source: Source, work: f64) {
        self.strangers.spend(source, work - 1.0);
        let mut all = self.all_strangers.lock().await;
        while let Err(wait) = all.take(Instant::now()) {
            sleep(wait).await;
        }
        all.spend(work - 1.0, Instant::now());
    }
}

/// The first token is taken where it is there, and the rest may be owed.
fn pay<K: Clone + Eq + std::hash::Hash>(buckets: &Buckets<K>, caller: K, work: f64) -> Result<(), Duration> {
    buckets.take(caller.clone())?;
    buckets.spend(caller, work - 1.0);
    Ok(())
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
mod tests;
