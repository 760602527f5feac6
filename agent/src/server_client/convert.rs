//! Wire types to the agent's own and back. Nothing else names `signet_proto::agent`, but [`super::grpc`].

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_certs::id::SpiffeId;
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_proto::agent as wire;
use signet_runtime::error::causes;
use tonic::{Code, Status};

use super::{
    AttestedNode, IssueEvidence, IssueItem, IssueOutcome, IssuedChain, NodeAttestation, OfferedAuthority,
    RefusalReason, ServerError, ServerHello, TrustReport, TrustUpdate,
};
use crate::cache::{Affected, UnixFacts};

/// The protocol that this agent speaks.
pub(super) const VERSION: wire::ProtocolVersion = wire::ProtocolVersion { major: 1, minor: 0 };

/// Longest list of identities, authorities or pods that is read from an answer.
const MAX_LIST: usize = 4096;

/// Longest text of the server that is passed on.
const MAX_TEXT: usize = 1024;

pub(super) fn hello_request(now: SystemTime) -> wire::HelloRequest {
    wire::HelloRequest {
        version: Some(VERSION),
        features: Vec::new(),
        software: concat!("signet-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        clock_unix_ms: unix_millis(now),
    }
}

pub(super) fn hello(response: wire::HelloResponse) -> Result<ServerHello, ServerError> {
    let version = response.version.unwrap_or_default();
    if version.major != VERSION.major {
        return Err(ServerError::Refused(format!(
            "the server speaks protocol {}.{}, this agent {}.{}; upgrade the server first, then the agents, one minor \
             version at a time",
            version.major, version.minor, VERSION.major, VERSION.minor
        )));
    }
    Ok(ServerHello {
        software: short(response.software),
        trust_domain: short(response.trust_domain),
        clock: from_unix_millis(response.clock_unix_ms),
    })
}

/// For one call: the library consumes the message, so its copy of the token cannot be wiped, but lives no longer.
pub(super) fn attest_request(request: &NodeAttestation) -> wire::AttestNodeRequest {
    let evidence = wire::KubernetesNodeToken {
        cluster: request.cluster.clone(),
        token: request.token.as_str().to_owned(),
    };
    wire::AttestNodeRequest {
        csr: request.csr.clone().into(),
        evidence: Some(wire::attest_node_request::Evidence::Kubernetes(evidence)),
    }
}

pub(super) fn attested_node(response: wire::AttestNodeResponse) -> Result<AttestedNode, ServerError> {
    Ok(AttestedNode {
        spiffe_id: spiffe_id(&response.spiffe_id)?,
        chain: response.certificate_chain,
        node_name: short(response.node_name),
        node_uid: short(response.node_uid),
        control_authorities: bounded(response.control_authorities)?,
    })
}

/// For one call; what [`attest_request`] says holds for the pods' tokens in it.
pub(super) fn issue_request(items: Vec<IssueItem>) -> wire::IssueX509SvidsRequest {
    wire::IssueX509SvidsRequest {
        items: items.into_iter().map(issue_item).collect(),
    }
}

fn issue_item(item: IssueItem) -> wire::IssueItem {
    wire::IssueItem {
        csr: item.csr.into(),
        spiffe_id: item
            .spiffe_id
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default(),
        evidence: Some(match item.evidence {
            IssueEvidence::PodToken(token) => wire::issue_item::Evidence::PodToken(wire::PodToken {
                token: token.secret().to_owned(),
            }),
            IssueEvidence::Unix(facts) => wire::issue_item::Evidence::Unix(unix_workload(facts)),
        }),
    }
}

fn unix_workload(facts: UnixFacts) -> wire::UnixWorkload {
    wire::UnixWorkload {
        uid: facts.uid,
        gid: facts.gid,
        path: facts.path.unwrap_or_default(),
        sha256: facts
            .sha256
            .map(|digest| Bytes::copy_from_slice(&digest))
            .unwrap_or_default(),
    }
}

pub(super) fn outcomes(
    response: wire::IssueX509SvidsResponse,
    asked: usize,
) -> Result<Vec<IssueOutcome>, ServerError> {
    if response.results.len() != asked {
        let message = format!("the server answered {} of {asked} items", response.results.len());
        return Err(ServerError::unavailable(message));
    }
    Ok(response.results.into_iter().map(outcome).collect())
}

fn outcome(result: wire::IssueResult) -> IssueOutcome {
    use wire::issue_result::Outcome;
    match result.outcome {
        Some(Outcome::Issued(issued)) => match issued_chain(issued) {
            Ok(chain) => IssueOutcome::Issued(chain),
            Err(error) => IssueOutcome::Unavailable {
                message: error.to_string(),
                retry_after: None,
            },
        },
        Some(Outcome::Refusal(refusal)) => IssueOutcome::Refused {
            reason: reason(refusal.reason()),
            message: short(refusal.message),
            policy_revision: refusal.policy_revision,
            retry_after: wait(refusal.retry_after_ms),
        },
        Some(Outcome::Unavailable(unavailable)) => IssueOutcome::Unavailable {
            message: short(unavailable.message),
            retry_after: wait(unavailable.retry_after_ms),
        },
        None => IssueOutcome::Unavailable {
            message: "the server's answer is of a kind that this agent does not know".to_owned(),
            retry_after: None,
        },
    }
}

fn issued_chain(issued: wire::IssuedSvid) -> Result<IssuedChain, ServerError> {
    let id = spiffe_id(&issued.spiffe_id)?;
    let listed = bounded(issued.identities)?;
    let mut identities = Vec::with_capacity(listed.len().max(1));
    for identity in listed {
        identities.push((spiffe_id(&identity.spiffe_id)?, short(identity.hint)));
    }
    if identities.is_empty() {
        identities.push((id.clone(), short(issued.hint)));
    }
    Ok(IssuedChain {
        spiffe_id: id,
        chain: issued.certificate_chain,
        identities,
    })
}

fn reason(reason: wire::refusal::Reason) -> RefusalReason {
    use wire::refusal::Reason;
    match reason {
        Reason::Unspecified => RefusalReason::Unknown,
        Reason::InvalidRequest => RefusalReason::InvalidRequest,
        Reason::NotAttested => RefusalReason::NotAttested,
        Reason::NoMatch => RefusalReason::NoMatch,
        Reason::Denied => RefusalReason::Denied,
        Reason::Budget => RefusalReason::Budget,
    }
}

pub(super) fn report(report: TrustReport, now: SystemTime) -> wire::TrustReport {
    let crl = |crl: super::CrlReport| wire::CrlReport {
        authority_id: Bytes::copy_from_slice(crl.authority.as_bytes()),
        number: crl.number,
        sha256: Bytes::copy_from_slice(&crl.sha256),
    };
    let in_use =
        |(authority, current_svids): (signet_certs::authority::AuthorityId, u32)| wire::AuthorityUse {
            authority_id: Bytes::copy_from_slice(authority.as_bytes()),
            current_svids,
        };
    wire::TrustReport {
        sequence_number: report.sequence_number,
        bundle_digest: report
            .bundle_digest
            .map(|digest| Bytes::copy_from_slice(&digest))
            .unwrap_or_default(),
        crls: report.crls.into_iter().map(crl).collect(),
        authorities_in_use: report.authorities_in_use.into_iter().map(in_use).collect(),
        pod_uids: report.pod_uids,
        clock_unix_ms: unix_millis(now),
    }
}

pub(super) fn trust_update(state: wire::TrustState) -> Result<TrustUpdate, ServerError> {
    let offered = |authority: wire::Authority| OfferedAuthority {
        certificate: authority.certificate,
        crl: authority.crl,
        tainted: authority.tainted,
    };
    let affected = match (state.all_affected, bounded(state.affected_pod_uids)?) {
        (true, _) => Some(Affected::All),
        (false, uids) if uids.is_empty() => None,
        (false, uids) => Some(Affected::Pods(uids)),
    };
    Ok(TrustUpdate {
        sequence_number: state.sequence_number,
        refresh_hint: Duration::from_secs(u64::from(state.refresh_hint_seconds)),
        x509: bounded(state.x509_authorities)?
            .into_iter()
            .map(offered)
            .collect(),
        control: bounded(state.control_authorities)?
            .into_iter()
            .map(offered)
            .collect(),
        policy_revision: state.policy_revision,
        affected,
    })
}

/// What a failed call means for the agent.
pub(super) fn error(status: &Status) -> ServerError {
    let message = describe(status);
    match status.code() {
        Code::Unauthenticated => ServerError::Unauthenticated(message),
        Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::Unimplemented
        | Code::NotFound
        | Code::OutOfRange => ServerError::Refused(message),
        _ => ServerError::Unavailable {
            message,
            retry_after: pushback(status),
        },
    }
}

/// The server's "not before".
fn pushback(status: &Status) -> Option<Duration> {
    let text = status.metadata().get("retry-after-ms")?.to_str().ok()?;
    wait(text.parse().ok()?)
}

/// The status with the chain of its causes: a refused handshake is only told there.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    for cause in causes(status).skip(1).map(ToString::to_string) {
        // tonic's own "transport error" says less than what it wraps.
        if cause == "transport error" || text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if text.is_empty() {
        text = status.code().description().to_owned();
    }
    short(text)
}

