//! The agent's view of the server: one trait, its tonic implementation, and the trust state that is pushed.
//!
//! Wire types stop in `convert`; everybody else sees the types of this module. No token leaves before the
//! server has proved exactly `spiffe://<td>/signet/server` against the control anchors ([`anchors`]).

mod alert;
pub(crate) mod anchors;
mod connect;
mod convert;
pub(crate) mod dial;
mod grpc;
mod key_exchange;
mod line;
pub(crate) mod objections;
pub(crate) mod received;
pub(crate) mod sync;
pub(crate) mod trust;

#[cfg(test)]
pub(crate) mod fake;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use signet_certs::authority::AuthorityId;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use self::trust::Said;
use crate::cache::{Affected, UnixFacts};
use crate::token::PodToken;
pub(crate) use grpc::GrpcServer;
pub(crate) use key_exchange::KeyExchanges;

/// Largest number of items in one issue request that this agent sends.
pub(crate) const MAX_BATCH: usize = 64;

/// What the agent asks the server. Calls may run at the same time; each has a time limit of its own. Any may fail with
/// `Refused` because the two cannot agree on a protocol version.
pub(crate) trait ServerApi: Send + Sync {
    /// Proves which node this is; without a client certificate.
    ///
    /// # Errors
    /// [`ServerError`].
    fn attest_node(&self, request: NodeAttestation) -> BoxFuture<'_, Result<AttestedNode, ServerError>>;

    /// Asks for at most [`MAX_BATCH`] certificates. The answers are as many, in the same order.
    ///
    /// # Errors
    /// [`ServerError`] when the request as a whole failed.
    fn issue(&self, items: Vec<IssueItem>) -> BoxFuture<'_, Result<Vec<IssueOutcome>, ServerError>>;

    /// Opens the trust stream: each update is complete; the newest report is sent at once and after each change. What is said
    /// in `answers` goes out once, beside the newest report.
    ///
    /// # Errors
    /// [`ServerError`].
    fn sync_trust(
        &self,
        reports: watch::Receiver<TrustReport>,
        answers: mpsc::Receiver<Answer>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError>>;

    /// Reads what is public of the trust state once, without a client certificate. Rules and workloads are not in it.
    ///
    /// # Errors
    /// [`ServerError`].
    fn read_trust(&self) -> BoxFuture<'_, Result<TrustUpdate, ServerError>>;

    /// From here on new calls use connections made with the agent's newest certificate, which has this serial.
    fn identity_changed(&self, serial: SerialNumber);
}

/// Why a call failed.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub(crate) enum ServerError {
    /// The server looked and said no; asking the same again is of no use until something changes.
    #[error("{0}")]
    Refused(String),
    /// The server does not accept the agent's own certificate; the node must attest again.
    #[error("{0}")]
    Unauthenticated(String),
    /// The same, for it is revoked: its key must not be certified again.
    #[error("{message}")]
    Revoked {
        /// What the server said.
        message: String,
        /// Of the certificate.
        serial: SerialNumber,
    },
    /// Not reached, overloaded, or broken: try again.
    #[error("{message}")]
    Unavailable {
        /// What happened, for a person.
        message: String,
        /// The server's wish.
        retry_after: Option<Duration>,
    },
}

impl ServerError {
    /// A failure without a wish of the server.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable {
            message: message.into(),
            retry_after: None,
        }
    }
}

/// Evidence of the node with the public key to certify.
pub(crate) struct NodeAttestation {
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// Name of the cluster in the server's configuration.
    pub cluster: String,
    /// The agent's own projected token.
    pub token: Zeroizing<String>,
}

/// The answer to a [`NodeAttestation`]. Not verified yet.
#[derive(Clone, Debug)]
pub(crate) struct AttestedNode {
    /// Leaf first, DER.
    pub chain: Vec<Bytes>,
    /// The agent's own ID.
    pub spiffe_id: SpiffeId,
    /// Kubernetes' name of the node.
    pub node_name: String,
    /// UID of the node object.
    pub node_uid: String,
    /// Certificates of the control authorities, DER.
    pub control_authorities: Vec<Bytes>,
    /// Over whose connection they came.
    pub said: Said,
}

/// One certificate to ask for.
pub(crate) struct IssueItem {
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
    /// Which identity; `None` is the default one.
    pub spiffe_id: Option<SpiffeId>,
    /// Why the workload deserves it.
    pub evidence: IssueEvidence,
}

/// Evidence of one workload.
pub(crate) enum IssueEvidence {
    /// The pod's own bound token.
    PodToken {
        /// The token.
        token: Arc<PodToken>,
        /// UID of the pod whose volume it came with.
        of_pod: String,
    },
    /// A process on the shared socket.
    Unix(UnixFacts),
}

