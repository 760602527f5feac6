//! The rules in force while their source changes.
//!
//! One task owns them. It reads the configuration file on SIGHUP and when the file has changed and stands still. What cannot be
//! used changes nothing. Rules that differ from those in force are weighed first: under how many identities is a live certificate
//! held that they would give no more? Where that is more than `rules_confirm_above`, they wait until an admin confirms exactly
//! them. Rules that are accepted are stored, then in force, and then every workload is named to its agent that they give
//! something else; in this order, so that a restart finds what was in force and nobody is missed who is issued to meanwhile.
//!
//! A start goes on by the rules that were accepted last, whatever the file says, until the pods of the clusters are known and
//! the file can be weighed.

mod accepted;
mod beginning;
mod holders;
mod owner;
mod source;
mod weigh;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use signet_certs::id::SpiffeId;
use signet_runtime::{drain::Drain, signal::Reread};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::source::{Checked, Source};
use self::{owner::Owner, worker::Worker};
use crate::{
    agents::Agents,
    attest::Attestor,
    clock::TrustedClock,
    metrics::Metrics,
    rules::RuleSet,
    store::{Store, StoreError},
};

/// So many of those who would lose an identity are named.
const MOST_EXAMPLES: usize = 20;

/// What the owner of the rules needs; see [`LiveRules::start`].
pub(crate) struct LiveRulesParts {
    /// Where rules come from.
    pub source: Source,
    /// What it said at the start.
    pub first: Arc<RuleSet>,
    /// Most live identities that may be withdrawn unconfirmed.
    pub confirm_above: u64,
    /// The longest life of a certificate that the authorities of this process were made for.
    pub longest_ttl: Duration,
    /// Keeps what was accepted, and knows who lives by it.
    pub store: Arc<dyn Store>,
    /// Knows the pods.
    pub attestor: Arc<dyn Attestor>,
    /// Is told whom a change concerns.
    pub agents: Arc<Agents>,
    /// Gauges.
    pub metrics: Arc<Metrics>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Says when to read again.
    pub reread: Reread,
    /// Ends the task.
    pub drain: Drain,
}

/// The rules in force, and how the source stands to them. Clones share one owner.
#[derive(Clone)]
pub(crate) struct LiveRules {
    current: watch::Receiver<Arc<RuleSet>>,
    standing: watch::Receiver<Standing>,
    orders: mpsc::Sender<Order>,
}

/// An admin confirms rules.
struct Order {
    revision: u64,
    author: String,
    reply: oneshot::Sender<Result<Changed, NotConfirmed>>,
}

/// How the rules of the source stand to those in force.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The rules that the source has.
    pub source: OfSource,
    /// Keys beside the rules that have changed since the start, and need a restart.
    pub restart_for: Vec<String>,
    /// It may say something else by now, and is looked at in a moment.
    pub is_put_off: bool,
}

/// The rules that the source has.
#[derive(Clone, Debug)]
pub(crate) enum OfSource {
    /// They are in force.
    InForce,
    /// They differ from those that were accepted before the start, and are not weighed yet.
    NotWeighed,
    /// They cannot be used: why, for people.
    Unusable(String),
    /// They wait for a confirmation.
    Waiting(Arc<Waiting>),
}

/// Rules that would withdraw more than may be withdrawn unconfirmed.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Since when.
    pub since: SystemTime,
    /// Who loses what, as it was when they were weighed last.
    pub withdrawn: Withdrawn,
}

/// Identities under which a live certificate is held, and which are given no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Withdrawn {
    /// How many: each counts once for each pod or process that holds it.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Loss>,
}

/// An identity that somebody loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Which.
    pub spiffe_id: SpiffeId,
    /// Who: `pod namespace/name`, or the process as the ledger has it.
    pub holder: String,
}

/// A change of the rules in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The revision now in force.
    pub revision: u64,
    /// Live identities that it withdrew.
    pub withdrawn: u64,
}

/// Why rules were not confirmed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConfirmed {
    /// Nothing waits.
    #[error("no rules wait for a confirmation; `rule list` shows what is in force")]
    NothingWaits,
    /// Others wait: the source has changed since.
    #[error(
        "the rules that wait are others, of revision {waiting}: look at them with `rule list`, then confirm that one"
    )]
    Others {
        /// Revision of those that wait.
        waiting: Revision,
    },
    /// The store did not take them.
    #[error("the store does not take the rules: {0}")]
    Store(#[from] StoreError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// A revision of rules as people see it: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Revision {
    /// From its digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_one
            .then(|| u64::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl LiveRules {
    /// Finds out what is in force, and follows the source from then on.
    ///
    /// # Errors
    /// When the store cannot be asked for what was accepted last, or does not take the first rules it is given.
    pub(crate) async fn start(parts: LiveRulesParts) -> Result<Self, StoreError> {
        let in_force = beginning::in_force(&parts).await?;
        let (orders, ordered) = mpsc::channel(1);
        let (reread, drain) = (parts.reread.clone(), parts.drain.clone());
        let owner = Owner::new(parts, in_force);
        let rules = Self {
            current: owner.current(),
            standing: owner.standing(),
            orders,
        };
        let worker = Worker {
            owner,
            reread,
            orders: ordered,
            drain: drain.clone(),
        };
        drain.spawn_vital("rules", worker.run());
        Ok(rules)
    }

    /// The rules in force.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<RuleSet>> {
        self.current.clone()
    }

    /// How the source stands to them.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Puts in force the rules of this revision, which wait for it.
    ///
    /// # Errors
    /// [`NotConfirmed`].
    pub(crate) async fn confirm(&self, revision: u64, author: String) -> Result<Changed, NotConfirmed> {
        let (reply, answer) = oneshot::channel();
        let order = Order {
            revision,
            author,
            reply,
        };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| NotConfirmed::Stopping)?;
        answer.await.unwrap_or(Err(NotConfirmed::Stopping))
    }
}