fn spiffe_id(text: &str) -> Result<SpiffeId, ServerError> {
    SpiffeId::parse(text).map_err(|error| {
        ServerError::unavailable(format!("the server named an ID that is not allowed: {error}"))
    })
}

fn bounded<T>(list: Vec<T>) -> Result<Vec<T>, ServerError> {
    if list.len() > MAX_LIST {
        return Err(ServerError::unavailable(format!(
            "the server's answer lists more than {MAX_LIST} entries"
        )));
    }
    Ok(list)
}

fn wait(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds.min(3_600_000)))
}

fn short(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_major_version_is_refused_with_the_remedy() {
        let response = wire::HelloResponse {
            version: Some(wire::ProtocolVersion { major: 2, minor: 0 }),
            ..wire::HelloResponse::default()
        };
        let error = hello(response).unwrap_err();
        assert!(
            matches!(&error, ServerError::Refused(text) if text.contains("upgrade")),
            "{error:?}"
        );
    }

    #[test]
    fn another_minor_version_is_fine() {
        let response = wire::HelloResponse {
            version: Some(wire::ProtocolVersion { major: 1, minor: 1 }),
            ..wire::HelloResponse::default()
        };
        assert!(hello(response).is_ok());
    }

    #[test]
    fn an_answer_with_too_few_results_is_no_answer() {
        let response = wire::IssueX509SvidsResponse { results: Vec::new() };
        assert!(matches!(
            outcomes(response, 2),
            Err(ServerError::Unavailable { .. })
        ));
    }

    #[test]
    fn an_unknown_outcome_is_temporary() {
        let result = outcome(wire::IssueResult { outcome: None });
        assert!(matches!(result, IssueOutcome::Unavailable { .. }));
    }

    #[test]
    fn a_faulty_id_in_an_answer_is_temporary() {
        let issued = wire::IssuedSvid {
            spiffe_id: "spiffe://A/b".to_owned(),
            ..wire::IssuedSvid::default()
        };
        let result = outcome(wire::IssueResult {
            outcome: Some(wire::issue_result::Outcome::Issued(issued)),
        });
        assert!(matches!(result, IssueOutcome::Unavailable { .. }), "{result:?}");
    }

    #[test]
    fn codes_say_who_must_act() {
        assert!(matches!(
            error(&Status::unauthenticated("x")),
            ServerError::Unauthenticated(_)
        ));
        assert!(matches!(
            error(&Status::permission_denied("x")),
            ServerError::Refused(_)
        ));
        assert!(matches!(
            error(&Status::resource_exhausted("x")),
            ServerError::Unavailable { .. }
        ));
        let mut status = Status::resource_exhausted("x");
        status
            .metadata_mut()
            .insert("retry-after-ms", "1500".parse().unwrap());
        let wanted = ServerError::Unavailable {
            message: "x".to_owned(),
            retry_after: Some(Duration::from_millis(1500)),
        };
        assert_eq!(error(&status), wanted);
    }

    #[test]
    fn all_affected_wins_over_names() {
        let state = wire::TrustState {
            all_affected: true,
            affected_pod_uids: vec!["a".to_owned()],
            ..wire::TrustState::default()
        };
        assert_eq!(trust_update(state).unwrap().affected, Some(Affected::All));
    }
}
