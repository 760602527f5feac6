//! How clusters are attested, checked.

use std::time::Duration;

use crate::attest::policy::ServiceAccountName;
use crate::kubernetes::access::Access;

/// How nodes and pods are attested.
#[derive(Debug, Clone)]
pub struct AttestationConfig {
    /// The Kubernetes clusters whose tokens are accepted; no two have one name.
    pub clusters: Vec<ClusterConfig>,
    /// Audience of node tokens.
    pub node_audience: String,
    /// Audience of pod tokens; another than of nodes'.
    pub pod_audience: String,
    /// Longest lifetime of a token that is accepted.
    pub max_token_lifetime: Duration,
    /// How long what was attested before may be renewed while its cluster cannot be reached.
    pub grace: Duration,
    /// TokenReviews and live reads per second and cluster, and how many of them may come at once.
    pub calls: (u32, u32),
}

/// One Kubernetes cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Its name in agents' IDs, rules and commands.
    pub name: String,
    /// UID of its kube-system namespace; the server does not start against another cluster.
    pub uid: Option<String>,
    /// How it is reached.
    pub access: Access,
    /// Service accounts whose pods may act as node agents.
    pub agents: Vec<ServiceAccountName>,
    /// Issuers of tokens accepted besides the one the cluster names; for a change of issuer.
    pub more_issuers: Vec<String>,
}
