//! How many certificates somebody may have: what is free, what displaces, and what one agent may have in all. Pure: it is
//! told the time and what is live.
//!
//! The rightful holder is never left with nothing. Whoever has used up what is free still gets a certificate, so many at
//! once and then so many a minute, and the oldest of those before it is displaced: it stays live, is revoked with the
//! others, and counts no more. Buckets are memory, full when a process starts; what is live is the ledger's to say.

use std::fmt;
use std::time::{Duration, SystemTime};

use signet_certs::time::unix_millis;
use signet_runtime::limits::{Limit, time};

/// Certificates beyond the free ones that one workload and identity may have at once.
const DISPLACING: u32 = 64;
/// Microseconds in which there may be one more: six a minute.
const REFILL: i64 = 10_000_000;
/// What one workload and identity may displace.
const WORKLOAD: Rate = Rate {
    each: REFILL,
    room: 64 * REFILL,
};
/// Pods that a node is taken to have at least: they come faster than the watch shows them.
const LEAST_PODS: u32 = 16;
/// What an agent may have on its word alone: 256 at once, 30 a minute.
const OWN: Rate = Rate {
    each: 2_000_000,
    room: 256 * 2_000_000,
};
/// By how much a clock may go back, in microseconds, and a bucket still be what it was: what clocks may differ by.
const SET_BACK: i64 = 5 * 60 * 1_000_000;
/// Displaced and unexpired certificates of one workload and identity from which on somebody should look.
pub(crate) const MANY_DISPLACED: u32 = 32;

/// Rows of the table of limits. `free` is what each workload has unless the configuration says otherwise.
pub(crate) fn limits(free: u32) -> Vec<Limit> {
    let each = |micros| time(Duration::from_micros(micros));
    let row = |who, what, share, cap, metric| Limit {
        who,
        what,
        share,
        cap,
        counted: "server::store::budget",
        metric,
    };
    let beyond = format!(
        "{DISPLACING} at once, then one each {}",
        each(REFILL.unsigned_abs())
    );
    let word = format!(
        "{} at once, then one each {}",
        OWN.room / OWN.each,
        each(OWN.each.unsigned_abs())
    );
    vec![
        row(
            "a workload, for one SPIFFE ID",
            "unexpired certificates",
            format!("{free} (`svid.max_live`)"),
            format!("{beyond}, each in place of the oldest"),
            "signet_server_certificates_displaced_total",
        ),
        row(
            "an agent",
            "certificates of the pods on its node",
            format!("that of its pods, and of {LEAST_PODS} at least"),
            format!("for each of them and each identity: {beyond}"),
            "signet_server_certificates_refused_total",
        ),
        row(
            "an agent",
            "certificates that it alone vouches for",
            word.clone(),
            word,
            "signet_server_certificates_refused_total",
        ),
    ]
}

/// What a certificate is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Unexpired certificates of one attested workload and SPIFFE ID that displace no other.
    pub free: u32,
    /// What it takes of what whoever asks may have.
    pub share: AgentShare,
}

/// What an agent may have is measured by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentShare {
    /// The certificate is of whoever asks: an agent's own, or that of a workload without one. The workload's budget alone counts.
    Itself,
    /// A pod proved itself.
    Pods {
        /// Pods on the agent's node, as the watch last showed them.
        pods: u32,
        /// Identities that this pod may have.
        identities: u32,
    },
    /// The agent alone vouches for the workload: there may be as many as it invents.
    ItsWord,
}

/// Whose budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BudgetOwner {
    /// One attested workload's, for one SPIFFE ID.
    Workload,
    /// The agent's, for all that it asks for.
    Agent,
}

/// A budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner} got too many certificates in the last minutes; the next in {} s", retry_after.as_secs())]
pub(crate) struct Spent {
    /// Whose it is.
    pub owner: BudgetOwner,
    /// When there is one more: whole seconds, at most sixty.
    pub retry_after: Duration,
}

