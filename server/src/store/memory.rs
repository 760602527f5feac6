//! A store in memory, for tests, that can be told to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::{RevocationReason, RevokedEntry};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;

use super::{
    AgentRow, AuthorityUse, Denial, Housekeeping, IssueRefusal, Journal, KeyChanges, NewIssuance, Recorded,
    RevokeError, RevokeRequest, Revoked, RevokedSet, SealedKey, Store, StoreError, StoreFuture, StoreInfo,
    StoredCrl, SvidFilter, SvidPage,
};
use crate::audit::AuditEvent;

/// What the store keeps.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) journals: BTreeMap<String, Journal>,
    pub(crate) keys: Vec<SealedKey>,
    pub(crate) audit: Vec<AuditEvent>,
    pub(crate) rows: Vec<NewIssuance>,
    pub(crate) revoked: Vec<(AuthorityId, RevokedEntry)>,
    pub(crate) revision: u64,
    pub(crate) crls: BTreeMap<AuthorityId, Vec<StoredCrl>>,
    pub(crate) sequence: Option<([u8; 32], u64)>,
    pub(crate) denied: bool,
    pub(crate) agents: Vec<AgentRow>,
}

/// A store in memory. Each counter makes that many calls of its method fail.
pub(crate) struct MemoryStore {
    info: StoreInfo,
    kept: Mutex<Kept>,
    pub(crate) journal_failures: AtomicU32,
    pub(crate) crl_failures: AtomicU32,
    pub(crate) issue_failures: AtomicU32,
}

impl MemoryStore {
    pub(crate) fn new(trust_domain: TrustDomain) -> Arc<Self> {
        Arc::new(Self {
            info: StoreInfo {
                trust_domain,
                epoch: 1,
                server_id: "0123456789abcdef".to_owned(),
                boot: 1,
                was_empty: true,
            },
            kept: Mutex::default(),
            journal_failures: AtomicU32::new(0),
            crl_failures: AtomicU32::new(0),
            issue_failures: AtomicU32::new(0),
        })
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Revokes a serial under an authority; returns the revision that contains it.
    pub(crate) fn revoke_serial(&self, authority: AuthorityId, serial: SerialNumber, now: SystemTime) -> u64 {
        let mut kept = self.kept();
        let entry = RevokedEntry {
            serial,
            revoked_at: now,
            reason: RevocationReason::KeyCompromise,
        };
        kept.revoked.push((authority, entry));
        kept.revision += 1;
        kept.revision
    }

    /// Revokes so many serials at once.
    pub(crate) fn revoke_many(&self, authority: AuthorityId, count: u32, now: SystemTime) -> u64 {
        let mut kept = self.kept();
        for number in 0..count {
            let mut random = [7; 13];
            random[..4].copy_from_slice(&number.to_be_bytes());
            let entry = RevokedEntry {
                serial: SerialNumber::generate(now, &random),
                revoked_at: now,
                reason: RevocationReason::Superseded,
            };
            kept.revoked.push((authority, entry));
        }
        kept.revision += 1;
        kept.revision
    }

    /// The stored lists of an authority, oldest first.
    pub(crate) fn lists(&self, authority: AuthorityId) -> Vec<StoredCrl> {
        self.kept().crls.get(&authority).cloned().unwrap_or_default()
    }
}

fn fails(counter: &AtomicU32) -> Result<(), StoreError> {
    let left = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    match left {
        Ok(_) => Err(StoreError::Unavailable {
            message: "disk full".to_owned(),
        }),
        Err(_) => Ok(()),
    }
}

fn answer<'a, T: Send + 'a, E: Send + 'a>(result: Result<T, E>) -> StoreFuture<'a, T, E> {
    Box::pin(std::future::ready(result))
}

fn unused<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable {
        message: "not in this store".to_owned(),
    })
}

