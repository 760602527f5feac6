//! Attestation: from a service account token to a proven node or pod.
//!
//! A token is believed in four steps, the cheap ones first: it is checked locally against the cluster's signing keys
//! (`jwks`), reviewed once by the API server (`token_review`), matched with the live pod of the watch,
//! and judged by pure rules ([`policy`]). [`cluster`] puts the steps together for one or several clusters. While one cannot be
//! reached ([`reach`]) what was attested before goes on for a while.
//!
//! Calls made to a cluster's API server, all of them bounded in time and size; those that callers cause wait for their turn
//! and for room (`kubernetes::budget`), and one attestation ends after 24 s, whatever it waits for:
//!
//! | call | when |
//! |---|---|
//! | `GET /api/v1/namespaces/kube-system` | at start: its UID names the cluster |
//! | `GET /version` | every 20 s, every 5 s without an answer: whether the cluster can be reached, and which time it is |
//! | `GET /.well-known/openid-configuration`, `GET /openid/v1/jwks` | every 5 min, every 10 s where that failed, and for an unknown key id: four times at once, then every 10 s, for each who brings one ([`jwks`]) |
//! | `POST /apis/authentication.k8s.io/v1/tokenreviews` | once per token, also over a restart while a certificate rests on it and the cluster is there; of one that is refused at most every 10 s, also for the reads below ([`refused`]) |
//! | watch `/api/v1/pods`, `/api/v1/serviceaccounts`, beginning with all of them, or with a list in pages where the API server has no such watch | always |
//! | `GET /api/v1/namespaces/{ns}/pods/{name}` | a pod that the watch does not show, or shows differently; one that an admin asks about and the watch does not show |
//! | watch `/api/v1/namespaces`, in the same way | while a rule asks for labels of namespaces |
//! | `GET /api/v1/namespaces/{name}` | the labels of a namespace that a rule asks for and that watch does not show |
//! | `GET /api/v1/nodes/{name}` | the node still exists under that UID: for each node attestation, every 5 min for the pods of a node, and once after an outage for what was issued in it |

pub(crate) mod cluster;
pub(crate) mod config;
#[cfg(test)]
pub(crate) mod fake;
mod found;
mod jwks;
pub(crate) mod policy;
mod reach;
mod refused;
mod remembered;
#[cfg(test)]
mod testing;
mod token_review;
mod vouched;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use signet_certs::id::SpiffeId;
use signet_runtime::limits::Limit;
use signet_runtime::source::Source;
use tokio::sync::watch::Receiver;

pub(crate) use self::found::{Found, FoundPod, PodsLike};
pub use self::policy::RefusedReason;
use crate::kubernetes::api::{CALLS, Unavailable};
use crate::kubernetes::budget;

/// Why callers are told to come back, as the [`Refusals`](signet_runtime::refusals::Refusals) of attestation count it.
pub(crate) const REASONS: &[&str] = &[CALLS, jwks::UNKNOWN_KEYS];

/// What callers may have of API servers, as docs/limits.md prints it.
pub(crate) fn limits() -> Vec<Limit> {
    let mut rows = vec![token_review::limit()];
    rows.extend(budget::limits(config::CALLS_PER_SECOND));
    rows.push(refused::limit());
    rows.extend(jwks::limits());
    rows
}

/// Proves nodes and pods by their service account tokens.
///
/// A refusal is a verdict and safe to show to the caller; [`AttestError::Unavailable`] is none: the same question may
/// be answered differently a moment later.
pub trait Attestor: Send + Sync {
    /// Proves on which node of `cluster` the holder of a node token runs.
    fn attest_node<'a>(
        &'a self,
        bearer: Bearer<'a>,
        cluster: &'a str,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedNode, AttestError>>;

    /// Proves a live pod on the calling agent's own node by the pod's token.
    fn attest_pod<'a>(
        &'a self,
        agent: &'a AgentIdentity,
        token: &'a str,
    ) -> BoxFuture<'a, Result<AttestedPod, AttestError>>;

    /// Labels of a proven pod's namespace as they are now, which whoever administers the cluster sets; in an outage as they were
    /// when it began. Never a verdict: where nobody knows them they are [unavailable](AttestError::Unavailable).
    fn namespace_labels<'a>(
        &'a self,
        pod: &'a AttestedPod,
    ) -> BoxFuture<'a, Result<Arc<BTreeMap<String, String>>, AttestError>>;

    /// Which node a node token names, where an outage of its cluster is no reason to refuse it. No proof by itself: whoever
    /// asks holds it against the certificate that the agent of this node was given before.
    ///
    /// `None` while the cluster can be reached, however a call went, once the outage is older than the grace, and for a token
    /// that was no good when it began.
    fn node_in_outage<'a>(&'a self, cluster: &'a str, token: &'a str) -> BoxFuture<'a, Option<NodeInOutage>>;

    /// Pods on the agent's node, as the watch of its cluster last showed them; those that are over do not count.
    fn pods_on_node(&self, agent: &AgentIdentity) -> usize;

    /// Whether a synced watch of the cluster shows no pod with this UID. Never on a guess: a watch that lags shows less.
    fn is_pod_gone(&self, cluster: &str, pod_uid: &str) -> bool;

    /// What the watch of the cluster of this name shows of a pod, without any token of it. No proof: for whoever wants to know what
    /// rules would make of it.
    fn known_pod(&self, cluster: &str, pod_uid: &str) -> KnownPod;

    /// The pod of this name, as the watch of the cluster shows it, else as its API server has it: one call, of that pod. No proof.
    fn find_pod<'a>(&'a self, cluster: &'a str, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Found>;

    /// Pods as the watch of the cluster shows them, without those that are over; and whether there are more than `most`.
    fn pods_like(&self, cluster: &str, like: &PodsLike, most: usize) -> (Vec<AttestedPod>, bool);

    /// Whether what a certificate was issued for is there now, by an API server that can be reached and whose watch has come up
    /// to the present. `None` where nobody can say yet.
    fn is_there<'a>(&'a self, place: Place<'a>) -> BoxFuture<'a, Option<bool>>;

    /// Forgets what API servers have said of tokens: time went back, and what they were trusted until was another time.
    fn forget_reviews(&self);

    /// The clusters that cannot be reached, as that changes.
    fn outages(&self) -> Receiver<Outages>;

    /// The clusters by name, with what is known of their health.
    fn clusters(&self) -> Vec<ClusterHealth>;
}

