//! The store in memory: everything the suite asks of a store except to outlive its process. For tests, and no
//! configuration leads to it.
//!
//! One lock stands for the transactions. What it holds are plain lists, searched from end to end: whoever wants to know
//! what a store has to do reads it here first.

mod agents;
mod clusters;
mod issuing;
mod kept;
mod outbox;
mod proofs;
mod pruning;
mod revoking;
mod rules;
#[cfg(test)]
mod tests;
mod would_revoke;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_runtime::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

pub(crate) use self::kept::Kept;
use super::{
    Admitted, AgentRow, AttestedAgents, AuthorityUse, Denial, Housekeeping, IssueRefusal, Journal, Journals,
    KeyChanges, KnownTime, Ledger, LedgerRow, ListRoom, Lists, LiveAgent, NewIssuance, PodTokenUse,
    Presented, PresentedCertificate, Recorded, Revocations, RevokeError, RevokeRequest, Revoked, RevokedSet,
    SealedKey, Store, StoreError, StoreFuture, StoreInfo, StoredCrl, SvidFilter, SvidPage,
};
use crate::audit_event::AuditEvent;

/// A store that forgets everything when it is dropped. Each counter makes that many calls of its methods fail, as if the
/// disk were full.
pub(crate) struct MemoryStore {
    info: StoreInfo,
    kept: Arc<Mutex<Kept>>,
    stored_lines: watch::Sender<u64>,
    failed_writes: watch::Sender<u64>,
    /// Fails [`Store::probe`].
    pub probe_failures: AtomicU32,
    /// Fails [`Journals::save_journal`].
    pub journal_failures: AtomicU32,
    /// The same, after it has saved: as when the connection to a store breaks.
    pub journal_answers_lost: AtomicU32,
    /// Fails [`Lists::save_crl`].
    pub crl_failures: AtomicU32,
    /// Fails [`Ledger::issue`].
    pub issue_failures: AtomicU32,
    /// Fails [`AttestedAgents::record_reports`].
    pub report_failures: AtomicU32,
    /// Fails [`KeptRules::keep_rules`](super::KeptRules::keep_rules).
    pub rules_failures: AtomicU32,
    /// Fails [`AuditOutbox::append`].
    pub audit_failures: AtomicU32,
    /// How many transactions there were.
    pub transactions: AtomicU32,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub(crate) fn new(trust_domain: TrustDomain) -> Arc<Self> {
        let info = StoreInfo {
            trust_domain,
            epoch: 1,
            server_id: "0123456789abcdef".to_owned(),
            boot: 1,
            was_empty: true,
            mark: None,
            jumped: false,
        };
        Self::over(info, Arc::default())
    }

    /// As the next process finds it. The present one must not use its own any more.
    #[must_use]
    pub(crate) fn reopened(&self) -> Arc<Self> {
        let (mark, jumped) = self.past();
        let info = StoreInfo {
            boot: self.info.boot + 1,
            was_empty: self.kept().keys.is_empty(),
            mark,
            jumped,
            ..self.info.clone()
        };
        Self::over(info, self.kept.clone())
    }

    fn over(info: StoreInfo, kept: Arc<Mutex<Kept>>) -> Arc<Self> {
        Arc::new(Self {
            info,
            kept,
            stored_lines: watch::Sender::new(0),
            failed_writes: watch::Sender::new(0),
            probe_failures: AtomicU32::new(0),
            journal_failures: AtomicU32::new(0),
            journal_answers_lost: AtomicU32::new(0),
            crl_failures: AtomicU32::new(0),
            issue_failures: AtomicU32::new(0),
            report_failures: AtomicU32::new(0),
            rules_failures: AtomicU32::new(0),
            audit_failures: AtomicU32::new(0),
            transactions: AtomicU32::new(0),
        })
    }

    /// What it keeps; nobody else gets at it meanwhile.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    /// The time that the next process finds: the mark, and whether the delay after a jump was running.
    pub(crate) fn past(&self) -> (Option<SystemTime>, bool) {
        let kept = self.kept();
        (kept.mark, kept.jumped)
    }

    /// What was issued and not yet pruned, in the order of issuing.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn issued(&self) -> Vec<NewIssuance> {
        self.kept().rows.clone()
    }

    /// The events that were stored and not yet emitted, in order; certificates have none.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn audit_events(&self) -> Vec<AuditEvent> {
        self.kept().audit_events().cloned().collect()
    }

    /// Revokes serials of an authority in one go, however many; they wait for whoever lets them onto the list. Returns the
    /// revision that will contain those that fit.
    #[cfg(test)]
    pub(crate) fn revoke_all(
        &self,
        authority: AuthorityId,
        serials: impl IntoIterator<Item = SerialNumber>,
        now: SystemTime,
    ) -> u64 {
        self.kept().revoke_all(authority, serials, now)
    }

    /// One transaction.
    fn transaction<'a, T, E>(
        &'a self,
        work: impl FnOnce(&mut Kept) -> Result<T, E> + Send + 'a,
    ) -> StoreFuture<'a, T, E> {
        Box::pin(async move {
            self.transactions.fetch_add(1, Ordering::Relaxed);
            let mut kept = self.kept();
            let result = work(&mut kept);
            let newest = kept.newest_line();
            self.stored_lines
                .send_if_modified(|stored| std::mem::replace(stored, newest) != newest);
            result
        })
    }

    fn fails(&self, counter: &AtomicU32) -> Result<(), StoreError> {
        let left = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return Ok(());
        }
        self.failed_writes.send_modify(|failed| *failed += 1);
        Err(StoreError::Unavailable {
            message: "disk full".to_owned(),
        })
    }

    fn look<'a, T>(&'a self, look: impl FnOnce(&Kept) -> T + Send + 'a) -> StoreFuture<'a, T> {
        Box::pin(async move { Ok(look(&self.kept())) })
    }
}

