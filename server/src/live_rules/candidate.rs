//! What a rule that somebody tries would change: nothing is kept, and nobody is told.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{Loss, MOST_EXAMPLES, Withdrawn, holders};
use crate::{
    attest::{AttestedPod, Attestor, PodsLike},
    rules::{Facts, RuleSet},
    store::Store,
};

/// Pods that are looked at, and for how long.
const MOST_LOOKED_AT: usize = 20_000;
const LONGEST: Duration = Duration::from_secs(2);

/// The rules in force, and those that are tried.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// In force.
    pub in_force: Arc<RuleSet>,
    /// What both sources would be with the edit.
    pub rules: Arc<RuleSet>,
}

/// What would change.
#[derive(Clone, Debug)]
pub(crate) struct Effect {
    /// Identities under which live certificates are held, and that would be given no more.
    pub withdrawn: Withdrawn,
    /// Identities that would be given.
    pub given: Given,
}

/// Identities that pods would get and do not get now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// How many: each counts once for each pod.
    pub count: u64,
    /// Some of them.
    pub examples: Vec<Loss>,
    /// Pods that have an identity and would get another one as their default, and one of them.
    pub defaults: u64,
    /// That one: its name, and the default it would have.
    pub default_example: Option<Loss>,
    /// Pods of which it hangs on labels of their namespace that nobody has read.
    pub undecided: u64,
    /// There are pods that were not looked at.
    pub truncated: bool,
}

impl Candidate {
    /// Looks at whoever holds live certificates at `earliest`, and at all pods.
    ///
    /// # Errors
    /// Why it cannot be told, for people.
    pub(crate) async fn effect(
        &self,
        store: &dyn Store,
        attestor: Arc<dyn Attestor>,
        earliest: SystemTime,
    ) -> Result<Effect, String> {
        let rules = || (self.in_force.clone(), self.rules.clone());
        let weighed = holders::compare((store, attestor.clone()), rules(), earliest).await;
        let (weighed, _) = weighed.map_err(|error| error.to_string())?;
        let (old, new) = rules();
        let look = move || given(attestor.as_ref(), &old, &new);
        let given = signet_runtime::spans::spawn_blocking(look).await;
        Ok(Effect {
            withdrawn: weighed.withdrawn,
            given: given.map_err(|error| error.to_string())?,
        })
    }
}

/// Each look at a watch holds it, so there are few of them.
fn given(attestor: &dyn Attestor, old: &RuleSet, new: &RuleSet) -> Given {
    let (until, mut left) = (Instant::now() + LONGEST, MOST_LOOKED_AT);
    let mut given = Given::default();
    for cluster in attestor.clusters() {
        let (pods, more) = attestor.pods_like(&cluster.name, &PodsLike::default(), left);
        left = left.saturating_sub(pods.len());
        given.truncated |= more || !cluster.synced;
        for pod in &pods {
            if Instant::now() > until {
                given.truncated = true;
                return given;
            }
            given.add(pod, old, new);
        }
    }
    given
}

impl Given {
    fn add(&mut self, pod: &AttestedPod, old: &RuleSet, new: &RuleSet) {
        let facts = Facts::Pod(pod);
        if new.is_undecided(&facts) {
            self.undecided += 1;
            return;
        }
        let (had, gets) = (old.judge(&facts).verdict, new.judge(&facts).verdict);
        let holder = || format!("pod {}/{}", pod.namespace, pod.pod_name);
        if let (Some(had), Some(gets)) = (had.identities().first(), gets.identities().first())
            && had.spiffe_id != gets.spiffe_id
        {
            self.defaults += 1;
            self.default_example.get_or_insert_with(|| Loss {
                spiffe_id: gets.spiffe_id.clone(),
                holder: holder(),
            });
        }
        for got in gets.identities() {
            if had.identities().iter().any(|had| had.spiffe_id == got.spiffe_id) {
                continue;
            }
            self.count += 1;
            if self.examples.len() < MOST_EXAMPLES {
                self.examples.push(Loss {
                    spiffe_id: got.spiffe_id.clone(),
                    holder: holder(),
                });
            }
        }
    }
}
