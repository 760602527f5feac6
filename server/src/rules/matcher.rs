//! Whether facts meet the criteria of a rule.

use std::collections::BTreeMap;

use super::{Evidence, Facts};

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
    /// Not all of them.
    Differs,
    /// All but for the labels of the namespace, which are not known.
    Open,
}

/// Something that a rule asks for, in the order in which it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Criterion {
    Evidence,
    Clusters,
    /// Of a pod: anything that only processes have.
    OfProcesses,
    /// Of a process: anything that only pods have.
    OfPods,
    Namespaces,
    ServiceAccounts,
    PodLabels,
    Uids,
    Gids,
    Paths,
    Sha256,
    /// Last, for they may not be known: they are asked for only where all else is met.
    NamespaceLabels,
}

impl Criterion {
    const ALL: [Self; 12] = [
        Self::Evidence,
        Self::Clusters,
        Self::OfProcesses,
        Self::OfPods,
        Self::Namespaces,
        Self::ServiceAccounts,
        Self::PodLabels,
        Self::Uids,
        Self::Gids,
        Self::Paths,
        Self::Sha256,
        Self::NamespaceLabels,
    ];

    /// Its key in the configuration.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Clusters => "clusters",
            Self::OfProcesses => "unix",
            Self::OfPods => "namespaces, namespace_labels, service_accounts or pod_labels",
            Self::Namespaces => "namespaces",
            Self::ServiceAccounts => "service_accounts",
            Self::PodLabels => "pod_labels",
            Self::Uids => "unix.uids",
            Self::Gids => "unix.gids",
            Self::Paths => "unix.paths",
            Self::Sha256 => "unix.sha256",
            Self::NamespaceLabels => "namespace_labels",
        }
    }
}

/// Whether facts meet a criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    No,
    /// It hangs on something that is not known.
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
        match self.unmet(facts).next() {
            None => Fit::Matches,
            Some((_, Met::Open)) => Fit::Open,
            Some(_) => Fit::Differs,
        }
    }

    /// The criteria that the facts do not meet, in the order in which they are looked at. Whoever decides takes the first,
    /// whoever explains takes all of them.
    pub(super) fn unmet<'a>(&'a self, facts: &'a Facts<'_>) -> impl Iterator<Item = (Criterion, Met)> + 'a {
        let met = move |criterion: Criterion| (criterion, self.meets(criterion, facts));
        Criterion::ALL
            .into_iter()
            .map(met)
            .filter(|(_, met)| *met != Met::Yes)
    }

    /// Criteria on the other kind of workload are not met as a whole, and one by one they say nothing.
    fn meets(&self, criterion: Criterion, facts: &Facts<'_>) -> Met {
        use Criterion as C;
        let is_met = match (criterion, facts) {
            (C::Evidence, _) => self.evidence.contains(&facts.evidence()),
            (C::Clusters, _) => admits(&self.clusters, |cluster| cluster == facts.cluster()),
            (C::OfProcesses, Facts::Pod(_)) => self.unix.is_empty(),
            (C::OfPods, Facts::Unix(_)) => !self.asks_for_pods(),
            (C::Namespaces, Facts::Pod(pod)) => admits(&self.namespaces, |one| *one == pod.namespace),
            (C::ServiceAccounts, Facts::Pod(pod)) => {
                admits(&self.service_accounts, |one| *one == pod.service_account)
            }
            (C::PodLabels, Facts::Pod(pod)) => has_all(&pod.labels, &self.pod_labels),
            (C::Uids, Facts::Unix(unix)) => admits(&self.unix.uids, |uid| *uid == unix.uid),
            (C::Gids, Facts::Unix(unix)) => admits(&self.unix.gids, |gid| *gid == unix.gid),
            (C::Paths, Facts::Unix(unix)) => admits(&self.unix.paths, |path| {
                Some(path.as_str()) == unix.path.as_deref()
            }),
            (C::Sha256, Facts::Unix(unix)) => admits(&self.unix.sha256, |hash| Some(*hash) == unix.sha256),
            (C::NamespaceLabels, Facts::Pod(pod)) => match &pod.namespace_labels {
                _ if self.namespace_labels.is_empty() => true,
                None => return Met::Open,
                Some(labels) => has_all(labels, &self.namespace_labels),
            },
            _ => true,
        };
        if is_met { Met::Yes } else { Met::No }
    }
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn admits<T>(allowed: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    allowed.is_empty() || allowed.iter().any(is_it)
}
