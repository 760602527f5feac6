//! Issuing: attest, decide, record durably, sign, check, hand out; in that order and no other (design §6).
//!
//! A crash between recording and signing leaves a row without a certificate, never the reverse, so whatever exists can
//! be found and revoked.

mod bounds;
mod decide;
mod draft;
mod lately;
mod node;
pub(crate) mod own;
mod parallel;
mod recorded;
mod requester;
mod types;
mod unusable;
mod workloads;

use std::{sync::Arc, time::Duration};

use ring::rand::SystemRandom;
use signet_certs::{
    authority::{AuthorityKind, X509Authority},
    csr::{CsrError, WorkloadPublicKey},
    id::{SpiffeId, TrustDomain},
    svid::{SvidError, SvidProfile},
};
use signet_runtime::limits::Limit;
use tokio::sync::watch;

use self::{
    bounds::{Bounds, Owners},
    draft::DraftError,
    lately::Lately,
    recorded::{RecordedLeaf, SignError},
    requester::Requester,
    unusable::UnusableRules,
};
pub(crate) use self::{
    lately::RefusedOnce,
    node::NodeRequest,
    requester::CallingAgent,
    types::{
        Answered, CallRefused, Evidence, IssueItem, Issued, NotIssued, Outcome, RETRY_AFTER, Refusal,
        RefusalReason,
    },
};
use crate::{
    agents::Agents,
    attest::Attestor,
    audit::{AuditAction, AuditBacklog, AuditEvent, AuditLog},
    authority::AuthorityView,
    clock::TrustedClock,
    metrics::Metrics,
    rules::RuleSet,
    store::{IssueRefusal, MANY_DISPLACED, Spent, Store, StoreError},
};

/// Said while no authority is active or the time is not known.
const NOBODY_SIGNS: &str = "the server cannot sign at the moment: it is starting, or its clock is wrong";
/// Said while the ledger cannot be written.
const NOT_RECORDED: &str = "the server cannot record certificates at the moment";
/// Said where a signature failed.
const NOT_SIGNED: &str = "the server could not sign";
/// Most items of one request.
pub(crate) const MAX_ITEMS: usize = 256;

/// Rows of the table of limits.
pub(crate) fn limits() -> [Limit; 3] {
    let [under_way, fruitless] = bounds::limits();
    [under_way, fruitless, lately::limit()]
}

/// Everything an issuer needs; see [`Issuer::new`].
pub(crate) struct IssuerParts {
    /// The only one this server signs for.
    pub trust_domain: TrustDomain,
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Where refusals and attested nodes are told.
    pub audit: AuditLog,
    /// Proves tokens.
    pub attestor: Arc<dyn Attestor>,
    /// From facts to identities, as they are in force.
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// Who signs.
    pub authorities: watch::Receiver<Arc<AuthorityView>>,
    /// The server's time: without trust in it nothing is signed.
    pub clock: Arc<TrustedClock>,
    /// Randomness of serials.
    pub rng: SystemRandom,
    /// Life of workload certificates.
    pub profile: SvidProfile,
    /// The longest that a rule gets for its workload certificates, whatever it says: authorities were made to outlive that.
    pub longest_ttl: Duration,
    /// Life of agent certificates.
    pub control_profile: SvidProfile,
    /// Unexpired certificates per workload and identity that displace no other.
    pub max_live: u32,
    /// What is known of agents.
    pub agents: Arc<Agents>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Nothing is issued that cannot be audited.
    pub backlog: AuditBacklog,
}

/// Issues certificates to attested workloads and nodes.
pub(crate) struct Issuer {
    parts: IssuerParts,
    bounds: Bounds,
    unusable: UnusableRules,
    lately: Lately,
}

impl Issuer {
    /// Puts the parts together.
    #[must_use]
    pub(crate) fn new(parts: IssuerParts) -> Self {
        parts
            .metrics
            .may_refuse(RefusalReason::ALL.map(RefusalReason::as_str));
        Self {
            parts,
            bounds: Bounds::new(),
            unusable: UnusableRules::default(),
            lately: Lately::default(),
        }
    }

    /// What a pod was refused lately that this agent asked for, newest first.
    pub(crate) fn refused_lately(&self, pod_uid: &str, agent: &SpiffeId) -> Vec<RefusedOnce> {
        self.lately.of(pod_uid, agent.as_str())
    }

    /// Whether a budget that a pod's next certificate is taken from is known to be used up.
    pub(crate) fn spent_by(&self, id: &SpiffeId, pod_uid: &str, agent: &SpiffeId) -> Option<Spent> {
        self.bounds.spent(&Owners::of_pod(id, pod_uid, agent))
    }

    /// Unexpired certificates of one workload and identity that displace no other.
    pub(crate) const fn max_live(&self) -> u32 {
        self.parts.max_live
    }

    /// A key that a certificate may carry.
    fn acceptable(&self, key: Result<WorkloadPublicKey, CsrError>) -> Result<WorkloadPublicKey, NotIssued> {
        let key =
            key.map_err(|error| NotIssued::refused(RefusalReason::InvalidRequest, error.to_string()))?;
        if self.is_authority_key(&key) {
            let message = "the CSR carries an authority's key".to_owned();
            return Err(NotIssued::refused(RefusalReason::InvalidRequest, message));
        }
        Ok(key)
    }

