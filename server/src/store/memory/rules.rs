//! Rules, and who lives by them.

use std::collections::HashMap;
use std::time::SystemTime;

use super::MemoryStore;
use crate::audit_event::AuditEvent;
use crate::store::{EvidenceKind, KeptRules, LiveIdentity, NewIssuance, RulesToKeep, StoreFuture};

impl KeptRules for MemoryStore {
    fn accepted_rules(&self) -> StoreFuture<'_, Option<String>> {
        self.look(|kept| kept.accepted_rules.clone())
    }

    fn admin_rules(&self) -> StoreFuture<'_, Option<String>> {
        self.look(|kept| kept.admin_rules.clone())
    }

    fn keep_rules(&self, rules: RulesToKeep, audit: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            self.fails(&self.rules_failures)?;
            if rules.accepted.is_some() {
                kept.accepted_rules = rules.accepted;
            }
            if rules.of_admins.is_some() {
                kept.admin_rules = rules.of_admins;
            }
            kept.audit(audit);
            Ok(())
        })
    }

    fn live_identities(&self, earliest: SystemTime) -> StoreFuture<'_, Vec<LiveIdentity>> {
        self.look(move |kept| {
            let of_rules =
                |row: &&NewIssuance| matches!(row.evidence, EvidenceKind::PodToken | EvidenceKind::Unix);
            let is_live = |row: &&NewIssuance| {
                row.not_after > earliest && !kept.revocations.contains_key(&(row.authority, row.serial))
            };
            let mut newest: HashMap<_, &NewIssuance> = HashMap::new();
            for row in kept.rows.iter().filter(of_rules).filter(is_live) {
                let known = newest.entry(&row.workload).or_insert(row);
                if row.serial > known.serial {
                    *known = row;
                }
            }
            let identity = |row: &NewIssuance| LiveIdentity {
                workload: row.workload.clone(),
                evidence: row.evidence,
                rule: row.rule.clone(),
            };
            newest.into_values().map(identity).collect()
        })
    }
}
