//! Wire types of issuing to domain types and back, with their bounds.

use bytes::Bytes;
use signet_certs::authority::AuthorityKind;
use signet_proto::agent::{
    self as wire, issue_item, issue_result,
    opening::{Agreement, Feature},
    refusal,
};
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::{
    api::retry::{later, millis, with_retry},
    issuer::{Evidence, IssueItem, NotIssued, Outcome, RETRY_AFTER, Refusal, RefusalReason},
    trust::TrustSnapshot,
};

/// A token of Kubernetes is a few kilobytes at most.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Longest texts taken from an agent.
pub(super) const MAX_TEXT_BYTES: usize = 4096;

/// What is wrong with one item, or with what a node attests by: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Faulty {
    /// See [`MAX_TOKEN_BYTES`].
    #[error("a token of more than {MAX_TOKEN_BYTES} bytes is refused")]
    LongToken,
    /// Nothing that this server takes for evidence.
    #[error("no evidence of a kind that this server knows")]
    UnknownEvidence,
    /// Not agreed on in Hello.
    #[error("evidence of a kind that the Hello of this connection did not name")]
    UnnamedEvidence,
    /// See [`MAX_TEXT_BYTES`].
    #[error("the SPIFFE ID is too long")]
    LongSpiffeId,
    /// See [`MAX_TEXT_BYTES`].
    #[error("the executable's path is too long")]
    LongPath,
    /// Of a wrong length.
    #[error("a SHA-256 has 32 bytes")]
    Sha256,
    /// See [`MAX_TEXT_BYTES`].
    #[error("the pod's UID is too long")]
    LongPodUid,
}

impl From<Faulty> for Status {
    fn from(faulty: Faulty) -> Self {
        Self::invalid_argument(faulty.to_string())
    }
}

pub(super) fn check_token(token: &str) -> Result<(), Faulty> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Faulty::LongToken);
    }
    Ok(())
}

pub(super) fn item(item: wire::IssueItem, agreed: &Agreement) -> Result<IssueItem, Faulty> {
    let evidence = match item.evidence {
        Some(evidence) if !agreed.has(feature_of(&evidence)) => return Err(Faulty::UnnamedEvidence),
        Some(issue_item::Evidence::PodToken(pod)) => {
            check_token(&pod.token)?;
            if pod.pod_uid.len() > MAX_TEXT_BYTES {
                return Err(Faulty::LongPodUid);
            }
            Evidence::PodToken {
                token: Zeroizing::new(pod.token),
                of_pod: (!pod.pod_uid.is_empty()).then_some(pod.pod_uid),
            }
        }
        Some(issue_item::Evidence::Unix(unix)) => unix_evidence(unix)?,
        None => return Err(Faulty::UnknownEvidence),
    };
    if item.spiffe_id.len() > MAX_TEXT_BYTES {
        return Err(Faulty::LongSpiffeId);
    }
    let spiffe_id = (!item.spiffe_id.is_empty()).then_some(item.spiffe_id);
    Ok(IssueItem {
        csr: item.csr,
        spiffe_id,
        evidence,
    })
}

/// The feature that stands for a kind of evidence.
fn feature_of(evidence: &issue_item::Evidence) -> Feature {
    match evidence {
        issue_item::Evidence::PodToken(_) => Feature::PodToken,
        issue_item::Evidence::Unix(_) => Feature::Unix,
    }
}

fn unix_evidence(unix: wire::UnixWorkload) -> Result<Evidence, Faulty> {
    if unix.path.len() > MAX_TEXT_BYTES {
        return Err(Faulty::LongPath);
    }
    let sha256 = match unix.sha256.len() {
        0 => None,
        _ => Some(unix.sha256.as_ref().try_into().map_err(|_| Faulty::Sha256)?),
    };
    let path = (!unix.path.is_empty()).then_some(unix.path);
    Ok(Evidence::Unix {
        uid: unix.uid,
        gid: unix.gid,
        path,
        sha256,
    })
}

/// The answer to an item that is refused for its form.
pub(super) fn faulty_result(faulty: Faulty, policy_revision: u64) -> wire::IssueResult {
    let refusal = Refusal::new(RefusalReason::InvalidRequest, faulty.to_string());
    result(Err(NotIssued::Refused(refusal)), policy_revision)
}

/// The answer to an item, by the rules of this revision.
pub(super) fn result(outcome: Outcome, policy_revision: u64) -> wire::IssueResult {
    let outcome = match outcome {
        Ok(issued) => issue_result::Outcome::Issued(wire::IssuedSvid {
            spiffe_id: issued.spiffe_id.to_string(),
            certificate_chain: chain(issued.chain),
            hint: issued.hint,
            identities: issued
                .identities
                .into_iter()
                .map(|(id, hint)| wire::Identity {
                    spiffe_id: id.to_string(),
                    hint,
                })
                .collect(),
            policy_revision,
        }),
        Err(NotIssued::Refused(refusal)) => {
            issue_result::Outcome::Refusal(wire_refusal(refusal, policy_revision))
        }
        Err(NotIssued::Unavailable { message, retry_after }) => {
            issue_result::Outcome::Unavailable(wire::Unavailable {
                message,
                retry_after_ms: millis(retry_after),
            })
        }
    };
    wire::IssueResult {
        outcome: Some(outcome),
    }
}

fn wire_refusal(refused: Refusal, policy_revision: u64) -> wire::Refusal {
    let reason = match refused.reason {
        RefusalReason::InvalidRequest => refusal::Reason::InvalidRequest,
        RefusalReason::NotAttested => refusal::Reason::NotAttested,
        RefusalReason::NoMatch => refusal::Reason::NoMatch,
        RefusalReason::Denied => refusal::Reason::Denied,
        RefusalReason::Budget => refusal::Reason::Budget,
    };
    wire::Refusal {
        reason: reason.into(),
        message: refused.message,
        policy_revision,
        retry_after_ms: refused.retry_after.map_or(0, millis),
    }
}

pub(super) fn status_of(not_issued: NotIssued) -> Status {
    match not_issued {
        NotIssued::Refused(refusal) => {
            let code = match refusal.reason {
                RefusalReason::InvalidRequest => Code::InvalidArgument,
                RefusalReason::Budget => Code::ResourceExhausted,
                RefusalReason::NotAttested | RefusalReason::NoMatch | RefusalReason::Denied => {
                    Code::PermissionDenied
                }
            };
            let status = Status::new(code, refusal.message);
            match refusal.retry_after {
                Some(after) => with_retry(status, after),
                None => status,
            }
        }
        NotIssued::Unavailable { message, retry_after } => {
            with_retry(Status::unavailable(message), retry_after)
        }
    }
}

pub(super) fn too_busy() -> Status {
    later(
        "too many certificates are being issued at the moment",
        RETRY_AFTER,
    )
}

/// Certificates, DER.
pub(super) fn chain(certificates: Vec<Vec<u8>>) -> Vec<Bytes> {
    certificates.into_iter().map(Bytes::from).collect()
}

/// By whom an agent knows the server.
pub(super) fn anchors(trust: &TrustSnapshot) -> Vec<Bytes> {
    let control = trust.kind(AuthorityKind::Control).iter();
    control
        .map(|one| Bytes::copy_from_slice(one.certificate.der()))
        .collect()
}
