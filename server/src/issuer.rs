//! Issuing: attest, decide, record durably, sign, check, hand out; in that order and no other (design §6).
//!
//! A crash between recording and signing leaves a row without a certificate, never the reverse, so whatever exists can
//! be found and revoked.

mod decide;
mod node;
mod parallel;
mod sign;
mod types;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use signet_certs::{
    authority::{AuthorityKind, X509Authority},
    csr::{WorkloadPublicKey, verify_csr},
    id::{SpiffeId, TrustDomain},
    svid::{Purpose, SvidProfile},
};
use signet_runtime::clock::Clock;
use tokio::sync::watch;

use self::{
    decide::Decided,
    parallel::parallel_map,
    sign::{Order, SerialSource},
};
pub use self::{
    node::{NodeCertificate, NodeRequest},
    types::{Evidence, IssueItem, Issued, Outcome, Refusal, RefusalReason},
};
use crate::{
    admission::{Admission, RETRY_AFTER},
    agents::Agents,
    attest::{AgentIdentity, AttestError, Attestor},
    audit::{AuditAction, AuditEvent},
    authority::AuthorityView,
    metrics::Metrics,
    rules::RuleSet,
    store::{IssueRefusal, Store},
};

/// Said while no authority is active or the server's clock is behind.
const NOBODY_SIGNS: &str = "the server cannot sign at the moment: it is starting, or its clock is wrong";
/// Most items of one request.
pub const MAX_ITEMS: usize = 256;
/// Items under way in the whole server, and for one agent.
const ITEMS_UNDER_WAY: usize = 8192;
const ITEMS_UNDER_WAY_PER_AGENT: usize = 2048;

/// Everything an issuer needs; see [`Issuer::new`].
pub struct IssuerParts {
    /// The only one this server signs for.
    pub trust_domain: TrustDomain,
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Proves tokens.
    pub attestor: Arc<dyn Attestor>,
    /// From facts to identities.
    pub rules: Arc<RuleSet>,
    /// Who signs.
    pub authorities: watch::Receiver<Arc<AuthorityView>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Randomness of serials.
    pub rng: ring::rand::SystemRandom,
    /// Life of workload certificates.
    pub profile: SvidProfile,
    /// Life of agent certificates.
    pub control_profile: SvidProfile,
    /// Unexpired certificates per workload and identity.
    pub max_live: u32,
    /// What is known of agents.
    pub agents: Arc<Agents>,
    /// False while the clock is behind the latest time this server has seen: a certificate signed then would have
    /// times that peers and CRLs contradict (design §10).
    pub clock_trusted: watch::Receiver<bool>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Issues certificates to attested workloads and nodes.
pub struct Issuer {
    parts: IssuerParts,
    serials: SerialSource,
    admission: Arc<Admission<SpiffeId>>,
}

impl Issuer {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: IssuerParts) -> Self {
        let serials = SerialSource::new(parts.rng.clone());
        Self {
            parts,
            serials,
            admission: Admission::new(ITEMS_UNDER_WAY, ITEMS_UNDER_WAY_PER_AGENT),
        }
    }

    /// Issues to workloads of the calling agent's node. Answers item by item, in order; a bad item spoils no other.
    /// `None` when too much is under way: the caller answers `RESOURCE_EXHAUSTED`.
    pub async fn issue(&self, agent: &AgentIdentity, items: Vec<IssueItem>) -> Option<Vec<Outcome>> {
        let _admitted = self.admission.admit(&agent.spiffe_id, items.len())?;
        let decisions = join_all(items.iter().map(|item| self.decide(agent, item))).await;
        let Some(authority) = self.active(AuthorityKind::X509) else {
            return Some(items.iter().map(|_| unavailable(NOBODY_SIGNS)).collect());
        };
        let outcomes = self.issue_decided(agent, &authority, items, decisions).await;
        self.account(agent, &outcomes);
        Some(outcomes)
    }

    async fn issue_decided(
        &self,
        agent: &AgentIdentity,
        authority: &X509Authority,
        items: Vec<IssueItem>,
        decisions: Vec<Result<Decided, Outcome>>,
    ) -> Vec<Outcome> {
        let revision = self.parts.rules.revision();
        let csrs = items
            .into_iter()
            .zip(&decisions)
            .map(|(item, d)| d.is_ok().then_some(item.csr))
            .collect();
        let keys = parallel_map(csrs, |csr: Option<Bytes>| csr.map(|csr| verify_csr(&csr))).await;
        let mut outcomes = Vec::with_capacity(decisions.len());
        let mut orders = Vec::new();
        for (decision, key) in decisions.into_iter().zip(keys) {
            let order = match (decision, key) {
                (Err(outcome), _) => Err(outcome),
                (Ok(decided), Some(Ok(key))) => self.order(decided, key, authority),
                (Ok(_), Some(Err(error))) => {
                    Err(self.refused(RefusalReason::InvalidRequest, error.to_string()))
                }
                (Ok(_), None) => Err(unavailable("the server lost a request item")),
            };
            match order {
                Ok(order) => {
                    outcomes.push(None);
                    orders.push(order);
                }
                Err(outcome) => outcomes.push(Some(outcome)),
            }
        }
        let mut signed = self.record_and_sign(authority, orders).await.into_iter();
        tracing::debug!(agent = %agent.spiffe_id, items = outcomes.len(), revision, "issued");
        outcomes
            .into_iter()
            .map(|outcome| {
                outcome
                    .or_else(|| signed.next())
                    .unwrap_or_else(|| unavailable("the server lost a request item"))
            })
            .collect()
    }

