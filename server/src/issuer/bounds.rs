//! What one requester may have under way, and how much of what it asks for may come to nothing. Both are asked before anything is checked.
//!
//! A CSR that becomes a certificate is bounded by the budgets of the ledger. The others cost as much to check; so whose budget is known to
//! be used up is told so again without a check, and what was checked for nothing is paid for: a CSR, or evidence that was refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::id::SpiffeId;
use signet_runtime::{
    bucket::{Buckets, Rate},
    limits::Limit,
    quota::{Division, Held, Quota},
    sync::Mutex,
};
use tokio::time::Instant;

use super::{CallRefused, MAX_ITEMS, decide::Decided, types::Evidence};
use crate::store::{AgentShare, Spent};

/// Items under way. The largest request of everybody who asks is let in, whatever others have; and no few of them take the pool.
const UNDER_WAY: Division = Division {
    share: MAX_ITEMS,
    cap: 4 * MAX_ITEMS,
    pool: 8192,
};
/// Items of one requester that were checked and became no certificate, in checks of a CSR over P-256: less than a hundredth of a core. Those
/// of an honest one are only refused where its pods are gone or denied, or get too many, and it waits longer each time.
const FRUITLESS: Rate = Rate {
    per_second: 32.0,
    burst: 1024.0,
};
/// Requesters that are told apart at once.
const REQUESTERS: usize = 32_768;
/// Budgets that are known to be used up, at most.
const SPENT: usize = 65_536;

/// See the [module](self).
pub(super) struct Bounds {
    items: Arc<Quota<Arc<str>>>,
    fruitless: Buckets<(Arc<str>, Rests)>,
    spent: Mutex<HashMap<Owner, (Instant, Spent)>>,
}

/// What an item rests on. What comes to nothing is paid for apart, so that users of a node, who may ask for anything, take
/// nothing from its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rests {
    OnTokens,
    OnItsWord,
}

impl Rests {
    pub(super) const fn of(evidence: &Evidence) -> Self {
        match evidence {
            Evidence::PodToken { .. } => Self::OnTokens,
            Evidence::Unix { .. } => Self::OnItsWord,
        }
    }
}

/// Whose budgets a certificate is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owners {
    workload: Owner,
    /// Whoever asks, where a certificate takes anything of what that may have.
    requester: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Workload(SpiffeId, String),
    /// An agent's, for the pods of its node.
    Pods(String),
    /// An agent's, for what it alone vouches for.
    Word(String),
}

impl Owners {
    /// Those of a pod's certificate that an agent asks for.
    pub(super) fn of_pod(id: &SpiffeId, pod_uid: &str, agent: &SpiffeId) -> Self {
        Self {
            workload: Owner::Workload(id.clone(), pod_uid.to_owned()),
            requester: Some(Owner::Pods(agent.to_string())),
        }
    }

    pub(super) fn of(decided: &Decided) -> Self {
        let workload = &decided.workload;
        let agent = workload.agent_id.clone();
        Self {
            workload: Owner::Workload(workload.spiffe_id.clone(), workload.budget_owner()),
            requester: match decided.share {
                AgentShare::Itself => None,
                AgentShare::Pods { .. } => Some(Owner::Pods(agent)),
                AgentShare::ItsWord => Some(Owner::Word(agent)),
            },
        }
    }
}

impl Bounds {
    /// Nothing is under way or used up.
    pub(super) fn new() -> Self {
        Self {
            items: Quota::new(UNDER_WAY),
            fruitless: Buckets::new(FRUITLESS, REQUESTERS),
            spent: Mutex::default(),
        }
    }

    /// Lets a request of the requester of this name in, until what this returns is dropped.
    pub(super) fn enter(&self, requester: &str, items: &[Rests]) -> Result<Held<Arc<str>>, CallRefused> {
        let requester = Arc::from(requester);
        for rests in [Rests::OnTokens, Rests::OnItsWord] {
            if items.contains(&rests) {
                self.fruitless
                    .check((Arc::clone(&requester), rests))
                    .map_err(CallRefused::Fruitless)?;
            }
        }
        self.items
            .take(&requester, items.len())
            .ok_or(CallRefused::TooBusy)
    }

