//! Whether facts meet the criteria of a rule.

use std::collections::BTreeMap;

use super::{Evidence, Facts, UnixFacts};
use crate::attest::AttestedPod;

/// Criteria of one rule; an empty list asks for nothing.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    pub(super) evidence: Vec<Evidence>,
    pub(super) clusters: Vec<String>,
    pub(super) namespaces: Vec<String>,
    pub(super) namespace_labels: BTreeMap<String, String>,
    pub(super) service_accounts: Vec<String>,
    pub(super) pod_labels: BTreeMap<String, String>,
    pub(super) unix: UnixMatcher,
}

/// How facts meet the criteria of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// All of them.
    Matches,
    /// Not this one, which is the first.
    Differs(&'static str),
    /// All but for the labels of the namespace, which are not known.
    Open,
}

/// Criteria on processes outside pods.
#[derive(Debug, Default)]
pub(super) struct UnixMatcher {
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
    pub(super) paths: Vec<String>,
    pub(super) sha256: Vec<[u8; 32]>,
}

impl UnixMatcher {
    pub(super) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty() && self.paths.is_empty() && self.sha256.is_empty()
    }

    fn mismatch(&self, facts: &UnixFacts) -> Option<&'static str> {
        let path = facts.path.as_deref();
        if !admits(&self.uids, |uid| *uid == facts.uid) {
            Some("unix.uids")
        } else if !admits(&self.gids, |gid| *gid == facts.gid) {
            Some("unix.gids")
        } else if !admits(&self.paths, |allowed| Some(allowed.as_str()) == path) {
            Some("unix.paths")
        } else if !admits(&self.sha256, |allowed| Some(*allowed) == facts.sha256) {
            Some("unix.sha256")
        } else {
            None
        }
    }
}

impl Matcher {
    /// Whether it has criteria on facts that only pods have.
    pub(super) fn asks_for_pods(&self) -> bool {
        self.names_namespaces() || !self.service_accounts.is_empty() || !self.pod_labels.is_empty()
    }

    /// Whether it says in which namespaces it counts: by name, or by labels that whoever administers the cluster sets.
    pub(super) fn names_namespaces(&self) -> bool {
        !self.namespaces.is_empty() || !self.namespace_labels.is_empty()
    }

    /// How the facts meet all criteria.
    pub(super) fn fit(&self, facts: &Facts<'_>) -> Fit {
        if let Some(criterion) = self.mismatch(facts) {
            return Fit::Differs(criterion);
        }
        let Facts::Pod(pod) = facts else {
            return Fit::Matches;
        };
        match &pod.namespace_labels {
            _ if self.namespace_labels.is_empty() => Fit::Matches,
            None => Fit::Open,
            Some(labels) if has_all(labels, &self.namespace_labels) => Fit::Matches,
            Some(_) => Fit::Differs("namespace_labels"),
        }
    }

    /// The first criterion the facts do not meet, whatever the labels of the namespace.
    fn mismatch(&self, facts: &Facts<'_>) -> Option<&'static str> {
        if !self.evidence.contains(&facts.evidence()) {
            return Some("evidence");
        }
        if !admits(&self.clusters, |cluster| cluster == facts.cluster()) {
            return Some("clusters");
        }
        // Criteria on the other kind of workload are not met either.
        match facts {
            Facts::Pod(_) if !self.unix.is_empty() => Some("unix"),
            Facts::Pod(pod) => self.pod_mismatch(pod),
            Facts::Unix(_) if self.asks_for_pods() => {
                Some("namespaces, namespace_labels, service_accounts or pod_labels")
            }
            Facts::Unix(unix) => self.unix.mismatch(unix),
        }
    }

    fn pod_mismatch(&self, pod: &AttestedPod) -> Option<&'static str> {
        if !admits(&self.namespaces, |namespace| *namespace == pod.namespace) {
            Some("namespaces")
        } else if !admits(&self.service_accounts, |account| *account == pod.service_account) {
            Some("service_accounts")
        } else if !has_all(&pod.labels, &self.pod_labels) {
            Some("pod_labels")
        } else {
            None
        }
    }
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn admits<T>(allowed: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    allowed.is_empty() || allowed.iter().any(is_it)
}
