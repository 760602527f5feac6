//! From evidence to an identity: attestation, then the rules.

use signet_certs::id::SpiffeId;

use super::{
    Evidence, IssueItem, Issuer, NotIssued, RefusalReason,
    requester::{Proven, Requester},
    unusable::explained,
};
use crate::{
    attest::AttestedPod,
    rules::{Facts, GrantedIdentity, Judgement, RuleSet, Verdict},
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
    /// What it takes of what whoever asks may have.
    pub(super) share: AgentShare,
}

impl Issuer {
    /// Attests and applies the rules.
    pub(super) async fn decide(
        &self,
        rules: &RuleSet,
        requester: &dyn Requester,
        item: &IssueItem,
    ) -> Result<Decided, NotIssued> {
        let attestor = self.parts.attestor.as_ref();
        let mut proven = requester.prove(attestor, &item.evidence).await?;
        if let (Evidence::PodToken { of_pod, .. }, Proven::Pod(pod)) = (&item.evidence, &proven) {
            check_pod(of_pod.as_deref(), pod)?;
        }
        if let Proven::Pod(pod) = &mut proven
            && rules.is_undecided(&Facts::Pod(pod))
        {
            pod.namespace_labels = Some(attestor.namespace_labels(pod).await?);
        }
        let pod = match &proven {
            Proven::Pod(pod) => Some(pod.as_ref()),
            Proven::Process { .. } => None,
        };
        let granted = self.grant(rules, &proven.facts(), item.spiffe_id.as_deref());
        let (identity, identities) = granted.map_err(|refused| match pod {
            Some(pod) => refused.about_pod(&pod.pod_uid),
            None => refused,
        })?;
        Ok(Decided {
            share: requester.share(attestor, &proven, count(identities.len())),
            workload: workload(&identity.spiffe_id, &proven, requester.agent()),
            evidence: match &proven {
                Proven::Pod(_) => EvidenceKind::PodToken,
                Proven::Process { .. } => EvidenceKind::Unix,
            },
            outage: pod.is_some_and(|pod| pod.outage),
            token_jti: pod.map(|pod| pod.jti.clone()),
            identity,
            identities,
        })
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
            Verdict::Undecided => {
                return Err(NotIssued::unavailable(
                    "the labels of the pod's namespace are not known at the moment",
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

/// Who gets it, as the ledger has it.
fn workload(spiffe_id: &SpiffeId, proven: &Proven, agent: Option<&SpiffeId>) -> WorkloadRef {
    let agent_id = agent.map(ToString::to_string).unwrap_or_default();
    match proven {
        Proven::Pod(pod) => WorkloadRef {
            cluster_uid: pod.cluster_uid.clone(),
            spiffe_id: spiffe_id.clone(),
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.pod_name.clone(),
            pod_uid: pod.pod_uid.clone(),
            node_name: pod.node_name.clone(),
            node_uid: pod.node_uid.clone(),
            agent_id,
            process: String::new(),
        },
        Proven::Process { facts, node_uid } => WorkloadRef {
            process: facts.process(),
            node_name: facts.node_name.clone(),
            node_uid: node_uid.clone(),
            agent_id,
            ..WorkloadRef::of(spiffe_id.clone())
        },
    }
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