/// The server's answer to one [`IssueItem`].
#[derive(Clone, Debug)]
pub(crate) enum IssueOutcome {
    /// A certificate; not verified yet.
    Issued(IssuedChain),
    /// A refusal.
    Refused {
        /// Decides what follows from it.
        reason: RefusalReason,
        /// For the workload's owner.
        message: String,
        /// The rules it rests on.
        policy_revision: u64,
        /// When asking again makes sense.
        retry_after: Option<Duration>,
    },
    /// Not a verdict.
    Unavailable {
        /// For the workload's owner.
        message: String,
        /// When asking again makes sense.
        retry_after: Option<Duration>,
    },
}

/// A certificate as it came.
#[derive(Clone, Debug)]
pub(crate) struct IssuedChain {
    /// As the server names it; the leaf is checked against it.
    pub spiffe_id: SpiffeId,
    /// Leaf first, without the root, DER.
    pub chain: Vec<Bytes>,
    /// Every identity of the workload with its hint, default first; at least the one above.
    pub identities: Vec<(SpiffeId, String)>,
    /// The rules and denials it rests on.
    pub policy_revision: u64,
}

/// See the protocol's `Refusal.Reason`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalReason {
    /// Too many certificates within minutes.
    Budget,
    /// A denial or a deny rule: a verdict.
    Denied,
    /// CSR or SPIFFE ID is faulty.
    InvalidRequest,
    /// No rule: a verdict.
    NoMatch,
    /// The evidence does not prove a live workload of this node; newer evidence may.
    NotAttested,
    /// A reason that this version does not know; treated as temporary.
    Unknown,
}

/// One push of the trust stream, complete but for `affected`. Not verified yet.
#[derive(Clone, Debug)]
pub(crate) struct TrustUpdate {
    /// Of the bundle; never goes back.
    pub sequence_number: u64,
    /// How often readers should look.
    pub refresh_hint: Duration,
    /// The workloads' authorities.
    pub x509: Vec<OfferedAuthority>,
    /// The control plane's authorities; never part of a bundle.
    pub control: Vec<OfferedAuthority>,
    /// Of the rules.
    pub policy_revision: u64,
    /// Whose verdicts changed.
    pub affected: Option<Affected>,
    /// Of the server's store; 0 when the server does not say.
    pub epoch: u64,
    /// The server's clock; `None` when the server does not say.
    pub clock: Option<SystemTime>,
    /// Authorities that left because they were not to be trusted any more.
    pub departed: Vec<AuthorityId>,
    /// Since when the API server of the agent's cluster cannot be reached; `None` while it can, or the server does not say.
    pub unreachable_since: Option<SystemTime>,
    /// Names of the reasons for which the server cannot issue; empty when it can, or does not say.
    pub not_issuing: Vec<String>,
    /// Authorities of which the server asks for the list that is held.
    pub wanted: Vec<AuthorityId>,
    /// Over whose connection it came.
    pub said: Said,
}

/// One authority as it came.
#[derive(Clone, Debug)]
pub(crate) struct OfferedAuthority {
    /// DER.
    pub certificate: Bytes,
    /// Its newest CRL, DER; empty where the server named it instead and it was not put in yet
    /// ([`complete`](trust::complete)).
    pub crl: Bytes,
    /// SHA-256 of the newest CRL, where the server named it.
    pub named: Option<[u8; 32]>,
    /// Its leaves are to be replaced.
    pub tainted: bool,
}

/// What the agent holds, for the server to know how far its news has spread.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TrustReport {
    /// 0 before the first update.
    pub sequence_number: u64,
    /// SHA-256 over the bundle.
    pub bundle_digest: Option<[u8; 32]>,
    /// For each authority the CRL that is held.
    pub crls: Vec<CrlReport>,
    /// Unexpired leaves by authority.
    pub authorities_in_use: Vec<(AuthorityId, u32)>,
    /// These are all there are: what an earlier run has left is among them.
    pub knows_in_use: bool,
    /// Pods with a volume on this node.
    pub pod_uids: Vec<String>,
    /// Why the pushed bundle is not believed; empty when it is.
    pub problem: String,
    /// Of the server's store, as last believed; 0 while no server has said.
    pub epoch: u64,
    /// The server's rules at that moment.
    pub policy_revision: u64,
}

/// What an agent says once, to what an update asks.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Answer {
    /// The lists that were asked for and are held, DER.
    pub lists: Vec<Bytes>,
    /// Authorities whose list was named and is not held.
    pub lacking: Vec<AuthorityId>,
}

/// One CRL as held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CrlReport {
    /// Its issuer.
    pub authority: AuthorityId,
    /// Its number.
    pub number: u64,
    /// SHA-256 over its DER.
    pub sha256: [u8; 32],
}

/// The one identity that the server must prove.
pub(crate) fn server_id(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::server(trust_domain)
}
