//! What goes into the cache and what comes out of it.

use std::time::{Duration, SystemTime};

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use crate::context::GrantedSvid;

/// Names a workload in this agent.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum WorkloadId {
    /// A pod, by UID. All its volumes and containers share the leaves, so that budgets hold per pod.
    Pod(String),
    /// A process outside Kubernetes, by everything that was attested about it.
    Unix(UnixFacts),
}

/// What was seen of a process on the shared socket.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct UnixFacts {
    /// Effective user id at connect time.
    pub uid: u32,
    /// Effective group id at connect time.
    pub gid: u32,
    /// Path of the executable; `None` where it could not be read.
    pub path: Option<String>,
    /// SHA-256 of the executable's contents; `None` where it could not be read.
    pub sha256: Option<[u8; 32]>,
}

/// Whether the server can be asked for a workload now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Evidence {
    /// A token that proves the pod until then.
    Until(SystemTime),
    /// A live process that was attested.
    Live,
    /// Nobody is there to attest: what is held is served until it expires, nothing is asked for.
    Absent,
}

impl Evidence {
    /// Whether it proves the workload now, where the cluster's API server cannot be reached since `outage`.
    pub(super) fn holds(self, outage: Option<SystemTime>, now: SystemTime) -> bool {
        match self {
            Self::Until(expires) => expires > outage.map_or(now, |since| since.min(now)),
            Self::Live => true,
            Self::Absent => false,
        }
    }
}

/// One leaf with what the cache decides by.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// What the workload gets. Its `not_after` bounds everything.
    pub svid: GrantedSvid,
    /// Serial of the leaf, looked up in CRLs.
    pub serial: SerialNumber,
    /// The authority that signed it, looked up in the bundle.
    pub authority: AuthorityId,
    /// The server's rules and denials when it was issued.
    pub policy_revision: u64,
}

/// The trust that is published together with leaves.
pub(crate) trait TrustView: Send + Sync {
    /// The authority is in the bundle.
    fn contains(&self, authority: &AuthorityId) -> bool;
    /// The authority is in the bundle, but its leaves are to be replaced.
    fn is_tainted(&self, authority: &AuthorityId) -> bool;
    /// The serial is on the authority's CRL.
    fn is_revoked(&self, authority: &AuthorityId, serial: &SerialNumber) -> bool;
}

/// One identity to ask the server for. Handed out once; answered by [`Cache::issued`](super::Cache::issued),
/// [`Cache::refused`](super::Cache::refused) or [`Cache::failed`](super::Cache::failed).
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// For whom.
    pub workload: WorkloadId,
    /// Which identity; `None` asks for the default one and for the list of all.
    pub spiffe_id: Option<SpiffeId>,
    /// Tells late answers for a replaced slot from those for the present one.
    pub(super) slot: u64,
}

/// A verified answer to a [`Wanted`].
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    /// The leaf under the identity that the server chose or was asked for.
    pub leaf: Leaf,
    /// Every identity of the workload, default first, with hints. Heeded only in answers for the default identity.
    pub identities: Vec<(SpiffeId, String)>,
}

/// A verdict: the server looked and grants nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// Why, for the workload's owner.
    pub message: String,
    /// The rules it rests on; another revision asks again.
    pub policy_revision: u64,
}

/// Not a verdict: what is held stays, the question is asked again later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Failure {
    /// Why, for the workload's owner. No secrets.
    pub message: String,
    /// The server's wish; the longer of it and the backoff counts.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without a wish of the server.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retry_after: None,
        }
    }
}

/// Whose verdicts may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Affected {
    /// Every workload of the node.
    All,
    /// The pods with these UIDs.
    Pods(Vec<String>),
}

/// What to publish for a workload now.
#[derive(Clone, Debug)]
pub(crate) enum CacheState<'a> {
    /// No usable leaf for the default identity, and no verdict.
    Pending {
        /// Why it takes long.
        problem: Option<String>,
    },
    /// Leaves that are valid, unrevoked and verified by the present bundle, default first.
    Ready(Vec<Granted<'a>>),
    /// A verdict about every identity.
    Refused {
        /// Why.
        message: String,
    },
}

/// One published identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted<'a> {
    /// Its leaf.
    pub leaf: &'a Leaf,
    /// Its hint as the server last gave it, which may be newer than the leaf.
    pub hint: &'a str,
}

/// One identity as shown to a person.
#[derive(Clone, Debug)]
pub(crate) struct SlotStatus {
    /// The leaf that is held, if any.
    pub leaf: Option<Leaf>,
    /// When the server will be asked next; `None` while nothing is planned.
    pub renew_at: Option<SystemTime>,
    /// Why the last attempt did not succeed.
    pub problem: Option<String>,
}

impl SlotStatus {
    /// The date of the next question; "at once" and "not planned" have none.
    pub(crate) fn planned(&self) -> Option<SystemTime> {
        self.renew_at.filter(|at| *at > SystemTime::UNIX_EPOCH)
    }
}

/// The identity of an answered leaf: the one asked for by name, or the listed one whose text is in the leaf.
pub(super) fn leaf_id(leaf: &Leaf, wanted: &Wanted, identities: &[(SpiffeId, String)]) -> Option<SpiffeId> {
    let matches = |id: &&SpiffeId| id.as_str() == leaf.svid.spiffe_id;
    match &wanted.spiffe_id {
        Some(asked) => Some(asked).filter(matches).cloned(),
        None => identities.iter().map(|(id, _)| id).find(matches).cloned(),
    }
}
