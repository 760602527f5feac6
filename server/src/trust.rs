//! The trust state of one moment: every authority with its one current CRL, under a sequence number. Everything that
//! leaves the server by any door is a rendering of a [`TrustSnapshot`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ring::digest;
use signet_certs::authority::{AuthorityCertificate, AuthorityId, AuthorityKind};
use signet_certs::bundle::TrustBundle;
use signet_certs::crl::Crl;
use signet_certs::id::TrustDomain;
use signet_certs::tls::SharedRoots;
use signet_certs::verify::{TrustRoots, TrustedAuthority};
use signet_runtime::drain::Drain;
use tokio::sync::watch;

/// One authority as published.
#[derive(Clone, Debug)]
pub(crate) struct PublishedAuthority {
    /// Its certificate.
    pub certificate: AuthorityCertificate,
    /// Its newest CRL, empty or not, byte for byte as stored.
    pub crl: Crl,
    /// Every revocation up to this revision of the store that concerns this authority is in `crl`.
    pub crl_revision: u64,
    /// What it has signed is to be replaced.
    pub tainted: bool,
}

/// Everything that is published, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct TrustSnapshot {
    /// Whose.
    pub trust_domain: TrustDomain,
    /// Grows with every change of the authorities (BND-04); 0 before the first publication. CRLs have numbers of their
    /// own.
    pub sequence: u64,
    /// How soon readers that poll should look again.
    pub refresh_hint: Duration,
    /// The authorities by kind, oldest first. A workload's bundle has those of its own kind and no other.
    pub kinds: BTreeMap<AuthorityKind, Vec<PublishedAuthority>>,
    /// Authorities that left because they are not to be trusted any more. None of them is in this snapshot.
    pub departed: Arc<[AuthorityId]>,
}

/// A channel of snapshots; the first is empty.
pub(crate) fn channel(
    trust_domain: TrustDomain,
    refresh_hint: Duration,
) -> (
    watch::Sender<Arc<TrustSnapshot>>,
    watch::Receiver<Arc<TrustSnapshot>>,
) {
    let empty = TrustSnapshot {
        trust_domain,
        sequence: 0,
        refresh_hint,
        kinds: BTreeMap::new(),
        departed: Arc::from([]),
    };
    watch::channel(Arc::new(empty))
}

impl TrustSnapshot {
    /// Whether nothing was published yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// The authorities of one kind.
    pub(crate) fn kind(&self, kind: AuthorityKind) -> &[PublishedAuthority] {
        self.kinds.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// All authorities, those of workloads first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &PublishedAuthority> {
        self.kinds.values().flatten()
    }

    /// The authority with this id.
    pub(crate) fn get(&self, id: AuthorityId) -> Option<&PublishedAuthority> {
        self.all().find(|published| published.certificate.id() == id)
    }

    /// Every revocation up to this revision of the store is in the lists of this snapshot. 0 while it is empty.
    #[cfg(test)]
    pub(crate) fn published_revision(&self) -> u64 {
        self.all()
            .map(|published| published.crl_revision)
            .min()
            .unwrap_or_default()
    }

    /// The workloads' bundle.
    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(
            self.trust_domain.clone(),
            certificates(self.kind(AuthorityKind::X509)),
            self.sequence,
            self.refresh_hint,
        )
    }

    /// What verifies workloads' SVIDs.
    #[cfg(test)]
    pub(crate) fn workload_roots(&self) -> TrustRoots {
        roots(&self.trust_domain, self.kind(AuthorityKind::X509))
    }

    /// What verifies servers and agents. Workload authorities have no part in it (INV-14).
    pub(crate) fn control_roots(&self) -> TrustRoots {
        roots(&self.trust_domain, self.kind(AuthorityKind::Control))
    }

    /// What its sequence number stands for: the authorities of all kinds with their marks, those that left for good, and the refresh hint.
    pub(crate) fn content_digest(&self) -> [u8; 32] {
        let kinds = self.kinds.iter();
        let authorities =
            kinds.flat_map(|(kind, published)| published.iter().map(|one| (*kind, &one.certificate)));
        let tainted = self.all().filter(|published| published.tainted);
        let tainted = tainted.map(|published| (TAINTED, published.certificate.id()));
        let departed = self.departed.iter().map(|id| (DEPARTED, *id));
        content_digest(authorities, tainted.chain(departed), self.refresh_hint)
    }

    /// Whether a reader would see no difference: same sequence, same lists.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        let lists = |snapshot: &Self| -> Vec<_> {
            snapshot
                .all()
                .map(|published| {
                    (
                        published.certificate.id(),
                        published.crl.sha256(),
                        published.tainted,
                    )
                })
                .collect()
        };
        self.sequence == other.sequence && self.departed == other.departed && lists(self) == lists(other)
    }
}

/// What the digest says of an authority beside its certificate; such words stand in it only where they are true, so that it stays
/// what it was where nothing is to be distrusted.
const TAINTED: u8 = 0xf0;
const DEPARTED: u8 = 0xf1;

/// See [`TrustSnapshot::content_digest`].
fn content_digest<'a>(
    authorities: impl Iterator<Item = (AuthorityKind, &'a AuthorityCertificate)>,
    words: impl Iterator<Item = (u8, AuthorityId)>,
    refresh_hint: Duration,
) -> [u8; 32] {
    let mut parts: Vec<Vec<u8>> = authorities
        .map(|(kind, certificate)| {
            let digest = digest::digest(&digest::SHA256, certificate.der());
            [&[mark(kind)], digest.as_ref()].concat()
        })
        .chain(words.map(|(word, id)| [&[word], id.as_bytes().as_slice()].concat()))
        .collect();
    parts.sort();
    let mut content = digest::Context::new(&digest::SHA256);
    content.update(b"signet trust content v1");
    content.update(&refresh_hint.as_secs().to_be_bytes());
    parts.iter().for_each(|part| content.update(part));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(content.finish().as_ref());
    bytes
}

/// A kind in the digest; it never changes, for the number that goes with the digest would.
fn mark(kind: AuthorityKind) -> u8 {
    match kind {
        AuthorityKind::X509 => 0,
        AuthorityKind::Control => 1,
    }
}

/// Keeps the server's own verifiers at the newest control roots. The first are there when this returns.
pub(crate) fn keep_control_roots(
    mut snapshots: watch::Receiver<Arc<TrustSnapshot>>,
    drain: &Drain,
) -> Arc<SharedRoots> {
    let shared = Arc::new(SharedRoots::new(snapshots.borrow_and_update().control_roots()));
    let (kept, ending) = (shared.clone(), drain.clone());
    drain.spawn_vital("control roots", async move {
        loop {
            tokio::select! {
                Ok(()) = snapshots.changed() => kept.store(snapshots.borrow_and_update().control_roots()),
                () = ending.signalled() => return,
            }
        }
    });
    shared
}

fn certificates(published: &[PublishedAuthority]) -> Vec<AuthorityCertificate> {
    published.iter().map(|one| one.certificate.clone()).collect()
}

fn roots(trust_domain: &TrustDomain, published: &[PublishedAuthority]) -> TrustRoots {
    let authorities = published
        .iter()
        .map(|one| TrustedAuthority {
            certificate: one.certificate.clone(),
            crl: Some(one.crl.clone()),
        })
        .collect();
    TrustRoots::new(vec![(trust_domain.clone(), authorities)])
}

#[cfg(test)]
mod tests;
