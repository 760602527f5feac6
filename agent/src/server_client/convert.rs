//! Wire types to the agent's own and back. Nothing else names `signet_proto::agent`, but [`super::grpc`] and [`super::line`].

mod status;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use signet_certs::time::{from_unix_millis, unix_millis};
use signet_proto::agent as wire;
use signet_proto::agent::opening::{self, Agreement, Feature, VERSION};

pub(super) use self::status::error;
use super::trust::Said;
use super::{
    Answer, AttestedNode, IssueEvidence, IssueItem, IssueOutcome, IssuedChain, NodeAttestation,
    OfferedAuthority, RefusalReason, ServerError, TrustReport, TrustUpdate,
};
use crate::cache::{Affected, UnixFacts};

/// Longest list of identities, authorities or pods that is read from an answer.
const MAX_LIST: usize = 4096;

/// Longest text of the server that is passed on.
const MAX_TEXT: usize = 1024;

pub(super) fn hello_request(now: SystemTime) -> wire::HelloRequest {
    wire::HelloRequest {
        version: Some(VERSION),
        features: opening::names(),
        software: concat!("signet-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
        clock_unix_ms: unix_millis(now),
    }
}

/// The server's introduction.
#[derive(Debug)]
pub(super) struct ServerHello {
    /// The server's software and version, for a person.
    pub(super) software: String,
    /// What it serves.
    pub(super) trust_domain: String,
    /// The server's clock when it answered; `None` when it did not say.
    pub(super) clock: Option<SystemTime>,
    /// What holds on the connection.
    pub(super) agreed: Agreement,
}

pub(super) fn hello(response: wire::HelloResponse) -> Result<ServerHello, ServerError> {
    let agreed = Agreement::with(response.version, &response.features).map_err(|version| {
        ServerError::Refused(format!(
            "the server speaks protocol {}.{}, this agent {}.{}; upgrade the server first, then the agents, one minor \
             version at a time",
            version.major, version.minor, VERSION.major, VERSION.minor
        ))
    })?;
    Ok(ServerHello {
        agreed,
        software: short(response.software),
        trust_domain: short(response.trust_domain),
        clock: date(response.clock_unix_ms),
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
        said: Said::default(),
    })
}

/// The items whose kind of evidence the server knows, and for each item whether it is one of them. For an item of another
/// kind the server would refuse the whole request.
pub(super) fn known_to_server(items: Vec<IssueItem>, agreed: &Agreement) -> (Vec<IssueItem>, Vec<bool>) {
    let known: Vec<bool> = items
        .iter()
        .map(|item| agreed.has(feature_of(&item.evidence)))
        .collect();
    let sent = items.into_iter().zip(&known).filter(|(_, known)| **known);
    (sent.map(|(item, _)| item).collect(), known)
}

fn feature_of(evidence: &IssueEvidence) -> Feature {
    match evidence {
        IssueEvidence::PodToken { .. } => Feature::PodToken,
        IssueEvidence::Unix(_) => Feature::Unix,
    }
}

/// Puts the server's answers back among those to items that it was not asked.
pub(super) fn in_order(answers: Vec<IssueOutcome>, known: &[bool]) -> Vec<IssueOutcome> {
    let mut answers = answers.into_iter();
    let answer = |known: &bool| if *known { answers.next() } else { None };
    let not_asked = || IssueOutcome::Unavailable {
        message: "the server does not know this kind of evidence: upgrade it".to_owned(),
        retry_after: None,
    };
    known
        .iter()
        .map(answer)
        .map(|answer| answer.unwrap_or_else(not_asked))
        .collect()
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
            IssueEvidence::PodToken { token, of_pod } => {
                wire::issue_item::Evidence::PodToken(wire::PodToken {
                    token: token.secret().to_owned(),
                    pod_uid: of_pod,
                })
            }
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
        policy_revision: issued.policy_revision,
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

pub(super) fn report(report: TrustReport, answer: Answer, now: SystemTime) -> wire::TrustReport {
    let crl = |crl: super::CrlReport| wire::CrlReport {
        authority_id: Bytes::copy_from_slice(crl.authority.as_bytes()),
        number: crl.number,
        sha256: Bytes::copy_from_slice(&crl.sha256),
    };
    let in_use = |(authority, current_svids): (AuthorityId, u32)| wire::AuthorityUse {
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
        knows_in_use: report.knows_in_use,
        pod_uids: report.pod_uids,
        clock_unix_ms: unix_millis(now),
        problem: report.problem,
        held_crls: answer.lists,
        lacking_crls: answer
            .lacking
            .iter()
            .map(|id| Bytes::copy_from_slice(id.as_bytes()))
            .collect(),
        epoch: report.epoch,
        policy_revision: report.policy_revision,
    }
}

pub(super) fn trust_update(state: wire::TrustState) -> Result<TrustUpdate, ServerError> {
    let offered = |authority: wire::Authority| OfferedAuthority {
        certificate: authority.certificate,
        named: authority.crl_sha256.as_ref().try_into().ok(),
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
        epoch: state.epoch,
        clock: date(state.clock_unix_ms),
        departed: authority_ids(state.departed_authorities)?,
        wanted: authority_ids(state.wanted_crls)?,
        unreachable_since: date(state.cluster_unreachable_since_unix_ms),
        not_issuing: bounded(state.not_issuing)?.into_iter().map(short).collect(),
        said: Said::default(),
    })
}

/// Ids that are none say nothing.
fn authority_ids(ids: Vec<Bytes>) -> Result<Vec<AuthorityId>, ServerError> {
    let ids = bounded(ids)?.into_iter();
    Ok(ids
        .filter_map(|id| AuthorityId::try_from(id.as_ref()).ok())
        .collect())
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

/// 0 says nothing.
fn date(unix_ms: i64) -> Option<SystemTime> {
    (unix_ms > 0).then(|| from_unix_millis(unix_ms))
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
mod tests;