/// Since when each cluster that cannot be reached cannot be, by the cluster's name.
pub(crate) type Outages = BTreeMap<String, SystemTime>;

/// A calling agent, as proven by its own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// Name of its cluster in the server's configuration.
    pub cluster: String,
    /// Name of its node.
    pub node_name: String,
    /// UID of its node object.
    pub node_uid: String,
}

/// Who brings a node token, as the connection proves it. A token proves nothing before its signature is verified: what it costs until then
/// is paid by whoever brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// The agent with this SPIFFE ID, by a certificate that counts.
    Agent(&'a SpiffeId),
    /// Whoever connects from there without.
    Stranger(Source),
}

impl fmt::Display for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.fmt(f),
            Self::Stranger(source) => source.fmt(f),
        }
    }
}

/// A node proven by the token of the agent's own pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedNode {
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// Name of the node.
    pub node_name: String,
    /// UID of the node object.
    pub node_uid: String,
    /// Namespace of the agent's pod.
    pub namespace: String,
    /// Service account of the agent's pod, one of the allowed ones.
    pub service_account: String,
    /// Name of the agent's pod.
    pub pod_name: String,
    /// UID of the agent's pod.
    pub pod_uid: String,
    /// Id of the token; whoever issues refuses it with a second key.
    pub jti: String,
    /// When the token expires; its id need not be remembered longer.
    pub expires: SystemTime,
}

/// What a certificate was issued for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: &'a str,
    /// UID of the pod; empty for a node alone.
    pub pod_uid: &'a str,
    /// Name of the node.
    pub node_name: &'a str,
    /// UID of the node.
    pub node_uid: &'a str,
}

/// The node that a token names while nobody can be asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInOutage {
    /// UID of the cluster's kube-system namespace; empty where it is not known.
    pub cluster_uid: String,
    /// Name of the node.
    pub node_name: String,
    /// UID of the node object.
    pub node_uid: String,
}

/// A live pod proven by its own token, on the node of the agent that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedPod {
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Service account of the pod.
    pub service_account: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of its node.
    pub node_name: String,
    /// UID of its node.
    pub node_uid: String,
    /// Labels of the pod as they are now; whoever creates a pod sets them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Labels of its namespace, where somebody has [asked for them](Attestor::namespace_labels).
    pub namespace_labels: Option<Arc<BTreeMap<String, String>>>,
    /// Id of the token.
    pub jti: String,
    /// When the token expires.
    pub expires: SystemTime,
    /// The pod is being deleted and still there: it may renew until it is gone.
    pub terminating: bool,
    /// The API server is away: this is what was known when that began.
    pub outage: bool,
}

/// A pod as a watch shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownPod {
    /// It is there. What only a token tells (its id, its end, the UID of the node) is empty.
    There(Box<AttestedPod>),
    /// It is not, or is over: nobody is attested by it any more.
    Gone,
    /// The watch has not shown it, and shows less than there is.
    Unknown,
}

/// Why a token led to no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// A verdict on the token or its pod; the text may be shown to the caller.
    #[error("{0}")]
    Refused(#[from] RefusedReason),
    /// Not a verdict: the cluster could not be asked, or not often enough.
    #[error("{message}")]
    Unavailable {
        /// What is wrong and what to do; free of tokens and of the API server's own words.
        message: String,
        /// When asking again makes sense.
        retry_after: Duration,
    },
}

impl From<Unavailable> for AttestError {
    fn from(Unavailable { message, retry_after }: Unavailable) -> Self {
        Self::Unavailable { message, retry_after }
    }
}

/// What the attestor knows of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterHealth {
    /// Name of the cluster in the server's configuration.
    pub name: String,
    /// UID of its kube-system namespace; none before the first contact.
    pub uid: Option<String>,
    /// Pod and service account watches are complete and showed a sign of life within the last minute.
    pub synced: bool,
    /// Since when its API server cannot be reached; none while it can.
    pub unreachable_since: Option<SystemTime>,
    /// Time since the older of the two watches last showed a sign of life.
    pub last_seen: Option<Duration>,
    /// Number of pods in the watch.
    pub pods: usize,
    /// Positive reviews of tokens that are kept.
    pub kept_reviews: usize,
    /// Reviews that were given up for others of the same pod, or not kept for want of room.
    pub displaced_reviews: u64,
    /// What stands in the way, if anything does.
    pub problem: Option<String>,
}