    /// So much work for a requester came to nothing.
    pub(super) fn pay(&self, requester: &str, rests: Rests, work: u32) {
        if work > 0 {
            self.fruitless.spend((requester.into(), rests), f64::from(work));
        }
    }

    /// A budget of these was found used up.
    pub(super) fn note(&self, owners: Owners, spent: Spent) {
        let owner = if spent.is_the_agents() {
            owners.requester
        } else {
            Some(owners.workload)
        };
        let Some(owner) = owner else { return };
        let (mut known, now) = (self.spent.lock(), Instant::now());
        if known.len() >= SPENT {
            known.retain(|_, (until, _)| now < *until);
        }
        // Beyond that the store is asked, as it is by everybody at first.
        if known.len() < SPENT {
            known.insert(owner, (now + spent.retry_after, spent));
        }
    }

    /// Whether one of these budgets is known to be used up, and for how long.
    pub(super) fn spent(&self, owners: &Owners) -> Option<Spent> {
        let (mut known, now) = (self.spent.lock(), Instant::now());
        for owner in owners.requester.iter().chain([&owners.workload]) {
            let Some((until, spent)) = known.get(owner) else {
                continue;
            };
            let left = until.saturating_duration_since(now);
            if left > Duration::ZERO {
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                return Some(Spent {
                    retry_after: Duration::from_secs(seconds),
                    ..*spent
                });
            }
            known.remove(owner);
        }
        None
    }
}

/// Rows of the table of limits.
pub(super) fn limits() -> [Limit; 2] {
    let row = |what, share: String, cap: String| Limit {
        who: "an agent",
        what,
        share,
        cap,
        counted: "server::issuer::bounds",
        metric: "signet_server_refused_total",
    };
    let fruitless = format!(
        "{} at once, then {} each second",
        FRUITLESS.burst, FRUITLESS.per_second
    );
    let pool = format!("{}, of {} beyond all shares", UNDER_WAY.cap, UNDER_WAY.pool);
    [
        row(
            "certificates asked for and under way",
            UNDER_WAY.share.to_string(),
            pool,
        ),
        row(
            "CSRs and evidence that were checked and came to nothing, of its pods, and as much of what rests on its word; a CSR over RSA of 4096 bits counts twice",
            fruitless.clone(),
            fruitless,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [Rests; 1] = [Rests::OnTokens];
    const LARGEST: [Rests; MAX_ITEMS] = [Rests::OnTokens; MAX_ITEMS];

    fn agent(n: usize) -> String {
        format!("spiffe://example.org/signet/agent/dev/node-{n}")
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_some_have_under_way_every_other_gets_its_largest_request() {
        let bounds = Bounds::new();
        let mut held = Vec::new();
        for greedy in 0..20 {
            while let Ok(more) = bounds.enter(&agent(greedy), &LARGEST) {
                held.push(more);
            }
        }
        for other in 20..200 {
            held.push(bounds.enter(&agent(other), &LARGEST).unwrap());
            assert!(matches!(
                bounds.enter(&agent(other), &ONE),
                Err(CallRefused::TooBusy)
            ));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_to_nothing_is_paid_for_by_who_asked() {
        let bounds = Bounds::new();
        (0..103).for_each(|_| bounds.pay(&agent(1), Rests::OnTokens, 10));
        let Err(CallRefused::Fruitless(wait)) = bounds.enter(&agent(1), &ONE) else {
            panic!("it is let in");
        };
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        drop(bounds.enter(&agent(2), &ONE).unwrap());
        tokio::time::advance(wait).await;
        drop(bounds.enter(&agent(1), &ONE).unwrap());
    }

    /// Users of its shared socket ask for what no rule gives, without end.
    #[tokio::test(start_paused = true)]
    async fn what_an_agent_vouches_for_in_vain_takes_nothing_of_its_pods() {
        let bounds = Bounds::new();
        (0..200).for_each(|_| bounds.pay(&agent(1), Rests::OnItsWord, 10));
        let word = bounds.enter(&agent(1), &[Rests::OnItsWord]);
        assert!(matches!(word, Err(CallRefused::Fruitless(_))));
        drop(bounds.enter(&agent(1), &LARGEST).unwrap());
    }
}
