//! Certificates for node agents, from the control authority.

use std::{net::IpAddr, time::SystemTime};

use bytes::Bytes;
use signet_certs::{
    authority::AuthorityKind,
    csr::{WorkloadPublicKey, verify_csr},
    id::SpiffeId,
    svid::Purpose,
    verify::VerifiedSvid,
};
use zeroize::Zeroizing;

use super::{
    Issuer, NOT_RECORDED, NotIssued, RefusalReason,
    draft::{Draft, Order, record_one},
    no_draft, not_signed, record_refusal, report_not_recorded,
};
use crate::{
    agents::AgentNode,
    attest::{AttestError, AttestedNode, Bearer},
    audit::{AuditAction, AuditEvent},
    store::{AgentShare, Attestation, Budget, EvidenceKind, WorkloadRef},
};

/// Certificates of an agent that displace no other: the one in use, its successor, and some for an agent that crashes and
/// attests anew.
const FREE: u32 = 8;

/// A node that wants a certificate.
pub(crate) struct NodeRequest {
    /// PKCS#10, DER.
    pub csr: Bytes,
    /// Name of the cluster.
    pub cluster: String,
    /// Token of the agent's pod.
    pub token: Zeroizing<String>,
    /// Where the request came from.
    pub source: IpAddr,
}

/// An agent's certificate.
#[derive(Debug)]
pub(crate) struct NodeCertificate {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// DER: the leaf, then what stands between it and its authority's root.
    pub chain: Vec<Vec<u8>>,
    /// Name of the node.
    pub node_name: String,
    /// UID of the node.
    pub node_uid: String,
}

/// What the node turned out to be.
struct Proven {
    cluster: String,
    cluster_uid: String,
    node_name: String,
    node_uid: String,
    pod: Option<AttestedNode>,
    attested_at: SystemTime,
}

impl Issuer {
    /// Attests a node and signs its agent's certificate. `presented` is the agent's present certificate, checked at
    /// this moment, if the connection has one.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub(crate) async fn issue_to_node(
        &self,
        request: NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<NodeCertificate, NotIssued> {
        let result = self.attest_and_sign(&request, presented).await;
        match &result {
            Err(NotIssued::Refused(refusal)) => {
                self.parts.metrics.refused(refusal.reason.as_str());
                self.audit_refusal(request.source.to_string(), "attest_node", refusal);
            }
            Err(NotIssued::Unavailable { .. }) => self.parts.metrics.unavailable(),
            Ok(_) => self.parts.metrics.issued(),
        }
        result
    }

