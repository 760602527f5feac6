//! The ledger: what was issued, to whom, on what evidence.

use std::fmt;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::RevocationReason;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::{Attestation, Budget, Spent, Standing, StoreError, StoreFuture};

/// Most items of one call of [`Ledger::issue`].
pub(crate) const MAX_BATCH: usize = 1024;

/// How many items a batch has, if it may have so many.
pub(super) fn batch_size(batch: &[NewIssuance]) -> Result<usize, StoreError> {
    let size = batch.len();
    if size > MAX_BATCH {
        let message = format!("{size} certificates in one batch, at most {MAX_BATCH}");
        return Err(StoreError::Invalid { message });
    }
    Ok(size)
}

/// What a store keeps of certificates.
pub(crate) trait Ledger: Send + Sync {
    /// Records certificates that are about to be signed: nothing can be signed without the [`Recorded`] row that this
    /// returns. The agent that asks, denials and budgets are judged inside the same transaction, item by item, in the order of `batch`.
    /// At most [`MAX_BATCH`] items; as many answers, in the same order.
    fn issue(
        &self,
        batch: Vec<NewIssuance>,
        now: SystemTime,
    ) -> StoreFuture<'_, Vec<Result<Recorded, IssueRefusal>>>;

    /// What was issued, newest first.
    fn list(&self, filter: SvidFilter) -> StoreFuture<'_, SvidPage>;

    /// Certificates that rest on an outage and were not reviewed since, in the order of their serials: at most `limit` after
    /// `after`.
    fn unreviewed(&self, after: Option<SerialNumber>, limit: usize) -> StoreFuture<'_, Vec<LedgerRow>>;

    /// These rest on an outage no more: somebody has looked. Serials that the ledger lacks are passed over.
    fn reviewed(&self, serials: Vec<SerialNumber>) -> StoreFuture<'_, ()>;

    /// The tokens of pods that unexpired certificates rest on, each once. Reads the whole ledger: for the start of a process.
    fn pod_tokens(&self, now: SystemTime) -> StoreFuture<'_, Vec<PodTokenUse>>;

    /// For every authority that signed something still recorded: how much of it is live, and until when it matters.
    fn live_counts(&self, now: SystemTime) -> StoreFuture<'_, Vec<AuthorityUse>>;
}

/// The token of a pod, as an API server vouched for it before a certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PodTokenUse {
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Id of the token.
    pub jti: String,
}

/// One certificate that is about to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewIssuance {
    /// Fresh; unique in the ledger.
    pub serial: SerialNumber,
    /// Who will sign.
    pub authority: AuthorityId,
    /// Who gets it.
    pub workload: WorkloadRef,
    /// What proved the workload.
    pub evidence: EvidenceKind,
    /// `jti` of the token that proved it, where there was one.
    pub token_jti: Option<String>,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub spki_sha256: [u8; 32],
    /// Name of the rule that gave the identity.
    pub rule: String,
    /// Revision of the rule set it comes from.
    pub policy_revision: u64,
    /// Validity of the certificate, from.
    pub not_before: SystemTime,
    /// Validity of the certificate, to.
    pub not_after: SystemTime,
    /// The earliest time it may be: a denial that ends by itself ends by this, and nobody gets past it by a clock that is ahead.
    pub earliest: SystemTime,
    /// The certificate by which an agent asks for it: judged with the rest, once more. `None` where none asks.
    pub caller: Option<SerialNumber>,
    /// For an agent's own certificate: what is kept of the agent. The certificate is its newest from then on.
    pub attestation: Option<Attestation>,
    /// Its cluster's API server is away, and what was known before stands in for an answer: the row waits for a late review. A
    /// pod's is recorded only for a workload that has a row already, so nobody gets more by an outage than he had.
    pub outage: bool,
    /// What it is counted by: with the unexpired ones of its SPIFFE ID for the same pod, or for the same process and node
    /// when `pod_uid` is empty. `None` is no limit.
    pub budget: Option<Budget>,
}

/// A row that is durable, and with it the permission to sign its certificate once (INV-4).
///
/// Only an adapter of the store can make one, when the transaction is on the disk. It cannot be copied: whoever signs
/// uses it up.
#[derive(Debug)]
#[must_use = "a row without a certificate takes up a place in its budget"]
pub(crate) struct Recorded {
    row: NewIssuance,
    displaced: u32,
}

impl Recorded {
    /// For adapters: `row` is durable, and so many of its workload are displaced.
    pub(in crate::store) const fn new(row: NewIssuance, displaced: u32) -> Self {
        Self { row, displaced }
    }

    /// How many unexpired certificates of the same workload and identity count no more, now that there is this one.
    pub(crate) const fn displaced(&self) -> u32 {
        self.displaced
    }

    /// Who gets the certificate.
    pub(crate) const fn spiffe_id(&self) -> &SpiffeId {
        &self.row.workload.spiffe_id
    }

    /// The row.
    #[cfg(test)]
    pub(crate) const fn row(&self) -> &NewIssuance {
        &self.row
    }

    /// The row, and the permission is used up.
    #[must_use]
    pub(crate) fn into_row(self) -> NewIssuance {
        self.row
    }
}

