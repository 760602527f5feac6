//! For tests: a store in memory that can be told to fail, and a server's authorities, publisher and clock around it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::{RevocationReason, RevokedEntry};
use signet_certs::id::TrustDomain;
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::{Clock, FakeClock};
use signet_runtime::drain::Drain;
use tokio::sync::watch;

use super::manager::{AuthorityManager, AuthorityManagerParts};
use super::policy::{LifePolicy, LifeSettings};
use super::spread::SpreadReports;
use crate::audit::AuditEvent;
use crate::key_manager::KeyManager;
use crate::publisher::{CRL_MAX_BYTES, Publisher, PublisherParts, PublisherSettings};
use crate::store::{
    AgentRow, AuthorityUse, Denial, Housekeeping, IssueRefusal, Journal, KeyChanges, NewIssuance,
    RevokeError, RevokeRequest, Revoked, RevokedSet, SealedKey, Store, StoreError, StoreFuture, StoreInfo,
    StoredCrl, SvidFilter, SvidPage,
};
use crate::trust::{self, TrustSnapshot};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SKEW: Duration = Duration::from_secs(120);
/// 2026-11-22T00:00:00Z.
pub(crate) const START: Duration = Duration::from_secs(1_795_305_600);

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

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
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            info: StoreInfo {
                trust_domain: trust_domain(),
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
    ) -> StoreFuture<'_, Vec<Result<(), IssueRefusal>>> {
        if let Err(error) = fails(&self.issue_failures) {
            return answer(Err(error));
        }
        let mut kept = self.kept();
        let denied = kept.denied;
        let refusal = || IssueRefusal::Denied {
            denial_id: "d-1".to_owned(),
            comment: String::new(),
        };
        let answers = batch
            .iter()
            .map(|_| if denied { Err(refusal()) } else { Ok(()) })
            .collect();
        if !denied {
            kept.rows.extend(batch);
        }
        answer(Ok(answers))
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

pub(crate) fn policy() -> LifePolicy {
    LifePolicy::new(LifeSettings {
        authority_ttl: 12 * HOUR,
        leaf_ttl: HOUR,
        clock_skew: SKEW,
        spread: 5 * MINUTE,
        spread_max: HOUR,
    })
    .unwrap()
}

/// Starts manager and publisher over any store, up to active authorities of both kinds.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    kek_directory: &Path,
    clock: Arc<dyn Clock>,
    reports: &watch::Sender<SpreadReports>,
    drain: &Drain,
) -> (AuthorityManager, Publisher) {
    let keys = KeyManager::open(&kek_directory.join("kek"), store.as_ref())
        .await
        .unwrap();
    let (sender, snapshots) = trust::channel(trust_domain(), 5 * MINUTE);
    let manager = AuthorityManager::start(AuthorityManagerParts {
        trust_domain: trust_domain(),
        x509: policy(),
        control: policy(),
        store: store.clone(),
        keys: Arc::new(keys),
        clock: clock.clone(),
        snapshots,
        reports: reports.subscribe(),
        drain: drain.clone(),
    })
    .await
    .unwrap();
    let settings = PublisherSettings {
        trust_domain: trust_domain(),
        refresh_hint: 5 * MINUTE,
        clock_skew: SKEW,
        crl_max_bytes: CRL_MAX_BYTES,
    };
    let (view, drain) = (manager.current(), drain.clone());
    let parts = PublisherParts {
        settings,
        store,
        view,
        snapshots: sender,
        clock,
        drain,
    };
    let publisher = Publisher::start(parts).await.unwrap();
    assert!(publisher.ready().await && manager.ready().await);
    (manager, publisher)
}

/// A running manager and publisher over a [`MemoryStore`], on paused time.
pub(crate) struct Running {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: FakeClock,
    pub(crate) manager: AuthorityManager,
    pub(crate) publisher: Publisher,
    pub(crate) reports: watch::Sender<SpreadReports>,
    pub(crate) drain: Drain,
    kek: Arc<tempfile::TempDir>,
}

impl Running {
    /// A new trust domain, up to its first active authorities.
    pub(crate) async fn new() -> Self {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH + START);
        Self::over(MemoryStore::new(), clock, Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn over(store: Arc<MemoryStore>, clock: FakeClock, kek: Arc<tempfile::TempDir>) -> Self {
        let (drain, reports) = (Drain::new(), watch::Sender::new(SpreadReports::default()));
        let shared_clock = Arc::new(clock.clone());
        let (manager, publisher) = start(store.clone(), kek.path(), shared_clock, &reports, &drain).await;
        Self {
            store,
            clock,
            manager,
            publisher,
            reports,
            drain,
            kek,
        }
    }

    /// Ends this process and starts the next one over the same store.
    pub(crate) async fn restart(self) -> Self {
        assert!(self.drain.finish(MINUTE).await);
        Self::over(self.store, self.clock, self.kek).await
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(crate) fn snapshot(&self) -> Arc<TrustSnapshot> {
        self.publisher.snapshots().borrow().clone()
    }

    pub(crate) fn active(&self, kind: AuthorityKind) -> AuthorityId {
        self.manager.current().borrow().kind(kind).active().unwrap().id()
    }

    pub(crate) fn states(&self, kind: AuthorityKind) -> Vec<&'static str> {
        let view = self.manager.current().borrow().clone();
        view.kind(kind)
            .authorities
            .iter()
            .map(|viewed| viewed.state.name())
            .collect()
    }

    /// Lets time pass, so that every timer in between fires at its moment.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// A serial that tells itself apart by `number`.
pub(crate) fn serial(number: u8) -> SerialNumber {
    SerialNumber::generate(SystemTime::UNIX_EPOCH + START, &[number; 13])
}