impl Store for MemoryStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn housekeeping(&self, time: KnownTime) -> StoreFuture<'_, Housekeeping> {
        self.transaction(move |kept| Ok(kept.housekeeping(time)))
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { self.fails(&self.probe_failures) })
    }

    fn failed_writes(&self) -> watch::Receiver<u64> {
        self.failed_writes.subscribe()
    }
}

impl Ledger for MemoryStore {
    fn issue(
        &self,
        batch: Vec<NewIssuance>,
        now: SystemTime,
    ) -> StoreFuture<'_, Vec<Result<Recorded, IssueRefusal>>> {
        self.transaction(move |kept| {
            self.fails(&self.issue_failures)?;
            kept.issue(batch, self.info.epoch, now)
        })
    }

    fn list(&self, filter: SvidFilter) -> StoreFuture<'_, SvidPage> {
        self.look(move |kept| kept.list(&filter))
    }

    fn unreviewed(&self, after: Option<SerialNumber>, limit: usize) -> StoreFuture<'_, Vec<LedgerRow>> {
        self.look(move |kept| kept.unreviewed(after, limit))
    }

    fn pod_tokens(&self, now: SystemTime) -> StoreFuture<'_, Vec<PodTokenUse>> {
        self.look(move |kept| kept.pod_tokens(now))
    }

    fn reviewed(&self, serials: Vec<SerialNumber>) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            kept.reviewed(&serials);
            Ok(())
        })
    }

    fn live_counts(&self, now: SystemTime) -> StoreFuture<'_, Vec<AuthorityUse>> {
        self.look(move |kept| kept.live_counts(now))
    }
}

impl Revocations for MemoryStore {
    fn revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError> {
        self.transaction(move |kept| kept.revoke(&request, self.info.epoch))
    }

    fn would_revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError> {
        Box::pin(async move { self.kept().would_revoke(&request) })
    }

    fn allow(&self, denial_id: &str, by: &str, now: SystemTime) -> StoreFuture<'_, Denial> {
        let (denial_id, by) = (denial_id.to_owned(), by.to_owned());
        self.transaction(move |kept| kept.allow(&denial_id, &by, now))
    }

    fn denials(&self, include_lifted: bool, earliest: SystemTime) -> StoreFuture<'_, Vec<Denial>> {
        self.look(move |kept| kept.denials(include_lifted, earliest))
    }
}

impl Lists for MemoryStore {
    fn admit(&self, rooms: Vec<ListRoom>, earliest: SystemTime) -> StoreFuture<'_, Admitted> {
        self.transaction(move |kept| {
            let left = kept.admit(&rooms, earliest);
            Ok(Admitted {
                revision: kept.revision,
                waiting: left.iter().map(Vec::len).collect(),
            })
        })
    }

    fn revoked(&self, authority: AuthorityId) -> StoreFuture<'_, RevokedSet> {
        self.look(move |kept| kept.to_list(authority))
    }

    fn save_crl(&self, crl: StoredCrl) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            self.fails(&self.crl_failures)?;
            kept.save_crl(crl)
        })
    }

    fn load_crls(&self) -> StoreFuture<'_, Vec<StoredCrl>> {
        self.look(move |kept| {
            kept.crls
                .values()
                .filter_map(|lists| lists.last().cloned())
                .collect()
        })
    }

    fn next_sequence(&self, content_digest: [u8; 32]) -> StoreFuture<'_, u64> {
        self.transaction(move |kept| Ok(kept.next_sequence(content_digest)))
    }
}

impl Journals for MemoryStore {
    fn load_journal(&self, kind: AuthorityKind) -> StoreFuture<'_, Option<Journal>> {
        self.look(move |kept| kept.journals.get(&kind).cloned())
    }

    fn save_journal(
        &self,
        kind: AuthorityKind,
        expected_revision: u64,
        body: Vec<u8>,
        keys: KeyChanges,
        audit: Vec<AuditEvent>,
    ) -> StoreFuture<'_, u64> {
        self.transaction(move |kept| {
            self.fails(&self.journal_failures)?;
            let saved = kept.save_journal(kind, expected_revision, body, keys, audit)?;
            self.fails(&self.journal_answers_lost)?;
            Ok(saved)
        })
    }

    fn load_keys(&self) -> StoreFuture<'_, Vec<SealedKey>> {
        self.look(move |kept| kept.keys.values().cloned().collect())
    }

    fn save_key(&self, key: SealedKey) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            kept.keys.insert(key.authority_id, key);
            Ok(())
        })
    }
}

impl AttestedAgents for MemoryStore {
    fn present(&self, certificate: PresentedCertificate, now: SystemTime) -> StoreFuture<'_, Presented> {
        self.transaction(move |kept| Ok(kept.present(&certificate, now)))
    }

    fn live_agents(&self, now: SystemTime) -> StoreFuture<'_, Vec<LiveAgent>> {
        self.look(move |kept| kept.live_agents(now))
    }

    fn record_reports(&self, reports: Vec<(SpiffeId, u64)>) -> StoreFuture<'_, ()> {
        self.transaction(move |kept| {
            self.fails(&self.report_failures)?;
            kept.reported(reports);
            Ok(())
        })
    }

    fn agent(&self, agent: &SpiffeId) -> StoreFuture<'_, Option<AgentRow>> {
        let agent = agent.clone();
        self.look(move |kept| kept.agents.get(&agent).cloned())
    }

    fn agents(&self) -> StoreFuture<'_, Vec<AgentRow>> {
        self.look(move |kept| kept.agents.values().cloned().collect())
    }
}
