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
    pub(super) service_accounts: Vec<String>,
    pub(super) pod_labels: BTreeMap<String, String>,
    pub(super) unix: UnixMatcher,
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
        !self.namespaces.is_empty() || !self.service_accounts.is_empty() || !self.pod_labels.is_empty()
    }

    /// The first criterion the facts do not meet; none when the rule matches.
    pub(super) fn mismatch(&self, facts: &Facts<'_>) -> Option<&'static str> {
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
            Facts::Unix(_) if self.asks_for_pods() => Some("namespaces, service_accounts or pod_labels"),
            Facts::Unix(unix) => self.unix.mismatch(unix),
        }
    }

    fn pod_mismatch(&self, pod: &AttestedPod) -> Option<&'static str> {
        if !admits(&self.namespaces, |namespace| *namespace == pod.namespace) {
            Some("namespaces")
        } else if !admits(&self.service_accounts, |account| *account == pod.service_account) {
            Some("service_accounts")
        } else if self
            .pod_labels
            .iter()
            .any(|(key, value)| pod.labels.get(key) != Some(value))
        {
            Some("pod_labels")
        } else {
            None
        }
    }
}

fn admits<T>(allowed: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    allowed.is_empty() || allowed.iter().any(is_it)
}
