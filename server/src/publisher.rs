//! The publisher: for every authority exactly one current, complete CRL, empty or not; and the snapshot of all of it.
//!
//! A list is signed, checked as a peer would check it, stored, and only then shown; its number is the stored one plus one
//! (INV-3). A failure leaves the list before it in force and is tried again: lists live three times as long as they wait
//! for their renewal. A list names what was let onto it; what there is no room for waits.

mod firsts;
mod list;
mod plan;
mod room;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::CrlNumber;
use signet_certs::id::TrustDomain;
use signet_runtime::drain::Drain;
use signet_runtime::limits::{Limit, bytes};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::firsts::Firsts;
pub(crate) use self::room::RoomUse;
use self::worker::Worker;
use crate::authority::AuthorityView;
use crate::clock::TrustedClock;
use crate::store::{ListRoom, Store, StoreError};
use crate::trust::TrustSnapshot;

/// The most that certificates and CRLs of one kind of authority may take together, and the default: with keys and further
/// identities of a workload they fit the 4 MiB of a gRPC message.
pub(crate) const CRL_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Changes that follow a signed list within this time go into one list at its end.
pub(crate) const COALESCE: Duration = Duration::from_millis(200);

/// Row of the table of limits.
pub(crate) fn limit() -> Limit {
    Limit {
        who: "the authorities of one kind",
        what: "bytes of their certificates and revocation lists",
        share: "none".to_owned(),
        cap: format!("{} (`crl.max_bytes`)", bytes(CRL_MAX_BYTES as u64)),
        counted: "server::publisher::plan",
        metric: "signet_server_crl_waiting_entries",
    }
}

/// What the publisher goes by.
#[derive(Clone, Debug)]
pub(crate) struct PublisherSettings {
    /// Whose trust state.
    pub trust_domain: TrustDomain,
    /// How soon readers that poll should look again; part of the bundle.
    pub refresh_hint: Duration,
    /// How far `thisUpdate` is set back for readers whose clocks are slow.
    pub clock_skew: Duration,
    /// What certificates and lists of one kind may take together; see [`CRL_MAX_BYTES`]. Less than what is listed already ends
    /// no entry and stops no renewal: nothing more is let in.
    pub crl_max_bytes: usize,
}

/// A revocation is recorded for good, but the list that names it is not out yet; the publisher keeps trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("recorded, not yet published: the list will follow; `crl show` tells when")]
pub(crate) struct NotYetPublished;

/// Handle of the publisher's task.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    wanted: Arc<watch::Sender<u64>>,
    snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    view: watch::Receiver<Arc<AuthorityView>>,
    rooms: watch::Receiver<Vec<RoomUse>>,
    trouble: watch::Receiver<Option<String>>,
    crl_max_bytes: usize,
}

/// What the publisher is built from.
pub(crate) struct PublisherParts {
    /// What it goes by.
    pub settings: PublisherSettings,
    /// Holds revocations, lists and the sequence number.
    pub store: Arc<dyn Store>,
    /// The authorities, from the manager.
    pub view: watch::Receiver<Arc<AuthorityView>>,
    /// Numbers that the next lists have to pass, by authority: readers hold lists with these that the store lacks.
    pub floors: watch::Receiver<BTreeMap<AuthorityId, CrlNumber>>,
    /// What has been done that comes first in an emergency.
    pub firsts: watch::Receiver<Firsts>,
    /// Where snapshots go: the sending half of [`trust::channel`](crate::trust::channel).
    pub snapshots: watch::Sender<Arc<TrustSnapshot>>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Ends the task.
    pub drain: Drain,
}

