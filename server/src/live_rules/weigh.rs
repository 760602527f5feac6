//! What other rules would take away, and whom they concern. Pure: what is known of each workload comes with it.

use std::collections::{HashMap, HashSet};

use signet_certs::id::SpiffeId;

use super::{Loss, MOST_EXAMPLES, Withdrawn};
use crate::{
    attest::AttestedPod,
    rules::{Facts, RuleSet, UnixFacts},
    store::LiveIdentity,
};

/// An identity under which a workload holds a live certificate, and what is known of the workload now.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) live: LiveIdentity,
    pub(super) known: Known,
}

/// What is known of a workload.
#[derive(Debug)]
pub(super) enum Known {
    /// A pod, as its cluster's watch shows it.
    Pod(Box<AttestedPod>),
    /// A process, as the ledger has it.
    Unix(UnixFacts),
    /// Nobody is attested as this any more, so nothing is taken from anybody.
    Gone,
    /// Its cluster's watch has not shown it. The rule that gave the identity speaks for it.
    Unknown,
}

/// What the comparison of two sets of rules has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Weighed {
    pub(super) withdrawn: Withdrawn,
    /// Who gets something else by the new rules: places in the list of holders, one for each workload.
    pub(super) concerned: Vec<usize>,
}

/// Compares what two sets of rules make of those who hold live certificates.
pub(super) fn weigh(old: &RuleSet, new: &RuleSet, holders: &[Holder]) -> Weighed {
    let mut weighing = Weighing {
        old,
        new,
        changes: HashMap::new(),
        kept: None,
    };
    let mut weighed = Weighed::default();
    let mut named = HashSet::new();
    for (place, holder) in holders.iter().enumerate() {
        let owner = holder.live.workload.budget_owner();
        let effect = weighing.of(&owner, holder);
        if effect.is_lost {
            weighed.withdrawn.add(holder);
        }
        if effect.differs && named.insert(owner) {
            weighed.concerned.push(place);
        }
    }
    weighed
}

struct Weighing<'a> {
    old: &'a RuleSet,
    new: &'a RuleSet,
    /// Of workloads of which enough is known, by owner.
    changes: HashMap<String, Change>,
    /// Rules of the old set whose gift stays, whoever has it; found when it is asked for.
    kept: Option<HashSet<&'a str>>,
}

/// What becomes of one workload.
struct Change {
    /// What it has by the old rules and not by the new ones.
    lost: Vec<SpiffeId>,
    differs: bool,
}

/// What becomes of one identity of a workload, and of the workload.
struct Effect {
    is_lost: bool,
    differs: bool,
}

impl<'a> Weighing<'a> {
    fn of(&mut self, owner: &str, holder: &'a Holder) -> Effect {
        let facts = match &holder.known {
            Known::Pod(pod) => Facts::Pod(pod),
            Known::Unix(process) => Facts::Unix(process),
            // It may be given something else by rules that did not speak for it: its agent, if it is there, asks.
            Known::Unknown => {
                return Effect {
                    differs: true,
                    ..self.by_rule(&holder.live.rule)
                };
            }
            // Nothing is taken from whoever is gone. A pod that the watch shows only in a moment is told, though.
            Known::Gone => {
                return Effect {
                    is_lost: false,
                    ..self.by_rule(&holder.live.rule)
                };
            }
        };
        // Labels of its namespace that nobody knows yet may give it more as well.
        if self.old.is_undecided(&facts) || self.new.is_undecided(&facts) {
            return Effect {
                differs: true,
                ..self.by_rule(&holder.live.rule)
            };
        }
        if !self.changes.contains_key(owner) {
            self.changes.insert(owner.to_owned(), self.change(&facts));
        }
        let change = self.changes.get(owner);
        Effect {
            is_lost: change.is_some_and(|change| change.lost.contains(&holder.live.workload.spiffe_id)),
            differs: change.is_some_and(|change| change.differs),
        }
    }

    fn change(&self, facts: &Facts<'_>) -> Change {
        let (old, new) = (self.old.judge(facts).verdict, self.new.judge(facts).verdict);
        let is_given = |id: &SpiffeId| new.identities().iter().any(|given| given.spiffe_id == *id);
        let had = old.identities().iter().map(|had| &had.spiffe_id);
        Change {
            lost: had.filter(|id| !is_given(id)).cloned().collect(),
            differs: !old.gives_as(&new),
        }
    }

    /// Of a workload of which too little is known: the rule that gave the identity speaks for it.
    fn by_rule(&mut self, rule: &str) -> Effect {
        let kept = self.kept.get_or_insert_with(|| self.old.kept_by(self.new));
        let stays = kept.contains(rule);
        Effect {
            is_lost: !stays,
            differs: !stays,
        }
    }
}

impl Withdrawn {
    fn add(&mut self, holder: &Holder) {
        self.count += 1;
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(Loss {
                spiffe_id: holder.live.workload.spiffe_id.clone(),
                holder: holder.name(),
            });
        }
    }
}

impl Holder {
    fn name(&self) -> String {
        let workload = &self.live.workload;
        if workload.pod_uid.is_empty() {
            format!("{} on {}", workload.process, workload.node_name)
        } else {
            format!("pod {}/{}", workload.pod_namespace, workload.pod_name)
        }
    }
}
