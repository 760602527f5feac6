//! The audit line of a certificate, written from its row of the ledger when it is emitted.

use std::time::SystemTime;

use serde::Serialize;
use signet_certs::authority::AuthorityId;
use signet_certs::serial::SerialNumber;
use signet_certs::time::rfc3339;

use super::EvidenceKind;

/// Exactly what the row says, never what happened to the certificate later: a line that is written again is the same.
pub(super) struct IssuedLine<'a> {
    /// When it was recorded.
    pub(super) at: SystemTime,
    pub(super) serial: SerialNumber,
    pub(super) authority: AuthorityId,
    pub(super) workload: IssuedTo<'a>,
    pub(super) evidence: EvidenceKind,
    pub(super) token_jti: Option<&'a str>,
    pub(super) spki_sha256: &'a [u8],
    pub(super) rule: &'a str,
    pub(super) policy_revision: u64,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) epoch: u64,
    pub(super) outage: bool,
}

/// Who it is for; see [`WorkloadRef`](super::WorkloadRef).
#[derive(Serialize)]
pub(super) struct IssuedTo<'a> {
    pub(super) spiffe_id: &'a str,
    pub(super) cluster_uid: &'a str,
    pub(super) pod_namespace: &'a str,
    pub(super) pod_name: &'a str,
    pub(super) pod_uid: &'a str,
    pub(super) node_name: &'a str,
    pub(super) node_uid: &'a str,
    pub(super) agent_id: &'a str,
    pub(super) process: &'a str,
}

#[derive(Serialize)]
struct Members<'a> {
    time: String,
    event: &'static str,
    serial: String,
    authority_id: String,
    #[serde(flatten)]
    workload: &'a IssuedTo<'a>,
    evidence: &'static str,
    token_jti: Option<&'a str>,
    spki_sha256: String,
    rule: &'a str,
    policy_revision: String,
    not_before: String,
    not_after: String,
    epoch: u64,
    /// Only where it is so: its cluster's API server was away.
    #[serde(skip_serializing_if = "Option::is_none")]
    outage: Option<bool>,
}

impl IssuedLine<'_> {
    /// As one JSON object, without its position in the log.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Members {
            time: rfc3339(self.at),
            event: "issued",
            serial: self.serial.to_string(),
            authority_id: self.authority.to_string(),
            workload: &self.workload,
            evidence: self.evidence.as_str(),
            token_jti: self.token_jti,
            spki_sha256: hex::encode(self.spki_sha256),
            rule: self.rule,
            // As text in hex: JSON readers lose digits of numbers over 2^53.
            policy_revision: format!("{:016x}", self.policy_revision),
            not_before: rfc3339(self.not_before),
            not_after: rfc3339(self.not_after),
            epoch: self.epoch,
            outage: self.outage.then_some(true),
        })
    }
}
