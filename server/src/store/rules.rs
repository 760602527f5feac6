//! The rules: what was accepted of them last, and whom others would take something from.

use std::time::SystemTime;

use super::{EvidenceKind, StoreFuture, WorkloadRef};
use crate::audit_event::AuditEvent;

/// What a store keeps of rules.
pub(crate) trait KeptRules: Send + Sync {
    /// The rules as they were accepted last; `None` before the first time. The store does not look into them.
    fn accepted_rules(&self) -> StoreFuture<'_, Option<String>>;

    /// The rules that admins have set, as they were kept last; `None` before the first time. The store does not look into them.
    fn admin_rules(&self) -> StoreFuture<'_, Option<String>>;

    /// Keeps rules in place of those before; with audit rows, in one transaction.
    fn keep_rules(&self, rules: RulesToKeep, audit: Vec<AuditEvent>) -> StoreFuture<'_, ()>;

    /// Every identity of a workload under which it holds a certificate that is neither revoked nor expired at `earliest`, once.
    /// Certificates of agents and of the server are none: no rule gives them. Reads the whole ledger: for when rules change.
    fn live_identities(&self, earliest: SystemTime) -> StoreFuture<'_, Vec<LiveIdentity>>;
}

/// What is to be kept of rules; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RulesToKeep {
    /// Those that are accepted from now on.
    pub accepted: Option<String>,
    /// Those that admins have set.
    pub of_admins: Option<String>,
}

/// An identity under which a workload holds a live certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveIdentity {
    /// Who, and the identity.
    pub workload: WorkloadRef,
    /// What proved the workload.
    pub evidence: EvidenceKind,
    /// Name of the rule that gave the newest certificate.
    pub rule: String,
}