    async fn attest_and_sign(
        &self,
        request: &NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<NodeCertificate, NotIssued> {
        let key = self.acceptable(verify_csr(&request.csr))?;
        let active = || {
            self.active(AuthorityKind::Control)
                .map_err(NotIssued::unavailable)
        };
        // API servers are not asked for what cannot be signed.
        active()?;
        let proven = self.prove(request, presented).await?;
        let authority = active()?;
        let now = self.parts.clock.now();
        let order = self.order_for_node(&proven, presented, key)?;
        let profile = &self.parts.control_profile;
        let draft = Draft::new(order, profile, &authority, &self.parts.rng, now).map_err(no_draft)?;
        let leaf = record_one(self.parts.store.as_ref(), draft, self.parts.clock.now())
            .await
            .inspect_err(report_not_recorded)
            .map_err(|_| NotIssued::unavailable(NOT_RECORDED))?
            .map_err(|refusal| record_refusal(&refusal))
            .inspect(|leaf| self.count_displaced(leaf))?
            .sign_alone(authority)
            .await
            .map_err(|error| not_signed(&error))?;
        self.remember(&proven, &leaf.says.spiffe_id, now);
        Ok(NodeCertificate {
            spiffe_id: leaf.says.spiffe_id,
            chain: leaf.chain,
            node_name: proven.node_name,
            node_uid: proven.node_uid,
        })
    }

    fn order_for_node(
        &self,
        proven: &Proven,
        presented: Option<&VerifiedSvid>,
        key: WorkloadPublicKey,
    ) -> Result<Order, NotIssued> {
        let spiffe_id = SpiffeId::agent(&self.parts.trust_domain, &proven.cluster, &proven.node_uid)
            .map_err(|error| NotIssued::refused(RefusalReason::InvalidRequest, error.to_string()))?;
        let rule = match &proven.pod {
            Some(_) => "node-token",
            None => "valid-agent-certificate",
        };
        Ok(Order {
            purpose: Purpose::Control,
            workload: node_workload(proven, spiffe_id),
            dns_names: Vec::new(),
            key,
            evidence: EvidenceKind::NodeToken,
            token_jti: proven.pod.as_ref().map(|pod| pod.jti.clone()),
            rule: rule.to_owned(),
            policy_revision: self.parts.rules.borrow().revision(),
            // By a certificate alone: it is judged once more with the row.
            earliest: self.parts.clock.time().earliest,
            caller: presented
                .filter(|_| proven.pod.is_none())
                .map(VerifiedSvid::serial),
            attestation: Some(Attestation {
                cluster: proven.cluster.clone(),
                attested_at: proven.attested_at,
                pod_uid: proven
                    .pod
                    .as_ref()
                    .map(|pod| pod.pod_uid.clone())
                    .unwrap_or_default(),
            }),
            outage: proven.pod.is_none(),
            budget: Some(Budget {
                free: FREE,
                share: AgentShare::Itself,
            }),
        })
    }

    /// Keeps the agent, for whoever asks which node it is on, and audits its attestation.
    fn remember(&self, proven: &Proven, agent: &SpiffeId, now: SystemTime) {
        let pod = proven.pod.as_ref();
        self.parts.audit.record(AuditEvent::new(
            now,
            AuditAction::NodeAttested {
                agent_id: agent.clone(),
                cluster: proven.cluster.clone(),
                node_name: proven.node_name.clone(),
                node_uid: proven.node_uid.clone(),
                pod: pod
                    .map(|pod| format!("{}/{}", pod.namespace, pod.pod_name))
                    .unwrap_or_default(),
                token_jti: pod.map(|pod| pod.jti.clone()),
            },
        ));
        self.parts.agents.attested(AgentNode {
            spiffe_id: agent.clone(),
            cluster: proven.cluster.clone(),
            node_name: proven.node_name.clone(),
            node_uid: proven.node_uid.clone(),
        });
    }

    async fn prove(
        &self,
        request: &NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<Proven, NotIssued> {
        let bearer = presented.map_or_else(
            || Bearer::Stranger(request.source.into()),
            |agent| Bearer::Agent(agent.spiffe_id()),
        );
        match self
            .parts
            .attestor
            .attest_node(bearer, &request.cluster, &request.token)
            .await
        {
            Ok(node) => Ok(Proven {
                cluster: node.cluster.clone(),
                cluster_uid: node.cluster_uid.clone(),
                node_name: node.node_name.clone(),
                node_uid: node.node_uid.clone(),
                attested_at: self.parts.clock.now(),
                pod: Some(node),
            }),
            Err(AttestError::Unavailable { message, retry_after }) => {
                match self.prove_by_certificate(request, presented).await {
                    Some(proven) => Ok(proven),
                    None => Err(NotIssued::Unavailable { message, retry_after }),
                }
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// In an outage of the cluster the agent's own valid certificate stands in for a review, together with a token of the same
    /// node that was good when the outage began. That a call failed is no outage.
    async fn prove_by_certificate(
        &self,
        request: &NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Option<Proven> {
        let presented = presented?;
        let attestor = &self.parts.attestor;
        let node = attestor.node_in_outage(&request.cluster, &request.token).await?;
        let agent = SpiffeId::agent(&self.parts.trust_domain, &request.cluster, &node.node_uid).ok()?;
        if agent != *presented.spiffe_id() || presented.not_after() <= self.parts.clock.now() {
            return None;
        }
        let row = self.parts.store.agent(&agent).await.ok()??;
        if row.node_name != node.node_name {
            return None;
        }
        Some(Proven {
            cluster: row.cluster,
            cluster_uid: node.cluster_uid,
            node_name: row.node_name,
            node_uid: row.node_uid,
            pod: None,
            attested_at: row.attested_at,
        })
    }
}

fn node_workload(proven: &Proven, spiffe_id: SpiffeId) -> WorkloadRef {
    let (pod_namespace, pod_name) = match &proven.pod {
        Some(pod) => (pod.namespace.clone(), pod.pod_name.clone()),
        None => Default::default(),
    };
    WorkloadRef {
        cluster_uid: proven.cluster_uid.clone(),
        agent_id: spiffe_id.to_string(),
        spiffe_id,
        pod_namespace,
        pod_name,
        // The budget counts per node: an agent's pod may be replaced at will.
        pod_uid: String::new(),
        node_name: proven.node_name.clone(),
        node_uid: proven.node_uid.clone(),
        process: String::new(),
    }
}
