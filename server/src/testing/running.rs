//! For tests: a server's authorities, publisher and clock around a store in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::RevocationReason;
use signet_certs::id::{SpiffeId, TrustDomain};
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::{Clock, FakeClock};
use signet_runtime::drain::Drain;
use tokio::sync::watch;

use super::manager::{AuthorityManager, AuthorityManagerParts};
use super::policy::{LifePolicy, LifeSettings};
use super::spread::SpreadReports;
use crate::key_manager::KeyManager;
use crate::publisher::{CRL_MAX_BYTES, Publisher, PublisherParts, PublisherSettings};
use crate::store::memory::MemoryStore;
use crate::store::{RevokeRequest, RevokeTarget, Store, StoredCrl};
use crate::trust::{self, TrustSnapshot};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SKEW: Duration = Duration::from_secs(120);
/// 2026-11-22T00:00:00Z.
pub(crate) const START: Duration = Duration::from_secs(1_795_305_600);

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
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
        Self::over(
            MemoryStore::new(trust_domain()),
            clock,
            Arc::new(tempfile::tempdir().unwrap()),
        )
        .await
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

    /// The stored lists of an authority, oldest first.
    pub(crate) fn lists(&self, authority: AuthorityId) -> Vec<StoredCrl> {
        self.store
            .kept()
            .crls
            .get(&authority)
            .cloned()
            .unwrap_or_default()
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

/// Revokes a serial under an authority; returns the revision that contains it.
pub(crate) async fn revoke_serial(
    store: &dyn Store,
    authority: AuthorityId,
    serial: SerialNumber,
    now: SystemTime,
) -> u64 {
    let request = RevokeRequest {
        target: RevokeTarget::Serial {
            serial,
            authority: Some(authority),
            expires_by: None,
        },
        reason: RevocationReason::KeyCompromise,
        comment: String::new(),
        author: "admin".to_owned(),
        keep_issuing: false,
        denial_expires: None,
        list_limit: usize::MAX,
        now,
    };
    store.revoke(request).await.unwrap().revision
}

/// Denies an identity; returns the denial's id.
pub(crate) async fn deny(store: &dyn Store, id: &SpiffeId, now: SystemTime) -> String {
    let request = RevokeRequest {
        target: RevokeTarget::SpiffeId(id.clone()),
        reason: RevocationReason::CessationOfOperation,
        comment: String::new(),
        author: "admin".to_owned(),
        keep_issuing: false,
        denial_expires: None,
        list_limit: usize::MAX,
        now,
    };
    store.revoke(request).await.unwrap().denial.unwrap().id
}

/// A serial that tells itself apart by `number`.
pub(crate) fn serial(number: u8) -> SerialNumber {
    SerialNumber::generate(SystemTime::UNIX_EPOCH + START, &[number; 13])
}
