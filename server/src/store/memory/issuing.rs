//! The ledger: judging, recording, listing.

use std::collections::HashSet;
use std::time::SystemTime;

use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::kept::Kept;
use crate::store::budget::take;
use crate::store::ledger::batch_size;
use crate::store::{
    AuthorityUse, Budget, Denial, EvidenceKind, IssueRefusal, LedgerRow, NewIssuance, PodTokenUse, Recorded,
    StoreError, Subject, SvidFilter, SvidPage, WorkloadRef,
};

impl Kept {
    pub(super) fn issue(
        &mut self,
        batch: Vec<NewIssuance>,
        epoch: u64,
        now: SystemTime,
    ) -> Result<Vec<Result<Recorded, IssueRefusal>>, StoreError> {
        batch_size(&batch)?;
        let issued = batch.into_iter().map(|item| self.issue_one(item, epoch, now));
        Ok(issued.collect())
    }

    fn issue_one(
        &mut self,
        item: NewIssuance,
        epoch: u64,
        now: SystemTime,
    ) -> Result<Recorded, IssueRefusal> {
        self.judge(&item)?;
        let displaced = match &item.budget {
            Some(budget) => self.count(&item.workload, budget, now)?,
            None => 0,
        };
        if !self.serials.insert(item.serial) {
            return Err(IssueRefusal::SerialTaken);
        }
        self.authorities.insert(item.authority);
        let latest = self.latest.entry(item.authority).or_insert(item.not_after);
        *latest = item.not_after.max(*latest);
        if let Some(token) = node_token(&item) {
            self.node_tokens
                .entry(token)
                .or_insert((item.spki_sha256, item.not_after));
        }
        if let Some(attestation) = &item.attestation {
            self.attested(&item, attestation, epoch);
        }
        if item.outage {
            self.unreviewed.insert(item.serial);
        }
        self.audit_issued(now, &item);
        self.rows.push(item.clone());
        Ok(Recorded::new(item, displaced))
    }

    /// Denial first: a denied target learns nothing of its budget.
    fn judge(&self, item: &NewIssuance) -> Result<(), IssueRefusal> {
        if let Some(serial) = &item.caller {
            self.judge_caller(serial, item.earliest)?;
        }
        if let Some(denial) = self.denial_of(&Subject::from(&item.workload), item.earliest) {
            return Err(IssueRefusal::Denied {
                denial_id: denial.id.clone(),
            });
        }
        if self.compromised.contains(&item.spki_sha256) {
            return Err(IssueRefusal::CompromisedKey);
        }
        let of_pod = !item.workload.pod_uid.is_empty();
        if item.outage && of_pod && !self.rows.iter().any(|row| row.workload == item.workload) {
            return Err(IssueRefusal::NewInOutage);
        }
        let first_use = node_token(item).and_then(|token| self.node_tokens.get(&token));
        if first_use.is_some_and(|(spki_sha256, _)| *spki_sha256 != item.spki_sha256) {
            return Err(IssueRefusal::TokenReused);
        }
        Ok(())
    }

    /// Takes one out of the budgets of a workload and of its agent.
    fn count(
        &mut self,
        workload: &WorkloadRef,
        budget: &Budget,
        now: SystemTime,
    ) -> Result<u32, IssueRefusal> {
        let key = (workload.spiffe_id.clone(), workload.budget_owner());
        let mine = |row: &&NewIssuance| {
            row.workload.spiffe_id == workload.spiffe_id && row.workload.budget_owner() == key.1
        };
        let live = u32::try_from(self.live(now).filter(mine).count()).unwrap_or(u32::MAX);
        let bucket = self.buckets.entry(key.clone()).or_default();
        let agent = self.agent_budgets.entry(workload.agent_id.clone()).or_default();
        Ok(take(budget, live, bucket, agent, now)?)
    }

    /// The oldest denial in force against this one.
    pub(super) fn denial_of(&self, subject: &Subject<'_>, earliest: SystemTime) -> Option<&Denial> {
        let mut denials = self.denials.values();
        denials.find(|denial| denial.is_active(earliest) && denial.target.hits(subject))
    }

    /// What is neither expired nor revoked.
    fn live(&self, now: SystemTime) -> impl Iterator<Item = &NewIssuance> {
        self.rows
            .iter()
            .filter(move |row| row.not_after > now && !self.is_revoked(row))
    }