impl Store for MemoryStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn load_journal(&self, kind: AuthorityKind) -> StoreFuture<'_, Option<Journal>> {
        answer(Ok(self.kept().journals.get(&kind.to_string()).cloned()))
    }

    fn save_journal(
        &self,
        kind: AuthorityKind,
        expected_revision: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> StoreFuture<'_, u64> {
        if let Err(error) = fails(&self.journal_failures) {
            return answer(Err(error));
        }
        let mut kept = self.kept();
        let stored = kept
            .journals
            .get(&kind.to_string())
            .map_or(0, |journal| journal.revision);
        if stored != expected_revision {
            return answer(Err(StoreError::Conflict {
                expected: expected_revision,
                stored,
            }));
        }
        kept.journals.insert(
            kind.to_string(),
            Journal {
                revision: stored + 1,
                body,
            },
        );
        kept.keys.retain(|key| !keys.remove.contains(&key.authority_id));
        kept.keys.extend(keys.add);
        kept.audit.extend(audit);
        answer(Ok(stored + 1))
    }

    fn load_keys(&self) -> StoreFuture<'_, Vec<SealedKey>> {
        answer(Ok(self.kept().keys.clone()))
    }

    fn issue(
        &self,
        batch: Vec<NewIssuance>,
        _now: SystemTime,
    ) -> StoreFuture<'_, Vec<Result<Recorded, IssueRefusal>>> {
        if let Err(error) = fails(&self.issue_failures) {
            return answer(Err(error));
        }
        let mut kept = self.kept();
        let denied = kept.denied;
        let refusal = || IssueRefusal::Denied {
            denial_id: "d-1".to_owned(),
            comment: String::new(),
        };
        if !denied {
            kept.rows.extend(batch.iter().cloned());
        }
        let verdict = |row| {
            if denied {
                Err(refusal())
            } else {
                Ok(Recorded::new(row))
            }
        };
        answer(Ok(batch.into_iter().map(verdict).collect()))
    }

    fn revoke(&self, _request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError> {
        answer(unused().map_err(RevokeError::from))
    }

    fn allow(&self, _denial_id: &str, _by: &str, _now: SystemTime) -> StoreFuture<'_, Denial> {
        answer(unused())
    }

    fn denials(&self, _include_lifted: bool, _now: SystemTime) -> StoreFuture<'_, Vec<Denial>> {
        answer(unused())
    }

    fn revoked(&self, authority: AuthorityId) -> StoreFuture<'_, RevokedSet> {
        let kept = self.kept();
        let own = kept.revoked.iter().filter(|(whose, _)| *whose == authority);
        let mut entries: Vec<_> = own.map(|(_, entry)| *entry).collect();
        entries.sort_by_key(|entry| entry.serial);
        answer(Ok(RevokedSet {
            entries,
            revision: kept.revision,
        }))
    }

    fn save_crl(&self, crl: StoredCrl) -> StoreFuture<'_, ()> {
        if let Err(error) = fails(&self.crl_failures) {
            return answer(Err(error));
        }
        let mut kept = self.kept();
        let lists = kept.crls.entry(crl.authority).or_default();
        if let Some(last) = lists.last().filter(|last| last.number >= crl.number) {
            let (stored, offered) = (last.number.0, crl.number.0);
            return answer(Err(StoreError::NotNewer {
                authority: crl.authority,
                what: "number",
                stored,
                offered,
            }));
        }
        lists.push(crl);
        answer(Ok(()))
    }

    fn load_crls(&self) -> StoreFuture<'_, Vec<StoredCrl>> {
        answer(Ok(self
            .kept()
            .crls
            .values()
            .filter_map(|lists| lists.last().cloned())
            .collect()))
    }

    fn list(&self, _filter: SvidFilter) -> StoreFuture<'_, SvidPage> {
        answer(unused())
    }

    fn live_counts(&self, now: SystemTime) -> StoreFuture<'_, Vec<AuthorityUse>> {
        let mut uses: BTreeMap<AuthorityId, AuthorityUse> = BTreeMap::new();
        for row in &self.kept().rows {
            let usage = uses.entry(row.authority).or_insert(AuthorityUse {
                authority: row.authority,
                live: 0,
                latest_not_after: row.not_after,
            });
            usage.live += u64::from(row.not_after >= now);
            usage.latest_not_after = usage.latest_not_after.max(row.not_after);
        }
        answer(Ok(uses.into_values().collect()))
    }

    fn record_agent(&self, agent: AgentRow) -> StoreFuture<'_, ()> {
        let mut kept = self.kept();
        kept.agents.retain(|row| row.spiffe_id != agent.spiffe_id);
        kept.agents.push(agent);
        answer(Ok(()))
    }

    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>> {
        answer(Ok(self.kept().agents.clone()))
    }

    fn next_sequence(&self, content_digest: [u8; 32]) -> StoreFuture<'_, u64> {
        let mut kept = self.kept();
        let next = match kept.sequence {
            Some((digest, sequence)) if digest == content_digest => sequence,
            other => other.map_or(1, |(_, sequence)| sequence + 1),
        };
        kept.sequence = Some((content_digest, next));
        answer(Ok(next))
    }

    fn audit(&self, event: AuditEvent) {
        self.kept().audit.push(event);
    }

    fn housekeeping(&self, _now: SystemTime) -> StoreFuture<'_, Housekeeping> {
        answer(Ok(Housekeeping::default()))
    }
}
