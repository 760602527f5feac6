//! Certificates for node agents, from the control authority.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use signet_certs::{
    authority::AuthorityKind, csr::verify_csr, id::SpiffeId, svid::Purpose, verify::VerifiedSvid,
};
use zeroize::Zeroizing;

use super::{Issuer, NOBODY_SIGNS, Outcome, RefusalReason, sign::Order, unavailable};
use crate::{
    attest::{AttestError, AttestedNode},
    audit::{AuditAction, AuditEvent},
    store::{AgentRow, EvidenceKind, WorkloadRef},
};

/// While the API server is away, an agent may renew by its valid certificate this long after its last review.
const RENEW_WITHOUT_REVIEW: Duration = Duration::from_secs(24 * 3600);
/// Certificates an agent may hold at once: the one in use, its successor, and some for an agent that crashes and
/// attests anew.
const MAX_LIVE: u32 = 16;

/// A node that wants a certificate.
pub struct NodeRequest {
    /// PKCS#10, DER.
    pub csr: Bytes,
    /// Name of the cluster.
    pub cluster: String,
    /// Token of the agent's pod.
    pub token: Zeroizing<String>,
    /// Where the request came from, for the audit log.
    pub source: String,
}

/// An agent's certificate.
#[derive(Debug)]
pub struct NodeCertificate {
    /// `spiffe://<td>/signet/agent/<cluster>/<node-uid>`.
    pub spiffe_id: SpiffeId,
    /// DER.
    pub leaf: Vec<u8>,
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
    /// The [`Outcome`] that is not `Issued`.
    pub async fn issue_to_node(
        &self,
        request: NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<NodeCertificate, Outcome> {
        let result = self.attest_and_sign(&request, presented).await;
        match &result {
            Err(Outcome::Refused(refusal)) => {
                self.parts.metrics.refused(refusal.reason.as_str());
                self.audit_refusal(request.source.clone(), "attest_node", refusal);
            }
            Err(_) => self.parts.metrics.unavailable(),
            Ok(_) => self.parts.metrics.issued(),
        }
        result
    }

    async fn attest_and_sign(
        &self,
        request: &NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<NodeCertificate, Outcome> {
        let key = verify_csr(&request.csr)
            .map_err(|error| self.refused(RefusalReason::InvalidRequest, error.to_string()))?;
        if self.is_authority_key(&key) {
            return Err(self.refused(
                RefusalReason::InvalidRequest,
                "the CSR carries an authority's key".to_owned(),
            ));
        }
        let proven = self.prove(request, presented).await?;
        let Some(authority) = self.active(AuthorityKind::Control) else {
            return Err(unavailable(NOBODY_SIGNS));
        };
        let now = self.parts.clock.now();
        let spiffe_id = SpiffeId::agent(&self.parts.trust_domain, &proven.cluster, &proven.node_uid)
            .map_err(|error| self.refused(RefusalReason::InvalidRequest, error.to_string()))?;
        let serial = self
            .serials
            .next(now)
            .map_err(|_| unavailable("no randomness for a serial number"))?;
        let template = signet_certs::svid::template(
            &self.parts.control_profile,
            Purpose::Control,
            spiffe_id.clone(),
            Vec::new(),
            serial,
            &authority.certificate,
            now,
        )
        .map_err(|error| self.refused(RefusalReason::InvalidRequest, error.to_string()))?;
        let row = AgentRow {
            spiffe_id: spiffe_id.clone(),
            cluster: proven.cluster.clone(),
            node_name: proven.node_name.clone(),
            node_uid: proven.node_uid.clone(),
            serial,
            authority: authority.certificate.id(),
            attested_at: proven.attested_at,
            expires_at: template.not_after,
        };
        let order = Order {
            template,
            key,
            workload: node_workload(&proven, &spiffe_id),
            evidence: EvidenceKind::NodeToken,
            token_jti: proven.pod.as_ref().map(|pod| pod.jti.clone()),
            rule: if proven.pod.is_some() {
                "node-token"
            } else {
                "valid-agent-certificate"
            }
            .to_owned(),
            hint: String::new(),
            identities: Vec::new(),
            policy_revision: self.parts.rules.revision(),
            budget: Some(MAX_LIVE),
        };
        let outcome = self.record_and_sign(&authority, vec![order]).await.pop();
        let Some(Outcome::Issued(issued)) = outcome else {
            return Err(outcome.unwrap_or_else(|| unavailable("the server lost a request item")));
        };
        if let Err(error) = self.parts.store.record_agent(row.clone()).await {
            tracing::error!(%error, agent = %spiffe_id, "an attested agent could not be recorded");
            return Err(unavailable("the server cannot record agents at the moment"));
        }
        self.parts.store.audit(AuditEvent::new(
            now,
            AuditAction::NodeAttested {
                agent_id: spiffe_id.clone(),
                cluster: row.cluster.clone(),
                node_name: row.node_name.clone(),
                node_uid: row.node_uid.clone(),
                pod: proven
                    .pod
                    .as_ref()
                    .map(|pod| format!("{}/{}", pod.namespace, pod.pod_name))
                    .unwrap_or_default(),
                token_jti: proven.pod.as_ref().map(|pod| pod.jti.clone()),
            },
        ));
        self.parts.agents.attested(row);
        Ok(NodeCertificate {
            spiffe_id,
            leaf: issued.leaf,
            node_name: proven.node_name,
            node_uid: proven.node_uid,
        })
    }

    async fn prove(
        &self,
        request: &NodeRequest,
        presented: Option<&VerifiedSvid>,
    ) -> Result<Proven, Outcome> {
        match self
            .parts
            .attestor
            .attest_node(&request.cluster, &request.token)
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
                match self.prove_by_certificate(&request.cluster, presented).await {
                    Some(proven) => Ok(proven),
                    None => Err(Outcome::Unavailable { message, retry_after }),
                }
            }
            Err(refused) => Err(self.not_attested(refused)),
        }
    }

    /// Outage of the API server: the agent's own valid certificate stands in for a review, for a day (design §4).
    async fn prove_by_certificate(&self, cluster: &str, presented: Option<&VerifiedSvid>) -> Option<Proven> {
        let presented = presented?;
        let now = self.parts.clock.now();
        let agents = self.parts.store.agents().await.ok()?;
        let row = agents
            .into_iter()
            .find(|row| row.spiffe_id == presented.spiffe_id && row.cluster == cluster)?;
        let reviewed_for = now.duration_since(row.attested_at).ok()?;
        (reviewed_for < RENEW_WITHOUT_REVIEW && presented.not_after > now).then(|| Proven {
            cluster: row.cluster,
            cluster_uid: String::new(),
            node_name: row.node_name,
            node_uid: row.node_uid,
            pod: None,
            attested_at: row.attested_at,
        })
    }
}

fn node_workload(proven: &Proven, spiffe_id: &SpiffeId) -> WorkloadRef {
    WorkloadRef {
        cluster_uid: proven.cluster_uid.clone(),
        spiffe_id: spiffe_id.clone(),
        pod_namespace: proven
            .pod
            .as_ref()
            .map(|pod| pod.namespace.clone())
            .unwrap_or_default(),
        pod_name: proven
            .pod
            .as_ref()
            .map(|pod| pod.pod_name.clone())
            .unwrap_or_default(),
        // The budget counts per node: an agent's pod may be replaced at will.
        pod_uid: String::new(),
        node_name: proven.node_name.clone(),
        node_uid: proven.node_uid.clone(),
        agent_id: spiffe_id.to_string(),
    }
}
