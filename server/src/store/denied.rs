//! Whom a denial hits: [`DenialTarget::hits`] is the definition. Pure.

use std::fmt;

use signet_certs::id::SpiffeId;

use super::WorkloadRef;

/// What is denied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DenialTarget {
    /// Exactly one SPIFFE ID.
    Id(SpiffeId),
    /// A SPIFFE ID and all below it, by whole path segments.
    Prefix(SpiffeId),
    /// One pod. One of the same name that comes after it is another.
    Pod(Named),
    /// A node, its agent, and whatever runs on it: also one that comes back under the same name or the same UID.
    Node(Named),
}

/// Something that a cluster has named.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Named {
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// Its UID; empty where it is not known.
    pub uid: String,
    /// Its name, a pod's with its namespace before a `/`; empty where it is not known.
    pub name: String,
}

/// Who asks for a certificate, or has one. What does not apply is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The identity.
    pub spiffe_id: &'a SpiffeId,
    /// UID of the cluster; empty for a process outside Kubernetes, whose node has its UID all the same.
    pub cluster_uid: &'a str,
    /// UID of the pod.
    pub pod_uid: &'a str,
    /// UID of the node.
    pub node_uid: &'a str,
    /// Name of the node.
    pub node_name: &'a str,
}

impl<'a> Subject<'a> {
    /// An identity of which nothing else is known.
    pub(crate) const fn of(spiffe_id: &'a SpiffeId) -> Self {
        Self {
            spiffe_id,
            cluster_uid: "",
            pod_uid: "",
            node_uid: "",
            node_name: "",
        }
    }

    /// An agent of which no row is at hand: the last segment of its ID is its node's UID.
    pub(crate) fn of_agent(agent: &'a SpiffeId) -> Self {
        Self {
            node_uid: agent.path().rsplit('/').next().unwrap_or_default(),
            ..Self::of(agent)
        }
    }
}

impl<'a> From<&'a WorkloadRef> for Subject<'a> {
    fn from(workload: &'a WorkloadRef) -> Self {
        Self {
            spiffe_id: &workload.spiffe_id,
            cluster_uid: &workload.cluster_uid,
            pod_uid: &workload.pod_uid,
            node_uid: &workload.node_uid,
            node_name: &workload.node_name,
        }
    }
}

impl DenialTarget {
    /// The name of its kind, in the store, in lists and audit lines.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Id(_) => "spiffe-id",
            Self::Prefix(_) => "prefix",
            Self::Pod(_) => "pod",
            Self::Node(_) => "node",
        }
    }

    /// Whether it is aimed at this one.
    pub(crate) fn hits(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Id(id) => subject.spiffe_id == id,
            Self::Prefix(prefix) => subject.spiffe_id.is_within(prefix),
            Self::Pod(pod) => same(&pod.uid, subject.pod_uid) && same(&pod.cluster_uid, subject.cluster_uid),
            Self::Node(node) => {
                let here = same(&node.cluster_uid, subject.cluster_uid);
                // UIDs are unique among all clusters, names are not.
                let by_uid = same(&node.uid, subject.node_uid) && (here || subject.cluster_uid.is_empty());
                by_uid || here && same(&node.name, subject.node_name)
            }
        }
    }

    /// As the store keeps it, beside its kind.
    pub(super) fn stored(&self) -> String {
        match self {
            Self::Id(id) | Self::Prefix(id) => id.to_string(),
            // No space is part of a UID or of a name.
            Self::Pod(Named {
                cluster_uid,
                uid,
                name,
            })
            | Self::Node(Named {
                cluster_uid,
                uid,
                name,
            }) => {
                format!("{cluster_uid} {uid} {name}")
            }
        }
    }

    /// What [`stored`](Self::stored) has kept.
    pub(super) fn parse(kind: &str, stored: &str) -> Option<Self> {
        let id = || SpiffeId::parse(stored).ok();
        let named = || {
            let mut parts = stored.splitn(3, ' ').map(str::to_owned);
            Some(Named {
                cluster_uid: parts.next()?,
                uid: parts.next()?,
                name: parts.next()?,
            })
        };
        match kind {
            "spiffe-id" => id().map(Self::Id),
            "prefix" => id().map(Self::Prefix),
            "pod" => named().map(Self::Pod),
            "node" => named().map(Self::Node),
            _ => None,
        }
    }

    /// What it is aimed at, for people who know its kind.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Id(id) | Self::Prefix(id) => id.to_string(),
            Self::Pod(named) | Self::Node(named) => named.to_string(),
        }
    }
}

impl fmt::Display for DenialTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            other => write!(f, "{} {}", other.kind(), other.name()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("", &self.name),
            ("UID ", &self.uid),
            ("cluster UID ", &self.cluster_uid),
        ];
        let known = parts.iter().filter(|(_, part)| !part.is_empty());
        let known: Vec<_> = known.map(|(what, part)| format!("{what}{part}")).collect();
        f.write_str(&known.join(", "))
    }
}

/// What is not known equals nothing.
fn same(wanted: &str, found: &str) -> bool {
    !wanted.is_empty() && wanted == found
}

#[cfg(test)]
mod tests;
