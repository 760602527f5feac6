//! Judges a server by the links that it shows after its leaf.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use signet_certs::authority::{AuthorityCertificate, AuthorityId};
use signet_certs::link::MAX_LINKS;
use signet_certs::tls::TrustSource;
use signet_certs::verify::{TrustRoots, inspect_leaf};
use signet_runtime::sync::Mutex;

use super::ControlAnchors;
use crate::server_client::trust::usable;

/// The source of trust of one attempt to connect: the anchors, and what the links of this server lead to from them. Nothing of it
/// outlives an attempt that fails.
#[derive(Debug)]
pub(crate) struct Following {
    anchors: Arc<ControlAnchors>,
    shown: Mutex<Shown>,
}

/// What the server showed.
#[derive(Debug, Default)]
struct Shown {
    /// The authority of its leaf.
    authority: Option<AuthorityId>,
    links: Vec<AuthorityCertificate>,
}

impl Following {
    pub(crate) fn new(anchors: Arc<ControlAnchors>) -> Arc<Self> {
        Arc::new(Self {
            anchors,
            shown: Mutex::default(),
        })
    }

    /// The handshake is over and the server verified: what its links lead to is an anchor until a push says what counts.
    pub(crate) fn verified(&self, now: SystemTime) {
        self.anchors.follow(&self.shown.lock().links, now);
    }

    /// Which authority's certificate the server showed; `None` when it was no SVID, or the handshake did not come to that.
    pub(crate) fn authority(&self) -> Option<AuthorityId> {
        self.shown.lock().authority
    }
}

impl TrustSource for Following {
    fn roots(&self) -> Arc<TrustRoots> {
        self.anchors.roots().load()
    }

    fn roots_by_links(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Option<Arc<TrustRoots>> {
        let (leaf, after) = chain.split_first()?;
        let link = |der: &CertificateDer<'_>| usable(der, &self.anchors.trust_domain).ok();
        let links: Vec<_> = after.iter().take(MAX_LINKS).filter_map(link).collect();
        let roots = self.anchors.roots_with(&links, now);
        *self.shown.lock() = Shown {
            authority: inspect_leaf(leaf).ok().map(|leaf| leaf.authority_id),
            links,
        };
        Some(Arc::new(roots))
    }
}
