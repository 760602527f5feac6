//! From evidence to an identity: attestation, then the rules.

use signet_certs::id::SpiffeId;

use super::{Evidence, IssueItem, Issuer, NotIssued, RefusalReason, unusable::explained};
use crate::{
    attest::{AgentIdentity, AttestedPod},
    rules::{Facts, GrantedIdentity, Judgement, RuleSet, UnixFacts, Verdict},
    store::{AgentShare, EvidenceKind, WorkloadRef},
};

/// An item that may be recorded.
pub(super) struct Decided {
    pub(super) identity: GrantedIdentity,
    /// Every identity of the workload with its hint, default first.
    pub(super) identities: Vec<(SpiffeId, String)>,
    /// Who gets the certificate, as the ledger will have it.
    pub(super) workload: WorkloadRef,
    pub(super) evidence: EvidenceKind,
    pub(super) token_jti: Option<String>,
    /// See [`NewIssuance::outage`](crate::store::NewIssuance::outage).
    pub(super) outage: bool,
    /// What it takes of what the agent may have.
    pub(super) share: AgentShare,
}

impl Issuer {
    /// Attests and applies the rules.
    pub(super) async fn decide(
        &self,
        rules: &RuleSet,
        agent: &AgentIdentity,
        item: &IssueItem,
    ) -> Result<Decided, NotIssued> {
        let wanted = item.spiffe_id.as_deref();
        match &item.evidence {
            Evidence::PodToken { token, of_pod } => {
                let pod = self.parts.attestor.attest_pod(agent, token).await?;
                check_pod(of_pod.as_deref(), &pod)?;
                let (identity, identities) = self
                    .grant(rules, &Facts::Pod(&pod), wanted)
                    .map_err(|refused| refused.about_pod(&pod.pod_uid))?;
                let share = AgentShare::Pods {
                    pods: count(self.parts.attestor.pods_on_node(agent)),
                    identities: count(identities.len()),
                };
                Ok(Decided {
                    share,
                    workload: pod_workload(&identity.spiffe_id, &pod, agent),
                    identity,
                    identities,
                    evidence: EvidenceKind::PodToken,
                    outage: pod.outage,
                    token_jti: Some(pod.jti),
                })
            }
            Evidence::Unix {
                uid,
                gid,
                path,
                sha256,
            } => {
                let facts = UnixFacts {
                    cluster: agent.cluster.clone(),
                    node_name: agent.node_name.clone(),
                    uid: *uid,
                    gid: *gid,
                    path: path.clone(),
                    sha256: *sha256,
                };
                let (identity, identities) = self.grant(rules, &Facts::Unix(&facts), wanted)?;
                Ok(Decided {
                    share: AgentShare::ItsWord,
                    workload: unix_workload(&identity.spiffe_id, &facts, agent),
                    identity,
                    identities,
                    evidence: EvidenceKind::Unix,
                    outage: false,
                    token_jti: None,
                })
            }
        }
    }

    fn grant(
        &self,
        rules: &RuleSet,
        facts: &Facts<'_>,
        wanted: Option<&str>,
    ) -> Result<(GrantedIdentity, Vec<(SpiffeId, String)>), NotIssued> {
        let Judgement { verdict, unusable } = rules.judge(facts);
        self.unusable.tell(rules, unusable, facts);
        let explained = || Some(explained(rules, facts));
        let granted = match verdict {
            Verdict::Identities(granted) => granted,
            Verdict::Denied { rule } => {
                return Err(NotIssued::refused(
                    RefusalReason::Denied,
                    format!("denied by rule {rule:?}"),
                ));
            }
            Verdict::NoMatch => {
                let message = "no rule gives this workload an identity".to_owned();
                return Err(NotIssued::refused(RefusalReason::NoMatch, message).aside(explained()));
            }
        };
        let identities = granted
            .iter()
            .map(|identity| (identity.spiffe_id.clone(), identity.hint.clone()))
            .collect();
        let chosen = match wanted {
            None => granted.into_iter().next(),
            Some(wanted) => granted
                .into_iter()
                .find(|identity| identity.spiffe_id.as_str() == wanted),
        };
        chosen.map(|identity| (identity, identities)).ok_or_else(|| {
            let message = "the workload may not have the SPIFFE ID it asks for".to_owned();
            NotIssued::refused(RefusalReason::NoMatch, message).aside(explained())
        })
    }
}

/// A token is good for the pod whose volume it came with alone, whoever could put another's there.
fn check_pod(of_pod: Option<&str>, pod: &AttestedPod) -> Result<(), NotIssued> {
    match of_pod {
        Some(uid) if uid != pod.pod_uid => {
            let reason = format!(
                "the token is of the pod {}, its volume of the pod {uid}",
                pod.pod_uid
            );
            Err(NotIssued::refused(RefusalReason::NotAttested, reason).about_pod(&pod.pod_uid))
        }
        _ => Ok(()),
    }
}

fn pod_workload(spiffe_id: &SpiffeId, pod: &AttestedPod, agent: &AgentIdentity) -> WorkloadRef {
    WorkloadRef {
        cluster_uid: pod.cluster_uid.clone(),
        spiffe_id: spiffe_id.clone(),
        pod_namespace: pod.namespace.clone(),
        pod_name: pod.pod_name.clone(),
        pod_uid: pod.pod_uid.clone(),
        node_name: pod.node_name.clone(),
        node_uid: pod.node_uid.clone(),
        agent_id: agent.spiffe_id.to_string(),
        process: String::new(),
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

fn unix_workload(spiffe_id: &SpiffeId, facts: &UnixFacts, agent: &AgentIdentity) -> WorkloadRef {
    let mut process = format!("uid={} gid={}", facts.uid, facts.gid);
    if let Some(path) = &facts.path {
        process.push_str(" path=");
        process.push_str(path);
    }
    if let Some(sha256) = &facts.sha256 {
        process.push_str(" sha256=");
        process.push_str(&hex::encode(sha256));
    }
    WorkloadRef {
        process,
        node_name: agent.node_name.clone(),
        node_uid: agent.node_uid.clone(),
        agent_id: agent.spiffe_id.to_string(),
        ..WorkloadRef::of(spiffe_id.clone())
    }
}