    /// A workload whose key is an authority's would let its holder act as one (conformance BC-14).
    fn is_authority_key(&self, key: &WorkloadPublicKey) -> bool {
        let id = key.key_id();
        self.parts
            .authorities
            .borrow()
            .all()
            .any(|(_, viewed)| viewed.id() == id)
    }

    /// Who signs; or why nothing is issued, which is no verdict.
    fn active(&self, kind: AuthorityKind) -> Result<X509Authority, &'static str> {
        if let Some(full) = self.parts.backlog.stops_issuing() {
            return Err(full);
        }
        self.parts.clock.time().adding().map_err(|_| NOBODY_SIGNS)?;
        let view = self.parts.authorities.borrow();
        let active = view.kind(kind).active();
        active.map(|viewed| viewed.x509().clone()).ok_or(NOBODY_SIGNS)
    }

    /// A workload that goes on asking is served, and somebody should know.
    fn count_displaced(&self, leaf: &RecordedLeaf) {
        let displaced = leaf.displaced();
        if displaced == 0 {
            return;
        }
        let many = displaced > MANY_DISPLACED;
        self.parts.metrics.displaced(many);
        // The first beyond the bound, and of the others one in so many.
        if many && displaced.is_multiple_of(MANY_DISPLACED + 1) {
            tracing::warn!(
                spiffe_id = %leaf.spiffe_id(),
                displaced,
                "a workload asks for one certificate after the other: does it, or its agent, restart in a loop?"
            );
        }
    }

    fn audit_refusal(&self, caller: String, operation: &str, refusal: &Refusal) {
        tracing::info!(
            caller,
            operation,
            kind = refusal.reason.as_str(),
            reason = refusal.message,
            spiffe_id = refusal.spiffe_id.as_ref().map(display),
            pod_uid = refusal.pod_uid,
            "refused"
        );
        let aside = refusal.aside.as_ref();
        let aside = aside.map(|aside| format!(" ({aside})")).unwrap_or_default();
        self.parts.audit.record(AuditEvent::new(
            self.parts.clock.now(),
            AuditAction::Refused {
                caller,
                operation: operation.to_owned(),
                kind: refusal.reason.as_str(),
                reason: format!("{}: {}{aside}", refusal.reason.as_str(), refusal.message),
                spiffe_id: refusal.spiffe_id.clone(),
                pod_uid: refusal.pod_uid.clone(),
            },
        ));
    }

    /// Counts outcomes and audits refusals; what was issued is audited in its transaction.
    fn account(&self, requester: &dyn Requester, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match outcome {
                Ok(_) => self.parts.metrics.issued(),
                Err(NotIssued::Unavailable { .. }) => self.parts.metrics.unavailable(),
                Err(NotIssued::Refused(refusal)) => {
                    self.parts.metrics.refused(refusal.reason.as_str());
                    self.audit_refusal(requester.name().to_owned(), "issue", refusal);
                }
            }
        }
    }
}

/// Whether another order would do; if not, it is the server that is in trouble, and that is never a verdict.
fn is_about_the_order(error: &SvidError) -> bool {
    match error {
        SvidError::Identity { .. }
        | SvidError::DnsName { .. }
        | SvidError::TooManyDnsNames(_)
        | SvidError::Key(_) => true,
        SvidError::AuthorityNotValid(_)
        | SvidError::Lifetime
        | SvidError::CrlUrl(_)
        | SvidError::Authority(_)
        | SvidError::Sign(_)
        | SvidError::Wrong(_) => false,
    }
}

fn no_draft(error: DraftError) -> NotIssued {
    match error {
        DraftError::Random => NotIssued::unavailable("no randomness for a serial number"),
        DraftError::Svid(error) if is_about_the_order(&error) => {
            NotIssued::refused(RefusalReason::InvalidRequest, error.to_string())
        }
        DraftError::Svid(error) => {
            tracing::error!(%error, "no certificate can be made at the moment");
            NotIssued::unavailable(&error.to_string())
        }
    }
}

fn record_refusal(error: &IssueRefusal) -> NotIssued {
    let (reason, retry_after) = match error {
        IssueRefusal::Caller(_) => (RefusalReason::NotAttested, None),
        IssueRefusal::Denied { .. } => (RefusalReason::Denied, None),
        IssueRefusal::Budget(spent) => (RefusalReason::Budget, Some(spent.retry_after)),
        IssueRefusal::CompromisedKey => (RefusalReason::InvalidRequest, None),
        IssueRefusal::TokenReused => (RefusalReason::NotAttested, None),
        // Not a verdict: it may be answered when the API server is back.
        IssueRefusal::NewInOutage => return NotIssued::unavailable(&error.to_string()),
        // 104 random bits met twice in one millisecond: chance does not do that, the next try has another one.
        IssueRefusal::SerialTaken => return NotIssued::unavailable("a serial number was taken"),
    };
    NotIssued::Refused(Refusal {
        retry_after,
        ..Refusal::new(reason, error.to_string())
    })
}

fn report_not_recorded(error: &StoreError) {
    tracing::error!(%error, "certificates could not be recorded, so none was signed");
}

fn not_signed(error: &SignError) -> NotIssued {
    tracing::error!(%error, "a certificate could not be signed or did not pass its check");
    NotIssued::unavailable(NOT_SIGNED)
}

#[cfg(test)]
mod tests;
