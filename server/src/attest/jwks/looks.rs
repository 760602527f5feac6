//! How often signing keys are read because a token names one that is not known. Whoever makes up key ids uses up his own reads: what a
//! cluster that changes its keys needs, the agents have of their own.

use std::time::Duration;

use signet_runtime::bucket::{Bucket, Buckets, Rate};
use signet_runtime::limits::{Limit, time};
use signet_runtime::source::Source;
use signet_runtime::sync::Mutex;
use tokio::time::Instant;

use crate::attest::Bearer;

/// Reads that one agent, or one source of strangers, makes necessary: a few for a cluster that changes its keys now, with several API
/// servers that do so one after the other, and then one each 10 s.
const EACH: Rate = Rate {
    per_second: 0.1,
    burst: 4.0,
};
/// Those of all agents, and again of all strangers. One that is used up by others has the keys read every second, so whoever has none left
/// waits no longer than that.
const ALL: Rate = Rate {
    per_second: 1.0,
    burst: 16.0,
};
/// Agents, and sources, that are told apart at once.
const BUCKETS: usize = 16_384;

/// What is left of these reads.
#[derive(Debug)]
pub(super) struct Looks {
    agents: Buckets<String>,
    all_agents: Mutex<Bucket>,
    strangers: Buckets<Source>,
    all_strangers: Mutex<Bucket>,
}

impl Looks {
    pub(super) fn new() -> Self {
        let full = || Mutex::new(Bucket::full(ALL, Instant::now()));
        Self {
            agents: Buckets::new(EACH, BUCKETS),
            all_agents: full(),
            strangers: Buckets::new(EACH, BUCKETS),
            all_strangers: full(),
        }
    }

    /// Takes one read of whoever brings a token.
    ///
    /// # Errors
    /// How long until there is one; nothing is taken then.
    pub(super) fn take(&self, bearer: Bearer<'_>) -> Result<(), Duration> {
        match bearer {
            Bearer::Agent(agent) => take(&self.agents, agent.as_str().to_owned(), &self.all_agents),
            Bearer::Stranger(source) => take(&self.strangers, source, &self.all_strangers),
        }
    }
}

fn take<K: Clone + Eq + std::hash::Hash>(
    each: &Buckets<K>,
    who: K,
    all: &Mutex<Bucket>,
) -> Result<(), Duration> {
    each.check(who.clone())?;
    all.lock().take(Instant::now())?;
    each.take(who)
}

/// As docs/limits.md prints it.
pub(in crate::attest) fn limits() -> Vec<Limit> {
    let every = |rate: Rate| time(Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or_default());
    let often = |rate: Rate| format!("{} at once, then one each {}", rate.burst, every(rate));
    let row = |who| Limit {
        who,
        what: "reads of a cluster's signing keys, for a token whose key is not known",
        share: format!("one each {}, his own or another's", every(ALL)),
        cap: format!("{}; all such callers {}", often(EACH), often(ALL)),
        counted: "server::attest::jwks::looks",
        metric: "signet_server_refused_total",
    };
    vec![row("an agent"), row("strangers of one source")]
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use signet_certs::id::{SpiffeId, TrustDomain};
    use tokio::time::advance;

    use super::*;

    fn stranger(number: u8) -> Bearer<'static> {
        Bearer::Stranger(IpAddr::from(Ipv4Addr::new(10, 0, 0, number)).into())
    }

    fn agents() -> Vec<SpiffeId> {
        let domain = TrustDomain::parse("example.org").unwrap();
        let agent = |number: u8| SpiffeId::agent(&domain, "prod", &format!("node-{number}")).unwrap();
        (0..10).map(agent).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_nothing_of_agents_and_no_agent_all_of_it() {
        let looks = Looks::new();
        let taken = |bearer| (0..100).filter(|_| looks.take(bearer).is_ok()).count();
        assert_eq!((0..=255).map(|number| taken(stranger(number))).sum::<usize>(), 16);
        let agents = agents();
        assert_eq!(taken(Bearer::Agent(&agents[0])), 4);
        assert_eq!(
            looks.take(Bearer::Agent(&agents[0])),
            Err(Duration::from_secs(10))
        );
        assert_eq!(taken(Bearer::Agent(&agents[1])), 4);
        let rest = agents[2..].iter().map(|agent| taken(Bearer::Agent(agent)));
        assert_eq!(rest.sum::<usize>(), 8);
        // Whoever has some left and finds none waits for one second.
        assert_eq!(looks.take(Bearer::Agent(&agents[9])), Err(Duration::from_secs(1)));
        assert_eq!(looks.take(stranger(255)), Err(Duration::from_secs(1)));
        advance(Duration::from_secs(1)).await;
        assert_eq!(looks.take(Bearer::Agent(&agents[9])), Ok(()));
        assert_eq!(looks.take(stranger(255)), Ok(()));
    }
}