impl Spent {
    /// Whether it is the agent's, for all that it asks for.
    pub(crate) fn is_the_agents(&self) -> bool {
        self.owner == BudgetOwner::Agent
    }
}

impl fmt::Display for BudgetOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "this workload",
            Self::Agent => "the agent of this node",
        })
    }
}

/// How fast a bucket refills and how much it holds, both in microseconds.
#[derive(Clone, Copy)]
struct Rate {
    /// Time in which there is one more.
    each: i64,
    /// Time in which an empty bucket is full.
    room: i64,
}

impl Rate {
    /// Of `share` workloads and identities together, each of which may have at least `free` at once.
    fn agent(free: u32, share: u32) -> Self {
        Self {
            each: (REFILL / i64::from(share.max(1))).max(1),
            room: REFILL * i64::from(free.max(DISPLACING)),
        }
    }
}

/// A bucket that refills evenly: the moment at which it is full again, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: i64,
}

impl Bucket {
    /// The bucket with one less in it, or how long until there is one. A clock that goes back a little finds it empty at
    /// most, and refilling from then on; one that was far ahead says nothing of what is in it, and finds it full.
    fn less_one(&mut self, rate: Rate, now: i64) -> Result<Self, Duration> {
        let empty = now.saturating_add(rate.room);
        if self.full_at > empty.saturating_add(SET_BACK) {
            self.full_at = now;
        }
        self.full_at = self.full_at.clamp(now, empty);
        let full_at = self.full_at.saturating_add(rate.each);
        if full_at <= empty {
            return Ok(Self { full_at });
        }
        Err(Duration::from_micros(full_at.abs_diff(empty)))
    }
}

/// What one agent has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AgentBudget {
    pods: Bucket,
    word: Bucket,
    /// The most identities that a pod of its node was seen to have.
    identities: u32,
}

impl AgentBudget {
    fn less_one(&mut self, budget: &Budget, now: i64) -> Result<Self, Duration> {
        match budget.share {
            AgentShare::Itself => Ok(*self),
            AgentShare::Pods { pods, identities } => {
                let identities = self.identities.max(identities).max(1);
                let share = pods.max(LEAST_PODS).saturating_mul(identities);
                let pods = self.pods.less_one(Rate::agent(budget.free, share), now)?;
                Ok(Self {
                    pods,
                    identities,
                    ..*self
                })
            }
            AgentShare::ItsWord => Ok(Self {
                word: self.word.less_one(OWN, now)?,
                ..*self
            }),
        }
    }

    /// Whether it is as if nothing had been asked: it can be forgotten.
    pub(super) fn is_full(&self, now: SystemTime) -> bool {
        self.pods.full_at.max(self.word.full_at) <= micros(now)
    }
}

/// Takes one certificate out of the budgets of a workload, which has `live` unexpired ones already, and of its agent.
/// Returns how many of them are then displaced.
///
/// # Errors
/// [`Spent`]; nothing is taken.
pub(super) fn take(
    budget: &Budget,
    live: u32,
    workload: &mut Bucket,
    agent: &mut AgentBudget,
    now: SystemTime,
) -> Result<u32, Spent> {
    let now = micros(now);
    let displaced = live.saturating_add(1).saturating_sub(budget.free);
    let mut left = *workload;
    if displaced > 0 {
        left = workload
            .less_one(WORKLOAD, now)
            .map_err(|wait| spent(BudgetOwner::Workload, wait))?;
    }
    *agent = agent
        .less_one(budget, now)
        .map_err(|wait| spent(BudgetOwner::Agent, wait))?;
    *workload = left;
    Ok(displaced)
}

fn spent(owner: BudgetOwner, wait: Duration) -> Spent {
    let up = u64::from(wait.subsec_nanos() > 0);
    Spent {
        owner,
        retry_after: Duration::from_secs(wait.as_secs().saturating_add(up).clamp(1, 60)),
    }
}

fn micros(time: SystemTime) -> i64 {
    unix_millis(time).saturating_mul(1000)
}

#[cfg(test)]
mod tests;