    fn order(
        &self,
        decided: Decided,
        key: WorkloadPublicKey,
        authority: &X509Authority,
    ) -> Result<Order, Outcome> {
        if self.is_authority_key(&key) {
            return Err(self.refused(
                RefusalReason::InvalidRequest,
                "the CSR carries an authority's key".to_owned(),
            ));
        }
        let now = self.parts.clock.now();
        let serial = self
            .serials
            .next(now)
            .map_err(|_| unavailable("no randomness for a serial number"))?;
        let mut profile = self.parts.profile.clone();
        if let Some(ttl) = decided.identity.ttl {
            profile.ttl = ttl;
        }
        let template = signet_certs::svid::template(
            &profile,
            Purpose::Workload,
            decided.identity.spiffe_id.clone(),
            decided.identity.dns_names,
            serial,
            &authority.certificate,
            now,
        )
        .map_err(|error| self.refused(RefusalReason::InvalidRequest, error.to_string()))?;
        let mut workload = decided.workload;
        workload.spiffe_id = decided.identity.spiffe_id;
        Ok(Order {
            template,
            key,
            workload,
            evidence: decided.evidence,
            token_jti: decided.token_jti,
            rule: decided.identity.rule,
            hint: decided.identity.hint,
            identities: decided.identities,
            policy_revision: self.parts.rules.revision(),
            budget: Some(self.parts.max_live),
        })
    }

    /// A workload whose key is an authority's would let its holder act as one (conformance BC-14).
    fn is_authority_key(&self, key: &WorkloadPublicKey) -> bool {
        let id = signet_certs::authority::AuthorityId::of_spki(key.spki_der());
        self.parts
            .authorities
            .borrow()
            .all()
            .any(|(_, viewed)| viewed.id() == id)
    }

    fn active(&self, kind: AuthorityKind) -> Option<X509Authority> {
        if !*self.parts.clock_trusted.borrow() {
            return None;
        }
        self.parts
            .authorities
            .borrow()
            .kind(kind)
            .active()
            .map(|viewed| viewed.authority.clone())
    }

    fn refused(&self, reason: RefusalReason, message: String) -> Outcome {
        Outcome::Refused(Refusal {
            reason,
            message,
            policy_revision: self.parts.rules.revision(),
            retry_after: None,
            spiffe_id: None,
            pod_uid: None,
        })
    }

    fn not_attested(&self, error: AttestError) -> Outcome {
        match error {
            AttestError::Refused(reason) => self.refused(RefusalReason::NotAttested, reason.to_string()),
            AttestError::Unavailable { message, retry_after } => {
                Outcome::Unavailable { message, retry_after }
            }
        }
    }

    fn record_refusal(&self, error: IssueRefusal) -> Outcome {
        let reason = match &error {
            IssueRefusal::Denied { .. } => RefusalReason::Denied,
            IssueRefusal::Budget { .. } => RefusalReason::Budget,
            IssueRefusal::TokenReused => RefusalReason::NotAttested,
            // 104 random bits met twice in one millisecond: chance does not do that, the next try has another one.
            IssueRefusal::SerialTaken => return unavailable("a serial number was taken"),
        };
        let retry_after = match &error {
            IssueRefusal::Budget { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        match self.refused(reason, error.to_string()) {
            Outcome::Refused(refusal) => Outcome::Refused(Refusal {
                retry_after,
                ..refusal
            }),
            other => other,
        }
    }

    fn audit_refusal(&self, caller: String, operation: &str, refusal: &Refusal) {
        self.parts.store.audit(AuditEvent::new(
            self.parts.clock.now(),
            AuditAction::Refused {
                caller,
                operation: operation.to_owned(),
                reason: format!("{}: {}", refusal.reason.as_str(), refusal.message),
                spiffe_id: refusal.spiffe_id.clone(),
                pod_uid: refusal.pod_uid.clone(),
            },
        ));
    }

    /// Counts outcomes and audits refusals; what was issued is audited in its transaction.
    fn account(&self, agent: &AgentIdentity, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome {
                Outcome::Issued(_) => self.parts.metrics.issued(),
                Outcome::Unavailable { .. } => self.parts.metrics.unavailable(),
                Outcome::Refused(refusal) => {
                    self.parts.metrics.refused(refusal.reason.as_str());
                    self.audit_refusal(agent.spiffe_id.to_string(), "issue", refusal);
                }
            }
        }
    }
}

fn unavailable(message: &str) -> Outcome {
    Outcome::Unavailable {
        message: message.to_owned(),
        retry_after: RETRY_AFTER,
    }
}

#[cfg(test)]
mod tests;
