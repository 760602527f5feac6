//! From evidence to an identity: attestation, then the rules.

use signet_certs::id::SpiffeId;

use super::{Evidence, IssueItem, Issuer, Outcome, Refusal, RefusalReason};
use crate::{
    attest::{AgentIdentity, AttestedPod},
    rules::{Facts, GrantedIdentity, UnixFacts, Verdict},
    store::{EvidenceKind, WorkloadRef},
};

/// An item that may be recorded.
pub(super) struct Decided {
    pub(super) identity: GrantedIdentity,
    pub(super) identities: Vec<(SpiffeId, String)>,
    pub(super) workload: WorkloadRef,
    pub(super) evidence: EvidenceKind,
    pub(super) token_jti: Option<String>,
}

impl Issuer {
    /// Attests and applies the rules.
    pub(super) async fn decide(&self, agent: &AgentIdentity, item: &IssueItem) -> Result<Decided, Outcome> {
        match &item.evidence {
            Evidence::PodToken(token) => {
                let pod = self
                    .parts
                    .attestor
                    .attest_pod(agent, token)
                    .await
                    .map_err(|error| self.not_attested(error))?;
                let identity = self
                    .grant(&Facts::Pod(&pod), item.spiffe_id.as_deref())
                    .map_err(|refused| about_pod(refused, &pod))?;
                Ok(Decided {
                    identity: identity.0,
                    identities: identity.1,
                    workload: pod_workload(&pod, agent),
                    evidence: EvidenceKind::PodToken,
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
                let identity = self.grant(&Facts::Unix(&facts), item.spiffe_id.as_deref())?;
                Ok(Decided {
                    workload: unix_workload(&identity.0.spiffe_id, agent),
                    identity: identity.0,
                    identities: identity.1,
                    evidence: EvidenceKind::Unix,
                    token_jti: None,
                })
            }
        }
    }

    fn grant(
        &self,
        facts: &Facts<'_>,
        wanted: Option<&str>,
    ) -> Result<(GrantedIdentity, Vec<(SpiffeId, String)>), Outcome> {
        let granted = match self.parts.rules.evaluate(facts) {
            Verdict::Identities(granted) => granted,
            Verdict::Denied { rule } => {
                return Err(self.refused(RefusalReason::Denied, format!("denied by rule {rule:?}")));
            }
            Verdict::NoMatch => {
                return Err(self.refused(
                    RefusalReason::NoMatch,
                    "no rule gives this workload an identity".to_owned(),
                ));
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
            self.refused(
                RefusalReason::NoMatch,
                "the workload may not have the SPIFFE ID it asks for".to_owned(),
            )
        })
    }
}

fn about_pod(outcome: Outcome, pod: &AttestedPod) -> Outcome {
    match outcome {
        Outcome::Refused(refusal) => Outcome::Refused(Refusal {
            pod_uid: Some(pod.pod_uid.clone()),
            ..refusal
        }),
        other => other,
    }
}

fn pod_workload(pod: &AttestedPod, agent: &AgentIdentity) -> WorkloadRef {
    WorkloadRef {
        cluster_uid: pod.cluster_uid.clone(),
        // Replaced by the granted identity once that is chosen.
        spiffe_id: agent.spiffe_id.clone(),
        pod_namespace: pod.namespace.clone(),
        pod_name: pod.pod_name.clone(),
        pod_uid: pod.pod_uid.clone(),
        node_name: pod.node_name.clone(),
        node_uid: pod.node_uid.clone(),
        agent_id: agent.spiffe_id.to_string(),
    }
}

fn unix_workload(spiffe_id: &SpiffeId, agent: &AgentIdentity) -> WorkloadRef {
    WorkloadRef {
        cluster_uid: String::new(),
        spiffe_id: spiffe_id.clone(),
        pod_namespace: String::new(),
        pod_name: String::new(),
        pod_uid: String::new(),
        node_name: agent.node_name.clone(),
        node_uid: agent.node_uid.clone(),
        agent_id: agent.spiffe_id.to_string(),
    }
}
