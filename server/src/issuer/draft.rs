//! A leaf before it may be signed: what it will say and its row of the ledger are made at once, from the same facts, and
//! the row is recorded.

use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use signet_certs::{
    authority::X509Authority,
    csr::WorkloadPublicKey,
    serial::SerialNumber,
    svid::{self, Purpose, SvidError, SvidProfile},
};

use super::recorded::{Details, RecordedLeaf};
use crate::store::{
    Attestation, Budget, EvidenceKind, IssueRefusal, NewIssuance, Store, StoreError, WorkloadRef,
};

/// A leaf that is decided: for whom, why, and by which rule.
pub(super) struct Order {
    pub(super) purpose: Purpose,
    /// Who gets it; its SPIFFE ID is the leaf's.
    pub(super) workload: WorkloadRef,
    pub(super) dns_names: Vec<String>,
    pub(super) key: WorkloadPublicKey,
    pub(super) evidence: EvidenceKind,
    pub(super) token_jti: Option<String>,
    pub(super) rule: String,
    pub(super) policy_revision: u64,
    /// See [`NewIssuance::earliest`].
    pub(super) earliest: SystemTime,
    /// See [`NewIssuance::caller`].
    pub(super) caller: Option<SerialNumber>,
    /// See [`NewIssuance::attestation`].
    pub(super) attestation: Option<Attestation>,
    /// See [`NewIssuance::outage`].
    pub(super) outage: bool,
    /// See [`NewIssuance::budget`].
    pub(super) budget: Option<Budget>,
}

/// A leaf that is not yet recorded.
pub(super) struct Draft {
    row: NewIssuance,
    details: Details,
}

/// Why there is no draft.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    /// Ours: the system gives no randomness.
    #[error("no randomness for a serial number")]
    Random,
    /// The order's: no leaf may say this.
    #[error(transparent)]
    Svid(#[from] SvidError),
}

impl Draft {
    /// Gives the leaf its serial and its times: those of `profile`, within the life of `authority`.
    pub(super) fn new(
        order: Order,
        profile: &SvidProfile,
        authority: &X509Authority,
        random: &SystemRandom,
        now: SystemTime,
    ) -> Result<Self, DraftError> {
        let template = svid::template(
            profile,
            order.purpose,
            order.workload.spiffe_id.clone(),
            order.dns_names,
            new_serial(random, now)?,
            authority.certificate(),
            now,
        )?;
        let row = NewIssuance {
            serial: template.serial,
            authority: authority.certificate().id(),
            workload: order.workload,
            evidence: order.evidence,
            token_jti: order.token_jti,
            spki_sha256: order.key.spki_sha256(),
            rule: order.rule,
            policy_revision: order.policy_revision,
            not_before: template.not_before,
            not_after: template.not_after,
            earliest: order.earliest,
            caller: order.caller,
            attestation: order.attestation,
            outage: order.outage,
            budget: order.budget,
        };
        let details = Details {
            key: order.key,
            dns_names: template.dns_names,
            crl_url: template.crl_url,
        };
        Ok(Self { row, details })
    }
}

fn new_serial(random: &SystemRandom, now: SystemTime) -> Result<SerialNumber, DraftError> {
    let mut bytes = [0; 13];
    random.fill(&mut bytes).map_err(|_| DraftError::Random)?;
    Ok(SerialNumber::generate(now, &bytes))
}

/// Records drafts in one transaction. As many answers, in the same order; those that are `Ok` are durable.
pub(super) async fn record(
    store: &dyn Store,
    drafts: Vec<Draft>,
    now: SystemTime,
) -> Result<Vec<Result<RecordedLeaf, IssueRefusal>>, StoreError> {
    if drafts.is_empty() {
        return Ok(Vec::new());
    }
    let (rows, details): (Vec<_>, Vec<_>) =
        drafts.into_iter().map(|draft| (draft.row, draft.details)).unzip();
    let answers = store.issue(rows, now).await?;
    if answers.len() != details.len() {
        return Err(no_answer());
    }
    let leaf = |(answer, details): (Result<_, IssueRefusal>, Details)| {
        answer.map(|recorded| RecordedLeaf::new(recorded, details))
    };
    Ok(answers.into_iter().zip(details).map(leaf).collect())
}

/// As [`record`], for a single draft.
pub(super) async fn record_one(
    store: &dyn Store,
    draft: Draft,
    now: SystemTime,
) -> Result<Result<RecordedLeaf, IssueRefusal>, StoreError> {
    record(store, vec![draft], now).await?.pop().ok_or_else(no_answer)
}

fn no_answer() -> StoreError {
    StoreError::Unavailable {
        message: "it did not answer for every row".to_owned(),
    }
}
