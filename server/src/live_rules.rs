//! The rules in force while their source changes.
//!
//! One task owns them. It reads the configuration file on SIGHUP and when the file has changed and stands still. What cannot be
//! used changes nothing. Rules that differ from those in force are weighed first: under how many identities is a live certificate
//! held that they would give no more? Where that is more than `rules_confirm_above`, they wait until an admin confirms exactly
//! them. Rules that are accepted are stored, then in force, and then every workload is named to its agent that they give
//! something else; in this order, so that a restart finds what was in force and nobody is missed who is issued to meanwhile.
//!
//! Admins set rules beside those of the file, which come first. They are kept in the store, and an edit of them is judged and weighed as one
//! of the file: the two together are what is in force or waits.
//!
//! A start goes on by the rules that were accepted last, whatever the file says, until the pods of the clusters are known and
//! the file can be weighed.

mod accepted;
mod admins;
mod beginning;
mod candidate;
mod error;
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

pub(crate) use self::{
    admins::{AdminRule, Edit, clash},
    candidate::{Candidate, Effect},
    error::{NotConfirmed, NotEdited, NotStarted},
    source::{Checked, Source},
};
use self::{owner::Owner, worker::Worker};
use crate::{
    agents::Agents, attest::Attestor, clock::TrustedClock, metrics::Metrics, rules::RuleSet, store::Store,
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
    confirm_above: u64,
}

/// What an admin wants, and who is told what came of it.
enum Order {
    /// The rules of this revision are confirmed.
    Confirm {
        revision: u64,
        author: String,
        reply: oneshot::Sender<Result<Changed, NotConfirmed>>,
    },
    /// A rule is set or deleted.
    Edit {
        edit: Edit,
        author: String,
        reply: oneshot::Sender<Result<Edited, NotEdited>>,
    },
    /// What an edit would make of the rules is asked.
    Try {
        edit: Edit,
        reply: oneshot::Sender<Result<Candidate, NotEdited>>,
    },
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
    /// The rules that admins have set, in force or waiting.
    pub set: Arc<[AdminRule]>,
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

/// What came of an edit.
#[derive(Clone, Debug)]
pub(crate) struct Edited {
    /// The revision in force, and how many live identities the edit withdrew.
    pub changed: Changed,
    /// It is kept, and not in force before this is confirmed.
    pub waits: Option<Arc<Waiting>>,
    /// The rules as they are with it.
    pub rules: Arc<RuleSet>,
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
    /// [`NotStarted`].
    pub(crate) async fn start(parts: LiveRulesParts) -> Result<Self, NotStarted> {
        let found = beginning::found(&parts).await?;
        let (orders, ordered) = mpsc::channel(1);
        let (reread, drain) = (parts.reread.clone(), parts.drain.clone());
        let confirm_above = parts.confirm_above;
        let owner = Owner::new(parts, found);
        let rules = Self {
            current: owner.current(),
            standing: owner.standing(),
            orders,
            confirm_above,
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

    /// Whether rules that would withdraw this wait for a confirmation.
    pub(crate) fn would_wait(&self, withdrawn: &Withdrawn) -> bool {
        withdrawn.count > self.confirm_above
    }

    /// Puts in force the rules of this revision, which wait for it.
    ///
    /// # Errors
    /// [`NotConfirmed`].
    pub(crate) async fn confirm(&self, revision: u64, author: String) -> Result<Changed, NotConfirmed> {
        let order = |reply| Order::Confirm {
            revision,
            author,
            reply,
        };
        self.ordered(order, NotConfirmed::Stopping).await
    }

    /// Sets or deletes a rule of the admins. It is kept with its answer, in force or waiting.
    ///
    /// # Errors
    /// [`NotEdited`].
    pub(crate) async fn edit(&self, edit: Edit, author: String) -> Result<Edited, NotEdited> {
        let order = |reply| Order::Edit { edit, author, reply };
        self.ordered(order, NotEdited::Stopping).await
    }

    /// What the rules would be with an edit, which is not carried out.
    ///
    /// # Errors
    /// [`NotEdited`], as the edit would have it.
    pub(crate) async fn tried(&self, edit: Edit) -> Result<Candidate, NotEdited> {
        let order = |reply| Order::Try { edit, reply };
        self.ordered(order, NotEdited::Stopping).await
    }

    async fn ordered<T, E>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Order,
        stopping: E,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(order(reply)).await.is_err() {
            return Err(stopping);
        }
        answer.await.unwrap_or(Err(stopping))
    }
}