    fn is_revoked(&self, row: &NewIssuance) -> bool {
        self.revocations.contains_key(&(row.authority, row.serial))
    }

    pub(super) fn live_counts(&self, now: SystemTime) -> Vec<AuthorityUse> {
        let uses = self.latest.iter().map(|(authority, latest)| AuthorityUse {
            authority: *authority,
            live: self.live(now).filter(|row| row.authority == *authority).count() as u64,
            latest_not_after: *latest,
        });
        uses.collect()
    }

    pub(super) fn list(&self, filter: &SvidFilter) -> SvidPage {
        let mut found: Vec<&NewIssuance> = self
            .rows
            .iter()
            .filter(|row| matches(filter, &row.workload))
            .filter(|row| {
                let live = |at| row.not_after > at && !self.is_revoked(row);
                filter.live_at.is_none_or(live) && filter.unexpired_at.is_none_or(|at| row.not_after > at)
            })
            .collect();
        found.sort_by_key(|row| std::cmp::Reverse(row.serial));
        let most = filter.most();
        SvidPage {
            truncated: found.len() > most,
            rows: found
                .into_iter()
                .take(most)
                .map(|row| self.ledger_row(row))
                .collect(),
        }
    }

    /// These are no longer among the [`unreviewed`](Self::unreviewed).
    pub(super) fn reviewed(&mut self, serials: &[SerialNumber]) {
        for serial in serials {
            self.unreviewed.remove(serial);
        }
    }

    pub(super) fn unreviewed(&self, after: Option<SerialNumber>, limit: usize) -> Vec<LedgerRow> {
        let marked = self
            .rows
            .iter()
            .filter(|row| self.unreviewed.contains(&row.serial));
        let mut rows: Vec<_> = marked
            .filter(|row| after.is_none_or(|after| row.serial > after))
            .map(|row| self.ledger_row(row))
            .collect();
        rows.sort_by_key(|row| row.serial);
        rows.truncate(limit);
        rows
    }

    pub(super) fn pod_tokens(&self, now: SystemTime) -> Vec<PodTokenUse> {
        let of_pods = |row: &&NewIssuance| row.evidence == EvidenceKind::PodToken && row.not_after > now;
        let token = |row: &NewIssuance| {
            Some(PodTokenUse {
                cluster_uid: row.workload.cluster_uid.clone(),
                pod_uid: row.workload.pod_uid.clone(),
                jti: row.token_jti.clone()?,
            })
        };
        let tokens: HashSet<_> = self.rows.iter().filter(of_pods).filter_map(token).collect();
        tokens.into_iter().collect()
    }

    fn ledger_row(&self, row: &NewIssuance) -> LedgerRow {
        let revoked = self.revocations.get(&(row.authority, row.serial));
        LedgerRow {
            serial: row.serial,
            authority: row.authority,
            workload: row.workload.clone(),
            evidence: row.evidence,
            rule: row.rule.clone(),
            not_before: row.not_before,
            not_after: row.not_after,
            revoked: revoked.map(|entry| (entry.revoked_at, entry.reason)),
        }
    }
}

/// The token that must be used with one key only, by its cluster and its id.
pub(super) fn node_token(item: &NewIssuance) -> Option<(String, String)> {
    let jti = item.token_jti.clone()?;
    (item.evidence == EvidenceKind::NodeToken).then(|| (item.workload.cluster_uid.clone(), jti))
}

fn matches(filter: &SvidFilter, workload: &WorkloadRef) -> bool {
    let below = |prefix: &SpiffeId| {
        let rest = workload.spiffe_id.as_str().strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let pod = |pod: &String| {
        let named = !workload.pod_name.is_empty()
            && pod.split_once('/') == Some((&workload.pod_namespace, &workload.pod_name));
        *pod == workload.pod_uid || named
    };
    let node = |node: &String| *node == workload.node_uid || *node == workload.node_name;
    filter.spiffe_id_prefix.as_ref().is_none_or(below)
        && filter
            .spiffe_id
            .as_ref()
            .is_none_or(|id| *id == workload.spiffe_id)
        && filter.pod.as_ref().is_none_or(pod)
        && filter.node.as_ref().is_none_or(node)
}