impl Publisher {
    /// Loads the stored lists, shows them at once if they are complete and current, and starts the task.
    ///
    /// # Errors
    /// The stored lists could not be read.
    pub(crate) async fn start(parts: PublisherParts) -> Result<Self, StoreError> {
        let (wanted, wishes) = watch::channel(0);
        let (room_sender, rooms) = watch::channel(Vec::new());
        let (troubled, trouble) = watch::channel(None);
        let handle = Self {
            wanted: Arc::new(wanted),
            snapshots: parts.snapshots.subscribe(),
            view: parts.view.clone(),
            rooms,
            trouble,
            crl_max_bytes: parts.settings.crl_max_bytes,
        };
        let drain = parts.drain.clone();
        let mut worker = Worker::load(parts, wishes, room_sender, troubled).await?;
        worker.show_stored().await;
        drain
            .clone()
            .spawn_vital("publisher", async move { worker.run(drain).await });
        Ok(handle)
    }

    /// What failed in the last round, as it changes; nothing once a round went well.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.clone()
    }

    /// What is published, and every change of it.
    #[cfg(test)]
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<TrustSnapshot>> {
        self.snapshots.clone()
    }

    /// The store has revocations up to `revision`: sign what lacks them. Where the revision is known already, something may
    /// have been revoked that no list has room for: it is counted then.
    pub(crate) fn revocation_changed(&self, revision: u64) {
        self.wanted.send_modify(|wanted| *wanted = revision.max(*wanted));
    }

    /// Waits until every revocation up to `revision` by one of these authorities is in a list that is being served, and asks for it.
    /// Another authority whose list cannot be signed holds up nobody; one that is no longer published has no list.
    ///
    /// # Errors
    /// [`NotYetPublished`] after `limit`; the revocation itself stands.
    pub(crate) async fn wait_listed(
        &self,
        revision: u64,
        authorities: &BTreeSet<AuthorityId>,
        limit: Duration,
    ) -> Result<Arc<TrustSnapshot>, NotYetPublished> {
        self.revocation_changed(revision);
        let mut snapshots = self.snapshots.clone();
        let has = |snapshot: &TrustSnapshot, id: &AuthorityId| {
            let published = snapshot.get(*id);
            published.is_none_or(|published| published.crl_revision >= revision)
        };
        let served = snapshots
            .wait_for(|snapshot| !snapshot.is_empty() && authorities.iter().all(|id| has(snapshot, id)));
        match timeout(limit, served).await {
            Ok(Ok(snapshot)) => Ok(snapshot.clone()),
            _ => Err(NotYetPublished),
        }
    }

    /// The same of every authority.
    #[cfg(test)]
    pub(crate) async fn wait_published(
        &self,
        revision: u64,
        limit: Duration,
    ) -> Result<Arc<TrustSnapshot>, NotYetPublished> {
        self.revocation_changed(revision);
        let mut snapshots = self.snapshots.clone();
        let served = snapshots.wait_for(|snapshot| snapshot.published_revision() >= revision);
        match timeout(limit, served).await {
            Ok(Ok(snapshot)) => Ok(snapshot.clone()),
            _ => Err(NotYetPublished),
        }
    }

    /// What the lists have room for, as the authorities stand.
    pub(crate) fn rooms(&self) -> Vec<ListRoom> {
        room::rooms(&self.view.borrow(), self.crl_max_bytes)
    }

    /// How full the lists are, and every change of it; empty before the first look.
    pub(crate) fn room_use(&self) -> watch::Receiver<Vec<RoomUse>> {
        self.rooms.clone()
    }

    /// Whether what readers of this kind receive takes another authority with its list.
    pub(crate) fn takes_authority(&self, kind: AuthorityKind) -> bool {
        let snapshot = self.snapshots.borrow().clone();
        let published = snapshot.kind(kind).iter();
        let taken = published.map(|one| one.certificate.der().len() + one.crl.der().len());
        plan::takes_authority(taken.sum(), CRL_MAX_BYTES)
    }

    /// Resolves once something is published. False: the server is stopping.
    pub(crate) async fn ready(&self) -> bool {
        self.snapshots
            .clone()
            .wait_for(|snapshot| !snapshot.is_empty())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
