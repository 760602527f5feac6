//! What is asked of the issuer, and what it answers.

use std::time::Duration;

use bytes::Bytes;
use signet_certs::id::SpiffeId;
use zeroize::Zeroizing;

use crate::{attest::AttestError, store::Standing};

/// When a caller should come back whom something stands in the way of that passes soon.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// One certificate wanted for a workload.
pub(crate) struct IssueItem {
    /// PKCS#10, DER.
    pub csr: Bytes,
    /// Which of the workload's identities; `None` is the default one.
    pub spiffe_id: Option<String>,
    /// What proves the workload.
    pub evidence: Evidence,
}

/// What an agent brings to prove a workload.
pub(crate) enum Evidence {
    /// The pod's own bound token.
    PodToken {
        /// The token.
        token: Zeroizing<String>,
        /// UID of the pod that the agent got it for; `None` from an agent that does not say.
        of_pod: Option<String>,
    },
    /// What the agent saw of a process outside Kubernetes.
    Unix {
        /// User of the process.
        uid: u32,
        /// Group of the process.
        gid: u32,
        /// Path of its executable, if it could be read.
        path: Option<String>,
        /// SHA-256 of the executable, if it could be read.
        sha256: Option<[u8; 32]>,
    },
}

/// Why a call was not served at all.
#[derive(Debug)]
pub(crate) enum CallRefused {
    /// Too much is under way.
    TooBusy,
    /// What the agent asked for came to nothing too often; in so long it may ask again.
    Fruitless(Duration),
    /// The certificate by which the agent asks counts no more: it was revoked, or another was used, while the call was under
    /// way.
    Certificate(Standing),
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answered {
    /// What became of each item, in order.
    pub outcomes: Vec<Outcome>,
    /// Revision of the rules that decided about all of them.
    pub policy_revision: u64,
}

/// What became of one item.
pub(crate) type Outcome = Result<Issued, NotIssued>;

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) enum NotIssued {
    /// A verdict: the same question gets the same answer until the policy revision changes.
    Refused(Refusal),
    /// Not a verdict: try again.
    Unavailable {
        /// What is wrong, safe to show.
        message: String,
        /// When to ask again.
        retry_after: Duration,
    },
}

impl NotIssued {
    /// A verdict.
    pub(super) fn refused(reason: RefusalReason, message: String) -> Self {
        Self::Refused(Refusal::new(reason, message))
    }

    /// Trouble of ours that should pass soon.
    pub(super) fn unavailable(message: &str) -> Self {
        Self::Unavailable {
            message: message.to_owned(),
            retry_after: RETRY_AFTER,
        }
    }

    /// A refusal that says more to admins than to its caller.
    pub(super) fn aside(self, aside: Option<String>) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Refusal { aside, ..refusal }),
            trouble @ Self::Unavailable { .. } => trouble,
        }
    }

    /// A refusal that says which pod it is about; trouble is about none.
    pub(super) fn about_pod(self, pod_uid: &str) -> Self {
        match self {
            Self::Refused(refusal) => Self::Refused(Refusal {
                pod_uid: Some(pod_uid.to_owned()),
                ..refusal
            }),
            trouble @ Self::Unavailable { .. } => trouble,
        }
    }
}

/// A certificate and what else the workload may have.
#[derive(Debug)]
pub(crate) struct Issued {
    /// Identity in the certificate.
    pub spiffe_id: SpiffeId,
    /// DER: the leaf, then what stands between it and its authority's root.
    pub chain: Vec<Vec<u8>>,
    /// Hint of the rule.
    pub hint: String,
    /// Every identity of the workload with its hint, default first.
    pub identities: Vec<(SpiffeId, String)>,
}

/// A refusal with its reason.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Which kind.
    pub reason: RefusalReason,
    /// For the agent's log and its workload; safe to show.
    pub message: String,
    /// What else there is to know, for admins alone.
    pub aside: Option<String>,
    /// When it may change by itself; only for [`RefusalReason::Budget`].
    pub retry_after: Option<Duration>,
    /// About which identity, where that is known; for the audit log.
    pub spiffe_id: Option<SpiffeId>,
    /// About which pod, where that is known; for the audit log.
    pub pod_uid: Option<String>,
}

impl Refusal {
    /// For this reason, about nobody in particular.
    pub(crate) fn new(reason: RefusalReason, message: String) -> Self {
        Self {
            reason,
            message,
            aside: None,
            retry_after: None,
            spiffe_id: None,
            pod_uid: None,
        }
    }
}

impl From<AttestError> for NotIssued {
    fn from(error: AttestError) -> Self {
        match error {
            AttestError::Refused(reason) => Self::refused(RefusalReason::NotAttested, reason.to_string()),
            AttestError::Unavailable { message, retry_after } => Self::Unavailable { message, retry_after },
        }
    }
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// CSR or SPIFFE ID faulty.
    InvalidRequest,
    /// The evidence proves no live workload of this node.
    NotAttested,
    /// No rule matches.
    NoMatch,
    /// A denial or a deny rule.
    Denied,
    /// Too many certificates within minutes.
    Budget,
}

impl RefusalReason {
    /// Every one.
    pub(crate) const ALL: [Self; 5] = [
        Self::InvalidRequest,
        Self::NotAttested,
        Self::NoMatch,
        Self::Denied,
        Self::Budget,
    ];

    /// Name in metrics and audit lines.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotAttested => "not_attested",
            Self::NoMatch => "no_match",
            Self::Denied => "denied",
            Self::Budget => "budget",
        }
    }
}
