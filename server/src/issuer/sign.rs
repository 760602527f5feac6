//! The last steps of issuing: one durable transaction, then signatures, each checked before it leaves.

use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};
use signet_certs::{
    authority::X509Authority, csr::WorkloadPublicKey, id::SpiffeId, serial::SerialNumber, svid::SvidTemplate,
};

use super::{Issued, Issuer, Outcome, parallel::parallel_map, unavailable};
use crate::store::{EvidenceKind, MAX_BATCH, NewIssuance, StoreError, WorkloadRef};

/// A certificate that is decided and not yet recorded.
pub(super) struct Order {
    pub(super) template: SvidTemplate,
    pub(super) key: WorkloadPublicKey,
    pub(super) workload: WorkloadRef,
    pub(super) evidence: EvidenceKind,
    pub(super) token_jti: Option<String>,
    pub(super) rule: String,
    pub(super) hint: String,
    pub(super) identities: Vec<(SpiffeId, String)>,
    pub(super) policy_revision: u64,
    pub(super) budget: Option<u32>,
}

/// Fresh serial numbers.
pub(super) struct SerialSource {
    rng: SystemRandom,
}

impl SerialSource {
    pub(super) const fn new(rng: SystemRandom) -> Self {
        Self { rng }
    }

    pub(super) fn next(&self, now: SystemTime) -> Result<SerialNumber, ring::error::Unspecified> {
        let mut random = [0; 13];
        self.rng.fill(&mut random)?;
        Ok(SerialNumber::generate(now, &random))
    }
}

impl Issuer {
    /// Records all orders in one transaction and signs those that were recorded. Answers in order.
    pub(super) async fn record_and_sign(
        &self,
        authority: &X509Authority,
        orders: Vec<Order>,
    ) -> Vec<Outcome> {
        if orders.is_empty() {
            return Vec::new();
        }
        debug_assert!(orders.len() <= MAX_BATCH);
        let rows = orders.iter().map(|order| row(order, authority)).collect();
        let recorded = match self.parts.store.issue(rows, self.parts.clock.now()).await {
            Ok(recorded) => recorded,
            Err(error) => {
                report(&error);
                return orders
                    .iter()
                    .map(|_| unavailable("the server cannot record certificates at the moment"))
                    .collect();
            }
        };
        let work = orders
            .into_iter()
            .zip(recorded)
            .map(|(order, result)| (order, result.map(|()| authority.clone())))
            .collect();
        let signed = parallel_map(work, |(order, result)| {
            Some(result.map(|authority| sign(order, &authority)))
        })
        .await;
        signed
            .into_iter()
            .map(|signed| match signed {
                Some(Ok(Ok(issued))) => Outcome::Issued(issued),
                Some(Ok(Err(error))) => {
                    tracing::error!(%error, "a certificate could not be signed or did not pass its check");
                    unavailable("the server could not sign")
                }
                Some(Err(refusal)) => self.record_refusal(refusal),
                None => unavailable("the server could not sign"),
            })
            .collect()
    }
}

fn row(order: &Order, authority: &X509Authority) -> NewIssuance {
    NewIssuance {
        serial: order.template.serial,
        authority: authority.certificate.id(),
        workload: order.workload.clone(),
        evidence: order.evidence,
        token_jti: order.token_jti.clone(),
        spki_sha256: order.key.spki_sha256(),
        rule: order.rule.clone(),
        policy_revision: order.policy_revision,
        not_before: order.template.not_before,
        not_after: order.template.not_after,
        budget: order.budget,
    }
}

fn sign(order: Order, authority: &X509Authority) -> anyhow::Result<Issued> {
    let leaf = signet_certs::svid::sign(&order.template, &order.key, authority)?;
    signet_certs::svid::check(&leaf, &order.template, &order.key, &authority.certificate)?;
    Ok(Issued {
        spiffe_id: order.template.spiffe_id,
        leaf,
        hint: order.hint,
        identities: order.identities,
        policy_revision: order.policy_revision,
    })
}

fn report(error: &StoreError) {
    tracing::error!(%error, "certificates could not be recorded, so none was signed");
}