/// Who a certificate is for. Fields that do not apply are empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WorkloadRef {
    /// UID of the cluster's kube-system namespace.
    pub cluster_uid: String,
    /// The identity in the certificate.
    pub spiffe_id: SpiffeId,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Name of the pod.
    pub pod_name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the node.
    pub node_name: String,
    /// UID of the node.
    pub node_uid: String,
    /// SPIFFE ID of the agent that asked.
    pub agent_id: String,
    /// What the agent saw of a process outside Kubernetes.
    pub process: String,
}

impl WorkloadRef {
    /// Whose budget its certificates use: the pod's, or that of the process on its node where there is no pod.
    #[must_use]
    pub(crate) fn budget_owner(&self) -> String {
        if self.pod_uid.is_empty() {
            format!("{} {}", self.node_uid, self.process)
        } else {
            self.pod_uid.clone()
        }
    }

    /// An identity of which nothing else is known.
    #[must_use]
    pub(crate) const fn of(spiffe_id: SpiffeId) -> Self {
        Self {
            cluster_uid: String::new(),
            spiffe_id,
            pod_namespace: String::new(),
            pod_name: String::new(),
            pod_uid: String::new(),
            node_name: String::new(),
            node_uid: String::new(),
            agent_id: String::new(),
            process: String::new(),
        }
    }
}

/// What proved that the workload is who it says. The numbers are stored: never reuse one. 4 and up are free for
/// `reference`, `direct`, `join_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum EvidenceKind {
    /// The pod's own bound token.
    PodToken = 0,
    /// uid, gid and executable of a process, seen by the agent.
    Unix = 1,
    /// The agent's own bound token.
    NodeToken = 2,
    /// The server's certificates for itself.
    Own = 3,
}

impl EvidenceKind {
    /// The name in rules, lists and audit lines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::PodToken => "pod-token",
            Self::Unix => "unix",
            Self::NodeToken => "node-token",
            Self::Own => "own",
        }
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::PodToken, Self::Unix, Self::NodeToken, Self::Own]
            .into_iter()
            .find(|kind| *kind as i64 == code)
    }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an item of a batch was not recorded. Its neighbours are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssueRefusal {
    /// The certificate of the agent that asks counts no more.
    #[error("the agent certificate is refused: {0}")]
    Caller(Standing),
    /// The target is denied. Why is for admins alone: whoever is denied reads this.
    #[error("denied by {denial_id}")]
    Denied {
        /// Which denial; what `allow` takes.
        denial_id: String,
    },
    /// Too many certificates within minutes.
    #[error(transparent)]
    Budget(#[from] Spent),
    /// The key is that of a certificate that was revoked as compromised.
    #[error("this key was revoked as compromised: make another")]
    CompromisedKey,
    /// In an outage, for a pod that had no certificate of this identity before.
    #[error("the cluster's API server is away, and this pod had no certificate of this identity before")]
    NewInOutage,
    /// A node token that was already used with another key: somebody has copied it.
    #[error("this node token was already used with another key")]
    TokenReused,
    /// The serial is in the ledger: choose another.
    #[error("the serial is already in use")]
    SerialTaken,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    /// Serial of the certificate.
    pub serial: SerialNumber,
    /// Who signed.
    pub authority: AuthorityId,
    /// Who it is for.
    pub workload: WorkloadRef,
    /// What proved the workload.
    pub evidence: EvidenceKind,
    /// Name of the rule that gave the identity.
    pub rule: String,
    /// Validity, from.
    pub not_before: SystemTime,
    /// Validity, to.
    pub not_after: SystemTime,
    /// When and why it was revoked.
    pub revoked: Option<(SystemTime, RevocationReason)>,
}

/// Which rows to list. Conditions add up.
#[derive(Clone, Debug, Default)]
pub(crate) struct SvidFilter {
    /// This SPIFFE ID and all below it, by whole path segments.
    pub spiffe_id_prefix: Option<SpiffeId>,
    /// This SPIFFE ID alone.
    pub spiffe_id: Option<SpiffeId>,
    /// `namespace/name` or UID of a pod.
    pub pod: Option<String>,
    /// Name or UID of a node.
    pub node: Option<String>,
    /// Only what is neither revoked nor expired at this time: the earliest it may be, where somebody wants to know what to revoke.
    pub live_at: Option<SystemTime>,
    /// Only what is not expired at this time, revoked or not.
    pub unexpired_at: Option<SystemTime>,
    /// At most so many; 0 means 1 000, the most is 10 000.
    pub limit: u32,
}

impl SvidFilter {
    /// How many rows the answer may have.
    pub(super) fn most(&self) -> usize {
        match self.limit {
            0 => 1_000,
            limit => limit.min(10_000) as usize,
        }
    }
}

/// Rows of the ledger, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SvidPage {
    /// The rows.
    pub rows: Vec<LedgerRow>,
    /// Whether there are more.
    pub truncated: bool,
}

/// How much of what an authority signed is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityUse {
    /// Which authority.
    pub authority: AuthorityId,
    /// Certificates neither expired nor revoked.
    pub live: u64,
    /// When the last certificate it signed expires, revoked ones included: until then it must sign its CRL.
    pub latest_not_after: SystemTime,
}
